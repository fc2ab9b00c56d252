"""SQLite on a virtual machine: every statement is a point, waiting for others takes virtual time, and disks fill up.

The database is the real one. Its file lies in memory; most of the time it is not even a file, but SQLite's own shared
memory, which behaves alike and is there in a fraction of the time.
"""

import itertools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from greenlet import getcurrent

from .machine import Killed, Machine, Process, Strand

RAM = Path("/dev/shm")  # noqa: S108 - a folder of its own in it
LOCKED_PAUSE = 0.002  # virtual seconds between two looks at a lock
_numbers = itertools.count()


class Disk:
    """Where the outbox of a schedule lies.

    Args:
        machine: whose time it keeps.
        real: whether it is a file; else SQLite's shared memory.
        full: says whether nothing can be written now.
    """

    def __init__(self, machine: Machine, *, real: bool, full: Callable[[], bool]) -> None:
        self.machine = machine
        self.full = full
        self._real = real
        self._folder = tempfile.mkdtemp(dir=RAM if os.access(RAM, os.W_OK) else None)
        self.path = Path(self._folder, "outbox.db")
        self._memory = f"file:outbox-{next(_numbers)}?mode=memory&cache=shared"
        self._anchor = None if real else sqlite3.connect(self._memory, uri=True, check_same_thread=False)

    def connect(self, path: object, timeout: float) -> "Connection":
        """A connection of the process that asks for it."""
        options: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "timeout": 0.0}
        target = str(path) if self._real else self._memory
        db = sqlite3.connect(target, uri=not self._real, **options)
        strand: Strand = getcurrent()  # type: ignore[assignment]
        return Connection(self, db, strand.process, timeout)

    def remove(self) -> None:
        """Nothing is left of it."""
        if self._anchor is not None:
            self._anchor.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def look(self) -> list[tuple[str, str, str, str | None]] | None:
        """Destination, identity, key and reason of all rows; None while somebody writes."""
        if self._anchor is None:
            self._anchor = sqlite3.connect(self.path, isolation_level=None, timeout=0.0)
        try:
            return self._anchor.execute("SELECT destination, identity, key, reason FROM results").fetchall()
        except sqlite3.OperationalError as error:
            return [] if "no such table" in str(error) else None

    @property
    def answers_wal(self) -> bool:
        """Whether it says of itself what a file would: memory knows no write-ahead log."""
        return not self._real


class Connection:
    """A connection that dies with its process: what it has not committed is gone."""

    def __init__(self, disk: Disk, db: sqlite3.Connection, process: Process, timeout: float) -> None:
        self._disk = disk
        self._db = db
        self._process = process
        self._timeout = timeout
        process.on_death.append(db.close)

    @property
    def in_transaction(self) -> bool:
        """Whether it is in one."""
        return not self._process.dead and self._db.in_transaction

    def execute(self, statement: str, values: Iterable[Any] = ()) -> Any:
        """Execute one statement."""
        if statement == "PRAGMA journal_mode = WAL" and self._disk.answers_wal:
            statement = "SELECT 'wal'"
        return self._do(statement, lambda: self._db.execute(statement, values))  # type: ignore[arg-type]

    def executemany(self, statement: str, values: Iterable[Any]) -> Any:
        """Execute it many times."""
        every = list(values)
        return self._do(statement, lambda: self._db.executemany(statement, every))

    def close(self) -> None:
        """Close it."""
        if not self._process.dead:
            self._db.close()

    def _do(self, statement: str, execute: Callable[[], Any]) -> Any:
        machine = self._disk.machine
        machine.point("store")
        if self._disk.full() and statement.startswith(("INSERT", "UPDATE", "COMMIT")):
            raise sqlite3.OperationalError("database or disk is full")
        give_up_at = machine.now + self._timeout
        while True:
            try:
                done = execute()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or machine.now >= give_up_at:
                    raise
            else:
                break
            machine.park(LOCKED_PAUSE)
        if statement == "COMMIT":
            machine.point("stored")
        return done


class Sqlite:
    """Stands in the place of the module ``sqlite3``."""

    def connect(self, path: object, *, timeout: float = 5.0, **_: Any) -> Connection:
        """Connect to the disk of the process that asks."""
        strand = getcurrent()
        if type(strand) is not Strand:
            raise Killed
        return strand.process.machine.disk.connect(path, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)
