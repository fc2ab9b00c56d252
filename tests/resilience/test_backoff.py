"""Backoff: growing, jittered, hinted by the other side."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.backoff import Backoff

POSITIVE = st.floats(min_value=1e-6, max_value=1e6)


def test_pauses_double_up_to_the_maximum():
    """Without jitter the pauses are initial, doubled, and then the maximum."""
    backoff = Backoff(initial=0.05, maximum=1.0, jitter=0)

    assert [backoff.delay(n, rng=random.Random(0)) for n in range(1, 8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@given(
    initial=POSITIVE,
    more=st.floats(min_value=1, max_value=1e6),
    factor=st.floats(min_value=1, max_value=1e3),
    jitter=st.floats(min_value=0, max_value=1),
    attempt=st.integers(min_value=1, max_value=10**9),
)
def test_every_pause_is_within_its_bounds(initial, more, factor, jitter, attempt):
    """A pause is at most the maximum, and at most the jitter's part below what it grew to; no attempt overflows."""
    backoff = Backoff(initial, initial * more, factor=factor, jitter=jitter)
    grown = Backoff(initial, initial * more, factor=factor, jitter=0).delay(attempt, rng=random.Random(attempt))

    pause = backoff.delay(attempt, rng=random.Random(attempt))

    assert initial <= grown <= initial * more
    assert grown * (1 - jitter) <= pause <= grown


def test_hint_is_the_least_pause():
    """The other side's wish lengthens a pause, also past the maximum, and never shortens it."""
    backoff = Backoff(initial=1.0, maximum=2.0, jitter=0)

    assert backoff.delay(1, rng=random.Random(0), hint=60.0) == 60.0
    assert backoff.delay(1, rng=random.Random(0), hint=0.1) == 1.0


def test_r32_hint_is_capped():
    """Nobody who asks for three hundred years gets more than an hour, or what the rule says."""
    for options, longest in (({}, 3600.0), ({"max_retry_after": 60}, 60.0)):
        backoff = Backoff(initial=1.0, maximum=2.0, jitter=0, **options)
        assert backoff.delay(1, rng=random.Random(0), hint=9999999999.0) == longest


@pytest.mark.parametrize("hint", [float("nan"), float("inf"), float("-inf")])
def test_hint_that_is_no_time_is_ignored(hint):
    """A server cannot stop a client for ever."""
    assert Backoff(initial=1.0, maximum=2.0, jitter=0).delay(1, rng=random.Random(0), hint=hint) == 1.0


def test_one_draw_a_pause():
    """Exactly one random number is used for a pause, so that seeded runs can be repeated."""
    used, expected = random.Random(7), random.Random(7)
    Backoff(initial=1.0, maximum=2.0).delay(3, rng=used)
    expected.random()

    assert used.random() == expected.random()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"initial": 0, "maximum": 1}, ValueError, "initial"),
        ({"initial": 1, "maximum": float("nan")}, ValueError, "maximum"),
        ({"initial": True, "maximum": 1}, ValueError, "initial"),
        ({"initial": "1", "maximum": 1}, TypeError, "initial"),
        ({"initial": 2, "maximum": 1}, ValueError, "maximum .* is below initial"),
        ({"initial": 1, "maximum": 1, "factor": 0.5}, ValueError, "factor"),
        ({"initial": 1, "maximum": 1, "jitter": 1.5}, ValueError, "jitter"),
        ({"initial": 1, "maximum": 1, "jitter": -0.1}, ValueError, "jitter"),
    ],
)
def test_bad_options_are_refused_by_name(options, error, text):
    """The message names the option."""
    with pytest.raises(error, match=text):
        Backoff(**options)


def test_attempts_count_from_one():
    """There is no pause before the first attempt."""
    with pytest.raises(ValueError, match="count from 1"):
        Backoff(initial=1, maximum=1).delay(0, rng=random.Random(0))
