"""The demo as a user sees it: piped, on a terminal, interrupted, and on servers of the user's own."""

import json
import os
import pty
import re
import signal
import subprocess
import time

import pytest
from hearing import Heard
from hypothesis import given
from hypothesis import strategies as st
from test_cli_run import COMMAND, GUARD, URL, command, refused

from conductor_adapter import DevServer
from conductor_adapter.cli.demo.story import Tally, chapters
from conductor_adapter.cli.demo.telling import GivenBack, say_end
from conductor_adapter.cli.lines import Printer
from resilience import DeliveryResumed, GaveBack


def test_demo_loses_nothing_and_accounts_for_every_task() -> None:
    """One server hangs, one is killed and comes back; every task is finished, and each number is the servers' own."""
    done = command("demo", "--seconds", "8", "--json")

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    tallies = [row for row in rows if row["kind"] == "tally"]
    assert done.returncode == 0, done
    assert [row["text"][:2] for row in rows if row["kind"] == "chapter"]
    assert [(row["server"], row["lost"]) for row in tallies] == [("eu", 0), ("us", 0), ("ap", 0)]
    assert all(row["executed"] >= row["finished"] == row["started"] > 0 for row in tallies)
    assert rows[-1]["text"] == "no task was lost"


def test_demo_draws_a_live_table_on_a_terminal() -> None:
    """On a terminal the servers stand in a table with their breakers, and the end is readable below it."""
    leader, follower = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    with subprocess.Popen([COMMAND, "demo", "--seconds", "3"], stdout=follower, env=environ) as process:  # noqa: S603 - ours
        os.close(follower)
        text = _read_all(leader)
        assert process.wait(GUARD) == 0

    assert "results waiting" in text
    assert re.search(r"closed", text)
    assert "no task was lost" in text


def test_interrupted_demo_leaves_no_server_behind() -> None:
    """Ctrl-C ends the demo and its three server processes."""
    with subprocess.Popen([COMMAND, "demo"], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        while "eu" not in process.stdout.readline():
            pass
        servers = _children(process.pid)
        process.send_signal(signal.SIGINT)

        assert "interrupted" in process.stdout.read()
        assert process.wait(GUARD) == 130
    assert len(servers) == 3
    deadline = time.monotonic() + GUARD
    while any(os.path.exists(f"/proc/{pid}") for pid in servers):  # noqa: PTH110 - a process, not a path
        assert time.monotonic() < deadline


def test_demo_works_on_real_servers_and_breaks_nothing_there() -> None:
    """With --real the given servers get a little work of their own, and no fault."""
    with DevServer() as one, DevServer() as two:
        done = command("demo", "--real", one.url, "--real", two.url)
        finished = [server.runs("demo_task")["COMPLETED"] for server in (one, two)]

    assert done.returncode == 0, done
    assert finished == [100, 100]
    assert "nothing is broken there" in done.stdout
    assert "real-1: 100 started, 100 finished, 0 lost" in done.stdout


def test_demo_on_servers_that_cannot_be_used_is_one_line() -> None:
    """A wrong URL, two that are the same, or a server that is not there: one line, no stack trace."""
    assert "must begin with http://" in refused(command("demo", "--real", "nowhere"))
    assert "same URL" in refused(command("demo", "--real", URL, "--real", URL))
    assert "127.0.0.1:9" in command("demo", "--real", URL).stderr
    with DevServer() as server:
        assert "real-1 refused POST" in command("demo", "--real", server.url.removesuffix("/api")).stderr


@given(st.floats(1, 1000))
def test_story_is_told_in_order_whatever_its_length(seconds: float) -> None:
    """First one hangs, then another is killed, comes back, and at last the first goes on."""
    told = chapters(seconds)

    assert [c.act for c in told] == ["freeze", "kill", "restart", "thaw"]
    assert [c.at for c in told] == sorted(c.at for c in told)
    assert told[-1].at < seconds


def test_lost_is_what_was_started_and_never_finished() -> None:
    """The demo's verdict is a difference of two numbers of the server's."""
    tally = Tally(server="eu", started=5, finished=3, executed=4, given_back=0, retried=0)

    assert tally.lost == 2


def test_given_back_tasks_are_counted_by_server_and_every_event_is_passed_on() -> None:
    """Counting takes nothing away from whoever listens."""
    counted, heard = GivenBack(), Heard()
    counted.tell = heard

    for event in (GaveBack("eu", 2, "stopping"), GaveBack("eu", 1, "stopping"), DeliveryResumed("us")):
        counted.hear(event)

    assert (counted["eu"], counted["us"], len(heard)) == (3, 0, 3)


def test_lost_tasks_are_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    """A demo that loses a task fails."""
    tally = Tally(server="eu", started=5, finished=3, executed=4, given_back=0, retried=0)

    assert say_end(Printer(), [tally]) == 1
    assert capsys.readouterr().out.endswith("2 tasks were lost\n")


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


def _children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:  # noqa: PTH123 - a process, not a path
        return file.read().split()
