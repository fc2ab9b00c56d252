"""Events as frozen values; every component that emits events accepts an ``on_event(event)`` callback.

Listeners run with no lock held, in the thread where the event occurred. An exception that one raises is logged and not
propagated, `SystemExit` included; for the exception in the main thread, see `notify`.
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
    """The three states of a circuit breaker: all calls are permitted, none is, one probe at a time is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@attrs.frozen
class BreakerChanged:
    """A breaker moved from one state to another.

    Attributes:
        name: the name of the breaker.
        before: its old state.
        after: its new state.
        generation: number of times its state has changed or was set, including this one.
        retry_after: seconds until its next probe, if it is open now; ``inf`` if it was forced open.
        error: the counted failure that opened it, if any.
        calls: the kind of its calls, where several breakers have the same name.
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
    """A poll of ``source`` for ``asked`` items returned ``count`` of them after ``duration`` seconds."""

    source: str
    count: int
    asked: int
    duration: float


@attrs.frozen
class ItemsArrivedLate:
    """An abandoned poll of ``source`` returned ``count`` items after all; they will be handled."""

    source: str
    count: int


@attrs.frozen
class SurplusArrived:
    """A poll of ``source`` returned ``count`` items though ``asked`` were requested; the surplus is given back.

    Emitted only for the first such poll of a source; each surplus that is given back is in a `GaveBack`.
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
    """A poll of ``source`` has not been answered in time; the ``granted`` units are lent to the other sources."""

    source: str
    granted: int


@attrs.frozen
class PollTimedOut:
    """A poll of ``source`` was abandoned after ``timeout`` seconds; a late answer will still be used."""

    source: str
    timeout: float


@attrs.frozen
class GaveBack:
    """``count`` items that had not started were returned to ``source``; ``reason`` is for people."""

    source: str
    count: int
    reason: str


@attrs.frozen
class GiveBackFailed:
    """``count`` un-started items could not be returned to ``source``, because of ``error``.

    They can be polled again once their source times them out, if it does so.
    """

    source: str
    count: int
    error: BaseException


@attrs.frozen
class LeaseLost:
    """The lease of an item of ``source`` has ended, because it could not be extended; another client might get it.

    A running item continues; one that has not started is dropped (``Tally.dropped``).

    Attributes:
        source: the source of the item.
        value: the item's value; not shown in ``repr``.
        error: the error of the last attempt to extend the lease.
    """

    source: str
    value: object = attrs.field(repr=False)
    error: BaseException


@attrs.frozen
class LeaseGivenUp:
    """The lease of an item of ``source`` was extended for ``max_lease`` seconds and is not extended any more.

    The item continues; when its lease ends, another client might get it.

    Attributes:
        source: the source of the item.
        value: the item's value; not shown in ``repr``.
        max_lease: seconds since it arrived.
    """

    source: str
    value: object = attrs.field(repr=False)
    max_lease: float


@attrs.frozen
class ThreadUnavailable:
    """The system could not start a thread for ``purpose``; it is tried again, and reported again only after a success.

    Attributes:
        source: the source whose poll or item it was for.
        purpose: ``a poll`` or ``a unit``.
        reason: the system's error message.
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
    """A result could not be delivered; it will be sent again.

    Attributes:
        destination: the name of the destination.
        key: the key of the result.
        attempt: number of attempts to send this result that have failed, from 1.
        error: the error of this attempt.
    """

    destination: str
    key: str
    attempt: int
    error: BaseException


@attrs.frozen
class DeliveryRefused:
    """A healthy destination did not accept this result (`Refused`, not counted); it will be sent again.

    Attributes:
        destination: the name of the destination.
        key: the key of the result.
        attempt: number of attempts to send this result that have failed, from 1.
        error: the error of this attempt.
    """

    destination: str
    key: str
    attempt: int
    error: BaseException


@attrs.frozen
class DeliveryResumed:
    """``destination`` had failed and is answering again."""

    destination: str


@attrs.frozen
class DeadLettered:
    """A result was given up: it is a dead letter now.

    Attributes:
        destination: the name of the destination.
        key: the key of the result.
        reason: the reason, for people.
        payload: the result itself; not shown in ``repr``.
        error: `Undeliverable` if the destination will never accept it; `Refused` if it was refused for too long; None
            for a result of an earlier process that cannot be read.
    """

    destination: str
    key: str
    reason: str
    payload: object = attrs.field(default=None, repr=False)
    error: Exception | None = None


@attrs.frozen
class BacklogFull:
    """The backlog of ``destination`` reached its limit, ``waiting`` results: it should get no more work."""

    destination: str
    waiting: int


@attrs.frozen
class BacklogDrained:
    """The backlog of ``destination`` has halved since it was full: it can get work again."""

    destination: str


@attrs.frozen
class OutboxFailed:
    """Results for ``destination`` cannot be stored because of ``error``: they are kept in memory and sent from there.

    It should get no more work until ``OutboxResumed``: the results would be lost if the process ended.
    """

    destination: str
    error: Exception


@attrs.frozen
class OutboxResumed:
    """All results for ``destination`` are stored again, or delivered."""

    destination: str


@attrs.frozen
class RowsKept:
    """``count`` results of an earlier process are waiting for a ``destination`` whose ``identity`` is not served here.

    They remain stored until a process serves it.
    """

    destination: str
    identity: str
    count: int


@attrs.frozen
class Undelivered:
    """The result with this ``key`` is lost: ``destination`` has not accepted it, and it could not be stored."""

    destination: str
    key: str


Event = Union[  # noqa: UP007 - one name for all, usable in annotations of user code too
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
    """Call ``listener`` with ``event``; no lock must be held. An exception that it raises is logged, not propagated.

    The only exceptions that propagate are those that end the program in the main thread: `KeyboardInterrupt`,
    `SystemExit` and every other `BaseException` that is not an `Exception` might come from a signal handler there.
    """
    if listener is None:
        return
    try:
        listener(event)
    except BaseException as error:  # a listener's error must not break a poll, a breaker or a thread
        if ends_program(error):
            raise
        log.exception("listener %r raised on %r", listener, event)


def ends_program(error: BaseException) -> bool:
    """Whether ``error``, just caught, should end the program: not an `Exception`, and raised in the main thread."""
    return not isinstance(error, Exception) and threading.current_thread() is threading.main_thread()
