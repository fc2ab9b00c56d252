"""The worker's CPU per task that does nothing: ten threads through the command line, beside conductor-python's own."""

import importlib.util
import statistics
from pathlib import Path

from .rig import SDK, Command, SwiftServer, WorkerProcess, busy_note, spread, watch
from .table import Row

__all__ = ["rows"]

WHAT = "CPU per no-op task, ten threads, libcurl ÷ conductor-python"
CURL, REQUESTS, THEIRS = "libcurl", "requests", "conductor-python"
TASKS = Path(__file__).with_name("no_op_tasks.py")
LIMITS = {CURL: {"floor": 0.14, "aim": 0.10}, REQUESTS: {"floor": 0.6, "aim": 0.5}}


def contestant(name, server):
    """The process of one of them."""
    if name == THEIRS:
        return WorkerProcess([server], program=SDK, work=0)
    return Command(server, TASKS, transport="curl" if name == CURL else name)


def window(name, seconds):
    """One contestant at work."""
    with SwiftServer() as server, contestant(name, server) as worker:
        worker.warm_up(server)
        return watch(worker, [server], seconds)


def rows(*, quick=False):
    """The rows; about 1½ minutes, or ½ if ``quick``."""
    rounds, seconds = (2, 4.0) if quick else (5, 5.0)
    chosen = [CURL, REQUESTS, *([THEIRS] if sdk_is_there() else [])]
    found = {name: [] for name in chosen}
    for _ in range(rounds):
        for name in chosen:
            found[name].append(window(name, seconds))
    costs = {name: [w.cpu / w.total for w in windows] for name, windows in found.items()}
    return [*compared(costs, found), *(absolute(name, costs[name], found[name]) for name in chosen)]


def compared(costs, found):
    """Ours as a part of theirs, round by round."""
    if THEIRS not in costs:
        return [Row(WHAT, None, **LIMITS[CURL], note="needs make bench")]
    by_name = {name: [a / b for a, b in zip(costs[name], costs[THEIRS], strict=True)] for name in (CURL, REQUESTS)}
    note = f"{spread(by_name[CURL])}; {busy_note(found[CURL])}"
    return [
        Row(WHAT, statistics.median(by_name[CURL]), **LIMITS[CURL], note=note),
        Row(
            "… requests ÷ conductor-python",
            statistics.median(by_name[REQUESTS]),
            **LIMITS[REQUESTS],
            note=spread(by_name[REQUESTS]),
        ),
    ]


def absolute(name, costs, windows):
    """One contestant's own figure."""
    rate = statistics.median(window.total for window in windows)
    note = f"{rate:.0f} tasks/s; {busy_note(windows)}"
    return Row(f"… {name}", statistics.median(costs) * 1e6, "µs", note=note)


def sdk_is_there():
    """Whether conductor-python can be imported."""
    return importlib.util.find_spec("conductor") is not None
