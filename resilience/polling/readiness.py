"""Readiness: who may be polled at all, and who is due; each refusal leaves its reason (rules P1, P3, P6 and P13)."""

from collections.abc import Mapping

import attrs

from resilience.polling.reasons import Why
from resilience.polling.track import Track

__all__ = ["Look", "is_able", "is_due"]


@attrs.frozen
class Look:
    """One look at the world.

    Attributes:
        now: the time.
        gates: for every source whose breaker is not closed, the time from which it may be probed.
        early: for every source whose breaker is open because of failures, the time from which it may be probed early.
    """

    now: float
    gates: Mapping[str, float]
    early: Mapping[str, float]

    def is_open(self, track: Track) -> bool:
        """Whether its breaker's gate is still shut."""
        return self.now < self.gates.get(track.name, self.now)


def is_able(track: Track, max_abandoned: int) -> bool:
    """Whether it may be polled as far as others than itself and its breaker are concerned."""
    if not track.delivering:
        track.why = Why.UNDELIVERED
    elif len(track.abandoned) >= max_abandoned:
        track.why = Why.ABANDONED
    else:
        return True
    return False


def is_due(track: Track, look: Look) -> bool:
    """Whether an able source may be polled now, if there is a unit for it."""
    if track.live is not None:
        track.why = Why.IN_FLIGHT
    elif look.is_open(track):
        track.why = Why.OPEN
    elif look.now < track.not_before:
        track.why = Why.RESTING
    else:
        track.why = Why.NO_UNIT  # unless one is found
        return True
    return False
