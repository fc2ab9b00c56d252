"""Pausing: when a source may be polled again (rule P6)."""

import random

from resilience.backoff import Backoff
from resilience.errors import Throttled
from resilience.polling.track import Track

__all__ = ["Pausing", "pause_asked"]

FAILURE = Backoff(initial=0.05, maximum=1.0)
FIRST_EMPTY = 0.002
LONGEST_EMPTY = 0.1
LONGEST_EMPTY_PER_SOURCE = 0.01
FOR_EVER = 1e9  # seconds
WAIT_USED = 0.9  # a server's clock and ours differ a little: this part of the wait counts as all of it


def pause_asked(error: BaseException) -> float:
    """The seconds for which a source that raised ``error`` asks to be left alone."""
    asked = error.retry_after if isinstance(error, Throttled) else 0.0
    return float(min(asked, FOR_EVER)) if isinstance(asked, (int, float)) else 0.0


class Pausing:
    """Pauses are per source: short and growing after empty answers, longer after failures, none after a used wait."""

    def __init__(self, sources: int, rng: random.Random) -> None:
        self._rng = rng
        self.count_sources(sources)

    def count_sources(self, sources: int) -> None:
        """Say how many sources there are: with many, each is asked less often."""
        longest = max(LONGEST_EMPTY, sources * LONGEST_EMPTY_PER_SOURCE)
        self._empty = Backoff(initial=FIRST_EMPTY, maximum=longest)

    def after_answer(self, track: Track, count: int, waited: float, wait: float, now: float) -> None:
        """Note an answer of ``count`` items that took ``waited`` seconds of the ``wait`` it was allowed."""
        track.failures = 0
        track.not_before = now
        if count or (wait and waited >= wait * WAIT_USED):
            track.empties = 0
            return
        track.empties += 1
        track.rests_after = "after an empty answer"
        track.not_before = now + self._empty.delay(track.empties, rng=self._rng)

    def after_failure(self, track: Track, now: float, hint: float) -> None:
        """Note a failure; ``hint`` is the pause that the source asked for, in seconds."""
        track.empties = 0
        track.failures += 1
        track.rests_after = "after a failure"
        track.not_before = now + FAILURE.delay(track.failures, rng=self._rng, hint=hint)

    def after_rejection(self, track: Track, now: float, retry_after: float | None) -> None:
        """Note that a poll never ran; this says nothing about the source.

        Its breaker's gate knows best how long it lasts, and may open sooner than ``retry_after`` says.
        """
        track.rests_after = "because its poll was not let through"
        pause = FAILURE.initial if retry_after is None else retry_after
        track.not_before = now + min(max(pause, FAILURE.initial), FAILURE.maximum)
