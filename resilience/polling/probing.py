"""Probing: which sources get one unit outside the sum, and when (rules P2, P3 and P11)."""

from collections.abc import Iterable, Sequence

from resilience.polling.track import Track

__all__ = ["probes", "sharers"]

ROOM = 8  # suspect probes and held items that even the smallest capacity may have


def sharers(able: Iterable[Track]) -> list[Track]:
    """Those of the ``able`` sources that divide the capacity: the prompt backlogged ones, else the slow ones."""
    backlogged = [t for t in able if t.backlogged and not (t.live is not None and t.live.overdue)]
    return [t for t in backlogged if not t.slow] or backlogged


def probes(due: Iterable[Track], tracks: Iterable[Track], held: int, capacity: int) -> Sequence[Track]:
    """Those of the ``due`` sources that get a probe now, longest unpolled first.

    Suspect sources may bring items that nobody has room for: their probes in flight and the held items together stay
    below max(8, capacity).
    """
    room = max(ROOM, capacity) - held - sum(_is_suspect_probe(t) for t in tracks)
    chosen = []
    for track in sorted(due, key=lambda t: t.polled_at):
        if room <= 0:
            break
        chosen.append(track)
        room -= track.suspect
    return chosen


def _is_suspect_probe(track: Track) -> bool:
    flight = track.live
    return flight is not None and flight.request.probe and not flight.overdue and track.suspect
