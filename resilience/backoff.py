"""When to try again: growing, jittered, and never sooner than the other side asked for."""

import math
import random

import attrs

from resilience._checks import number
from resilience.errors import MAX_RETRY_AFTER

__all__ = ["Backoff"]


@attrs.frozen
class Backoff:
    """A rule for the pause before the next attempt; it keeps no state, so one instance serves any number of threads.

    The pause is ``initial`` seconds after the first failed attempt, ``factor`` times as long after each further one,
    at most ``maximum``; a random part of up to ``jitter`` is then taken off, so that many clients do not come back at
    the same moment.

    Attributes:
        initial: seconds after the first failed attempt, above 0.
        maximum: the longest pause in seconds, at least ``initial``; only a hint makes it longer.
        factor: growth per attempt, at least 1.
        jitter: the fraction, 0 to 1, by which a pause may be shorter.
        max_retry_after: the longest pause in seconds that a hint can ask for.

    Raises:
        ValueError: for a number out of range.
        TypeError: for something that is no number.
    """

    initial: float = attrs.field(validator=number(0, exclusive=True))
    maximum: float = attrs.field(validator=number(0, exclusive=True))
    factor: float = attrs.field(default=2.0, validator=number(1))
    jitter: float = attrs.field(default=0.5, validator=number(0))
    max_retry_after: float = attrs.field(default=MAX_RETRY_AFTER, validator=number(0, exclusive=True), kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.maximum < self.initial:
            raise ValueError(
                f"maximum ({self.maximum!r}) is below initial ({self.initial!r}): raise the one or lower the other"
            )
        if self.jitter > 1:
            raise ValueError(f"jitter must be a fraction of at most 1, not {self.jitter!r}: 0.5 takes off up to a half")

    def delay(self, attempt: int, *, rng: random.Random, hint: float = 0.0) -> float:
        """The seconds to wait after failed attempt number ``attempt``.

        Args:
            attempt: counts from 1.
            rng: where the jitter is drawn from, exactly one draw a call.
            hint: seconds the other side asked for (Retry-After); the pause is at least that long, but for no
                more than ``max_retry_after``. Not finite: ignored.

        Raises:
            ValueError: when ``attempt`` is below 1.
        """
        if attempt < 1:
            raise ValueError(f"attempts count from 1, not {attempt!r}: ask after an attempt has failed")
        pause = self._grown(attempt - 1) * (1 - self.jitter * rng.random())
        return max(pause, min(hint, self.max_retry_after)) if math.isfinite(hint) else pause

    def _grown(self, steps: int) -> float:
        try:
            return min(self.initial * float(self.factor) ** steps, self.maximum)
        except OverflowError:  # long before a patient client stops trying
            return self.maximum
