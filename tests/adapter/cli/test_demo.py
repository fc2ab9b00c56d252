"""The demo as a user sees it: piped, on a terminal, interrupted, and on servers of the user's own."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import attrs
import pytest
from commands import COMMAND, GUARD, URL, command, refused
from hearing import Heard
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter import DevServer, WorkerSpec, execute
from conductor_adapter.cli.demo.counting import Counts
from conductor_adapter.cli.demo.real import Real
from conductor_adapter.cli.demo.showing import shares_of
from conductor_adapter.cli.demo.story import TASK, Account, chapters, top_up
from conductor_adapter.cli.demo.telling import say_end
from conductor_adapter.cli.printing import Printer
from conductor_adapter.dev_server import DevServerProcess
from resilience import DeliveryResumed, GaveBack

PLAIN = Account(server="eu", started=3, finished=3, handed_out={"a": 1, "b": 1, "c": 1})


def test_demo_loses_nothing_and_accounts_for_every_task() -> None:
    """One server hangs, one is killed and comes back; every task is finished, and each number is the servers' own."""
    done = command("demo", "--seconds", "8", "--json")

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    accounts = [row for row in rows if row["kind"] == "account"]
    told = [row["text"] for row in rows if row["kind"] == "chapter"]
    assert (done.returncode, done.stderr) == (0, "")
    assert [
        word for text in told for word in ("hangs", "killed", "comes back", "wakes up", "no new") if word in text
    ] == [
        "hangs",
        "killed",
        "comes back",
        "wakes up",
        "no new",
    ]
    assert [(row["server"], row["lost"], row["surplus"]) for row in accounts] == [
        ("eu", 0, 0),
        ("us", 0, 0),
        ("ap", 0, 0),
    ]
    assert all(row["executed"] >= row["finished"] == row["started"] > 0 for row in accounts)
    assert rows[-1]["text"].startswith("no task was lost")
    views = [row["servers"] for row in rows if row["kind"] == "servers"]
    assert all(
        sum(view["share"] for view in one.values()) == pytest.approx(1)
        or not any(view["rate"] for view in one.values())
        for one in views
    )


@pytest.mark.slow
def test_demo_works_without_curl(tmp_path: Path) -> None:
    """Neither curl nor anything else that is optional is needed beside the extras of the demo."""
    program = tmp_path / "plain.py"
    program.write_text(
        "import sys\nsys.modules['pycurl'] = None\nsys.argv = ['conductor-adapter', 'demo', '--seconds', '4']\n"
        "from conductor_adapter.cli import main\nmain()\n"
    )

    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=2 * GUARD, check=False)  # noqa: S603 - ours

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "no task was lost" in done.stdout


@pytest.mark.slow
def test_demo_draws_a_live_table_on_a_terminal() -> None:
    """On a terminal the servers stand in a table with their breakers, and the end is readable below it."""
    leader, follower = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    with subprocess.Popen([COMMAND, "demo", "--seconds", "3"], stdout=follower, env=environ) as process:  # noqa: S603 - ours
        os.close(follower)
        text = _read_all(leader)
        assert process.wait(GUARD) == 0

    assert all(word in text for word in ("share", "results waiting", "closed", "█"))
    assert "no task was lost" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "after"),
    [
        (signal.SIGINT, "tasks waiting"),
        (signal.SIGTERM, "tasks waiting"),
        (signal.SIGINT, "us hangs"),
        (signal.SIGTERM, "ap is killed"),
    ],
)
def test_interrupted_demo_leaves_no_server_behind(number: signal.Signals, after: str) -> None:
    """Ctrl-C or SIGTERM at any time ends the demo and its server processes, also a stopped one, also if repeated."""
    with subprocess.Popen([COMMAND, "demo", "--seconds", "4"], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        servers = set()
        while after not in process.stdout.readline():
            servers |= set(_children(process.pid))
        servers |= set(_children(process.pid))
        process.send_signal(number)
        told, pause = process.stdout, threading.Event()
        while process.poll() is None:  # somebody has no patience
            process.send_signal(number)
            pause.wait(0.02)

        assert "interrupted" in told.read()
        assert process.wait(GUARD) == 128 + number
    assert len(servers) >= 3
    _wait_until_gone(servers)


@pytest.mark.slow
@pytest.mark.parametrize("after", ["us hangs", "ap is killed"])
def test_killed_demo_leaves_no_server_behind(after: str) -> None:
    """A server that is stopped when the demo is killed goes on, finds itself alone, and ends."""
    with subprocess.Popen([COMMAND, "demo", "--seconds", "6"], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        servers = set()
        while after not in process.stdout.readline():
            servers |= set(_children(process.pid))
        process.stdout.readline()  # what was announced has been done
        process.kill()
    assert len(servers) >= 3
    _wait_until_gone(servers)


@pytest.mark.slow
def test_demo_works_on_real_servers_and_breaks_nothing_there() -> None:
    """With --real the given servers get work of their own, at the start and then steadily, and no fault."""
    with DevServer() as one, DevServer() as two:
        done = command("demo", "--real", one.url, "--real", two.url, "--seconds", "3")
        runs = [server.runs("demo_task") for server in (one, two)]

    assert (done.returncode, done.stderr) == (0, ""), done
    assert all(run["COMPLETED"] >= 100 and not run.get("RUNNING") for run in runs)
    assert "these servers are real: no faults are injected" in done.stdout
    assert f"real-1: {runs[0]['COMPLETED']} started, {runs[0]['COMPLETED']} finished, 0 lost" in done.stdout


def test_interrupted_demo_on_real_servers_says_that_something_stays_there() -> None:
    """What was started on somebody's server and has not finished is not hidden."""
    with DevServer() as one:
        arguments = [COMMAND, "demo", "--real", one.url]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
            assert process.stdout is not None
            while "tasks waiting" not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGINT)

            assert "remain on the servers" in process.stdout.read()
            assert process.wait(GUARD) == 130


def test_real_server_that_dies_ends_neither_the_demo_nor_the_other_server() -> None:
    """Its tasks are not called lost: it cannot be asked. The account says so."""
    with DevServerProcess() as one, DevServer() as two, Real([one.url, two.url], "auto") as stage:
        stage.seed()
        one.kill()

        stage.feed({"real-1": 5, "real-2": 5})

        assert stage.started == {"real-1": 100, "real-2": 105}
        assert not stage.is_drained()
        account, other = stage.accounts()
        assert account.problem is not None
        assert (account.lost, account.good) == (0, False)
        assert "what became of them is unknown" in account.sentence()
        assert other.unfinished == 105


def test_server_that_cannot_be_asked_is_not_called_drained() -> None:
    """Not knowing is not being done."""
    with DevServer() as one, Real([one.url], "auto") as stage:
        stage.seed()
        one.faults.set(error=500)
        stage._workflows["real-1"].clear()

        assert not stage.is_drained()
        one.faults.clear()
        assert stage.is_drained()


def test_demo_on_servers_that_cannot_be_used_is_one_line() -> None:
    """A wrong URL, two that are the same, or a server that is not there: one line, no stack trace."""
    assert "must begin with http://" in refused(command("demo", "--real", "nowhere"))
    assert "same URL" in refused(command("demo", "--real", URL, "--real", URL))
    assert "127.0.0.1:9" in command("demo", "--real", URL).stderr
    with DevServer() as server:
        assert "real-1 refused POST" in command("demo", "--real", server.url.removesuffix("/api")).stderr


@pytest.mark.parametrize("seconds", ["0", "1", "-5", "nan", "1e9", "soon"])
def test_story_of_an_impossible_length_is_refused(seconds: str) -> None:
    """Too short to be told, or longer than an hour."""
    assert "--seconds" in refused(command("demo", "--seconds", seconds))


@given(st.floats(1, 1000))
def test_story_is_told_in_order_whatever_its_length(seconds: float) -> None:
    """First one hangs, then another is killed, comes back, and at last the first goes on."""
    told = chapters(seconds)

    assert [c.act for c in told] == ["freeze", "kill", "restart", "thaw"]
    assert [c.at for c in told] == sorted(c.at for c in told)
    assert told[-1].at < seconds


@given(st.integers(0, 1000), st.lists(st.integers(0, 600)))
def test_trickle_keeps_the_backlog(backlog: int, ran_each_second: list[int]) -> None:
    """New tasks come as fast as they are worked off: never more wait than at the start, and as many after each feed."""
    started, ran = backlog, 0

    for count in ran_each_second:
        ran = min(ran + count, started)
        started += top_up(backlog, started, ran)

        assert started - ran == backlog


def test_shares_are_parts_of_all_that_ran() -> None:
    """Nobody has a share of nothing."""
    assert shares_of({"eu": 30.0, "us": 10.0}) == {"eu": 0.75, "us": 0.25}
    assert shares_of({"eu": 0.0}) == {"eu": 0.0}


def test_lost_is_what_ended_without_being_completed() -> None:
    """The demo's verdict is made of the server's numbers; what is alive will still be handed out."""
    account = attrs.evolve(PLAIN, started=6, unfinished=1)

    assert (account.lost, account.good) == (2, False)
    assert "6 started, 3 finished, 2 lost; 1 not finished in time" in account.sentence()


def test_task_that_went_back_is_not_called_retried() -> None:
    """A hand-out after a give-back is our doing; every further one is the server's for an answer that was lost."""
    account = attrs.evolve(PLAIN, handed_out={"a": 3, "b": 2, "c": 1}, given_back=1)

    assert account.retried == 2


def test_run_that_no_hand_out_explains_is_a_fault() -> None:
    """No task runs more often than its server handed it out."""
    account = attrs.evolve(PLAIN, executed={"a": 1, "b": 2, "c": 1})

    assert (account.surplus, account.good) == (1, False)
    assert "1 runs too many" in account.sentence()
    assert attrs.evolve(PLAIN, executed={"a": 1, "b": 1, "c": 1}).good


def test_runs_are_counted_by_server_and_task_and_others_tasks_are_left_out() -> None:
    """On a real server the demo counts its own tasks only."""
    counts = Counts()
    spec = WorkerSpec(task_type=TASK, function=counts.work)
    for workflow in ("a", "a", "b", "somebody's"):
        execute(spec, server="eu", workflow_id=workflow)
    execute(spec, server="us", workflow_id="a")

    assert counts.complete(PLAIN).executed == {"a": 2, "b": 1}
    assert counts.complete(attrs.evolve(PLAIN, problem="gone")).runs == 4


def test_given_back_tasks_are_counted_by_server_and_every_event_is_passed_on() -> None:
    """Counting takes nothing away from whoever listens."""
    counts, heard = Counts(), Heard()
    counts.tell = heard

    for event in (GaveBack("eu", 2, "stopping"), GaveBack("eu", 1, "stopping"), DeliveryResumed("us")):
        counts.hear(event)

    assert (counts.complete(PLAIN).given_back, len(heard)) == (3, 3)


@pytest.mark.parametrize(
    ("account", "end"),
    [
        (attrs.evolve(PLAIN, started=5), "2 tasks were lost"),
        (attrs.evolve(PLAIN, problem="gone"), "not every task is accounted for"),
        (attrs.evolve(PLAIN, executed={"a": 2}), "not every task is accounted for"),
    ],
)
def test_what_is_not_good_is_the_exit_status(account: Account, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A demo that loses a task, or cannot tell, fails."""
    assert say_end(Printer(), [PLAIN, account]) == 1
    assert capsys.readouterr().out.endswith(f"{end}\n")


def _read_all(descriptor: int) -> str:
    parts = []
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError:  # the other side of the terminal is closed
        pass
    finally:
        os.close(descriptor)
    return b"".join(parts).decode()


def _wait_until_gone(pids: set[str]) -> None:
    deadline = time.monotonic() + GUARD
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):  # noqa: PTH110 - a process, not a path
        assert time.monotonic() < deadline


def _children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:  # noqa: PTH123 - a process, not a path
        return file.read().split()
