"""Results that wait for their destination, and those that nobody will take: the rows, and where they are kept.

A store keeps rows; when each is sent is the schedule's business. ``MemoryStore`` keeps them as long as the process
lives. The durable ``Outbox`` belongs in this file too, behind the same ``Store``.
"""

import logging
import threading
from typing import Any, Protocol

import attrs

from resilience._checks import check_whole

__all__ = ["DeadLetter", "MemoryStore", "Row", "Store"]

log = logging.getLogger("resilience.delivery")


@attrs.frozen
class Row:
    """One result, written down.

    Attributes:
        destination: the name of where it goes, and of nowhere else.
        identity: what that name stood for when the row was written (a URL, say).
        key: rows of one destination and key are sent in the order of their numbers.
        number: counts the results of a destination in the process that wrote them.
        payload: the result, in whatever form the destination sends it.
    """

    destination: str
    identity: str
    key: str
    number: int
    payload: Any = attrs.field(repr=False)


@attrs.frozen
class DeadLetter:
    """A result that its destination refused for good.

    Attributes:
        row: the result as it was written down.
        reason: why, in the destination's words.
    """

    row: Row
    reason: str


class Store(Protocol):
    """Where rows are kept. Thread-safe; no relay calls it with a lock held, so it may take its time.

    From the moment ``put`` returned until ``remove`` or ``bury``, the store answers for the row.
    """

    def put(self, row: Row) -> None:
        """Keep ``row``."""

    def remove(self, row: Row) -> None:
        """Forget ``row``: it was taken. A row that is not there is no error."""

    def bury(self, row: Row, reason: str) -> None:
        """Make ``row`` a dead letter; it need not have been put before."""

    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Return the dead letters, oldest first."""

    def revive(self, destination: str | None = None) -> tuple[Row, ...]:
        """Turn the dead letters (of ``destination``, or all) into rows again and return those, oldest first."""


class MemoryStore:
    """Rows in memory: they end with the process. Thread-safe.

    Args:
        max_dead_letters: how many dead letters are kept; beyond that the oldest is forgotten, with an error in the log.

    Raises:
        ValueError: when ``max_dead_letters`` is below 1.
        TypeError: when it is no whole number.
    """

    def __init__(self, max_dead_letters: int = 1000) -> None:
        check_whole("max_dead_letters", max_dead_letters, least=1)
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, int], Row] = {}
        self._dead: dict[tuple[str, int], DeadLetter] = {}
        self._max_dead = max_dead_letters

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, row: Row) -> None:
        """Keep ``row``."""
        with self._lock:
            self._rows[row.destination, row.number] = row

    def remove(self, row: Row) -> None:
        """Forget ``row``; one that is not there is no error."""
        with self._lock:
            self._rows.pop((row.destination, row.number), None)

    def bury(self, row: Row, reason: str) -> None:
        """Make ``row`` a dead letter; the oldest one makes room if there are too many."""
        forgotten = None
        with self._lock:
            self._rows.pop((row.destination, row.number), None)
            self._dead[row.destination, row.number] = DeadLetter(row, reason)
            if len(self._dead) > self._max_dead:
                forgotten = self._dead.pop(next(iter(self._dead)))
        if forgotten is not None:
            log.error("too many dead letters, the oldest is forgotten: %r", forgotten)

    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Return the dead letters, oldest first."""
        with self._lock:
            return tuple(self._dead.values())

    def revive(self, destination: str | None = None) -> tuple[Row, ...]:
        """Turn the dead letters (of ``destination``, or all) into rows again and return those, oldest first."""
        with self._lock:
            rows = tuple(d.row for d in self._dead.values() if destination in (None, d.row.destination))
            for row in rows:
                del self._dead[row.destination, row.number]
                self._rows[row.destination, row.number] = row
            return rows
