"""Giving back: un-started values go home to their own source, bounded in time, with a word about how it went."""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from resilience.errors import Incomplete
from resilience.events import GaveBack, GiveBackFailed, Listener, notify
from resilience.fan_out import FanOutExecutor
from resilience.outcomes import Failed, Outcome, Value
from resilience.polling.source import Source

__all__ = ["Returns"]

TIMEOUT = 5.0  # of one give-back; the values of a source that does not take them come back when it times them out
AT_ONCE = 20  # values for which that is enough


class Returns:
    """Gives values back to their sources. Thread-safe; no lock is held while a source is called.

    Args:
        clock: monotonic seconds.
        on_event: told `GaveBack` or `GiveBackFailed` for every give-back.
        on_settled: called after each, for whoever waits until none is under way.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        on_event: Listener | None,
        on_settled: Callable[[], None],
    ) -> None:
        self._on_event = on_event
        self._on_settled = on_settled
        self._clock = clock
        self._executor = FanOutExecutor(clock=clock)
        self._session = self._executor.session()
        self._lock = threading.Lock()
        self.pending = 0
        self.lost = 0

    def send(self, items: Iterable[tuple[Source[Any], object]], reason: str) -> None:
        """Give back ``items``, pairs of source and value; returns at once."""
        by_source: dict[int, tuple[Source[Any], list[object]]] = {}
        for source, value in items:
            by_source.setdefault(id(source), (source, []))[1].append(value)
        with self._lock:
            self.pending += len(by_source)
        for source, values in by_source.values():
            settled = partial(self._settled, len(values), reason)
            timeout = TIMEOUT * -(-len(values) // AT_ONCE)
            self._start(source.name, partial(source.give_back or _refuse, values), settled, timeout)

    def expire(self) -> float | None:
        """Settle those whose time is over; returns the clock time of the next deadline."""
        return self._session.expire()

    def close(self) -> None:
        """End the threads that wait for work; what is given back later gets a thread of its own."""
        self._executor.close()

    def _start(
        self, name: str, call: Callable[[], object], settled: Callable[[str, Outcome[object]], None], timeout: float
    ) -> None:
        try:
            self._session.submit(name, call, timeout, on_outcome=settled)
        except RuntimeError:  # closed: an answer or a holder was later than the end
            with FanOutExecutor(clock=self._clock) as last:
                last.session().submit(name, call, timeout, on_outcome=settled)

    def _settled(self, count: int, reason: str, source: str, outcome: Outcome[object]) -> None:
        back, error = _what_came_of(outcome, count)
        with self._lock:
            self.pending -= 1
            self.lost += count - back
        if back:
            notify(self._on_event, GaveBack(source, back, reason))
        if error is not None:
            notify(self._on_event, GiveBackFailed(source, count - back, error))
        self._on_settled()


def _what_came_of(outcome: Outcome[object], count: int) -> tuple[int, BaseException | None]:
    """How many of ``count`` values are back, and why the others are not."""
    if isinstance(outcome, Value):
        return count, None
    error = outcome.error if isinstance(outcome, Failed) else TimeoutError(f"not taken back: {outcome}")
    return len(error.values) if isinstance(error, Incomplete) else 0, error


def _refuse(values: Sequence[object]) -> None:
    raise LookupError(f"the source has no give_back: {len(values)} un-started values stay as polled")
