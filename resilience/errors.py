"""What can go wrong, and whose doing it is: one root and its few children."""

import math
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

__all__ = [
    "MAX_RETRY_AFTER",
    "AnswerTooLarge",
    "BreakerOpenError",
    "Incomplete",
    "OutboxError",
    "Refused",
    "ResilienceError",
    "Throttled",
    "Undeliverable",
]

MAX_RETRY_AFTER = 3600.0
"""Seconds for which the other side can ask to be left alone (Retry-After), unless a configuration says otherwise."""


class ResilienceError(Exception):
    """Root of every error this package raises on its own account. They can be pickled, whatever they carry can."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[ResilienceError], args: tuple[Any, ...], facts: dict[str, Any]) -> ResilienceError:
    """An error as it was; its constructor takes other arguments than those that Python would repeat."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class BreakerOpenError(ResilienceError):
    """The breaker did not let the call run: the other side was failing, your call is not at fault.

    Attributes:
        name: the breaker that said no.
        retry_after: seconds until it makes sense to ask again; ``inf`` while it is forced open.

    Args:
        name: the breaker's.
        retry_after: seconds.
        reason: why, in words, such as the ``reason`` of a ``Rejected``; by default that it is open.
    """

    def __init__(self, name: str, retry_after: float, *, reason: str = "") -> None:
        why = reason or f"circuit breaker {name!r} is open"
        super().__init__(f"{why}; try again in {retry_after:.3g} s" if math.isfinite(retry_after) else why)
        self.name = name
        self.retry_after = retry_after


class AnswerTooLarge(ResilienceError):  # noqa: N818 - says what the answer was
    """Raised by a source whose answer was larger than it reads: the failure counts, and the next poll asks for less.

    It asks for half as many values, down to one, and for one more after some full answers.
    """


class Incomplete(ResilienceError):  # noqa: N818 - says what the answer was
    """Raised by a source whose answer was damaged: its good part is taken in, and the failure counts.

    Attributes:
        values: the good part.
    """

    def __init__(self, message: str, values: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.values = values


class OutboxError(ResilienceError):
    """An outbox cannot be used, or what was to be written was not; the text says why and what to do.

    Attributes:
        path: the file.
        lost: what was written there before is not to be found any more, as the file is gone or damaged.
    """

    def __init__(self, message: str, path: os.PathLike[str], *, lost: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.lost = lost


class Refused(ResilienceError):  # noqa: N818 - says what the answer was
    """Raised by a destination that answered and did not take a result, but did not say that it never will.

    The result is sent again. It becomes a dead letter only when it has been refused for ``RelayConfig.refused_for``
    seconds while the destination took other results: before that, the fault may be the destination's.

    Attributes:
        counts: whether the refusal is a failure of the destination. False: only this result is refused.
    """

    def __init__(self, message: str, *, counts: bool = True) -> None:
        super().__init__(message)
        self.counts = counts


class Throttled(ResilienceError):  # noqa: N818 - the design's name: it is a request to wait, not a fault
    """Raised by a source or a destination that asks for a pause: it waits, and nothing counts against it.

    Attributes:
        retry_after: seconds to leave it alone; 0 leaves the length of the pause to the caller's backoff. No pause is
            longer than an hour, however much is asked for; the text says so then.

    Args:
        retry_after: seconds, or a ``timedelta``.
        message: the text of the error.

    Raises:
        TypeError: ``retry_after`` is neither.
    """

    def __init__(self, retry_after: float | timedelta = 0.0, message: str = "the other side asks for a pause") -> None:
        seconds = retry_after.total_seconds() if isinstance(retry_after, timedelta) else retry_after
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(
                f"retry_after must be seconds or a timedelta, not {retry_after!r} of type "
                f"{type(retry_after).__name__}: convert it first"
            )
        seconds = float(max(-sys.float_info.max, min(seconds, sys.float_info.max))) if type(seconds) is int else seconds
        if MAX_RETRY_AFTER < seconds < math.inf:
            message = f"{message} (of {seconds:.10g} s, which is cut to {MAX_RETRY_AFTER:.0f} s)"
        super().__init__(message)
        self.retry_after = seconds


class Undeliverable(ResilienceError):  # noqa: N818 - the design's name
    """Raised by a destination that will certainly never take this result: it becomes a dead letter at once.

    Raise `Refused` where that is not certain.

    Attributes:
        reason: why, for the person who looks at the dead letter.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
