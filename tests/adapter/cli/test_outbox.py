"""``outbox list``, ``retry`` and ``purge``, and what ``run`` keeps in the file: by real processes on real files."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from commands import COMMAND, command
from commands import refused as refusal_of
from fault_kit import until

from conductor_adapter import DevServer, TaskResult, TaskStatus
from conductor_adapter.cli import outbox as outbox_module
from conductor_adapter.running.outbox import open_outbox
from resilience import OutboxError, Row

WORKER = """\
from conductor_adapter import worker

@worker("greet", threads=2)
def greet(name: str) -> str:
    return f"hello {name}"
"""


@pytest.fixture
def file(tmp_path):
    """An outbox with two dead letters of eu, one of us, and a result that waits for eu."""
    path = tmp_path / "outbox.db"
    with open_outbox(path) as outbox:
        for server, key in (("eu", "t1"), ("eu", "t2"), ("us", "t3")):
            outbox.bury(row(server, key), f"no task {key}\nhere\x1b[2J")
        outbox.release([outbox.put(row("eu", "t4"))])
    return path


def row(server, key):
    """A result as a worker writes it down."""
    result = TaskResult(task_id=key, workflow_id="w", status=TaskStatus.COMPLETED, output={"secret": 7})
    return Row(server, f"http://{server}:8080/api", key, 1, result)


def refused(*arguments):
    """The one line with which bad usage is refused."""
    return refusal_of(command(*arguments))


def ids_of(path):
    """The numbers of the dead letters, by task."""
    with open_outbox(path) as outbox:
        return {letter.row.key: letter.row.id for letter in outbox.dead_letters()}


def test_list_tells_what_waits_and_why_dead_letters_are_dead(file):
    """A line for each server, one for each dead letter; nothing secret, and nothing that steers a terminal."""
    done = command("outbox", "list", "--outbox", file)

    assert (done.returncode, done.stderr) == (0, "")
    servers, letters = done.stdout.splitlines()[:2], done.stdout.splitlines()[2:]
    assert servers == [
        "eu  http://eu:8080/api  1 waiting  2 dead letters",
        "us  http://us:8080/api  0 waiting  1 dead letter",
    ]
    assert len(letters) == 3
    assert re.fullmatch(r"\d+  eu  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  t1  no task t1 here\?\[2J", letters[0])
    assert "secret" not in done.stdout


def test_list_of_one_server(file):
    """--server leaves the others out."""
    done = command("outbox", "list", "--outbox", file, "--server", "us")

    assert "t3" in done.stdout
    assert "eu" not in done.stdout


def test_list_of_a_server_that_is_not_there_names_those_that_are(file):
    """A typing error does not look like an empty outbox."""
    done = command("outbox", "list", "--outbox", file, "--server", "uss")

    assert done.returncode == 0
    assert done.stdout == f"{file}: nothing for uss; the outbox has entries for eu, us\n"


def test_list_says_what_another_worker_has(file):
    """Results of a worker that was just killed do not look as if they were forgotten."""
    with open_outbox(file) as worker:
        worker.put(row("eu", "t5"))
        said = command("outbox", "list", "--outbox", file).stdout.splitlines()

    assert said[0] == "eu  http://eu:8080/api  2 waiting  2 dead letters"
    assert said[2] == "1 of the waiting results: claimed by a running worker, or by one killed less than 15 s ago"


def test_list_speaks_json(file):
    """One object a line, of two kinds."""
    rows = [json.loads(line) for line in command("outbox", "list", "--outbox", file, "--json").stdout.splitlines()]

    assert [(r["kind"], r.get("destination") or r["server"]) for r in rows] == [
        ("server", "eu"), ("server", "us"), ("dead letter", "eu"), ("dead letter", "eu"), ("dead letter", "us"),
    ]  # fmt: skip
    assert (rows[0]["waiting"], rows[0]["dead"], rows[2]["task"]) == (1, 2, "t1")


def test_list_draws_tables_on_a_terminal(file):
    """A person at a terminal gets columns."""
    done = command("outbox", "list", "--outbox", file, FORCE_COLOR="1", TTY_COMPATIBLE="1")

    assert "refused at" in done.stdout
    assert "━" in done.stdout
    below = done.stdout.rpartition("┘")[2]  # reasons are long
    assert len(re.findall(r"\d+: no task t\d here", below)) == 3


def test_list_without_dead_letters_draws_one_table(file):
    """Nothing is said of what there is none of."""
    assert command("outbox", "purge", "--yes", "--outbox", file).returncode == 0
    done = command("outbox", "list", "--outbox", file, FORCE_COLOR="1", TTY_COMPATIBLE="1")

    assert "refused at" not in done.stdout
    assert done.stdout.count("┘") == 1


def test_d6_retry_makes_dead_letters_wait_again(file):
    """Those with these ids, then those of a server, then none is left of it: exit status 1."""
    one = ids_of(file)["t1"]

    assert command("outbox", "retry", one, "--outbox", file).stdout.startswith("1 dead letter will be retried")
    assert set(ids_of(file)) == {"t2", "t3"}
    assert command("outbox", "retry", "--server", "eu", "--outbox", file).returncode == 0
    assert set(ids_of(file)) == {"t3"}
    none = command("outbox", "retry", "--server", "eu", "--outbox", file)
    assert (none.returncode, none.stdout) == (1, "no matching dead letter: see 'conductor-adapter outbox list'\n")
    with open_outbox(file) as outbox:
        assert [(stock.destination, stock.waiting) for stock in outbox.stock()] == [("eu", 3), ("us", 0)]


def test_purge_deletes_dead_letters_only_when_told_twice(file):
    """Without --yes nothing is deleted."""
    assert "repeat the command with --yes" in refused("outbox", "purge", "--outbox", file)
    assert len(ids_of(file)) == 3

    assert command("outbox", "purge", "--yes", "--server", "us", "--outbox", file).stdout == "1 dead letter deleted\n"
    assert command("outbox", "purge", "--yes", "--outbox", file).stdout == "2 dead letters deleted\n"
    none = command("outbox", "purge", "--yes", "--outbox", file)
    assert (none.returncode, none.stdout) == (1, "no matching dead letter: see 'conductor-adapter outbox list'\n")


def test_purge_of_what_waits_needs_a_server_and_leaves_what_a_worker_has(file):
    """Results of a server that nobody serves any more can be deleted, those that a running worker sends cannot."""
    assert "it needs --server NAME" in refused("outbox", "purge", "--waiting", "--yes", "--outbox", file)

    with open_outbox(file) as worker:
        worker.put(row("eu", "t5"))
        done = command("outbox", "purge", "--waiting", "--yes", "--server", "eu", "--outbox", file)
        assert done.stdout == "1 waiting result deleted\n"
        assert [stock.waiting for stock in worker.stock() if stock.destination == "eu"] == [1]
        again = command("outbox", "purge", "--waiting", "--yes", "--server", "eu", "--outbox", file)
        assert (again.returncode, again.stdout) == (1, "0 waiting results deleted\n")


def test_an_outbox_that_is_not_there_is_not_made(tmp_path):
    """A typing error tells of itself instead of an empty file."""
    for given in (("--outbox", tmp_path / "no.db"), ()):
        assert "there is no outbox at" in refused("outbox", "list", *given)
    assert "name the file" in refused("outbox", "list", "--outbox", "none")
    assert not (tmp_path / "no.db").exists()


def test_what_is_no_outbox_is_refused_in_one_line(tmp_path):
    """The file of another program, or a damaged one."""
    (tmp_path / "x.db").write_bytes(b"something else entirely, and long enough to be looked at" * 100)
    (tmp_path / "workers.py").write_text(WORKER)

    assert "it is no outbox" in refused("outbox", "list", "--outbox", tmp_path / "x.db")
    assert "it is a folder: name a file in it" in refused("outbox", "list", "--outbox", tmp_path)
    started = ("run", tmp_path / "workers.py", "--server", "eu=http://localhost:1/api", "--outbox", tmp_path / "x.db")
    assert "it is no outbox" in refused(*started)


def test_the_default_outbox_is_the_users_own(monkeypatch, tmp_path):
    """In the folder where the system keeps the state of programs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert outbox_module.outbox_path("") == tmp_path / "conductor-adapter" / "outbox.db"
    assert outbox_module.outbox_path("x.db") == Path("x.db")
    assert outbox_module.outbox_path("none") is None


@pytest.mark.parametrize("place", ["conductor-adapter", "conductor-adapter/outbox.db"])
def test_r42_a_link_in_the_place_of_the_default_outbox_is_not_followed(monkeypatch, tmp_path, place):
    """Results would end in a file that nobody named."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ValueError, match="is a symbolic link: remove it, or name the file with --outbox"):
        outbox_module.outbox_path("")


def test_no_outbox_has_nothing_elsewhere():
    """Results that are kept in memory alone are nobody else's."""
    assert outbox_module.elsewhere(outbox_module.outbox_path("none"), []) == {}


def test_list_of_an_empty_outbox_says_so(tmp_path):
    """One line, with the file."""
    open_outbox(tmp_path / "o.db").close()

    assert command("outbox", "list", "--outbox", tmp_path / "o.db").stdout == f"{tmp_path / 'o.db'}: empty\n"


@pytest.mark.slow
def test_d2_a_killed_worker_sends_its_results_at_the_next_start(tmp_path):
    """Results wait as their server refuses updates; kill -9; the next worker delivers them and runs nothing again."""
    (tmp_path / "workers.py").write_text(WORKER)
    with DevServer(name="eu") as server:
        server.faults.set(error=503, only="updates")
        run = ("run", str(tmp_path / "workers.py"), "--server", f"eu={server.url}", "--outbox", str(tmp_path / "o.db"))
        flows = [server.start_task("greet", {"name": str(number)}) for number in range(2)]
        worker = subprocess.Popen([COMMAND, *run], stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603 - our own
        with worker, open_outbox_when_there(tmp_path / "o.db") as outbox:
            until(lambda: sum(stock.waiting for stock in outbox.stock()) == 2, "both results wait in the outbox")
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
        server.faults.clear()
        with subprocess.Popen([COMMAND, *run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as again:  # noqa: S603
            assert {server.wait(flow, timeout=60).status for flow in flows} == {"COMPLETED"}
            again.send_signal(signal.SIGTERM)
            said, _ = again.communicate(timeout=60)

    assert again.returncode == 0, said
    assert "0 tasks polled; 2 results delivered, 2 taken over from an earlier process" in said
    assert "eu: another worker has claimed 2 results for this server in the outbox; if that worker was killed" in said


def test_results_left_at_the_end_are_told_of_and_stay_in_the_outbox(tmp_path):
    """Exit status 1, the count, and where they are: nobody is told that their tasks will run again."""
    (tmp_path / "workers.py").write_text(WORKER)
    with DevServer(name="eu") as server:
        server.faults.set(error=503, only="updates")
        server.start_task("greet", {"name": "Ada"})
        options = ("--server", f"eu={server.url}", "--outbox", tmp_path / "o.db", "--duration", "2", "--grace", "0.2")
        done = command("run", tmp_path / "workers.py", *options)

    last = done.stdout.splitlines()[-1]
    assert done.returncode == 1
    assert last == (
        "stopped; left undone: 1 result not delivered (1 in the outbox; the next worker will send them), "
        "0 tasks still running, "
        "0 un-started tasks not given back"
    )
    with open_outbox(tmp_path / "o.db") as outbox:
        assert [(stock.waiting, stock.free) for stock in outbox.stock()] == [(1, 1)]


def open_outbox_when_there(path):
    """The outbox that another process makes."""
    until(path.exists, "the worker has made its outbox")
    return open_outbox(path)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("retry", "9" * 30), "Invalid value for 'ID'"),
        (("purge", "--yes", "9" * 30), "Invalid value for 'ID'"),
        (("retry", "--server", os.fsdecode(b"e\xff")), "cannot be the name of a server"),
        (("purge", "--yes", "--waiting", "--server", os.fsdecode(b"e\xff")), "cannot be the name of a server"),
        (("list", "--server", os.fsdecode(b"e\xff")), "cannot be the name of a server"),
    ],
)
def test_what_no_row_can_have_is_refused_in_one_line(file, arguments, why):
    """A number that is too long, and a name that is no text."""
    assert why in refused("outbox", *arguments, "--outbox", file)


def test_a_path_that_no_file_can_have_is_refused_in_one_line(tmp_path):
    """It cannot even be looked for."""
    assert "File name too long" in refused("outbox", "list", "--outbox", tmp_path / ("x" * 300))


def test_an_outbox_that_breaks_while_it_is_looked_at_is_refused_in_one_line(monkeypatch, file, capsys):
    """It could be opened, and then could not be read."""

    def broken(outbox):
        raise OutboxError("outbox 'x': the disk fails", outbox.path)

    monkeypatch.setattr(outbox_module.Outbox, "stock", broken)
    with pytest.raises(SystemExit) as caught:
        outbox_module.show(str(file), [], as_json=False)

    assert (caught.value.code, capsys.readouterr().err) == (2, "conductor-adapter: outbox 'x': the disk fails\n")


@pytest.mark.parametrize("path", [Path("~/.local/state"), RuntimeError("no home directory")])
def test_a_user_without_a_home_is_told_to_name_a_file(monkeypatch, path):
    """As in a container that runs as a user whom its image does not know."""

    def user_state_path(_name):
        if isinstance(path, Exception):
            raise path
        return path

    monkeypatch.setattr(outbox_module.platformdirs, "user_state_path", user_state_path)
    with pytest.raises(ValueError, match=r"no home directory.* name a file with --outbox, or '--outbox none'"):
        outbox_module.outbox_path("")
