"""What happened, as frozen values; every part that tells of events takes one ``on_event(event)``.

Listeners run with no lock held, in the thread where the event came about; one that raises is logged and harms nobody.
"""

import enum
import logging
from collections.abc import Callable
from typing import Union

import attrs

__all__ = [
    "BreakerChanged",
    "BreakerState",
    "DeadLettered",
    "DeliveryFailed",
    "DeliveryResumed",
    "Event",
    "GaveBack",
    "GiveBackFailed",
    "HandlerFailed",
    "ItemsArrived",
    "ItemsArrivedLate",
    "Listener",
    "PollFailed",
    "PollOverdue",
    "PollTimedOut",
    "Undelivered",
    "notify",
]

log = logging.getLogger("resilience")


class BreakerState(enum.Enum):
    """The three states of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@attrs.frozen
class BreakerChanged:
    """A breaker moved from one state to another; ``retry_after`` is the seconds until its next probe, if open."""

    name: str
    before: BreakerState
    after: BreakerState
    generation: int
    retry_after: float | None = None
    error: BaseException | None = None


@attrs.frozen
class ItemsArrived:
    """A poll of ``source`` brought ``count`` items, asked for ``asked``, after ``duration`` seconds."""

    source: str
    count: int
    asked: int
    duration: float


@attrs.frozen
class ItemsArrivedLate:
    """A poll that had been abandoned brought ``count`` items after all; they are taken in."""

    source: str
    count: int


@attrs.frozen
class PollFailed:
    """A poll of ``source`` raised ``error``."""

    source: str
    error: BaseException


@attrs.frozen
class PollOverdue:
    """A poll of ``source`` has not answered in time; what it was granted is lent to the others."""

    source: str
    granted: int


@attrs.frozen
class PollTimedOut:
    """A poll of ``source`` was abandoned after ``timeout`` seconds; a late answer is still taken in."""

    source: str
    timeout: float


@attrs.frozen
class GaveBack:
    """``count`` items that had not started were returned to ``source``."""

    source: str
    count: int
    reason: str


@attrs.frozen
class GiveBackFailed:
    """``count`` un-started items could not be returned to ``source``; they come back when it times them out."""

    source: str
    count: int
    error: BaseException


@attrs.frozen
class HandlerFailed:
    """The handler raised for an item of ``source``."""

    source: str
    error: BaseException


@attrs.frozen
class DeliveryFailed:
    """A result was not taken; it will be sent again. ``attempt`` counts from 1."""

    destination: str
    key: str
    attempt: int
    error: BaseException


@attrs.frozen
class DeliveryResumed:
    """A destination that had failed took a result."""

    destination: str


@attrs.frozen
class DeadLettered:
    """A result can never be delivered, for ``reason``."""

    destination: str
    key: str
    reason: str


@attrs.frozen
class Undelivered:
    """The process ended its last attempts while this result had not been taken."""

    destination: str
    key: str


Event = Union[  # noqa: UP007 - one name for all, also in annotations of user code
    BreakerChanged,
    ItemsArrived,
    ItemsArrivedLate,
    PollFailed,
    PollOverdue,
    PollTimedOut,
    GaveBack,
    GiveBackFailed,
    HandlerFailed,
    DeliveryFailed,
    DeliveryResumed,
    DeadLettered,
    Undelivered,
]
Listener = Callable[[Event], None]


def notify(listener: Listener | None, event: Event) -> None:
    """Tell ``listener`` of ``event``; call it with no lock held. What it raises is logged, never passed on."""
    if listener is None:
        return
    try:
        listener(event)
    except Exception:  # a listener is somebody else's code: it must not take a poll or a breaker down with it
        log.exception("listener %r raised on %r", listener, event)
