"""The pure core of the fan-out: told once, late once, places by key."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sizes import part

from resilience.fan_out.rounds import Call, Places, Round, check_timeout
from resilience.outcomes import Cancelled, Rejected, TimedOut, Value


def begin(round_, key="a", deadline=1.0):
    """A begun call that was given its whole deadline as timeout."""
    call = Call(key, deadline, deadline)
    round_.begin(call)
    return call


def test_f2_what_exists_at_the_very_deadline_is_told():
    """A call that ends exactly at its deadline is in time when the deadline is looked at afterwards."""
    round_ = Round(Places(2))
    call = begin(round_, deadline=1.0)

    assert round_.end(call, Value(7))
    assert round_.expire(1.0) == []
    assert call.outcome == Value(7)


def test_f2_a_call_is_past_its_deadline_at_the_deadline_not_before():
    """With nothing there by then, the deadline itself is too late; any earlier time is not."""
    round_ = Round(Places(2))
    call = begin(round_, deadline=1.0)

    assert round_.expire(math.nextafter(1.0, 0.0)) == []
    assert round_.expire(1.0) == [call]
    assert call.outcome == TimedOut(1.0)


def test_f3_what_ends_after_its_timeout_was_told_is_late():
    """The end of an abandoned call is no outcome to tell, and leaves the one that was told."""
    round_ = Round(Places(2))
    call = begin(round_)
    round_.expire(1.0)

    assert not round_.end(call, Value(7))
    assert call.outcome == TimedOut(1.0)


def test_f4_abandoned_calls_take_places_of_their_own_key():
    """At max_abandoned the key is refused with the reason, another key is not, and an end frees the place."""
    places = Places(2)
    round_ = Round(places)
    hung = [begin(round_, "a"), begin(round_, "a")]
    assert places.refusal("a") is None

    round_.expire(1.0)

    refusal = places.refusal("a")
    assert isinstance(refusal, Rejected)
    assert "'a'" in refusal.reason
    assert "max_abandoned=2" in refusal.reason
    assert places.refusal("b") is None
    round_.end(hung[0], Value(1))
    assert places.refusal("a") is None
    assert places.abandoned("a") == 1


def test_places_are_shared_by_rounds():
    """What one round abandoned counts in the next one of the same executor."""
    places = Places(1)
    first = Round(places)
    begin(first)
    first.expire(1.0)

    assert places.refusal("a") is not None


def test_cancelling_abandons_what_is_pending():
    """Cancelled calls are told in the order they began, hold a place, and are late when they end."""
    places = Places(2)
    round_ = Round(places)
    ended, first, second = (begin(round_, key) for key in "abc")
    round_.end(ended, Value(1))

    assert round_.cancel() == [first, second]
    assert first.outcome == Cancelled()
    assert round_.pending == 0
    assert round_.next_deadline() is None
    assert places.abandoned("b") == 1
    assert not round_.end(first, Value(2))
    assert places.abandoned("b") == 0


def test_told_calls_leave_nothing_behind():
    """However many calls end in time, with deadlines far away, what the round keeps stays small."""
    round_ = Round(Places(2))
    for _ in range(5000):
        round_.end(begin(round_, deadline=1e6), Value(0))

    assert len(round_._deadlines) < 100
    assert len(round_._pending) == 0


@pytest.mark.parametrize("timeout", [math.nan, math.inf, -math.inf, 1e7, True])
def test_a_timeout_that_bounds_nothing_is_refused(timeout):
    """The refusal names the option and the value."""
    with pytest.raises(ValueError, match=f"^timeout.*{timeout!r}"):
        check_timeout(timeout)


def test_a_timeout_that_is_no_number_is_refused():
    """A string is a TypeError that names the option."""
    with pytest.raises(TypeError, match=r"timeout.*'1'"):
        check_timeout("1")


@pytest.mark.parametrize("timeout", [1, 0.001, 1e6, 0, 0.0, -1, -1.7e9])
def test_a_timeout_up_to_the_longest_wait_is_fine(timeout):
    """Whole numbers and fractions pass, and what is left of a deadline that is over."""
    check_timeout(timeout)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (True, ValueError), (1.5, TypeError)])
def test_max_abandoned_must_be_a_positive_whole_number(value, error):
    """The refusal names the option."""
    with pytest.raises(error, match=r"^max_abandoned"):
        Places(value)


def test_one_abandoned_call_may_be_the_most_and_is_no_reason_to_refuse_the_first():
    """With max_abandoned=1 a key runs until one of its calls was abandoned."""
    places = Places(1)
    assert places.refusal("a") is None
    round_ = Round(places)
    begin(round_, "a")
    round_.cancel()

    assert places.refusal("a") is not None
    assert places.refusal("b") is None


class RoundMachine(RuleBasedStateMachine):
    """A round against lists that are searched from end to end."""

    def __init__(self):
        super().__init__()
        self.places = Places(2)
        self.rounds = [Round(self.places), Round(self.places)]
        self.now = 0.0
        self.pending = []  # (round, call)
        self.abandoned = []

    @rule(which=st.integers(0, 1), key=st.sampled_from("ab"), timeout=st.integers(1, 4))
    def begin(self, which, key, timeout):
        """A call begins, unless its key has no place left."""
        refused = sum(call.key == key for _, call in self.abandoned) >= 2
        assert (self.places.refusal(key) is not None) == refused
        if refused:
            return
        call = Call(key, float(timeout), self.now + timeout)
        self.rounds[which].begin(call)
        self.pending.append((which, call))

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def end_in_time(self, data):
        """What ends while it is pending is to be told."""
        which, call = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        assert self.rounds[which].end(call, Value(call.number))
        assert call.outcome == Value(call.number)

    @precondition(lambda self: self.abandoned)
    @rule(data=st.data())
    def end_late(self, data):
        """What ends after that is late, and changes nothing that was told."""
        which, call = self.abandoned.pop(data.draw(st.integers(0, len(self.abandoned) - 1)))
        told = call.outcome
        assert not self.rounds[which].end(call, Value(call.number))
        assert call.outcome is told

    @rule(seconds=st.integers(0, 3), which=st.integers(0, 1))
    def expire(self, seconds, which):
        """Exactly the calls that are due time out, earliest first."""
        self.now += seconds
        due = [entry for entry in self.pending if entry[0] == which and entry[1].deadline <= self.now]
        expected = sorted((call.deadline, call.number, call) for _, call in due)
        assert self.rounds[which].expire(self.now) == [call for *_, call in expected]
        assert all(call.outcome == TimedOut(call.timeout) for _, call in due)
        self.pending = [entry for entry in self.pending if entry not in due]
        self.abandoned += due

    @rule(which=st.integers(0, 1))
    def cancel(self, which):
        """Exactly the pending calls of that round are abandoned."""
        mine = [entry for entry in self.pending if entry[0] == which]
        assert self.rounds[which].cancel() == [call for _, call in mine]
        self.pending = [entry for entry in self.pending if entry[0] != which]
        self.abandoned += mine

    @invariant()
    def accounts_agree(self):
        """Pending calls, next deadlines and places are what the lists say."""
        for which, round_ in enumerate(self.rounds):
            deadlines = [call.deadline for index, call in self.pending if index == which]
            assert round_.pending == len(deadlines)
            assert round_.next_deadline() == min(deadlines, default=None)
        for key in "ab":
            assert self.places.abandoned(key) == sum(call.key == key for _, call in self.abandoned)


TestRound = RoundMachine.TestCase
TestRound.settings = settings(max_examples=part(60), stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300))
def test_sweeping_the_heap_loses_no_deadline(timeouts):
    """Calls expire in order of their deadlines, however many others were begun and ended between them."""
    round_ = Round(Places(1))
    kept = []
    for timeout in timeouts:
        kept.append(begin(round_, deadline=float(timeout)))
        for _ in range(3):
            round_.end(begin(round_, deadline=100.0), Value(0))

    assert [call.deadline for call in round_.expire(50.0)] == sorted(call.deadline for call in kept)
