"""Outages: if all breakers are open the fault is probably local, so there is no wait for a reset (rule P12). Pure.

The breaker open longest is probed early, then the next, one at a time for all users of the breakers: only the times at
which the breakers opened are used, which include probes that are in flight or failed.
"""

import random
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["EarlyProbes"]

K = TypeVar("K")

PAUSE = 5.0  # seconds between two early probes
JITTER = 0.5  # otherwise all workers that lost the network at the same moment would retry at the same moments


class EarlyProbes:
    """Decides which breaker is probed early; its pause is drawn once, so that workers differ."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pause = 0.0

    def next_of(self, opened: Mapping[K, float]) -> tuple[K, float]:
        """The breaker to probe, and from what time on; ``opened`` is the time each one opened (``early_at``)."""
        self._pause = self._pause or PAUSE * (1 + JITTER * self._rng.random())
        return min(opened, key=lambda one: opened[one]), max(opened.values()) + self._pause
