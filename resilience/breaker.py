"""CircuitBreaker: stop calling a failing dependency, and test carefully whether it has recovered.

The decisions are in ``circuit.py``; this module adds the lock, the clock, the listeners and pybreaker, whose memory
storage holds the state and whose listeners are called. No lock is held while a guarded call or a listener runs, and a
call through a healthy circuit takes no lock at all.

A decision can be interrupted: by an exception from a signal handler or, in a child process, by a fork while another
thread was deciding. The circuit is then reset: closed, with nothing counted.
"""

import concurrent.futures
import functools
import logging
import math
import os
import random
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Never, NoReturn, ParamSpec, TypeVar

import attrs
import pybreaker

from resilience._checks import check_plain
from resilience.circuit import BreakerConfig, Circuit, Era
from resilience.errors import BreakerOpenError, ResilienceError
from resilience.events import BreakerChanged, BreakerState, notify
from resilience.guard import Guard, guarded, held, hold, let_go
from resilience.outcomes import Failed, Outcome, Rejected, TimedOut, Value

__all__ = ["BreakerConfig", "BreakerState", "CircuitBreaker", "Permit"]

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("resilience")


class Permit:
    """Permission to make one call. Report its outcome exactly once, from any thread.

    A report returns whether it was in time. It was not if it is a second report, if the call began before the breaker
    last changed its state, or if a probe's permit has expired; such a report changes nothing.
    """

    __slots__ = ("_breaker", "_era", "_unreported")

    def __init__(self, breaker: "CircuitBreaker", era: Era) -> None:
        self._breaker = breaker
        self._era = era
        self._unreported = True

    @property
    def generation(self) -> int:
        """The breaker's count of state changes when this permit was granted."""
        return self._era.generation

    @property
    def probe(self) -> bool:
        """Whether this is a trial call of a half-open breaker."""
        return self._era.expiry is not None

    @property
    def expiry(self) -> float | None:
        """The clock time until which a probe's report is accepted; None for an ordinary call."""
        return self._era.expiry

    @property
    def unreported(self) -> bool:
        """Whether no report has been made yet."""
        return hasattr(self, "_unreported")

    def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``call``; if this is a probe, calls that it makes through the same breaker run under this permit.

        ``guard()``, the decorator and the fan-out do this themselves. Nothing is reported.
        """
        if not self.probe:
            return call(*args, **kwargs)
        hold(self)
        try:
            return call(*args, **kwargs)
        finally:
            let_go(self)

    def report(self, outcome: Outcome[object]) -> bool:
        """Report the outcome of the call; return whether the report was in time.

        A value is a success (unless ``BreakerConfig.counts`` decides otherwise), an error or a timeout is a failure,
        and any other outcome is a ``release()``.
        """
        if isinstance(outcome, Value):
            wrong = self._breaker._fault_of(outcome.value)  # noqa: SLF001 - a permit is part of its breaker
            return self.success() if wrong is None else self._fail(wrong, None)
        if isinstance(outcome, Failed):
            return self.failure(outcome.error)
        if isinstance(outcome, TimedOut):
            return self.failure(TimeoutError(f"no outcome within {outcome.timeout:.3g} s"))
        return self.release()

    def success(self) -> bool:
        """Report that the call succeeded; return whether the report was in time."""
        try:
            del self._unreported  # one step, so that of two threads only one reports
        except AttributeError:
            return False
        return self._era.clean or self._breaker._succeeded(self._era)  # noqa: SLF001 - a permit is part of its breaker

    def failure(self, error: BaseException | None = None, *, retry_after: float | timedelta | None = None) -> bool:
        """Report that the call failed; return whether the report was in time.

        A neutral ``error`` (see ``CircuitBreaker.is_neutral``) is a ``release()``.

        Args:
            error: the exception that the call raised.
            retry_after: seconds (or a ``timedelta``) that the other side asked to wait; by default the ``retry_after``
                attribute of ``error``, if any. If this failure opens the breaker, it stays open for exactly this long,
                but not for longer than ``BreakerConfig.max_retry_after``.
        """
        if error is not None and self._breaker.is_neutral(error):
            return self.release()
        return self._fail(error, _asked_by(error) if retry_after is None else _usable(retry_after))

    def release(self) -> bool:
        """Report that the call tells nothing about the other side; return whether the report was in time."""
        try:
            del self._unreported
        except AttributeError:
            return False
        return self._breaker._released(self._era)  # noqa: SLF001 - a permit is part of its breaker

    def _fail(self, error: BaseException | None, hint: float | None) -> bool:
        try:
            del self._unreported
        except AttributeError:
            return False
        return self._breaker._failed(self._era, error, hint)  # noqa: SLF001 - a permit is part of its breaker


class _InnerPermit(Permit):
    """Permission for a call that a probe's call makes in turn.

    Its failure is at once the probe's failure; its success or release means nothing, since the probe is still running.
    """

    __slots__ = ("_outer",)

    def __init__(self, outer: Permit) -> None:
        super().__init__(outer._breaker, outer._era)  # noqa: SLF001 - a permit is part of its breaker
        self._outer = outer

    def success(self) -> bool:
        return self.release()

    def release(self) -> bool:
        try:
            del self._unreported
        except AttributeError:
            return False
        return self._outer.unreported

    def _fail(self, error: BaseException | None, hint: float | None) -> bool:
        return self.release() and self._outer._fail(error, hint)  # noqa: SLF001 - a permit is part of its breaker


class CircuitBreaker:
    """A circuit breaker for one dependency; thread-safe, and usable from coroutines because it never blocks.

    It can be used in three ways: ``try_acquire()`` and a report on the permit; ``with breaker.guard():``; ``@breaker``
    on a function or coroutine function. In asyncio, put a timeout inside the guarded block, not around it: from outside
    it arrives as a cancellation, and cancellation is neutral.

    Args:
        name: the name in messages and events.
        config: the policy.
        clock: returns monotonic seconds.
        rng: the source of the jitter; by default Python's shared generator, which differs in every process.
        on_event: called with every ``BreakerChanged``.
        listeners: pybreaker listeners. Their ``state_change``, ``failure`` and ``success`` are called with a read-only
            pybreaker view of this breaker. With listeners, every report takes a lock.

    Listeners run with no lock held, one at a time, in the order of the events; what one raises is logged.

    While the breaker is half-open, calls that the probe's call makes in turn run under the same permit, in its thread,
    its tasks and its fan-outs: a function guarded by the breaker can call another one. After a fork, the breaker in the
    child has a new lock, and the state of the parent's.

    Raises:
        TypeError: ``config`` is not a ``BreakerConfig``, ``name`` is not a str, or an option belongs in the
            configuration.
    """

    def __init__(  # noqa: PLR0913 - the options of one breaker, by keyword
        self,
        name: str,
        config: BreakerConfig = BreakerConfig(),  # noqa: B008 - frozen
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_event: Callable[[BreakerChanged], None] | None = None,
        listeners: Iterable[pybreaker.CircuitBreakerListener] = (),
        **misplaced: Never,
    ) -> None:
        _check_arguments(name, config, on_event, misplaced)
        self.name = name
        self.config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._on_event = on_event
        self._news: deque[Callable[[], None]] = deque()
        self._teller: object = None
        self._deciding = False
        storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        heard = tuple(listeners)
        self._face = _Face(name, config, storage, heard) if heard else None
        draw = rng.random if rng else random.random
        self._circuit = Circuit(name, config, storage, draw=draw, silent=not heard)
        _breakers.add(self)

    @property
    def state(self) -> BreakerState:
        """Closed, open or half-open; an open breaker becomes half-open when its first probe is granted."""
        return self._circuit.state

    @property
    def generation(self) -> int:
        """The number of times the state has changed or was set."""
        return self._circuit.era.generation

    @property
    def retry_at(self) -> float | None:
        """The clock time from which a permit can be granted; None when closed, infinite when forced open."""
        return self._circuit.retry_at

    @property
    def early_at(self) -> float | None:
        """The clock time from which ``try_acquire(early=True)`` grants a probe.

        That is when it opened, or the end of the pause that the other side asked for; None unless it is open because of
        failures.
        """
        return self._circuit.early_at

    @property
    def failures(self) -> int:
        """Consecutive counted failures."""
        return self._circuit.storage.counter

    @property
    def last_error(self) -> BaseException | None:
        """The exception of the last counted failure; None again once the breaker is healthy."""
        return self._circuit.last_error

    @property
    def is_clean(self) -> bool:
        """Whether a new breaker would behave the same: closed, nothing counted, not forced."""
        return self._circuit.is_clean(self._clock())

    @property
    def is_forced(self) -> bool:
        """Whether ``force_open`` or ``force_closed`` is in effect."""
        return self._circuit.forced

    def try_acquire(self, *, early: bool = False) -> Permit | Rejected:
        """Ask for permission to make one call; the caller must report on the permit. Never blocks, never raises.

        Args:
            early: grant the probe of an open breaker now instead of after its wait (see ``early_at``), for callers
                that have reason to believe that the fault was not the other side's. If such a probe fails or tells
                nothing, the wait continues as it was.

        Returns:
            A permit, or a ``Rejected`` (falsy) with the reason and the seconds to wait.
        """
        era = self._circuit.era
        return Permit(self, era) if era.free else self._ask(early)

    def guard(self) -> Guard:
        """A context manager for one call: an exception in its body is a failure and propagates unchanged.

        Entering it returns the permit, or raises ``BreakerOpenError``.
        """
        return Guard(self)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate ``function`` so that every call of it is guarded.

        If a plain function returns a generator or an awaitable, which has not run yet, the call raises ``TypeError``
        and counts as neither success nor failure.

        Raises:
            TypeError: ``function`` is a generator function, or a context manager made from one: its body runs after
                the call has returned, so guard the body itself.
        """
        return guarded(self, function)

    def is_neutral(self, error: BaseException) -> bool:
        """Whether ``error`` is neither a success nor a failure of the other side.

        Neutral errors are: cancellation and everything else that is not an ``Exception``; the rejection by a breaker
        (the call never ran); errors that the configuration excludes or does not count; and groups of only such errors.
        """
        if isinstance(error, (concurrent.futures.CancelledError, BreakerOpenError, *self.config.excluded)):
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(map(self.is_neutral, error.exceptions))
        return not isinstance(error, Exception) or not self._counts(error, unless=True)

    def force_open(self) -> None:
        """Let no call through until ``force_closed()`` or ``reset()``; takes effect at once, even while calls hang."""
        self._settle(Circuit.force_open)

    def force_closed(self) -> None:
        """Let every call through and count nothing until ``force_open()`` or ``reset()``; takes effect at once."""
        self._settle(Circuit.force_closed)

    def reset(self) -> None:
        """Start again: closed, nothing counted, not forced; reports of calls in flight are ignored."""
        self._settle(Circuit.reset)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state.value} failures={self.failures}>"

    def _ask(self, early: bool) -> Permit | Rejected:  # noqa: FBT001 - its caller has the keyword
        """Ask the circuit. Separate from ``try_acquire``, so that its frame is small: most calls need nothing else."""
        now = self._clock()
        for outer in held():
            if self._runs_under(outer, now):
                return _InnerPermit(outer)
        answer = self._settle(lambda circuit: circuit.admit(now, early=early))
        return answer if isinstance(answer, Rejected) else Permit(self, answer)

    def _counts(self, what: object, *, unless: bool) -> bool:
        """Whether the configuration counts an error or a value as a failure; ``unless`` if it does not decide."""
        if self.config.counts is None:
            return unless
        try:
            return bool(self.config.counts(what))
        except Exception:
            log.exception("counts of circuit breaker %r raised on a %s", self.name, type(what).__name__)
            return unless

    def _fault_of(self, value: object) -> ResilienceError | None:
        """The failure that ``value`` stands for, if it counts as one; its text names only the type."""
        if not self._counts(value, unless=False):
            return None
        return ResilienceError(f"the call returned a {type(value).__name__} that counts as a failure")

    def _runs_under(self, outer: Permit, now: float) -> bool:
        """Whether ``outer`` is a probe of this breaker that is still valid."""
        breaker, era = outer._breaker, outer._era  # noqa: SLF001 - a permit is part of its breaker
        if breaker is not self or not outer.unreported:
            return False
        return self._settle(lambda circuit: circuit.is_good(era, now))

    def _succeeded(self, era: Era) -> bool:
        now = self._clock()
        return self._settle(lambda circuit: circuit.succeeded(era, now), _Face.tell_success)

    def _failed(self, era: Era, error: BaseException | None, hint: float | None) -> bool:
        now = self._clock()
        if hint is not None and hint > self.config.max_retry_after:
            log.warning(
                "circuit breaker %r was asked for a pause of %.0f s; it stays open for at most max_retry_after=%g s",
                self.name,
                hint,
                self.config.max_retry_after,
            )
        heard = functools.partial(_Face.tell_failure, error=error)
        return self._settle(lambda circuit: circuit.failed(era, now, error, hint), heard)

    def _released(self, era: Era) -> bool:
        now = self._clock()
        return self._settle(lambda circuit: circuit.released(era, now))

    def _settle(self, decide: Callable[[Circuit], R], heard: "Callable[[_Face], None] | None" = None) -> R:
        circuit = self._circuit
        with self._lock:
            if self._deciding and not circuit.forced:  # the last decision was interrupted
                circuit.reset()
            self._deciding = True
            answer = decide(circuit)
            if heard and answer and self._face:
                self._news.append(functools.partial(heard, self._face))
            if circuit.changes:
                self._note_changes()
            self._deciding = False
        if self._news:
            self._tell()
        return answer

    def _note_changes(self) -> None:
        changes = self._circuit.changes
        while changes:
            change = changes.pop(0)
            self._news.append(functools.partial(notify, self._on_event, change))
            if self._face:
                self._news.append(functools.partial(self._face.tell_change, change))

    def _tell(self) -> None:
        # One thread calls listeners at a time: one that keeps the latest state must not receive an older one last.
        while self._news and self._tell_one():
            pass

    def _tell_one(self) -> bool:
        me, tell = None, None
        try:
            with self._lock:
                if self._teller is None and self._news:
                    me = self._teller = object()
                    tell = self._news.popleft()
            if tell is not None:
                tell()
        finally:
            if me is not None:
                self._teller = None
        return me is not None

    def _after_fork(self) -> None:
        """In a child process: the parent's threads, which held the lock or called listeners, do not exist here."""
        self._lock = threading.Lock()
        self._news = deque()
        self._teller = None


class _Face(pybreaker.CircuitBreaker):
    """A read-only view of the breaker for pybreaker listeners."""

    def __init__(
        self,
        name: str,
        config: BreakerConfig,
        storage: pybreaker.CircuitMemoryStorage,
        listeners: tuple[pybreaker.CircuitBreakerListener, ...],
    ) -> None:
        super().__init__(
            sys.maxsize if config.fail_max is None else config.fail_max,
            config.reset_timeout,
            config.success_threshold,
            exclude=config.excluded,
            listeners=listeners,
            state_storage=storage,
            name=name,
        )

    @property
    def state(self) -> Any:  # noqa: ANN401 - one of pybreaker's state classes
        # pybreaker's own getter would notify listeners of a changed storage; they have already been notified.
        return self._create_new_state(self.current_state)

    @state.setter
    def state(self, state: str) -> None:
        self._refuse(state)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise ResilienceError(f"this view of {self.name!r} is read-only; use the resilience.CircuitBreaker itself")

    call = call_async = open = half_open = close = _refuse

    def tell_change(self, change: BreakerChanged) -> None:
        before, after = (self._create_new_state(state.value) for state in (change.before, change.after))
        self._tell("state_change", before, after)

    def tell_failure(self, error: BaseException | None) -> None:
        self._tell("failure", error or ResilienceError("reported as failed, without an error"))

    def tell_success(self) -> None:
        self._tell("success")

    def _tell(self, what: str, *facts: object) -> None:
        for listener in self.listeners:
            self._tell_one(listener, what, *facts)

    def _tell_one(self, listener: pybreaker.CircuitBreakerListener, what: str, *facts: object) -> None:
        try:
            getattr(listener, what)(self, *facts)
        except Exception:  # a listener's error must not break the breaker
            log.exception("pybreaker listener %r raised on %s", listener, what)


def _usable(hint: object) -> float | None:
    """``hint`` as seconds, if it is a positive, finite number or a timedelta; servers can send anything."""
    seconds = hint.total_seconds() if isinstance(hint, timedelta) else hint
    if isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds > 0:
        return float(seconds)
    return None


def _asked_by(error: BaseException | None) -> float | None:
    """The seconds that ``error``, or a part of it if it is a group, asks to wait."""
    asked = (_usable(getattr(one, "retry_after", None)) for one in _parts(error))
    return max((hint for hint in asked if hint is not None), default=None)


def _parts(error: BaseException | None) -> "Iterator[BaseException | None]":
    yield error
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _parts(part)


_POLICY = {
    "fail_max": "BreakerConfig(fail_max={!r})",
    "reset_timeout": "BreakerConfig(reset_timeout={!r})",
    "success_threshold": "BreakerConfig(success_threshold={!r})",
    "exclude": "BreakerConfig(excluded=(...,)), a tuple of exception classes, or BreakerConfig(counts=function)",
    "state_storage": "nothing: the state is always in memory",
    "throw_new_error_on_trip": "nothing: the error of the call always reaches the caller",
}

_PYBREAKERS = {
    "call": "breaker(function)(...), or `with breaker.guard():` around the call",
    "call_async": "breaker(function)(...) of an async def, or `with breaker.guard():` around the await",
    "calling": "breaker.guard()",
    "open": "breaker.force_open()",
    "close": "breaker.reset(), or force_closed() to count nothing",
    "half_open": "breaker.try_acquire(early=True)",
    "current_state": "breaker.state",
    "fail_counter": "breaker.failures",
    "fail_max": "breaker.config.fail_max",
    "reset_timeout": "breaker.config.reset_timeout",
    "success_threshold": "breaker.config.success_threshold",
    "excluded_exceptions": "breaker.config.excluded",
    "add_excluded_exception": "BreakerConfig(excluded=(...,))",
    "add_excluded_exceptions": "BreakerConfig(excluded=(...,))",
    "remove_excluded_exception": "BreakerConfig(excluded=(...,))",
    "is_system_error": "not breaker.is_neutral(error)",
    "listeners": "CircuitBreaker(name, listeners=[...])",
    "remove_listener": "CircuitBreaker(name, listeners=[...]): they cannot be removed",
    "remove_listeners": "CircuitBreaker(name, listeners=[...]): they cannot be removed",
    "success_counter": "breaker.state: closed again after config.success_threshold probes",
    "add_listener": "CircuitBreaker(name, listeners=[...])",
    "add_listeners": "CircuitBreaker(name, listeners=[...])",
}


class _NotHere:
    """Replaces an attribute of pybreaker's class with an error that names what to write instead."""

    def __init__(self, name: str, instead: str) -> None:
        self._text = f"a CircuitBreaker has no {name!r}, unlike pybreaker's: write {instead}"

    def __get__(self, breaker: object, owner: type) -> NoReturn:
        raise AttributeError(self._text)


for _name, _instead in _PYBREAKERS.items():  # not __getattr__: it would make every attribute of a breaker slow
    setattr(CircuitBreaker, _name, _NotHere(_name, _instead))


def _check_arguments(name: object, config: object, on_event: object, misplaced: dict[str, Any]) -> None:
    for option, value in misplaced.items():
        if option in _POLICY:
            instead = _POLICY[option].format(value)
        elif option in {field.name for field in attrs.fields(BreakerConfig)}:
            instead = f"BreakerConfig({option}={value!r})"
        else:
            raise TypeError(f"CircuitBreaker() has no option {option!r}")
        raise TypeError(f"CircuitBreaker() has no option {option!r}; instead, write {instead}")
    if not isinstance(name, str):
        raise TypeError(f"the name of a circuit breaker must be a str, not {name!r}: pass it first, then the config")
    if not isinstance(config, BreakerConfig):
        raise TypeError(
            f"config must be a BreakerConfig, not {config!r}: write CircuitBreaker({name!r}, BreakerConfig(fail_max=3))"
        )
    if on_event is not None:
        check_plain("on_event", on_event)


_breakers: "weakref.WeakSet[CircuitBreaker]" = weakref.WeakSet()


def _after_fork() -> None:
    for breaker in list(_breakers):
        breaker._after_fork()  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_after_fork)
