"""Sharing: how backlogged sources divide the capacity (rules P4 and P5).

Nothing is reserved for anyone. Each backlogged source may use its weight's part of the capacity, rounded up, and what
one cannot use the others do. Who goes first is the allocator's word: its credit is charged for items received.
"""

from collections.abc import Iterable, Sequence

from resilience.allocation import CapacityAllocator
from resilience.polling.track import Track

__all__ = ["Sharing"]


class Sharing:
    """Divides the capacity among sharers and remembers what each has received."""

    def __init__(self, tracks: Iterable[Track]) -> None:
        self._allocator: CapacityAllocator[str] = CapacityAllocator({t.name: t.source.weight for t in tracks})
        self._sharers: tuple[str, ...] = ()

    def received(self, track: Track, count: int) -> None:
        """Charge ``count`` items to the source that brought them."""
        if count:
            self._allocator.charge(track.name, count, self._sharers)

    def join(self, track: Track) -> None:
        """Level the credit of a source that has become backlogged."""
        self._allocator.level(track.name, self._sharers)

    def grants(
        self, sharers: Sequence[Track], due: Sequence[Track], free: int, capacity: int
    ) -> list[tuple[Track, int]]:
        """Divide ``free`` units among those of ``sharers`` that are ``due``, most owed first."""
        self._sharers = tuple(track.name for track in sharers)
        if not due or free < 1:
            return []
        shares = _shares(sharers, capacity)
        granted = []
        for track in self._most_owed_first(due):
            count = min(shares[track.name] - track.units, free, track.source.max_batch or free)
            if count >= 1:
                granted.append((track, count))
                free -= count
        return granted

    def _most_owed_first(self, due: Sequence[Track]) -> Sequence[Track]:
        if len(due) == 1:
            return due
        by_name = {track.name: track for track in due}
        return [by_name[name] for name in self._allocator.first(tuple(by_name))]


def _shares(sharers: Sequence[Track], capacity: int) -> dict[str, int]:
    """Each sharer's part of the capacity, rounded up; what a capped one leaves goes to the others (water-filling)."""
    weight = sum(track.source.weight for track in sharers)
    shares = {}
    for track in sorted(sharers, key=_fills_at):
        part = -(-capacity * track.source.weight // weight)
        cap = track.source.max_units
        share = part if cap is None else min(part, cap)
        shares[track.name] = share
        if share < part:
            capacity -= share
            weight -= track.source.weight
    return shares


def _fills_at(track: Track) -> float:
    cap = track.source.max_units
    return float("inf") if cap is None else cap / track.source.weight
