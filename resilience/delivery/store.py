"""Results that wait for their destination, and those that nobody will take: the rows, and what keeps them.

A store keeps rows; when each is sent is the schedule's business. ``MemoryStore`` keeps them as long as the process
lives, ``Outbox`` for longer.
"""

import itertools
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import attrs

from resilience._checks import check_whole

__all__ = ["Claimed", "DeadLetter", "MemoryStore", "Row", "Stock", "Store", "check_store"]

log = logging.getLogger("resilience.delivery")


@attrs.frozen
class Row:
    """One result, written down.

    Attributes:
        destination: the name of where it goes, and of nowhere else.
        identity: what that name stood for when the row was written (a URL, say).
        key: rows of one destination and key are sent in the order of their numbers.
        number: counts the results of the process that wrote them.
        payload: the result, in whatever form the destination sends it.
        id: what its store calls it; 0 until it is written.
    """

    destination: str
    identity: str
    key: str
    number: int
    payload: Any = attrs.field(repr=False)
    id: int = 0


@attrs.frozen
class DeadLetter:
    """A result that its destination refused for good.

    Attributes:
        row: the result as it was written down.
        reason: why, in the destination's words.
        at: when that was, in seconds since the epoch.
    """

    row: Row
    reason: str
    at: float = 0.0


@attrs.frozen
class Stock:
    """How much a store has for one destination.

    Attributes:
        destination: its name.
        identity: what the name stood for.
        waiting: results that wait, whoever is to send them.
        dead: dead letters.
        free: how many of the waiting ones no living process has.
    """

    destination: str
    identity: str
    waiting: int
    dead: int
    free: int = 0


@attrs.frozen
class Claimed:
    """What a look into the store brought.

    Attributes:
        rows: now ours to send, in their order.
        lost: ids of rows that were ours: another process took them over, as ours seemed dead.
        spoiled: what could not be read; dead letters now.
    """

    rows: tuple[Row, ...] = ()
    lost: frozenset[int] = frozenset()
    spoiled: tuple[DeadLetter, ...] = ()


class Store(Protocol):
    """Where rows are kept. Thread-safe; no relay calls it with a lock held, so it may take its time.

    From the moment ``put`` returned until ``remove`` or ``bury``, the store answers for the row.

    Attributes:
        durable: rows outlive the process.
        claim_for: seconds after which others may take over the rows of a process that makes no more claims; ``inf``
            where there are no others.
    """

    @property
    def durable(self) -> bool:
        """Whether rows outlive the process."""
        ...

    @property
    def claim_for(self) -> float:
        """Seconds that a claim is good for."""
        ...

    def check(self, payload: object) -> None:
        """Refuse a payload that could not be put: raise a TypeError that says why."""

    def put(self, row: Row) -> Row:
        """Keep ``row``, as ours to send; returns it with its id."""

    def remove(self, row: Row) -> None:
        """Forget ``row``: it was taken. A row that is not there is no error."""

    def bury(self, row: Row, reason: str) -> None:
        """Make ``row`` a dead letter; it need not have been put before."""

    def claim(self, destinations: Mapping[str, str]) -> Claimed:
        """Keep our claims alive, and take what is nobody's of the ``destinations``: identities, by name."""

    def release(self, rows: Collection[Row]) -> None:
        """Give up the claims on ``rows``: whoever claims next may have them."""

    def stock(self) -> tuple[Stock, ...]:
        """Return what there is, by destination and identity."""

    def dead_letters(self, destination: str | None = None) -> tuple[DeadLetter, ...]:
        """Return the dead letters (of ``destination``, or all), oldest first."""

    def revive(self, destination: str | None = None) -> int:
        """Turn the dead letters (of ``destination``, or all) into rows that are nobody's; returns how many."""


def check_store(name: str, value: object) -> None:
    """Refuse ``value`` unless it looks like a `Store`."""
    if not all(hasattr(value, what) for what in ("durable", "check", "put", "claim")):
        raise TypeError(f"{name} must be a Store, such as an Outbox, not {value!r} of type {type(value).__name__}")


class MemoryStore:
    """Rows in memory: they end with the process. Thread-safe.

    Args:
        max_dead_letters: how many dead letters are kept; beyond that the oldest is forgotten, with an error in the log.
        clock: seconds since the epoch.

    Raises:
        ValueError: when ``max_dead_letters`` is below 1.
        TypeError: when it is no whole number.
    """

    durable = False
    claim_for = math.inf

    def __init__(self, max_dead_letters: int = 1000, *, clock: Callable[[], float] = time.time) -> None:
        check_whole("max_dead_letters", max_dead_letters, least=1)
        self._lock = threading.Lock()
        self._clock = clock
        self._ids = itertools.count(1)
        self._rows: dict[int, Row] = {}
        self._dead: dict[int, DeadLetter] = {}
        self._free: dict[int, None] = {}  # ids of rows that are nobody's
        self._max_dead = max_dead_letters

    def __len__(self) -> int:
        return len(self._rows)

    def check(self, payload: object) -> None:
        """Every payload can be kept."""

    def put(self, row: Row) -> Row:
        """Keep ``row``; returns it with its id."""
        row = attrs.evolve(row, id=next(self._ids))
        with self._lock:
            self._rows[row.id] = row
        return row

    def remove(self, row: Row) -> None:
        """Forget ``row``; one that is not there is no error."""
        with self._lock:
            self._rows.pop(row.id, None)
            self._free.pop(row.id, None)

    def bury(self, row: Row, reason: str) -> None:
        """Make ``row`` a dead letter; the oldest one makes room if there are too many."""
        forgotten, now = None, self._clock()
        row = row if row.id else attrs.evolve(row, id=next(self._ids))
        with self._lock:
            self._rows.pop(row.id, None)
            self._free.pop(row.id, None)
            self._dead[row.id] = DeadLetter(row, reason, now)
            if len(self._dead) > self._max_dead:
                forgotten = self._dead.pop(next(iter(self._dead)))
        if forgotten is not None:
            log.error("too many dead letters, the oldest is forgotten: %r", forgotten)

    def claim(self, destinations: Mapping[str, str]) -> Claimed:
        """Take the revived rows of ``destinations``."""
        with self._lock:
            rows = [self._rows[number] for number in self._free]
            ours = tuple(row for row in rows if destinations.get(row.destination) == row.identity)
            for row in ours:
                del self._free[row.id]
        return Claimed(ours)

    def release(self, rows: Collection[Row]) -> None:
        """Leave ``rows`` to whoever claims next."""
        with self._lock:
            self._free.update((row.id, None) for row in rows if row.id in self._rows)

    def stock(self) -> tuple[Stock, ...]:
        """Return what there is, by destination and identity."""
        with self._lock:
            waiting = Counter((row.destination, row.identity) for row in self._rows.values())
            dead = Counter((letter.row.destination, letter.row.identity) for letter in self._dead.values())
            free = Counter((self._rows[one].destination, self._rows[one].identity) for one in self._free)
        return tuple(Stock(*where, waiting[where], dead[where], free[where]) for where in sorted(waiting | dead))

    def dead_letters(self, destination: str | None = None) -> tuple[DeadLetter, ...]:
        """Return the dead letters (of ``destination``, or all), oldest first."""
        with self._lock:
            return tuple(letter for letter in self._dead.values() if destination in (None, letter.row.destination))

    def revive(self, destination: str | None = None) -> int:
        """Turn the dead letters (of ``destination``, or all) into rows that are nobody's; returns how many."""
        with self._lock:
            rows = [letter.row for letter in self._dead.values() if destination in (None, letter.row.destination)]
            for row in rows:
                del self._dead[row.id]
                self._rows[row.id] = row
                self._free[row.id] = None
        return len(rows)
