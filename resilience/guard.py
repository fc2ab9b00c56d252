"""One guarded call: the ``with`` statement and the decorator around a breaker's permits."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from resilience.errors import BreakerOpenError
from resilience.outcomes import Rejected

if TYPE_CHECKING:
    from resilience.breaker import CircuitBreaker, Permit

__all__ = ["Guard", "guarded"]

P = ParamSpec("P")
R = TypeVar("R")


class Guard:
    """What ``CircuitBreaker.guard()`` gives: one call, for one ``with`` statement, in a thread or a coroutine."""

    __slots__ = ("_breaker", "_permit")

    def __init__(self, breaker: "CircuitBreaker") -> None:
        self._breaker = breaker

    def __enter__(self) -> "Permit":
        permit = self._breaker.try_acquire()
        if isinstance(permit, Rejected):
            raise BreakerOpenError(self._breaker.name, permit.retry_after or 0.0)
        self._permit = permit
        return permit

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self._permit.success()
        else:
            self._permit.failure(error)


def guarded(breaker: "CircuitBreaker", function: Callable[P, R]) -> Callable[P, R]:
    """``function``, every call of it guarded by ``breaker``; a coroutine function remains one.

    Raises:
        TypeError: for a generator function: its body runs after the call returned, so guard the body itself.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function!r} is a generator function: its call says nothing yet; use guard() inside it")
    return _guarded_coroutine(breaker, function) if _is_async(function) else _guarded_function(breaker, function)


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _guarded_function(breaker: "CircuitBreaker", function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with breaker.guard():
            return function(*args, **kwargs)

    return call


def _guarded_coroutine(breaker: "CircuitBreaker", function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> object:
        with breaker.guard():
            return await cast("Awaitable[object]", function(*args, **kwargs))

    return cast("Callable[P, R]", call)
