"""What happened, as frozen values; every part that tells of events takes one ``on_event(event)``.

Listeners run with no lock held, in the thread where the event came about. What one raises is logged and goes no
further, `SystemExit` included; but for the main thread, see `notify`.
"""

import enum
import logging
import threading
from collections.abc import Callable
from typing import TypeVar, Union

import attrs

__all__ = [
    "BacklogDrained",
    "BacklogFull",
    "BreakerChanged",
    "BreakerState",
    "DeadLettered",
    "DeliveryFailed",
    "DeliveryRefused",
    "DeliveryResumed",
    "Event",
    "GaveBack",
    "GiveBackFailed",
    "HandlerFailed",
    "ItemsArrived",
    "ItemsArrivedLate",
    "LeaseGivenUp",
    "LeaseLost",
    "Listener",
    "OutboxFailed",
    "OutboxResumed",
    "PollFailed",
    "PollOverdue",
    "PollTimedOut",
    "RowsKept",
    "SurplusArrived",
    "ThreadUnavailable",
    "Undelivered",
    "ends_program",
    "notify",
]

log = logging.getLogger("resilience")

E = TypeVar("E")


class BreakerState(enum.Enum):
    """The three states of a circuit breaker: calls go through, none does, one probe at a time does."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@attrs.frozen
class BreakerChanged:
    """A breaker moved from one state to another.

    Attributes:
        name: the breaker's.
        before: its state so far.
        after: its state from now on.
        generation: how many times its state has changed or was set, this time included.
        retry_after: seconds until its next probe, if it is open now; ``inf`` if it was forced open.
        error: the counted failure that opened it, if one did.
        calls: what its calls are, where one name has several breakers.
    """

    name: str
    before: BreakerState
    after: BreakerState
    generation: int
    retry_after: float | None = None
    error: BaseException | None = None
    calls: str | None = None


@attrs.frozen
class ItemsArrived:
    """A poll of ``source`` brought ``count`` items, asked for ``asked``, after ``duration`` seconds."""

    source: str
    count: int
    asked: int
    duration: float


@attrs.frozen
class ItemsArrivedLate:
    """A poll of ``source`` that had been abandoned brought ``count`` items after all; they are taken in."""

    source: str
    count: int


@attrs.frozen
class SurplusArrived:
    """A poll of ``source`` brought ``count`` items though ``asked`` were asked for; the surplus goes back.

    Told at the first such poll of a source alone; each surplus that goes back is in a `GaveBack`.
    """

    source: str
    count: int
    asked: int


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
    """``count`` items that had not started were returned to ``source``, for the ``reason`` that the words say."""

    source: str
    count: int
    reason: str


@attrs.frozen
class GiveBackFailed:
    """``count`` un-started items could not be returned to ``source``, because of ``error``.

    They come back when their source times them out, if it does such a thing.
    """

    source: str
    count: int
    error: BaseException


@attrs.frozen
class LeaseLost:
    """The lease of an item of ``source`` is over, and it could not be extended; somebody else may be given the item.

    An item that runs goes on; one that has not started is dropped (``Tally.dropped``).

    Attributes:
        source: where the item came from.
        value: the item's value; not shown.
        error: what came of the last attempt to extend its lease.
    """

    source: str
    value: object = attrs.field(repr=False)
    error: BaseException


@attrs.frozen
class LeaseGivenUp:
    """The lease of an item of ``source`` was extended for ``max_lease`` seconds and is not extended any more.

    The item goes on; when its lease is over, somebody else may be given it.

    Attributes:
        source: where the item came from.
        value: the item's value; not shown.
        max_lease: seconds since it arrived.
    """

    source: str
    value: object = attrs.field(repr=False)
    max_lease: float


@attrs.frozen
class ThreadUnavailable:
    """The system had no thread for ``purpose``; what it was for is tried again, and not reported until it worked.

    Attributes:
        source: whose poll or item it was for.
        purpose: ``a poll`` or ``a unit``.
        reason: what the system said.
    """

    source: str
    purpose: str
    reason: str


@attrs.frozen
class HandlerFailed:
    """The handler raised ``error`` for an item of ``source``; the item is done, and its unit is free."""

    source: str
    error: BaseException


@attrs.frozen
class DeliveryFailed:
    """A result was not taken; it will be sent again.

    Attributes:
        destination: where it was to go.
        key: the result's.
        attempt: how many attempts to send this result have failed, counted from 1.
        error: what came of this one.
    """

    destination: str
    key: str
    attempt: int
    error: BaseException


@attrs.frozen
class DeliveryRefused:
    """A destination that is well does not take this result (`Refused`, not counted); it will be sent again.

    Attributes:
        destination: where it was to go.
        key: the result's.
        attempt: how many attempts to send this result have failed, counted from 1.
        error: what came of this one.
    """

    destination: str
    key: str
    attempt: int
    error: BaseException


@attrs.frozen
class DeliveryResumed:
    """``destination`` had failed and answers again."""

    destination: str


@attrs.frozen
class DeadLettered:
    """A result was given up: it is a dead letter now.

    Attributes:
        destination: where it was to go.
        key: the result's.
        reason: why, for people.
        payload: the result itself; not shown.
        error: `Undeliverable`, as the destination will never take it; `Refused`, as it was refused for too long; None
            for a result of a former process that cannot be read.
    """

    destination: str
    key: str
    reason: str
    payload: object = attrs.field(default=None, repr=False)
    error: Exception | None = None


@attrs.frozen
class BacklogFull:
    """So many results wait for ``destination`` that it should be given no more work: ``waiting`` of them."""

    destination: str
    waiting: int


@attrs.frozen
class BacklogDrained:
    """Half of the results that made ``destination``'s backlog full are gone: it may have work again."""

    destination: str


@attrs.frozen
class OutboxFailed:
    """Results for ``destination`` cannot be written down because of ``error``: they are kept in memory and sent.

    It should have no more work until ``OutboxResumed``: what that brings would be lost with the process.
    """

    destination: str
    error: Exception


@attrs.frozen
class OutboxResumed:
    """No result for ``destination`` is unwritten any more: written down after all, or delivered."""

    destination: str


@attrs.frozen
class RowsKept:
    """``count`` results of a former process wait for a ``destination`` with an ``identity`` that is not served here.

    They are kept until it is, by whatever process.
    """

    destination: str
    identity: str
    count: int


@attrs.frozen
class Undelivered:
    """The last attempts are over, ``destination`` has not taken the result called ``key``, and it is in no outbox."""

    destination: str
    key: str


Event = Union[  # noqa: UP007 - one name for all, also in annotations of user code
    BreakerChanged,
    ItemsArrived,
    ItemsArrivedLate,
    SurplusArrived,
    PollFailed,
    PollOverdue,
    PollTimedOut,
    GaveBack,
    GiveBackFailed,
    LeaseLost,
    LeaseGivenUp,
    ThreadUnavailable,
    HandlerFailed,
    DeliveryFailed,
    DeliveryRefused,
    DeliveryResumed,
    DeadLettered,
    BacklogFull,
    BacklogDrained,
    OutboxFailed,
    OutboxResumed,
    RowsKept,
    Undelivered,
]
Listener = Callable[[Event], None]


def notify(listener: Callable[[E], None] | None, event: E) -> None:
    """Tell ``listener`` of ``event``; call it with no lock held. What it raises is logged and not passed on.

    The exception is what ends the program in the main thread: `KeyboardInterrupt`, `SystemExit` and every other
    `BaseException` that is not an `Exception` may come out of a signal handler there, so it is passed on.
    """
    if listener is None:
        return
    try:
        listener(event)
    except BaseException as error:  # a listener must not take a poll, a breaker or a thread down with it
        if ends_program(error):
            raise
        log.exception("listener %r raised on %r", listener, event)


def ends_program(error: BaseException) -> bool:
    """Whether ``error``, just caught, is to end the program: not an `Exception`, and raised in the main thread."""
    return not isinstance(error, Exception) and threading.current_thread() is threading.main_thread()
