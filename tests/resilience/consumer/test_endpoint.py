"""What a consumer is told, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest

from resilience import Consumer, ConsumerConfig, Endpoint, PollConfig, Work


def poll(count: int, wait: float) -> list[str]:
    """Bring nothing."""
    del count, wait
    return []


def send(answer: object, timeout: float) -> None:
    """Take it."""
    del answer, timeout


def other(answer: object, timeout: float) -> None:
    """Take it elsewhere."""
    del answer, timeout


EU = Endpoint("eu", poll=poll, send=send)


def handle(_: object) -> None:
    """Answer nothing."""


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "none": (lambda: Consumer([]), ValueError, "there is none"),
    "a lone endpoint": (
        lambda: Consumer(EU),
        TypeError,
        r"a list of Endpoint objects.* of type Endpoint: write \[\.\.\.\]",
    ),  # type: ignore[arg-type]
    "a name": (lambda: Consumer(["eu"]), TypeError, "not 'eu' of type str among them"),  # type: ignore[list-item]
    "both": (lambda: Consumer([EU, Work("w", handle, [EU], 1)]), TypeError, "of type Work among them"),  # type: ignore[list-item]
    "two of one name": (lambda: Consumer([EU, EU]), ValueError, "two endpoints are called 'eu': their shares and"),
    "two that send elsewhere": (
        lambda: Consumer([Work("v", handle, [EU], 1), Work("w", handle, [Endpoint("eu", poll=poll, send=other)], 1)]),
        ValueError,
        "two endpoints are called 'eu' and differ in how they send",
    ),
    "a lone endpoint of work": (lambda: Work("w", handle, EU, 1), TypeError, r"list of Endpoint .*: write \[\.\.\.\]"),  # type: ignore[arg-type]
    "a name among endpoints": (lambda: Work("w", handle, ["eu"], 1), TypeError, "not 'eu' of type str among them"),  # type: ignore[list-item]
    "work without endpoints": (lambda: Work("w", handle, [], 1), ValueError, "endpoints of work 'w' .*; there is none"),
    "an outbox": (lambda: Consumer([EU], outbox=3), TypeError, "outbox, if it is not a path, must be a Store"),  # type: ignore[arg-type]
    "two kinds of work": (
        lambda: Consumer([Work("w", handle, [EU], 1), Work("w", handle, [EU], 1)]),
        ValueError,
        "two kinds of work are called 'w'",
    ),
    "a config": (lambda: Consumer([EU], config=PollConfig()), TypeError, "config must be a ConsumerConfig, not"),  # type: ignore[arg-type]
    "a part of a config": (lambda: ConsumerConfig(poll=3), TypeError, "poll must be a PollConfig, not 3 of type int"),  # type: ignore[arg-type]
    "an option of a part": (
        lambda: ConsumerConfig(poll_wait=1.0),  # type: ignore[call-arg]
        TypeError,
        r"write poll=PollConfig\(poll_wait=1\.0\)",
    ),
    "a listener": (lambda: Consumer([EU], on_event=3), TypeError, "on_event must be a function"),  # type: ignore[arg-type]
    "a lease alone": (
        lambda: Endpoint("eu", poll=poll, send=send, lease=lambda _: 1.0),
        ValueError,
        "has lease and no",
    ),
    "a weight": (lambda: Endpoint("eu", poll=poll, send=send, weight=0), ValueError, "weight"),
    "no capacity": (lambda: Work("w", handle, [EU], 0), ValueError, "capacity must be a whole number of at least 1"),
    "a send": (lambda: Endpoint("eu", poll=poll, send=3), TypeError, "send of destination 'eu' must be a function"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_with_what_to_write(case: str) -> None:
    """Before anything runs."""
    make, error, said = REFUSED[case]

    with pytest.raises(error, match=said):
        make()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs a handler and a capacity"),
        ({"handler": handle}, "needs a handler and a capacity"),
        ({"handler": 3, "capacity": 1}, "handler must be a function"),
    ],
)
def test_start_says_what_it_needs(arguments: dict[str, Any], said: str) -> None:
    """A consumer of endpoints needs a handler and a capacity, and can still be started after an error."""
    consumer = Consumer([EU])
    with pytest.raises(TypeError, match=said):
        consumer.start(**arguments)

    with consumer:
        consumer.start(handle, capacity=1)


def test_kinds_of_work_are_started_without_a_handler() -> None:
    """They have handlers."""
    consumer = Consumer([Work("w", handle, [EU], 1)])

    with pytest.raises(TypeError, match="several kinds of Work, each with its handler and capacity"):
        consumer.start(handle, capacity=1)
