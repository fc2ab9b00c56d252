"""The exceptions of this package, with one root class."""

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
"""The longest pause in seconds that the other side can ask for (Retry-After), unless configured otherwise."""


class ResilienceError(Exception):
    """Base class of all errors that this package defines. They can be pickled if their attributes can."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[ResilienceError], args: tuple[Any, ...], facts: dict[str, Any]) -> ResilienceError:
    """The unpickled error; its constructor does not accept the arguments that Python would pass by default."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class BreakerOpenError(ResilienceError):
    """The breaker did not permit the call: the other side was failing; the call itself is not at fault.

    Attributes:
        name: the name of the breaker.
        retry_after: seconds until it makes sense to ask again; ``inf`` while the breaker is forced open.

    Args:
        name: the name of the breaker.
        retry_after: seconds.
        reason: the reason as a sentence, such as the ``reason`` of a ``Rejected``; by default, that the breaker is
            open.
    """

    def __init__(self, name: str, retry_after: float, *, reason: str = "") -> None:
        why = reason or f"circuit breaker {name!r} is open"
        super().__init__(f"{why}; try again in {retry_after:.3g} s" if math.isfinite(retry_after) else why)
        self.name = name
        self.retry_after = retry_after


class AnswerTooLarge(ResilienceError):  # noqa: N818 - says what the answer was
    """Raised by a source whose answer exceeded its size limit: the failure counts, and the next poll asks for less.

    It asks for half as many values, down to one, and for one more again after several full answers.
    """


class Incomplete(ResilienceError):  # noqa: N818 - says what the answer was
    """Raised by a source whose answer was damaged: its intact part is used, and the failure counts.

    Attributes:
        values: the intact part.
    """

    def __init__(self, message: str, values: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.values = values


class OutboxError(ResilienceError):
    """An outbox cannot be used, or a write has failed; the text says why and what to do.

    Attributes:
        path: the file.
        lost: whether its earlier contents are lost, because the file is gone or damaged.
    """

    def __init__(self, message: str, path: os.PathLike[str], *, lost: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.lost = lost


class Refused(ResilienceError):  # noqa: N818 - says what the answer was
    """Raised by a destination that answered but did not accept a result, and might accept it later.

    The result is sent again. It becomes a dead letter only when it has been refused for ``RelayConfig.refused_for``
    seconds while the destination accepted other results: before that, the destination might be at fault.

    Attributes:
        counts: whether the refusal is a failure of the destination; if False, only this result is at fault.
    """

    def __init__(self, message: str, *, counts: bool = True) -> None:
        super().__init__(message)
        self.counts = counts


class Throttled(ResilienceError):  # noqa: N818 - the design's name: it is a request to wait, not a fault
    """Raised by a source or a destination that asks for a pause; this does not count as a failure.

    Attributes:
        retry_after: seconds to wait; 0 leaves the length of the pause to the caller's backoff. A pause is at most an
            hour; if more was asked for, the text mentions it.

    Args:
        retry_after: seconds, or a ``timedelta``.
        message: the text of the error.

    Raises:
        TypeError: ``retry_after`` is neither a number nor a ``timedelta``.
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
            message = f"{message} (of {seconds:.10g} s, limited to {MAX_RETRY_AFTER:.0f} s)"
        super().__init__(message)
        self.retry_after = seconds


class Undeliverable(ResilienceError):  # noqa: N818 - the design's name
    """Raised by a destination that will certainly never accept this result: it becomes a dead letter at once.

    Raise `Refused` if that is not certain.

    Attributes:
        reason: the reason, for people who inspect the dead letter.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
