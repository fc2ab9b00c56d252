"""Fifty callers share one breaker, in virtual time: when it opens, by count and by rate (B1)."""

import heapq
import itertools
import math
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker
from resilience.testing import ManualClock

CALLERS = 50
BY_COUNT = BreakerConfig(fail_max=3)
BY_RATE = BreakerConfig(fail_max=None, failure_rate=0.5, window=10.0, min_calls=20)
EITHER = BreakerConfig(fail_max=20, failure_rate=0.5, window=10.0, min_calls=20)
SEEDS = st.integers(0, 2**32)
TIMES = st.tuples(st.sampled_from([0.001, 0.05, 0.3]), st.sampled_from([0.001, 0.05, 0.3]))


def simulate(config, part, seconds, seed, times):
    """Callers call without a pause, and ``part`` of their calls fail; returns when it opened (None) and after how many.

    ``times`` are the seconds that a success and a failure take, more or less: up to twice that.
    """
    rng, clock = random.Random(seed), ManualClock(1000.0)
    breaker = CircuitBreaker("shared", config, clock=clock)
    numbers, calls, ends = itertools.count(), 0, []

    def begin():
        failed = rng.random() < part
        took = times[failed] * (1 + rng.random())
        heapq.heappush(ends, (clock() + took, next(numbers), breaker.try_acquire(), failed))

    for _ in range(CALLERS):
        begin()
    while ends[0][0] < 1000.0 + seconds:
        at, _, permit, failed = heapq.heappop(ends)
        clock.advance(at - clock())
        permit.failure(OSError("down")) if failed else permit.success()
        calls += 1
        if breaker.state is BreakerState.OPEN:
            return clock() - 1000.0, calls
        begin()
    return None, calls


@given(seed=SEEDS, times=TIMES)
@settings(deadline=None)
def test_r26_rate_opens_within_two_seconds_when_nine_of_ten_calls_fail(seed, times):
    """However long successes and failures take, and also beside a count."""
    for config in (BY_RATE, EITHER):
        opened, _ = simulate(config, 0.9, 60.0, seed, times)

        assert opened is not None
        assert opened <= 2.0


@given(seed=SEEDS, times=TIMES)
@settings(deadline=None, max_examples=8)
def test_r26_rate_never_opens_when_one_of_twenty_calls_fails(seed, times):
    """Not even where failures come at once and successes take long: every call has the same weight."""
    opened, calls = simulate(BY_RATE, 0.05, 20.0 if min(times) > 0.01 else 2.0, seed, times)

    assert opened is None
    assert calls > 100


@given(seed=SEEDS)
@settings(deadline=None)
def test_r26_count_opens_in_seconds_although_old_successes_keep_coming_in(seed):
    """Successes of calls that began before the last counted failure reset nothing: it took 48,109 calls once."""
    opened, calls = simulate(BY_COUNT, 0.9, 3600.0, seed, (0.1, 0.1))

    assert opened is not None
    assert opened <= 20.0
    assert calls < 10_000


def make(**options):
    """A breaker that a rate opens, its clock, and what reports a success or a failure of a new call."""
    clock = ManualClock(1000.0)
    config = BreakerConfig(**{"fail_max": None, "failure_rate": 0.5, "min_calls": 4, "jitter": 0, **options})
    breaker = CircuitBreaker("billing", config, clock=clock)

    def report(*hows):
        for how in hows:
            getattr(breaker.try_acquire(), how)()

    return breaker, clock, report


def test_rate_means_nothing_before_min_calls():
    """Three failures of three are too few, the fourth call decides."""
    breaker, _, report = make()
    report("failure", "failure", "failure")
    assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 3)

    report("failure")

    assert breaker.state is BreakerState.OPEN
    assert breaker.retry_at == 1030.0


def test_rate_is_reached_at_the_very_half():
    """Two failures of four are half of the calls; two of five would not be."""
    breaker, _, report = make()
    report("success", "success", "success", "failure", "failure")
    assert breaker.state is BreakerState.CLOSED

    report("failure")

    assert breaker.state is BreakerState.OPEN


def test_a_success_never_opens_it():
    """Although it may be the call that makes them enough: the next failure decides."""
    breaker, _, report = make()
    report("failure", "failure", "failure", "success")
    assert breaker.state is BreakerState.CLOSED

    report("failure")

    assert breaker.state is BreakerState.OPEN


def test_rate_forgets_what_is_older_than_the_window():
    """Failures that are ten seconds apart never make half of the calls of ten seconds."""
    breaker, clock, report = make()
    for _ in range(10):
        report("failure", "failure", "failure")
        clock.advance(10.0)

    assert breaker.state is BreakerState.CLOSED


def test_rate_counts_calls_in_flight_like_any_other():
    """Every call has the same weight, whenever it began: that is what min_calls is for."""
    breaker, _, _ = make()
    for permit in [breaker.try_acquire() for _ in range(4)]:
        assert permit.failure(OSError("down"))

    assert breaker.state is BreakerState.OPEN
    assert str(breaker.last_error) == "down"


def test_rate_begins_anew_with_every_generation():
    """After a recovery the calls of the outage are history."""
    breaker, clock, report = make()
    report("failure", "failure", "failure", "failure")
    clock.advance(30.0)
    report("success")
    assert breaker.state is BreakerState.CLOSED

    report("failure", "failure", "failure")

    assert breaker.state is BreakerState.CLOSED


def test_forced_breaker_counts_nothing_for_the_rate_either():
    """What was reported while it was forced is not in the window afterwards."""
    breaker, _, report = make()
    breaker.force_closed()
    report("failure", "success", "failure", "failure", "failure")
    assert breaker.state is BreakerState.CLOSED
    assert not breaker.is_clean


def test_clean_again_when_no_failure_is_in_the_window():
    """Also the registry may drop it then."""
    breaker, clock, report = make()
    report("failure", "success")
    assert (breaker.failures, breaker.is_clean) == (0, False)

    clock.advance(10.0)

    assert breaker.is_clean


def test_window_takes_no_more_memory_for_more_calls():
    """Five thousand calls within one window are a few numbers."""
    _, clock, report = make()
    report("success")
    tracemalloc.start()
    try:
        for _ in range(1000):
            clock.advance(0.001)
            report("success")
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5_000):
            clock.advance(0.001)
            report("success")
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert grown < 10_000


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"fail_max": None}, ValueError, "fail_max is None and so is failure_rate"),
        ({"failure_rate": 0}, ValueError, "failure_rate"),
        ({"failure_rate": 1.01}, ValueError, r"failure_rate .* 1\.01"),
        ({"failure_rate": math.nan}, ValueError, "failure_rate"),
        ({"failure_rate": "half"}, TypeError, "failure_rate"),
        ({"failure_rate": 0.5, "window": 0}, ValueError, "window"),
        ({"failure_rate": 0.5, "min_calls": 0}, ValueError, "min_calls"),
        ({"failure_rate": 0.5, "min_calls": 2.0}, TypeError, "min_calls"),
    ],
)
def test_bad_rates_are_refused_by_name(options, error, text):
    """The message names the option."""
    with pytest.raises(error, match=text):
        BreakerConfig(**options)
