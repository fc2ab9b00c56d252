"""Errors say whose doing it is and carry what comes next, also to another process."""

import math
import pickle
from collections.abc import Callable
from datetime import timedelta

import pytest

from conductor_adapter import ServerSettings, WorkerRunner, worker
from resilience import (
    BreakerOpenError,
    BreakerRegistry,
    CircuitBreaker,
    Destination,
    Incomplete,
    Poller,
    Refused,
    Relay,
    ResilienceError,
    Source,
    Throttled,
    Undeliverable,
)


@pytest.mark.parametrize(
    "error",
    [
        BreakerOpenError("eu", 2.5),
        BreakerOpenError("eu", 2.5, reason="circuit breaker 'eu' is half-open"),
        Throttled(3.0, "slow down"),
        Throttled(),
        Undeliverable("refused"),
        Refused("odd", counts=False),
        Incomplete("half", ["good"]),
    ],
)
def test_error_survives_pickling_with_all_it_carries(error: ResilienceError) -> None:
    """A process pool or a log handler elsewhere sees the same text and the same facts."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_r36_error_of_a_breaker_says_which_state_it_is_in() -> None:
    """Half-open is not open, and what is forced open has no time to try again."""
    half_open = BreakerOpenError("eu", 2.5, reason="circuit breaker 'eu' is half-open and its probe is in flight")

    assert str(half_open) == "circuit breaker 'eu' is half-open and its probe is in flight; try again in 2.5 s"
    assert str(BreakerOpenError("eu", math.inf)) == "circuit breaker 'eu' is open"


def test_r32_pause_that_is_asked_for_may_be_a_timedelta() -> None:
    """It becomes seconds; anything else is refused where it is given."""
    assert Throttled(timedelta(minutes=2)).retry_after == 120.0
    for wrong in ("30", None, True):
        with pytest.raises(TypeError, match="retry_after must be seconds or a timedelta"):
            Throttled(wrong)  # type: ignore[arg-type]


def test_r32_pause_that_nobody_waits_for_is_said_to_be_cut() -> None:
    """Whoever reads the error knows why its source is asked again after an hour."""
    assert str(Throttled(9999999999)).endswith("(of 9999999999 s, limited to 3600 s)")
    assert str(Throttled(3600)) == str(Throttled(math.inf)) == str(Throttled()) == "the other side asks for a pause"


def test_open_breaker_tells_its_name_and_when_to_try_again() -> None:
    """The text alone is enough to know what to do."""
    assert str(BreakerOpenError("eu", 2.5)) == "circuit breaker 'eu' is open; try again in 2.5 s"


@worker("work")
def work() -> None:
    """Does nothing."""


async def hear_later(event: object) -> None:
    """Hears nothing unless it is awaited."""


@pytest.mark.parametrize(
    "make",
    [
        lambda listener: CircuitBreaker("eu", on_event=listener),
        lambda listener: BreakerRegistry(on_event=listener),
        lambda listener: Relay([Destination("eu", print)], on_event=listener),
        lambda listener: Poller([Source("eu", lambda *_: [])], capacity=1, on_event=listener),
        lambda listener: WorkerRunner([work], [ServerSettings("eu", "http://eu/api")], on_event=listener),
    ],
)
def test_r25_a_listener_that_nobody_would_await_is_refused(make: Callable[[object], object]) -> None:
    """It would never hear of anything; nor would a thing that cannot be called."""
    with pytest.raises(TypeError, match="on_event must be a plain function, not the async function"):
        make(hear_later)
    with pytest.raises(TypeError, match="on_event must be a function, not 3"):
        make(3)
