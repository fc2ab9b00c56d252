"""Results written down in a file: they outlive the process, and the next one sends them."""

import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from resilience._checks import check_function, check_number
from resilience.delivery.outbox.database import closed
from resilience.delivery.outbox.desk import Desk
from resilience.delivery.outbox.statements import Entry
from resilience.delivery.store import Claimed, DeadLetter, Row, Stock

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Outbox"]

_outboxes: "weakref.WeakSet[Outbox]" = weakref.WeakSet()


@final
class Outbox:
    """Results in a file (SQLite) that several processes may share; a `Relay`'s ``store``. Thread-safe.

    What ``put`` returned from is on the disk. Threads that put at the same time share a commit. Rows belong to the
    process that wrote or claimed them, as long as it renews its claim. A forked child has no rows, and writes its own
    through a connection of its own. A context manager that closes it.

    Args:
        path: the file; it and its folder are made, for this user alone, if they do not exist.
        dump: makes text or bytes of a payload; JSON by default: then keys are texts, and tuples come back as lists.
        load: makes the payload of that again.
        claim_for: seconds after which others may take over the rows of a process that is dead or frozen.
        clock: seconds since the epoch, the same for all who share the file.

    Raises:
        OutboxError: the file cannot be used; the text says why and what to do.
        ValueError: ``claim_for`` is not above 0.
        TypeError: it is no number, ``path`` no path, ``dump`` or ``load`` no function.
    """

    durable = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dump: Callable[[Any], str | bytes] = json.dumps,
        load: Callable[[Any], Any] = json.loads,
        claim_for: float = 15.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_number("claim_for", claim_for, least=0.0, exclusive=True)
        check_function("dump", dump)
        check_function("load", load)
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path must be a text or a Path, not {path!r}: name a file")
        self.path = Path(path).absolute()
        self.claim_for = claim_for
        self._dump = dump
        self._load = load
        self._clock = clock
        self._closed = False
        self._opening = threading.Lock()
        self._desk: Desk | None = Desk(self.path, claim_for, clock)
        _outboxes.add(self)

    def __repr__(self) -> str:
        return f"<Outbox {str(self.path)!r}>"

    def check(self, payload: object) -> None:
        """Refuse a payload that ``dump`` cannot write down, or that would come back with other keys.

        Raises:
            TypeError: it is such a payload; the text says why and what to do.
        """
        what = f"a payload of type {type(payload).__name__}"
        try:
            dumped = self._dump(payload)
        except Exception as error:
            raise TypeError(
                f"{what} cannot be written down: {error}; change it, or give the Outbox a dump and a load that can"
            ) from error
        if not isinstance(dumped, (str, bytes)):
            raise TypeError(f"dump must make text or bytes of {what}, not {type(dumped).__name__}")
        if self._dump is json.dumps and (odd := next(_odd_keys(payload), None)) is not None:
            raise TypeError(f"{what} has the key {odd[0]!r}, which would come back as a text: convert it with str()")

    def put(self, row: Row) -> Row:
        """Write ``row`` down, as ours to send; returns it with its id once it is on the disk.

        Raises:
            OutboxError: it could not be written, and why. (What ``dump`` raises is passed on.)
        """
        return Row(
            row.destination, row.identity, row.key, row.number, row.payload, self._at_desk().put(self._fields(row))
        )

    def remove(self, row: Row) -> None:
        """Forget ``row``, also if another process has it by now; one that is not there is no error."""
        self._at_desk().remove(row.id)

    def bury(self, row: Row, reason: str) -> None:
        """Make ``row`` a dead letter; it need not have been put before."""
        self._at_desk().bury(row.id, () if row.id else self._fields(row), reason)

    def claim(self, destinations: Mapping[str, str]) -> Claimed:
        """Keep our claim alive, and take the rows of ``destinations`` (identities, by name) that nobody has.

        Those are what was released or revived, and what a process left whose claim ran out. To be called again after a
        third of ``claim_for``. A row that cannot be loaded becomes a dead letter.
        """
        found = self._at_desk().claim(destinations)
        rows, spoiled = [], []
        for entry in found.entries:
            row, error = self._row(entry)
            if error is None:
                rows.append(row)
                continue
            letter = DeadLetter(row, f"its payload cannot be read: {error!r}", self._clock())
            self.bury(row, letter.reason)
            spoiled.append(letter)
        return Claimed(tuple(rows), found.lost, tuple(spoiled))

    def release(self, rows: Collection[Row]) -> None:
        """Give up the claim on ``rows``: whoever claims next has them, at once."""
        self._at_desk().release([row.id for row in rows])

    def stock(self) -> tuple[Stock, ...]:
        """Return what there is, of all processes, by destination and identity."""
        with self._at_desk().reading() as db:
            return tuple(
                Stock(*row)
                for row in db.execute(
                    "SELECT destination, identity, sum(reason IS NULL), sum(reason IS NOT NULL), "
                    "sum(reason IS NULL AND (owner IS NULL OR owner NOT IN "
                    "(SELECT id FROM owners WHERE until > ?1 AND until <= ?1 + span))) "
                    "FROM results GROUP BY destination, identity ORDER BY destination, identity",
                    (self._clock(),),
                )
            )

    def dead_letters(self, destination: str | None = None) -> tuple[DeadLetter, ...]:
        """Return the dead letters (of ``destination``, or all), oldest first.

        A payload that cannot be loaded stays as it was dumped.
        """
        with self._at_desk().reading() as db:
            found = db.execute(
                "SELECT id, destination, identity, key, payload, writer, number, reason, died FROM results "
                "WHERE reason IS NOT NULL AND (?1 IS NULL OR destination = ?1) ORDER BY died, id",
                (destination,),
            ).fetchall()
        return tuple(DeadLetter(self._row(Entry(*fields))[0], reason, died) for *fields, reason, died in found)

    def revive(self, destination: str | None = None, *, ids: Collection[int] | None = None) -> int:
        """Let dead letters be sent again: of ``destination`` or all, those with these ``ids`` or any.

        Whoever serves their destination, in whatever process, has them with its next claim.

        Returns:
            How many there were.
        """
        return self._at_desk().change_dead(destination, ids, revive=True)

    def purge(self, destination: str | None = None, *, ids: Collection[int] | None = None) -> int:
        """Delete dead letters: of ``destination`` or all, those with these ``ids`` or any.

        Returns:
            How many there were.
        """
        return self._at_desk().change_dead(destination, ids, revive=False)

    def discard(self, destination: str, identity: str | None = None) -> int:
        """Delete results that wait for ``destination`` (with ``identity``, or any) and that no process has.

        Such as those of a destination that is no longer served by anybody: they are lost.

        Returns:
            How many there were.
        """
        return self._at_desk().discard(destination, identity)

    def close(self) -> None:
        """Close the file; may be called again. Rows that were not released are others' once our claim has run out."""
        with self._opening:
            again, self._closed = self._closed, True
            desk, self._desk = self._desk, None
        if desk is not None and not again:
            desk.close()

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, tb: "TracebackType | None"
    ) -> None:
        self.close()

    def _at_desk(self) -> Desk:
        return self._desk or self._opened()

    def _opened(self) -> Desk:
        """In a forked child: at the first use."""
        with self._opening:
            if self._closed:
                raise closed(self.path)
            self._desk = desk = self._desk or Desk(self.path, self.claim_for, self._clock)
            return desk

    def _start_afresh(self) -> None:
        self._opening = threading.Lock()
        self._desk = None

    def _fields(self, row: Row) -> tuple[str, str, str, str | bytes, int]:
        return row.destination, row.identity, row.key, self._dump(row.payload), row.number

    def _row(self, entry: Entry) -> tuple[Row, Exception | None]:
        payload, error = entry.payload, None
        try:
            payload = self._load(entry.payload)
        except Exception as raised:  # noqa: BLE001 - somebody else's code, or somebody else's payload
            error = raised
        return Row(entry.destination, entry.identity, entry.key, entry.number, payload, entry.id), error


def _odd_keys(value: object) -> Iterator[tuple[object]]:
    """The keys in a JSON value that are not texts."""
    if isinstance(value, dict):
        yield from ((key,) for key in value if not isinstance(key, str))
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for inner in value:
        yield from _odd_keys(inner)


def _after_fork() -> None:
    for outbox in list(_outboxes):
        outbox._start_afresh()  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_after_fork)
