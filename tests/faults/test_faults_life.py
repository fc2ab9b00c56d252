"""Faults that come, go and change, and task functions that are odd: nothing is lost, and nothing runs unasked."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_kit import RESET, Case, heal, nap, quick, running, until
from hearing import GUARD

from conductor_adapter import Task
from conductor_adapter.dev_server import DevServerProcess
from resilience import DeadLettered, DeliveryFailed, HandlerFailed

Pair = tuple[DevServerProcess, DevServerProcess]
BOTH = pytest.mark.parametrize("transport", ["curl", "requests"])


@pytest.fixture(scope="module")
def _pair() -> Iterator[Pair]:
    with running("eu", "us") as (eu, us):
        yield eu, us


@pytest.fixture
def pair(_pair: Pair) -> Iterator[Pair]:
    """Two servers as processes; whatever a test does to them is undone after it."""
    yield _pair
    heal(_pair)


# Faults that are not one long fault.


@BOTH
def test_lost_answers_to_updates_repeat_the_results_and_not_the_tasks(pair: Pair, transport: str) -> None:
    """A server that takes results and never says so gets them again; no task runs a second time."""
    eu, us = pair
    with Case([eu, us]) as case:
        task_type, runner = case.worker(quick(transport), act=nap(0.01))
        case.give(eu, [task_type], 100, responseTimeoutSeconds=4)
        case.give(us, [task_type], 5)
        case.start(runner)
        case.wait_executed(eu, [task_type], 10)
        eu.faults(swallow=True, only="updates")
        case.heard.wait_for(DeliveryFailed, destination="eu")
        before = case.executed(eu, [task_type])
        case.give(us, [task_type], 60)
        case.wait_done(us, [task_type])
        more = case.executed(eu, [task_type]) - before
        assert more <= 12, "tasks are taken whose results cannot be told"  # four that ran, eight that may be held
        eu.faults()
        case.wait_done(eu, [task_type])
        assert runner.stop().clean
        case.check()

        assert set(case.accounts[task_type].executions.values()) == {1}
        assert eu.counts()["updates"] > eu.counts()["handed out"]


def test_flapping_server_and_two_workers(pair: Pair) -> None:
    """Faults that come and go faster than anyone finds out cost no task, whoever polled it."""
    eu, us = pair
    with Case([eu, us]) as case:
        task_type, first = case.worker(quick("curl"), act=nap(0.005))
        _, second = case.worker(quick("requests"), task_type=task_type)
        case.give(eu, [task_type], 150)
        case.give(us, [task_type], 150)
        for runner in (first, second):
            case.start(runner)
        flaps = itertools.cycle([{"hang": True}, {}, {"error": 503}, {}, {"swallow": True}, {}, {"refuse": True}, {}])
        for fault in itertools.islice(flaps, 8):
            eu.faults(**fault)
            threading.Event().wait(0.3)
        eu.faults()
        assert first.stop().unfinished == 0
        for server in pair:
            case.wait_done(server, [task_type])
        assert second.stop().unfinished == 0
        case.check()


def test_all_servers_down_and_up_again(pair: Pair) -> None:
    """When nothing answers for a while, nothing is lost, and all are served soon after."""
    with Case(list(pair)) as case:
        task_type, runner = case.worker(quick("curl"), act=nap(0.01))
        for server in pair:
            case.give(server, [task_type], 100)
        case.start(runner)
        for server in pair:
            case.wait_executed(server, [task_type], 5)
        for server in pair:
            server.kill()
        until(lambda: all(v.waiting or v.polls != "closed" for v in runner.view().values()), "both known to be down")
        threading.Event().wait(2 * RESET)
        before = [case.executed(server, [task_type]) for server in pair]
        for server in pair:
            server.restart()
        for server, count in zip(pair, before, strict=True):
            case.wait_executed(server, [task_type], count + 1)
        for server in pair:
            case.wait_done(server, [task_type])
        case.check()


def test_server_without_work_is_served_when_it_has_some(pair: Pair) -> None:
    """A caught-up server costs the busy one nothing, and its next task does not wait behind the other's backlog."""
    eu, us = pair
    with Case([eu, us]) as case:
        task_type, runner = case.worker(quick("curl"), threads=2, act=nap(0.01))
        case.give(us, [task_type], 250)
        case.start(runner)
        case.wait_executed(us, [task_type], 20)
        for round_ in (1, 2):
            case.give(eu, [task_type], 1)
            case.wait_executed(eu, [task_type], round_)
        assert case.executed(us, [task_type]) < 250
        for server in pair:
            case.wait_done(server, [task_type])
        case.check()


def test_server_that_lost_its_memory_is_served_again(tmp_path: Path) -> None:
    """Results that nobody knows any more are dead letters, and the server's new tasks run."""
    (tmp_path / "state").mkdir()
    with DevServerProcess(name="eu", state=tmp_path / "state" / "eu.db") as eu, Case([eu]) as case:
        task_type, runner = case.worker(quick("curl"), act=nap(0.3))
        case.give(eu, [task_type], 4)
        case.start(runner)
        case.wait_executed(eu, [task_type], 4)
        eu.kill()
        for file in (tmp_path / "state").iterdir():
            file.unlink()
        eu.restart()
        case.give(eu, [task_type], 5)
        case.wait_done(eu, [task_type])

        case.heard.wait_for(DeadLettered, destination="eu")


def test_jumping_clock_changes_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day may jump for days, back and forth: only monotonic time decides."""
    eu, us = pair
    jumps, real = itertools.cycle([0, 86_400 * 365, -86_400 * 365]), time.time
    monkeypatch.setattr(time, "time", lambda: max(0.0, real() + next(jumps)))
    with Case([eu, us]) as case:
        types = []
        for transport in ("curl", "requests"):
            task_type, runner = case.worker(quick(transport), act=nap(0.01))
            types.append(task_type)
            case.give(eu, [task_type], 30)
            case.give(us, [task_type], 30)
            case.start(runner)
        case.wait_executed(eu, types, 3)
        eu.faults(hang=True)
        case.wait_done(us, types)
        eu.faults()
        case.wait_done(eu, types)
        case.check()


# Task functions.


class Unspeakable(Exception):  # noqa: N818 - odd on purpose
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError


ODD = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(1),
    RecursionError(),
    Unspeakable(),
    OSError(),
]


def test_odd_task_functions_harm_only_their_own_task(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """A function that raises anything at all fails its attempt; the server hears of it and retries, once each."""
    eu, us = pair

    def act(task: Task) -> None:
        print(f"doing {task.task_id}")  # noqa: T201 - that is what some functions do
        if task.retry_count == 0:
            raise ODD[task.input["which"]]

    with Case([eu, us]) as case:
        task_type, runner = case.worker(quick("curl"), act=act)
        for which in range(len(ODD)):
            case.give(eu, [task_type], 1, {"which": which}, responseTimeoutSeconds=600)
        case.start(runner)
        case.wait_done(eu, [task_type])
        assert runner.stop().clean
        case.check()

        assert set(case.accounts[task_type].executions.values()) == {2}
        assert not [event for event in case.heard if isinstance(event, HandlerFailed)]
    assert "doing" in capsys.readouterr().out


def test_task_that_hangs_holds_one_thread_and_is_run_again(pair: Pair) -> None:
    """Without heartbeats the server times it out; the other threads work, and the stop says what is left."""
    eu, us = pair
    release = threading.Event()

    def act(task: Task) -> None:
        if task.input.get("hangs") and task.retry_count == 0:
            release.wait(GUARD)

    with Case([eu, us]) as case:
        task_type, runner = case.worker(quick("curl", grace=0.3), threads=2, act=act, heartbeats=False)
        case.give(eu, [task_type], 1, {"hangs": True})
        case.give(us, [task_type], 50)
        case.start(runner)
        for server in pair:
            case.wait_done(server, [task_type])
        assert runner.stop().unfinished == 1
        release.set()
        case.check()


@BOTH
def test_tasks_longer_than_their_response_timeout(pair: Pair, transport: str) -> None:
    """Without heartbeats they are handed out again while they run: late results are taken and change nothing."""
    eu, us = pair
    with Case([eu, us]) as case:

        def act(task: Task) -> None:
            threading.Event().wait(2.0 if task.input and not task.retry_count else 0.0)

        task_type, runner = case.worker(quick(transport), act=act, heartbeats=False)
        case.give(eu, [task_type], 2, {"slow": True})
        case.give(us, [task_type], 20)
        case.start(runner)
        for server in pair:
            case.wait_done(server, [task_type])
        assert runner.stop().clean
        case.check()
