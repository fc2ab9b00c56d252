"""The poller on threads: real threads and sockets-free sources; nothing here depends on how fast the machine is."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest
from fault_kit import until
from hearing import GUARD, Heard

from resilience import (
    BreakerConfig,
    BreakerRegistry,
    BreakerState,
    GaveBack,
    GiveBackFailed,
    HandlerFailed,
    Incomplete,
    Item,
    ItemsArrivedLate,
    PollConfig,
    Poller,
    PollFailed,
    PollOverdue,
    PollTimedOut,
    Rejected,
    Source,
    SurplusArrived,
    Throttled,
)

QUICK = PollConfig(poll_wait=0.02, overdue_after=0.02, poll_timeout=0.1, give_up_after=5.0, max_hold=0.2)
PATIENT = PollConfig(poll_wait=0.02, overdue_after=2.0, poll_timeout=10.0, give_up_after=20.0)


class Queue:
    """A source with values; it can be made to hang and takes back what it is given."""

    def __init__(self, *values: object) -> None:
        self.values = deque(values)
        self.back: list[object] = []
        self.polls = 0
        self.hangs = False
        self.thaw = threading.Event()
        self.hanging = threading.Event()

    def poll(self, count: int, wait: float) -> Sequence[object] | None:
        """At most ``count`` values; when it hangs, they leave the queue at once and arrive after the thaw."""
        self.polls += 1
        taken = [self.values.popleft() for _ in range(min(count, len(self.values)))]
        if self.hangs:
            self.hanging.set()
            assert self.thaw.wait(GUARD)
        elif not taken:
            threading.Event().wait(wait)
        return taken or None

    def give_back(self, values: Sequence[object]) -> None:
        """Take back what never started."""
        self.back.extend(values)

    def source(self, name: str = "a", **options: object) -> Source[object]:
        """What a poller is told of it."""
        return Source(name, self.poll, give_back=self.give_back, **options)  # type: ignore[arg-type]


def take(poller: Poller[object], count: int) -> list[Item[object]]:
    """Take until there are ``count`` items."""
    items: list[Item[object]] = []
    while len(items) < count:
        got = poller.take(GUARD)
        assert got, f"only {items} came"
        items += got
    return items


def test_take_returns_what_any_source_brought_while_another_hangs() -> None:
    """There is no round in which all wait for the slowest."""
    hung, ready = Queue("never"), Queue("now")
    hung.hangs = True
    with Poller([hung.source("hung"), ready.source("ready")], capacity=2, config=PATIENT) as poller:
        (item,) = take(poller, 1)
        assert hung.hanging.wait(GUARD)

        assert (item.source, item.value) == ("ready", "now")
        item.done()
        hung.thaw.set()


def test_p2_values_beyond_what_was_asked_for_go_back_and_are_no_failure() -> None:
    """A source that brings too much takes nobody's place, loses nothing, and is well; that it does is told once."""
    heard, back = Heard(), []
    greedy = Source("greedy", lambda count, _: list(range(count + 30)), give_back=back.extend)
    with Poller([greedy], capacity=2, config=PATIENT, on_event=heard) as poller:
        (item,) = poller.take(GUARD, 1)
        event = heard.wait_for(GaveBack, source="greedy")

        assert isinstance(event, GaveBack)
        assert (item.value, event.reason) == (0, "more than was asked for")
        assert back[:30] == list(range(1, 31))
        item.done()
        for more in take(poller, 2):
            more.done()
        heard.wait_for(SurplusArrived, source="greedy")
        assert poller.view()["greedy"].state == "backlogged"

    assert [event for event in heard if isinstance(event, SurplusArrived)] == [SurplusArrived("greedy", 31, 1)]
    assert not any(isinstance(event, PollFailed) for event in heard)


def test_poller_that_got_no_thread_for_its_time_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment without threads does not leave a poller without anybody who looks at deadlines."""
    failing = iter([RuntimeError("can't start new thread")])
    start = threading.Thread.start

    def scarce(thread: threading.Thread) -> None:
        if thread.name == "poller-time" and (error := next(failing, None)) is not None:
            raise error
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with Poller([Queue(1).source()], capacity=1, config=QUICK) as poller:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            poller.take(0.0)
        (item,) = take(poller, 1)
        assert "poller-time" in {thread.name for thread in threading.enumerate()}
        item.done()


def test_take_comes_back_empty_after_its_timeout() -> None:
    """Nothing to do is no error, and nobody waits for ever."""
    with Poller([Queue().source()], capacity=1, config=QUICK) as poller:
        assert poller.take(0.05) == []


def test_take_gives_no_more_than_its_limit() -> None:
    """A caller with room for one item gets one."""
    with Poller([Queue(*range(5)).source()], capacity=5, config=PATIENT) as poller:
        items = poller.take(GUARD, limit=1)
        assert len(items) == 1
        items[0].done()


def test_p2_items_that_execute_never_exceed_the_capacity() -> None:
    """However many sources there are, at most ``capacity`` handlers run at once, and every item runs once."""
    queues = {name: Queue(*range(60)) for name in "abc"}
    lock, now, most, seen = threading.Lock(), [0], [0], []
    all_seen = threading.Event()

    def handle(item: Item[object]) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            seen.append((item.source, item.value))
            if len(seen) == 180:
                all_seen.set()
        threading.Event().wait(0.001)
        with lock:
            now[0] -= 1

    with Poller([queue.source(name) for name, queue in queues.items()], capacity=4, config=PATIENT) as poller:
        poller.start(handle)
        assert all_seen.wait(GUARD)
        assert poller.stop(GUARD)

    assert most[0] <= 4
    assert sorted(seen) == sorted((name, value) for name in queues for value in range(60))


def test_item_is_done_once_whoever_says_so() -> None:
    """A second `done`, or a `give_back` after it, frees no second unit and returns nothing."""
    queue = Queue("x")
    with Poller([queue.source()], capacity=1, config=PATIENT) as poller:
        with take(poller, 1)[0] as item:
            item.done()
        item.give_back()

        assert poller.view()["a"].executing == 0
    assert queue.back == []


def test_items_can_be_iterated_until_the_poller_stops() -> None:
    """``for item in poller`` sees every item and ends with the poller."""
    seen = []
    with Poller([Queue(1, 2, 3).source()], capacity=2, config=PATIENT) as poller:
        for item in poller:
            with item:
                seen.append(item.value)
            if len(seen) == 3:
                poller.stop()

    assert seen == [1, 2, 3]


def test_item_given_back_by_its_holder_goes_home() -> None:
    """The value returns to the source it came from and its unit is free."""
    events, left, right = Heard(), Queue("l"), Queue("r")
    with Poller([left.source("left"), right.source("right")], capacity=2, config=PATIENT, on_event=events) as poller:
        for item in take(poller, 2):
            item.give_back()
        events.wait_for(GaveBack, source="left")
        events.wait_for(GaveBack, source="right")

    assert (left.back, right.back) == (["l"], ["r"])


def test_handler_that_raises_frees_its_unit_and_is_told_of() -> None:
    """A unit outlives whatever a handler raises, SystemExit included."""
    events, done = Heard(), threading.Event()

    def handle(item: Item[object]) -> None:
        if item.value == "last":
            done.set()
        elif item.value == "exit":
            raise SystemExit(1)
        else:
            raise ValueError(item.value)

    with Poller([Queue("bad", "exit", "last").source()], capacity=1, config=PATIENT, on_event=events) as poller:
        poller.start(handle)
        assert done.wait(GUARD)

    assert [type(e.error) for e in events if isinstance(e, HandlerFailed)] == [ValueError, SystemExit]


def test_handler_that_ends_its_item_itself_frees_one_unit() -> None:
    """An explicit `done` in the handler is not counted twice."""
    events, executing = Heard(), []

    def handle(item: Item[object]) -> None:
        item.done()
        executing.append(poller.view()["a"].executing)
        if item.value == 2:
            both.set()

    both = threading.Event()
    with Poller([Queue(1, 2).source()], capacity=1, config=PATIENT, on_event=events) as poller:
        poller.start(handle)
        assert both.wait(GUARD)

    assert all(count >= 0 for count in executing)
    assert poller.view()["a"].executing == 0


def test_run_returns_when_somebody_stops_the_poller() -> None:
    """``run`` blocks its caller until another thread calls `stop`."""
    with ThreadPoolExecutor(1) as pool, Poller([Queue(1).source()], capacity=1, config=QUICK) as poller:
        ran = threading.Event()
        running = pool.submit(poller.run, lambda _: ran.set())
        assert ran.wait(GUARD)
        assert not running.done()

        poller.stop()

        running.result(GUARD)


def test_poller_runs_one_handler() -> None:
    """A second `start` is refused: it would run items twice as wide as the capacity."""
    with Poller([Queue().source()], capacity=1, config=QUICK) as poller:
        poller.start(print)
        with pytest.raises(RuntimeError, match="running already"):
            poller.start(print)


def test_p8_item_held_too_long_is_given_back() -> None:
    """What cannot start within ``max_hold`` returns to its own source."""
    events, other = Heard(), Queue("waits")
    config = PollConfig(poll_wait=0.02, overdue_after=2.0, poll_timeout=10.0, give_up_after=20.0, max_hold=0.05)
    busy = Queue("runs")
    sources = [busy.source("busy"), other.source("other")]
    with Poller(sources, capacity=1, config=config, on_event=events) as poller:
        (first,) = take(poller, 1)
        held = events.wait_for(GaveBack, reason="held too long")
        assert {first.source, held.source} == {"busy", "other"}
        first.done()

    assert [held.source] == [name for name, queue in (("busy", busy), ("other", other)) if queue.back]


def test_late_answer_of_an_abandoned_poll_is_taken_in() -> None:
    """What a poll brings after its timeout is real work: it runs."""
    events, queue = Heard(), Queue("late")
    queue.hangs = True
    with Poller([queue.source()], capacity=1, config=QUICK, on_event=events) as poller:
        assert poller.take(0.01) == []
        events.wait_for(PollOverdue, source="a")
        events.wait_for(PollTimedOut, source="a")
        queue.thaw.set()

        (item,) = take(poller, 1)

        assert item.value == "late"
        assert ItemsArrivedLate("a", 1) in events
        item.done()


def test_stop_gives_back_what_polls_in_flight_bring_until_they_are_overdue() -> None:
    """A poll under way at the stop is waited for, and its items go home."""
    events, queue = Heard(), Queue("un-started")
    queue.hangs = True
    poller: Poller[object] = Poller([queue.source()], capacity=1, config=PATIENT, on_event=events)
    assert poller.take(0.01) == []
    assert queue.hanging.wait(GUARD)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(poller.stop, GUARD)
        queue.thaw.set()

        assert stopping.result(GUARD)

    assert queue.back == ["un-started"]
    assert GaveBack("a", 1, "stopping") in events


def test_stop_lets_a_running_item_finish() -> None:
    """`stop` returns True once the handler that was running has returned."""
    started, release, finished = threading.Event(), threading.Event(), []

    def handle(item: Item[object]) -> None:
        started.set()
        assert release.wait(GUARD)
        finished.append(item.value)

    poller = Poller([Queue(1).source()], capacity=1, config=QUICK)
    poller.start(handle)
    assert started.wait(GUARD)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(poller.stop, GUARD)
        release.set()

        assert stopping.result(GUARD)
    assert finished == [1]


def test_stop_ends_with_its_grace_and_says_that_something_still_runs() -> None:
    """A handler that hangs does not keep `stop` longer than it was given."""
    started, release = threading.Event(), threading.Event()

    def handle(_: Item[object]) -> None:
        started.set()
        assert release.wait(GUARD)

    poller = Poller([Queue(1).source()], capacity=1, config=QUICK)
    poller.start(handle)
    assert started.wait(GUARD)

    assert poller.stop(0.05) is False
    release.set()


def test_stop_reports_values_that_nobody_takes_back() -> None:
    """A source without ``give_back`` keeps its values, and that is said."""
    events, queue = Heard(), Queue("x")
    queue.hangs = True
    poller: Poller[object] = Poller([Source("a", queue.poll)], capacity=1, config=PATIENT, on_event=events)
    assert poller.take(0.01) == []
    assert queue.hanging.wait(GUARD)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(poller.stop, GUARD)
        queue.thaw.set()

        assert stopping.result(GUARD) is False
    failed = events.wait_for(GiveBackFailed, source="a")
    assert "no give_back" in str(failed.error)  # type: ignore[union-attr]


def test_stop_waits_no_longer_than_a_give_back_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs is told of at its deadline, though nothing else happens then."""
    monkeypatch.setattr("resilience.polling.returns.TIMEOUT", 0.05)
    heard, queue, thaw = Heard(), Queue(1, 2), threading.Event()
    source = Source("a", queue.poll, give_back=lambda _: thaw.wait(GUARD))
    config = attrs.evolve(PATIENT, max_hold=1000.0)
    poller: Poller[object] = Poller([source], capacity=2, config=config, on_event=heard)
    (item,) = poller.take(GUARD, 1)
    until(lambda: poller._wake_at > time.monotonic() + 100, "nothing is due for long")
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(poller.stop, GUARD)
        heard.wait_for(GiveBackFailed, source="a")
        item.done()

        assert stopping.result(GUARD) is False
    thaw.set()


def test_a_give_back_that_begins_before_the_keeper_of_the_time_rests_is_seen() -> None:
    """It has looked at the deadlines and does not sleep yet: there is nobody to be woken."""
    poller: Poller[object] = Poller([Queue().source()], capacity=1, config=PATIENT)
    poller._look_again()
    resting = threading.Thread(target=poller._rest, args=([],), daemon=True)
    resting.start()
    resting.join(GUARD)

    assert not resting.is_alive()


def test_values_that_arrive_after_the_stop_go_back() -> None:
    """An answer that comes when the poller has ended is not dropped: its values go home."""
    events, queue = Heard(), Queue("x")
    queue.hangs = True
    poller: Poller[object] = Poller([queue.source()], capacity=1, config=QUICK, on_event=events)
    assert poller.take(0.01) == []
    assert queue.hanging.wait(GUARD)
    poller.stop(GUARD)

    queue.thaw.set()

    assert events.wait_for(GaveBack, source="a") == GaveBack("a", 1, "stopping")


def failing(*errors: Exception | list[object]) -> Callable[[int, float], list[object]]:
    """A poll that raises or returns each of these in turn, then is empty."""
    script = deque(errors)

    def poll(_: int, wait: float) -> list[object]:
        if not script:
            threading.Event().wait(wait)
            return []
        step = script.popleft()
        if isinstance(step, Exception):
            raise step
        return step

    return poll


def test_failure_is_told_and_the_source_is_polled_again() -> None:
    """One failed poll costs a pause, not the source."""
    events = Heard()
    with Poller([Source("a", failing(OSError("down"), ["up"]))], capacity=1, config=PATIENT, on_event=events) as poller:
        (item,) = take(poller, 1)
        item.done()

    assert item.value == "up"
    assert [str(e.error) for e in events if isinstance(e, PollFailed)] == ["down"]


def test_repeated_failures_open_the_sources_breaker_and_no_other() -> None:
    """A source that fails fail_max times is left alone; its neighbour is not."""
    changes, opened = Heard(), threading.Event()
    breakers = BreakerRegistry(
        BreakerConfig(fail_max=2, reset_timeout=60.0),
        on_event=lambda e: (changes(e), opened.set())[0],  # type: ignore[func-returns-value]
    )
    sources = [Source("bad", failing(*[OSError("down")] * 9)), Source("good", failing())]
    with Poller(sources, capacity=1, config=QUICK, breakers=breakers) as poller:
        assert poller.take(0.01) == []
        assert opened.wait(GUARD)

        assert breakers.get("bad").state is BreakerState.OPEN
        assert breakers.get("good").state is BreakerState.CLOSED


def test_source_that_asks_for_a_pause_counts_nothing() -> None:
    """`Throttled` pauses the source for at least as long as it says, and its breaker hears no failure."""
    breakers = BreakerRegistry(BreakerConfig(fail_max=1))
    events = Heard()
    poll = failing(Throttled(0.05), ["after"])
    with Poller([Source("a", poll)], capacity=1, config=PATIENT, breakers=breakers, on_event=events) as poller:
        (item,) = take(poller, 1)
        item.done()

        assert breakers.get("a").state is BreakerState.CLOSED
    events.wait_for(PollFailed, source="a")


def test_good_part_of_a_damaged_answer_runs_and_the_failure_counts() -> None:
    """`Incomplete` brings its values and counts against its source."""
    breakers = BreakerRegistry(BreakerConfig(fail_max=1))
    poll = failing(Incomplete("half of it", ["good"]))
    with Poller([Source("a", poll)], capacity=1, config=PATIENT, breakers=breakers) as poller:
        (item,) = take(poller, 1)
        item.done()

        assert item.value == "good"
        assert breakers.get("a").state is BreakerState.OPEN


@pytest.mark.parametrize("answer", ["text", b"bytes", {1, 2}, 7])
def test_answer_that_is_no_sequence_teaches(answer: object) -> None:
    """A poll that returns something else fails with a word about what it should return."""
    events = Heard()
    with Poller([Source("a", lambda *_: answer)], capacity=1, config=PATIENT, on_event=events) as poller:  # type: ignore[arg-type, return-value]
        assert poller.take(0.01) == []
        failed = events.wait_for(PollFailed, source="a")

    assert "returns a list, or None" in str(failed.error)  # type: ignore[union-attr]


def test_cancelled_poll_is_a_failure_like_any_other() -> None:
    """A poll that ends with a cancellation of its own is tried again."""
    calls = []

    def poll(_: int, wait: float) -> list[object]:
        calls.append(1)
        if len(calls) == 1:
            raise asyncio.CancelledError
        threading.Event().wait(wait)
        return ["x"] if len(calls) == 2 else []

    with Poller([Source("a", poll)], capacity=1, config=PATIENT) as poller:
        take(poller, 1)[0].done()


def test_p13_source_whose_delivery_failed_is_not_polled_until_one_succeeds() -> None:
    """Results that cannot get home stop the polls; one that can starts them again."""
    queue = Queue("first", "second")
    with Poller([queue.source()], capacity=1, config=PATIENT) as poller:
        (item,) = take(poller, 1)
        poller.deliveries("a", ok=False)
        item.done()
        polls = queue.polls

        assert poller.take(0.1) == []
        assert queue.polls == polls

        poller.deliveries("a", ok=True)
        (item,) = take(poller, 1)
        assert item.value == "second"
        item.done()


def test_p9_idle_poller_polls_once_per_wait() -> None:
    """Nothing spins: while nobody has anything, a source that uses its wait is asked again only after it."""
    queue = Queue()
    with Poller([queue.source()], capacity=4, config=PATIENT) as poller:
        assert poller.take(0.2) == []

    assert queue.polls <= 0.2 / 0.02 + 2


class Busy:
    """A registry and its breaker in one; somebody else is always quicker to take the first permits."""

    retry_at = None
    probe = False

    def __init__(self, rejections: int) -> None:
        self.rejections = rejections

    def get(self, _: str) -> "Busy":
        """The breaker."""
        return self

    def try_acquire(self) -> "Rejected | Busy":
        """A permit, after so many rejections."""
        self.rejections -= 1
        return Rejected("taken", 0.01) if self.rejections >= 0 else self

    def report(self, _: object) -> bool:
        """Report."""
        return True


def test_poll_that_its_breaker_rejects_is_sent_again_later() -> None:
    """Between planning and sending, another user of the breaker may take the only permit: that is no failure."""
    events, breakers = Heard(), Busy(rejections=2)
    poller: Poller[object] = Poller(
        [Queue("x").source()],
        capacity=1,
        config=PATIENT,
        breakers=breakers,  # type: ignore[arg-type]
        on_event=events,
    )
    with poller:
        (item,) = take(poller, 1)
        item.done()

    assert not [event for event in events if isinstance(event, PollFailed)]
    assert breakers.rejections < 0


def test_two_sources_of_one_name_are_refused() -> None:
    """Items and breakers go by name."""
    with pytest.raises(ValueError, match="two sources are called 'a'"):
        Poller([Queue().source("a"), Queue().source("a")], capacity=1)


def test_poller_needs_a_source() -> None:
    """Polling nothing would wait for ever."""
    with pytest.raises(ValueError, match="at least one source"):
        Poller([], capacity=1)


def test_repr_says_what_it_polls() -> None:
    """A poller and an item show what they are about."""
    with Poller([Queue("x").source()], capacity=1, config=PATIENT) as poller:
        assert repr(poller) == "<Poller of a: 0 executing, 0 held>"
        (item,) = take(poller, 1)
        assert repr(item) == "Item('a', 'x')"
        item.done()


@pytest.mark.parametrize(
    "timing",
    [
        {"poll_wait": 5.0},
        {"overdue_after": 4.5},
        {"poll_timeout": 30.0},
        {"poll_wait": 0.0},
        {"max_hold": float("nan")},
        {"poll_wait": True},
        {"max_abandoned": 0},
    ],
)
def test_timing_that_cannot_work_is_refused(timing: dict[str, float]) -> None:
    """The order of the times is checked, and each is a positive number; the error names what is wrong."""
    with pytest.raises(ValueError, match=next(iter(timing))):
        PollConfig(**timing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((7, print), "name must be a str, not 7"),
        (("eu", [1, 2]), r"poll must be a function, not \[1, 2\]"),
    ],
)
def test_source_of_wrong_types_is_refused(arguments: tuple[Any, Any], told: str) -> None:
    """The error names what is wrong and what to do, in one line."""
    with pytest.raises(TypeError, match=told):
        Source(*arguments)


@pytest.mark.parametrize("bounded", ["no", 1, 0, None])
def test_source_is_bounded_or_not(bounded: Any) -> None:
    """What only passes for a truth value may be meant as its opposite."""
    with pytest.raises(TypeError, match=f"bounded must be True or False, not {bounded!r}: write one of them"):
        Source("eu", print, bounded=bounded)


@pytest.mark.parametrize("options", [{"weight": 0}, {"max_batch": 0}, {"max_units": True}])
def test_source_with_impossible_numbers_is_refused(options: dict[str, int]) -> None:
    """Weights and limits are whole numbers from 1; the error names the option."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Queue().source(**options)


def test_poller_without_capacity_is_refused_with_advice_that_can_be_followed() -> None:
    """There is no default to fall back to."""
    with pytest.raises(ValueError, match=r"capacity must be a whole number of at least 1, not 0: choose a larger one$"):
        Poller([Queue().source()], capacity=0)


def test_empty_answer_after_the_stop_is_no_loss() -> None:
    """A poll that was abandoned at the stop and brings nothing is not reported."""
    events, queue = Heard(), Queue()
    queue.hangs = True
    before = set(threading.enumerate())
    poller: Poller[object] = Poller([queue.source()], capacity=1, config=QUICK, on_event=events)
    assert poller.take(0.01) == []
    assert queue.hanging.wait(GUARD)
    poller.stop(GUARD)

    queue.thaw.set()
    for thread in threading.enumerate():
        if thread.name == "fan-out a" and thread not in before:
            thread.join(GUARD)

    assert not [event for event in events if isinstance(event, GiveBackFailed)]


def test_probe_that_somebody_else_has_is_waited_for() -> None:
    """A breaker that gives its only probe to another user of it costs the source a pause, not a failure."""
    breakers = BreakerRegistry(BreakerConfig(fail_max=1, reset_timeout=0.02, jitter=0.0, probe_timeout=0.2))
    breaker = breakers.get("a")
    permit = breaker.try_acquire()
    assert permit
    permit.failure(OSError("down"))
    threading.Event().wait(0.05)
    assert breaker.try_acquire()  # the probe is ours, and we never report

    with Poller([Queue("x").source()], capacity=1, config=PATIENT, breakers=breakers) as poller:
        (item,) = take(poller, 1)
        item.done()

        assert breaker.state is BreakerState.CLOSED


def test_p12_when_every_source_is_open_one_is_probed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is back: the sources are found again long before their breakers' wait is over."""
    monkeypatch.setattr("resilience.outage.PAUSE", 0.05)
    breakers = BreakerRegistry(BreakerConfig(fail_max=1, reset_timeout=300.0))
    polls = {name: failing(OSError("no network"), OSError("no network"), [name]) for name in "ab"}
    sources = [Source(name, poll) for name, poll in polls.items()]
    with Poller(sources, capacity=1, config=PATIENT, breakers=breakers) as poller:
        (item,) = take(poller, 1)
        item.done()

        assert breakers.get(item.source).state is BreakerState.CLOSED
        assert {breakers.get(name).state for name in "ab"} == {BreakerState.CLOSED, BreakerState.OPEN}


def test_p10_poller_explains_what_it_does() -> None:
    """Each source, in words, at any time."""
    busy, idle = Queue(*range(9)), Queue()
    with Poller([busy.source("busy"), idle.source("idle")], capacity=1, config=PATIENT) as poller:
        (item,) = take(poller, 1)
        told = poller.explain()
        item.done()

    assert told["busy"].reason == "due, but no unit is free"
    assert told["idle"].source == "idle"
    assert poller.explain()["idle"].reason == "not polled: the poller has stopped"


def test_p7_source_that_is_added_is_polled() -> None:
    """Its items come like everybody's."""
    with Poller([Queue().source("a")], capacity=1, config=PATIENT) as poller:
        poller.add(Queue("x").source("b"))
        (item,) = take(poller, 1)
        item.done()

        assert item.source == "b"
        with pytest.raises(ValueError, match="there is a source called 'b' already"):
            poller.add(Queue().source("b"))


def test_p7_what_a_removed_source_brings_goes_back_to_it_however_late() -> None:
    """Its held items, what its poll in flight brings, and what that brings after it was abandoned: to itself alone."""
    events, old, new = Heard(), Queue("late"), Queue("new")
    old.hangs = True
    with Poller([old.source("a")], capacity=1, config=QUICK, on_event=events) as poller:
        assert poller.take(0.0) == []
        assert old.hanging.wait(GUARD)
        poller.remove("a")
        assert poller.view() == {}
        poller.add(new.source("a"))
        (item,) = take(poller, 1)
        threading.Event().wait(2 * QUICK.poll_timeout)
        old.thaw.set()
        events.wait_for(GaveBack, source="a", reason="its source was removed")
        item.done()

    assert item.value == "new"
    assert (old.back, new.back) == (["late"], [])


def test_p7_running_items_of_a_removed_source_finish() -> None:
    """They are told of until then, and one that its holder gives back goes to the source that brought it."""
    old, new = Queue("one", "two"), Queue()
    with Poller([old.source("a")], capacity=2, config=PATIENT) as poller:
        items = take(poller, 2)
        poller.remove("a")
        assert (poller.view()["a"].state, poller.view()["a"].executing) == ("removed", 2)
        items[0].done()
        poller.add(new.source("a"))
        assert (poller.view()["a"].state, poller.view()["a"].executing) == ("suspect", 1)
        items[1].give_back()
        assert poller.view()["a"].executing == 0

    assert (old.back, new.back) == ([items[1].value], [])


def test_p7_what_comes_with_the_result_of_a_removed_source_goes_back() -> None:
    """No chain of it goes on; what its source hands out all the same goes home, also when the name is another's."""
    old, new = Queue("one", "two"), Queue()
    with Poller([old.source("a")], capacity=2, config=PATIENT) as poller:
        first, second = take(poller, 2)
        poller.remove("a")
        assert not first.may_chain()
        assert first.chain(["three"]) is None
        poller.add(new.source("a"))
        second.leave()
        assert second.chain(["four"]) is None
        assert poller.view()["a"].executing == 0

    assert (sorted(old.back, key=str), new.back) == (["four", "three"], [])


def test_p7_last_source_may_go_and_another_come() -> None:
    """A poller may have nothing to poll for a while."""
    with Poller([Queue().source("a")], capacity=1, config=PATIENT) as poller:
        poller.remove("a")
        assert poller.take(0.01) == []
        poller.add(Queue("x").source("b"))
        (item,) = take(poller, 1)
        item.done()


def test_p7_paused_source_is_not_polled() -> None:
    """Until it is resumed."""
    queue = Queue("x")
    with Poller([queue.source("a")], capacity=1, config=PATIENT) as poller:
        poller.pause("a")
        assert poller.take(0.05) == []
        assert queue.polls == 0
        poller.resume("a")
        (item,) = take(poller, 1)
        item.done()


def test_p7_weight_changes_who_gets_how_much() -> None:
    """The shares follow at once."""
    with Poller([Queue().source(name) for name in "ab"], capacity=10, config=PATIENT) as poller:
        poller.set_weight("a", 4)
        assert poller.explain()["a"].share == 10
        with pytest.raises(ValueError, match="there is no source called 'c': there are 'a', 'b'"):
            poller.set_weight("c", 1)


class Crowd:
    """Handlers that wait, and who counts them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.inside = self.most = self.done = 0
        self.leave = 0

    def handle(self, _: Item[object]) -> None:
        """Wait until somebody may leave."""
        with self.changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.leave > 0, GUARD)
            self.leave -= 1
            self.inside -= 1
            self.done += 1
            self.changed.notify_all()

    def wait_for(self, inside: int) -> None:
        """Wait until there are so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.inside == inside, GUARD)

    def let_out(self, count: int) -> None:
        """So many may leave."""
        with self.changed:
            self.leave += count
            self.changed.notify_all()


def units() -> int:
    """Threads that run handlers."""
    return sum(thread.name.startswith("unit-") for thread in threading.enumerate())


def wait_until(true: Callable[[], bool]) -> None:
    """Look again and again; fail after a long time."""
    for _ in range(int(GUARD / 0.005)):
        if true():
            return
        threading.Event().wait(0.005)
    pytest.fail("it never came true")


def test_p7_units_grow_and_shrink_with_the_capacity() -> None:
    """More run at once at once; with fewer, those that run finish, and no more than that start; threads follow."""
    crowd, before = Crowd(), units()
    with Poller([Queue(*range(100)).source()], capacity=1, config=PATIENT) as poller:
        poller.start(crowd.handle)
        crowd.wait_for(1)
        poller.set_capacity(3)
        crowd.wait_for(3)
        poller.set_capacity(2)
        crowd.let_out(2)
        crowd.wait_for(2)
        wait_until(lambda: units() - before == 2)
        crowd.most = 0
        crowd.let_out(10)
        wait_until(lambda: crowd.done == 12)
        assert crowd.most <= 2
        crowd.let_out(1000)
        wait_until(lambda: crowd.done >= 100)
        poller.set_capacity(1)  # idle ones end too
        wait_until(lambda: units() - before == 1)


def test_p7_capacity_of_a_stopped_poller_starts_no_thread() -> None:
    """Nor does one of a poller whose items somebody takes."""
    before = units()
    poller = Poller([Queue().source()], capacity=1, config=PATIENT)
    poller.set_capacity(2)
    poller.start(lambda _: None)
    poller.stop(GUARD)
    poller.set_capacity(5)

    wait_until(lambda: units() <= before)


def test_p7_unit_that_is_needed_again_stays() -> None:
    """The capacity may grow again while a unit finds that it is one too many."""
    poller = Poller([Queue().source()], capacity=1, config=PATIENT)
    crew = poller._units
    crew._working = 2
    crew._wanted = 1

    class Growing:
        """A lock that comes late."""

        def __enter__(self) -> None:
            crew._wanted = 2

        def __exit__(self, *_: object) -> None:
            """Nothing to do."""

    crew._lock = Growing()  # type: ignore[assignment]

    assert not crew._retires()
    assert crew._working == 2


def test_p12_pollers_that_share_a_breaker_send_one_early_probe_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finds that everything is open, and decides alike; the breaker lets one of them through."""
    monkeypatch.setattr("resilience.outage.PAUSE", 0.02)
    breakers = BreakerRegistry(BreakerConfig(fail_max=1, reset_timeout=300.0))
    lock, inside, most, probes, enough = threading.Lock(), [0], [0], [0], threading.Event()

    def poll(_: int, __: float) -> list[object]:
        probe = breakers.get("a").state is not BreakerState.CLOSED
        with lock:
            inside[0] += probe
            most[0] = max(most[0], inside[0])
            probes[0] += probe
        threading.Event().wait(0.005)
        with lock:
            inside[0] -= probe
            if probes[0] == 4:
                enough.set()
        raise OSError("no network")

    pollers = [Poller([Source("a", poll)], capacity=1, config=PATIENT, breakers=breakers) for _ in range(2)]
    breakers.get("a").try_acquire().failure(OSError("down"))
    for poller in pollers:
        poller.start(print)
    assert enough.wait(GUARD)
    for poller in pollers:
        poller.stop(GUARD)

    assert most[0] == 1
