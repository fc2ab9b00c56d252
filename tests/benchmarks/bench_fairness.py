"""How two backlogged servers share a worker that runs one task at a time."""

from .rig import WorkerProcess, busy_note, servers, watch
from .table import Row

__all__ = ["rows"]


def rows(*, quick=False):
    """The rows; a quarter of a minute."""
    seconds = 5.0 if quick else 10.0
    with servers("one", "other") as both:
        for server in both:
            server.fill(seconds + 5)
        with WorkerProcess(both, threads=1) as worker:
            worker.warm_up(both[0])
            window = watch(worker, both, seconds)
    ran, busy = window.usage["ran"], busy_note([window])
    least = min(ran.get(server.name, 0) for server in both)
    return [
        Row("1 thread, two servers: least share", 100 * least / sum(ran.values()), "%", floor=45, aim=50, note=busy),
        Row("1 thread, two servers: longest run of one", window.usage["longest_run"], "tasks", floor=3, aim=2),
        Row("… 10 ms tasks", window.total, "tasks/s"),
    ]
