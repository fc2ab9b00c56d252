"""One process at the file of an outbox: its connection, its claim, and which rows are its own.

Whatever writes is a job in somebody's transaction (``commits``): only who leads there touches connection and accounts.

SQLite's connections must not cross a fork, not even unused: a child that opened the same file would believe that it has
the locks of its parent. So they are closed before and opened again afterwards, when there is something to do.
"""

import logging
import math
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs

from resilience.delivery.outbox import statements
from resilience.delivery.outbox.claims import Claim, Looks
from resilience.delivery.outbox.commits import Commits, Job
from resilience.delivery.outbox.database import (
    be_patient,
    closed,
    connect,
    explained,
    file_id,
    locked,
    reading,
    same_file,
)
from resilience.delivery.outbox.statements import Entry
from resilience.errors import OutboxError

__all__ = ["Desk", "Found"]

log = logging.getLogger("resilience.delivery")

T = TypeVar("T")


_desks: "weakref.WeakSet[Desk]" = weakref.WeakSet()
_all = threading.Lock()  # guards the set


@attrs.frozen
class Found:
    """What a claim brought: rows that are ours now, in their order, and ids of those that no longer are."""

    entries: list[Entry]
    lost: frozenset[int]
    deleted: frozenset[int]
    looks: Looks


class Desk:
    """A process at the file. Thread-safe; its methods return when what they did is on the disk.

    Args:
        path: the file.
        span: seconds that a claim is good for.
        clock: seconds since the epoch.

    Raises:
        OutboxError: here and in every method: the file cannot be used, and why.
    """

    def __init__(self, path: Path, span: float, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._open = threading.Lock()  # held while there is a connection in use: a fork waits for that
        self._reads = threading.Lock()
        self._commits = Commits(self._commit)
        self._looks = Looks()
        self._mine: set[int] = set()
        self._taken: set[int] = set()  # results whose rows are still to be deleted
        self._left = False
        self._patient = True
        self._known = False  # our claim is in the file, as of this transaction
        self._claim = Claim(0, clock() + span, span)
        with _all:
            _desks.add(self)
        with self._open:
            self._db = connect(path)
        self._file = file_id(path)
        try:
            self._claim = self._do(partial(statements.register, claim=self._claim))
        except BaseException:
            self._disconnect()
            raise

    def put(self, fields: Sequence[Any]) -> int:
        """Write down a result of ours: destination, identity, key, payload, number; returns its id."""
        return self._do(partial(self._put, fields))

    def remove(self, one: int) -> None:
        """Delete a row; if that fails it is tried again with the next claim."""
        try:
            self._do(partial(self._remove, one))
        except BaseException:
            self._taken.add(one)
            raise

    def bury(self, one: int, fields: Sequence[Any], reason: str) -> None:
        """Make a dead letter of a row, or of a result that has none (0)."""
        self._do(partial(self._bury, one, fields, reason))

    def claim(self, destinations: Mapping[str, str]) -> Found:
        """Renew our claim, take what is nobody's of ``destinations``, and find out what is no longer ours."""
        found = self._do(partial(self._look, destinations))
        self._mine -= found.lost.difference(entry.id for entry in found.entries)  # one may be ours again at once
        self._taken -= found.deleted
        self._looks = found.looks
        return found

    def release(self, ids: Collection[int]) -> None:
        """Give up rows."""
        self._do(partial(self._release, ids))

    def change_dead(self, destination: str | None, ids: Collection[int] | None, *, revive: bool) -> int:
        """Revive or delete dead letters; returns how many."""
        return self._do(partial(statements.change_dead, destination=destination, ids=ids, revive=revive))

    def discard(self, destination: str, identity: str | None) -> int:
        """Delete waiting rows that nobody has; returns how many."""
        return self._do(partial(self._discard, destination, identity))

    def close(self) -> None:
        """Leave; rows of ours that were not released are others' once the claim has run out."""
        try:
            self._do(self._leave)
        except OutboxError as error:
            log.warning("what was delivered last may be sent once more: %s", error)
        finally:
            with self._open:
                self._left = True
                self._disconnect()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for somebody who only reads: nobody who writes waits for that."""
        with self._reads:
            same_file(self._path, self._file)  # else an empty one would be made
            with reading(self._path) as db:
                yield db

    def before_fork(self) -> None:
        """Close what is open, and open nothing until ``after_fork``."""
        self._reads.acquire()
        self._open.acquire()
        self._disconnect()

    def after_fork(self) -> None:
        """Go on, in the parent."""
        self._open.release()
        self._reads.release()

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return self._commits.do(work)  # type: ignore[no-any-return] # it returns what the work does

    def _commit(self, jobs: Sequence[Job]) -> None:
        """All in one transaction; if that fails each in its own: one that cannot be written spoils no other."""
        with self._open:
            error = self._attempt(jobs)
            self._be_patient(error is None or not locked(error))
            if error is not None:
                alone = len(jobs) == 1 or locked(error)
                for job in jobs:
                    job.error = error if alone else self._attempt((job,))
                    job.over = True

    def _be_patient(self, patient: bool) -> None:  # noqa: FBT001 - its only argument
        """After one thread has waited for a program that keeps the file locked, the others do not wait as long."""
        if patient is not self._patient and self._db is not None:
            self._patient = patient
            be_patient(self._db, patient=patient)

    def _attempt(self, jobs: Sequence[Job]) -> Exception | None:
        try:
            with explained(self._path):
                self._transact(jobs)
        except BaseException as error:
            self._roll_back()
            if not isinstance(error, Exception):
                raise
            return error
        for job in jobs:
            job.over = True
        return None

    def _transact(self, jobs: Sequence[Job]) -> None:
        if self._left:
            raise closed(self._path)
        if self._db is None:
            self._db = connect(self._path, check=False)
            self._patient = True
        same_file(self._path, self._file)
        self._known = False
        self._db.execute("BEGIN IMMEDIATE")
        for job in jobs:
            job.value = job.work(self._db)
        self._db.execute("COMMIT")

    def _roll_back(self) -> None:
        self._claim = attrs.evolve(self._claim, until=-math.inf)  # for all we know it was not renewed
        with suppress(sqlite3.Error):  # what failed before is what counts
            if self._db is not None and self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _put(self, fields: Sequence[Any], db: sqlite3.Connection) -> int:
        self._renew(db)
        one = statements.insert(db, fields, self._claim.owner)
        self._mine.add(one)
        return one

    def _remove(self, one: int, db: sqlite3.Connection) -> None:
        statements.delete(db, (one,))
        self._mine.discard(one)

    def _bury(self, one: int, fields: Sequence[Any], reason: str, db: sqlite3.Connection) -> None:
        if not one:
            statements.insert_dead(db, fields, self._claim.owner, reason, self._clock())
            return
        statements.bury(db, one, reason, self._clock())
        self._mine.discard(one)

    def _look(self, destinations: Mapping[str, str], db: sqlite3.Connection) -> Found:
        us, thorough = self._claim.owner, self._looks.bad is None
        statements.delete(db, deleted := frozenset(self._taken))
        over, looks = self._looks.next(statements.claims(db, but=us), self._clock())
        lost = self._mine - statements.owned(db, us) if self._mine else ()
        entries: list[Entry] = []
        for name, identity in statements.free(db, over, thorough=thorough):
            if destinations.get(name) == identity:
                entries += statements.take(db, (name, identity), over, us, thorough=thorough)
        self._mine.update(entry.id for entry in entries)
        if self._mine:
            self._renew(db)
        statements.delete_owners(db, over)
        entries.sort(key=lambda entry: (entry.writer, entry.number, entry.id))
        return Found(entries, frozenset(lost), deleted, looks)

    def _renew(self, db: sqlite3.Connection) -> None:
        """Rows of ours need a claim: renewed when it is time, and made again if others have forgotten us."""
        now = self._clock()
        if self._claim.due(now) or not (self._known or statements.known(db, self._claim.owner)):
            self._claim = self._claim.renewed(now)
            statements.renew(db, self._claim)
        self._known = True

    def _release(self, ids: Collection[int], db: sqlite3.Connection) -> None:
        statements.release(db, ids, self._claim.owner)
        self._mine.difference_update(ids)

    def _discard(self, destination: str, identity: str | None, db: sqlite3.Connection) -> int:
        now = self._clock()
        over = [claim.owner for claim in statements.claims(db, but=self._claim.owner) if not claim.good(now)]
        return statements.delete_unclaimed(db, destination, identity, over)

    def _leave(self, db: sqlite3.Connection) -> None:
        statements.delete(db, self._taken)
        statements.delete_owners(db, (self._claim.owner,))


def _before_fork() -> None:
    _all.acquire()
    for desk in _desks:
        desk.before_fork()


def _after_fork() -> None:
    for desk in _desks:
        desk.after_fork()
    _all.release()


def _in_child() -> None:
    """The parent's desks are no business of ours."""
    _desks.clear()
    _all.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
