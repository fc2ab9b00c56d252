"""Probing: which sources get one unit outside the sum, and when (rules P2, P3 and P11)."""

from collections.abc import Iterable, Sequence

from resilience.polling.reasons import Why
from resilience.polling.sharing import share_of
from resilience.polling.track import Track

__all__ = ["is_crowded", "outsiders", "probes", "sharers"]

ROOM = 8  # suspect probes and held items that even the smallest capacity may have


def sharers(able: Iterable[Track], capacity: int, kept: int) -> list[Track]:
    """Those of the ``able`` sources that divide the capacity: the prompt backlogged ones; slow ones if those leave any.

    A poll that is overdue for the first time may be hung: its source leaves until it answers. A slow source stays, or
    whichever comes back first would take what the others were granted. ``kept`` units are kept free for some source.
    """
    backlogged = [t for t in able if t.backlogged and (t.slow or t.live is None or not t.live.overdue)]
    prompt = [t for t in backlogged if not t.slow]
    usable = sum(capacity if t.cap is None else t.cap for t in prompt)
    return prompt if usable >= capacity - kept + sum(t.kept for t in prompt) else backlogged


def outsiders(due: Iterable[Track], sharing: Sequence[Track], capacity: int) -> list[Track]:
    """Those of the ``due`` sources that stand outside the sum and may be probed.

    Not those that have what they would have as sharers: a slow source with long tasks would take all units otherwise.
    """
    outside = [t for t in due if t not in sharing and not t.is_owed]
    return [t for t in outside if not t.units or _has_room(t, sharing, capacity)]


def is_crowded(tracks: Iterable[Track], capacity: int) -> bool:
    """Whether there are more suspect sources than may be probed at a time.

    Then they are not to wait, or the last of two hundred would be asked after many waits of others.
    """
    return sum(t.suspect for t in tracks) > max(ROOM, capacity)


def probes(due: Iterable[Track], tracks: Iterable[Track], held: int, capacity: int) -> Sequence[Track]:
    """Those of the ``due`` sources that get a probe now, longest unpolled first.

    Suspect sources may bring items that nobody has room for: their probes in flight and the held items together stay
    below max(8, capacity).
    """
    room = max(ROOM, capacity) - held - sum(_is_suspect_probe(t) for t in tracks)
    chosen = []
    for track in sorted(due, key=lambda t: t.polled_at):
        if room <= 0:
            track.why = Why.CROWDED
            continue
        chosen.append(track)
        room -= track.suspect
    return chosen


def _has_room(track: Track, sharing: Sequence[Track], capacity: int) -> bool:
    if track.units < share_of(sharing, track, capacity):
        return True
    track.why = Why.SHARE_USED
    return False


def _is_suspect_probe(track: Track) -> bool:
    flight = track.live
    return flight is not None and flight.request.probe and not flight.overdue and track.suspect
