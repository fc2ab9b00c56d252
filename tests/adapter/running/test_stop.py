"""Stopping, stage by stage, under a server that answers when it is told to; and under servers that do not answer."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest
from fault_kit import quick, until
from hearing import GUARD, Heard

from conductor_adapter import Books, DevServer, ServerSettings, StopReport, WorkerRunner, WorkerSpec
from conductor_adapter.running import lifecycle
from conductor_adapter.running.lifecycle import Phase
from conductor_adapter.running.signals import run_until_signal
from conductor_adapter.server import ConductorServer
from conductor_adapter.transports import choose, drive
from conductor_adapter.wire import HttpAnswer, HttpCall, TransportError, TransportErrorKind
from resilience import GaveBack, ItemsArrivedLate, PollTimedOut

POLL, RESULT, V2, BACK = "poll", "result", "v2", "give back"


class Script:
    """A transport to Conductor servers in memory, which share their tasks.

    Attributes:
        tasks: what waits to be polled, as it goes over the wire.
        seen: every call, and the id of its task, in the order in which they came.
        bodies: what was posted, by kind and task.
        gates: a call of that kind waits until its gate opens; one that does not open in time is a timeout.
        brings: what the answer to the next update-v2 brings.
    """

    bounded = True

    def __init__(self, *tasks: str) -> None:
        self.tasks = [wire(name) for name in tasks]
        self.seen: list[tuple[str, str]] = []
        self.bodies: dict[tuple[str, str], dict[str, Any]] = {}
        self.gates: dict[str, threading.Event] = {}
        self.brings: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """Answer as Conductor does, when the gate is open."""
        body = json.loads(call.body or b"{}")
        kind, task = kind_of(call, body), body.get("taskId", "")
        with self._lock:
            self.seen.append((kind, task))
            self.bodies[kind, task] = body
        gate = self.gates.get(kind)
        if gate is not None and not gate.wait(timeout):
            raise TransportError(TransportErrorKind.TIMEOUT, "no answer")
        if kind == POLL:
            return HttpAnswer(200, {}, json.dumps(self._take(call)).encode())
        if kind == V2:
            return HttpAnswer(200, {}, json.dumps(self.brings.pop()).encode()) if self.brings else HttpAnswer(204)
        return HttpAnswer(200, {}, task.encode())

    def _take(self, call: HttpCall) -> list[dict[str, Any]]:
        count = int(call.query.partition("count=")[2].partition("&")[0])
        with self._lock:
            taken, self.tasks = self.tasks[:count], self.tasks[count:]
        if not taken:
            threading.Event().wait(0.02)
        return taken

    def close(self) -> None:
        """Nothing is open."""

    def count(self, kind: str) -> int:
        """How many calls of that kind there were."""
        return sum(one == kind for one, _ in list(self.seen))


class Stage:
    """A worker on some servers of one script.

    Attributes:
        script: what the servers do.
        work: what the tasks do.
        heard: what happened.
        runner: the worker.
    """

    def __init__(self, *tasks: str, threads: int = 1, relay: Any = None, max_hold: float = 2 * GUARD) -> None:
        self.script, self.work, self.heard, self.threads = Script(*tasks), Work(), Heard(), threads
        names = ("eu", "us", "ap")[: max(1, len(tasks))]  # each is asked for one at the start
        config = quick(lambda _: self.script, poll={"max_hold": max_hold}, relay=relay)
        servers = [ServerSettings(name, f"http://{name}/api") for name in names]
        self.runner = WorkerRunner([self.work.spec(threads)], servers, config=config, on_event=self.heard)

    @property
    def books(self) -> Books:
        """Those of all servers."""
        return sum(self.runner.books().values(), Books())

    def until(self, **counts: int) -> None:
        """Wait until the books say so."""
        until(lambda: attrs.asdict(self.books).items() >= counts.items(), lambda: f"{self.books} {self.script.seen}")

    def hold_one(self) -> None:
        """Start; as many tasks run as there are threads, and the last one is held."""
        self.runner.start()
        for _ in range(self.threads):
            self.work.wait_started()
        self.until(held=1)


def wire(name: str) -> dict[str, Any]:
    """A task as it goes over the wire, with output of its own."""
    return {"taskId": name, "workflowInstanceId": "w", "outputData": {"so far": name}}


def kind_of(call: HttpCall, body: dict[str, Any]) -> str:
    """What a call is for."""
    if call.method == "GET":
        return POLL
    if body["status"] == "IN_PROGRESS":
        return BACK
    return V2 if call.path.endswith("v2") else RESULT


class Work:
    """A task function whose runs can be seen and held up."""

    def __init__(self) -> None:
        self.started, self.release = threading.Semaphore(0), threading.Event()

    def __call__(self) -> None:
        """Run until released."""
        self.started.release()
        assert self.release.wait(GUARD)

    def spec(self, threads: int = 1) -> WorkerSpec:
        """A worker that does this."""
        return WorkerSpec(task_type="t", function=self, threads=threads)

    def wait_started(self) -> None:
        """Wait until one more has started."""
        assert self.started.acquire(timeout=GUARD)


@pytest.fixture
def apart() -> Iterator[ThreadPoolExecutor]:
    """A thread to stop in."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_stop_goes_through_its_stages_in_order(apart: ThreadPoolExecutor) -> None:
    """No more polls; un-started tasks go back while others still run; those finish; then what waits is delivered."""
    stage = Stage("a", "b")
    script = stage.script
    stage.hold_one()
    script.gates[RESULT] = script.gates[V2] = threading.Event()

    stopping = apart.submit(stage.runner.stop)
    stage.heard.wait_for(GaveBack, count=1, reason="stopping")
    polls = script.count(POLL)
    assert (stage.books.given_back, stage.books.unfinished, script.count(RESULT)) == (1, 1, 0)
    stage.work.release.set()
    stage.until(finished=1, waiting=1)
    assert not stopping.done()
    script.gates[RESULT].set()
    report = stopping.result(GUARD)

    assert report.clean
    assert script.count(POLL) == polls
    assert stage.books == Books(polled=2, started=1, finished=1, given_back=1, updated=1, outboxed=1)
    assert stage.books == sum(report.books.values(), Books())


def test_task_that_goes_back_keeps_its_own_output_and_is_due_at_once(apart: ThreadPoolExecutor) -> None:
    """It is as it was before the poll: what it had written stays, and nobody has to wait for it."""
    stage = Stage("a", "b")
    stage.hold_one()

    stopping = apart.submit(stage.runner.stop)
    stage.heard.wait_for(GaveBack)
    stage.work.release.set()
    assert stopping.result(GUARD).clean

    (told,) = (body for (kind, _), body in stage.script.bodies.items() if kind == BACK)
    assert (told["status"], told["callbackAfterSeconds"]) == ("IN_PROGRESS", 0)
    assert told["outputData"] == {"so far": told["taskId"]}


def waits(server: DevServer) -> int:
    """How many tasks can be polled."""
    transport = choose("curl")(server.settings)
    try:
        return drive(ConductorServer(server.settings).queue_size("t"), transport, GUARD)
    finally:
        transport.close()


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_task_that_a_poll_brings_while_stopping_goes_back(transport: str) -> None:
    """The stop waits for the poll, until it is overdue, and then until its server has the task again."""
    with DevServer(name="eu") as eu:
        eu.start_tasks("t", 1)
        eu.faults.set(latency=0.3, only="polls")
        patient = quick(transport, poll={"overdue_after": 5.0, "poll_timeout": GUARD, "give_up_after": 2 * GUARD})
        runner = WorkerRunner([Work().spec()], [eu.settings], config=patient)
        with runner:
            until(lambda: runner.view()["eu"].in_flight, runner.view)
            report = runner.stop()

        assert report == StopReport()
        assert report.books["eu"] == Books(polled=1, given_back=1)
        assert waits(eu) == 1


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_task_that_an_abandoned_poll_brings_after_the_stop_goes_back(transport: str) -> None:
    """Nobody waits for it, but as long as the process lives its server gets the task back at once."""
    heard = Heard()
    with DevServer(name="eu") as eu:
        eu.start_tasks("t", 1)
        eu.faults.set(latency=1.2, only="polls")
        runner = WorkerRunner([Work().spec()], [eu.settings], config=quick(transport), on_event=heard)
        with runner:
            heard.wait_for(PollTimedOut)
            report = runner.stop()

        assert report.clean
        assert report.books["eu"].polled == 0
        heard.wait_for(GaveBack, source="eu", count=1)
        until(lambda: runner.books()["eu"] == Books(polled=1, given_back=1, late=1), runner.books)
        assert waits(eu) == 1


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_task_that_a_poll_brings_after_a_stop_without_grace_goes_back(transport: str) -> None:
    """The same for a poll that had just been sent."""
    heard = Heard()
    with DevServer(name="eu") as eu:
        eu.start_tasks("t", 1)
        eu.faults.set(latency=0.3, only="polls")
        runner = WorkerRunner([Work().spec()], [eu.settings], config=quick(transport), on_event=heard)
        with runner:
            until(lambda: runner.view()["eu"].in_flight, runner.view)
            runner.stop(0.0)

        heard.wait_for(GaveBack, source="eu", count=1)
        until(lambda: runner.books()["eu"].given_back == 1, runner.books)
        assert waits(eu) == 1


def chained() -> Stage:
    """A worker whose first result is out with an update-v2 that does not come back, and that its unit has left."""
    stage = Stage("first", relay={"inline_timeout": 0.1, "slow_after": 0.05, "send_timeout": GUARD})
    stage.script.gates[V2] = threading.Event()
    stage.work.release.set()
    stage.runner.start()
    stage.until(finished=1, waiting=1)
    assert (V2, "first") in stage.script.seen
    return stage


def test_stop_waits_until_what_the_last_answer_brought_is_back(apart: ThreadPoolExecutor) -> None:
    """An update-v2 that ends while results are flushed brings a task: the stop is over when its server has it again."""
    stage = chained()
    script, ledger = stage.script, stage.runner._relay._ledger
    script.gates[BACK] = threading.Event()
    script.brings = [wire("last")]

    stopping = apart.submit(stage.runner.stop)
    until(lambda: ledger.end < float("inf"), "the pollers have stopped, and it sends what waits")
    script.gates[V2].set()
    stage.until(giving_back=1)
    until(lambda: ledger.closed, "nothing is sent any more")
    assert not stopping.done()
    script.gates[BACK].set()
    report = stopping.result(GUARD)

    assert report.clean
    assert report.books["eu"] == Books(polled=2, started=1, finished=1, given_back=1, late=1, updated=1, outboxed=1)


def test_what_the_last_answer_brought_and_is_not_back_in_time_is_told(apart: ThreadPoolExecutor) -> None:
    """A server that does not take the task back before the grace is over keeps it, and the report says so."""
    stage = chained()
    script, ledger = stage.script, stage.runner._relay._ledger
    script.gates[BACK] = threading.Event()
    script.brings = [wire("last")]

    stopping = apart.submit(stage.runner.stop, 2.0)
    until(lambda: ledger.end < float("inf"), "the pollers have stopped, and it sends what waits")
    script.gates[V2].set()
    report = stopping.result(GUARD)
    script.gates[BACK].set()

    assert (report.left, report.unfinished, report.kept, report.clean) == (0, 0, 1, False)
    stage.heard.wait_for(GaveBack)


def test_what_an_answer_brings_after_the_stop_goes_back() -> None:
    """Its result was left, and told; the task that comes with the answer all the same goes back."""
    stage = chained()
    stage.script.brings = [wire("last")]
    assert stage.runner.stop(0.0).left == 1

    stage.script.gates[V2].set()

    stage.heard.wait_for(ItemsArrivedLate, source="eu", count=1)
    stage.heard.wait_for(GaveBack, source="eu", count=1)
    stage.until(given_back=1)
    assert stage.script.bodies[BACK, "last"]["outputData"] == {"so far": "last"}


def test_stop_without_grace_tells_what_runs_and_what_is_not_back() -> None:
    """It ends at once: nothing is waited for, and everything is in the report."""
    stage = Stage("a", "b", "c", threads=2)
    never = threading.Event()
    stage.script.gates = dict.fromkeys((BACK, RESULT, V2), never)
    stage.hold_one()

    report = stage.runner.stop(0.0)
    told = sum(report.books.values(), Books())
    stage.work.release.set()
    never.set()

    assert (report.left, report.unfinished, report.kept) == (0, 2, 1)
    assert told == Books(polled=3, started=2, giving_back=1, unfinished=2)
    stage.until(finished=2, given_back=1)


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_stop_while_every_server_hangs_ends_and_tells_what_is_left(transport: str) -> None:
    """Neither a result nor an un-started task gets home; the stop ends with its grace, and both are in the report."""
    work, heard = Work(), Heard()
    with DevServer(name="eu") as eu, DevServer(name="us") as us:
        servers = [eu, us]
        for server in servers:
            server.start_tasks("t", 1)
        runner = WorkerRunner(
            [work.spec()], [server.settings for server in servers], config=quick(transport), on_event=heard
        )
        runner.start()
        work.wait_started()
        until(lambda: sum(books.held for books in runner.books().values()) == 1, runner.books)
        for server in servers:
            server.faults.set(hang=True)
        work.release.set()
        with ThreadPoolExecutor(1) as pool:
            report = pool.submit(runner.stop, 1.0).result(GUARD)

        total = sum(report.books.values(), Books())
        assert (report.left, report.unfinished, report.kept) == (1, 0, 1)
        assert (total.polled, total.finished, total.waiting) == (2, 1, 1)
        assert total.balanced


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_stop_while_every_server_is_gone_ends_and_tells_what_is_left(transport: str) -> None:
    """The same where every connection is refused."""
    work = Work()
    with DevServer(name="eu") as eu:
        eu.start_tasks("t", 1)
        runner = WorkerRunner([work.spec()], [eu.settings], config=quick(transport))
        runner.start()
        work.wait_started()
        eu.faults.set(refuse=True)
        work.release.set()
        with ThreadPoolExecutor(1) as pool:
            report = pool.submit(runner.stop, 0.5).result(GUARD)

        assert (report.left, report.unfinished, report.kept) == (1, 0, 0)


def at_thread(monkeypatch: pytest.MonkeyPatch, name: str, act: Any) -> None:
    """Do something in the place of starting the first thread of that name; what it raises is raised."""
    start, todo = threading.Thread.start, [act]

    def acting(thread: threading.Thread) -> None:
        if thread.name == name and todo:
            todo.pop()()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", acting)


def ended(script: Script) -> None:
    """Nothing of a runner runs any more, and nothing is polled."""
    polls = script.count(POLL)
    for thread in threading.enumerate():
        if thread.name.startswith(("unit-", "poller-time")):
            thread.join(GUARD)
            assert not thread.is_alive()
    assert script.count(POLL) == polls


def test_stop_during_start_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops a runner that is just starting has it stopped: what starts after that ends at once."""
    stage, reports = Stage("a", "b", threads=3), list[StopReport]()
    stage.work.release.set()
    at_thread(monkeypatch, "unit-2", lambda: reports.append(stage.runner.stop()))

    stage.runner.start()

    assert [report.clean for report in reports] == [True]
    ended(stage.script)
    with pytest.raises(RuntimeError, match="make a new one"):
        stage.runner.start()


def test_nothing_is_polled_before_there_are_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred workers that had work at once would take the time that the others need to start."""
    stage, polls = Stage("a", threads=2), list[int]()
    at_thread(monkeypatch, "unit-2", lambda: polls.append(stage.script.count(POLL)))
    stage.work.release.set()

    stage.runner.start()

    assert polls == [0]
    stage.until(updated=1)
    assert stage.runner.stop().clean


def test_start_that_fails_half_way_has_polled_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that does not get its threads leaves no task with nobody."""
    stage = Stage("a", "b", threads=2)

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    at_thread(monkeypatch, "unit-2", fail)
    with pytest.raises(RuntimeError, match="not started: can't start new thread"):
        stage.runner.start()

    ended(stage.script)
    assert stage.script.count(POLL) == 0


def test_start_that_fails_while_somebody_stops_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is being stopped already is no reason to hide what went wrong."""
    stage, reports = Stage(threads=2), list[StopReport]()

    def stop_and_fail() -> None:
        reports.append(stage.runner.stop())
        raise RuntimeError("can't start new thread")

    at_thread(monkeypatch, "unit-2", stop_and_fail)
    with pytest.raises(RuntimeError, match="not started: can't start new thread"):
        stage.runner.start()

    assert [report.clean for report in reports] == [True]


def test_start_that_is_interrupted_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a program without our handlers: what had started is stopped."""
    stage = Stage(threads=2)

    def interrupt() -> None:
        raise KeyboardInterrupt

    at_thread(monkeypatch, "unit-2", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stage.runner.start()

    ended(stage.script)


def test_signal_during_start_stops_once_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to send it again: the runner starts, and stops."""
    stage = Stage(threads=2)
    at_thread(monkeypatch, "unit-2", lambda: signal.raise_signal(signal.SIGTERM))

    assert run_until_signal(stage.runner).clean


def test_second_signal_tells_of_what_is_on_its_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Un-started tasks that have begun to go back are not back when the process ends: that is told."""
    monkeypatch.setattr(lifecycle, "SAME_SIGNAL", 0.0)
    stage = Stage("a", "b")
    stage.script.gates[BACK] = threading.Event()

    def signal_twice() -> None:
        stage.until(held=1)
        os.kill(os.getpid(), signal.SIGTERM)
        stage.until(giving_back=1)
        os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(signal_twice)
        report = run_until_signal(stage.runner)
        told.result(GUARD)
    stage.script.gates[BACK].set()
    stage.work.release.set()
    for thread in threading.enumerate():
        if thread.name == "stopping":  # it goes on, though nobody waits for it
            thread.join(GUARD)

    assert (report.left, report.unfinished, report.kept) == (0, 1, 1)


def test_give_back_that_failed_long_before_is_not_held_against_the_stop() -> None:
    """Its server has timed the task out, or will: the books still tell of it, the report of the stop does not."""
    stage = Stage("a", "b", max_hold=0.1)
    stage.script.gates[BACK] = threading.Event()
    stage.runner.start()
    stage.until(kept=1)
    stage.work.release.set()

    report = stage.runner.stop()

    assert report.clean
    assert (report.kept, stage.books.kept) == (0, 1)


# Stopping more than once, and from within.


def test_second_stop_returns_the_report_again() -> None:
    """Whoever is not the first to stop learns what the first one did."""
    stage = Stage("a")
    stage.work.release.set()
    stage.runner.start()
    stage.until(updated=1)

    report = stage.runner.stop()

    assert stage.runner.stop() is report
    assert stage.runner.stop(0.0) is report
    assert report.books["eu"].updated == 1


def test_stop_of_a_runner_that_never_started_returns_its_report_again() -> None:
    """There is nothing in it."""
    runner = Stage("a").runner

    assert runner.stop() is runner.stop()
    assert runner.stop() == StopReport()


def test_stop_beside_another_one_waits_for_its_end(apart: ThreadPoolExecutor) -> None:
    """A program that ends once its stop() has returned loses nothing that the other one is still sending."""
    stage = Stage("a")
    stage.script.gates[RESULT] = stage.script.gates[V2] = threading.Event()
    stage.work.release.set()
    stage.runner.start()
    stage.until(finished=1, waiting=1)
    first = apart.submit(stage.runner.stop)
    until(lambda: stage.runner._phase is Phase.STOPPING, "it stops")
    second = apart.submit(stage.runner.stop)

    hurried = stage.runner.stop(0.0)
    assert (hurried.left, hurried.clean, first.done(), second.done()) == (1, False, False, False)
    stage.script.gates[RESULT].set()

    assert second.result(GUARD) is first.result(GUARD)
    assert first.result().clean


def acting(*names: str) -> tuple[Stage, list[StopReport]]:
    """A worker whose task function stops its own runner, and what that returned."""
    stage, reports = Stage(*names), list[StopReport]()

    def stop() -> None:
        reports.append(stage.runner.stop())
        reports.append(stage.runner.stop())

    stage.runner._pollers = [(attrs.evolve(spec, function=stop), poller) for spec, poller in stage.runner._pollers]
    return stage, reports


def test_task_function_may_stop_its_own_runner() -> None:
    """It does not wait for itself: it hears what is left now, finishes, and its result goes home."""
    stage, reports = acting("a")
    with stage.runner:
        until(lambda: len(reports) == 2, "it has stopped")

    assert [(report.unfinished, report.clean) for report in reports] == [(1, False)] * 2
    assert stage.runner.stop().clean
    assert stage.books == Books(polled=1, started=1, finished=1, updated=1, outboxed=stage.books.outboxed)


def test_task_function_that_stops_its_runner_without_a_thread_to_do_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to do it itself, and is the one that is still running when the grace ends."""
    stage, reports = acting("a")
    stage.runner.config = attrs.evolve(stage.runner.config, grace=0.2)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "stopping":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    stage.runner.start()
    until(lambda: len(reports) == 2, "it has stopped")

    assert [report.unfinished for report in reports] == [1, 1]
    assert stage.runner.stop() is reports[0]


@pytest.mark.parametrize("begun", [False, True])
def test_listener_may_stop_the_runner_whenever_it_hears_something(apart: ThreadPoolExecutor, begun: bool) -> None:
    """Also of the stop itself, from a thread that the stop waits for."""
    stage, reports = Stage("a", "b"), list[StopReport]()
    stage.hold_one()

    def hear(event: object) -> None:
        reports.append(stage.runner.stop())
        stage.heard(event)  # type: ignore[arg-type] # all are events

    stage.runner._on_event = hear
    if not begun:
        stage.runner._tell(ItemsArrivedLate("eu", 1))
    stopping = apart.submit(stage.runner.stop)
    stage.heard.wait_for(GaveBack, reason="stopping")
    assert not stopping.done()
    stage.work.release.set()
    report = stopping.result(GUARD)

    assert report.clean
    assert reports
    assert stage.runner.stop() is report


def test_signal_handler_may_stop_what_its_own_thread_is_stopping(apart: ThreadPoolExecutor) -> None:
    """The thread cannot go on before the handler returns, so the handler hears what is left now."""
    stage, reports = Stage("a"), list[StopReport]()
    stage.runner.start()
    stage.work.wait_started()
    before = signal.signal(signal.SIGUSR1, lambda *_: reports.append(stage.runner.stop()))

    def disturb() -> None:
        until(lambda: stage.runner._phase is Phase.STOPPING, "it stops")
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: reports, "the handler returns")
        stage.work.release.set()

    try:
        disturbed = apart.submit(disturb)
        report = stage.runner.stop()
        disturbed.result(GUARD)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert [told.unfinished for told in reports] == [1]
    assert report.clean


def test_stop_that_was_interrupted_is_not_waited_for() -> None:
    """Ctrl-C in a stop: whoever stops again hears what is left, and does not wait for what nobody does any more."""
    stage = Stage("a")
    stage.runner.start()
    stage.work.wait_started()
    stage.work.release.set()

    def interrupt(_grace: float) -> None:
        raise KeyboardInterrupt

    stage.runner._stop_pollers = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stage.runner.stop()
    del stage.runner._stop_pollers

    stage.until(finished=1, updated=1)
    assert stage.runner.stop().clean
    stage.runner._stop_pollers(GUARD)


# Forks.


USES = {
    "start": lambda runner: runner.start(),
    "stop": lambda runner: runner.stop(),
    "report": lambda runner: runner.report(),
    "view": lambda runner: runner.view(),
    "books": lambda runner: runner.books(),
    "explain": lambda runner: runner.explain(),
    "pause": lambda runner: runner.pause("eu"),
    "resume": lambda runner: runner.resume("eu"),
    "set_weight": lambda runner: runner.set_weight("eu", 2),
    "set_threads": lambda runner: runner.set_threads("t", 2),
}


@pytest.mark.parametrize("use", USES)
def test_runner_that_runs_in_another_process_says_so(use: str) -> None:
    """A forked process must not look as if it worked."""
    stage = Stage("a")
    stage.work.release.set()
    with stage.runner:
        here, stage.runner._pid = stage.runner._pid, -1
        with pytest.raises(RuntimeError, match=r"started by process -1 and run there; process .* start workers after"):
            USES[use](stage.runner)
        stage.runner._pid = here


def test_copy_that_leaves_the_runners_block_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What raised there is passed on, and it is said where the workers are."""
    stage = Stage("a")
    stage.work.release.set()
    stage.runner.start()
    here, stage.runner._pid = stage.runner._pid, -1

    stage.runner.__exit__(None, None, None)

    assert "runs no workers: process -1 started them" in caplog.text
    assert stage.runner._phase is Phase.RUNNING
    stage.runner._pid = here
    assert stage.runner.stop().clean


FORKING = """
import os, sys, threading
from conductor_adapter import RunnerConfig, ServerSettings, WorkerRunner, worker
from conductor_adapter.wire import HttpAnswer

class Spy:
    bounded = True
    def send(self, call, timeout):
        os.write(1, f"{os.getpid()} {call.query.partition('&')[0].rpartition('-')[2]}\\n".encode())
        polled.set()
        threading.Event().wait(0.05)
        return HttpAnswer(200, {}, b"[]")
    def close(self): ...

@worker("t")
def t(): ...

polled = threading.Event()
runner = WorkerRunner([t], [ServerSettings("eu", "http://eu/api")], config=RunnerConfig(transport=lambda _: Spy()))
if sys.argv[1] == "before":
    runner.start()
    polled.wait(20)
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        try:
            if sys.argv[1] == "after":
                runner.start()
                polled.wait(20)
            clean = runner.stop().clean
        except RuntimeError as error:
            os.write(1, f"refused {error}\\n".encode())
            clean = False
        os._exit(not clean)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], runner.stop().clean)
"""


def fork(when: str) -> list[str]:
    """What a program says that forks twice, and starts its runner before or after that."""
    done = subprocess.run([sys.executable, "-c", FORKING, when], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - ours
    return done.stdout.splitlines()


def test_children_of_a_process_with_a_runner_do_not_look_as_if_they_worked() -> None:
    """`gunicorn --preload`: each child says where the workers run; the parent's go on."""
    *told, end = fork("before")

    assert sum("refused these workers were started by process" in line for line in told) == 2
    assert end == "[1, 1] True"


def test_runner_that_was_made_before_a_fork_is_named_after_the_process_that_starts_it() -> None:
    """Two children that share a name would look like one worker to their servers."""
    *told, end = fork("after")

    names = dict(line.split() for line in told)
    assert [*names] == [*names.values()]
    assert len(names) == 2
    assert end == "[0, 0] True"
