"""The outcome of one call: exactly one of value, failed, timed out, rejected, cancelled."""

from typing import Generic, TypeVar

import attrs

__all__ = ["Cancelled", "Failed", "Outcome", "Rejected", "TimedOut", "Value"]

T_co = TypeVar("T_co", covariant=True)


@attrs.frozen
class Value(Generic[T_co]):
    """The call returned.

    Attributes:
        value: the returned value.
        duration: seconds that it ran.
    """

    value: T_co
    duration: float = attrs.field(default=0.0, eq=False)


@attrs.frozen
class Failed:
    """The call raised.

    Attributes:
        error: the raised exception.
        duration: seconds that it ran.
    """

    error: BaseException
    duration: float = attrs.field(default=0.0, eq=False)


@attrs.frozen
class TimedOut:
    """The call had not ended when its timeout expired; it might still be running.

    Attributes:
        timeout: the timeout in seconds.
    """

    timeout: float


@attrs.frozen
class Rejected:
    """The call never ran. Falsy, so that ``if permit := breaker.try_acquire()`` reads well.

    Attributes:
        reason: the reason, for people.
        retry_after: seconds until it makes sense to try again; None if unknown.
    """

    reason: str
    retry_after: float | None = None

    def __bool__(self) -> bool:
        return False


@attrs.frozen
class Cancelled:
    """The call was cancelled, which tells nothing about the other side.

    Attributes:
        duration: seconds that it ran.
    """

    duration: float = attrs.field(default=0.0, eq=False)


Outcome = Value[T_co] | Failed | TimedOut | Rejected | Cancelled
