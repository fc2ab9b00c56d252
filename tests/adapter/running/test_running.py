"""Workers on several servers: the embedded server over real sockets, real signals in real processes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
import requests
from fault_kit import until
from hearing import GUARD, Heard
from hypothesis import given
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from conductor_adapter import (
    Credentials,
    DevServer,
    NonRetryable,
    RunnerConfig,
    ServerSettings,
    StopReport,
    TaskFailed,
    TaskStatus,
    WorkerRunner,
    run_workers,
    task_context,
    worker,
)
from conductor_adapter.client.decoding import PollAnswer
from conductor_adapter.dev_server import DevServerProcess
from conductor_adapter.functions.decorator import spec_of
from conductor_adapter.running import lifecycle, links, signals
from conductor_adapter.running.lifecycle import is_another_signal
from conductor_adapter.running.signals import run_until_signal
from conductor_adapter.transports.requests import RequestsTransport
from resilience import (
    BreakerChanged,
    BreakerConfig,
    BreakerState,
    DeliveryFailed,
    DeliveryResumed,
    GiveBackFailed,
    PollConfig,
    RelayConfig,
)

CLEAN = "StopReport(left=0, saved=0, unfinished=0, kept=0, dead=0, unreached=())\n"
QUICK = RunnerConfig(
    transport="requests",
    grace=GUARD,
    poll=PollConfig(poll_wait=0.1, overdue_after=0.2, poll_timeout=0.5, give_up_after=5.0),
    breaker=BreakerConfig(reset_timeout=0.2),
    relay=RelayConfig(inline_timeout=0.2),
)


@worker("where", threads=4)
def where(number: int = 0) -> dict[str, object]:
    """Says which server its task came from."""
    return {"server": task_context().server, "number": number}


@pytest.fixture
def pair() -> Iterator[tuple[DevServer, DevServer]]:
    """Two embedded servers."""
    with DevServer(name="eu") as eu, DevServer(name="us") as us:
        yield eu, us


@worker("broken")
def broken(terminal: bool = False) -> None:
    """Fails."""
    if terminal:
        raise NonRetryable("it never works")
    raise ValueError("not now")


@pytest.mark.parametrize(
    ("input_", "status", "reason"),
    [
        ({}, TaskStatus.FAILED, "ValueError: not now"),
        ({"terminal": True}, TaskStatus.FAILED_WITH_TERMINAL_ERROR, "it never works"),
    ],
)
def test_failed_task_is_an_event(input_: dict[str, object], status: TaskStatus, reason: str) -> None:
    """Whoever listens hears of each task that fails, with its server, type and reason."""
    heard = Heard()
    with DevServer(name="eu") as eu:
        eu.start_task("broken", input_, retryCount=0)
        with WorkerRunner([broken], [eu.settings], config=QUICK, on_event=heard):
            event = heard.wait_for(TaskFailed)

    assert isinstance(event, TaskFailed)
    assert (event.server, event.task_type, event.status, event.reason) == ("eu", "broken", status, reason)
    assert event.task_id


@pytest.mark.parametrize("transport", ["requests", "curl"])
def test_each_result_goes_to_the_server_its_task_came_from(pair: tuple[DevServer, DevServer], transport: str) -> None:
    """Tasks of both servers run, and each server gets the results of its own and no other."""
    runs = [(server, server.start_task("where", {"number": n})) for n in range(10) for server in pair]
    with WorkerRunner([where], [s.settings for s in pair], config=RunnerConfig(transport=transport)) as runner:
        for server, run in runs:
            assert server.wait(run, GUARD).output["server"] == server.name
        report = runner.stop(GUARD)

    assert report == StopReport()
    assert report.clean
    assert not any(name.startswith("404") for server in pair for name in server.counts())


def test_d8_results_wait_for_no_breaker(pair: tuple[DevServer, DevServer]) -> None:
    """They are sent soon after an outage, however long the breaker of their server would stay open; then it closes."""
    breaker = BreakerConfig(fail_max=1, reset_timeout=6 * GUARD, max_reset_timeout=6 * GUARD)
    heard, begun, away = Heard(), threading.Event(), threading.Event()

    @worker("patient")
    def patient() -> None:
        begun.set()
        assert away.wait(GUARD)

    run = pair[0].start_task("patient", {})
    config = attrs.evolve(QUICK, breaker=breaker)
    with WorkerRunner([patient], [s.settings for s in pair], config=config, on_event=heard) as runner:
        assert begun.wait(GUARD)
        for server in pair:
            server.faults.set(error=503)
        away.set()
        for server, calls in (("eu", "updates"), ("us", "polls")):
            heard.wait_for(BreakerChanged, name=server, calls=calls, after=BreakerState.OPEN)
        pair[0].faults.set()

        assert pair[0].wait(run, GUARD).status == "COMPLETED"
        heard.wait_for(BreakerChanged, name="eu", calls="updates", after=BreakerState.CLOSED)
        assert runner.stop(0.0)


def test_p10_runner_explains_for_each_worker_and_server(pair: tuple[DevServer, DevServer]) -> None:
    """What is asked of whom and why, by task type (with its domain, as Conductor names the queue) and server."""
    canary = attrs.evolve(spec_of(where), domain="canary")
    runner = WorkerRunner([where, canary], [s.settings for s in pair], config=QUICK)

    told = runner.explain()

    assert set(told) == {"where", "canary:where"}
    assert told["where"]["eu"].reason == "suspect: probed for one unit"
    assert set(told["where"]) == {server.name for server in pair}


def test_p7_paused_server_is_not_polled_until_it_is_resumed(pair: tuple[DevServer, DevServer]) -> None:
    """Work of the other server goes on, and that of the paused one waits on its server."""
    eu, us = pair
    with WorkerRunner([where], [s.settings for s in pair], config=QUICK) as runner:
        eu.wait(eu.start_task("where"), GUARD)
        runner.pause("eu")
        waiting = eu.start_task("where")
        us.wait(us.start_task("where"), GUARD)
        assert runner.explain()["where"]["eu"].reason == "not polled: somebody paused it"
        runner.resume("eu")
        assert eu.wait(waiting, GUARD).output["server"] == "eu"


def test_p7_weights_and_threads_change_while_it_runs(pair: tuple[DevServer, DevServer]) -> None:
    """More threads run more tasks at once; a weight changes what each server has of them."""
    barrier = threading.Barrier(3)

    @worker("meet")
    def meet() -> None:
        barrier.wait(GUARD)

    with WorkerRunner([meet], [s.settings for s in pair], config=QUICK) as runner:
        runner.set_weight("eu", 3)
        runs = [(server, server.start_task("meet")) for server in (pair[0], *pair)]
        runner.set_threads("meet", 3)
        for server, run in runs:
            assert server.wait(run, GUARD).status == "COMPLETED"
        assert runner.explain()["meet"]["eu"].share == 3


def test_p7_names_that_nobody_has_are_refused(pair: tuple[DevServer, DevServer]) -> None:
    """The error says which there are."""
    runner = WorkerRunner([where], [s.settings for s in pair], config=QUICK)

    with pytest.raises(ValueError, match="unknown server 'asia': known are 'eu', 'us'"):
        runner.pause("asia")
    with pytest.raises(ValueError, match="there is no worker for task type 'there': there are workers for 'where'"):
        runner.set_threads("there", 2)


def test_servers_that_want_credentials_get_their_own() -> None:
    """Each server's key goes to that server alone, and tasks run behind it."""
    key = Credentials("k1", "s1")
    with DevServer(name="locked", credentials=key) as locked, DevServer(name="open") as free:
        settings = [ServerSettings("locked", locked.url, auth=key), free.settings]
        runs = [(locked, locked.start_task("where")), (free, free.start_task("where"))]
        with WorkerRunner([where], settings, config=QUICK):
            for server, run in runs:
                assert server.wait(run, GUARD).status == "COMPLETED"


def test_several_workers_run_side_by_side_with_their_own_threads(pair: tuple[DevServer, DevServer]) -> None:
    """A worker that is busy takes no thread of another one."""
    release = threading.Event()

    @worker("stuck", threads=1)
    def stuck() -> None:
        assert release.wait(GUARD)

    eu, us = pair
    held = eu.start_task("stuck")
    with WorkerRunner([stuck, where], [eu.settings, us.settings], config=QUICK):
        assert us.wait(us.start_task("where"), GUARD).status == "COMPLETED"
        release.set()
        assert eu.wait(held, GUARD).status == "COMPLETED"


def test_p13_server_that_takes_no_results_is_not_polled_until_it_does(pair: tuple[DevServer, DevServer]) -> None:
    """A failed delivery stops the polls of its server; once it takes results again, everything is delivered."""
    eu, us = pair
    seen, pausing = Heard(), threading.Event()

    @worker("steady", threads=2)
    def steady() -> None:
        return None

    eu.faults.set(error=503, only="updates")
    runs = [eu.start_task("steady") for _ in range(50)]
    with WorkerRunner([steady], [eu.settings, us.settings], config=QUICK, on_event=seen) as runner:
        seen.wait_for(DeliveryFailed)
        pausing.wait(0.3)
        before = runner.view()["eu"].started
        pausing.wait(0.3)
        assert runner.view()["eu"].started == before < 50

        assert us.wait(us.start_task("steady"), GUARD).status == "COMPLETED"
        eu.faults.clear()
        seen.wait_for(DeliveryResumed)
        for run in runs:
            assert eu.wait(run, GUARD).status == "COMPLETED"

        assert max(eu.handed_out().values()) == 1


def test_d5_server_that_takes_results_too_slowly_is_polled_no_faster_than_it_takes_them() -> None:
    """Its results do not pile up until their tasks time out: each task runs once, and few results wait."""
    waiting: list[int] = []

    @worker("quick", threads=4)
    def quick() -> None:
        waiting.append(runner.view()["eu"].waiting)

    relay = RelayConfig(slow_after=0.02, max_in_flight=2, max_backlog=6)
    with DevServer(name="eu") as eu:
        eu.faults.set(latency=0.05, only="updates")
        eu.start_tasks("quick", 60)
        runner = WorkerRunner([quick], [eu.settings], config=attrs.evolve(QUICK, relay=relay))
        with runner:
            settled = threading.Event()
            while eu.runs("quick").get("COMPLETED") != 60:
                assert len(waiting) <= 60
                settled.wait(0.05)

        assert len(waiting) == 60
        assert max(waiting) <= 6 + 4


def test_transport_may_be_made_by_a_function_of_ones_own() -> None:
    """A session with its own adapters, proxies and TLS carries the calls."""
    carried: list[str | None] = []

    class Carrying(HTTPAdapter):
        """An adapter that notes what it carries."""

        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            """Note and send."""
            carried.append(request.url)
            return super().send(request, *args, **options)

    session = requests.Session()
    session.mount("http://", Carrying())

    with DevServer(name="eu") as eu:
        config = attrs.evolve(QUICK, transport=lambda settings: RequestsTransport(settings, session))
        with session, WorkerRunner([where], [eu.settings], config=config):
            assert eu.wait(eu.start_task("where"), GUARD).status == "COMPLETED"

    assert any("/tasks/poll/batch/where" in str(url) for url in carried)
    assert any("/tasks" in str(url) and "/poll/" not in str(url) for url in carried)


def test_dead_server_opens_its_breaker_and_is_served_when_it_is_back(tmp_path: Path) -> None:
    """A killed server is left alone; after its restart on its state its tasks run."""
    seen = Heard()
    with DevServerProcess(name="eu", state=tmp_path / "eu.db") as eu, DevServer(name="us") as us:
        eu.start_tasks("where", 3)
        eu.kill()
        with WorkerRunner([where], [eu.settings, us.settings], config=QUICK, on_event=seen) as runner:
            seen.wait_for(BreakerChanged, name="eu", calls="polls")
            assert us.wait(us.start_task("where"), GUARD).status == "COMPLETED"
            assert runner.view()["eu"].state == "suspect"

            eu.restart()

            done = threading.Event()
            for _ in range(200):
                if eu.runs("where").get("COMPLETED") == 3:
                    break
                done.wait(0.1)
            assert eu.runs("where")["COMPLETED"] == 3


def test_stop_gives_unstarted_tasks_back_with_their_output(pair: tuple[DevServer, DevServer]) -> None:
    """What was polled and never ran is pollable again at once, and the running task finishes."""
    eu, us = pair
    started, release = threading.Event(), threading.Event()

    @worker("slow", threads=1)
    def slow() -> None:
        started.set()
        assert release.wait(GUARD)

    runs = [eu.start_task("slow"), us.start_task("slow")]
    runner = WorkerRunner([slow], [eu.settings, us.settings], config=QUICK)
    runner.start()
    assert started.wait(GUARD)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(runner.stop)
        release.set()
        assert stopping.result(GUARD).clean

    with WorkerRunner([slow], [eu.settings, us.settings], config=QUICK):
        for server, run in zip(pair, runs, strict=True):
            assert server.wait(run, GUARD).status == "COMPLETED"


def test_stop_reports_results_that_nobody_took(pair: tuple[DevServer, DevServer]) -> None:
    """A result whose server does not answer is counted, not forgotten."""
    eu, us = pair
    seen = Heard()
    eu.faults.set(error=503, only="updates")
    eu.start_task("where")
    runner = WorkerRunner([where], [eu.settings, us.settings], config=QUICK, on_event=seen)
    runner.start()
    seen.wait_for(DeliveryFailed)

    report = runner.stop(0.5)

    assert (report.left, report.clean) == (1, False)


def test_stop_counts_tasks_that_do_not_finish(pair: tuple[DevServer, DevServer]) -> None:
    """A task that outlives the grace is said to be unfinished."""
    started, release = threading.Event(), threading.Event()

    @worker("endless", threads=1)
    def endless() -> None:
        started.set()
        release.wait(GUARD)

    pair[0].start_task("endless")
    runner = WorkerRunner([endless], [pair[0].settings], config=QUICK)
    runner.start()
    assert started.wait(GUARD)

    assert runner.stop(0.1).unfinished == 1
    release.set()


def test_stop_counts_tasks_that_could_not_be_given_back(pair: tuple[DevServer, DevServer]) -> None:
    """An un-started task whose server refuses to take it back is reported: its server will time it out."""
    eu, us = pair
    started, release = threading.Event(), threading.Event()

    @worker("one", threads=1)
    def one() -> None:
        started.set()
        assert release.wait(GUARD)

    for server in (*pair, *pair):
        server.start_task("one")
    heard = Heard()
    runner = WorkerRunner([one], [eu.settings, us.settings], config=QUICK, on_event=heard)
    runner.start()
    assert started.wait(GUARD)
    held = threading.Event()
    while not sum(view.held for view in runner.view().values()):
        held.wait(0.01)
    for server in pair:
        server.faults.set(error=503, only="updates")
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(runner.stop, 1.0)
        heard.wait_for(GiveBackFailed)
        release.set()
        report = stopping.result(GUARD)

    assert (report.kept, report.left, report.clean) == (1, 1, False)


def test_first_signal_stops_and_the_second_reports_what_is_left(
    pair: tuple[DevServer, DevServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the main thread both signals are heard while the runner waits, and the second ends the waiting."""
    monkeypatch.setattr(lifecycle, "SAME_SIGNAL", 0.0)
    started, release = threading.Event(), threading.Event()

    @worker("hangs", threads=1)
    def hangs() -> None:
        started.set()
        release.wait(GUARD)

    def signal_twice() -> None:
        assert started.wait(GUARD)
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: any(thread.name == "stopping" for thread in threading.enumerate()), "the first has been heard")
        os.kill(os.getpid(), signal.SIGTERM)

    pair[0].start_task("hangs")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(signal_twice)
        report = run_workers([hangs], [pair[0].settings], config=QUICK)
        release.set()
    for thread in threading.enumerate():
        if thread.name == "stopping":  # what nobody waits for any more goes on; it must not outlive its server
            thread.join(GUARD)

    assert report.unfinished == 1


def test_one_signal_that_comes_twice_lets_running_tasks_finish(
    pair: tuple[DevServer, DevServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ``timeout`` signals the process and then its group, so SIGTERM arrives twice: that is one wish."""
    started, stopping, seen = threading.Event(), threading.Event(), threading.Semaphore(0)

    @worker("takes_a_moment", threads=1)
    def takes_a_moment() -> None:
        started.set()
        stopping.wait(GUARD)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        seen.acquire(timeout=GUARD)
        seen.acquire(timeout=2)  # a main thread that has gone sees no second one

    def look(asked: float, came: float, before: float) -> bool:
        seen.release()
        return is_another_signal(asked, came, before)

    monkeypatch.setattr(signals, "is_another_signal", look)
    runner = WorkerRunner([takes_a_moment], [pair[0].settings], config=QUICK)
    stop = runner.stop
    monkeypatch.setattr(runner, "stop", lambda: (stopping.set(), stop())[1])
    run = pair[0].start_task("takes_a_moment")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: started.wait(GUARD) and os.kill(os.getpid(), signal.SIGTERM))
        report = run_until_signal(runner)

    assert report.clean
    assert pair[0].wait(run, GUARD).status == "COMPLETED"


@given(st.floats(0, 1e9), st.floats(-1, 10))
def test_signal_is_another_one_only_after_a_second(asked: float, after: float) -> None:
    """What comes before, with, or just behind the first signal is that signal once more."""
    assert is_another_signal(asked, asked + after) == (asked + after - asked > 1)


class Stuck(WorkerRunner):
    """A runner whose stopping breaks."""

    def stop(self, grace: float | None = None) -> StopReport:
        """Break."""
        super().stop(grace)
        raise LookupError("it broke")


def test_stop_that_breaks_does_not_leave_the_main_thread_waiting(pair: tuple[DevServer, DevServer]) -> None:
    """Whatever stopping raises reaches whoever waits for its end."""
    with pytest.raises(LookupError, match="it broke"):
        run_until_signal(Stuck([where], [pair[0].settings], config=QUICK), 0.0)


class NoThreads:
    """A system that has no thread left for threads of one kind: ``Thread.start`` fails for those."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: Callable[[threading.Thread], bool]) -> None:
        self.kind = kind
        self.refused = 0
        self._start = threading.Thread.start
        monkeypatch.setattr(threading.Thread, "start", lambda thread: self.start(thread))  # noqa: PLW0108 - it must be a function to get the thread

    def start(self, thread: threading.Thread) -> None:
        """Start it, or fail as Python does."""
        if self.kind(thread):
            self.refused += 1
            raise RuntimeError("can't start new thread")
        self._start(thread)


def test_start_without_threads_leaves_nothing_running(
    pair: tuple[DevServer, DevServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that gets only some of its threads stops those, gives tasks back, and says what to change."""
    before = set(threading.enumerate())
    runner = WorkerRunner([where], [server.settings for server in pair], config=QUICK)
    run = pair[0].start_task("where")
    system = NoThreads(monkeypatch, lambda thread: thread.name == "unit-2")

    with pytest.raises(RuntimeError, match=r"not started: can't start new thread: raise the limit of threads"):
        runner.start()

    assert system.refused == 1
    monkeypatch.undo()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(("unit", "poller")):
            thread.join(GUARD)
            assert not thread.is_alive()
    with WorkerRunner([where], [pair[0].settings], config=QUICK):
        assert pair[0].wait(run, GUARD).status == "COMPLETED"


def test_stop_needs_no_thread_of_its_own(pair: tuple[DevServer, DevServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a thread to stop on, the main thread stops by itself, worker by worker."""
    runner = WorkerRunner([where, broken], [pair[0].settings], config=QUICK)
    system = NoThreads(monkeypatch, lambda thread: thread.name == "stopping")

    assert run_until_signal(runner, 0.0).clean
    assert system.refused == 5  # for the stop, and for each of two workers before and after the results were sent


@pytest.mark.parametrize("duration", [-1, float("nan"), float("inf"), "5", True])
def test_impossible_duration_is_refused_before_anything_runs(pair: tuple[DevServer, DevServer], duration: Any) -> None:
    """No worker runs that nobody can stop because its end was no number of seconds."""
    with pytest.raises((ValueError, TypeError), match=r"duration must be a finite number of at least 0, not .*"):
        run_workers([where], [pair[0].settings], config=QUICK, duration=duration)

    assert pair[0].counts()["polls"] == 0


@pytest.mark.parametrize("grace", ["5", float("nan"), -1, True])
def test_impossible_grace_is_refused_and_the_runner_can_still_be_stopped(
    pair: tuple[DevServer, DevServer],
    grace: Any,
) -> None:
    """The mistake costs an error, not the only way to stop; a grace longer than Python can wait is one."""
    with WorkerRunner([where], [pair[0].settings], config=QUICK) as runner:
        with pytest.raises((ValueError, TypeError), match="grace must be a finite number of at least 0"):
            runner.stop(grace)

        assert runner.stop(1e300).clean


def test_runner_runs_once(pair: tuple[DevServer, DevServer]) -> None:
    """A stopped runner cannot be started again, nor a running one twice; the error says what to do."""
    runner = WorkerRunner([where], [pair[0].settings], config=QUICK)
    with runner, pytest.raises(RuntimeError, match="make a new one"):
        runner.start()
    with pytest.raises(RuntimeError, match="make a new one"):
        runner.start()


def test_runner_that_never_started_stops_cleanly(pair: tuple[DevServer, DevServer]) -> None:
    """Stopping before starting leaves nothing and is no error."""
    assert WorkerRunner([where], [pair[0].settings], config=QUICK).stop().clean


def test_threads_of_the_runner_override_those_of_workers(pair: tuple[DevServer, DevServer]) -> None:
    """``threads`` counts for every worker, and its name shows what it serves."""
    together, most, lock = [0], [0], threading.Lock()

    @worker("wide", threads=1)
    def wide() -> None:
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        both.wait(GUARD)

    both = threading.Barrier(2)
    runs = [pair[0].start_task("wide") for _ in range(2)]
    config = RunnerConfig(threads=2, transport="requests", poll=QUICK.poll)
    with WorkerRunner([wide], [pair[0].settings], config=config) as runner:
        for run in runs:
            assert pair[0].wait(run, GUARD).status == "COMPLETED"
        assert repr(runner) == "<WorkerRunner of wide on eu>"

    assert most == [2]


def test_half_damaged_poll_answer_costs_no_task(
    pair: tuple[DevServer, DevServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The good tasks of an answer with a damaged entry run."""
    original = links.drive

    def damaged(operation: object, transport: object, timeout: float) -> object:
        answer = original(operation, transport, timeout)  # type: ignore[arg-type]
        if isinstance(answer, PollAnswer) and answer.tasks:
            return PollAnswer(answer.tasks, "one entry has no task id")
        return answer

    monkeypatch.setattr(links, "drive", damaged)
    with WorkerRunner([where], [pair[0].settings], config=QUICK):
        assert pair[0].wait(pair[0].start_task("where"), GUARD).status == "COMPLETED"


def test_servers_come_from_the_environment_when_none_are_named(
    pair: tuple[DevServer, DevServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``servers`` the lists in the environment count."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", ",".join(server.url for server in pair))
    monkeypatch.setenv("CONDUCTOR_SERVER_NAME", "eu,us")
    runs = [(server, server.start_task("where")) for server in pair]
    with WorkerRunner([where], config=QUICK):
        for server, run in runs:
            assert server.wait(run, GUARD).output["server"] == server.name


def test_run_workers_ends_after_its_duration(pair: tuple[DevServer, DevServer]) -> None:
    """``duration`` stops and drains, also outside the main thread, where no signal can be handled."""
    run = pair[0].start_task("where")
    with ThreadPoolExecutor(1) as pool:
        report = pool.submit(run_workers, [where], [pair[0].settings], config=QUICK, duration=0.5).result(GUARD)

    assert report.clean
    assert pair[0].wait(run, GUARD).status == "COMPLETED"


def test_run_workers_restores_the_signal_handlers(pair: tuple[DevServer, DevServer]) -> None:
    """The handlers of before are back afterwards."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    run_workers([where], [pair[0].settings], config=QUICK, duration=0.01)

    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


PROGRAM = """
import sys, threading
from conductor_adapter import RunnerConfig, ServerSettings, run_workers, worker

@worker("task", threads=2)
def task(seconds: float) -> None:
    print("started", flush=True)
    threading.Event().wait(seconds)

report = run_workers([task], [ServerSettings("eu", sys.argv[1])], config=RunnerConfig(transport="requests", grace=30))
print(report, flush=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[ExitStack]:
    """A place for a worker process, which is ended whatever happens."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The worker as a process of its own."""
    command = [sys.executable, str(folder / "program.py"), *arguments]
    environ = {**os.environ, "PYTHONWARNINGS": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)  # noqa: S603 - ours
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_running_tasks_finish_and_delivers_their_results(
    pair: tuple[DevServer, DevServer], program: ExitStack, tmp_path: Path, number: signal.Signals
) -> None:
    """After one SIGTERM or SIGINT the running task ends, its result arrives, and the process is done."""
    run = pair[0].start_task("task", {"seconds": 0.5})
    process = start(program, tmp_path, pair[0].url)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)

    assert process.stdout.readline() == CLEAN
    assert process.wait(GUARD) == 0
    assert pair[0].wait(run, GUARD).status == "COMPLETED"


SIGNALLED_ELSEWHERE = """
import signal, sys, threading
from conductor_adapter import ServerSettings, run_workers, worker

@worker("task")
def task(seconds: float) -> None:
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

print(run_workers([task], [ServerSettings("eu", sys.argv[1])]), flush=True)
"""


def test_signal_that_another_thread_takes_ends_the_run(
    pair: tuple[DevServer, DevServer], program: ExitStack, tmp_path: Path
) -> None:
    """The kernel may hand a signal to any thread, and Python's handlers run in the main one alone: it must look."""
    (tmp_path / "program.py").write_text(SIGNALLED_ELSEWHERE)
    pair[0].start_task("task", {"seconds": 0})
    process = start(program, tmp_path, pair[0].url)

    assert process.communicate(timeout=GUARD)[0] == CLEAN


FORKING = """
import os, signal, sys
from conductor_adapter import ServerSettings, run_workers, worker

@worker("task")
def task(end: str) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(10)  # a child that goes on as a worker does not outlive the test
    print(f"child: {end}")
    if end == "raises":
        raise ValueError("it broke")
    if end != "returns":
        sys.exit(None if end == "none" else int(end) if end.isdigit() else end)
    return -1

run_workers([task], [ServerSettings("eu", sys.argv[1])], duration=float(sys.argv[2]))
print("parent ended")
"""


def test_task_that_forks_is_reported_once_by_the_parent(
    pair: tuple[DevServer, DevServer], program: ExitStack, tmp_path: Path
) -> None:
    """However the task function ends in a child it forked, that ends the child as Python would, and nothing else."""
    (tmp_path / "program.py").write_text(FORKING)
    ends = {"returns": 0, "raises": 1, "none": 0, "7": 7, "no luck": 1}
    runs = {end: pair[0].start_task("task", {"end": end}) for end in ends}
    process = start(program, tmp_path, pair[0].url, "2")
    output, errors = process.communicate(timeout=GUARD)

    assert {end: pair[0].wait(run, GUARD).output["result"] for end, run in runs.items()} == ends
    assert sorted(output.splitlines()) == sorted([*(f"child: {end}" for end in ends), "parent ended"])
    assert errors.count("Traceback") == 1
    assert "\nValueError: it broke\n" in errors
    assert "no luck\n" in errors
    assert pair[0].counts()["updates"] == len(ends)


def test_second_signal_ends_at_once(pair: tuple[DevServer, DevServer], program: ExitStack, tmp_path: Path) -> None:
    """Whoever signals twice does not want to wait: the process ends although a task still runs, and says so."""
    pair[0].start_task("task", {"seconds": 600})
    process = start(program, tmp_path, pair[0].url)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    threading.Event().wait(1.1)  # within a second it would be the first one once more
    process.send_signal(signal.SIGTERM)

    assert "unfinished=1" in process.stdout.readline()
    assert process.wait(GUARD) == 0


def test_wait_longer_than_a_server_allows_is_refused() -> None:
    """Conductor refuses waits above 5 s, so the configuration does, at once and with the value."""
    poll = PollConfig(poll_wait=5.5, poll_timeout=8.0)
    with pytest.raises(ValueError, match=r"poll_wait is 5\.5 s"):
        RunnerConfig(poll=poll)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"poll_wait": 2}, r"^RunnerConfig has no option 'poll_wait': write poll=PollConfig\(poll_wait=2\)$"),
        ({"fail_max": 3}, r"write breaker=BreakerConfig\(fail_max=3\)$"),
        ({"inline_timeout": 2.0}, r"write relay=RelayConfig\(inline_timeout=2.0\)$"),
        ({"thread": 10}, "write threads=10"),
        ({"zzz": "secret"}, "^RunnerConfig has no option 'zzz': it has threads, worker_id, transport, grace, poll,"),
    ],
)
def test_option_that_lives_elsewhere_is_answered_with_where(options: dict[str, object], told: str) -> None:
    """One line that says what to write; a value that may be a secret is not repeated."""
    with pytest.raises(TypeError, match=told) as caught:
        RunnerConfig(**options)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": True}, {"grace": -1.0}, {"grace": float("nan")}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    """The error names the option."""
    with pytest.raises(ValueError, match=next(iter(options))):
        RunnerConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["poll", "breaker", "relay"])
def test_configuration_of_the_wrong_kind_is_refused(option: str) -> None:
    """What is wanted is named, instead of what the wrong one lacks."""
    with pytest.raises(TypeError, match=rf"{option} must be a \w+Config, not 3 of type int"):
        RunnerConfig(**{option: 3})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "error"), [("", ValueError), (" ", ValueError), ("half \ud800", ValueError), (5, TypeError)]
)
def test_a_worker_id_that_no_url_can_carry_is_refused(name: object, error: type[Exception]) -> None:
    """Every poll would fail with it."""
    with pytest.raises(error, match="worker_id"):
        RunnerConfig(worker_id=name)  # type: ignore[arg-type]
    assert RunnerConfig(worker_id="me").worker_id == "me"


@pytest.mark.parametrize("given", [3, True, b"o.db", object()])
def test_outbox_that_is_neither_path_nor_store_is_refused(given: Any) -> None:
    """Where it is written, before anything is opened."""
    with pytest.raises(TypeError, match="outbox, if it is no path, must be a Store, such as an Outbox, not"):
        RunnerConfig(outbox=given)
