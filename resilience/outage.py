"""Outage: when everything is down the fault is likely ours, and nobody waits for a breaker's reset (rule P12). Pure.

The one open longest is probed early, then the next, one at a time for all who share the breakers: the breakers know
when each of them opened, a probe that is out or failed included, and that is all that is looked at.
"""

import random
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["EarlyProbes"]

K = TypeVar("K")

PAUSE = 5.0  # seconds between two early probes
JITTER = 0.5  # or all workers that lost the network at the same moment would come back at the same moments


class EarlyProbes:
    """Decides who is probed early; its pause is drawn once, so that workers differ."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pause = 0.0

    def next_of(self, opened: Mapping[K, float]) -> tuple[K, float]:
        """Whom to probe, and from when on: ``opened`` says since when each is open (``CircuitBreaker.early_at``)."""
        self._pause = self._pause or PAUSE * (1 + JITTER * self._rng.random())
        return min(opened, key=lambda one: opened[one]), max(opened.values()) + self._pause
