"""Whether a worker that has done a million tasks needs more memory than one that has done ten thousand."""

from .rig import WorkerProcess, servers
from .table import Row

__all__ = ["rows"]

FIRST = 10_000


def rows(*, quick=False):
    """The rows; about 10 minutes, or 1 if ``quick``: a hundred thousand tasks then, which is too few for the limit."""
    last = 100_000 if quick else 1_000_000
    with servers("one") as (server,):
        server.fill(10)
        with WorkerProcess([server], work=0) as worker:
            early, late = (memory(worker, server, tasks) for tasks in (FIRST, last))
    limits = {} if quick else {"floor": 1.05, "aim": 1.0}
    note = f"{late / 2**20:.1f} MiB"
    return [Row(f"memory after {last:,} tasks ÷ after {FIRST:,}", late / early, **limits, note=note)]


def memory(worker, server, tasks):
    """Bytes that the worker has resident once ``tasks`` are done."""
    while server.counts()["updates"] < tasks:
        server.fill(10)
        worker.rest(1.0)
    return worker.usage()["resident"]
