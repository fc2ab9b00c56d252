"""Whether two healthy servers keep a worker as busy as one does."""

import statistics

from .rig import WorkerProcess, busy_note, servers, spread, watch
from .table import Row

__all__ = ["rows"]


def window(chosen, seconds):
    """One worker on the ``chosen`` servers, all of them backlogged."""
    for server in chosen:
        server.fill(seconds + 5)
    with WorkerProcess(chosen) as worker:
        worker.warm_up(chosen[0])
        return watch(worker, chosen, seconds)


def rows(*, quick=False):
    """The rows; about 1½ minutes, or ½ if ``quick``."""
    pairs, seconds = (2, 4.0) if quick else (5, 6.0)
    with servers("one", "other") as (one, other):
        found = [window([one], seconds)]
        for _ in range(pairs):
            found += [window([one, other], seconds), window([one], seconds)]
    lone, both = found[::2], found[1::2]
    ratios = [
        2 * pair.total / (before.total + after.total)
        for before, pair, after in zip(lone[:-1], both, lone[1:], strict=True)
    ]
    cpu = [
        pair.cpu / pair.total * 2 / (before.cpu / before.total + after.cpu / after.total)
        for before, pair, after in zip(lone[:-1], both, lone[1:], strict=True)
    ]
    shares = [pair.rates["one"] / pair.total for pair in both]
    note = f"{spread(ratios)}; {busy_note(found)}"
    return [
        Row("two healthy servers ÷ one, tasks/s", statistics.median(ratios), floor=0.95, aim=1.0, note=note),
        Row("… worker CPU per task", statistics.median(cpu), note=spread(cpu)),
        Row("… share of the one named first", 100 * statistics.median(shares), "%"),
    ]
