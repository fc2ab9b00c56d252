"""Errors say whose doing it is and carry what comes next, also to another process."""

import pickle

import pytest

from resilience import BreakerOpenError, Incomplete, Refused, ResilienceError, Throttled, Undeliverable


@pytest.mark.parametrize(
    "error",
    [
        BreakerOpenError("eu", 2.5),
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


def test_open_breaker_tells_its_name_and_when_to_try_again() -> None:
    """The text alone is enough to know what to do."""
    assert str(BreakerOpenError("eu", 2.5)) == "circuit breaker 'eu' is open; try again in 2.5 s"
