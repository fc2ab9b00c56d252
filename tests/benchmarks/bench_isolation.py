"""What a healthy server loses by a sick neighbour, and what a slow one still gets."""

import statistics
from contextlib import contextmanager

from .rig import WorkerProcess, busy_note, servers, spread, watch
from .table import Row

__all__ = ["rows"]

FAULTS = {
    "slow (1 s)": {"latency": 1.0},
    "hung": {"hang": True},
    "swallowing": {"swallow": True},
    "refusing": {"refuse": True},
}
CAUGHT_UP = "caught up"
SLOW = FAULTS["slow (1 s)"]
SETTLED = 4.0  # seconds after its onset that a fault is old news


def alone(healthy, seconds):
    """The healthy server without a neighbour."""
    healthy.fill(seconds + 5)
    with WorkerProcess([healthy]) as worker:
        worker.warm_up(healthy)
        return watch(worker, [healthy], seconds)


def beside_fault(healthy, sick, faults, seconds):
    """The healthy server while its neighbour, which shared the worker until then, falls sick."""
    healthy.fill(seconds + 5)
    sick.fill(5)
    with WorkerProcess([healthy, sick]) as worker:
        worker.warm_up(healthy)
        with faulty(sick, faults):
            return watch(worker, [healthy], seconds)


def beside_idle(healthy, idle, seconds):
    """The healthy server while its neighbour has no tasks."""
    healthy.fill(seconds + 5)
    with WorkerProcess([healthy, idle]) as worker:
        worker.warm_up(healthy)
        return watch(worker, [healthy], seconds)


def served(slow, others, seconds):
    """Tasks a second of a server that answers every call 1 s late, beside ``others``."""
    slow.fill(5)
    with WorkerProcess([*others, slow]) as worker:
        worker.warm_up(slow)
        with faulty(slow, SLOW):
            worker.rest(SETTLED)
            return watch(worker, [slow, *others], seconds)


@contextmanager
def faulty(server, faults):
    """The server with these faults."""
    server.faults(**faults)
    try:
        yield
    finally:
        server.faults()


def compared(healthy, sick, idle, rounds, seconds):
    """By what the neighbour has: pairs of (window beside it, the healthy server's rate alone before and after)."""
    found = {what: [] for what in (*FAULTS, CAUGHT_UP)}
    before = alone(healthy, seconds)
    for _ in range(rounds):
        for what, pairs in found.items():
            if what in FAULTS:
                window = beside_fault(healthy, sick, FAULTS[what], seconds)
            else:
                window = beside_idle(healthy, idle, seconds)
            after = alone(healthy, seconds)
            pairs.append((window, (before.total + after.total) / 2))
            before = after
    return found


def rows(*, quick=False):
    """The rows; about 9 minutes, or 1½ if ``quick``."""
    with servers("healthy", "sick", "idle") as (healthy, sick, idle):
        found = compared(healthy, sick, idle, *((1, 5.0) if quick else (5, 8.0)))
        healthy.fill(60)
        beside = served(sick, [healthy], 10.0 if quick else 30.0)
        lonely = served(sick, [idle], 10.0 if quick else 20.0)
    return [
        *(ratio_row(what, pairs) for what, pairs in found.items()),
        alone_row([rate for pairs in found.values() for _, rate in pairs]),
        Row(
            "slow server beside a backlogged one",
            beside.rates["sick"],
            "tasks/s",
            floor=0.9,
            aim=1.0,
            note=f"the other one {beside.rates['healthy']:.0f} tasks/s",
        ),
        Row("slow server, the other one caught up", lonely.rates["sick"], "tasks/s", floor=4.0, aim=9.0),
    ]


def ratio_row(what, pairs):
    """How the healthy server did beside one that is ``what``."""
    ratios = [window.total / rate for window, rate in pairs]
    note = f"{spread(ratios)}; {busy_note([window for window, _ in pairs])}"
    return Row(f"healthy ÷ alone, neighbour {what}", statistics.median(ratios), floor=0.9, aim=0.97, note=note)


def alone_row(rates):
    """The absolute figure that the ratios stand on."""
    return Row("… alone, 10 ms tasks, 10 threads", statistics.median(rates), "tasks/s", note=spread(rates))
