"""Sharing: how backlogged sources divide the capacity (rules P4 and P5).

Nothing is reserved for anyone. Each backlogged source may use its weight's part of the capacity, rounded up, and what
one cannot use the others do. Who goes first is the allocator's word: its credit is charged for items received.
A source with a long round trip is not polled for the first unit that falls free: a moment later there are more.
"""

from collections.abc import Iterable, Sequence

from resilience.allocation import CapacityAllocator
from resilience.polling.track import Track

__all__ = ["Sharing"]

LINGER = 0.05  # part of a round trip that a poll may wait for more units
LONGEST_LINGER = 0.05
SHORTEST_LINGER = 0.002  # below this the timer costs more than the poll


class Sharing:
    """Divides the capacity among sharers and remembers what each has received."""

    def __init__(self, tracks: Iterable[Track]) -> None:
        self._allocator: CapacityAllocator[str] = CapacityAllocator({t.name: t.source.weight for t in tracks})
        self._contenders: tuple[str, ...] = ()

    def started(self, track: Track) -> None:
        """Charge an item that starts to the source that brought it."""
        self._allocator.charge(track.name, 1, self._contenders)

    def contend(self, contenders: Iterable[Track]) -> None:
        """Say who wants units now; the credit of those who did not before is levelled."""
        names = tuple(track.name for track in contenders)
        if names == self._contenders:
            return
        for name in names:
            if name not in self._contenders:
                self._allocator.level(name, self._contenders)
        self._contenders = names

    def grants(
        self, sharers: Sequence[Track], takers: Sequence[Track], free: int, capacity: int, now: float
    ) -> list[tuple[Track, int]]:
        """Divide ``free`` units among the ``takers``, most owed first; those that were given back take one each."""
        if not takers or free < 1:
            return []
        shares = _shares(sharers, capacity)
        granted = []
        for track in self._by_credit(takers):
            most = 1 if track.is_owed else min(shares[track.name], track.source.max_batch or capacity)
            count = min(most, shares.get(track.name, capacity) - track.units, free)
            if count >= 1 and _is_ripe(track, count, most, now):
                granted.append((track, count))
                free -= count
        return granted

    def _by_credit(self, due: Sequence[Track]) -> Sequence[Track]:
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


def _is_ripe(track: Track, count: int, most: int, now: float) -> bool:
    """Whether a poll for ``count`` is worth its round trip now, or a few per cent of that trip later."""
    linger = min(track.trip * LINGER, LONGEST_LINGER)
    if count == most or linger < SHORTEST_LINGER:
        return True
    if track.ripe_at is None:
        track.ripe_at = now + linger
    return now >= track.ripe_at


def _fills_at(track: Track) -> float:
    cap = track.source.max_units
    return float("inf") if cap is None else cap / track.source.weight
