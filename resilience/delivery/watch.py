"""Exchanges: sends whose answer may bring the next value, and how long their units wait for it.

They run in the unit's own thread, without a thread of the relay's between: where that takes too long it is the unit
that leaves, and the thread goes on without it. A value that comes then is late. If the send were cut off, the value
would be lost.
"""

import math

from resilience.delivery.attempt import Attempt

__all__ = ["Watch"]


class Watch:
    """Which exchanges are under way, and when somebody is to look after them. Not thread-safe: the ledger guards it.

    Attributes:
        wake_at: when whoever looks after them does so next; ``-inf`` while awake.
    """

    def __init__(self) -> None:
        self.wake_at = -math.inf
        self._deadlines: dict[Attempt, float] = {}

    def __contains__(self, attempt: Attempt) -> bool:
        return attempt in self._deadlines

    def set(self, attempt: Attempt, deadline: float) -> bool:
        """Look after ``attempt`` at ``deadline``; returns whether that is earlier than planned."""
        self._deadlines[attempt] = deadline
        return deadline < self.wake_at

    def remove(self, attempt: Attempt) -> None:
        """It has ended, or nobody waits for it any more."""
        self._deadlines.pop(attempt, None)

    def due(self, now: float) -> list[Attempt]:
        """Those to look after now."""
        return [attempt for attempt, deadline in self._deadlines.items() if deadline <= now]

    def next_at(self) -> float:
        """When the next one is due; ``inf`` without any."""
        return min(self._deadlines.values(), default=math.inf)
