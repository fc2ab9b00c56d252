"""Holding: items that have arrived and not started, and what polls in flight keep reserved (rules P2 and P8)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from resilience.polling.source import PollRequest
from resilience.polling.track import Flight, Track

__all__ = ["HELD_TOO_LONG", "Held", "Holding", "lend", "reserved", "settle_debt"]

LONGEST_DEBT = 64
HELD_TOO_LONG = "held too long"


@attrs.frozen
class Held:
    """One item that has arrived and not started, since clock time ``since``; ``reason`` is why it goes back."""

    track: Track
    value: object
    since: float
    reason: str = HELD_TOO_LONG


class Holding:
    """Items wait here and start in the order they came, those first for which a unit was kept."""

    def __init__(self) -> None:
        self._owed: deque[Held] = deque()
        self._others: deque[Held] = deque()

    def __len__(self) -> int:
        return len(self._owed) + len(self._others)

    def __iter__(self) -> Iterator[Held]:
        yield from self._owed
        yield from self._others

    def add(self, track: Track, values: Sequence[object], now: float, *, owed: bool) -> None:
        """Hold ``values`` that ``track``'s source brought; for ``owed`` ones a unit was kept, which is theirs."""
        (self._owed if owed else self._others).extend(Held(track, value, now) for value in values)
        track.held += len(values)

    def start(self, count: int) -> list[Held]:
        """The next ``count`` items, which from now on are executing."""
        return self._begun([(self._owed or self._others).popleft() for _ in range(min(count, len(self)))])

    def start_some(self, may: Sequence[bool], count: int) -> list[Held]:
        """The first ``count`` of those items that ``may`` start, which from now on are executing."""
        chosen = [item for item, fits in zip(self, may, strict=True) if fits][:count]
        self._take_out(chosen)
        return self._begun(chosen)

    def put_back(self, items: Sequence[Held]) -> None:
        """These did not start after all: they are the next to start."""
        self._owed.extendleft(reversed(items))
        for item in items:
            item.track.held += 1

    def drop(self, is_lost: Callable[[object], bool]) -> None:
        """Take out the items whose value is lost."""
        lost = [item for item in self if is_lost(item.value)]
        self._take_out(lost)
        for item in lost:
            item.track.held -= 1
            item.track.counts.dropped += 1

    def withdraw(self, track: Track) -> list[Held]:
        """Take out all items of ``track``."""
        items = [item for item in self if item.track is track]
        self._take_out(items)
        track.held = 0
        track.counts.leave(len(items))
        return items

    def _take_out(self, items: Sequence[Held]) -> None:
        out = set(map(id, items))
        self._owed = deque(item for item in self._owed if id(item) not in out)
        self._others = deque(item for item in self._others if id(item) not in out)

    def _begun(self, started: list[Held]) -> list[Held]:
        for item in started:
            item.track.held -= 1
            item.track.executing += 1
            item.track.counts.started += 1
        return started

    def oldest(self) -> float | None:
        """Since when the item held longest has been held."""
        return min((items[0].since for items in (self._owed, self._others) if items), default=None)

    def give_back(self, now: float, max_hold: float) -> list[Held]:
        """The items that have been held for ``max_hold`` seconds; their sources are owed from now on."""
        given: list[Held] = []
        if not self:
            return given
        for items in (self._owed, self._others):
            while items and items[0].since + max_hold <= now:
                given.append(items.popleft())
        for item in given:
            item.track.held -= 1
            item.track.counts.leave(1)
        for track in dict.fromkeys(item.track for item in given):
            track.debt = min(track.debt * 2 or 1, LONGEST_DEBT)
            track.owed = track.debt
        return given


def settle_debt(track: Track) -> None:
    """Note an answer of a source that may be owed: a short one clears its debt."""
    track.owed = max(0, track.owed - 1)
    if not track.full:
        track.debt = track.owed = 0


def lend(tracks: Iterable[Track], now: float) -> list[PollRequest]:
    """From now on what polls that have become overdue were granted is lent; returns those polls."""
    flights = [t.live for t in tracks if t.live is not None and not t.live.overdue and now >= t.live.overdue_at]
    for flight in flights:
        flight.overdue = True
    return [flight.request for flight in flights]


def forget(flights: Iterable[Flight], now: float) -> None:
    """Nobody waits any more for those polls of removed sources that have become overdue."""
    for flight in flights:
        flight.overdue = flight.overdue or now >= flight.overdue_at


def reserved(tracks: Iterable[Track], capacity: int) -> int:
    """Units of the sum that polls in flight keep: what overdue and abandoned ones were granted is lent.

    No more than ``capacity`` units are ever lent.
    """
    prompt = overdue = abandoned = 0
    for track in tracks:
        flight = track.live
        if flight is not None and flight.granted:
            if flight.is_lent:
                overdue += flight.granted
            else:
                prompt += flight.granted
        if track.abandoned:
            abandoned += sum(flight.granted for flight in track.abandoned.values())
    return prompt + max(0, overdue - max(0, capacity - abandoned))
