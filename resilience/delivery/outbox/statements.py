"""What an outbox says to its file: every statement, as a function of a connection that is in a transaction."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import attrs

from resilience.delivery.outbox.claims import Claim

__all__ = [
    "Entry",
    "bury",
    "change_dead",
    "claims",
    "delete",
    "delete_owners",
    "delete_unclaimed",
    "free",
    "insert",
    "insert_dead",
    "known",
    "owned",
    "register",
    "release",
    "renew",
    "take",
]

_ENTRY = "id, destination, identity, key, payload, writer, number"
_REVIVE = "UPDATE results SET reason = NULL, died = NULL, owner = NULL"
_PURGE = "DELETE FROM results"


@attrs.frozen
class Entry:
    """A row as the file has it, its payload still packed.

    Attributes:
        id: the row's.
        destination: where it goes.
        identity: what that stood for.
        key: its line.
        payload: packed.
        writer: the owner that wrote it; later ones have higher numbers.
        number: counts the results of its writer.
    """

    id: int
    destination: str
    identity: str
    key: str
    payload: str | bytes
    writer: int
    number: int


def register(db: sqlite3.Connection, claim: Claim) -> Claim:
    """A new owner, whose number nobody had before."""
    cursor = db.execute("INSERT INTO owners (until, span) VALUES (?, ?)", (claim.until, claim.span))
    return attrs.evolve(claim, owner=cursor.lastrowid or 0)


def renew(db: sqlite3.Connection, claim: Claim) -> None:
    """Say until when an owner's rows are its own, even if it was forgotten meanwhile."""
    db.execute("INSERT OR REPLACE INTO owners (id, until, span) VALUES (?, ?, ?)", attrs.astuple(claim))


def known(db: sqlite3.Connection, owner: int) -> bool:
    """Whether an owner's claim is there."""
    return db.execute("SELECT 1 FROM owners WHERE id = ?", (owner,)).fetchone() is not None


def claims(db: sqlite3.Connection, *, but: int) -> list[Claim]:
    """Everybody's claims, except those of one owner."""
    return [Claim(*row) for row in db.execute("SELECT id, until, span FROM owners WHERE id <> ?", (but,))]


def insert(db: sqlite3.Connection, fields: Sequence[Any], owner: int) -> int:
    """A new row: destination, identity, key, payload, number."""
    return (
        db.execute(
            "INSERT INTO results (destination, identity, key, payload, number, writer, owner) VALUES (?,?,?,?,?,?,?)",
            (*fields, owner, owner),
        ).lastrowid
        or 0
    )


def insert_dead(db: sqlite3.Connection, fields: Sequence[Any], writer: int, reason: str, at: float) -> None:
    """A dead letter of a result that had no row."""
    db.execute(
        "INSERT INTO results (destination, identity, key, payload, number, writer, reason, died) "
        "VALUES (?,?,?,?,?,?,?,?)",
        (*fields, writer, reason, at),
    )


def delete(db: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Rows are gone."""
    db.executemany("DELETE FROM results WHERE id = ?", [(one,) for one in ids])


def bury(db: sqlite3.Connection, one: int, reason: str, at: float) -> None:
    """A row becomes a dead letter."""
    db.execute("UPDATE results SET reason = ?, died = ?, owner = NULL WHERE id = ?", (reason, at, one))


def owned(db: sqlite3.Connection, owner: int) -> set[int]:
    """The rows of an owner that wait."""
    return {one for (one,) in db.execute("SELECT id FROM results WHERE reason IS NULL AND owner = ?", (owner,))}


def free(db: sqlite3.Connection, over: Collection[int], *, thorough: bool) -> list[tuple[str, str]]:
    """The destinations of rows that are nobody's, or whose owner's claim is ``over``.

    ``thorough`` finds those, too, whose owner is unknown; it reads the whole list of who has what.
    """
    return db.execute(
        f"SELECT DISTINCT destination, identity FROM results WHERE {_free(over, thorough=thorough)}"  # noqa: S608 - numbers
    ).fetchall()


def take(
    db: sqlite3.Connection, where: tuple[str, str], over: Collection[int], owner: int, *, thorough: bool
) -> list[Entry]:
    """Make the free rows of a destination the ``owner``'s."""
    these = f"{_free(over, thorough=thorough)} AND destination = ? AND identity = ?"
    found = [Entry(*row) for row in db.execute(f"SELECT {_ENTRY} FROM results WHERE {these}", where)]  # noqa: S608 - as above
    db.execute(f"UPDATE results SET owner = ? WHERE {these}", (owner, *where))  # noqa: S608 - as above
    return found


def release(db: sqlite3.Connection, ids: Iterable[int], owner: int) -> None:
    """Rows of an owner are nobody's."""
    db.executemany("UPDATE results SET owner = NULL WHERE id = ? AND owner = ?", [(one, owner) for one in ids])


def delete_owners(db: sqlite3.Connection, owners: Iterable[int]) -> None:
    """Forget those who have no rows."""
    db.executemany(
        "DELETE FROM owners WHERE id = ? AND NOT EXISTS (SELECT 1 FROM results WHERE owner = owners.id)",
        [(owner,) for owner in owners],
    )


def change_dead(db: sqlite3.Connection, destination: str | None, ids: Collection[int] | None, *, revive: bool) -> int:
    """Revive or delete dead letters: of a destination or all, with these ids or any."""
    these = "reason IS NOT NULL AND (?1 IS NULL OR destination = ?1) AND (?2 IS NULL OR id = ?2)"
    values = [(destination, one) for one in ((None,) if ids is None else ids)]
    return max(0, db.executemany(f"{_REVIVE if revive else _PURGE} WHERE {these}", values).rowcount)


def delete_unclaimed(db: sqlite3.Connection, destination: str, identity: str | None, over: Collection[int]) -> int:
    """Delete waiting rows of a destination that nobody has."""
    these = f"{_free(over, thorough=True)} AND destination = ?1 AND (?2 IS NULL OR identity = ?2)"
    return db.execute(f"DELETE FROM results WHERE {these}", (destination, identity)).rowcount  # noqa: S608 - as above


def _free(over: Collection[int], *, thorough: bool) -> str:
    unknown = " OR owner NOT IN (SELECT id FROM owners)" if thorough else ""
    return f"reason IS NULL AND (owner IS NULL OR owner IN ({','.join(map(str, over))}){unknown})"
