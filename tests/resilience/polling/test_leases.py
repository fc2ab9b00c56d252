"""Heartbeats of a poller's items: what is lent stays lent while it is held or runs, whatever other sources do."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from fault_kit import until
from hearing import GUARD, Heard

from resilience import Item, LeaseGivenUp, LeaseLost, PollConfig, Poller, Source, Throttled, Undeliverable
from resilience.leases import MAX_CALLS, Extension, Lease, Leases
from resilience.polling.heartbeats import Heartbeats, _extend, bare, parted
from resilience.testing import Held, ManualClock, ScriptedCall

QUICK = PollConfig(poll_wait=0.02, overdue_after=0.5, poll_timeout=10.0, give_up_after=20.0)
ERROR = OSError("no")


class Desk:
    """Heartbeats in a time that the test moves; their calls run on real threads, and the test waits for those."""

    def __init__(self, max_lease: float | None = None) -> None:
        self.clock = ManualClock()
        self.heard = Heard()
        self.changed = threading.Semaphore(0)
        self.beats = Heartbeats(
            clock=self.clock, on_event=self.heard, on_change=self.changed.release, max_lease=max_lease
        )
        self.leases: dict[object, Lease | None] = {}

    def lend(self, extend: Any, *values: object, name: str = "a", seconds: float | None = 10.0) -> None:
        """Values arrive."""
        source = Source(name, lambda *_: None, extend=extend, lease=lambda _: seconds)
        for value, lease in map(parted, self.beats.leased(source, values, self.clock())):
            self.leases[value] = lease

    def until(self, seconds: float) -> None:
        """Let time pass in steps of what is due."""
        until = self.clock() + seconds
        while True:
            upcoming = self.beats.beat()
            at = min(self.beats.next_at(), *([upcoming] if upcoming is not None else []), until)
            if at >= until:
                break
            self.clock.advance(max(0.0, at - self.clock()))
        self.clock.advance(until - self.clock())
        self.beats.beat()

    def lost(self) -> list[LeaseLost]:
        """What was told to be lost."""
        return [event for event in self.heard if isinstance(event, LeaseLost)]

    def lose(self) -> None:
        """From one attempt to the next, until a lease is lost."""
        while not self.lost():
            self.settle()
            if not self.lost():
                self.until(self.beats.next_at() - self.clock())

    def settle(self, count: int = 1) -> None:
        """Wait until so many heartbeats came to something."""
        for _ in range(count):
            assert self.changed.acquire(timeout=GUARD)


def values_of(extend: ScriptedCall[Any]) -> list[object]:
    """What was to be extended, call by call."""
    return [arguments[0] for arguments, _ in extend.calls]


def test_four_items_on_a_hung_source_delay_no_other_source() -> None:
    """That is how a shared pool of senders starves a healthy server's tasks."""
    desk, hung, healthy = Desk(), ScriptedCall(Held(None)), ScriptedCall(None)
    desk.lend(hung, 1, 2, 3, 4, name="hung")
    desk.lend(healthy, "v", name="healthy")

    desk.until(8.0)
    healthy.wait_ended(1)
    desk.settle()
    desk.until(7.9)
    assert healthy.started == 1
    desk.until(0.1)
    healthy.wait_ended(2)

    assert hung.ended == 0
    hung.release()


def test_four_hung_heartbeats_delay_the_fifth_of_their_source_by_a_twentieth_of_its_lease() -> None:
    """The bound within one source: a heartbeat waits for that long, while fewer than eight of its source hang."""
    desk = Desk()
    gate = threading.Event()
    called: list[object] = []
    seen = threading.Semaphore(0)

    def extend(value: object, _: float) -> None:
        called.append(value)
        seen.release()
        if value != "fifth":
            assert gate.wait(GUARD)

    desk.lend(extend, 1, 2, 3, 4, "fifth")
    desk.until(8.0)
    assert seen.acquire(timeout=GUARD)
    assert called == [1]
    desk.until(0.5)
    for _ in range(4):
        assert seen.acquire(timeout=GUARD)

    assert "fifth" in called
    assert desk.clock() == pytest.approx(8.5)
    gate.set()


def test_a_failed_heartbeat_is_tried_again_until_the_lease_is_over_and_then_told_of_once() -> None:
    """Nobody has to look for it, and nobody is told twice."""
    desk, extend = Desk(), ScriptedCall(ERROR)
    desk.lend(extend, "v")

    desk.until(8.0)
    desk.lose()
    tries = extend.started
    desk.until(100.0)

    assert tries > 3
    assert extend.started == tries
    assert desk.lost() == [LeaseLost("a", "v", ERROR)]
    assert "'v'" not in repr(desk.lost())


def test_a_heartbeat_that_hangs_is_tried_again_and_its_late_answer_counts() -> None:
    """Whichever comes first keeps the lease."""
    desk, extend = Desk(), ScriptedCall(Held(None), ERROR)
    desk.lend(extend, "v")
    desk.until(8.0)
    extend.wait_started(1)
    desk.until(1.5)
    extend.wait_ended(1)  # the second try has failed
    desk.settle(2)
    lease = desk.leases["v"]
    assert lease is not None
    assert lease.failures
    extend.release()
    until(lambda: not lease.failures, "the late answer counts")
    desk.until(4.0)

    assert desk.lost() == []
    assert values_of(extend)[:2] == ["v", "v"]


@pytest.mark.parametrize(("error", "tries"), [(Undeliverable("unknown"), 1), (Throttled(300.0), 2)])
def test_what_the_source_says_about_trying_again_is_heeded(error: Exception, tries: int) -> None:
    """Not after it knows the item no more; not sooner than it asks, but once more before the lease is over."""
    desk, extend = Desk(), ScriptedCall(error)
    desk.lend(extend, "v")
    desk.until(8.0)
    desk.lose()

    assert extend.started == tries


def test_nothing_runs_before_the_first_heartbeat_is_due() -> None:
    """Short items cost no thread, and those that are lent for ever nothing at all."""
    desk, extend, threads = Desk(), ScriptedCall(None), threading.active_count()
    desk.lend(extend, "for ever", seconds=None)
    assert desk.beats.next_at() == float("inf")
    desk.lend(extend, "short")
    desk.until(7.9)
    lease = desk.leases["short"]
    assert lease is not None
    lease.end()
    desk.until(100.0)

    assert extend.started == 0
    assert desk.lost() == []
    assert threading.active_count() == threads


@pytest.mark.parametrize("seconds", [-1.0, "soon", float("nan"), ZeroDivisionError()])
def test_a_value_whose_lease_cannot_be_told_runs_without_one(seconds: Any) -> None:
    """The source's mistake does not cost the value, and is told of."""

    def lease(_: object) -> Any:
        if isinstance(seconds, Exception):
            raise seconds
        return seconds

    desk = Desk()
    source = Source("a", lambda *_: None, extend=lambda *_: None, lease=lease)

    assert parted(desk.beats.leased(source, ["v"], None)[0]) == ("v", None)
    (lost,) = desk.lost()
    assert (lost.source, lost.value) == ("a", "v")


def test_a_value_that_goes_back_is_not_extended_any_more() -> None:
    """Whoever is given it next extends it."""
    desk, extend = Desk(), ScriptedCall(None)
    source = Source("a", lambda *_: None, extend=extend, lease=lambda _: 10.0)
    (leased,) = desk.beats.leased(source, ["v"], None)

    assert bare(leased) == "v"
    assert bare("w") == "w"
    assert desk.beats.next_at() == float("inf")


def test_a_lost_lease_of_an_item_that_has_just_ended_is_not_told() -> None:
    """It is nobody's concern any more."""
    desk = Desk()
    desk.lend(ScriptedCall(None), "first", "second")

    def end_second(event: object) -> None:
        desk.heard(event)
        lease = desk.leases["second"]
        assert lease is not None
        lease.end()

    desk.beats._on_event = end_second
    desk.clock.advance(50.0)
    desk.beats.beat()

    (lost,) = desk.lost()
    assert lost.value == "first"
    assert "before the lease was over" in str(lost.error)


def test_a_heartbeat_is_not_sent_for_an_item_that_ended_while_its_thread_started() -> None:
    """The window between the decision and the call is closed as far as it can be."""
    extend = ScriptedCall(None)
    lease = Lease("a", (Source("a", lambda *_: None, extend=extend, lease=lambda _: 1.0), "v"), 1.0, 0.0, 1.0)
    extension = Extension(lease, lease.value, 0.8, 0.1, 0.2, 0)
    lease.end()

    _extend(extension)

    assert extend.started == 0


def in_flight(gate: threading.Event) -> tuple[Heartbeats, Lease]:
    """Heartbeats of one value, of which one has been sent and is answered once the gate opens."""
    clock, sent = ManualClock(), threading.Event()

    def extend(_value: object, _timeout: float) -> None:
        sent.set()
        assert gate.wait(GUARD)

    beats = Heartbeats(clock=clock)
    source = Source("eu", lambda _count, _wait: [], lease=lambda _: 10.0, extend=extend)
    (leased,) = beats.leased(source, ["a"], clock())
    clock.advance(9.0)
    beats.beat()
    clock.advance(0.5)
    beats.beat()
    assert sent.wait(GUARD)
    return beats, leased.lease


def test_the_end_of_a_lease_waits_for_the_heartbeat_in_flight() -> None:
    """Its result is not handled beside it: it goes out after the answer."""
    gate, order = threading.Event(), []
    beats, lease = in_flight(gate)

    def result() -> None:
        order.append(beats.end(lease, GUARD, lambda: order.append("late")))

    unit = threading.Thread(target=result)
    unit.start()
    assert not order
    order.append("answer")
    gate.set()
    unit.join(GUARD)

    assert order == ["answer", True]
    assert beats.end(lease, 0.0, lambda: order.append("late"))


def test_a_heartbeat_that_is_answered_after_the_result_is_told_of() -> None:
    """Whoever waited in vain hears of its end, once, and can send the result again."""
    gate, told = threading.Event(), threading.Event()
    beats, lease = in_flight(gate)

    assert not beats.end(lease, 0.01, told.set)
    assert not told.is_set()
    gate.set()

    assert told.wait(GUARD)


def test_closed_heartbeats_send_nothing() -> None:
    """Once the poller has stopped nobody looks after items; what is lost is still told."""
    desk, extend = Desk(), ScriptedCall(None)
    desk.lend(extend, "v")
    desk.beats.close()
    desk.until(8.0)

    assert extend.started == 0


@pytest.mark.parametrize("half", ["extend", "lease"])
def test_a_source_with_half_of_a_lease_is_refused(half: str) -> None:
    """It would be extended never, or nobody knows when."""
    with pytest.raises(ValueError, match=r"'a' has (extend|lease) and no (lease|extend): give both"):
        Source("a", lambda *_: None, **{half: lambda *_: 1.0})


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of 10 s are extended every 0.1 s, so that no test depends on how busy the machine is."""
    monkeypatch.setattr("resilience.leases.FIRST_AT", 0.01)


class Lender:
    """A source whose values are lent for a moment; it counts the heartbeats of each and takes values back."""

    def __init__(self, *values: object, seconds: float = 10.0) -> None:
        self.values = list(values)
        self.back: list[object] = []
        self.seconds = seconds
        self.beats: dict[object, threading.Semaphore] = {}
        self._lock = threading.Lock()

    def poll(self, count: int, wait: float) -> Sequence[object]:
        """At most ``count`` values."""
        with self._lock:
            taken, self.values = self.values[:count], self.values[count:]
        if not taken:
            threading.Event().wait(wait)
        return taken

    def counted(self, value: object) -> threading.Semaphore:
        """A semaphore with a permit for each heartbeat of a value."""
        with self._lock:
            return self.beats.setdefault(value, threading.Semaphore(0))

    def wait(self, value: object, count: int = 2) -> None:
        """Wait for so many more heartbeats of a value."""
        for _ in range(count):
            assert self.counted(value).acquire(timeout=GUARD)

    def source(self, name: str = "a", **options: Any) -> Source[object]:
        """What a poller is told of it."""
        return Source(
            name,
            self.poll,
            give_back=self.back.extend,
            extend=lambda value, _: self.counted(value).release(),
            lease=lambda _: self.seconds,
            **options,
        )


def taken(poller: Poller[object], count: int) -> list[Item[object]]:
    """Take until there are ``count`` items."""
    items: list[Item[object]] = []
    while len(items) < count:
        got = poller.take(GUARD)
        assert got, f"only {items} came"
        items += got
    return items


def rests(poller: Poller[object]) -> bool:
    """Whether who keeps the time will do nothing for long, unless somebody wakes it."""
    return poller._wake_at > time.monotonic() + 1000.0


def at_rest(poller: Poller[object]) -> bool:
    """Whether no heartbeat will be sent, not even when the time that was told last has come."""
    return poller._beats._leases.next_at(float("inf")) == float("inf")


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("how", ["done", "give_back"])
def test_a_running_item_is_extended_until_it_ends(how: str) -> None:
    """However it ends."""
    lender = Lender("v")
    with Poller([lender.source()], capacity=2, config=QUICK) as poller:
        (item,) = taken(poller, 1)
        lender.wait("v", 3)
        assert not at_rest(poller)
        getattr(item, how)()
        assert at_rest(poller)


@pytest.mark.usefixtures("quickly")
def test_items_are_what_they_were() -> None:
    """Nobody sees the lease that travels with a value."""
    lender, heard = Lender("v", "w"), Heard()
    with Poller([lender.source()], capacity=2, config=QUICK, on_event=heard) as poller:
        items = taken(poller, 2)
        assert [item.value for item in items] == ["v", "w"]
        for item in items:
            item.done()
    assert poller.view()["a"].started == 2


@pytest.mark.usefixtures("quickly")
def test_a_held_item_is_extended_and_no_more_once_it_goes_back() -> None:
    """From arrival on: its source counts from when it handed it out."""
    lender, other = Lender("held"), Lender("runs", seconds=1000.0)
    first = threading.Event()

    def poll(count: int, wait: float) -> Sequence[object]:
        assert first.wait(GUARD)
        return lender.poll(count, wait)

    late = Source(
        "late",
        poll,
        give_back=lender.back.extend,
        extend=lambda value, _: lender.counted(value).release(),
        lease=lambda _: lender.seconds,
    )
    with Poller([other.source("other"), late], capacity=1, config=QUICK) as poller:
        (item,) = taken(poller, 1)
        first.set()
        lender.wait("held")
        assert poller.view()["late"].held == 1
        poller.remove("late")
        item.done()
        assert at_rest(poller)
    assert lender.back == ["held"]


@pytest.mark.usefixtures("quickly")
def test_an_item_that_came_with_an_answer_is_extended_too() -> None:
    """By chain, be it by the quick way or by the planner's."""
    lender = Lender("v")
    with Poller([lender.source()], capacity=1, config=QUICK) as poller:
        (item,) = taken(poller, 1)
        assert item.may_chain()
        follower = item.chain(["w"])
        assert follower is not None
        assert follower.value == "w"
        lender.wait("w")
        last = follower.chain(["x"])
        assert last is not None
        lender.wait("x")
        last.done()
        assert at_rest(poller)


@pytest.mark.usefixtures("quickly")
def test_heartbeats_go_on_while_the_poller_stops() -> None:
    """Until the grace ends, running items are worth waiting for."""
    lender = Lender("v")
    poller = Poller([lender.source()], capacity=1, config=QUICK)
    (item,) = taken(poller, 1)
    stopping = threading.Thread(target=poller.stop, args=(GUARD,))
    stopping.start()
    lender.wait("v", 3)
    item.done()
    stopping.join(GUARD)

    assert not stopping.is_alive()


@pytest.mark.usefixtures("quickly")
def test_a_removed_sources_running_item_is_extended() -> None:
    """Nothing new comes from it, and what runs must not be lost."""
    lender = Lender("v")
    with Poller([lender.source(), Lender().source("b")], capacity=1, config=QUICK) as poller:
        (item,) = taken(poller, 1)
        poller.remove("a")
        lender.wait("v", 3)
        item.done()


@pytest.mark.usefixtures("quickly")
def test_a_short_lease_that_begins_while_time_rests_until_a_long_one_is_due_comes_first() -> None:
    """Also by the quick way of a chain, on which nothing else is decided."""
    lender = Lender("long", seconds=1e6)
    with Poller([lender.source()], capacity=1, config=QUICK) as poller:
        (item,) = taken(poller, 1)
        until(lambda: rests(poller), "nothing is due for hours")
        assert item.may_chain()
        lender.seconds = 10.0
        follower = item.chain(["short"])
        assert follower is not None
        lender.wait("short")
        follower.done()


@pytest.mark.usefixtures("quickly")
def test_short_items_of_a_chain_wake_nobody() -> None:
    """Who keeps the time was told of a lease; a later one is no news, even if meanwhile there was none."""
    lender = Lender("first", seconds=1e6)
    with Poller([lender.source()], capacity=1, config=QUICK) as poller:
        (item,) = taken(poller, 1)
        until(lambda: rests(poller) and poller._wake_at < float("inf"), "it was told of the lease")
        assert item.end_lease(GUARD, list)
        with poller._lock:
            poller._wake_at = float("-inf")
            poller._earlier.notify()
        until(lambda: rests(poller), "nothing is due for hours")
        woken: list[str] = []
        poller._earlier.notify = lambda: woken.append("once")  # type: ignore[method-assign] # told, not done
        assert item.may_chain()
        follower = item.chain(["second"])
        del poller._earlier.notify
        assert follower is not None
        follower.done()

    assert not woken


@pytest.mark.parametrize("known", ["told", "only its time is over", "before it goes back"])
def test_p15_item_whose_lease_is_lost_does_not_start(known: str) -> None:
    """Somebody else may have been given it: it is dropped and counted, and neither run nor given back."""
    heard, clock, back = Heard(), ManualClock(), []
    values = ["lent", "other"]

    def poll(count: int, _: float) -> Sequence[object] | None:
        return [values.pop(0) for _ in range(min(count, len(values)))] or None

    def extend(value: object, _: float) -> None:
        if value == "lent":
            raise Undeliverable("it is somebody else's")

    lease = 10.0 if known == "told" else 3.0
    source = Source("a", poll, give_back=back.extend, extend=extend, lease=lambda v: lease if v == "lent" else None)
    config = PollConfig(poll_wait=0.02, overdue_after=0.5, poll_timeout=10.0, give_up_after=20.0, max_hold=100.0)
    with Poller([source], capacity=2, config=config, on_event=heard, clock=clock) as poller:
        poller._keep_time()
        until(lambda: poller.total().held == 2, "both came")
        if known == "told":
            clock.advance(9.0)
            poller._look_again()
            heard.wait_for(LeaseLost, source="a")
            until(lambda: poller.total().dropped == 1, "it is dropped")
            assert poller.total().held == 1
        else:
            poller._beats.beat = lambda: None  # type: ignore[method-assign] # the process was frozen meanwhile
            poller._beats.next_at = lambda: float("inf")  # type: ignore[method-assign]
            clock.advance(200.0 if known == "before it goes back" else 4.0)
        items = poller.take(0.0)
        assert [item.value for item in items] == (["other"] if known != "before it goes back" else [])
        for item in items:
            item.done()
        until(lambda: not poller.total().held and not poller.total().giving_back, "all have gone somewhere")
        total = poller.total()

    assert (total.received, total.dropped, total.balanced) == (2, 1, True)
    assert "lent" not in back


def test_p15_150_items_of_a_source_that_answers_in_a_tenth_of_a_second_keep_their_leases() -> None:
    """As many heartbeats are side by side as are needed: 19 a second here, and all of them begin at once."""
    flying: list[tuple[float, Extension]] = []
    leases, now, most = Leases(), 0.0, 0
    for _ in range(150):
        leases.begin("a", "v", 10.0, asked=0.0, now=0.0)
    while now < 60.0:
        answers = min((at for at, _ in flying), default=float("inf"))
        now = max(now, min(answers, leases.next_at(now)))
        for answered in [entry for entry in flying if entry[0] <= now]:
            flying.remove(answered)
            leases.extended(answered[1], now)
        flying += [(now + 0.1, extension) for extension in leases.due(now)]
        most = max(most, len(flying))

    assert leases.drain_lost() == []
    assert 8 < most <= MAX_CALLS


def test_max_lease_ends_the_heartbeats_of_an_item_that_never_ends() -> None:
    """An event says so, once; the item goes on, and of one that has just ended nothing is said."""
    desk, extend = Desk(max_lease=5.0), ScriptedCall(None)
    desk.lend(extend, "v", "ended")

    def end_the_other(event: object) -> None:
        desk.heard(event)
        lease = desk.leases["ended"]
        assert lease is not None
        lease.end()

    desk.beats._on_event = end_the_other
    desk.until(100.0)

    assert list(desk.heard) == [LeaseGivenUp("a", "v", 5.0)]
    assert "'v'" not in repr(list(desk.heard))
    assert extend.started == 0


def test_max_lease_ends_the_attempts_of_an_item_that_cannot_be_extended() -> None:
    """It is neither tried again nor told to be lost."""
    desk, extend = Desk(max_lease=9.0), ScriptedCall(ERROR)
    desk.lend(extend, "v")
    desk.until(8.0)
    desk.settle()
    desk.until(100.0)

    assert [type(event) for event in desk.heard] == [LeaseGivenUp]


@pytest.mark.usefixtures("quickly")
def test_max_lease_is_an_option_of_the_poller() -> None:
    """In seconds from the item's arrival."""
    lender, heard = Lender("v"), Heard()
    config = PollConfig(poll_wait=0.02, overdue_after=0.5, poll_timeout=10.0, give_up_after=20.0, max_lease=0.5)
    with Poller([lender.source()], capacity=1, config=config, on_event=heard) as poller:
        (item,) = taken(poller, 1)
        heard.wait_for(LeaseGivenUp, source="a")
        assert at_rest(poller)
        item.done()
    assert poller.total().finished == 1
    with pytest.raises(ValueError, match="max_lease must be a finite number above 0"):
        PollConfig(max_lease=0.0)


def test_a_failure_is_news_for_who_keeps_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again after its pause, not when the call that failed would have been found to hang."""
    monkeypatch.setattr("resilience.leases.FIRST_AT", 1e-7)
    monkeypatch.setattr("resilience.leases.LONGEST_TRY", 1e5)
    extend: ScriptedCall[None] = ScriptedCall(Held(ERROR), None)
    values = ["v"]
    source = Source("a", lambda *_: [values.pop()] if values else None, extend=extend, lease=lambda _: 1e6)
    with Poller([source], capacity=1, config=QUICK) as poller:
        (item,) = taken(poller, 1)
        extend.wait_started(1)
        until(lambda: rests(poller), "nothing is due for hours")
        extend.release()
        extend.wait_started(2)
        item.done()
