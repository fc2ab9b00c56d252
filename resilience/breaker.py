"""CircuitBreaker: leave a failing dependency alone, ask it carefully whether it has recovered.

The decisions are in ``circuit.py``; here are the lock, the clock, the listeners and pybreaker: its memory storage holds
the state, its listeners hear of it. No lock is held while a guarded call or a listener runs, and a call of a healthy
circuit takes none at all.

A decision can be cut short: by an exception out of a signal handler, and in a child process by a fork while another
thread was deciding. The circuit then begins anew, closed and with nothing counted.
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
    """Leave for one call. Report once how the call went; any thread may do it.

    A report returns whether it was in time: False for a second one, for one of a call that began before the breaker
    last changed its state, and for a probe's after its expiry. Such a report changes nothing.
    """

    __slots__ = ("_breaker", "_era", "_unreported")

    def __init__(self, breaker: "CircuitBreaker", era: Era) -> None:
        self._breaker = breaker
        self._era = era
        self._unreported = True

    @property
    def generation(self) -> int:
        """The breaker's count of state changes when this permit was given."""
        return self._era.generation

    @property
    def probe(self) -> bool:
        """Whether this is a trial call of a half-open breaker."""
        return self._era.expiry is not None

    @property
    def expiry(self) -> float | None:
        """The clock time until which a probe's report is good; None for an ordinary call."""
        return self._era.expiry

    @property
    def unreported(self) -> bool:
        """Whether no report has been made yet."""
        return hasattr(self, "_unreported")

    def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``call``, and let calls of the same breaker that it makes run under this permit, if it is a probe.

        ``guard()``, the decorator and the fan-out do this by themselves. Nothing is reported.
        """
        if not self.probe:
            return call(*args, **kwargs)
        hold(self)
        try:
            return call(*args, **kwargs)
        finally:
            let_go(self)

    def report(self, outcome: Outcome[object]) -> bool:
        """Report what the call came to; return whether the report was in time.

        A value is a success (unless ``BreakerConfig.counts`` says otherwise), an error and a timeout are failures,
        anything else is a ``release()``.
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
        """Report that the call went well; return whether the report was in time."""
        try:
            del self._unreported  # one step, so that of two threads only one reports
        except AttributeError:
            return False
        return self._era.clean or self._breaker._succeeded(self._era)  # noqa: SLF001 - a permit is part of its breaker

    def failure(self, error: BaseException | None = None, *, retry_after: float | timedelta | None = None) -> bool:
        """Report that the call failed; return whether the report was in time.

        A neutral ``error`` (see ``CircuitBreaker.is_neutral``) is a ``release()``.

        Args:
            error: what the call raised.
            retry_after: seconds (or a ``timedelta``) for which the other side asked to be left alone; by default the
                ``retry_after`` that ``error`` carries, if any. Should this failure open the breaker, it stays open for
                exactly so long, but not for longer than ``BreakerConfig.max_retry_after``.
        """
        if error is not None and self._breaker.is_neutral(error):
            return self.release()
        return self._fail(error, _asked_by(error) if retry_after is None else _usable(retry_after))

    def release(self) -> bool:
        """Report that the call says nothing about the other side; return whether the report was in time."""
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
    """Leave for a call that a probe's call makes in turn.

    Its failure is the probe's, at once; its success and its release say nothing, for the probe is still at work.
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
    """A circuit breaker for one dependency; thread-safe, and usable from coroutines, for it never waits.

    Three ways to use it: ``try_acquire()`` and a report on the permit; ``with breaker.guard():``; ``@breaker`` on a
    function or coroutine function. In asyncio put a timeout inside the guarded part, not around it: what comes from
    outside is a cancellation, and cancellation is neutral.

    Args:
        name: for messages and events.
        config: the policy.
        clock: monotonic seconds.
        rng: where the jitter comes from; by default Python's shared generator, which differs in every process.
        on_event: hears every ``BreakerChanged``.
        listeners: pybreaker listeners. They hear ``state_change``, ``failure`` and ``success``, and are given a
            pybreaker face of this breaker that can be read but not driven. With any of them every report takes a lock.

    Listeners run with no lock held, one at a time, in the order of the events; one that raises is logged.

    While it is half-open, what the probe's call calls in turn runs under the same permit, in its thread, its tasks and
    the fan-outs it makes: a function guarded by the breaker may call another one. After a fork the child's breaker has
    a lock of its own, and the state that the parent's had.

    Raises:
        TypeError: for a ``config`` that is no ``BreakerConfig``, a ``name`` that is no text, or an option that belongs
            into the configuration.
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
        """Closed, open or half-open; an open breaker becomes half-open when its first probe is let out."""
        return self._circuit.state

    @property
    def generation(self) -> int:
        """How many times the state changed or was set."""
        return self._circuit.era.generation

    @property
    def retry_at(self) -> float | None:
        """The clock time from which a call may be had; None when closed, infinite when forced open."""
        return self._circuit.retry_at

    @property
    def early_at(self) -> float | None:
        """The clock time from which ``try_acquire(early=True)`` lets a probe out.

        That is when it opened, or when the wait is over that the other side asked for; None unless it is open because
        of failures.
        """
        return self._circuit.early_at

    @property
    def failures(self) -> int:
        """Consecutive counted failures."""
        return self._circuit.storage.counter

    @property
    def last_error(self) -> BaseException | None:
        """What the last counted failure raised; None again once the breaker is healthy."""
        return self._circuit.last_error

    @property
    def is_clean(self) -> bool:
        """Whether a new breaker would behave the same: closed, nothing counted, nothing forced."""
        return self._circuit.is_clean(self._clock())

    @property
    def is_forced(self) -> bool:
        """Whether ``force_open`` or ``force_closed`` is in effect."""
        return self._circuit.forced

    def try_acquire(self, *, early: bool = False) -> Permit | Rejected:
        """Ask for leave to make one call; the caller must report on the permit. Never waits, never raises.

        Args:
            early: an open breaker lets its probe out now and not after its wait (see ``early_at``), for callers who
                have reason to believe that the fault was not the other side's. When such a probe fails or says
                nothing, the wait goes on as it was.

        Returns:
            A permit, or a ``Rejected`` (falsy) that says why not and how many seconds to wait.
        """
        era = self._circuit.era
        return Permit(self, era) if era.free else self._ask(early)

    def guard(self) -> Guard:
        """A context manager for one call: what its body raises is a failure and passes through unchanged.

        Entering it gives the permit, or raises ``BreakerOpenError``.
        """
        return Guard(self)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate ``function`` so that every call of it is guarded.

        What a call returns must not have to run yet: for a generator or an awaitable of a plain function the call
        raises ``TypeError``, and counts as neither success nor failure.

        Raises:
            TypeError: for a generator function, or a context manager made of one: its body runs after the call
                returned, so guard the body itself.
        """
        return guarded(self, function)

    def is_neutral(self, error: BaseException) -> bool:
        """Whether ``error`` is neither success nor failure of the other side.

        Neutral are: cancellation and everything else that is no ``Exception``, the rejection of a breaker (the call
        never ran), what the configuration excludes or does not count, and a group of nothing else.
        """
        if isinstance(error, (concurrent.futures.CancelledError, BreakerOpenError, *self.config.excluded)):
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(map(self.is_neutral, error.exceptions))
        return not isinstance(error, Exception) or not self._counts(error, unless=True)

    def force_open(self) -> None:
        """Let no call through until ``force_closed()`` or ``reset()``; acts at once, whatever hangs."""
        self._settle(Circuit.force_open)

    def force_closed(self) -> None:
        """Let every call through and count nothing until ``force_open()`` or ``reset()``; acts at once."""
        self._settle(Circuit.force_closed)

    def reset(self) -> None:
        """Begin anew: closed, nothing counted, nothing forced; reports of calls in flight no longer matter."""
        self._settle(Circuit.reset)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state.value} failures={self.failures}>"

    def _ask(self, early: bool) -> Permit | Rejected:  # noqa: FBT001 - its caller has the keyword
        """Ask the circuit. Apart from ``try_acquire``, whose frame is to be small: most calls need nothing else."""
        now = self._clock()
        for outer in held():
            if self._runs_under(outer, now):
                return _InnerPermit(outer)
        answer = self._settle(lambda circuit: circuit.admit(now, early=early))
        return answer if isinstance(answer, Rejected) else Permit(self, answer)

    def _counts(self, what: object, *, unless: bool) -> bool:
        """Whether the configuration counts an error or a value as a failure; ``unless`` it has nothing to say."""
        if self.config.counts is None:
            return unless
        try:
            return bool(self.config.counts(what))
        except Exception:
            log.exception("counts of circuit breaker %r raised on a %s", self.name, type(what).__name__)
            return unless

    def _fault_of(self, value: object) -> ResilienceError | None:
        """The failure that ``value`` stands for, if it counts as one; says no more of it than its type."""
        if not self._counts(value, unless=False):
            return None
        return ResilienceError(f"the call returned a {type(value).__name__} that counts as a failure")

    def _runs_under(self, outer: Permit, now: float) -> bool:
        """Whether ``outer`` is a probe of this breaker that is still good."""
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
            if self._deciding and not circuit.forced:  # the last decision was cut short
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
        # One thread tells at a time: listeners that keep the latest state must not hear an older one last.
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
        """In a child process: no other thread of the parent's is here to release its lock or to go on telling."""
        self._lock = threading.Lock()
        self._news = deque()
        self._teller = None


class _Face(pybreaker.CircuitBreaker):
    """The breaker as pybreaker listeners know it: to be read, not to be driven past the rules."""

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
        # pybreaker's own getter tells the listeners when it finds that the storage moved on: it did, and they know.
        return self._create_new_state(self.current_state)

    @state.setter
    def state(self, state: str) -> None:
        self._refuse(state)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise ResilienceError(f"this view of {self.name!r} is for reading; drive the resilience.CircuitBreaker itself")

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
        except Exception:  # a listener is somebody else's code: it must not take the breaker down with it
            log.exception("pybreaker listener %r raised on %s", listener, what)


def _usable(hint: object) -> float | None:
    """``hint`` as seconds, if it is a positive, finite number of them or a timedelta; servers send anything."""
    seconds = hint.total_seconds() if isinstance(hint, timedelta) else hint
    if isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds > 0:
        return float(seconds)
    return None


def _asked_by(error: BaseException | None) -> float | None:
    """For how many seconds ``error``, or a part of it if it is a group, asks to leave the other side alone."""
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
    "state_storage": "nothing: the state is kept in memory",
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
    "remove_listener": "CircuitBreaker(name, listeners=[...]): they stay for its life",
    "remove_listeners": "CircuitBreaker(name, listeners=[...]): they stay for its life",
    "success_counter": "breaker.state: closed again after config.success_threshold probes",
    "add_listener": "CircuitBreaker(name, listeners=[...])",
    "add_listeners": "CircuitBreaker(name, listeners=[...])",
}


class _NotHere:
    """Stands where a user of pybreaker looks for something, and says what to write instead."""

    def __init__(self, name: str, instead: str) -> None:
        self._text = f"a CircuitBreaker has no {name!r} as pybreaker's has: write {instead}"

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
        raise TypeError(f"CircuitBreaker() has no option {option!r}; instead of it write {instead}")
    if not isinstance(name, str):
        raise TypeError(f"the name of a circuit breaker must be a text, not {name!r}: give it first, then the config")
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
