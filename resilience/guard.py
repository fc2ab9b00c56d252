"""One guarded call: the ``with`` statement and the decorator around a breaker's permits.

It also records the probes that a call runs under. While a breaker is half-open its probe is the only call, so calls
that it makes in turn must not ask for another probe: they would wait for themselves. A context variable holds the
probes; it reaches coroutines, tasks and the calls of a fan-out, which run in copies of the context. Copies survive the
call, so probes that were reported or have expired are ignored.
"""

import contextlib
import contextvars
import functools
import inspect
import types
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from resilience._checks import DATA, is_async
from resilience.errors import BreakerOpenError
from resilience.outcomes import Rejected, Value

if TYPE_CHECKING:
    from resilience.breaker import CircuitBreaker, Permit

__all__ = ["Guard", "guarded", "held", "hold", "let_go"]

P = ParamSpec("P")
R = TypeVar("R")

_probes: "contextvars.ContextVar[tuple[Permit, ...]]" = contextvars.ContextVar("probes", default=())


def hold(permit: "Permit") -> None:
    """Let calls from here on run under the probe ``permit``."""
    _probes.set((*(one for one in _probes.get() if one.unreported), permit))


def let_go(permit: "Permit") -> None:
    """Undo ``hold`` for calls from here on; valid in another context too."""
    _probes.set(tuple(one for one in _probes.get() if one is not permit))


def held() -> "tuple[Permit, ...]":
    """The probes that this call runs under; some might have ended."""
    return _probes.get()


class Guard:
    """The result of ``CircuitBreaker.guard()``: for one call in one ``with`` statement, in a thread or a coroutine."""

    __slots__ = ("_breaker", "_permit")

    def __init__(self, breaker: "CircuitBreaker") -> None:
        self._breaker = breaker

    def __enter__(self) -> "Permit":
        permit = self._breaker.try_acquire()
        if isinstance(permit, Rejected):
            raise BreakerOpenError(self._breaker.name, permit.retry_after or 0.0, reason=permit.reason)
        self._permit = permit
        if permit._era.expiry is not None:  # noqa: SLF001 - permit.probe, without a call
            hold(permit)
        return permit

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        permit = self._permit
        if error is None:
            permit.success()
        else:
            permit.failure(error)
        if permit._era.expiry is not None:  # noqa: SLF001 - permit.probe, without a call
            let_go(permit)


def guarded(breaker: "CircuitBreaker", function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with every call guarded by ``breaker``; a coroutine function remains one.

    Raises:
        TypeError: ``function`` is a generator function, or a context manager made from one, whose body runs after the
            call has returned.
    """
    _refuse_lazy(function)
    awaited = is_async(function) or inspect.iscoroutinefunction(function)  # the latter also knows marked ones
    return _guarded_coroutine(breaker, function) if awaited else _guarded_function(breaker, function)


def _guarded_function(breaker: "CircuitBreaker", function: Callable[P, R]) -> Callable[P, R]:
    judges = breaker.config.counts is not None

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with breaker.guard() as permit:
            value = function(*args, **kwargs)
            if type(value) not in DATA and _has_not_run(value):
                permit.release()
                raise _not_yet(function, value)
            if judges:
                permit.report(Value(value))
            return value

    return call


def _guarded_coroutine(breaker: "CircuitBreaker", function: Callable[P, R]) -> Callable[P, R]:
    judges = breaker.config.counts is not None

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> object:
        with breaker.guard() as permit:
            value = await cast("Awaitable[object]", function(*args, **kwargs))
            if type(value) not in DATA and _has_not_run(value):
                permit.release()
                raise _not_yet(function, value)
            if judges:
                permit.report(Value(value))
            return value

    return cast("Callable[P, R]", call)


def _has_not_run(value: object) -> bool:
    """Whether ``value`` is work that has not run yet: an awaitable, or something from a generator."""
    kind = type(value)
    return kind in _NAMES or hasattr(kind, "__await__")


def _not_yet(function: Callable[..., object], value: object) -> TypeError:
    """The error for ``value``, which ``function`` returned and which has not run yet."""
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns that it was never awaited
    return TypeError(
        f"{function!r} returned {_NAMES.get(type(value), 'an awaitable')}, which has not run yet, so the breaker "
        f"cannot see how it goes: {_INSTEAD}"
    )


_manager = contextlib.contextmanager(iter)  # any generator function would do
_async_manager = contextlib.asynccontextmanager(cast("Any", iter))
_INSTEAD = "decorate the function that does the work, or use `with breaker.guard():` around the work itself"
_NAMES: dict[type, str] = {
    types.GeneratorType: "a generator",
    types.AsyncGeneratorType: "an asynchronous generator",
    type(_manager(())): "a context manager made of a generator",
    type(_async_manager(())): "a context manager made of a generator",
}
_MANAGERS = (cast("Any", _manager).__code__, cast("Any", _async_manager).__code__)


def _refuse_lazy(function: Callable[..., object]) -> None:
    plain = function.func if isinstance(function, functools.partial) else function
    for one in (plain, getattr(type(plain), "__call__", None)):  # noqa: B004 - its class may define it as a generator
        if inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one):
            raise TypeError(
                f"{function!r} is a generator function: its body runs after its call has returned, so the breaker "
                f"cannot see how it goes; use guard() inside it: {_INSTEAD}"
            )
    if getattr(plain, "__code__", None) in _MANAGERS:
        raise TypeError(
            f"{function!r} is a context manager made of a generator: its body runs after its call has returned; use "
            f"guard() inside it: {_INSTEAD}"
        )
