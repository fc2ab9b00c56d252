"""Several real processes on one outbox: who sends what, and what becomes of those that die or freeze."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from resilience import Outbox, Row

GUARD = 60.0
CLAIM_FOR = 3.0  # seconds; shorter ones could run out on a busy machine
EU = {"eu": "http://eu"}
PROGRAM = Path(__file__).parents[3] / "support" / "outbox_worker.py"


class Worker:
    """One process of `outbox_worker`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(  # noqa: S603 - our own Python
            [sys.executable, PROGRAM, folder / "outbox.db", folder, str(CLAIM_FOR), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *command: object) -> dict[str, int]:
        """Let it do something; returns what its relay counts afterwards."""
        print(*command, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def signal(self, number: signal.Signals) -> None:
        """Kill, freeze or thaw it."""
        self.process.send_signal(number)

    def end(self) -> None:
        """Let it go in good order."""
        self.process.communicate(timeout=GUARD)
        assert self.process.returncode == 0


class Crew:
    """Processes that share a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.down = folder / "down"
        self.workers: list[Worker] = []

    def start(self, name: str) -> Worker:
        """One more; it is there when this returns."""
        worker = Worker(self.folder, name)
        self.workers.append(worker)
        worker.ask("view")
        return worker

    def sent(self) -> list[list[object]]:
        """What the destination heard: ``[begins or ends, payload, who]``."""
        file = self.folder / "sent"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def taken(self) -> Counter[tuple[object, ...]]:
        """How often each result was taken."""
        return Counter(tuple(payload) for what, payload, _ in self.sent() if what == "ends")


@pytest.fixture
def crew(tmp_path):
    """Nobody yet; whoever is left is killed."""
    crew = Crew(tmp_path)
    yield crew
    for worker in crew.workers:
        worker.process.kill()
        worker.process.communicate()


def until(reached):
    """Wait for something that nobody announces."""
    pause = threading.Event()
    for _ in range(int(GUARD * 100)):
        if reached():
            return
        pause.wait(0.01)
    raise AssertionError("waited in vain")


def never_at_once(sent) -> bool:
    """Whether no result was being sent twice at any moment."""
    running: set[tuple[object, ...]] = set()
    for what, payload, _ in sent:
        if what == "begins" and tuple(payload) in running:
            return False
        (running.add if what == "begins" else running.discard)(tuple(payload))
    return True


def in_order(sent) -> bool:
    """Whether the results of each key arrived in the order in which they were brought."""
    lines: dict[object, list[int]] = {}
    for what, (writer, number), _ in sent:
        if what == "ends":
            lines.setdefault((writer, number % 7), []).append(number)
    return all(line == sorted(line) for line in lines.values())


def test_d7_rows_of_a_killed_process_are_taken_over_by_one_of_the_others(crew):
    """By exactly one, in their order, once its claim has run out: nothing is lost, nothing sent by two."""
    crew.down.touch()
    dead, *others = (crew.start(name) for name in ("dead", "one", "other"))
    assert dead.ask("put", 100)["written"] == 100
    for other in others:
        other.ask("put", 30)
    dead.signal(signal.SIGKILL)
    crew.down.unlink()

    until(lambda: len(crew.taken()) == 160)
    inherited = [other.ask("close", 10)["inherited"] for other in others]
    for other in others:
        other.end()

    assert sum(inherited) == 100
    assert set(crew.taken().values()) == {1}
    assert never_at_once(crew.sent())
    assert in_order(crew.sent())
    with Outbox(crew.folder / "outbox.db") as outbox:
        assert outbox.stock() == ()


def test_d7_a_process_frozen_past_its_claim_does_not_send_what_it_lost(crew):
    """It looks whose its rows are before it sends anything."""
    crew.down.touch()
    frozen = crew.start("frozen")
    frozen.ask("put", 50)
    other = crew.start("other")
    frozen.signal(signal.SIGSTOP)
    until(lambda: other.ask("view")["inherited"] == 50)
    crew.down.unlink()
    until(lambda: len(crew.taken()) == 50)

    frozen.signal(signal.SIGCONT)
    view = frozen.ask("close", 10)
    frozen.end()
    other.end()

    assert (view["passed"], view["delivered"], view["waiting"]) == (50, 0, 0)
    assert {who for _, _, who in crew.sent()} == {"other"}
    assert set(crew.taken().values()) == {1}


def test_d7_the_next_process_has_at_once_what_was_left_in_good_order(crew):
    """It does not wait for a claim; order per key holds across the restart."""
    crew.down.touch()
    first = crew.start("first")
    first.ask("put", 40)
    assert first.ask("close", 0.2)["left"] == 40
    first.end()
    crew.down.unlink()
    second = crew.start("second")

    assert second.ask("view")["inherited"] == 40
    second.ask("close", 10)
    second.end()
    assert set(crew.taken().values()) == {1}
    assert in_order(crew.sent())


def test_d2_every_put_that_returned_survives_a_kill_in_the_middle(crew):
    """At whatever moment: what the process was told is written is written."""
    crew.down.touch()
    for number in range(5):
        victim = crew.start(f"victim{number}")
        victim.ask("put", 20)
        print("put", 500, file=victim.process.stdin, flush=True)
        threading.Event().wait(0.01 * number)
        victim.signal(signal.SIGKILL)
        victim.process.wait(GUARD)

    with Outbox(crew.folder / "outbox.db") as outbox:
        assert outbox._desk._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert outbox.stock()[0].waiting >= 100


def row(number: int) -> Row:
    """A result."""
    return Row("eu", "http://eu", "k", number, number)


def in_child(work) -> int:
    """Fork, work there; returns the pid."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def waited(child: int) -> None:
    """It ended well."""
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_has_an_outbox_of_its_own(tmp_path):
    """It owns nothing of its parent's, its rows are its own, and the parent goes on as if nothing had been."""
    clock = [1000.0]
    with Outbox(tmp_path / "outbox.db", clock=lambda: clock[0]) as outbox:
        mine = outbox.put(row(1))

        def work():
            assert outbox.claim(EU).rows == ()
            outbox.put(row(2))
            assert [stock.waiting for stock in outbox.stock()] == [2]

        waited(in_child(work))

        assert outbox.claim(EU).lost == frozenset()
        assert outbox.put(row(3)).id > mine.id
        outbox.remove(mine)
        assert outbox.stock()[0].waiting == 2
        clock[0] += 15.0
        with Outbox(tmp_path / "outbox.db", clock=lambda: clock[0]) as later:
            assert sorted(found.number for found in later.claim(EU).rows) == [2, 3]


@pytest.mark.filterwarnings("ignore:.*fork")
def test_what_a_child_writes_survives_the_end_of_its_parents_outbox(tmp_path):
    """The parent closes as if it were the last; the child's log is not taken from under it."""
    outbox = Outbox(tmp_path / "outbox.db")
    closed, closing = os.pipe()
    written, writing = os.pipe()

    def work():
        outbox.put(row(1))
        os.write(writing, b"!")
        os.read(closed, 1)
        outbox.put(row(2))
        outbox.close()

    child = in_child(work)
    os.read(written, 1)
    outbox.close()
    os.write(closing, b"!")
    waited(child)

    with Outbox(tmp_path / "outbox.db") as outbox:
        assert outbox.stock()[0].waiting == 2


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_while_others_write_disturbs_nobody(tmp_path):
    """Threads put, read and fork at the same time; everything is there in the end."""
    with Outbox(tmp_path / "outbox.db") as outbox:
        over, put = threading.Event(), []

        def unit():
            while not over.is_set():
                put.append(outbox.put(row(len(put))))
                outbox.stock()

        units = [threading.Thread(target=unit) for _ in range(3)]
        for thread in units:
            thread.start()
        for _ in range(10):
            waited(in_child(lambda: outbox.put(row(0))))
        over.set()
        for thread in units:
            thread.join(GUARD)

        assert outbox.stock()[0].waiting == len(put) + 10
        assert outbox._desk._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
