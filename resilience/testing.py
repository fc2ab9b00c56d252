"""Helpers for tests of resilient code: a clock that is advanced manually, and calls that follow a script.

Nothing here sleeps, and nothing here is needed in production.
"""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs

from resilience._checks import check_number

__all__ = ["Held", "ManualClock", "ScriptedCall"]

T = TypeVar("T")


class ManualClock:
    """A monotonic clock for tests: call it to get the time in seconds, ``advance`` it manually. Thread-safe.

    Args:
        start: its initial time, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = float(start)
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """The time in seconds."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Advance the clock by ``seconds`` (0 or more) and return the new time.

        Raises:
            ValueError: ``seconds`` is negative or not finite, because monotonic time never goes back.
        """
        check_number("seconds", seconds, least=0)
        with self._lock:
            self._now += seconds
            return self._now

    def __repr__(self) -> str:
        return f"ManualClock({self._now!r})"


@attrs.define(eq=False)
class Held(Generic[T]):
    """A step of a ``ScriptedCall`` that waits until it is released, then returns or raises ``step``.

    Attributes:
        step: the value to return or the exception to raise once released.
        hang_guard: seconds after which the wait ends with ``TimeoutError``, so that a wrong test
            fails instead of hanging.
    """

    step: T | BaseException
    hang_guard: float = 30.0
    _gate: threading.Event = attrs.field(factory=threading.Event, init=False, repr=False)

    def release(self) -> None:
        """Release all calls that wait here, now and later."""
        self._gate.set()

    def wait(self) -> "T | BaseException":
        """Block until released; return the step.

        Raises:
            TimeoutError: it was not released within ``hang_guard`` seconds.
        """
        if not self._gate.wait(self.hang_guard):
            raise TimeoutError(f"{self!r} was not released within {self.hang_guard} s")
        return self.step


class ScriptedCall(Generic[T]):
    """A callable that performs one step of its script per call: returns a value, raises an exception, or waits first.

    The last step repeats forever. Thread-safe; arguments are accepted and recorded.

    Example:
        ``hung = ScriptedCall(Held("late"))`` blocks until ``hung.release()``, then returns ``"late"``.

    Args:
        script: one or more steps; an exception instance or class is raised, a ``Held`` waits, anything
            else is returned.

    Raises:
        ValueError: the script is empty.
    """

    def __init__(self, *script: "T | BaseException | type[BaseException] | Held[T]") -> None:
        if not script:
            raise ValueError("the script is empty: pass at least one value, exception or Held(...)")
        self._script = script
        self._changed = threading.Condition()
        self._started: list[tuple[tuple[object, ...], dict[str, object]]] = []
        self._ended = 0

    @property
    def calls(self) -> tuple[tuple[tuple[object, ...], dict[str, object]], ...]:
        """The positional and keyword arguments of all calls so far, in the order in which they began."""
        return tuple(self._started)

    @property
    def started(self) -> int:
        """The number of calls that have begun."""
        return len(self._started)

    @property
    def ended(self) -> int:
        """The number of calls that have returned or raised."""
        return self._ended

    def __call__(self, *args: object, **kwargs: object) -> T:
        """Perform the next step of the script."""
        with self._changed:
            step = self._script[min(len(self._started), len(self._script) - 1)]
            self._started.append((args, kwargs))
            self._changed.notify_all()
        try:
            played: T = _perform(step.wait() if isinstance(step, Held) else step)
            return played
        finally:
            with self._changed:
                self._ended += 1
                self._changed.notify_all()

    def release(self) -> None:
        """Release every held step of the script, now and later."""
        for step in self._script:
            if isinstance(step, Held):
                step.release()

    def wait_started(self, count: int = 1, hang_guard: float = 30.0) -> None:
        """Block until ``count`` calls have begun.

        Raises:
            TimeoutError: that took more than ``hang_guard`` seconds.
        """
        self._wait(lambda: len(self._started) >= count, f"{count} calls to begin", hang_guard)

    def wait_ended(self, count: int = 1, hang_guard: float = 30.0) -> None:
        """Block until ``count`` calls have ended.

        Raises:
            TimeoutError: that took more than ``hang_guard`` seconds.
        """
        self._wait(lambda: self._ended >= count, f"{count} calls to end", hang_guard)

    def _wait(self, reached: Callable[[], bool], what: str, hang_guard: float) -> None:
        with self._changed:
            if not self._changed.wait_for(reached, hang_guard):
                raise TimeoutError(f"waited {hang_guard} s for {what}: {self.started} began, {self.ended} ended")


def _perform(step: object) -> Any:  # noqa: ANN401 - a script can contain any value
    if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
        raise step
    return step
