"""What a circuit breaker decides, without clock, lock or thread: who may call, what a report changes.

One idea carries the rules. Every permit belongs to an *era*, and the circuit begins a new one whenever something
happened that a call begun earlier cannot know of: a failure was counted, the state changed, a probe was let out. A
report is judged by its era alone:

* a failure of an earlier era began before the last counted failure was seen: it is part of that failure, not another;
* an era of an earlier generation is history: its reports change nothing;
* a probe has an era of its own, so that only the probe that is out can decide, and only until its expiry.

Generations as in sony/gobreaker, expiring probes and eras are our own.
"""

import math
from collections.abc import Callable
from typing import Protocol

import attrs

from resilience._checks import number, whole
from resilience.errors import Throttled
from resilience.events import BreakerChanged, BreakerState
from resilience.outcomes import Rejected

__all__ = ["BreakerConfig", "Circuit", "Era", "Storage"]


@attrs.frozen(kw_only=True)
class BreakerConfig:
    """The policy of a circuit breaker. All times are seconds.

    Attributes:
        fail_max: consecutive counted failures that open it.
        reset_timeout: how long it stays open at first, before the jitter.
        max_reset_timeout: what doubling after each failed probe leads to at most, before the jitter.
        jitter: each time it opens, the wait is multiplied by one draw from 1 to 1 + jitter.
        success_threshold: successful probes in a row that close it.
        probe_timeout: how long a probe's permit is good; then its place is free again.
        excluded: errors that are neutral: neither success nor failure. Cancellation always is.

    Raises:
        ValueError: for a number out of range, or a ``max_reset_timeout`` below ``reset_timeout``.
        TypeError: for a value of the wrong type.
    """

    fail_max: int = attrs.field(default=3, validator=whole(1))
    reset_timeout: float = attrs.field(default=30.0, validator=number(0, exclusive=True))
    max_reset_timeout: float = attrs.field(default=300.0, validator=number(0, exclusive=True))
    jitter: float = attrs.field(default=0.5, validator=number(0))
    success_threshold: int = attrs.field(default=1, validator=whole(1))
    probe_timeout: float = attrs.field(default=30.0, validator=number(0, exclusive=True))
    excluded: tuple[type[BaseException], ...] = (Throttled,)

    def __attrs_post_init__(self) -> None:
        if self.max_reset_timeout < self.reset_timeout:
            raise ValueError(
                f"max_reset_timeout ({self.max_reset_timeout!r}) is below reset_timeout ({self.reset_timeout!r}): "
                "raise the one or lower the other"
            )
        if not isinstance(self.excluded, tuple) or not all(map(_is_error_type, self.excluded)):
            raise TypeError(f"excluded must be a tuple of exception classes, not {self.excluded!r}: write (MyError,)")


def _is_error_type(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


class Storage(Protocol):
    """Where state and counters are kept; shaped like pybreaker's memory storage."""

    @property
    def state(self) -> str:
        """The state, as the value of a ``BreakerState``."""

    @state.setter
    def state(self, state: str) -> None: ...

    @property
    def counter(self) -> int:
        """Consecutive counted failures."""

    @property
    def success_counter(self) -> int:
        """Successful probes since it became half-open."""

    def increment_counter(self) -> None: ...  # noqa: D102 - as named

    def reset_counter(self) -> None: ...  # noqa: D102 - as named

    def increment_success_counter(self) -> None: ...  # noqa: D102 - as named

    def reset_success_counter(self) -> None: ...  # noqa: D102 - as named


class Era:
    """What all permits have in common between which nothing happened; read without a lock.

    Attributes:
        generation: count of the circuit's state changes when it began.
        expiry: clock time until which a probe's report is good; None for calls of a closed circuit.
        free: calls may go ahead without asking (the circuit is closed).
        clean: a success changes nothing, so it need not be reported.
    """

    __slots__ = ("clean", "expiry", "free", "generation")

    def __init__(self, generation: int, *, expiry: float | None = None, free: bool, clean: bool) -> None:
        self.generation = generation
        self.expiry = expiry
        self.free = free
        self.clean = clean


class Circuit:
    """The state machine of one breaker. Not thread-safe: its driver holds a lock around every method.

    Args:
        name: for the events.
        config: the policy.
        storage: keeps state and counters; sees every transition.
        draw: a random number from 0 to 1, called once each time the circuit opens.
        silent: successes of a healthy circuit need not be reported.

    Attributes:
        era: what a call that begins now belongs to.
        retry_at: clock time from which a call may be had; None when closed.
        early_at: clock time from which a probe may be had early; None unless it is open because of failures.
        changes: the transitions that nobody was told of yet; the driver takes them away.
    """

    def __init__(
        self,
        name: str,
        config: BreakerConfig,
        storage: Storage,
        *,
        draw: Callable[[], float],
        silent: bool,
    ) -> None:
        self.name = name
        self.config = config
        self.storage = storage
        self.forced = False
        self.last_error: BaseException | None = None
        self.retry_at: float | None = None
        self.early_at: float | None = None
        self.changes: list[BreakerChanged] = []
        self._draw = draw
        self._silent = silent
        self._pause = config.reset_timeout
        self._due = math.inf
        self.era = Era(0, free=True, clean=silent)

    @property
    def state(self) -> BreakerState:
        """Closed, open or half-open; it becomes half-open with its first probe."""
        return BreakerState(self.storage.state)

    @property
    def is_clean(self) -> bool:
        """Whether a new circuit would behave the same: closed, nothing counted, nothing forced."""
        return self.state is BreakerState.CLOSED and not self.storage.counter and not self.forced

    def admit(self, now: float, *, early: bool = False) -> Era | Rejected:
        """The era a call that begins now belongs to, or why it may not begin; ``early``: it need not wait if open."""
        if self.retry_at is None:
            return self.era
        opens_at = self.early_at if early and self.early_at is not None else self.retry_at
        if now < opens_at:
            return Rejected(self._why_not(), self.retry_at - now)
        if self.state is BreakerState.OPEN:
            self._due = self.retry_at
            self._enter(BreakerState.HALF_OPEN, self._due)
        expiry = now + self.config.probe_timeout
        self.retry_at = max(expiry, self._due)  # a probe that was let out early and is lost ends no wait
        self._begin_era(expiry=expiry)
        return self.era

    def succeeded(self, era: Era, now: float) -> bool:
        """Take in that a call of ``era`` succeeded; False when its report came too late to mean anything."""
        if not self._is_good(era, now):
            return False
        if self.state is BreakerState.HALF_OPEN:
            self._probe_succeeded(now)
        elif self.storage.counter:
            self.storage.reset_counter()
            self.last_error = None
            self.era.clean = self._silent
        return True

    def failed(self, era: Era, now: float, error: BaseException | None, hint: float | None) -> bool:
        """Take in that a call of ``era`` failed; ``hint`` is how many seconds' pause the other side asked for.

        True when the report was in time, also if it is part of a failure that was counted before.
        """
        if not self._is_good(era, now):
            return False
        if self.forced or era is not self.era:
            return True
        self.storage.increment_counter()
        self.last_error = error
        if self._is_early(now) and hint is None:
            self._open_again(now)
        elif self.state is BreakerState.HALF_OPEN or self.storage.counter >= self.config.fail_max:
            self._trip(now, hint)
        else:
            self._begin_era(free=True)
        return True

    def released(self, era: Era, now: float) -> bool:
        """Take in that a call of ``era`` came to nothing that says anything: a probe's place is free again."""
        if not self._is_good(era, now):
            return False
        if self._is_early(now):
            self._open_again(now)
        elif era.expiry is not None:
            self._free_place()
        return True

    def force_open(self) -> None:
        """Let no call through until ``force_closed`` or ``reset``."""
        self.forced = True
        self._enter(BreakerState.OPEN, math.inf, pause=math.inf)

    def force_closed(self) -> None:
        """Let every call through and count nothing until ``force_open`` or ``reset``."""
        self.forced = True
        self._close()

    def reset(self) -> None:
        """Begin anew: closed, nothing counted, nothing forced; calls in flight no longer matter."""
        self.forced = False
        self._close()

    def _is_good(self, era: Era, now: float) -> bool:
        if era.generation != self.era.generation:
            return False
        return era.expiry is None or (era is self.era and now < era.expiry)

    def _why_not(self) -> str:
        if self.forced:
            return f"circuit breaker {self.name!r} is forced open"
        if self.state is BreakerState.HALF_OPEN:
            return f"circuit breaker {self.name!r} is half-open and its probe is out"
        return f"circuit breaker {self.name!r} is open"

    def _is_early(self, now: float) -> bool:
        """Whether it is half-open for an early probe, and the wait that this was let out of is not over yet."""
        return self.state is BreakerState.HALF_OPEN and now < self._due

    def _probe_succeeded(self, now: float) -> None:
        self._due = min(self._due, now)
        self.storage.reset_counter()
        self.storage.increment_success_counter()
        if self.storage.success_counter >= self.config.success_threshold:
            self._close()
        else:
            self._free_place()

    def _free_place(self) -> None:
        self.retry_at = self._due
        self._begin_era()

    def _trip(self, now: float, hint: float | None) -> None:
        pause = self._pause * (1 + self.config.jitter * self._draw()) if hint is None else hint
        self._pause = min(2 * self._pause, self.config.max_reset_timeout)
        self._enter(BreakerState.OPEN, now + pause, pause=pause, error=self.last_error)
        self.early_at = now if hint is None else self.retry_at

    def _open_again(self, now: float) -> None:
        """An early probe told nothing new: the wait goes on as it was, no longer than it was."""
        self._enter(BreakerState.OPEN, self._due, pause=self._due - now, error=self.last_error)
        self.early_at = now

    def _close(self) -> None:
        self.storage.reset_counter()
        self.last_error = None
        self._pause = self.config.reset_timeout
        self._enter(BreakerState.CLOSED, None)

    def _enter(
        self,
        state: BreakerState,
        retry_at: float | None,
        *,
        pause: float | None = None,
        error: BaseException | None = None,
    ) -> None:
        before = self.state
        self.storage.reset_success_counter()
        self.storage.state = state.value
        self.retry_at, self.early_at = retry_at, None
        closed = state is BreakerState.CLOSED
        self._begin_era(step=1, free=closed, clean=closed and self._silent)
        if state is not before:
            self.changes.append(BreakerChanged(self.name, before, state, self.era.generation, pause, error))

    def _begin_era(
        self, *, step: int = 0, expiry: float | None = None, free: bool = False, clean: bool = False
    ) -> None:
        self.era.clean = False
        self.era = Era(self.era.generation + step, expiry=expiry, free=free, clean=clean)
