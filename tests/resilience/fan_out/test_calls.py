"""The pure core of the fan-out: told once, late once, abandoned by key."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sizes import part

from resilience.fan_out.calls import AbandonedCalls, Call, CallBook, Told, check_timeout
from resilience.outcomes import Cancelled, Rejected, TimedOut, Value


def begin(book, key="a", deadline=1.0):
    """A begun call that was given its whole deadline as timeout."""
    call = Call(key, int, deadline, deadline, lambda *_: None)
    book.begin(call)
    return call


def test_f2_what_exists_at_the_very_deadline_is_told():
    """A call that ends exactly at its deadline is in time when the deadline is looked at afterwards."""
    book = CallBook(AbandonedCalls(2))
    call = begin(book, deadline=1.0)

    assert book.end(call, Value(7)) is Told.IN_TIME
    assert book.expire(1.0) == []
    assert call.outcome == Value(7)


def test_f2_a_call_is_past_its_deadline_at_the_deadline_not_before():
    """With nothing there by then, the deadline itself is too late; any earlier time is not."""
    book = CallBook(AbandonedCalls(2))
    call = begin(book, deadline=1.0)

    assert book.expire(math.nextafter(1.0, 0.0)) == []
    assert book.expire(1.0) == [call]
    assert call.outcome == TimedOut(1.0)


def test_f3_what_ends_after_its_timeout_was_told_is_late():
    """The end of an abandoned call is no outcome to tell, and leaves the one that was told."""
    book = CallBook(AbandonedCalls(2))
    call = begin(book)
    book.were_told(book.expire(1.0))

    assert book.end(call, Value(7)) is Told.LATE
    assert call.outcome == TimedOut(1.0)


def test_f4_abandoned_calls_take_places_of_their_own_key():
    """At max_abandoned the key is refused with the reason, another key is not, and an end frees the place."""
    abandoned = AbandonedCalls(2)
    book = CallBook(abandoned)
    hung = [begin(book, "a"), begin(book, "a")]
    assert abandoned.refusal("a") is None

    book.expire(1.0)

    refusal = abandoned.refusal("a")
    assert isinstance(refusal, Rejected)
    assert "'a'" in refusal.reason
    assert "max_abandoned=2" in refusal.reason
    assert abandoned.refusal("b") is None
    book.end(hung[0], Value(1))
    assert abandoned.refusal("a") is None
    assert abandoned.count("a") == 1


def test_abandoned_calls_are_shared_by_books():
    """What one book abandoned counts in the next one of the same executor."""
    abandoned = AbandonedCalls(1)
    first = CallBook(abandoned)
    begin(first)
    first.expire(1.0)

    assert abandoned.refusal("a") is not None


def test_cancelling_abandons_what_is_pending():
    """Cancelled calls are told in the order they began, hold a place, and are late when they end."""
    abandoned = AbandonedCalls(2)
    book = CallBook(abandoned)
    ended, first, second = (begin(book, key) for key in "abc")
    book.end(ended, Value(1))

    cancelled = book.cancel()
    assert cancelled == [first, second]
    book.were_told(cancelled)
    assert first.outcome == Cancelled()
    assert book.pending == 0
    assert book.next_deadline() is None
    assert abandoned.count("b") == 1
    assert book.end(first, Value(2)) is Told.LATE
    assert abandoned.count("b") == 0


def test_told_calls_leave_nothing_behind():
    """However many calls end in time, with deadlines far away, what the book keeps stays small."""
    book = CallBook(AbandonedCalls(2))
    for _ in range(5000):
        book.end(begin(book, deadline=1e6), Value(0))

    assert len(book._deadlines) < 100
    assert len(book._pending) == 0


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
        AbandonedCalls(value)


def test_one_abandoned_call_may_be_the_most_and_is_no_reason_to_refuse_the_first():
    """With max_abandoned=1 a key runs until one of its calls was abandoned."""
    abandoned = AbandonedCalls(1)
    assert abandoned.refusal("a") is None
    book = CallBook(abandoned)
    begin(book, "a")
    book.cancel()

    assert abandoned.refusal("a") is not None
    assert abandoned.refusal("b") is None


class BookMachine(RuleBasedStateMachine):
    """Two books against lists that are searched from end to end."""

    def __init__(self):
        super().__init__()
        self.left = AbandonedCalls(2)
        self.books = [CallBook(self.left), CallBook(self.left)]
        self.now = 0.0
        self.pending = []  # (book, call)
        self.abandoned = []
        self.telling = []  # of these, and what came meanwhile

    @rule(which=st.integers(0, 1), key=st.sampled_from("ab"), timeout=st.integers(1, 4))
    def begin(self, which, key, timeout):
        """A call begins, unless too many calls of its key are abandoned."""
        call = Call(key, int, float(timeout), self.now + timeout, lambda *_: None)
        refused = sum(call.key == key for _, call in self.abandoned) >= 2
        assert (self.books[which].admit(call, self.now) is not None) == refused
        if refused:
            return
        self.books[which].begin(call)
        self.pending.append((which, call))

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def end_in_time(self, data):
        """What ends while it is pending is to be told."""
        which, call = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        assert self.books[which].end(call, Value(call.number)) is Told.IN_TIME
        assert call.outcome == Value(call.number)

    @precondition(lambda self: self.abandoned)
    @rule(data=st.data())
    def end_late(self, data):
        """What ends after that is late, and changes nothing that was told; if that is being told it waits for it."""
        which, call = self.abandoned.pop(data.draw(st.integers(0, len(self.abandoned) - 1)))
        told = call.outcome
        expected = Told.HELD if (which, call) in self.telling else Told.LATE
        assert self.books[which].end(call, Value(call.number)) is expected
        assert call.outcome is told

    @rule(seconds=st.integers(0, 3), which=st.integers(0, 1))
    def expire(self, seconds, which):
        """Exactly the calls that are due time out, earliest first."""
        self.now += seconds
        due = [entry for entry in self.pending if entry[0] == which and entry[1].deadline <= self.now]
        expected = sorted((call.deadline, call.number, call) for _, call in due)
        assert self.books[which].expire(self.now) == [call for *_, call in expected]
        assert all(call.outcome == TimedOut(call.timeout) for _, call in due)
        self.abandon(due)

    @rule(which=st.integers(0, 1))
    def cancel(self, which):
        """Exactly the pending calls of that book are abandoned."""
        mine = [entry for entry in self.pending if entry[0] == which]
        assert self.books[which].cancel() == [call for _, call in mine]
        self.abandon(mine)

    @precondition(lambda self: self.telling)
    @rule(data=st.data())
    def were_told(self, data):
        """What came for one of them meanwhile is told after its end, once."""
        which, call = self.telling.pop(data.draw(st.integers(0, len(self.telling) - 1)))
        came = (which, call) not in self.abandoned
        assert self.books[which].were_told([call]) == ([(call, Value(call.number))] if came else [])
        assert call.late == (Value(call.number) if came else None)

    def abandon(self, entries):
        """These are told of from here on."""
        self.pending = [entry for entry in self.pending if entry not in entries]
        self.abandoned += entries
        self.telling += entries

    @invariant()
    def accounts_agree(self):
        """Pending calls, next deadlines and abandoned calls are what the lists say."""
        for which, book in enumerate(self.books):
            deadlines = [call.deadline for index, call in self.pending if index == which]
            assert book.pending == len(deadlines)
            assert book.next_deadline() == min(deadlines, default=None)
        for key in "ab":
            assert self.left.count(key) == sum(call.key == key for _, call in self.abandoned)


TestBook = BookMachine.TestCase
TestBook.settings = settings(max_examples=part(60), stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300))
def test_sweeping_the_heap_loses_no_deadline(timeouts):
    """Calls expire in order of their deadlines, however many others were begun and ended between them."""
    book = CallBook(AbandonedCalls(1))
    kept = []
    for timeout in timeouts:
        kept.append(begin(book, deadline=float(timeout)))
        for _ in range(3):
            book.end(begin(book, deadline=100.0), Value(0))

    assert [call.deadline for call in book.expire(50.0)] == sorted(call.deadline for call in kept)
