"""Whether a worker that has done a million tasks needs more memory than one that has done ten thousand.

Where other processes want the machine too, a worker meets its first stalls later than that: the threads and connections
that take over while a server is silent are made then, once. The second row leaves them out: it says what tasks cost.
"""

from .rig import WorkerProcess, servers
from .table import Row

__all__ = ["rows"]

FIRST = 10_000
SETTLED = 100_000


def rows(*, quick=False):
    """The rows; about 10 minutes, or 1 if ``quick``: a hundred thousand tasks then, which is too few for the limit."""
    counts = (FIRST, SETTLED) if quick else (FIRST, SETTLED, 1_000_000)
    with servers("one") as (server,):
        server.fill(10)
        with WorkerProcess([server], work=0) as worker:
            sizes = {tasks: usage(worker, server, tasks) for tasks in counts}
    first = ratio(sizes, FIRST, **({} if quick else {"floor": 1.05, "aim": 1.0}))
    return [first] if quick else [first, ratio(sizes, SETTLED)]


def ratio(sizes, early, **limits):
    """Memory at the end by that after ``early`` tasks."""
    late = max(sizes)
    note = f"{shown(sizes[early])}, then {shown(sizes[late])}"
    return Row(
        f"memory after {late:,} tasks ÷ after {early:,}",
        sizes[late]["resident"] / sizes[early]["resident"],
        **limits,
        note=note,
    )


def shown(told):
    """How large a worker is, and on how many threads."""
    return f"{told['resident'] / 2**20:.1f} MiB with {told['threads']} threads"


def usage(worker, server, tasks):
    """What the worker says of itself once ``tasks`` are done."""
    while server.counts()["updates"] < tasks:
        server.fill(10)
        worker.rest(1.0)
    return worker.usage()
