"""The worker's CPU per task that does nothing, beside conductor-python's own runner on the same server."""

import importlib.util
import statistics

from .rig import OURS, SDK, WorkerProcess, busy_note, servers, spread, watch
from .table import Row

__all__ = ["rows"]

WHAT = "CPU per no-op task, libcurl ÷ conductor-python"
CURL, REQUESTS, THEIRS = "libcurl", "requests", "conductor-python"
CONTESTANTS = {
    CURL: {"program": OURS, "transport": "curl"},
    REQUESTS: {"program": OURS, "transport": "requests"},
    THEIRS: {"program": SDK},
}


def window(server, seconds, options):
    """One contestant at work."""
    server.fill(seconds + 5)
    with WorkerProcess([server], work=0, **options) as worker:
        worker.warm_up(server)
        return watch(worker, [server], seconds)


def rows(*, quick=False):
    """The rows; about 1½ minutes, or ½ if ``quick``."""
    rounds, seconds = (2, 4.0) if quick else (5, 5.0)
    chosen = {name: options for name, options in CONTESTANTS.items() if name != THEIRS or sdk_is_there()}
    found = {name: [] for name in chosen}
    with servers("one") as (server,):
        for _ in range(rounds):
            for name, options in chosen.items():
                found[name].append(window(server, seconds, options))
    costs = {name: [w.cpu / w.total for w in windows] for name, windows in found.items()}
    return [*compared(costs, found), *(absolute(name, costs[name], found[name]) for name in chosen)]


def compared(costs, found):
    """Ours as a part of theirs, round by round."""
    if THEIRS not in costs:
        return [Row(WHAT, None, floor=1 / 4, aim=1 / 8, note="needs make bench")]
    by_name = {name: [a / b for a, b in zip(costs[name], costs[THEIRS], strict=True)] for name in (CURL, REQUESTS)}
    note = f"{spread(by_name[CURL])}; {busy_note(found[CURL])}"
    return [
        Row(WHAT, statistics.median(by_name[CURL]), floor=1 / 4, aim=1 / 8, note=note),
        Row("… requests ÷ conductor-python", statistics.median(by_name[REQUESTS]), note=spread(by_name[REQUESTS])),
    ]


def absolute(name, costs, windows):
    """One contestant's own figure."""
    rate = statistics.median(window.total for window in windows)
    note = f"{rate:.0f} tasks/s; {busy_note(windows)}"
    return Row(f"… {name}", statistics.median(costs) * 1e6, "µs", note=note)


def sdk_is_there():
    """Whether conductor-python can be imported."""
    return importlib.util.find_spec("conductor") is not None
