"""CircuitBreaker, rule by rule; tests/resilience/test_breaker_model.py has the same rules in any order."""

import asyncio
import concurrent.futures
import gc
import logging
import math
import random
import re
import sys
import threading
import weakref
from abc import ABCMeta
from datetime import timedelta

import attrs
import pybreaker
import pytest

from resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker
from resilience.circuit import Circuit
from resilience.errors import BreakerOpenError, ResilienceError, Throttled
from resilience.outcomes import Cancelled, Failed, Rejected, TimedOut, Value
from resilience.testing import ManualClock

PLAIN = BreakerConfig(jitter=0)


@pytest.fixture
def clock():
    """Virtual time that does not start at zero."""
    return ManualClock(1000.0)


def make(clock, config=PLAIN, **options):
    """A breaker on virtual time, by default without jitter."""
    return CircuitBreaker("billing", config, clock=clock, **options)


def trip(breaker, hint=None):
    """Let calls fail until it opens."""
    for _ in range(breaker.config.fail_max):
        breaker.try_acquire().failure(OSError("down"), retry_after=hint)
    assert breaker.state is BreakerState.OPEN
    return breaker


def probe(breaker, clock):
    """Wait until a probe is due, and get it."""
    clock.advance(max(0.0, breaker.retry_at - clock()))
    return breaker.try_acquire()


# ---- B1: opening ----


def test_b1_consecutive_failures_open_it_for_the_reset_timeout(clock):
    """Two failures do nothing, the third opens it for 30 seconds."""
    breaker = make(clock)
    for _ in range(2):
        breaker.try_acquire().failure()
    assert breaker.state is BreakerState.CLOSED

    breaker.try_acquire().failure()

    assert breaker.state is BreakerState.OPEN
    assert breaker.retry_at == clock() + 30.0
    assert breaker.try_acquire().retry_after == 30.0


def test_b1_success_resets_the_count(clock):
    """Only failures in a row count."""
    breaker = make(clock)
    for _ in range(5):
        breaker.try_acquire().failure(OSError())
        breaker.try_acquire().failure(OSError())
        breaker.try_acquire().success()

    assert (breaker.state, breaker.failures, breaker.last_error) == (BreakerState.CLOSED, 0, None)


def test_b1_one_stall_with_ten_calls_in_flight_is_one_failure(clock):
    """A failure counts only if its call began after the previous counted one was seen."""
    breaker = make(clock)
    calls = [breaker.try_acquire() for _ in range(10)]

    assert all(call.failure() for call in calls)

    assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 1)


def test_b1_three_stalls_with_calls_in_flight_open_it(clock):
    """Each further stall is one further failure."""
    breaker = make(clock)
    for _ in range(3):
        calls = [breaker.try_acquire() for _ in range(10)]
        for call in calls:
            call.failure()

    assert breaker.state is BreakerState.OPEN


def test_b1_a_success_does_not_make_old_failures_new(clock):
    """What began before the last counted failure was seen stays part of it, also when a success came between."""
    breaker = make(clock, BreakerConfig(fail_max=2, jitter=0))
    first, second, third = (breaker.try_acquire() for _ in range(3))
    first.failure()
    assert second.success()
    third.failure()
    assert breaker.failures == 1

    old = breaker.try_acquire()
    breaker.try_acquire().success()
    assert breaker.failures == 0

    old.failure()
    assert breaker.failures == 1, "it began after the last counted failure"


def test_b1_a_success_from_before_the_last_failure_hides_no_outage(clock):
    """Calls that began when all was well may end after the first failures: they reset nothing."""
    breaker = make(clock)
    old = [breaker.try_acquire() for _ in range(10)]
    for _ in range(2):
        breaker.try_acquire().failure(OSError("down"))
        assert old.pop().success(), "in time, but it says nothing"
    breaker.try_acquire().failure(OSError("down"))

    assert breaker.state is BreakerState.OPEN


def test_b1_failed_probes_double_the_wait_up_to_the_maximum_and_recovery_forgets(clock):
    """30, 60, 120, 240, 300, 300 seconds; after it closed, 30 again."""
    breaker = trip(make(clock))
    waits = []
    for _ in range(6):
        waits.append(breaker.retry_at - clock())
        probe(breaker, clock).failure()
    assert waits == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]

    probe(breaker, clock).success()
    trip(breaker)

    assert breaker.retry_at - clock() == 30.0


def test_b1_one_jitter_draw_each_time_it_opens(clock):
    """The wait is drawn from 1 to 1.5 times, once: asking often does not bring the probe forward."""
    rng, expected = random.Random(3), random.Random(3)
    breaker = trip(make(clock, BreakerConfig(), rng=rng))
    until = breaker.retry_at
    for _ in range(100):
        assert not breaker.try_acquire()

    assert breaker.retry_at == until == clock() + 30.0 * (1 + 0.5 * expected.random())
    assert rng.random() == expected.random()


def test_b1_breakers_do_not_come_back_at_the_same_time(clock):
    """Without a generator of one's own, jitter differs between breakers and stays in its range."""
    waits = {trip(make(clock, BreakerConfig())).retry_at - clock() for _ in range(50)}

    assert len(waits) > 40
    assert all(30.0 <= wait <= 45.0 for wait in waits)


@pytest.mark.parametrize("hint", [0.5, 2.0, 3000])
def test_b1_a_hint_wins(clock, hint):
    """It stays open for exactly as long as the other side asked, be it shorter or longer."""
    breaker = trip(make(clock, BreakerConfig()), hint)

    assert breaker.retry_at == clock() + hint


def test_b1_a_hint_may_come_with_the_error(clock):
    """An error that carries retry_after, as Throttled does, brings the hint by itself."""

    class BusyError(Exception):
        retry_after = 7.0

    breaker = make(clock)
    for _ in range(3):
        breaker.try_acquire().failure(BusyError())

    assert breaker.retry_at == clock() + 7.0


@pytest.mark.parametrize("hint", [0, -1, math.nan, math.inf, "soon"])
def test_b1_a_hint_that_is_no_time_is_ignored(clock, hint):
    """A server sends anything; it cannot shut itself out for ever."""
    assert trip(make(clock), hint).retry_at == clock() + 30.0


@pytest.mark.parametrize("how", ["argument", "error", "group"])
def test_b1_r32_a_hint_is_capped_and_that_is_logged(clock, how, caplog):
    """No server can shut itself out for years: an hour at most, or what the configuration says."""
    error = Throttled(9999999999)
    for config, longest in ((PLAIN, 3600.0), (BreakerConfig(max_retry_after=60, jitter=0), 60.0)):
        breaker = make(clock, attrs.evolve(config, excluded=()))
        for _ in range(3):
            permit = breaker.try_acquire()
            if how == "argument":
                permit.failure(OSError(), retry_after=9999999999)
            else:
                permit.failure(error if how == "error" else ExceptionGroup("both", [OSError(), error]))

        assert breaker.retry_at == breaker.early_at == clock() + longest
        assert "max_retry_after" in caplog.text
        assert "9999999999 s" in caplog.text
        caplog.clear()


def test_b1_a_hint_within_the_bounds_is_not_logged(clock, caplog):
    """What is done as asked is no news."""
    with caplog.at_level(logging.DEBUG, "resilience"):
        trip(make(clock), 3600.0)

    assert not caplog.records


def test_b1_r32_a_hint_may_be_a_timedelta(clock):
    """As an argument, or on an error."""

    class BusyError(Exception):
        retry_after = timedelta(minutes=2)

    assert trip(make(clock), timedelta(minutes=1)).retry_at == clock() + 60.0
    breaker = make(clock)
    for _ in range(3):
        breaker.try_acquire().failure(BusyError())
    assert breaker.retry_at == clock() + 120.0
    assert trip(make(clock), timedelta(seconds=-1)).retry_at == clock() + 30.0


# ---- B2: half-open ----


def test_b2_one_probe_at_a_time(clock):
    """The first caller after the wait gets the probe; the next is told when to come back."""
    breaker = trip(make(clock))

    first = probe(breaker, clock)
    second = breaker.try_acquire()

    assert (first.probe, first.expiry) == (True, clock() + 30.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert (bool(second), second.retry_after) == (False, 30.0)
    assert "probe is in flight" in second.reason


def test_b2_racing_threads_get_one_probe(clock):
    """Of eight threads that ask at once exactly one may call."""
    breaker = trip(make(clock))
    clock.advance(30.0)
    start = threading.Barrier(8)

    def ask(_):
        start.wait(30)
        return breaker.try_acquire()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        permits = list(pool.map(ask, range(8)))

    assert sum(map(bool, permits)) == 1


def test_b2_success_threshold_closes_it(clock):
    """So many successful probes, one after another, close it."""
    breaker = trip(make(clock, BreakerConfig(success_threshold=3, jitter=0)))
    for _ in range(2):
        assert probe(breaker, clock).success()
        assert breaker.state is BreakerState.HALF_OPEN
        assert breaker.retry_at <= clock()
    probe(breaker, clock).success()

    assert (breaker.state, breaker.retry_at) == (BreakerState.CLOSED, None)


def test_b2_one_failed_probe_opens_it_again(clock):
    """However many probes succeeded before."""
    breaker = trip(make(clock, BreakerConfig(success_threshold=3, jitter=0)))
    probe(breaker, clock).success()
    probe(breaker, clock).failure()
    assert breaker.state is BreakerState.OPEN

    for _ in range(2):
        probe(breaker, clock).success()

    assert breaker.state is BreakerState.HALF_OPEN


def test_b2_no_interleaving_lets_two_probes_out(clock):
    """Threads that acquire and report as fast as they can never have two probes at once."""
    breaker = trip(make(clock, BreakerConfig(fail_max=1, probe_timeout=1e9, jitter=0)))
    out, most, probes = [], [0], [0]

    def work(seed):
        rng = random.Random(seed)
        for _ in range(300):
            clock.advance(10.0)
            permit = breaker.try_acquire()
            if not permit:
                continue
            if permit.probe:
                out.append(permit)
                most[0], probes[0] = max(most[0], len(out)), probes[0] + 1
                out.remove(permit)
            rng.choice([permit.success, permit.failure, permit.failure, permit.release])()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(interval)

    assert most == [1]
    assert probes[0] > 10


def test_decisions_are_made_one_at_a_time(clock):
    """While one thread is deciding, another one waits, be it to acquire or to report."""
    breaker = make(clock)
    in_flight = breaker.try_acquire()
    breaker.force_open()
    decide, deciding, intruded = breaker._circuit.admit, threading.Event(), threading.Event()

    def admit(now, *, early):
        deciding.set()
        assert not intruded.wait(0.1)
        return decide(now, early=early)

    def intrude(*_):
        intruded.set()
        return False

    breaker._circuit.admit, breaker._circuit.failed = admit, intrude
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asking = pool.submit(breaker.try_acquire)
        assert deciding.wait(30)
        reporting = pool.submit(in_flight.failure)

        assert not asking.result(30)
        assert reporting.result(30) is False
    assert intruded.is_set()


# ---- early probes: when the fault may be the caller's own (P12 of the poller) ----


def test_b2_an_early_probe_need_not_wait_and_is_the_only_one(clock):
    """An open breaker lets one probe out before its wait is over, to whoever asks for an early one."""
    breaker = trip(make(clock))
    opened = breaker.early_at
    clock.advance(5)

    assert opened == 1000.0
    assert not breaker.try_acquire()
    permit = breaker.try_acquire(early=True)

    assert permit.probe
    assert permit.expiry == clock() + breaker.config.probe_timeout
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.early_at is None
    assert not breaker.try_acquire(early=True)
    assert permit.success()
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("report", ["failure", "release"])
def test_b1_an_early_probe_that_fails_prolongs_nothing(clock, report):
    """The wait goes on as it was, and the next one is not doubled for it: early probes may be many."""
    breaker = trip(make(clock))
    for _ in range(5):
        clock.advance(5)
        getattr(breaker.try_acquire(early=True), report)()
        assert breaker.state is BreakerState.OPEN
        assert (breaker.retry_at, breaker.early_at) == (1030.0, clock())

    probe(breaker, clock).failure()

    assert breaker.retry_at == clock() + 60.0


def test_b1_an_early_probe_that_lasts_beyond_the_wait_is_like_any_other(clock):
    """When its failure is told after the wait was over, it is the failure of a regular probe."""
    breaker = trip(make(clock))
    permit = breaker.try_acquire(early=True)
    clock.advance(29)
    assert not breaker.try_acquire()
    clock.advance(0.9)
    permit.failure()
    assert breaker.retry_at == 1030.0

    permit = breaker.try_acquire(early=True)
    clock.advance(0.1)
    permit.failure()

    assert breaker.retry_at == clock() + 60.0


def test_b1_an_early_probe_that_is_lost_ends_no_wait(clock):
    """When it never reports, its place is free at its expiry, but for a call whose wait is over."""
    breaker = trip(make(clock, BreakerConfig(jitter=0, probe_timeout=2.0)))
    lost = breaker.try_acquire(early=True)
    clock.advance(2.0)

    assert lost.failure() is False
    assert breaker.try_acquire().retry_after == 28.0
    clock.advance(28.0)
    assert breaker.try_acquire().probe


def test_b1_a_pause_that_was_asked_for_is_kept_by_early_probes_too(clock):
    """Who asked to be left alone for a minute is, and a forced breaker lets nothing through."""
    breaker = trip(make(clock), hint=60.0)

    assert breaker.early_at == breaker.retry_at == 1060.0
    assert breaker.try_acquire(early=True).retry_after == 60.0
    breaker.force_open()
    assert breaker.early_at is None
    assert not breaker.try_acquire(early=True)


def test_b2_successful_early_probes_close_it_one_after_another(clock):
    """With a threshold of two the second probe may follow the first at once."""
    breaker = trip(make(clock, BreakerConfig(jitter=0, success_threshold=2)))

    assert breaker.try_acquire(early=True).success()
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.try_acquire().success()

    assert breaker.state is BreakerState.CLOSED


# ---- B3: reports that come too late ----


def test_a_call_that_finds_it_closed_again_needs_no_probe():
    """When another thread closed the circuit between the question and the lock, the call is an ordinary one."""
    circuit = Circuit("b", PLAIN, pybreaker.CircuitMemoryStorage("closed"), draw=random.random, silent=True)

    assert circuit.admit(0.0) is circuit.era
    assert circuit.era.expiry is None


def test_b3_a_success_from_before_the_trip_does_not_close_it(clock):
    """What began in another generation says nothing of this one."""
    breaker = make(clock)
    old = breaker.try_acquire()
    trip(breaker)

    assert old.success() is False
    assert breaker.state is BreakerState.OPEN


def test_b3_a_failure_from_before_the_outage_does_not_hurt_the_recovered(clock):
    """A hung call that fails after the recovery counts nothing."""
    breaker = make(clock, BreakerConfig(fail_max=1, jitter=0))
    old = breaker.try_acquire()
    trip(breaker)
    probe(breaker, clock).success()

    assert old.failure() is False
    assert old.release() is False
    assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 0)


@pytest.mark.parametrize("first", ["success", "failure", "release"])
@pytest.mark.parametrize("second", ["success", "failure", "release"])
def test_b3_a_second_report_changes_nothing(clock, first, second):
    """Only the first report of a permit counts."""
    breaker = make(clock, BreakerConfig(fail_max=5))
    permit = breaker.try_acquire()
    assert getattr(permit, first)() is True
    failures = breaker.failures

    assert getattr(permit, second)() is False
    assert breaker.failures == failures


def test_b3_of_two_threads_one_reports(clock):
    """Two threads that report the same failure at once are one failure."""
    for _ in range(50):
        breaker = make(clock, BreakerConfig(fail_max=5))
        permit = breaker.try_acquire()
        start = threading.Barrier(2)

        def report(_, permit=permit, start=start):
            start.wait(30)
            return permit.failure()

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(report, range(2))) == [False, True]
        assert breaker.failures == 1


def test_b3_a_lost_probe_frees_its_place_at_its_expiry(clock):
    """A probe that hangs for ever does not wedge the breaker."""
    breaker = trip(make(clock))
    lost = probe(breaker, clock)
    clock.advance(29.9)
    assert not breaker.try_acquire()

    clock.advance(0.1)
    fresh = breaker.try_acquire()

    assert fresh.probe
    assert fresh.generation == lost.generation
    assert lost.failure() is False
    assert not breaker.try_acquire()
    assert fresh.success() is True
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("report", ["success", "failure", "release"])
def test_b3_an_expired_probe_says_nothing(clock, report):
    """Also when no other probe took its place."""
    breaker = trip(make(clock))
    late = probe(breaker, clock)
    clock.advance(30.0)

    assert getattr(late, report)() is False
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.try_acquire()


def test_b3_a_probe_that_lost_its_place_says_nothing_even_if_its_clock_was_read_before():
    """A thread may read the time, be held up, and report after another probe took the place."""
    circuit = Circuit("b", BreakerConfig(fail_max=1), pybreaker.CircuitMemoryStorage("closed"), draw=float, silent=True)
    circuit.failed(circuit.era, 0.0, None, 10.0)
    assert not circuit.admit(9.9)
    old = circuit.admit(10.0)
    fresh = circuit.admit(40.0)

    assert circuit.succeeded(old, 39.9) is False
    assert circuit.failed(old, 39.9, None, None) is False
    assert circuit.succeeded(fresh, 41.0) is True


# ---- B4: neutral ----


NEUTRAL = [
    asyncio.CancelledError(),
    concurrent.futures.CancelledError(),
    GeneratorExit(),
    KeyboardInterrupt(),
    SystemExit(),
    Throttled(60.0),
    BreakerOpenError("another", 1.0),
]


@pytest.mark.parametrize("error", NEUTRAL, ids=lambda error: type(error).__name__)
def test_b4_neutral_errors_neither_count_nor_reset(clock, error):
    """Between failures they change nothing: F F neutral F opens it."""
    breaker = make(clock)
    for _ in range(2):
        breaker.try_acquire().failure()
    assert breaker.try_acquire().failure(error) is True
    assert breaker.failures == 2

    breaker.try_acquire().failure()

    assert breaker.state is BreakerState.OPEN


@pytest.mark.parametrize("error", NEUTRAL, ids=lambda error: type(error).__name__)
def test_b4_a_neutral_probe_gives_its_place_back(clock, error):
    """It neither closes nor opens the breaker; the next caller probes at once."""
    breaker = trip(make(clock))

    assert probe(breaker, clock).failure(error) is True

    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.retry_at <= clock()
    assert breaker.try_acquire().probe


def test_b4_exclusions_with_a_metaclass_exclude_only_themselves(clock):
    """An excluded class made by ABCMeta is a class like any other."""

    class OurError(Exception, metaclass=ABCMeta):
        pass

    breaker = make(clock, BreakerConfig(excluded=(OurError,), jitter=0))
    for error in (ValueError(), OurError(), ValueError(), ValueError()):
        breaker.try_acquire().failure(error)

    assert breaker.state is BreakerState.OPEN


def test_b4_exclusions_can_be_taken_back(clock):
    """With an empty tuple, Throttled counts like any error."""
    breaker = make(clock, BreakerConfig(excluded=()))
    for _ in range(3):
        breaker.try_acquire().failure(Throttled(5.0))

    assert breaker.retry_at == clock() + 5.0


# ---- B10: what counts ----

MIXED = ExceptionGroup("both", [Throttled(2.0), OSError("down")])


@pytest.mark.parametrize(
    "error",
    [
        ExceptionGroup("one", [Throttled(2.0)]),
        ExceptionGroup("deep", [ExceptionGroup("inner", [Throttled(2.0)]), KeyError("x")]),
        BaseExceptionGroup("stopped", [KeyboardInterrupt(), Throttled(2.0)]),
    ],
)
def test_b10_r33_a_group_of_nothing_but_neutral_errors_is_neutral(clock, error):
    """Excluded errors and cancellation are that also inside an exception group, however deep."""
    breaker = make(clock, BreakerConfig(fail_max=1, excluded=(Throttled, KeyError)))

    assert breaker.try_acquire().failure(error)
    assert breaker.is_clean


@pytest.mark.parametrize("error", [MIXED, BaseExceptionGroup("stopped", [KeyboardInterrupt(), OSError()])])
def test_b10_a_group_with_an_error_that_counts_counts_once(clock, error):
    """One part is enough, and a group is one failure."""
    breaker = make(clock)
    breaker.try_acquire().failure(error)

    assert breaker.failures == 1


def test_b10_a_group_can_be_excluded_as_such(clock):
    """By its class, whatever is in it."""
    breaker = make(clock, BreakerConfig(excluded=(ExceptionGroup,)))
    breaker.try_acquire().failure(MIXED)

    assert breaker.is_clean


def test_b10_the_longest_pause_that_a_part_asks_for_is_kept(clock):
    """A hint inside a group is a hint."""
    breaker = make(clock)
    for _ in range(3):
        breaker.try_acquire().failure(ExceptionGroup("all", [MIXED, Throttled(9.0), Throttled(4.0)]))

    assert breaker.retry_at == clock() + 9.0


class HttpError(Exception):
    """An error with a status."""

    def __init__(self, status):
        super().__init__(f"HTTP {status}")
        self.status = status


def is_ours(what):
    """A server's fault, raised or returned."""
    return getattr(what, "status", 200) >= 500


JUDGED = BreakerConfig(counts=is_ours, jitter=0)


def test_b10_r33_counts_judges_errors(clock):
    """An error that it does not count is neutral, one that it counts is a failure; parts of a group alike."""
    breaker = make(clock, JUDGED)
    for error in (HttpError(404), ExceptionGroup("two", [HttpError(404), HttpError(409)])):
        breaker.try_acquire().failure(error)
        assert breaker.is_neutral(error)
    assert breaker.failures == 0

    breaker.try_acquire().failure(HttpError(503))
    breaker.try_acquire().failure(ExceptionGroup("two", [HttpError(404), HttpError(500)]))

    assert breaker.failures == 2


def test_b10_r33_counts_judges_values(clock):
    """An answer can be a failure; the error that is kept of it names its type and nothing of its content."""

    class Answer:
        status = 503

        def __repr__(self):
            return "secret"

    breaker = make(clock, JUDGED)
    for _ in range(3):
        assert breaker.try_acquire().report(Value(Answer()))

    assert breaker.state is BreakerState.OPEN
    assert str(breaker.last_error) == "the call returned a Answer that counts as a failure"
    assert probe(breaker, clock).report(Value("fine"))
    assert breaker.state is BreakerState.CLOSED


def test_b10_counts_is_asked_neither_of_cancellation_nor_of_what_is_excluded(clock):
    """They are neutral whatever it would say."""
    asked = []
    breaker = make(clock, BreakerConfig(counts=asked.append))
    for error in NEUTRAL:
        breaker.try_acquire().failure(error)

    assert asked == []
    assert breaker.is_clean


def test_b10_counts_that_raises_changes_nothing_and_is_logged(clock, caplog):
    """The error counts and the value does not, as without it."""

    def broken(_):
        raise ZeroDivisionError

    breaker = make(clock, BreakerConfig(counts=broken))
    breaker.try_acquire().failure(OSError("down"))
    assert breaker.failures == 1
    assert breaker.try_acquire().report(Value("secret"))

    assert breaker.failures == 0
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError] * 2
    assert "secret" not in caplog.text


def test_report_takes_an_outcome(clock):
    """A value is a success, an error and a timeout are failures, what never ran or was cancelled is neither."""
    breaker = make(clock)
    for outcome, failures in (
        (Failed(OSError("down")), 1),
        (TimedOut(2.0), 2),
        (Failed(Throttled(1.0)), 2),
        (Cancelled(), 2),
        (Rejected("no place"), 2),
        (Value(1), 0),
    ):
        permit = breaker.try_acquire()
        assert permit.report(outcome)
        assert breaker.failures == failures
        assert not permit.report(outcome)


# ---- B5: time ----


def test_b5_only_the_given_clock_matters(clock):
    """A closed breaker does not even ask for the time; an open one waits for its own clock."""
    asked = []

    def counting():
        asked.append(None)
        return clock()

    breaker = make(counting)
    for _ in range(10):
        breaker.try_acquire().success()
    assert asked == []

    trip(breaker)
    clock.advance(30.0)

    assert breaker.try_acquire()


def test_b5_healthy_breaker_asks_for_no_time_whatever_was_before(clock):
    """After failures that a success wiped out, after a recovery and after a reset a call costs no look at the clock."""
    asked = []

    def counting():
        asked.append(None)
        return clock()

    def costs(breaker):
        asked.clear()
        for _ in range(3):
            assert breaker.try_acquire().success()
        return len(asked)

    breaker = make(counting)
    breaker.try_acquire().failure()
    asked.clear()
    breaker.try_acquire()
    assert asked == [], "a closed breaker lets calls through without asking, also one that counts"
    breaker.try_acquire().success()
    assert costs(breaker) == 0
    trip(breaker)
    clock.advance(30.0)
    breaker.try_acquire().success()
    assert costs(breaker) == 0
    breaker.force_open()
    breaker.reset()
    assert costs(breaker) == 0


# ---- B7: by hand ----


def test_b7_forced_open_stays_open(clock):
    """No time is long enough, and the rejection says so."""
    breaker = make(clock)
    breaker.force_open()
    clock.advance(1e9)

    rejected = breaker.try_acquire()

    assert (bool(rejected), rejected.retry_after, breaker.retry_at) == (False, math.inf, math.inf)
    assert "forced" in rejected.reason
    assert breaker.is_forced


def test_b7_forced_closed_counts_nothing(clock):
    """Every call goes ahead, whatever it comes to; after the reset failures count again."""
    breaker = trip(make(clock))
    breaker.force_closed()
    for _ in range(10):
        assert breaker.try_acquire().failure()
    assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 0)

    breaker.reset()
    trip(breaker)

    assert breaker.state is BreakerState.OPEN


def test_b7_commands_act_while_a_call_hangs(clock):
    """A call inside the guard keeps nobody from forcing the breaker, and its late report changes nothing."""
    breaker = make(clock)
    with breaker.guard() as hung:
        breaker.force_open()
        assert breaker.state is BreakerState.OPEN
        breaker.reset()
        assert breaker.state is BreakerState.CLOSED

        assert hung.failure() is False

    assert breaker.is_clean


# ---- B8: what can be read ----


def test_b8_state_can_be_read(clock):
    """Name, state, counters, next probe and last error."""
    breaker = make(clock)
    error = OSError("down")
    breaker.try_acquire().failure(error)

    assert (breaker.name, breaker.failures, breaker.last_error) == ("billing", 1, error)
    assert (breaker.generation, breaker.retry_at, breaker.is_clean) == (0, None, False)
    assert repr(breaker) == "<CircuitBreaker 'billing' closed failures=1>"


def test_nothing_keeps_a_breaker_alive_but_its_users(clock):
    """After a whole episode it is freed at once: no cycle waits for the collector, no traceback is kept."""
    gc.disable()
    try:
        breaker = trip(make(clock))
        probe(breaker, clock).success()
        gone = weakref.ref(breaker)
        del breaker

        assert gone() is None
    finally:
        gc.enable()


# ---- Configuration ----


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"fail_max": 0}, ValueError, "fail_max"),
        ({"fail_max": True}, ValueError, "fail_max"),
        ({"fail_max": 2.5}, TypeError, "fail_max"),
        ({"reset_timeout": 0}, ValueError, "reset_timeout"),
        ({"reset_timeout": math.nan}, ValueError, "reset_timeout"),
        ({"reset_timeout": True}, ValueError, "reset_timeout"),
        ({"reset_timeout": "30"}, TypeError, "reset_timeout"),
        ({"reset_timeout": 400}, ValueError, "max_reset_timeout .* is below reset_timeout"),
        ({"jitter": -0.1}, ValueError, "jitter"),
        ({"success_threshold": 0}, ValueError, "success_threshold"),
        ({"probe_timeout": math.inf}, ValueError, "probe_timeout"),
        ({"excluded": OSError}, TypeError, "excluded"),
        ({"excluded": (OSError, "ValueError")}, TypeError, "excluded"),
        ({"max_retry_after": 0}, ValueError, "max_retry_after"),
        ({"counts": "status"}, TypeError, "counts"),
        ({"counts": asyncio.sleep}, TypeError, "counts must be a plain function, not the async function"),
    ],
)
def test_bad_options_are_refused_by_name(options, error, text):
    """The message names the option."""
    with pytest.raises(error, match=text):
        BreakerConfig(**options)


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ({"fail_max": 3}, r"BreakerConfig\(fail_max=3\)"),
        ({"reset_timeout": 60}, r"BreakerConfig\(reset_timeout=60\)"),
        ({"success_threshold": 2}, r"BreakerConfig\(success_threshold=2\)"),
        ({"exclude": [KeyError]}, "excluded="),
        ({"state_storage": None}, "always in memory"),
        ({"throw_new_error_on_trip": False}, "always reaches the caller"),
        ({"jitter": 0.1}, r"BreakerConfig\(jitter=0.1\)"),
        ({"nonsense": 1}, "has no option 'nonsense'$"),
    ],
)
def test_r20_options_that_belong_into_the_configuration_are_answered_by_name(option, instead):
    """Whoever comes from pybreaker is told what to write."""
    with pytest.raises(TypeError, match=instead):
        CircuitBreaker("x", **option)


def test_r20_what_is_no_name_or_no_configuration_is_refused():
    """Before the first call, with an example."""
    with pytest.raises(TypeError, match=r"write CircuitBreaker\('x', BreakerConfig\(fail_max=3\)\)"):
        CircuitBreaker("x", 3)
    with pytest.raises(TypeError, match="must be a str, not 5"):
        CircuitBreaker(5)


PYBREAKERS = [name for name in dir(pybreaker.CircuitBreaker) if not name.startswith("_")]


@pytest.mark.parametrize("name", [name for name in PYBREAKERS if name not in {"name", "state"}])
def test_r20_everything_that_pybreaker_has_is_answered(clock, name):
    """Whoever uses it learns what to write."""
    with pytest.raises(AttributeError, match=rf"no '{name}', unlike pybreaker's: write .*"):
        getattr(make(clock), name)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("call", "breaker(function)"), ("calling", "guard"), ("open", "force_open"), ("fail_counter", "failures")],
)
def test_r20_habits_of_pybreaker_are_answered_by_name(clock, name, instead):
    """``breaker.call(f)`` says what to write; ``hasattr`` stays honest."""
    breaker = make(clock)
    with pytest.raises(AttributeError, match=rf"no '{name}', .*{re.escape(instead)}"):
        getattr(breaker, name)

    assert not hasattr(breaker, name)


def test_errors_share_a_root():
    """Whoever catches ResilienceError catches the rejection of a breaker."""
    assert issubclass(BreakerOpenError, ResilienceError)
