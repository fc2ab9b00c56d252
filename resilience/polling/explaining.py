"""Explaining: a plan's reasons in words that a person understands (rule P10). Nothing is decided here."""

import math
from collections.abc import Callable, Mapping, Sequence

import attrs

from resilience.polling.readiness import is_open
from resilience.polling.reasons import Explanation, Why
from resilience.polling.sharing import share_of
from resilience.polling.source import PollRequest
from resilience.polling.track import Flight, Track

__all__ = ["Look", "explain"]


@attrs.frozen
class Look:
    """What a plan sees: the time, and from when each source whose breaker is not closed may be probed."""

    now: float
    gates: Mapping[str, float]


def explain(
    track: Track, sharers: Sequence[Track], capacity: int, look: Look, request: PollRequest | None
) -> Explanation:
    """Put into words what came of ``track`` in a plan that has just been made.

    Args:
        track: as the plan left it.
        sharers: who divides the capacity.
        capacity: all units.
        look: what the plan saw.
        request: the poll that it sent, if any.
    """
    share = share_of(sharers, track, capacity)
    granted = 0 if request is None else request.count
    inside = 0 if request is None or request.probe else granted
    return Explanation(
        source=track.name,
        state=track.state,
        why=track.why,
        granted=granted,
        units=track.units - inside,
        share=share,
        until=_until(track, look),
        reason=_WORDS[track.why](track, track.units - inside, share, look),
    )


def _until(track: Track, look: Look) -> float | None:
    if track.why is Why.OPEN:
        return look.gates[track.name]
    if track.why is Why.RESTING:
        return track.not_before
    return track.ripe_at if track.why is Why.LINGERING else None


def _granted(track: Track, units: int, share: int, _: Look) -> str:
    asks = f"{units} of its share of {share} in use, asks for {track.units - units}"
    return f"{track.state}: {asks}" if not track.is_owed else f"owed for items that went back: {asks}"


def _probed(track: Track, units: int, _share: int, look: Look) -> str:
    if is_open(track, look.now, look.gates):
        return "open like every source, so the fault is likely here: probed early for one unit"
    more = f", {units} in use" if units else ""
    half_open = "its breaker may let one call through; " if track.name in look.gates else ""
    return f"{half_open}{track.state}: probed for one unit{more}"


def _in_flight(track: Track, _units: int, _share: int, look: Look) -> str:
    flight: Flight = track.live  # type: ignore[assignment] # or it would have another reason
    asked = f"asked for {flight.request.count} {_seconds(look.now - flight.sent_at)} ago"
    return f"{asked}: overdue, others may use what it was granted" if flight.overdue else f"{asked}, no answer yet"


def _open(track: Track, _units: int, _share: int, look: Look) -> str:
    at = look.gates[track.name]
    return "forced open" if at == math.inf else f"open: next probe in {_seconds(at - look.now)}"


def _resting(track: Track, _units: int, _share: int, look: Look) -> str:
    return f"paused for {_seconds(track.not_before - look.now)} {track.rests_after}"


def _share_used(track: Track, units: int, share: int, _: Look) -> str:
    what = f"its max_units of {share}" if share == track.source.max_units else f"its share of {share}"
    return f"{track.state}: has {units} {'unit' if units == 1 else 'units'} already, {what}"


def _paused(track: Track, *_: object) -> str:
    why = "its poll() returned what cannot be taken in" if track.broken else "somebody paused it"
    return f"not polled: {why}"


def _abandoned(track: Track, *_: object) -> str:
    number = len(track.abandoned)
    return f"not polled: {number} abandoned {'poll' if number == 1 else 'polls'} still running"


def _lingering(track: Track, units: int, share: int, look: Look) -> str:
    rest = _seconds((track.ripe_at or look.now) - look.now)
    return f"{track.state}: {units} of its share of {share} in use, waits {rest} for more units: its round trip is long"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


_WORDS: dict[Why, Callable[[Track, int, int, Look], str]] = {
    Why.GRANTED: _granted,
    Why.PROBED: _probed,
    Why.IN_FLIGHT: _in_flight,
    Why.OPEN: _open,
    Why.RESTING: _resting,
    Why.PAUSED: _paused,
    Why.UNDELIVERED: lambda *_: "not polled: its results do not arrive, or too slowly",
    Why.ABANDONED: _abandoned,
    Why.NO_UNIT: lambda *_: "due, but no unit is free",
    Why.SHARE_USED: _share_used,
    Why.LINGERING: _lingering,
    Why.YIELDING: lambda *_: "due, but somebody who has waited for long comes first",
    Why.CROWDED: lambda *_: "due, but there is no room for what it and others may bring",
    Why.STOPPED: lambda *_: "not polled: the poller has stopped",
}
