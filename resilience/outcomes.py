"""What one call came to: exactly one of value, failed, timed out, rejected, cancelled."""

from typing import Generic, TypeVar

import attrs

__all__ = ["Cancelled", "Failed", "Outcome", "Rejected", "TimedOut", "Value"]

T_co = TypeVar("T_co", covariant=True)


@attrs.frozen
class Value(Generic[T_co]):
    """The call returned.

    Attributes:
        value: what it returned.
        duration: seconds it ran.
    """

    value: T_co
    duration: float = attrs.field(default=0.0, eq=False)


@attrs.frozen
class Failed:
    """The call raised.

    Attributes:
        error: what it raised.
        duration: seconds it ran.
    """

    error: BaseException
    duration: float = attrs.field(default=0.0, eq=False)


@attrs.frozen
class TimedOut:
    """The call had not ended when its timeout was over; it may still be running.

    Attributes:
        timeout: the seconds it was given.
    """

    timeout: float


@attrs.frozen
class Rejected:
    """The call never ran. Falsy, so that ``if permit := breaker.try_acquire()`` reads well.

    Attributes:
        reason: why not, in words.
        retry_after: seconds until it makes sense to try again; None when no time is known.
    """

    reason: str
    retry_after: float | None = None

    def __bool__(self) -> bool:
        return False


@attrs.frozen
class Cancelled:
    """The call was cancelled: this says nothing about the other side.

    Attributes:
        duration: seconds it ran.
    """

    duration: float = attrs.field(default=0.0, eq=False)


Outcome = Value[T_co] | Failed | TimedOut | Rejected | Cancelled
