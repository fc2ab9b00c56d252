"""What an outbox says of a file that cannot be used, and what it does when one stops being usable."""

import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from resilience import Outbox, OutboxError, Row
from resilience.delivery.outbox.commits import Job

PAGE = 4096
EU = {"eu": "http://eu"}


def result(number: int, size: int = 500) -> Row:
    """A result of some size."""
    return Row("eu", "http://eu", f"k{number}", number, "x" * size)


@pytest.fixture
def path(tmp_path):
    """Where the file is."""
    return tmp_path / "outbox.db"


@pytest.fixture
def filled(path):
    """A file of several pages."""
    with Outbox(path) as outbox:
        for number in range(60):
            outbox.put(result(number))
    return path


def said(path) -> str:
    """Why it cannot be opened; in one line that names the file."""
    with pytest.raises(OutboxError) as caught:
        Outbox(path)
    assert caught.value.path == Path(path)
    assert str(caught.value).startswith(f"outbox {str(path)!r}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file[: len(file) // 2],
        lambda file: file[:5000],
        lambda file: file[:50],
        lambda file: file[:100] + random.Random(1).randbytes(PAGE - 100) + file[PAGE:],
        lambda file: file[: 2 * PAGE] + random.Random(1).randbytes(PAGE) + file[3 * PAGE :],
        lambda file: file[: 5 * PAGE] + bytes(PAGE) + file[6 * PAGE :],
    ],
    ids=["half", "a page and a bit", "less than its head", "first page", "third page", "zeros"],
)
def test_a_damaged_file_is_no_outbox_any_more(filled, damage):
    """Wherever the damage is, it is seen at the start, and what to do is said."""
    filled.write_bytes(damage(filled.read_bytes()))

    assert "it is damaged: move it away" in said(filled)


@pytest.mark.parametrize("content", [random.Random(1).randbytes(10_000), b"to do: buy milk\n" * 99])
def test_a_file_of_another_kind_is_left_alone(path, content):
    """Random bytes or a text: it is not touched."""
    path.write_bytes(content)

    assert "it is no outbox: name another path" in said(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE notes (text)", "PRAGMA user_version = 3", "PRAGMA application_id = 7"]
)
def test_a_database_of_another_program_is_left_alone(path, statement):
    """However little is in it."""
    db = sqlite3.connect(path)
    db.execute(statement)
    db.execute("CREATE TABLE IF NOT EXISTS notes (text)")
    db.commit()
    db.close()
    content = path.read_bytes()

    assert "it belongs to another program: name another path" in said(path)
    assert path.read_bytes() == content


def test_a_file_of_a_newer_version_is_left_alone(filled):
    """Whoever goes back to an older version hears it, instead of losing results to a misunderstanding."""
    db = sqlite3.connect(filled)
    db.execute("PRAGMA user_version = 2")
    db.close()

    assert "a newer version of this library wrote it (format 2, this one reads 1): upgrade" in said(filled)


def test_an_empty_file_becomes_an_outbox(path):
    """Somebody may have made it to set its permissions."""
    path.touch(mode=0o640)
    with Outbox(path) as outbox:
        outbox.put(result(1))
        assert outbox.stock()[0].waiting == 1
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("/dev/full", "the disk is full: make room"),
        ("/dev/null", "the disk fails, or there is a limit for files"),
        ("/proc/outbox.db", "it cannot be made (No such file or directory)"),
        ("/tmp/" + "a" * 300, "it cannot be made (File name too long)"),  # noqa: S108 - it is not made
        ("/tmp/a\0b", "embedded null"),  # noqa: S108 - as above
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="those are Linux's")
def test_a_path_that_no_outbox_can_have(where, why):
    """What is wrong with it is said."""
    assert why in said(where)


def test_a_folder_is_no_outbox(tmp_path):
    """Nor can one be inside a file."""
    (tmp_path / "file").touch()

    assert "it is a folder: name a file in it" in said(tmp_path)
    assert "it cannot be made" in said(tmp_path / "file" / "outbox.db")


def run(code: str, *arguments: object) -> str:
    """Run code in a process of its own; returns what it printed."""
    begin = "import os, sys\nfrom resilience import Outbox, OutboxError, Row\n"
    ran = subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-c", begin + code, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


OPEN = """
if not os.geteuid():  # for root nothing is read-only
    os.setegid(65534)
    os.seteuid(65534)
try:
    Outbox(sys.argv[1])
except OutboxError as error:
    print(error)
"""


@pytest.fixture
def shared():
    """A folder that every user can read."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("exists", "file", "why"),
    [
        (True, 0o444, "cannot be"),
        (True, 0o666, "cannot be"),
        (True, 0o000, "it cannot be opened: give this user write access"),
        (False, 0, "it cannot be made (Permission denied): give this user write access to its folder"),
    ],
    ids=["read-only file", "read-only folder", "unreadable", "no file in a read-only folder"],
)
def test_what_cannot_be_written_is_an_error_at_the_start(shared, exists, file, why):
    """Not when the first result has to be written: the folder, too, as the log of a database stands beside it."""
    path = shared / "outbox.db"
    if exists:
        Outbox(path).close()
        path.chmod(file)
    shared.chmod(0o555)

    message = run(OPEN, path)
    assert why in message
    assert "give this user write access" in message


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
outbox = Outbox(sys.argv[1])
rows = [outbox.put(Row("eu", "http://eu", f"k{n}", n, "x" * 1000)) for n in range(3)]
resource.setrlimit(resource.RLIMIT_FSIZE, (300 * 1024, resource.RLIM_INFINITY))
kept = 3
try:
    for n in range(3, 1000):
        outbox.put(Row("eu", "http://eu", f"k{n}", n, "x" * 1000))
        kept += 1
except OutboxError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
outbox.put(Row("eu", "http://eu", "after", 1000, ""))
print(kept + 1)
os._exit(0)
"""


def test_d5_what_could_be_written_before_the_disk_failed_is_there_afterwards(path):
    """The failure is an error of that one put; those before and after it are on the disk."""
    message, kept = run(LIMITED, path).splitlines()

    assert "the disk fails, or there is a limit for files" in message
    with Outbox(path) as outbox:
        assert outbox.stock()[0].waiting == int(kept)
    assert int(kept) > 10


def test_a_file_that_another_program_locks_is_an_error(filled):
    """At the start, and while running; it says what to do."""
    with Outbox(filled) as outbox:
        lock = sqlite3.connect(filled, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        assert "another program keeps it locked" in said(filled)
        with pytest.raises(OutboxError, match="another program keeps it locked"):
            outbox.put(result(99))
        lock.execute("ROLLBACK")
        lock.close()
        assert outbox.put(result(99)).id


def test_one_result_that_cannot_be_written_spoils_no_other(path):
    """Those in the same commit are written by themselves."""
    with Outbox(path) as outbox:
        pages = outbox._desk._db.execute("PRAGMA page_count").fetchone()[0]
        outbox._desk._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        rows = [result(number, size) for number, size in enumerate([10, 100_000, 10])]
        jobs = [Job(partial(outbox._desk._put, outbox._fields(row))) for row in rows]

        outbox._desk._commit(jobs)

        assert [job.over for job in jobs] == [True] * 3
        assert [job.error is None for job in jobs] == [True, False, True]
        assert outbox.stock()[0].waiting == 2


def test_a_file_that_a_large_backlog_has_left_is_made_small_again(path):
    """At the next start; the log beside it is bounded all the time."""
    with Outbox(path) as outbox:
        rows = [outbox.put(result(number, 400_000)) for number in range(60)]
        assert path.with_name("outbox.db-wal").stat().st_size <= 20 * 2**20
        for row in rows:
            outbox.remove(row)
    assert path.stat().st_size > 20 * 2**20

    Outbox(path).close()
    assert path.stat().st_size < 2**20


@pytest.mark.parametrize("remove", [Path.unlink, lambda path: path.rename(path.with_suffix(".away"))])
def test_a_file_that_is_taken_away_is_noticed(path, remove):
    """What would be written there nobody would find again."""
    with Outbox(path) as outbox:
        outbox.put(result(1))
        remove(path)
        with pytest.raises(OutboxError, match="moved or deleted while it was in use"):
            outbox.put(result(2))
        Outbox(path).close()  # another process makes a new one
        with pytest.raises(OutboxError, match="moved or deleted while it was in use"):
            outbox.claim(EU)


def test_processes_that_make_the_file_at_the_same_time_all_get_it(path):
    """None of them is told that it is locked, and there is one outbox for all."""
    code = 'sys.stdin.readline()\nOutbox(sys.argv[1]).put(Row("eu", "http://eu", "k", 1, 1))'
    begin = "import sys\nfrom resilience import Outbox, Row\n"
    processes = [
        subprocess.Popen(  # noqa: S603 - our own Python
            [sys.executable, "-c", begin + code, str(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(6)
    ]
    errors = [process.communicate(b"\n", timeout=60)[1] for process in processes]

    assert errors == [b""] * 6
    with Outbox(path) as outbox:
        assert outbox.stock()[0].waiting == 6
    assert [file.name for file in path.parent.iterdir()] == ["outbox.db"]


def test_what_a_link_leads_to_is_made_for_this_user_alone(path):
    """Results may be secret, and a link may be there before its file is."""
    path.symlink_to("results.db")

    with Outbox(path) as outbox:
        outbox.put(result(1))
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir() if not file.is_symlink()}

    assert modes == dict.fromkeys(("results.db", "results.db-wal", "results.db-shm"), 0o600)


def test_a_file_that_stays_locked_holds_up_one_thread_and_not_all_after_it(filled):
    """Whoever finds it locked next waits a moment only; once it is free there is time again for others' commits."""
    with Outbox(filled) as outbox:

        def patience():
            return outbox._desk._db.execute("PRAGMA busy_timeout").fetchone()[0]

        assert patience() == 1000
        lock = sqlite3.connect(filled, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutboxError, match="keeps it locked"):
            outbox.put(result(99))
        assert patience() == 200
        lock.execute("ROLLBACK")
        lock.close()
        outbox.put(result(99))
        assert patience() == 1000


def test_looking_into_a_file_that_is_gone_makes_none(filled):
    """It would be empty, and there for everybody to read."""
    with Outbox(filled) as outbox:
        filled.unlink()
        with pytest.raises(OutboxError, match="moved or deleted"):
            outbox.stock()
        assert not filled.exists()


def test_an_error_says_whether_what_was_written_is_lost(filled):
    """It is if the file is damaged, and not if it is only locked."""
    lock = sqlite3.connect(filled, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutboxError) as locked:
        Outbox(filled)
    lock.close()
    filled.write_bytes(filled.read_bytes()[:5000])
    with pytest.raises(OutboxError) as damaged:
        Outbox(filled)

    assert (locked.value.lost, damaged.value.lost) == (False, True)
