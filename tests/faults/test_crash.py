"""``kill -9`` at random instants: what the worker had handed over reaches its server all the same.

As many as ``CRASHES=2000`` says. A line of the delivery path is as likely as any other; a quarter die by the clock.
"""

import json
import os
import random
import signal
import urllib.request
from collections import Counter
from pathlib import Path

import attrs
import pytest
from crash.life import NEVER, Orders
from crash.nursery import Nursery
from fault_kit import until

from conductor_adapter.dev_server import DevServerProcess
from conductor_adapter.running.outbox import open_outbox

CRASHES = int(os.environ.get("CRASHES", "25"))
TASKS = 8  # for each life
LONGEST = 0.4  # seconds of a life
SICK = (
    {"error": 503, "only": "updates"},
    {"swallow": True, "only": "updates", "times": 3},  # results arrive, and their answers are lost
    {"hang": True, "only": "updates"},
    {"latency": 0.15, "only": "updates"},
    {"refuse": True},
    {"error": 500, "only": "updates", "times": 4},
)


@attrs.frozen
class Books:
    """What the lives noted: by process, by task, and by file."""

    began: dict[str, list[str]] = attrs.field(factory=dict)
    started: dict[str, list[str]] = attrs.field(factory=dict)
    handed_over: dict[str, list[str]] = attrs.field(factory=dict)
    died: dict[str, list[str]] = attrs.field(factory=dict)  # by file: the lines


def read(notes):
    """The books of all lives; a line is there as a whole or not at all."""
    books = Books()
    for line in notes.read_text().splitlines():
        what, who, nonce = line.split()
        getattr(books, what).setdefault(who, []).append(nonce)
    return books


def task_of(server, task_id):
    """A task as its server has it."""
    with urllib.request.urlopen(f"{server.url}/tasks/{task_id}", timeout=30) as answer:  # noqa: S310 - our own server
        return json.load(answer)


def drawn(random_, orders):
    """Orders for one life, with an end of its own."""
    if random_.random() < 0.25:
        return attrs.evolve(orders, seconds=random_.uniform(0.01, LONGEST))
    line = int(10 ** random_.uniform(0.0, 3.7))
    return attrs.evolve(orders, line=line, opening=random_.random() < 0.2, seconds=LONGEST)


def crash(server, nursery, orders, random_):
    """Lives with tasks and a server that is mostly ill, until enough were killed."""
    for _ in range(CRASHES):
        server.faults(**(random_.choice(SICK) if random_.random() < 0.8 else {}))
        server.start_tasks(orders.task_type, TASKS, responseTimeoutSeconds=3600, retryCount=0)
        nursery.start(drawn(random_, orders))
        assert nursery.wait() == -signal.SIGKILL


def drain(server, nursery, orders, notes):
    """A last life on a server that is well: it ends when nothing waits any more, by SIGTERM."""
    server.faults()
    process = nursery.start(orders)
    outbox = open_outbox(orders.outbox)
    try:
        until(lambda: str(process) in read(notes).began, "the last life has begun", 60)
        until(
            lambda: not any(stock.waiting for stock in outbox.stock()),
            "all that was handed over is gone from the outbox",
            60,
        )
        assert not outbox.dead_letters()
    finally:
        outbox.close()
    os.kill(process, signal.SIGTERM)
    assert nursery.wait() == 0


@pytest.mark.no_cover
@pytest.mark.many
def test_d2_what_was_handed_over_survives_kill_9_at_any_line_of_the_delivery_path(tmp_path):
    """Every result that the outbox answered for reaches its server; no attempt is executed twice, and none for nothing.

    A task whose worker was killed before that is still assigned: its response timeout, an hour here, starts it again.
    """
    random_ = random.Random(20_261_124)  # the same instants in every run, as far as threads allow
    notes = tmp_path / "notes"
    with DevServerProcess(name="eu") as server, Nursery() as nursery:
        orders = Orders(url=server.url, task_type="crashing", outbox=str(tmp_path / "outbox.db"), notes=str(notes))
        crash(server, nursery, orders, random_)
        drain(server, nursery, orders, notes)
        books = read(notes)
        handed_over = {task: task_of(server, task) for task in books.handed_over}
        lost = [task for task in books.started if task_of(server, task)["status"] != "COMPLETED"]
        runs = server.runs("crashing")

    assert len(handed_over) > CRASHES / 2, "too few results were handed over: the test shows nothing"
    for task, shown in handed_over.items():
        assert shown["status"] == "COMPLETED", f"task {task} was handed over and is {shown['status']}"
        assert shown["outputData"]["nonce"] in books.started[task]
    twice = {task: nonces for task, nonces in books.started.items() if len(nonces) > 1}
    assert not twice, f"executed more than once within one attempt: {twice}"
    assert not set(lost) & set(books.handed_over)
    outbox = [path for path in books.died if Path(path).parent.name == "outbox"]
    assert len(outbox) >= CRASHES / 70, f"kills hardly ever fell into the outbox: {sorted(books.died)}"
    assert len(lost) <= 3 * CRASHES, "more were lost than threads were killed"
    assert Counter(runs).total() == TASKS * CRASHES
    assert orders.line == NEVER
