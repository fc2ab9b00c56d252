"""Readiness: who may be polled at all, and who is due; each refusal leaves its reason (rules P1, P3, P6 and P13)."""

from collections.abc import Mapping

from resilience.polling.reasons import Why
from resilience.polling.track import Track

__all__ = ["is_able", "is_due", "is_open"]


def is_open(track: Track, now: float, gates: Mapping[str, float]) -> bool:
    """Whether the gate of its breaker is still shut."""
    return now < gates.get(track.name, now)


def is_able(track: Track, max_abandoned: int) -> bool:
    """Whether it may be polled as far as others than itself and its breaker are concerned."""
    if track.paused:
        track.why = Why.PAUSED
    elif not track.delivering:
        track.why = Why.UNDELIVERED
    elif len(track.abandoned) >= max_abandoned:
        track.why = Why.ABANDONED
    else:
        return True
    return False


def is_due(track: Track, now: float, gates: Mapping[str, float]) -> bool:
    """Whether an able source may be polled now, if there is a unit for it."""
    if track.live is not None:
        track.why = Why.IN_FLIGHT
    elif gates and is_open(track, now, gates):
        track.why = Why.OPEN
    elif now < track.not_before:
        track.why = Why.RESTING
    else:
        track.why = Why.NO_UNIT  # unless one is found
        return True
    return False
