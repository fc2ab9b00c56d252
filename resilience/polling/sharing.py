"""Sharing: how backlogged sources divide the capacity (rules P4 and P5).

Nothing is reserved for anyone. Each backlogged source may use its weight's part of the capacity, rounded up, and what
one cannot use the others do. Who goes first is the allocator's word: its credit is charged for items received.
A source with a long round trip is not polled for the first unit that falls free: a moment later there are more.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction

import attrs

from resilience.allocation import CapacityAllocator
from resilience.polling.reasons import Why
from resilience.polling.reserving import missing
from resilience.polling.track import Track

__all__ = ["Room", "Sharing", "share_of"]

LINGER = 0.05  # part of a round trip that a poll may wait for more units
LONGEST_LINGER = 0.05
SHORTEST_LINGER = 0.002  # below this the timer costs more than the poll


@attrs.frozen(kw_only=True)
class Room:
    """How many of ``capacity`` units are free for grants.

    ``lent`` of them were granted to polls that are overdue, and ``kept`` are kept free for those that asked for it.
    """

    capacity: int
    free: int
    lent: int
    kept: int = 0


class Sharing:
    """Divides the capacity among sharers and remembers what each has received."""

    def __init__(self, tracks: Iterable[Track]) -> None:
        self._allocator: CapacityAllocator[str] = CapacityAllocator({t.name: t.source.weight for t in tracks})
        self._contenders: dict[str, Track] = {}
        self._weight = 0  # of all contenders
        self._links: dict[str, int] = {}  # items of chains that are not charged yet

    def credit(self, name: str) -> Fraction:
        """Units that the source called ``name`` is owed; negative when it had more than its share."""
        self.settle()
        return self._allocator.credit(name)

    def add(self, track: Track) -> None:
        """Let ``track`` take part, or give it the weight that its source has now; it keeps its credit."""
        self.settle()
        self._allocator.set_weight(track.name, track.source.weight)
        self._weigh()

    def remove(self, track: Track) -> None:
        """Forget ``track``; its credit goes to the others."""
        self.settle()
        self._contenders.pop(track.name, None)
        self._allocator.remove(track.name)
        self._weigh()

    def linked(self, track: Track) -> None:
        """Note that an item came and started while nothing was to be decided; `settle` charges it later."""
        self._links[track.name] = self._links.get(track.name, 0) + 1

    def settle(self) -> None:
        """Charge what was only noted."""
        if not self._links:
            return
        links, self._links = self._links, {}
        self.received(sum(links.values()))
        for name, count in links.items():
            self._allocator.charge(name, count, self._contenders)
        for name in links:
            self._allocator.level(name, self._contenders)

    def started(self, track: Track) -> None:
        """Charge an item that starts to the source that brought it."""
        self._allocator.charge(track.name, 1, self._contenders)
        self._allocator.level(track.name, self._contenders)  # or those whose share is in use would pile up credit

    def received(self, count: int) -> None:
        """Note that ``count`` items came: who has no unit now waits for as many more starts of others."""
        for track in self._contenders.values():
            track.waited_for = 0 if track.units else track.waited_for + count

    def contend(self, contenders: Iterable[Track]) -> None:
        """Say who wants units now; the credit of those who did not before is levelled with those who did."""
        found = {track.name: track for track in contenders}
        if found.keys() == self._contenders.keys():
            return
        present = [name for name in self._contenders if name in found]
        for name, track in found.items():
            if name not in self._contenders:
                self._allocator.level(name, present)
                present.append(name)
                track.waited_for = 0
        self._contenders = found
        self._weigh()

    def starves(self, takers: Iterable[Track]) -> bool:
        """Whether one of ``takers`` has waited for long enough and still has nothing: then nothing may come before."""
        return any(self._is_urgent(track) and not track.units for track in takers)

    def grants(
        self, sharers: Sequence[Track], takers: Sequence[Track], room: Room, now: float
    ) -> list[tuple[Track, int]]:
        """Divide the free units among the ``takers``, those with the most credit first.

        A source whose items went back takes one unit, and none that is only lent: what it brings is to start.
        """
        free, kept, capacity = room.free, room.kept, room.capacity
        if free < 1:
            return []
        shares = _shares(sharers, capacity)
        granted = []
        for track in self.in_turn(takers, capacity):
            share = shares.get(track.name) or share_of(sharers, track, capacity)
            most = 1 if track.is_owed else min(share, track.batch(capacity))
            own = missing(track, held=True) if kept else 0
            spare = free - (kept - own) - (room.lent if track.is_owed else 0)
            count = min(most, share - track.units, spare)
            if count < 1:
                track.why = Why.SHARE_USED if track.units >= share else Why.NO_UNIT
            elif count == most or self._is_urgent(track) or _is_ripe(track, now):
                granted.append((track, count))
                free -= count
                kept -= min(own, count)
            else:
                track.why = Why.LINGERING
        return granted

    def _weigh(self) -> None:
        self._weight = sum(track.source.weight for track in self._contenders.values())

    def in_turn(self, due: Sequence[Track], capacity: int) -> Sequence[Track]:
        """By credit; the urgent ones first, and last those that have their part of the capacity already."""
        if len(due) == 1:
            return due
        by_name = {track.name: track for track in due}
        by_credit = [by_name[name] for name in self._allocator.first(tuple(by_name))]
        return sorted(by_credit, key=lambda track: self._precedence(track, capacity))

    def _precedence(self, track: Track, capacity: int) -> tuple[int, bool]:
        """The smallest comes first: the longer it waits when urgent; then, whether it has its part already."""
        has_part = track.units * self._weight >= capacity * track.source.weight
        return -track.waited_for if self._is_urgent(track) else 0, has_part

    def _is_urgent(self, track: Track) -> bool:
        """Whether it has waited without a unit for as many starts of others as anyone is to wait for (rule P11)."""
        return track.waited_for * track.source.weight >= self._weight


def share_of(sharers: Sequence[Track], track: Track, capacity: int) -> int:
    """What ``track`` has of the capacity, or would have if it shared it too."""
    return _shares(sharers if track in sharers else [*sharers, track], capacity)[track.name]


def _shares(sharers: Sequence[Track], capacity: int) -> dict[str, int]:
    """Each sharer's part of the capacity, rounded up; what a capped one leaves goes to the others (water-filling).

    What is kept free for others is not theirs to divide.
    """
    weight = sum(track.source.weight for track in sharers)
    shares: dict[str, int] = {}
    if sharers and sharers[0].all_kept:
        capacity -= sharers[0].all_kept - sum(track.kept for track in sharers)
    for track in sorted(sharers, key=_fills_at):
        part = -(-capacity * track.source.weight // weight)
        share = part if track.cap is None else min(part, track.cap)
        shares[track.name] = max(share, track.kept)
        if share < part:
            capacity -= share
            weight -= track.source.weight
    return shares


def _is_ripe(track: Track, now: float) -> bool:
    """Whether a poll for less than the source may have is worth its round trip now, or a few per cent of it later."""
    linger = min(track.trip * LINGER, LONGEST_LINGER)
    if linger < SHORTEST_LINGER:
        return True
    if track.ripe_at is None:
        track.ripe_at = now + linger
    return now >= track.ripe_at


def _fills_at(track: Track) -> float:
    return float("inf") if track.cap is None else track.cap / track.source.weight
