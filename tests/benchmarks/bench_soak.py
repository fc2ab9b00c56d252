"""What a worker leaves behind that does a million tasks beside a server that falls sick again and again.

The sick server first takes results without an answer, then hangs; each lasts longer than the worker waits inline, so
that results go into the outbox and come out of it again. The first time is over before anything is measured: the
threads and connections that take over while a server is silent are made then, once.
"""

import math
import tempfile
import time
from pathlib import Path

from .rig import WorkerProcess, servers
from .table import Row

__all__ = ["rows"]

FIRST = 10_000
LAST = 1_000_000
LAST_IF_QUICK = 100_000
BETWEEN = 50_000  # tasks from one time of trouble to the next
TROUBLE = ({"swallow": True, "only": "updates"}, {"hang": True})
LASTS = 15.0
RECOVERS = 10.0
STILL = 240.0  # seconds without a task done, after which none will be
AGAIN = {"responseTimeoutSeconds": 150, "retryCount": 3, "retryDelaySeconds": 0}  # of tasks in answers that got lost
AHEAD = 5  # seconds for which tasks wait


def rows(*, quick=False):
    """The rows; about 20 minutes, or 3 if ``quick``: a hundred thousand tasks then."""
    last = LAST_IF_QUICK if quick else LAST
    with servers("steady", "troubled") as both, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "outbox.db")
        for server in both:
            server.fill(AHEAD, **AGAIN)
        with WorkerProcess(both, work=0, outbox=str(path)) as worker:
            worker.warm_up(both[0])
            trouble(worker, both)
            early = told(worker, both, path, FIRST)
            for tasks in range(BETWEEN, last, BETWEEN):
                until(worker, both, tasks)
                trouble(worker, both)
            late = told(worker, both, path, last)
            lost = left(worker, both)
        again = sum(len(server.handed_out(least=2)) for server in both)
    return [*compared(early, late, quick=quick), books(lost, again, last)]


def trouble(worker, both):
    """One server falls sick, and is well again."""
    for server in both:
        server.fill(2 * LASTS, **AGAIN)
    for faults in TROUBLE:
        both[1].faults(**faults)
        worker.rest(LASTS)
    both[1].faults()
    worker.rest(RECOVERS)


def until(worker, both, tasks):
    """Let it work until the servers have taken so many results."""
    while sum(server.counts()["updates"] for server in both) < tasks:
        for server in both:
            server.fill(AHEAD, **AGAIN)
        worker.rest(1.0)


def told(worker, both, path, tasks):
    """What the worker says of itself after so many tasks, and the KiB of its outbox on the disk."""
    until(worker, both, tasks)
    kept = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    return {**worker.usage(), "tasks": tasks, "disk": kept / 1024}


def left(worker, both):
    """How many tasks are not done once nothing more is added and nothing moves any more."""
    missing, moved_at = math.inf, time.monotonic()
    while missing and time.monotonic() < moved_at + STILL:
        before, missing = missing, sum(unfinished(server) for server in both)
        if missing < before:
            moved_at = time.monotonic()
        worker.rest(1.0)
    return missing


def unfinished(server):
    """Runs of one task each that are not completed."""
    return sum(count for status, count in server.runs().items() if status != "COMPLETED")


def compared(early, late, *, quick):
    """What has grown between the two."""
    limits = {} if quick else {"floor": 1.05, "aim": 1.0}
    between = f"after {late['tasks']:,} tasks"
    note = f"{early['resident'] / 2**20:.1f}, then {late['resident'] / 2**20:.1f} MiB"
    memory = Row(
        f"soak: memory {between} ÷ after {early['tasks']:,}", late["resident"] / early["resident"], note=note, **limits
    )
    return [memory, *(grown(early, late, what, between) for what in ("threads", "files", "disk"))]


def grown(early, late, what, between):
    """How many more there are in the end."""
    name, unit = {"threads": ("threads", ""), "files": ("open files", ""), "disk": ("outbox on disk", "KiB")}[what]
    note = f"{early[what]:.0f}, then {late[what]:.0f}"
    return Row(f"… {name}, more {between}", late[what] - early[what], unit, note=note)


def books(lost, again, tasks):
    """What became of the tasks; the benchmark has failed if one was lost."""
    return Row(
        f"… of {tasks:,} tasks lost",
        lost,
        "",
        note=f"{again} handed out more than once: given back, or in an answer that got lost",
        failed=lost > 0,
    )
