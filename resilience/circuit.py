"""The decisions of a circuit breaker, without clock, lock or thread: which calls are permitted, what a report changes.

The rules rest on one idea. Every permit belongs to an *era*, and the circuit begins a new one whenever something
happens that a call begun earlier cannot have been affected by: a failure is counted, the state changes, a probe is
granted. A report is judged by its era alone:

* a call of an earlier era began before the last counted failure was seen. If it failed, that is part of the same
  failure, not another one; if it succeeded, that tells nothing about the time since;
* an era of an earlier generation is over: its reports change nothing;
* a probe has its own era, so that only the current probe can decide, and only until its expiry.

A failure rate, if one is configured, is computed over all calls of the current generation that ended within the
window: the effect of one stall is bounded by ``min_calls``, not by eras.

Generations are taken from sony/gobreaker; expiring probes and eras are our own.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from resilience._checks import check_plain, check_whole, number, whole
from resilience.errors import MAX_RETRY_AFTER, Throttled
from resilience.events import BreakerChanged, BreakerState
from resilience.outcomes import Rejected

__all__ = ["BreakerConfig", "Circuit", "Era", "Storage"]


@attrs.frozen(kw_only=True)
class BreakerConfig:
    """The policy of a circuit breaker. All times are seconds.

    Attributes:
        fail_max: number of consecutive counted failures that open it; None only with a ``failure_rate``.
        failure_rate: the fraction of failed calls, above 0 and at most 1, within the last ``window`` seconds that opens
            it; None for no such rule.
        window: seconds over which the failure rate is computed.
        min_calls: number of calls that must have ended within the window before the rate is considered.
        reset_timeout: how long it stays open at first, before the jitter.
        max_reset_timeout: upper bound of the wait, which doubles after each failed probe; before the jitter.
        jitter: each time it opens, the wait is multiplied by a random factor from 1 to 1 + jitter.
        success_threshold: number of successful probes in a row that close it.
        probe_timeout: how long a probe's permit is valid; then another probe can be granted.
        max_retry_after: the longest pause that the other side can ask for (Retry-After).
        excluded: errors that are neutral: neither success nor failure. Cancellation always is.
        counts: ``counts(what)`` is called with the error that a call raised or the value that it returned, and returns
            whether that is a failure. If not, the error is neutral, as if it were excluded, and the value is a
            success. It is called without a lock; if it raises, that is logged, and an error counts, a value does not.

    For an exception group the parts are judged, not the group: it is neutral if all of them are.

    Raises:
        ValueError: a number is out of range, ``max_reset_timeout`` is below ``reset_timeout``, or ``fail_max`` is
            None without a ``failure_rate``.
        TypeError: a value has the wrong type.
    """

    fail_max: int | None = 3
    failure_rate: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(number(0, exclusive=True))
    )
    window: float = attrs.field(default=10.0, validator=number(0.01))
    min_calls: int = attrs.field(default=20, validator=whole(1))
    reset_timeout: float = attrs.field(default=30.0, validator=number(0, exclusive=True))
    max_reset_timeout: float = attrs.field(default=300.0, validator=number(0, exclusive=True))
    jitter: float = attrs.field(default=0.5, validator=number(0))
    success_threshold: int = attrs.field(default=1, validator=whole(1))
    probe_timeout: float = attrs.field(default=30.0, validator=number(0, exclusive=True))
    max_retry_after: float = attrs.field(default=MAX_RETRY_AFTER, validator=number(0, exclusive=True))
    excluded: tuple[type[BaseException], ...] = (Throttled,)
    counts: Callable[[Any], bool] | None = None

    def __attrs_post_init__(self) -> None:
        if self.fail_max is not None:
            check_whole("fail_max", self.fail_max, least=1)
        if self.fail_max is None and self.failure_rate is None:
            raise ValueError("fail_max is None and so is failure_rate: nothing would ever open it; set one of them")
        if self.failure_rate is not None and self.failure_rate > 1:
            raise ValueError(
                f"failure_rate must be a fraction of at most 1, not {self.failure_rate!r}: 0.5 is half of the calls"
            )
        if self.counts is not None:
            check_plain("counts", self.counts)
        if self.max_reset_timeout < self.reset_timeout:
            raise ValueError(
                f"max_reset_timeout ({self.max_reset_timeout!r}) is below reset_timeout ({self.reset_timeout!r}): "
                "raise one or lower the other"
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
    """The state shared by all permits between which nothing happened; read without a lock.

    Attributes:
        generation: count of the circuit's state changes when it began.
        expiry: clock time until which a probe's report is accepted; None for calls of a closed circuit.
        free: whether calls are permitted without asking (the circuit is closed).
        clean: whether a success changes nothing, so that it need not be reported.
    """

    __slots__ = ("clean", "expiry", "free", "generation")

    def __init__(self, generation: int, *, expiry: float | None = None, free: bool, clean: bool) -> None:
        self.generation = generation
        self.expiry = expiry
        self.free = free
        self.clean = clean


_BUCKETS = 10  # a window advances by a tenth of its length


class _Window:
    """The number of calls that ended in the last ``seconds``, and of those that failed; its memory is bounded."""

    def __init__(self, seconds: float) -> None:
        self.calls = 0
        self.failures = 0
        self.blank_at = -math.inf  # the time from which it contains no failure
        self._seconds = seconds
        self._width = seconds / _BUCKETS
        self._buckets: deque[list[int]] = deque()  # number, calls, failures

    def add(self, now: float, *, failed: bool) -> None:
        """Record that a call has ended."""
        number = math.floor(now / self._width)
        while self._buckets and self._buckets[0][0] <= number - _BUCKETS:
            _, calls, failures = self._buckets.popleft()
            self.calls -= calls
            self.failures -= failures
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append([number, 0, 0])
        self._buckets[-1][1] += 1
        self._buckets[-1][2] += failed
        self.calls += 1
        self.failures += failed
        if failed:
            self.blank_at = now + self._seconds


class Circuit:
    """The state machine of one breaker. Not thread-safe: its driver holds a lock around every method.

    Args:
        name: the name in the events.
        config: the policy.
        storage: holds state and counters; every transition is written to it.
        draw: returns a random number from 0 to 1; called once each time the circuit opens.
        silent: whether successes of a healthy circuit need not be reported.

    Attributes:
        era: the era of a call that begins now.
        retry_at: clock time from which a call can be permitted; None when closed.
        early_at: clock time from which an early probe can be granted; None unless it is open because of failures.
        changes: the transitions that listeners have not been notified of; the driver removes them.
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
        self._fail_max = math.inf if config.fail_max is None else config.fail_max
        self._window = None if config.failure_rate is None else _Window(config.window)
        self._silent = silent and self._window is None
        self._pause = config.reset_timeout
        self._due = math.inf
        self.era = Era(0, free=True, clean=self._silent)

    @property
    def state(self) -> BreakerState:
        """Closed, open or half-open; it becomes half-open with its first probe."""
        return BreakerState(self.storage.state)

    def is_clean(self, now: float) -> bool:
        """Whether a new circuit would behave the same: closed, nothing counted, not forced."""
        if self.state is not BreakerState.CLOSED or self.storage.counter or self.forced:
            return False
        return self._window is None or now >= self._window.blank_at

    def admit(self, now: float, *, early: bool = False) -> Era | Rejected:
        """The era of a call that begins now, or why it must not begin; ``early``: do not wait if open."""
        if self.retry_at is None:
            return self.era
        opens_at = self.early_at if early and self.early_at is not None else self.retry_at
        if now < opens_at:
            return Rejected(self._why_not(), self.retry_at - now)
        if self.state is BreakerState.OPEN:
            self._due = self.retry_at
            self._enter(BreakerState.HALF_OPEN, self._due)
        expiry = now + self.config.probe_timeout
        self.retry_at = max(expiry, self._due)  # an early probe that is never reported does not end the wait
        self._begin_era(expiry=expiry)
        return self.era

    def succeeded(self, era: Era, now: float) -> bool:
        """Record that a call of ``era`` succeeded; False when the report came too late to count."""
        if not self.is_good(era, now):
            return False
        if self.state is BreakerState.HALF_OPEN:
            self._probe_succeeded(now)
            return True
        if self._window is not None and not self.forced:
            self._window.add(now, failed=False)
        if era is self.era and self.storage.counter:
            self.storage.reset_counter()
            self.last_error = None
            self.era.clean = self._silent
        return True

    def failed(self, era: Era, now: float, error: BaseException | None, hint: float | None) -> bool:
        """Record that a call of ``era`` failed; ``hint`` is the pause in seconds that the other side asked for.

        True when the report was in time, even if it is part of a failure that was counted before.
        """
        if not self.is_good(era, now):
            return False
        if self.forced:
            return True
        too_many = self._too_many_failed(now)
        if era is self.era:
            self.storage.increment_counter()
        elif not too_many:
            return True
        self.last_error = error
        if self._is_early(now) and hint is None:
            self._open_again(now)
        elif too_many or self.state is BreakerState.HALF_OPEN or self.storage.counter >= self._fail_max:
            self._trip(now, hint)
        else:
            self._begin_era(free=True)
        return True

    def released(self, era: Era, now: float) -> bool:
        """Record that a call of ``era`` tells nothing: another probe can be granted in its place."""
        if not self.is_good(era, now):
            return False
        if self._is_early(now):
            self._open_again(now)
        elif era.expiry is not None:
            self._free_place()
        return True

    def force_open(self) -> None:
        """Let no call through until ``force_closed`` or ``reset``."""
        self.forced = False  # until it is in effect: see how the driver treats an interrupted decision
        self._enter(BreakerState.OPEN, math.inf, pause=math.inf)
        self.forced = True

    def force_closed(self) -> None:
        """Let every call through and count nothing until ``force_open`` or ``reset``."""
        self.forced = False
        self._close()
        self.forced = True

    def reset(self) -> None:
        """Start again: closed, nothing counted, not forced; reports of calls in flight are ignored."""
        self.forced = False
        self._close()

    def is_good(self, era: Era, now: float) -> bool:
        """Whether a report of a call of ``era`` would be in time now."""
        if era.generation != self.era.generation:
            return False
        return era.expiry is None or (era is self.era and now < era.expiry)

    def _too_many_failed(self, now: float) -> bool:
        """Record a failure in the window of the rate, if there is one; return whether that opens the circuit."""
        window, rate = self._window, self.config.failure_rate
        if window is None or rate is None or self.state is not BreakerState.CLOSED:
            return False
        window.add(now, failed=True)
        return window.calls >= self.config.min_calls and window.failures >= rate * window.calls

    def _why_not(self) -> str:
        if self.forced:
            return f"circuit breaker {self.name!r} is forced open"
        if self.state is BreakerState.HALF_OPEN:
            return f"circuit breaker {self.name!r} is half-open and its probe is in flight"
        return f"circuit breaker {self.name!r} is open"

    def _is_early(self, now: float) -> bool:
        """Whether it is half-open because of an early probe, and the wait is not over yet."""
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
        if hint is None:
            pause = self._pause * (1 + self.config.jitter * self._draw())
        else:
            pause = hint = min(hint, self.config.max_retry_after)
        self._pause = min(2 * self._pause, self.config.max_reset_timeout)
        self._enter(BreakerState.OPEN, now + pause, pause=pause, error=self.last_error)
        self.early_at = now if hint is None else self.retry_at

    def _open_again(self, now: float) -> None:
        """Open again after an early probe that told nothing new: the wait ends when it would have ended anyway."""
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
        if self._window is not None:
            self._window = _Window(self.config.window)
        closed = state is BreakerState.CLOSED
        self._begin_era(step=1, free=closed, clean=closed and self._silent)
        if state is not before:
            self.changes.append(BreakerChanged(self.name, before, state, self.era.generation, pause, error))

    def _begin_era(
        self, *, step: int = 0, expiry: float | None = None, free: bool = False, clean: bool = False
    ) -> None:
        self.era.clean = False
        self.era = Era(self.era.generation + step, expiry=expiry, free=free, clean=clean)
