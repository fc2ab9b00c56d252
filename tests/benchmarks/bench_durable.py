"""What an outbox costs a worker while nothing is wrong, and what a drain of ten thousand results costs the others."""

import json
import statistics
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conductor_adapter import ServerSettings, Task, TaskResult
from conductor_adapter.running.outbox import open_outbox
from resilience import Row as Kept

from .rig import TASK_TYPE, WorkerProcess, busy_note, servers, spread, watch
from .table import Row

__all__ = ["rows"]

BACKLOG = 10_000
BATCH = 500  # tasks a poll
LONGEST_DRAIN = 120.0
LOOKS = 0.2  # seconds between two looks at the file: each takes time from the work that is measured


def rows(*, quick=False):
    """The rows; about 2½ minutes, or 1 if ``quick``."""
    return [costs(quick=quick), *drains(BACKLOG // 4 if quick else BACKLOG)]


def costs(*, quick):
    """Tasks a second with an outbox ÷ without one, by alternating windows."""
    pairs, seconds = (2, 4.0) if quick else (5, 6.0)
    with servers("one") as chosen, tempfile.TemporaryDirectory() as folder:
        found = [
            window(chosen, seconds, outbox) for _ in range(pairs) for outbox in (None, str(Path(folder, "outbox.db")))
        ]
    ratios = [with_it.total / without.total for without, with_it in zip(found[::2], found[1::2], strict=True)]
    note = f"{spread(ratios)}; {busy_note(found)}"
    return Row("tasks/s with an outbox ÷ without", statistics.median(ratios), floor=0.97, aim=1.0, note=note)


def window(chosen, seconds, outbox):
    """One worker on a backlogged server."""
    for server in chosen:
        server.fill(seconds + 5)
    with WorkerProcess(chosen, outbox=outbox) as worker:
        worker.warm_up(chosen[0])
        return watch(worker, chosen, seconds)


def drains(backlog):
    """How long a server's ``backlog`` takes once it is there to be taken, and the work of both servers meanwhile."""
    with servers("one", "other") as chosen, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "outbox.db")
        with open_outbox(path) as outbox:
            waiting = write_down(outbox, chosen[1], backlog)
            for server in chosen:
                server.fill(30)
            with WorkerProcess(chosen, outbox=str(path)) as worker:
                worker.warm_up(chosen[0])
                outbox.claim({})  # they are ours until the window is over
                usual = watch(worker, chosen, 4.0)
                outbox.release(waiting)
                took, done = watch_drain(worker, chosen, outbox, backlog)
    return [
        Row(
            f"work while {backlog:,} results drain ÷ usual", done / took / usual.total, floor=0.9, aim=1.0,
            note=f"{usual.total:.0f} tasks/s usual; {busy_note([usual])}",
        ),
        Row("… the drain", took, "s"),
        Row("… results a second", backlog / took, "/s"),
    ]  # fmt: skip


def write_down(outbox, server, count):
    """Poll so many tasks of ``server`` and write down what came of them."""
    server.start_tasks(TASK_TYPE, count)
    identity = ServerSettings(server.name, server.url).identity
    tasks = [task for _ in range(count // BATCH) for task in polled(server)]

    def written(numbered):
        number, task = numbered
        result = TaskResult(task_id=task.task_id, workflow_id=task.workflow_id)
        return outbox.put(Kept(server.name, identity, task.task_id, number, result))

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(written, enumerate(tasks)))


def polled(server):
    """One batch of tasks."""
    url = f"{server.url}/tasks/poll/batch/{TASK_TYPE}?workerid=bench&count={BATCH}&timeout=100"
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own server
        return [Task.from_wire(entry) for entry in json.load(answer)]


def watch_drain(worker, chosen, outbox, backlog):
    """Seconds from when the worker has them until none waits, and the other results that servers took in that time."""
    left(worker, outbox, lambda stock: stock.free == 0)
    began, before = time.monotonic(), sum(server.counts()["updates"] for server in chosen)
    there = left(worker, outbox, lambda _: True)
    left(worker, outbox, lambda stock: stock.waiting == 0)
    took, after = time.monotonic() - began, sum(server.counts()["updates"] for server in chosen)
    return took, after - before - min(there, backlog)


def left(worker, outbox, holds):
    """Wait until it holds for what waits; returns how many results that are."""
    until = time.monotonic() + LONGEST_DRAIN
    while (stock := next(iter(outbox.stock()), None)) is not None and not holds(stock):
        if time.monotonic() > until:
            raise RuntimeError(f"after {LONGEST_DRAIN:g} s {stock.waiting} results still wait")
        worker.rest(LOOKS)
    return 0 if stock is None else stock.waiting
