"""Leases of tasks: one that takes longer than its response timeout is run once, whatever other servers do."""

import threading
from collections.abc import Iterator

import pytest
from fault_kit import Case, heal, quick, running, until
from hearing import GUARD, Heard

from conductor_adapter import (
    DevServer,
    RunnerConfig,
    ServerSettings,
    Task,
    TaskLeaseLost,
    TaskResult,
    WorkerRunner,
    WorkerSpec,
    worker,
)
from conductor_adapter.dev_server import DevServerProcess
from conductor_adapter.running.links import Link
from conductor_adapter.transports import choose
from resilience import LeaseLost, RelayConfig

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


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats at 30 % of the lease: with a lease of a second, 0.2 s are little time on a busy machine."""
    monkeypatch.setattr("resilience.leases.FIRST_AT", 0.3)


@BOTH
@pytest.mark.usefixtures("early")
def test_long_task_is_run_once_beside_a_hung_server_with_four_tasks(pair: Pair, transport: str) -> None:
    """Three seconds of work with a response timeout of one; the SDK's workers fail at this: 4 hung ones block all."""
    eu, us = pair
    begun, release = threading.Semaphore(0), threading.Event()

    def act(task: Task) -> None:
        if task.input["server"] == "eu":
            threading.Event().wait(3.0)
        elif task.retry_count == 0:
            begun.release()
            release.wait(GUARD)

    with Case([eu, us]) as case:
        task_type, runner = case.worker(quick(transport), threads=6, act=act)
        case.give(us, [task_type], 4, {"server": "us"})
        case.start(runner)
        for _ in range(4):
            assert begun.acquire(timeout=GUARD)
        us.freeze()
        case.give(eu, [task_type], 1, {"server": "eu"})
        case.wait_done(eu, [task_type])
        assert case.executed(eu, [task_type]) == 1
        us.thaw()
        release.set()
        case.wait_done(us, [task_type])
        assert runner.stop().clean
        case.check()
    assert not [event for event in case.heard if isinstance(event, TaskLeaseLost) and event.server == "eu"]


def test_without_heartbeats_a_long_task_is_run_again(pair: Pair) -> None:
    """That is what they are for; and how a worker says that it wants none."""
    eu, _ = pair
    release = threading.Event()

    def act(task: Task) -> None:
        if task.retry_count == 0:
            assert release.wait(GUARD)

    with Case([eu]) as case:
        task_type, runner = case.worker(quick("curl"), act=act, heartbeats=False)
        case.give(eu, [task_type], 1)
        case.start(runner)
        case.wait_done(eu, [task_type])
        release.set()
        assert runner.stop().clean
        assert case.executed(eu, [task_type]) == 2


@pytest.mark.usefixtures("early")
def test_open_breaker_of_updates_silences_no_heartbeat(pair: Pair) -> None:
    """It may stay open for longer than a lease lasts."""
    eu, _ = pair
    release = threading.Event()

    with Case([eu]) as case:
        task_type, runner = case.worker(quick("curl"), act=lambda _: release.wait(GUARD))
        runner.consumer.send_breakers.get("eu").force_open()
        case.give(eu, [task_type], 1)
        case.start(runner)
        case.wait_executed(eu, [task_type], 1)
        before = eu.counts()["updates"]
        until(lambda: eu.counts()["updates"] >= before + 8, "eight heartbeats, two leases long")
        runner.consumer.send_breakers.get("eu").reset()
        release.set()
        case.wait_done(eu, [task_type])
        assert runner.stop().clean
        assert case.executed(eu, [task_type]) == 1


def test_lost_lease_is_told_with_its_task_and_the_late_result_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    """The server that cannot be reached makes another attempt; the first one's result is taken and ignored."""
    lost, again, attempts = threading.Event(), threading.Event(), []

    @worker("slow", threads=2)
    def slow(task: Task) -> dict[str, int]:
        attempts.append(task)
        if task.retry_count:
            again.set()
        assert lost.wait(GUARD)
        assert again.wait(GUARD)
        return {"attempt": task.retry_count}

    class Hearing(Heard):
        def __call__(self, event: object) -> None:
            super().__call__(event)
            if isinstance(event, TaskLeaseLost):
                lost.set()

    heard = Hearing()
    with DevServer(name="eu", sweep_every=0.05) as server:
        server.faults.set(error=503, only="updates")
        run = server.start_task("slow", responseTimeoutSeconds=1, retryCount=5, retryDelaySeconds=0)
        with WorkerRunner([slow], [server.settings], config=quick(), on_event=heard):
            event = heard.wait_for(TaskLeaseLost)
            server.faults.clear()
            assert server.wait(run, GUARD).status == "COMPLETED"
            until(lambda: server.counts()["updates"] >= 2, "both results")

    assert (event.server, event.task_type, event.task_id) == ("eu", "slow", attempts[0].task_id)
    assert "503" in str(event.error)
    assert not [event for event in heard if isinstance(event, LeaseLost)]
    (line,) = [record.getMessage() for record in caplog.records if "outlived" in record.getMessage()]
    assert line.startswith(
        f"eu: task {event.task_id} of type 'slow' has outlived its response timeout and might be run"
    )


@pytest.mark.parametrize(("response_timeout", "lease"), [(0.0, None), (60.0, 60.0)])
def test_lease_of_a_task_is_its_response_timeout(response_timeout: float, lease: float | None) -> None:
    """One without is assigned for ever, and costs nothing."""
    link = Link(ServerSettings("eu", "http://127.0.0.1:1/api"), choose("requests"), 1.0, print)
    source = link.endpoint(WorkerSpec(task_type="t", function=lambda: None))

    assert source.lease is not None
    assert source.lease(Task(task_id="t", response_timeout=response_timeout)) == lease
    silent = link.endpoint(WorkerSpec(task_type="t", function=lambda: None, heartbeats=False))
    assert (silent.lease, silent.extend) == (None, None)
    link.transport.close()


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "unanswered"])
def test_a_result_is_not_left_to_a_heartbeat_that_is_handled_beside_it(
    monkeypatch: pytest.MonkeyPatch, *, answered: bool
) -> None:
    """It waits for the heartbeat in flight; where that takes too long it is sent, and once more when it has ended."""
    beating, gate, order = threading.Event(), threading.Event(), []
    send = Link._send

    def extend(_link: Link, _task: Task, _timeout: float) -> None:
        beating.set()
        assert gate.wait(GUARD)
        order.append("answer")

    def recorded(link: Link, result: TaskResult, timeout: float) -> None:
        order.append("result")
        send(link, result, timeout)

    monkeypatch.setattr(Link, "_extend", extend)
    monkeypatch.setattr(Link, "_send", recorded)
    monkeypatch.setattr(Link, "_exchange", recorded)

    @worker("long")
    def long() -> None:
        assert beating.wait(GUARD)
        if answered:
            threading.Timer(0.2, gate.set).start()

    with DevServer() as server:
        run = server.start_task("long", responseTimeoutSeconds=60)
        monkeypatch.setattr("resilience.leases.FIRST_AT", 0.001)
        relay = RelayConfig(inline_timeout=GUARD if answered else 0.1, send_timeout=GUARD)
        with WorkerRunner([long], servers=[server.settings], config=RunnerConfig(relay=relay)) as runner:
            assert server.wait(run, timeout=GUARD).status == "COMPLETED"
            gate.set()
            until(lambda: len(order) == (2 if answered else 3), lambda: order)

    books = runner.books()[server.name]
    assert (books.finished, books.repeated) == (1, 0 if answered else 1)
    assert order == (["answer", "result"] if answered else ["result", "answer", "result"])
