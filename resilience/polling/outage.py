"""Outage: which source is probed early when every one is open (rule P12)."""

import math
import random
from collections.abc import Iterable, Mapping

from resilience.outage import EarlyProbes
from resilience.polling.track import Track

__all__ = ["Outage"]


class Outage:
    """Decides who is probed early."""

    def __init__(self, rng: random.Random) -> None:
        self._probes = EarlyProbes(rng)

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
        opened = {t: early[t.name] for t in failing if early[t.name] <= now}  # who asked for a pause has it
        if not opened:
            return None
        first, at = self._probes.next_of(opened)
        return first, max(at, first.not_before)
