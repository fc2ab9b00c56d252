"""Reasons: why a source is polled now, or is not, as values.

Decisions leave them; `explaining` puts them into words.
"""

import enum

import attrs

__all__ = ["Explanation", "Why"]


class Why(enum.Enum):
    """Why a source is polled now, or is not."""

    GRANTED = "granted"
    """It is asked for units of its share, inside the capacity's sum."""
    PROBED = "probed"
    """It is asked for one unit outside the sum."""
    IN_FLIGHT = "in flight"
    """Its last poll has not come back."""
    OPEN = "open"
    """Its breaker is not closed."""
    RESTING = "resting"
    """It pauses after an empty answer, after a failure, or because somebody else has its breaker's probe."""
    PAUSED = "paused"
    """Somebody paused it, or its poll returned what cannot be taken in."""
    UNDELIVERED = "undelivered"
    """Its last delivery failed; its waiting results are the probes."""
    ABANDONED = "abandoned"
    """As many abandoned polls of it still run as may."""
    NO_UNIT = "no unit"
    """It is due, but no unit is free."""
    SHARE_USED = "share used"
    """It has its share of the units already, or as many as it may have at once."""
    LINGERING = "lingering"
    """It waits a moment for more units: its round trip is long."""
    YIELDING = "yielding"
    """Somebody who has waited for long comes first."""
    CROWDED = "crowded"
    """So many items are held, or may come from other suspect sources, that there is no room for more."""
    STOPPED = "stopped"
    """The poller has stopped."""


@attrs.frozen(kw_only=True)
class Explanation:
    """What a source is granted now, and why.

    Attributes:
        source: its name.
        state: ``suspect``, ``slow``, ``backlogged`` or ``caught up``.
        why: the reason, for programs.
        granted: how many values it is asked for now; 0 when it is not polled now.
        units: units that it executes, holds, and was granted before.
        share: units it may have while it shares the capacity with those that are backlogged now.
        until: the clock time at which this reason ends by itself; None when that is not known.
        reason: the reason in words.
    """

    source: str
    state: str
    why: Why
    granted: int
    units: int
    share: int
    until: float | None
    reason: str
