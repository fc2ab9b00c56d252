"""Reserving: units kept free for a source that asked for it (the option ``reserve``, an exception to rule P4).

They bound what the others may have at most, and what may start now: an item that nobody kept a unit for, like that of a
probe, does not take one that is kept for another source. Units that were granted and are lent since their poll is
overdue do not count: whoever reserved has a unit when its items come.
"""

from collections.abc import Iterable
from typing import Any

from resilience.polling.source import Source
from resilience.polling.track import Track

__all__ = ["check_reserves", "fitting", "kept_free", "missing", "settle_caps"]


def check_reserves(sources: Iterable[Source[Any]], capacity: int) -> None:
    """Refuse reserves that leave no unit for everybody.

    Raises:
        ValueError: their sum reaches ``capacity``.
    """
    reserves = {source.name: source.reserve for source in sources if source.reserve}
    if sum(reserves.values()) >= capacity and reserves:
        told = " + ".join(f"{count} ({name})" for name, count in reserves.items())
        raise ValueError(
            f"the reserves {told} leave none of {capacity} units for everybody: reserve less, or raise the capacity"
        )


def settle_caps(tracks: Iterable[Track], capacity: int) -> None:
    """Note how many units are kept for each source, and so how many each may have at most; one that pauses has none."""
    told = list(tracks)
    for track in told:
        track.kept = 0 if track.paused else track.source.reserve
    total = sum(track.kept for track in told)
    for track in told:
        track.all_kept = total
        others, most = total - track.kept, track.source.max_units
        track.cap = most if not others else min(capacity - others, capacity if most is None else most)


def missing(track: Track, *, held: bool) -> int:
    """How many of the units kept for ``track`` are to stay free; ``held``: items that it holds have theirs already."""
    if not track.kept:
        return 0
    flight = track.live
    granted = 0 if flight is None or flight.is_lent else flight.granted
    return max(0, track.kept - track.executing - granted - (track.held if held else 0))


def kept_free(tracks: Iterable[Track]) -> int:
    """How many units nobody else may be granted."""
    return sum(missing(track, held=True) for track in tracks)


def fitting(wanting: Iterable[Track], tracks: Iterable[Track], free: int) -> list[bool]:
    """Of items that want to start, in turn, each named by its source: which may, with ``free`` units."""
    short = {track.name: missing(track, held=False) for track in tracks}
    kept = sum(short.values())
    may = []
    for track in wanting:
        own = short.get(track.name, 0)
        may.append(free - (kept - own) >= 1)
        if may[-1]:
            free -= 1
            short[track.name] = max(0, own - 1)
            kept -= min(own, 1)
    return may
