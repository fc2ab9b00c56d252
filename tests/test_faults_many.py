"""Many sources, odd peers and long lives: the poller on scripted sources, and the worker on sockets that misbehave."""

import collections
import gc
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator

import pytest
from fault_kit import RESET, Account, quick, until
from hearing import GUARD, Heard
from http_peers import Peer

from conductor_adapter import RunnerConfig, ServerSettings, Task, WorkerRunner
from conductor_adapter.dev_server import DevServerProcess
from conductor_adapter.running import threads
from conductor_adapter.running.links import Link
from conductor_adapter.wire import HttpAnswer, HttpCall
from conductor_adapter.worker import WorkerSpec
from resilience import (
    BreakerChanged,
    BreakerConfig,
    BreakerRegistry,
    BreakerState,
    GaveBack,
    GiveBackFailed,
    Incomplete,
    PollConfig,
    Poller,
    PollFailed,
    PollTimedOut,
    Source,
)
from resilience.polling.returns import Returns

TIMES = PollConfig(poll_wait=0.05, overdue_after=0.05, poll_timeout=0.2, give_up_after=5.0, max_hold=0.5)


class Queue:
    """A source in memory that can be made ill; what it handed out, and how often it was asked at once, is kept.

    Args:
        name: the source's.
        count: how many values it has.
    """

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.values = collections.deque((name, number) for number in range(count))
        self.handed_out = collections.Counter()
        self.asked = self.asking = self.most = 0
        self.latency = 0.0
        self.ill: str | None = None
        self.well = threading.Event()
        self._lock = threading.Lock()

    def source(self, **options: object) -> Source:
        """What a poller polls."""
        return Source(self.name, self._poll, give_back=self._give_back, **options)

    def heal(self) -> None:
        """From now on it is well; whoever it kept waiting gets its values late."""
        self.ill = None
        self.well.set()

    def _poll(self, count: int, wait: float) -> list[object]:
        with self._lock:
            self.asked += 1
            self.asking += 1
            self.most = max(self.most, self.asking)
            taken = [self.values.popleft() for _ in range(min(count, len(self.values)))]
            self.handed_out.update(taken)
        try:
            if self.ill == "hung":
                self.well.wait(GUARD)
            elif self.ill:
                self._give_back(taken)
                self.handed_out.subtract(taken)
                raise OSError(self.ill)
            else:
                threading.Event().wait(self.latency if taken else wait)
        finally:
            with self._lock:
                self.asking -= 1
        return taken

    def _give_back(self, values: list[object]) -> None:
        with self._lock:
            self.values.extend(values)


class Done:
    """A handler that counts what it did, and how much of it at once."""

    def __init__(self) -> None:
        self.times = collections.Counter()
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, item) -> None:
        """Handle an item."""
        with self._lock:
            self.times[item.value] += 1
            self.running += 1
            self.most = max(self.most, self.running)
        threading.Event().wait(0.001)
        with self._lock:
            self.running -= 1

    def of(self, name: str) -> int:
        """How many values of that source were done, each counted once."""
        with self._lock:
            return sum(value[0] == name for value in self.times)


def check(queues: list[Queue], done: Done, each: int) -> None:
    """Everything was done, and nothing more often than it was handed out."""
    for queue in queues:
        until(
            lambda queue=queue: done.of(queue.name) == each, lambda queue=queue: f"{queue.name}: {done.of(queue.name)}"
        )
        assert not [value for value, times in queue.handed_out.items() if done.times[value] > times]


def test_forty_sources_most_of_them_ill() -> None:
    """Ten hang, ten fail and ten are idle; the rest is served meanwhile, and all when they are well."""
    queues = [Queue(f"q{number}", 0 if number % 4 == 3 else 40) for number in range(40)]
    for number, queue in enumerate(queues):
        queue.ill = {0: "hung", 1: "down"}.get(number % 4)
    healthy, idle = queues[2::4], queues[3::4]
    heard, done = Heard(), Done()
    breakers = BreakerRegistry(BreakerConfig(reset_timeout=0.3, max_reset_timeout=0.3))
    sources = [queue.source() for queue in queues]
    with Poller(sources, capacity=10, config=TIMES, breakers=breakers, on_event=heard) as poller:
        poller.start(done)
        check(healthy, done, 40)
        until(lambda: _most_timeouts(heard) >= TIMES.max_abandoned, "one is not asked any more")
        idle[0].values.append((idle[0].name, 0))
        check(idle[:1], done, 1)
        for queue in queues:
            queue.heal()
        check(queues[0::4] + queues[1::4] + healthy, done, 40)

    assert done.most <= 10
    assert max(queue.most for queue in queues) <= 1 + TIMES.max_abandoned
    assert not [event for event in heard if isinstance(event, GiveBackFailed)]


def _most_timeouts(heard: Heard) -> int:
    return max(
        collections.Counter(event.source for event in heard if isinstance(event, PollTimedOut)).values(), default=0
    )


def test_thirty_nine_hung_sources_do_not_starve_an_idle_one() -> None:
    """Also without breakers, a healthy source that has little to do is asked often enough."""
    queues = [Queue(f"q{number}", 0) for number in range(40)]
    for queue in queues[1:]:
        queue.ill = "hung"
    done = Done()
    with Poller([queue.source() for queue in queues], capacity=10, config=TIMES) as poller:
        poller.start(done)
        for number in range(10):
            queues[0].values.append(("q0", number))
            check(queues[:1], done, number + 1)
        for queue in queues:
            queue.heal()


def test_eight_sources_at_capacity_one() -> None:
    """One unit is enough for eight sources of which two are ill: the others take turns."""
    queues = [Queue(f"q{number}", 60) for number in range(8)]
    queues[0].ill, queues[1].ill = "hung", "down"
    done = Done()
    with Poller([queue.source() for queue in queues], capacity=1, config=TIMES) as poller:
        poller.start(done)
        until(lambda: min(done.of(queue.name) for queue in queues[2:]) >= 20, "20 of each healthy source")
        assert max(done.of(queue.name) for queue in queues[2:]) <= 60
        for queue in queues:
            queue.heal()
        check(queues, done, 60)

    assert done.most == 1


def test_very_long_tasks_leave_short_ones_their_share() -> None:
    """Tasks without end of one source take its share and no more while the other source is busy."""
    short, long_ = Queue("short", 500), Queue("long", 0)
    gate, done = threading.Event(), Done()

    def handle(item) -> None:
        done(item)
        if item.source == "long":
            assert gate.wait(GUARD)

    with Poller([short.source(), long_.source()], capacity=4, config=TIMES) as poller:
        poller.start(handle)
        until(lambda: done.of("short") >= 20, "the short ones are under way")
        long_.values.extend(("long", number) for number in range(8))
        check([short], done, 500)
        gate.set()
        check([long_], done, 8)


@pytest.mark.parametrize("seed", range(3))
def test_random_illnesses_lose_nothing(seed: int) -> None:
    """Six sources fall ill and recover at random, some for as long as their values are late; each value is done."""
    rng = random.Random(seed)
    queues = [Queue(f"q{number}", 150) for number in range(6)]
    heard, done = Heard(), Done()
    breakers = BreakerRegistry(BreakerConfig(reset_timeout=0.1, max_reset_timeout=0.1))
    with Poller([q.source() for q in queues], capacity=4, config=TIMES, breakers=breakers, on_event=heard) as poller:
        poller.start(done)
        for _ in range(30):
            queue = rng.choice(queues)
            if queue.ill:
                queue.heal()
            else:
                queue.well = threading.Event()
                queue.ill = rng.choice(["hung", "down"])
            threading.Event().wait(0.03)
        for queue in queues:
            queue.heal()
        check(queues, done, 150)

    assert done.most <= 4
    assert not [event for event in heard if isinstance(event, GiveBackFailed)]


def test_units_granted_to_a_hung_poll_are_lent() -> None:
    """A source that hangs with half of the units granted to it does not keep them from the other."""
    queues = [Queue(name, 2000) for name in "ab"]
    together, gate, done = threading.Barrier(4), threading.Event(), Done()

    def handle(item) -> None:
        done(item)
        if queues[0].ill and item.source == "b" and not gate.is_set():
            together.wait(GUARD)
            gate.set()

    patient = PollConfig(poll_wait=0.05, overdue_after=0.05, poll_timeout=GUARD, give_up_after=2 * GUARD)
    with Poller([queue.source() for queue in queues], capacity=4, config=patient) as poller:
        poller.start(handle)
        until(lambda: done.of("a") >= 20, "both are backlogged")
        queues[0].ill = "hung"
        assert gate.wait(GUARD), "four of the healthy source's at once"
        queues[0].heal()
        check(queues, done, 2000)


@pytest.fixture
def failures() -> Iterator[list[object]]:
    """What threads die of."""
    seen: list[object] = []
    hook, threading.excepthook = threading.excepthook, seen.append
    yield seen
    threading.excepthook = hook


def test_stops_at_any_moment_lose_nothing(failures: list[object]) -> None:
    """However little time a stop gives, every value was done, went back, or is still in its queue."""
    for number in range(60):
        queues = [Queue(name, 1000) for name in "abc"]
        for place, queue in enumerate(queues):
            queue.latency = place * 0.002
        done = Done()
        poller = Poller([queue.source() for queue in queues], capacity=4, config=TIMES)
        poller.start(done)
        threading.Event().wait(number * 0.0002)
        poller.stop((0.0, 0.001, 0.01)[number % 3])
        until(lambda p=poller: not any(v.executing or v.held for v in p.view().values()), "all ended")
        for queue in queues:
            until(lambda q=queue, d=done: len(q.values) + d.of(q.name) == 1000, "all accounted for")
    assert not failures


def test_poll_that_comes_too_late_for_a_closed_poller_harms_nobody(failures: list[object]) -> None:
    """Between the decision to poll and the poll the poller may be closed: that ends no thread."""
    queue = Queue("q", 5)
    poller = Poller([queue.source()], capacity=2, config=TIMES)
    poller._polls.close()
    poller.start(Done())
    until(lambda: poller.view()["q"].in_flight == 0, "the poll is given up")
    poller.stop(0.0)
    assert (queue.asked, failures) == (0, [])


def test_value_given_back_after_the_stop_goes_home() -> None:
    """Whoever holds an item longer than the grace can still give it back, and its unit is free again."""
    queue, heard = Queue("q", 1), Heard()
    poller = Poller([queue.source()], capacity=1, config=TIMES, on_event=heard)
    (item,) = poller.take(GUARD)
    assert poller.stop(0.0) is False

    item.give_back()

    heard.wait_for(GaveBack, source="q", count=1)
    assert list(queue.values) == [("q", 0)]
    assert poller.view()["q"].executing == 0


def test_partly_refused_give_back_counts_what_is_back() -> None:
    """A source that takes some values back says so with ``Incomplete``; only the others are reported as lost."""
    heard = Heard()

    def refuse_last(values: list[object]) -> None:
        raise Incomplete("one is gone", values[:-1])

    source = Source("q", lambda count, _: list(range(count)), give_back=refuse_last)
    returns = Returns({"q": source}, clock=time.monotonic, on_event=heard, on_settled=lambda: None)
    returns.send([("q", value) for value in "abc"], "a test")

    assert heard.wait_for(GaveBack) == GaveBack("q", 2, "a test")
    assert heard.wait_for(GiveBackFailed).count == 1
    assert returns.lost == 1
    returns.close()


class Refusing:
    """A transport to a server that has forgotten the task ``b``."""

    bounded = True

    def __init__(self, _: ServerSettings) -> None:
        self.sent: list[str] = []

    def send(self, call: HttpCall, _: float) -> HttpAnswer:
        """Refuse ``b``, take everything else."""
        task = json.loads(call.body or b"{}")["taskId"]
        self.sent.append(task)
        gone = json.dumps({"message": "No such task found by id: b"}).encode()
        return HttpAnswer(404, {}, gone) if task == "b" else HttpAnswer(200, {}, task.encode())


def test_one_task_that_cannot_go_back_keeps_no_other_from_it() -> None:
    """A server that has forgotten one of several un-started tasks gets the others back all the same."""
    link = Link(ServerSettings("eu", "http://eu/api"), Refusing, 5.0)
    spec = WorkerSpec(task_type="t", function=lambda: None)
    tasks = [Task(task_id=name, workflow_id="w") for name in "abc"]

    with pytest.raises(Incomplete, match="No such task") as raised:
        link.source(spec, "me").give_back(tasks)

    assert link.transport.sent == ["a", "b", "c"]
    assert [task.task_id for task in raised.value.values] == ["a", "c"]


class Treacherous(list):
    """A sequence that fails once it is looked at."""

    def __iter__(self) -> Iterator[object]:
        raise OSError("the cursor is closed")


def test_answer_that_fails_when_it_is_read_is_a_failed_poll() -> None:
    """Sequences may compute what they hold: what that raises counts against the source, which is polled again."""
    heard, answers = Heard(), collections.deque([Treacherous(), ["fine"]])
    source = Source("q", lambda *_: answers.popleft() if answers else None)
    with Poller([source], capacity=1, config=TIMES, on_event=heard) as poller:
        (item,) = poller.take(GUARD)
        item.done()

    assert item.value == "fine"
    assert isinstance(heard.wait_for(PollFailed).error, OSError)


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
        threading.Event().wait(2.0)
        probes, hung = peer.times[before:], peer.waiting
        probed = sum(isinstance(event, BreakerChanged) and event.after is BreakerState.HALF_OPEN for event in heard)
        assert probes
        assert abs(probed - len(probes)) <= 1, "a call that was not the one probe of a half-open breaker"
        assert all(later - earlier >= RESET for earlier, later in itertools.pairwise(probes))

        peer.answering.set()
        heard.wait_for(BreakerChanged, after=BreakerState.CLOSED)
        since = len(peer.times)
        until(lambda: len(peer.times) >= since + 30, "polls again")
        assert peer.most - hung <= len(specs)


# Long lives.


class Loopback:
    """A transport to a server of endless tasks, in memory."""

    bounded = True
    served = updates = 0
    limit = 0
    lock = threading.Lock()

    def __init__(self, _: ServerSettings) -> None:
        pass

    def send(self, call: HttpCall, _: float) -> HttpAnswer:
        """Hand out as many tasks as asked for; take every result."""
        if call.method == "POST":
            task = json.loads(call.body or b"{}")["taskId"]
            with self.lock:
                Loopback.updates += 1
            return HttpAnswer(200, {}, task.encode())
        count = int(call.query.partition("count=")[2].partition("&")[0])
        with self.lock:
            first, count = Loopback.served, min(count, Loopback.limit - Loopback.served)
            Loopback.served += count
        tasks = [
            {"taskId": f"id{n}", "workflowInstanceId": f"w{n}", "inputData": {"n": n}}
            for n in range(first, first + count)
        ]
        return HttpAnswer(200, {}, json.dumps(tasks).encode())

    def close(self) -> None:
        """Nothing is open."""


def test_memory_does_not_grow_with_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """After fifty thousand tasks a worker keeps no more objects than after five thousand."""
    monkeypatch.setattr(threads, "choose", lambda _: Loopback)
    spec = WorkerSpec(task_type="t", function=lambda n: {"n": n}, threads=10)
    servers = [ServerSettings(name, f"http://{name}/api") for name in ("eu", "us")]
    Loopback.served = Loopback.updates = 0
    sizes = []
    with WorkerRunner([spec], servers, config=RunnerConfig()):
        for limit in (5_000, 50_000):
            Loopback.limit = limit
            until(lambda limit=limit: Loopback.updates == limit, lambda: f"{Loopback.updates} results", 3 * GUARD)
            gc.collect()
            sizes.append(len(gc.get_objects()))

    assert sizes[1] - sizes[0] < 2_000
