"""Leases: which item must be extended when; examples, and a machine that compares with a model of its own."""

import math
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sizes import part

from resilience.leases import LONGEST_CALL, LONGEST_TRY, MAX_CALLS, MAX_UNANSWERED, SLACK, Extension, Lease, Leases

ERROR = OSError("no")


class Desk:
    """Leases with a time that the test moves, and what they wanted to have sent."""

    def __init__(self) -> None:
        self.leases = Leases(random.Random(1))
        self.now = 0.0
        self.sent: list[Extension] = []

    def begin(self, key: str = "a", seconds: float = 10.0, asked: float | None = None) -> Lease:
        """A lease that begins now."""
        return self.leases.begin(key, "v", seconds, asked=self.now if asked is None else asked, now=self.now)

    def until(self, now: float) -> list[Extension]:
        """Let the time pass as a punctual driver does; returns what was sent meanwhile."""
        sent = []
        while (at := max(self.leases.next_at(self.now), self.now)) <= now:
            self.now = at
            sent += self.leases.due(at)
        self.now = now
        self.sent += sent
        return sent

    def lost(self) -> list[Lease]:
        """What was lost since the last call."""
        return self.leases.drain_lost()


def test_heartbeat_is_due_at_four_fifths_of_the_lease() -> None:
    """Not before, and then at once; the next one counts from when this one was sent."""
    desk = Desk()
    lease = desk.begin()

    assert desk.until(7.99) == []
    (first,) = desk.until(8.0)
    assert (first.lease, first.value, first.sent_at) == (lease, "v", 8.0)
    desk.now = 8.5
    desk.leases.extended(first, 8.5)
    assert desk.until(15.99) == []
    assert [e.sent_at for e in desk.until(17.0)] == [16.0]


def test_lease_counts_from_when_the_poll_was_sent_and_is_given_up_from_its_arrival() -> None:
    """A late answer may have started its lease long ago or just now: both are provided for."""
    desk = Desk()
    desk.now = 20.0  # a server that was frozen answers a poll of 0
    desk.begin(asked=0.0)

    (first,) = desk.until(20.0)
    desk.leases.failed(first, ERROR, 20.0)
    tries = []
    while not (lost := desk.lost()):
        for extension in desk.until(min(desk.leases.next_at(desk.now), 40.0)):
            tries.append(extension.sent_at)
            desk.leases.failed(extension, ERROR, desk.now)

    assert desk.now == 30.0
    assert [lease.error for lease in lost] == [ERROR]
    assert len(tries) > 4
    assert tries[-1] == 29.5  # one is made as late as it may still help


def test_nothing_is_sent_for_an_item_that_has_ended() -> None:
    """Neither before its time nor after; and its value is let go of."""
    desk = Desk()
    ended, waiting = desk.begin(), desk.begin()
    ended.end()

    assert [e.lease for e in desk.until(9.0)] == [waiting]
    waiting.end()
    assert desk.until(100.0) == []
    assert desk.lost() == []
    assert desk.leases.next_at(desk.now) == math.inf
    assert ended.value is None


def test_a_time_that_was_told_stands_until_it_has_come() -> None:
    """Short items, of which none is left at times, do not change when to look next; an earlier one does."""
    desk = Desk()
    lease = desk.begin()
    assert desk.leases.next_at(1.0) == 8.0
    lease.end()
    assert desk.leases.next_at(2.0) == 8.0
    desk.now = 2.0
    desk.begin(seconds=100.0)
    assert desk.leases.next_at(3.0) == 8.0
    desk.begin(seconds=5.0)
    assert desk.leases.next_at(4.0) == 6.0
    assert desk.until(8.0) != []
    assert desk.leases.next_at(8.0) > 8.0


def test_an_answer_for_an_item_that_has_ended_changes_nothing() -> None:
    """A heartbeat may cross the result."""
    desk = Desk()
    for tell in (
        lambda e: desk.leases.extended(e, desk.now),
        lambda e: desk.leases.failed(e, ERROR, desk.now),
        lambda e: (desk.leases.hangs(e, desk.now), desk.leases.failed(e, ERROR, desk.now)),
    ):
        lease = desk.begin()
        (extension,) = desk.until(desk.now + 8.0)
        lease.end()
        tell(extension)
        assert desk.until(desk.now + 10.0) == []
        assert desk.leases.next_at(desk.now) == math.inf
        assert desk.lost() == []


def test_heartbeats_of_one_key_go_out_one_at_a_time() -> None:
    """While they are answered, the next is sent when one is."""
    desk = Desk()
    for _ in range(3):
        desk.begin()

    (first,) = desk.until(8.1)
    desk.leases.extended(first, 8.1)
    (second,) = desk.until(8.1)
    desk.leases.failed(second, ERROR, 8.1)
    (third,) = desk.until(8.1)

    assert len({first.lease, second.lease, third.lease}) == 3


def test_hung_heartbeats_hold_up_others_of_their_key_for_a_twentieth_of_the_lease() -> None:
    """Four items on a hung server do not starve a fifth one: all are sent within that bound, beside each other."""
    desk = Desk()
    for _ in range(5):
        desk.begin()

    assert [e.sent_at for e in desk.until(8.6)] == [8.0, 8.5, 8.5, 8.5, 8.5]


def test_one_that_hangs_is_not_waited_for() -> None:
    """Once it is known to hang, the others go out one at a time as if it were not there."""
    desk = Desk()
    desk.begin()
    (hung,) = desk.until(8.0)
    desk.leases.hangs(hung, 8.1)
    desk.begin(asked=0.1)

    assert [e.sent_at for e in desk.until(8.1)] == [8.1]


def test_no_more_than_eight_of_a_key_that_does_not_answer_are_in_flight() -> None:
    """Hung calls cost threads; the ninth is sent when one of them has ended."""
    desk = Desk()
    for _ in range(MAX_UNANSWERED + 2):
        desk.begin(seconds=1000.0)

    sent = desk.until(802.0)
    assert len(sent) == MAX_UNANSWERED
    for extension in sent:
        desk.leases.hangs(extension, 810.0)
    assert desk.until(810.0) == []
    desk.leases.failed(sent[0], ERROR, 810.0)
    assert len(desk.until(810.0)) == 2  # it answers: as many again, and one more


def test_a_key_that_answers_has_as_many_in_flight_as_it_needs_up_to_a_bound() -> None:
    """Each answer allows one more; when one hangs and none was answered since, it is eight again."""
    desk = Desk()
    for _ in range(200):
        desk.begin(seconds=1000.0)
    desk.until(801.0)
    for _ in range(100):
        desk.leases.extended(desk.sent.pop(0), desk.now)
        desk.until(desk.now)
    assert len(desk.sent) == MAX_CALLS

    desk.leases.hangs(desk.sent[0], desk.now)
    desk.leases.extended(desk.sent.pop(1), desk.now)
    assert len(desk.until(desk.now)) == 1  # it was answered since: nothing changes
    desk.now += 10.0
    for extension in desk.sent:
        if not extension.hangs and extension.sent_at < desk.now:
            desk.leases.hangs(extension, desk.now)
    desk.leases.failed(desk.sent.pop(0), ERROR, desk.now)
    assert len(desk.until(desk.now)) <= 1


def test_keys_do_not_wait_for_each_other() -> None:
    """However many of one source hang."""
    desk = Desk()
    for _ in range(2 * MAX_CALLS):
        desk.begin("hung", seconds=100.0)
    healthy = [desk.begin("healthy", seconds=100.0) for _ in range(2)]

    sent = {e.lease: e for e in desk.until(80.0)}
    desk.leases.extended(sent[healthy[0]], 80.0)
    assert healthy[1] in [e.lease for e in desk.until(80.0)]


def test_a_try_leaves_time_for_another_one() -> None:
    """It is known to hang after a tenth of the lease, though its answer counts until the lease is over."""
    desk = Desk()
    desk.begin()
    (first,) = desk.until(8.0)
    assert (first.patience, first.timeout) == (1.0, 2.0)

    desk.leases.hangs(first, 9.0)
    (second,) = desk.until(9.3)
    assert second.sent_at + second.patience < 10.0
    desk.leases.extended(first, 9.4)
    desk.leases.failed(second, ERROR, 9.5)  # older news than the success
    assert desk.until(15.9) == []
    assert len(desk.until(16.0)) == 1
    assert desk.lost() == []


def test_a_try_hangs_after_a_tenth_of_the_lease_also_if_there_is_time_for_more() -> None:
    """The poll took its time, so the lease may last longer than is counted on."""
    desk = Desk()
    desk.now = 5.0
    desk.begin(asked=0.0)
    (extension,) = desk.until(8.0)

    assert (extension.patience, extension.timeout) == (1.0, 7.0)


def test_a_lease_knows_how_many_of_its_heartbeats_are_in_flight() -> None:
    """Whoever sends its result waits for all of them, also those that hang."""
    desk = Desk()
    lease = desk.begin()
    (first,) = desk.until(8.0)
    assert lease.in_flight == 1
    desk.leases.hangs(first, 9.0)
    (second,) = desk.until(9.3)
    assert lease.in_flight == 2
    desk.leases.failed(second, ERROR, 9.3)
    assert lease.in_flight == 1
    desk.leases.extended(first, 9.4)
    assert lease.in_flight == 0


def test_what_a_hung_try_came_to_is_said_in_seconds() -> None:
    """It is what the loss of its lease is told with."""
    desk = Desk()
    lease = desk.begin()
    (first,) = desk.until(8.0)
    desk.leases.hangs(first, 9.0)

    assert isinstance(lease.error, TimeoutError)
    assert str(lease.error) == "no answer to a heartbeat within 1 s"


@pytest.mark.parametrize(
    ("seconds", "pauses"), [(10.0, [0.2, 0.4, 0.8, 1.0, 1.0]), (3600.0, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0])]
)
def test_pauses_grow_from_a_fiftieth_to_a_tenth_of_the_lease(seconds: float, pauses: list[float]) -> None:
    """From 1 s to 10 s for long ones, whatever is drawn less a half at most; a success begins it all anew."""
    leases = Leases(SimpleNamespace(random=lambda: 0.0))  # type: ignore[arg-type] # all that is asked of it
    lease = leases.begin("a", "v", seconds, asked=0.0, now=100.0)
    now = 0.8 * seconds
    for failures, pause in enumerate(pauses, 1):
        (extension,) = leases.due(now)
        leases.failed(extension, ERROR, now)
        assert lease.failures == failures
        assert leases.next_at(now) == pytest.approx(now + pause)
        now = leases.next_at(now)
    (extension,) = leases.due(now)
    leases.extended(extension, now)
    assert (lease.failures, lease.error) == (0, None)


def test_long_leases_tell_a_hung_try_after_seconds() -> None:
    """An hour's lease does not mean that a call may hang for minutes."""
    desk = Desk()
    desk.begin(seconds=3600.0)
    (first,) = desk.until(2880.0)

    assert (first.patience, first.timeout) == (LONGEST_TRY, LONGEST_CALL)


def test_a_lease_that_nobody_could_extend_in_time_is_lost_once() -> None:
    """As when the process was frozen for longer than it lasts: no attempt was made, so there is no error."""
    desk = Desk()
    lease = desk.begin()
    desk.now = 60.0

    assert desk.until(60.0) == []
    assert desk.lost() == [lease]
    assert lease.error is None
    assert desk.until(1000.0) == []
    assert desk.lost() == []


def test_a_lease_is_lost_when_its_last_heartbeat_fails_too_late() -> None:
    """Whoever tells late is told the truth."""
    desk = Desk()
    lease = desk.begin()
    (extension,) = desk.until(8.0)
    desk.leases.failed(extension, ERROR, 10.0)

    assert desk.lost() == [lease]


def test_a_source_that_knows_the_item_no_more_ends_the_attempts() -> None:
    """What is refused for good is not tried again."""
    desk = Desk()
    lease = desk.begin()
    (extension,) = desk.until(8.0)
    desk.leases.failed(extension, ERROR, 8.0, final=True)

    assert desk.lost() == [lease]
    assert desk.until(100.0) == []


def test_a_source_that_asks_for_a_pause_gets_it_but_for_the_last_attempt() -> None:
    """Its wish is no reason to lose the lease untried."""
    desk = Desk()
    desk.begin()
    (first,) = desk.until(8.0)
    desk.leases.failed(first, ERROR, 8.0, hint=1.0)
    (second,) = desk.until(9.2)
    assert second.sent_at == 9.0
    desk.leases.failed(second, ERROR, 9.2, hint=300.0)

    assert [e.sent_at for e in desk.until(9.9)] == [9.5]


def test_many_short_items_leave_nothing_behind() -> None:
    """Memory follows the items that run, not those that ran."""
    desk = Desk()
    kept = [desk.begin() for _ in range(10)]
    for _ in range(5_000):
        desk.begin().end()

    assert len(desk.leases._timed._heap) <= 2 * len(kept) + SLACK


def test_keys_that_are_gone_leave_nothing_behind() -> None:
    """Sources come and go while a poller runs."""
    desk = Desk()
    for number in range(100):
        lease = desk.begin(str(number))
        (extension,) = desk.until(desk.now + 8.0)
        lease.end()
        desk.leases.failed(extension, ERROR, desk.now)
    desk.until(desk.now + 100.0)

    assert desk.leases._lines == {}


@pytest.mark.parametrize("seconds", [0, 0.0, -1.0, math.nan, math.inf, True])
def test_a_lease_needs_a_length(seconds: float) -> None:
    """One that lasts for ever needs no heartbeats, so there is none to begin."""
    with pytest.raises(ValueError, match=r"^a lease's seconds must be"):
        Desk().begin(seconds=seconds)
    assert Desk().begin(seconds=1).over_at == 1.0


@given(seconds=st.floats(1e-300, 1e300), now=st.floats(0, 1e9))
def test_every_length_makes_calls_that_can_be_timed(seconds: float, now: float) -> None:
    """However odd the server's configuration."""
    leases = Leases()
    leases.begin("a", "v", seconds, asked=now, now=now)
    at = max(leases.next_at(now), now)

    for extension in leases.due(at):
        assert 0 < extension.patience <= LONGEST_TRY
        assert extension.patience <= extension.timeout <= LONGEST_CALL
        leases.failed(extension, ERROR, at)
    assert leases.next_at(at) >= at or leases.drain_lost()


class Item:
    """What the model knows of an item: no queue, no turns, only what happened to it."""

    def __init__(self, lease: Lease, key: str, seconds: float, asked: float, arrived: float) -> None:
        self.lease, self.key, self.seconds = lease, key, seconds
        self.from_, self.over = asked, arrived + seconds  # since when and until when it may hold
        self.ended = self.lost = False
        self.newest: Extension | None = None
        self.ready_at = self.latest = (
            asked + 0.8 * seconds
        )  # the next one goes out between these, if nobody is before it

    @property
    def live(self) -> bool:
        """Whether it is to be extended."""
        return not (self.ended or self.lost)


class Machine(RuleBasedStateMachine):
    """Random lives of items on three sources, told punctually; each is watched by a model of its own."""

    @initialize(seed=st.integers(0, 2**32))
    def begin_afresh(self, seed: int) -> None:
        """Nothing runs."""
        self.leases = Leases(random.Random(seed))
        self.now = 0.0
        self.items: dict[int, Item] = {}
        self.flying: list[Extension] = []

    @rule(key=st.sampled_from("abc"), seconds=st.sampled_from([1.0, 3.0, 10.0, 60.0]), age=st.floats(0, 5))
    def arrive(self, key: str, seconds: float, age: float) -> None:
        """An item arrives with a poll that was sent a while ago."""
        lease = self.leases.begin(key, object(), seconds, asked=self.now - age, now=self.now)
        self.items[id(lease)] = Item(lease, key, seconds, self.now - age, self.now)
        self.look()

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """An item is done."""
        items = [item for item in self.items.values() if not item.ended]
        if items:
            item = data.draw(st.sampled_from(items))
            item.lease.end()
            item.ended = True
            self.look()

    @rule(seconds=st.floats(0, 15))
    def wait(self, seconds: float) -> None:
        """Time passes; whatever is due is looked at, and what hangs is told of, at its time."""
        until = self.now + seconds
        while True:
            hangs = min((e.sent_at + e.patience for e in self.flying if not e.hangs), default=math.inf)
            at = max(self.now, min(self.leases.next_at(self.now), hangs))
            if at > until:
                break
            self.now = at
            for extension in [e for e in self.flying if not e.hangs and e.sent_at + e.patience <= at]:
                self.fail_item(extension)
                self.leases.hangs(extension, at)
            self.look()
        self.now = until
        self.look()

    @rule(data=st.data(), ok=st.booleans(), hint=st.sampled_from([0.0, 0.0, 0.5, 100.0]), final=st.integers(0, 9))
    def answer(self, data: st.DataObject, ok: bool, hint: float, final: int) -> None:
        """A heartbeat is answered, well or not."""
        if not self.flying:
            return
        extension = data.draw(st.sampled_from(self.flying))
        self.flying.remove(extension)
        item = self.items[id(extension.lease)]
        if ok:
            self.leases.extended(extension, self.now)
            if item.live:
                item.from_, item.over = max(item.from_, extension.sent_at), max(item.over, self.now + item.seconds)
                item.ready_at = item.latest = item.from_ + 0.8 * item.seconds
                item.newest = None
        else:
            matters = item.live and item.newest is extension
            self.fail_item(extension, hint)
            self.leases.failed(extension, ERROR, self.now, hint=hint, final=final == 0)
            if final == 0 and matters:
                assert self.leases.drain_lost() == [item.lease]
                item.lost = True
        self.look()

    def fail_item(self, extension: Extension, hint: float = 0.0) -> None:
        """The model's view of a failure: again within a tenth of the lease, and as late as it may still help."""
        item = self.items[id(extension.lease)]
        if not item.live or item.newest is not extension:
            return
        item.newest = None
        last = item.over - min(0.05 * item.seconds, 5.0)
        soonest, latest = min(item.seconds / 50, 1.0) / 2, min(item.seconds / 10, 10.0)
        item.ready_at = self.now + max(soonest, hint)
        item.latest = self.now + max(latest, hint)
        if item.latest > last:
            item.ready_at, item.latest = min(item.ready_at, last), last if self.now < last else math.inf

    def look(self) -> None:
        """What a driver does after each step; checks what is sent and lost."""
        before = {key: self.of(key) for key in "abc"}
        for extension in self.leases.due(self.now):
            item = self.items[id(extension.lease)]
            assert item.live, "sent for an item that has ended or was lost"
            assert item.newest is None, "sent while another one is awaited"
            assert item.ready_at - 1e-9 <= self.now < item.over
            prompt = [e for e in before[item.key] if not e.hangs]
            assert not prompt or self.now >= item.ready_at + min(item.seconds / 20, 1.0) - 1e-9, "pushed in"
            assert extension.sent_at == self.now
            assert extension.sent_at + extension.patience < item.over
            item.newest = extension
            self.flying.append(extension)
            before[item.key].append(extension)
        for lease in self.leases.drain_lost():
            item = self.items[id(lease)]
            assert item.live, "lost twice, or after its end"
            assert self.now >= item.over, "given up too early"
            item.lost = True

    def of(self, key: str) -> list[Extension]:
        """What of a source is in flight."""
        return [e for e in self.flying if e.lease.key == key]

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """Each item that needs a heartbeat by now has one in flight, or waits for its source's as long as it may."""
        for item in self.items.values():
            if not item.live:
                continue
            assert self.now < item.over
            flying = self.of(item.key)
            if item.newest is None and len(flying) < MAX_UNANSWERED:
                patience = min(item.seconds / 20, 1.0) if any(not e.hangs for e in flying) else 0.0
                assert self.now <= item.latest + patience + 1e-9
        assert all(len(self.of(key)) <= MAX_CALLS for key in "abc")
        assert self.leases.next_at(self.now) > self.now


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=part(100), stateful_step_count=40, deadline=None)
