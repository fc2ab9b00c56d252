"""The worker on sockets that misbehave, on a server that hangs and comes back, and over a long life."""

import gc
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from fault_kit import RESET, Account, quick, until
from hearing import GUARD, Heard
from http_peers import Peer
from sizes import part

from conductor_adapter import RunnerConfig, ServerSettings, Task, WorkerRunner
from conductor_adapter.client.messages import HttpAnswer, HttpCall
from conductor_adapter.dev_server import DevServerProcess
from conductor_adapter.functions.decorator import WorkerSpec
from conductor_adapter.running import threads
from resilience import BreakerChanged, BreakerConfig, BreakerState, DeadLettered, DeliveryFailed

# Sockets that misbehave.

CONDUCTS = ["drip", "drip_head", "drip_heads", "drip_chunks", "drip_size", "silent", "stalled", "half", "half_head"]
CONDUCTS += ["half_chunk", "bad_chunk", "garbage", "badgzip", "switch", "excess", "gone", "reset", "reset_body"]
CONDUCTS += ["html", "echo", "302", "empty", "nothing", "twice", "full", "endless_failure"]


@pytest.fixture(scope="module")
def healthy() -> Iterator[DevServerProcess]:
    """A server beside those that misbehave."""
    with DevServerProcess(name="us") as server:
        yield server


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_odd_peers_cost_the_healthy_server_nothing(healthy: DevServerProcess, transport: str) -> None:
    """Beside a server that drips, breaks off or talks nonsense the other is served, and no result strays."""
    patient = BreakerConfig(fail_max=10**6)  # so that every one of them is met, again and again
    specs, accounts = [], {}
    for conduct in CONDUCTS:
        accounts[conduct] = account = Account()
        specs.append(WorkerSpec(task_type=conduct, function=_function(account), threads=2))
        healthy.start_tasks(conduct, 5, responseTimeoutSeconds=600)
    config = quick(transport, breaker=patient, grace=2.0)
    with Peer() as peer:
        servers = [ServerSettings("odd", peer.url), healthy.settings]
        with WorkerRunner(specs, servers, config=config) as runner:
            for conduct in CONDUCTS:
                until(
                    lambda conduct=conduct: healthy.runs(conduct)["RUNNING"] == 0,
                    lambda conduct=conduct: f"{conduct}: {healthy.runs(conduct)}",
                )
            assert runner.stop().unfinished == 0
        assert {seen.target.partition("?")[0].rpartition("/")[2] for seen in peer.requests} == set(CONDUCTS)
        assert {seen.method for seen in peer.requests} == {"GET"}
    for conduct in CONDUCTS:
        assert healthy.runs(conduct)["COMPLETED"] in {5, 10}
        assert set(accounts[conduct].executions.values()) == {1}
    assert healthy.counts()["not found"] == 0


def _function(account):
    def run(task: Task) -> object:
        return account.run(task)

    return run


class Switched(Peer):
    """A Conductor server without tasks that hangs until it is told to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answering = threading.Event()
        self.times: list[float] = []
        self.waiting = self.most = 0
        self._count = threading.Lock()

    def _act(self, _):
        return self._proceed

    def _proceed(self, stream, _):
        with self._count:
            self.times.append(time.monotonic())
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        try:
            if not self.answering.is_set():
                return self.do_silent()
            threading.Event().wait(0.05)
            return self.say(stream, b"[]", "Content-Type: application/json")
        finally:
            with self._count:
                self.waiting -= 1


def test_no_stampede_on_a_hung_server_nor_when_it_is_back() -> None:
    """Six workers send a server that hangs one probe at a time, and no more than a poll each once it answers."""
    heard = Heard()
    specs = [WorkerSpec(task_type=f"t{number}", function=_function(Account()), threads=4) for number in range(6)]
    config = quick("curl", poll={"max_abandoned": 9, "give_up_after": 30.0}, grace=0.3)
    with Switched() as peer, WorkerRunner(specs, [ServerSettings("eu", peer.url)], config=config, on_event=heard):
        heard.wait_for(BreakerChanged, after=BreakerState.OPEN)
        threading.Event().wait(RESET / 2)  # polls that were sent before may arrive a moment later
        before = len(peer.times)
        until(lambda: len(peer.times) >= before + 3, "three probes were sent")
        probes, hung = peer.times[before:], peer.waiting
        probed = sum(isinstance(event, BreakerChanged) and event.after is BreakerState.HALF_OPEN for event in heard)
        assert abs(probed - len(probes)) <= 1, "a call that was not the one probe of a half-open breaker"
        assert all(later - earlier >= RESET for earlier, later in itertools.pairwise(probes))

        peer.answering.set()
        heard.wait_for(BreakerChanged, after=BreakerState.CLOSED)
        since = len(peer.times)
        until(lambda: len(peer.times) >= since + 30, "polls again")
        assert peer.most - hung <= len(specs)


# Long lives.


class Loopback:
    """A transport to a server of many tasks, in memory; the result of ``poison`` it answers with an error page."""

    bounded = True
    served = updates = 0
    limit = 0
    poison = ""
    refusal = 502  # what a result of poison gets
    words = True  # a small one in its place is taken
    told: ClassVar[list[dict[str, Any]]] = []
    lock = threading.Lock()

    def __init__(self, _: ServerSettings) -> None:
        pass

    def send(self, call: HttpCall, _: float) -> HttpAnswer:
        """Hand out as many tasks as asked for; take every result."""
        if call.method == "POST":
            told = json.loads(call.body or b"{}")
            task = told["taskId"]
            if task == self.poison:
                if not (told["status"] == "FAILED" and self.words):
                    return HttpAnswer(self.refusal, {}, b"<html>" if self.refusal > 499 else b'{"message":"no"}')
                self.told.append(told)
            with self.lock:
                type(self).updates += 1
            if not call.path.endswith("v2"):
                return HttpAnswer(200, {}, task.encode())
            tasks = self.take(1)
            return HttpAnswer(200, {}, json.dumps(tasks[0]).encode()) if tasks else HttpAnswer(204)
        tasks = self.take(int(call.query.partition("count=")[2].partition("&")[0]))
        return HttpAnswer(200, {}, json.dumps(tasks).encode())

    def take(self, count: int) -> list[dict[str, object]]:
        """At most so many tasks."""
        with self.lock:
            first, count = self.served, min(count, self.limit - self.served)
            type(self).served += count
        return [
            {"taskId": f"id{n}", "workflowInstanceId": f"w{n}", "inputData": {"n": n}}
            for n in range(first, first + count)
        ]

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> type[Loopback]:
    """The transport of all servers. A call of another test that is still under way does not count here."""
    mine = type("Mine", (Loopback,), {"told": []})
    monkeypatch.setattr(threads, "choose", lambda _: mine)
    return mine


def test_one_result_that_a_server_cannot_digest_does_not_stop_it(loopback: type[Loopback]) -> None:
    """A gateway that fails on one result for ever keeps the server's other tasks from nothing."""
    spec = WorkerSpec(task_type="t", function=lambda n: {"n": n}, threads=2)
    loopback.poison, loopback.limit = "id3", 4
    servers, heard = [ServerSettings("eu", "http://eu/api")], Heard()
    with WorkerRunner([spec], servers, config=quick(grace=0.0), on_event=heard) as runner:
        until(lambda: loopback.updates == 3, "the others are delivered")
        heard.wait_for(DeliveryFailed, attempt=3)
        loopback.limit = 200
        until(lambda: loopback.updates == 199, lambda: f"{loopback.updates} of 199, {runner.view()}")
        assert runner.stop().left == 1


@pytest.mark.parametrize("status", [400, 502])
def test_d6_a_server_that_refuses_a_result_for_good_is_told_so_in_few_words(
    loopback: type[Loopback], status: int
) -> None:
    """The workflow fails with the reason, and need not wait for its timeout; the result itself is a dead letter."""
    spec = WorkerSpec(task_type="t", function=lambda n: {"n": n}, threads=2)
    loopback.poison, loopback.limit, loopback.refusal = "id3", 100_000, status
    config = quick(grace=0.0, relay={"refused_for": 0.0, "retry_initial": 0.001, "retry_maximum": 0.001})
    heard = Heard()
    with WorkerRunner([spec], [ServerSettings("eu", "http://eu/api")], config=config, on_event=heard) as runner:
        dead = heard.wait_for(DeadLettered, key="id3")
        until(lambda: loopback.told, "the small result is taken")
        letter = runner.consumer.relay.dead_letters()[0]

    (told,) = loopback.told
    assert (told["status"], told["outputData"]) == ("FAILED", {})
    assert told["reasonForIncompletion"] == f"the task's result was not accepted: {dead.reason}"
    assert f"HTTP {status}" in dead.reason
    assert "while others were taken" in dead.reason
    assert letter.row.payload.output == {"n": 3}


def test_d6_the_few_words_are_not_replaced_by_others(loopback: type[Loopback]) -> None:
    """A server that refuses these too has been told often enough."""
    spec = WorkerSpec(task_type="t", function=lambda n: {"n": n}, threads=2)
    loopback.poison, loopback.limit, loopback.refusal, loopback.words = "id3", 100_000, 400, False
    config = quick(grace=0.0, relay={"refused_for": 0.0, "retry_initial": 0.001, "retry_maximum": 0.001})
    heard = Heard()
    with WorkerRunner([spec], [ServerSettings("eu", "http://eu/api")], config=config, on_event=heard) as runner:
        until(lambda: sum(isinstance(event, DeadLettered) for event in heard) == 2, "both are given up")
        updates = loopback.updates
        until(lambda: loopback.updates > updates + 100, "work goes on")
        assert runner.consumer.relay.pending() == 0

    assert not loopback.told
    assert sum(isinstance(event, DeadLettered) for event in heard) == 2


@pytest.mark.many
def test_memory_does_not_grow_with_tasks(loopback: type[Loopback]) -> None:
    """After thousands of tasks more a worker keeps no more objects than after the first three thousand."""
    first, more = 3_000, part(12_000)
    spec = WorkerSpec(task_type="t", function=lambda n: {"n": n}, threads=10)
    servers = [ServerSettings(name, f"http://{name}/api") for name in ("eu", "us")]
    sizes = []
    with WorkerRunner([spec], servers, config=RunnerConfig()):
        for limit in (first, first + more):
            loopback.limit = limit
            until(lambda limit=limit: loopback.updates == limit, lambda: f"{loopback.updates} results", 3 * GUARD)
            gc.collect()
            sizes.append(len(gc.get_objects()))

    assert sizes[1] - sizes[0] < more / 6
