"""CircuitBreaker: leave a failing dependency alone, ask it carefully whether it has recovered.

The decisions are in ``circuit.py``; here are the lock, the clock, the listeners and pybreaker: its memory storage holds
the state, its listeners hear of it. No lock is held while a guarded call or a listener runs, and a call of a healthy
circuit takes none at all.
"""

import concurrent.futures
import functools
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, ParamSpec, TypeVar

import pybreaker

from resilience.circuit import BreakerConfig, Circuit, Era
from resilience.errors import BreakerOpenError, ResilienceError
from resilience.events import BreakerChanged, BreakerState, notify
from resilience.guard import Guard, guarded
from resilience.outcomes import Rejected

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

    def success(self) -> bool:
        """Report that the call went well; return whether the report was in time."""
        try:
            del self._unreported  # one step, so that of two threads only one reports
        except AttributeError:
            return False
        return self._era.clean or self._breaker._succeeded(self._era)  # noqa: SLF001 - a permit is part of its breaker

    def failure(self, error: BaseException | None = None, *, retry_after: float | None = None) -> bool:
        """Report that the call failed; return whether the report was in time.

        A neutral ``error`` (see ``CircuitBreaker.is_neutral``) is a ``release()``.

        Args:
            error: what the call raised.
            retry_after: seconds for which the other side asked to be left alone; by default the ``retry_after`` that
                ``error`` carries, if any. Should this failure open the breaker, it stays open for exactly so long.
        """
        if error is not None and self._breaker.is_neutral(error):
            return self.release()
        hint = _usable(getattr(error, "retry_after", None) if retry_after is None else retry_after)
        try:
            del self._unreported
        except AttributeError:
            return False
        return self._breaker._failed(self._era, error, hint)  # noqa: SLF001 - a permit is part of its breaker

    def release(self) -> bool:
        """Report that the call says nothing about the other side; return whether the report was in time."""
        try:
            del self._unreported
        except AttributeError:
            return False
        return self._breaker._released(self._era)  # noqa: SLF001 - a permit is part of its breaker


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
    ) -> None:
        self.name = name
        self.config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._on_event = on_event
        self._news: deque[Callable[[], None]] = deque()
        self._telling = False
        storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        heard = tuple(listeners)
        self._face = _Face(name, config, storage, heard) if heard else None
        draw = rng.random if rng else random.random
        self._circuit = Circuit(name, config, storage, draw=draw, silent=not heard)

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
        return self._circuit.is_clean

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
        if era.free:
            return Permit(self, era)
        now = self._clock()
        with self._lock:
            answer = self._circuit.admit(now, early=early)
            self._note_changes()
        self._tell()
        return answer if isinstance(answer, Rejected) else Permit(self, answer)

    def guard(self) -> Guard:
        """A context manager for one call: what its body raises is a failure and passes through unchanged.

        Entering it gives the permit, or raises ``BreakerOpenError``.
        """
        return Guard(self)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate ``function`` so that every call of it is guarded.

        Raises:
            TypeError: for a generator function: its body runs after the call returned, so guard the body itself.
        """
        return guarded(self, function)

    def is_neutral(self, error: BaseException) -> bool:
        """Whether ``error`` is neither success nor failure of the other side.

        Neutral are: cancellation and everything else that is no ``Exception``, the rejection of a breaker (the call
        never ran), and what the configuration excludes.
        """
        if not isinstance(error, Exception):
            return True
        return isinstance(error, (concurrent.futures.CancelledError, BreakerOpenError, *self.config.excluded))

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

    def _succeeded(self, era: Era) -> bool:
        now = self._clock()
        return self._settle(lambda circuit: circuit.succeeded(era, now), _Face.tell_success)

    def _failed(self, era: Era, error: BaseException | None, hint: float | None) -> bool:
        now = self._clock()
        heard = functools.partial(_Face.tell_failure, error=error)
        return self._settle(lambda circuit: circuit.failed(era, now, error, hint), heard)

    def _released(self, era: Era) -> bool:
        now = self._clock()
        return self._settle(lambda circuit: circuit.released(era, now))

    def _settle(self, decide: Callable[[Circuit], R], heard: "Callable[[_Face], None] | None" = None) -> R:
        with self._lock:
            answer = decide(self._circuit)
            if answer and heard and self._face:
                self._news.append(functools.partial(heard, self._face))
            self._note_changes()
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
        while self._news:
            with self._lock:
                if self._telling or not self._news:
                    return
                self._telling = True
                tell = self._news.popleft()
            try:
                tell()
            finally:
                self._telling = False


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
            config.fail_max,
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
    """``hint`` as seconds, if it is a positive, finite number; servers send anything."""
    if isinstance(hint, (int, float)) and math.isfinite(hint) and hint > 0:
        return float(hint)
    return None
