"""The file of an outbox: how it is opened, what it looks like inside, and what is wrong with it if something is.

Write-ahead logging with ``synchronous=FULL``: a commit has returned from the disk when it returns.
"""

import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from resilience.errors import OutboxError

__all__ = [
    "SCHEMA_VERSION",
    "be_patient",
    "closed",
    "connect",
    "explained",
    "file_id",
    "locked",
    "reading",
    "same_file",
]

log = logging.getLogger("resilience.delivery")

SCHEMA_VERSION = 1
_APPLICATION = 0x6F757462  # "outb", so that the file of another program is not taken for ours
_LOCKED_FOR = 1.0  # seconds to wait for other processes, whose transactions take milliseconds
_STILL_LOCKED_FOR = 0.2  # seconds to wait for one that kept it locked for so long already
_BETWEEN = 0.01  # seconds between two attempts to open
_PAUSE = threading.Event()  # is never set
_ROOM = 2_000  # pages of 4 KB that are left of a large backlog before the file is made smaller at a start
_WAL_LIMIT = 16 * 2**20  # bytes that the log keeps on the disk after a large backlog

_SCHEMA = (
    """CREATE TABLE owners (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        until REAL NOT NULL,
        span REAL NOT NULL
    )""",
    """CREATE TABLE results (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        destination TEXT NOT NULL,
        identity TEXT NOT NULL,
        key TEXT NOT NULL,
        payload NOT NULL,
        writer INTEGER NOT NULL,
        number INTEGER NOT NULL,
        owner INTEGER,
        reason TEXT,
        died REAL
    )""",
    "CREATE INDEX waiting ON results (owner) WHERE reason IS NULL",
    "CREATE INDEX dead ON results (destination) WHERE reason IS NOT NULL",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_DAMAGED = "it is damaged: move it away (results in it may be saved with the tool sqlite3 and its .recover)"
_DAMAGE = ("not a database", "malformed", "no such table")
_CURES = (  # what SQLite says, and what to do about it
    ("disk is full", "the disk is full: make room, or put it onto another disk"),
    ("readonly", "it cannot be written: give this user write access to the file and its folder"),
    ("unable to open", "it cannot be opened: give this user write access to the folder, or name another path"),
    ("not a database", "it is no outbox: name another path, or move that file away"),
    ("malformed", _DAMAGED),
    ("no such table", _DAMAGED),
    ("locked", "another program keeps it locked: end that program, or name another path"),
    ("disk I/O", "the disk fails, or there is a limit for files: look into the system's log, or name another path"),
    ("closed", "it is closed: open another Outbox"),
)


def connect(path: Path, *, check: bool = True) -> sqlite3.Connection:
    """Open the outbox in ``path``, which is made if it does not exist; ``check`` reads all of it for damage.

    Raises:
        OutboxError: it cannot be used; the text says why and what to do.
    """
    _make(path)
    give_up_at = time.monotonic() + _LOCKED_FOR
    with explained(path):
        while True:
            try:
                return _opened(path, check=check)
            except sqlite3.OperationalError as error:  # SQLite does not wait where several make a file at once
                if not locked(error) or time.monotonic() >= give_up_at:
                    raise
            _PAUSE.wait(_BETWEEN)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own for somebody who only reads: nobody who writes waits for that."""
    with explained(path), closing(sqlite3.connect(path, timeout=_LOCKED_FOR, isolation_level=None)) as db:
        yield db


def closed(path: Path) -> OutboxError:
    """What somebody hears who comes too late."""
    return OutboxError(f"outbox {str(path)!r}: it is closed: open another Outbox", path)


def same_file(path: Path, opened: tuple[int, int]) -> None:
    """Refuse to write into a file that nobody will find again; ``opened`` is the one that was, as of `file_id`."""
    if file_id(path) != opened:
        raise OutboxError(
            f"outbox {str(path)!r}: the file was moved or deleted while it was in use: what is in it is not sent by "
            "others, what comes is kept in memory; start this process again",
            path,
            lost=True,
        )


def file_id(path: Path) -> tuple[int, int]:
    """Which file that is; no other one has the same as long as it is open."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def locked(error: BaseException) -> bool:
    """Whether other processes are in the way; trying again at once would wait for them again."""
    return "locked" in str(error)


def be_patient(db: sqlite3.Connection, *, patient: bool) -> None:
    """Say whether to wait for other processes, or only a moment, as one keeps the file locked."""
    db.execute(f"PRAGMA busy_timeout = {round(1000 * (_LOCKED_FOR if patient else _STILL_LOCKED_FOR))}")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into an `OutboxError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        said = " ".join(str(error).split())
        cure = next((cure for words, cure in _CURES if words in said), "name another path")
        lost = any(words in said for words in _DAMAGE)
        raise OutboxError(f"outbox {str(path)!r}: {cure} ({said})", path, lost=lost) from error


def _make(path: Path) -> None:
    """Results may be secret: what is made is for this user alone."""
    try:
        missing = [folder for folder in path.parents if not folder.exists()]
        for folder in reversed(missing):  # Path.mkdir would leave all but the last to the umask
            folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileExistsError):  # resolved: SQLite would follow a link that leads to no file yet
            os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise OutboxError(
            f"outbox {str(path)!r}: it cannot be made ({said}): "
            "give this user write access to its folder, or name another path",
            path,
        ) from error
    if path.is_dir():
        raise OutboxError(f"outbox {str(path)!r}: it is a folder: name a file in it", path)
    for problem in _exposures(path):
        log.warning("outbox %r: %s", str(path), problem)


def _exposures(path: Path) -> Iterator[str]:
    """How other users could read the results, or put a file in the place of this one."""
    file, folder = path.stat().st_mode, path.parent.stat().st_mode
    if file & 0o077:
        yield f"other users may use the file (its mode is {file & 0o777:o}): chmod 600 it"
    if folder & 0o022 and not folder & stat.S_ISVTX:
        yield f"other users may replace the file (the mode of its folder is {folder & 0o777:o}): chmod go-w the folder"


def _opened(path: Path, *, check: bool) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_LOCKED_FOR, isolation_level=None, check_same_thread=False)
    try:
        _prepare(db, path, check=check)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path, *, check: bool) -> None:
    # In this order: another process may make the file meanwhile, all at once, and that is not another program.
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    version, application = int(_pragma(db, "user_version")), int(_pragma(db, "application_id"))
    if application not in (0, _APPLICATION) or (application == 0 and (version or tables)):
        raise OutboxError(f"outbox {str(path)!r}: it belongs to another program: name another path", path)
    if version > SCHEMA_VERSION:
        raise OutboxError(
            f"outbox {str(path)!r}: a newer version of this library wrote it (format {version}, this one reads "
            f"{SCHEMA_VERSION}): upgrade, or name another path",
            path,
        )
    if check and (complaint := _pragma(db, "quick_check(1)")) != "ok":
        raise sqlite3.DatabaseError(f"database disk image is malformed: {complaint}")
    if not version:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before there is anything in it
    if (mode := _pragma(db, "journal_mode = WAL")) != "wal":
        raise OutboxError(
            f"outbox {str(path)!r}: its file system cannot share memory between processes (journal_mode is {mode}): "
            "put it onto a local disk",
            path,
        )
    for setting in ("synchronous = FULL", "fullfsync = 1", "checkpoint_fullfsync = 1"):
        db.execute(f"PRAGMA {setting}")
    _pragma(db, f"journal_size_limit = {_WAL_LIMIT}")
    if not version:
        _build(db)
    if check and int(_pragma(db, "freelist_count")) > _ROOM:
        db.executescript("PRAGMA incremental_vacuum")  # a step a page: execute does a single one


def _build(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        if _pragma(db, "user_version") != "0":
            return  # another process was faster
        for statement in _SCHEMA:
            db.execute(statement)
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _pragma(db: sqlite3.Connection, what: str) -> str:
    return str(db.execute(f"PRAGMA {what}").fetchone()[0])
