"""Results that should be on the disk and are not, because that failed: decided without clock, lock, thread or I/O.

They are sent from memory like all others, and writing is tried again. Meanwhile their destination should bring no more
work: what it brings would be as unsafe.
"""

import math

from resilience.delivery.parcel import Parcel
from resilience.events import Event, OutboxFailed, OutboxResumed

__all__ = ["Unwritten"]

_AGAIN_AFTER = 2.0  # seconds; a full disk does not get better by trying


class Unwritten:
    """Which results are not written down, by destination. Not thread-safe.

    Attributes:
        retry_at: when to try to write them again; ``inf`` while there are none.
        parcels: they; no destination without any.
    """

    def __init__(self) -> None:
        self.retry_at = math.inf
        self.parcels: dict[str, dict[Parcel, None]] = {}

    def count(self, name: str) -> int:
        """How many there are of a destination."""
        return len(self.parcels.get(name, ()))

    def add(self, name: str, parcel: Parcel, error: Exception, now: float) -> tuple[Event, ...]:
        """``parcel`` could not be written down, because of ``error``."""
        self.retry_at = min(self.retry_at, now + _AGAIN_AFTER)
        first = name not in self.parcels
        self.parcels.setdefault(name, {})[parcel] = None
        return (OutboxFailed(name, error),) if first else ()

    def remove(self, name: str, parcel: Parcel) -> tuple[Event, ...]:
        """``parcel`` is written down, or need not be any more."""
        parcels = self.parcels.get(name, {})
        if parcel not in parcels:
            return ()
        del parcels[parcel]
        if parcels:
            return ()
        del self.parcels[name]
        if not self.parcels:
            self.retry_at = math.inf
        return (OutboxResumed(name),)

    def postpone(self, name: str, parcel: Parcel) -> None:
        """``parcel`` could not be written again: others of its destination are tried before it next time."""
        parcels = self.parcels.get(name, {})
        if parcel in parcels:  # it may have been taken meanwhile
            del parcels[parcel]
            parcels[parcel] = None

    def due(self, now: float) -> list[tuple[str, Parcel]]:
        """Those to write now, oldest first in each destination; the next time is a while later."""
        if now < self.retry_at:
            return []
        self.retry_at = now + _AGAIN_AFTER
        return [(name, parcel) for name, parcels in self.parcels.items() for parcel in parcels]
