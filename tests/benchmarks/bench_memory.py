"""Whether a worker that has done a million tasks needs more memory than one that has done ten thousand."""

from .rig import WorkerProcess, servers
from .table import Row

__all__ = ["rows"]

FIRST = 10_000


def rows(*, quick=False):
    """The rows; about 10 minutes, or 1 if ``quick``: a hundred thousand tasks then."""
    last = 100_000 if quick else 1_000_000
    with servers("one") as (server,):
        server.fill(10)
        with WorkerProcess([server], work=0) as worker:
            early, late = (memory(worker, server, tasks) for tasks in (FIRST, last))
    return [
        Row(f"memory after {last:.0e} tasks ÷ after {FIRST:.0e}", late / early, floor=1.05, aim=1.0),
        Row("… after the last one", late / 2**20, "MiB"),
    ]


def memory(worker, server, tasks):
    """Bytes that the worker has resident once ``tasks`` are done."""
    while server.counts()["updates"] < tasks:
        server.fill(10)
        worker.rest(1.0)
    return worker.usage()["resident"]
