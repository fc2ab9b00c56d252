"""Pauses between attempts: growing, jittered, and never shorter than the other side asked for."""

import math
import random

import attrs

from resilience._checks import number
from resilience.errors import MAX_RETRY_AFTER

__all__ = ["Backoff"]


@attrs.frozen
class Backoff:
    """A rule for the pause before the next attempt; it is stateless, so any number of threads can share an instance.

    The pause is ``initial`` seconds after the first failed attempt, and ``factor`` times as long after each further
    one, up to ``maximum``; a random fraction of up to ``jitter`` is then subtracted, so that many clients do not retry
    at the same moment.

    Attributes:
        initial: seconds after the first failed attempt, above 0.
        maximum: the longest pause in seconds, at least ``initial``; only a hint can make it longer.
        factor: growth per attempt, at least 1.
        jitter: the fraction, 0 to 1, by which a pause can be shorter.
        max_retry_after: the longest pause in seconds that a hint can ask for.

    Raises:
        ValueError: a number is out of range.
        TypeError: a value is not a number.
    """

    initial: float = attrs.field(validator=number(0, exclusive=True))
    maximum: float = attrs.field(validator=number(0, exclusive=True))
    factor: float = attrs.field(default=2.0, validator=number(1))
    jitter: float = attrs.field(default=0.5, validator=number(0))
    max_retry_after: float = attrs.field(default=MAX_RETRY_AFTER, validator=number(0, exclusive=True), kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.maximum < self.initial:
            raise ValueError(
                f"maximum ({self.maximum!r}) is below initial ({self.initial!r}): raise one or lower the other"
            )
        if self.jitter > 1:
            raise ValueError(f"jitter must be a fraction of at most 1, not {self.jitter!r}: 0.5 subtracts up to a half")

    def delay(self, attempt: int, *, rng: random.Random, hint: float = 0.0) -> float:
        """The seconds to wait after failed attempt number ``attempt``.

        Args:
            attempt: the number of the attempt, from 1.
            rng: the source of the jitter; exactly one draw per call.
            hint: seconds that the other side asked for (Retry-After), limited to ``max_retry_after``; the pause is at
                least that long. A value that is not finite is ignored.

        Raises:
            ValueError: ``attempt`` is below 1.
        """
        if attempt < 1:
            raise ValueError(f"attempts count from 1, not {attempt!r}: ask after an attempt has failed")
        pause = self._grown(attempt - 1) * (1 - self.jitter * rng.random())
        return max(pause, min(hint, self.max_retry_after)) if math.isfinite(hint) else pause

    def _grown(self, steps: int) -> float:
        try:
            return min(self.initial * float(self.factor) ** steps, self.maximum)
        except OverflowError:  # after many attempts
            return self.maximum
