"""Giving back: un-started values go home to their own source, bounded in time, with a word about how it went."""

from collections.abc import Callable, Sequence
from functools import partial

from resilience._checks import refuse_unrun
from resilience.errors import Incomplete
from resilience.events import GaveBack, GiveBackFailed, Listener, notify
from resilience.fan_out import FanOutExecutor
from resilience.outcomes import Failed, Outcome, Value
from resilience.polling.heartbeats import bare
from resilience.polling.holding import Held
from resilience.polling.track import Track

__all__ = ["Returns"]

TIMEOUT = 5.0  # of one give-back; the values of a source that does not take them come back when it times them out
AT_ONCE = 20  # values for which that is enough


class Returns:
    """Gives values back to their sources. Thread-safe; no lock is held while a source is called.

    Args:
        clock: monotonic seconds.
        on_event: told `GaveBack` or `GiveBackFailed` for every give-back.
        on_settled: told of each last: whose values they were, how many are back, and how many were not taken.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        on_event: Listener | None,
        on_settled: Callable[[Track, int, int], None],
    ) -> None:
        self._on_event = on_event
        self._on_settled = on_settled
        self._clock = clock
        self._executor = FanOutExecutor(clock=clock)
        self._session = self._executor.session()

    def send(self, items: list[Held], reason_of: Callable[[Held], str]) -> None:
        """Give back ``items``, each for its reason, and take them off the list; returns at once.

        If something raises meanwhile, such as a signal handler, what is still on the list was not touched.
        """
        while items:
            track, reason = items[0].track, reason_of(items[0])
            some = [held for held in items if held.track is track and reason_of(held) == reason]
            settled = partial(self._settled, track, [len(some)], reason)
            try:
                items[:] = [held for held in items if all(held is not sent for sent in some)]
                values = [bare(held.value) for held in some]
                timeout = TIMEOUT * -(-len(values) // AT_ONCE)
                call = partial(_give_back, track.source.give_back or _refuse, values)
                self._start(track.name, call, settled, timeout)
            except BaseException as error:
                if all(held is not some[0] for held in items):  # it may be on its way: what comes first is the outcome
                    settled(track.name, Failed(error, 0.0))
                raise

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

    def _settled(self, track: Track, once: list[int], reason: str, source: str, outcome: Outcome[object]) -> None:
        if not once:
            return
        count = once.pop()
        back, error = _what_came_of(outcome, count)
        try:
            if back:
                notify(self._on_event, GaveBack(source, back, reason))
            if error is not None:
                notify(self._on_event, GiveBackFailed(source, count - back, error))
        finally:
            self._on_settled(track, back, count - back)


def _what_came_of(outcome: Outcome[object], count: int) -> tuple[int, BaseException | None]:
    """How many of ``count`` values are back, and why the others are not."""
    if isinstance(outcome, Value):
        return count, None
    error = outcome.error if isinstance(outcome, Failed) else TimeoutError(f"not taken back: {outcome}")
    return min(len(error.values), count) if isinstance(error, Incomplete) else 0, error


def _give_back(give_back: Callable[[Sequence[object]], object], values: Sequence[object]) -> None:
    refuse_unrun("give_back", give_back(values))


def _refuse(values: Sequence[object]) -> None:
    raise LookupError(f"the source has no give_back: {len(values)} un-started values stay as polled")
