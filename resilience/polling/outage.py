"""Outage: when every source is open the fault is likely ours, and nobody waits for its breaker's reset (rule P12).

The one open longest is probed early, then the next, one at a time for all pollers that share the breakers: the breakers
know when each of them opened, a probe that is out or failed included, and that is all that is looked at.
"""

import math
import random
from collections.abc import Iterable, Mapping

from resilience.polling.track import Track

__all__ = ["Outage"]

PAUSE = 5.0  # seconds between two early probes
JITTER = 0.5  # or all workers that lost the network at the same moment would come back at the same moments


class Outage:
    """Decides who is probed early; its pause is drawn once, so that workers differ."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pause = 0.0

    def next_probe(
        self, able: Iterable[Track], gates: Mapping[str, float], early: Mapping[str, float], now: float
    ) -> tuple[Track, float] | None:
        """Whom to probe early, and from when on; None unless all of the ``able`` sources are open.

        One whose breaker was forced open does not count: somebody wanted that.
        """
        if not early:
            return None
        failing = [t for t in able if gates.get(t.name) != math.inf]
        if any(t.name not in early or t.live is not None for t in failing):
            return None
        opened = [(early[t.name], t) for t in failing if early[t.name] <= now]  # who asked for a pause has it
        if not opened:
            return None
        self._pause = self._pause or PAUSE * (1 + JITTER * self._rng.random())
        first = min(opened, key=lambda entry: entry[0])[1]
        return first, max(max(at for at, _ in opened) + self._pause, first.not_before)
