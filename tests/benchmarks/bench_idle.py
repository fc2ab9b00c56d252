"""What a worker costs that has nothing to do."""

from .rig import WorkerProcess, servers, watch
from .table import Row

__all__ = ["rows"]

SETTLED = 3.0


def rows(*, quick=False):
    """The rows; a quarter of a minute."""
    with servers("one", "other") as both, WorkerProcess(both) as worker:
        worker.rest(SETTLED)
        before = worker.usage()["switches"], sum(server.counts()["polls"] for server in both)
        seconds = 5.0 if quick else 10.0
        window = watch(worker, both, seconds)
        polls = (sum(server.counts()["polls"] for server in both) - before[1]) / seconds
        wakeups = (window.usage["switches"] - before[0]) / seconds
    note = f"{polls:.3g} polls and {wakeups:.3g} wake-ups a second"
    return [Row("idle worker, two servers: CPU", 100 * window.cpu, "% of a core", floor=2, aim=0.5, note=note)]
