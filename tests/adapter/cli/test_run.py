"""The command line as a user has it: the installed console command in processes of its own."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import attrs
import pytest
from commands import COMMAND, GUARD, URL, WORKER, command, refused
from fault_kit import until

from conductor_adapter import Books, Credentials, DevServer, StopReport
from conductor_adapter.cli.limits import descriptor_hint
from conductor_adapter.cli.printing import Printer
from conductor_adapter.cli.run import Ended, RunOptions, first_look, say_end
from resilience import DeadLettered


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file with one worker."""
    file = tmp_path / "workers.py"
    file.write_text(WORKER)
    return file


@pytest.fixture
def pair() -> Iterator[tuple[DevServer, DevServer]]:
    """Two embedded servers."""
    with DevServer(name="eu") as eu, DevServer(name="us") as us:
        yield eu, us


def completed(server: DevServer, number: int = 1) -> Callable[[str], bool]:
    """Whether it has so many tasks that are done."""
    return lambda _told: server.runs("greet")["COMPLETED"] == number


def failed(server: DevServer, number: int = 1) -> Callable[[str], bool]:
    """Whether it has so many tasks that failed."""
    return lambda _told: server.runs("greet")["FAILED"] == number


def test_run_works_on_all_servers(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """Tasks of both servers run; the end says how many, and that nothing was left."""
    for server in pair:
        server.start_tasks("greet", 5)

    options = ("--server", f"eu={pair[0].url}", "--server", f"us={pair[1].url}")
    done = command(
        "run", target, *options, until=lambda _: all(server.runs("greet")["COMPLETED"] == 5 for server in pair)
    )

    assert (done.returncode, done.stderr) == (0, "")
    said = "5 tasks polled: 5 finished; 5 results delivered"
    assert f"eu: {said}\nus: {said}\n" in done.stdout
    assert done.stdout.endswith("stopped; nothing is left undone\n")
    assert [server.runs("greet")["COMPLETED"] for server in pair] == [5, 5]


def test_run_says_how_many_tasks_failed_and_why(pair: tuple[DevServer, DevServer], tmp_path: Path) -> None:
    """A worker whose every task fails does not look like one that works."""
    target = tmp_path / "failing.py"
    target.write_text(
        "from conductor_adapter import worker\n@worker('greet')\ndef greet(name):\n    raise ValueError('no ' + name)\n"
    )
    pair[0].start_tasks("greet", 2, {"name": "Ada"}, retryCount=0)

    done = command("run", target, "--server", f"eu={pair[0].url}", until=failed(pair[0], 2))

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^eu: task [-0-9a-f]{36} of type 'greet' failed: ValueError: no Ada$", done.stdout, re.MULTILINE)
    assert "eu: 2 tasks polled: 2 finished (2 failed); 2 results delivered\n" in done.stdout


def test_run_speaks_json_to_machines(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """With --json every line is an object, and the last one, after its duration, says what was left."""
    done = command("run", target, "--server", f"eu={pair[0].url}", "--duration", "0.4", "--json", "--threads", "3")

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["kind"] == "worker"
    assert {"kind": "stopped", "left": 0, "unfinished": 0, "kept": 0}.items() <= rows[-1].items()
    assert {"kind": "books", "server": "eu", "polled": 0, "failed": 0, "balanced": True}.items() <= rows[-2].items()
    assert rows[-2].keys() >= {field.name for field in attrs.fields(Books)}
    (look,) = (row for row in rows if row["kind"] == "server")
    assert {"reachable": True, "waiting": {"greet": 0}, "unknown": ["greet"]}.items() <= look.items()


def test_run_takes_servers_from_the_environment(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """Lists in the environment need no option."""
    done = command(
        "run",
        "workers",
        "--duration",
        "0.4",
        folder=target.parent,
        CONDUCTOR_SERVER_URL=f"{pair[0].url},{pair[1].url}",
        CONDUCTOR_SERVER_NAME="eu,us",
    )

    assert done.returncode == 0
    assert "polling eu, us" in done.stdout
    assert "eu: reachable; waiting: 0 greet" in done.stdout


def test_run_takes_servers_from_a_file_with_credentials_from_the_environment(target: Path) -> None:
    """A TOML file names the servers and need hold no secret."""
    with DevServer(name="eu", credentials=Credentials("k", "s3cret")) as locked:
        locked.start_tasks("greet", 2)
        file = target.parent / "servers.toml"
        file.write_text(f'[[servers]]\nname = "eu"\nurl = "{locked.url}"\n')
        secrets = {"CONDUCTOR_AUTH_KEY_EU": "k", "CONDUCTOR_AUTH_SECRET_EU": "s3cret"}

        done = command("run", target, "--config", file, "-v", until=completed(locked, 2), **secrets)

        assert done.returncode == 0
        assert "eu: 2 tasks polled: 2 finished; 2 results delivered" in done.stdout
        assert "s3cret" not in done.stdout + done.stderr


def test_run_says_what_is_wrong_with_a_server_and_goes_on(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """A server that is not there is named, its breaker opens, repeated errors are sampled, and the other one works."""
    pair[0].start_tasks("greet", 3)
    options = ("--server", f"eu={pair[0].url}", "--server", f"dead={URL}")

    def all_told(told: str) -> bool:
        lines = ("dead: not reachable: ", "dead: breaker of polls closed -> open")
        return all(line in told for line in lines) and pair[0].runs("greet")["COMPLETED"] == 3

    done = command("run", target, *options, until=all_told)

    assert done.returncode == 0
    assert "dead: not reachable: " in done.stdout
    assert done.stdout.endswith("stopped; nothing is left undone, but no poll of dead ever succeeded\n")
    assert "dead: breaker of polls closed -> open" in done.stdout
    assert "eu: 3 tasks polled: 3 finished; 3 results delivered" in done.stdout
    assert done.stdout.count("dead: poll failed") <= 4


def test_run_hints_at_a_missing_api(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """A URL without /api is probably a mistake, so it is said, but it is not refused."""
    done = command("run", target, "--server", f"eu={pair[0].url.removesuffix('/api')}", "--duration", "0.3", "-q")

    assert done.returncode == 0
    assert "does not end in /api" in done.stdout


def test_run_names_credentials_that_no_server_reads(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """Those of servers from the environment are not those of servers from options, and that is said."""
    options = ("--server", f"eu={pair[0].url}", "--duration", "0.3", "-q")

    done = command("run", target, *options, CONDUCTOR_AUTH_KEY="k", CONDUCTOR_AUTH_SECRET="s3cret")  # noqa: S106 - made up

    assert "the environment has CONDUCTOR_AUTH_KEY, CONDUCTOR_AUTH_SECRET, which no server reads" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


def test_run_says_that_a_task_type_is_unknown(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """A task type that no server knows may be a typing error."""
    done = command("run", target, "--server", f"eu={pair[0].url}", "--duration", "1")

    assert "task type 'greet' is unknown there" in done.stdout


def test_run_exits_with_1_when_results_were_left(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """What no server took is counted at the end, and the exit status says so."""
    pair[0].start_tasks("greet", 1)
    pair[0].faults.set(error=503, only="updates")

    options = ("--server", f"eu={pair[0].url}", "--grace", "0.3")

    done = command("run", target, *options, until=lambda told: "eu: result of task" in told)

    assert done.returncode == 1
    assert "stopped; left undone: 1 result not delivered" in done.stdout
    assert "eu: result of task" in done.stdout
    assert "eu: 1 task polled: 1 finished; 0 results delivered, 1 waiting" in done.stdout


REFUSED_WORKER = """
from conductor_adapter import worker

@worker("greet", threads=2)
def greet() -> str:
    return "x"
"""


def test_run_exits_with_1_when_a_result_was_refused_for_good(
    pair: tuple[DevServer, DevServer], target: Path, tmp_path: Path
) -> None:
    """Its task is named in the last line, and the outbox has it."""
    target.write_text(REFUSED_WORKER)
    pair[0].start_tasks("greet", 1, retryCount=0)
    pair[0].faults.set(error=404, body='{"message":"No such task found by id: t"}', only="updates")
    options = ("--server", f"eu={pair[0].url}", "--outbox", tmp_path / "o.db")

    done = command("run", target, *options, until=lambda told: "No such task found by id: t" in told)

    assert (done.returncode, done.stderr) == (1, "")
    (letter,) = map(
        json.loads, command("outbox", "list", "--outbox", tmp_path / "o.db", "--json").stdout.splitlines()[1:]
    )
    assert done.stdout.endswith(f"stopped; refused permanently: 1 result (task {letter['task']} of eu)\n")


LEFT = "0 tasks still running, 0 un-started tasks not given back"
AGAIN = "their servers will time them out and run them again"
TO_GIVE_BACK = f"0 tasks still running, 1 un-started task not given back; {AGAIN}"
SEVEN = "task t0 of eu, task t1 of eu, task t2 of eu, task t3 of eu, task t4 of eu, 2 more"


@pytest.mark.parametrize(
    ("report", "said", "style"),
    [
        (StopReport(), "nothing is left undone", "green"),
        (StopReport(unreached=("a", "b")), "nothing is left undone, but no poll of a, b ever succeeded", "yellow"),
        (
            StopReport(dead=7, unreached=("a",)),
            f"refused permanently: 7 results ({SEVEN}); no poll of a ever succeeded",
            "bold red",
        ),
        (
            StopReport(left=2, dead=1),
            f"left undone: 2 results not delivered, {LEFT}; {AGAIN}; refused permanently: 1 result (task t0 of eu)",
            "bold red",
        ),
        (
            StopReport(left=2, saved=2),
            f"left undone: 2 results not delivered (2 in the outbox; the next worker will send them), {LEFT}",
            "bold red",
        ),
        (StopReport(kept=1), f"left undone: 0 results not delivered, {TO_GIVE_BACK}", "bold red"),
    ],
)
def test_last_line_says_what_is_not_well_and_is_green_only_if_all_is(report: StopReport, said: str, style: str) -> None:
    """Left, refused for good, never reached; each says which."""
    lines: list[tuple[str, str]] = []

    class Noting(Printer):
        def say(self, _kind: str, text: str, *, style: str = "", **_: object) -> None:  # type: ignore[override]
            """Note it."""
            lines.append((text, style))

    ended = Ended(Noting())
    for number in range(report.dead):
        ended.hear(DeadLettered("eu", f"t{number}", "No such task"))
    say_end(ended.printer, ended, report)

    assert lines[-1] == (f"stopped; {said}", style)


LOGGING_WORKER = """
import logging
from conductor_adapter import worker

log = logging.getLogger("shop.workers")
log.info("as it is imported")

@worker("greet")
def greet(name: str) -> None:
    log.debug("not wanted")
    log.info("greeting %s", name)
    log.info("%d", "no number")
    try:
        raise KeyError(name)
    except KeyError:
        log.exception("in\\ntwo lines")
"""


def test_log_level_shows_what_task_functions_log(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """With its task, type and server; from the level on; clean, whatever is in it; and without it, as ever."""
    target.write_text(LOGGING_WORKER)
    pair[0].start_tasks("greet", 1, {"name": "Ada\x1b[2J\u202e"})
    options = ("--server", f"eu={pair[0].url}", "--log-level", "INFO")

    done = command("run", target, *options, until=completed(pair[0]))

    first, *lines = done.stdout.splitlines()
    assert first == "INFO shop.workers: as it is imported"
    about = r"eu: task [-0-9a-f]{36} of type 'greet':"
    shown = "\n".join(lines)
    assert re.search(rf"^{about} INFO shop.workers: greeting Ada\?\[2J\?$", shown, re.MULTILINE)
    assert re.search(rf"^{about} ERROR shop.workers: in\n  two lines\n  Traceback ", shown, re.MULTILINE)
    assert re.search(r"^    File .*workers.py.*\n      raise KeyError\(name\)\n", shown, re.MULTILINE)
    assert "not wanted" not in done.stdout
    assert "Logging error" in done.stderr, "a call that cannot be formatted is told as Python tells it"


def test_without_log_level_nothing_is_set_up(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """A target that sets up logging by itself keeps that."""
    own = 'import logging\nlogging.basicConfig(level="INFO", format="mine %(message)s")\n'
    target.write_text(own + LOGGING_WORKER)
    pair[0].start_tasks("greet", 1, {"name": "Ada"})

    done = command("run", target, "--server", f"eu={pair[0].url}", until=completed(pair[0]))

    assert "shop.workers" not in done.stdout
    assert "mine as it is imported\nmine greeting Ada\n" in done.stderr


def test_log_level_speaks_json_to_machines(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """What is logged is an object like every line, with the task by itself."""
    target.write_text(LOGGING_WORKER)
    pair[0].start_tasks("greet", 1, {"name": "Ada"})
    options = ("--server", f"eu={pair[0].url}", "--transport", "requests", "--log-level", "debug", "--json")

    done = command("run", target, *options, until=completed(pair[0]))

    logged = [row for row in map(json.loads, done.stdout.splitlines()) if row["kind"] == "log"]
    assert {"log_level": "debug", "logger": "shop.workers", "server": "eu", "task_type": "greet"}.items() <= logged[
        1
    ].items()
    assert logged[1]["text"] == f"task {logged[1]['task']} of type 'greet': DEBUG shop.workers: not wanted"
    assert logged[-1]["detail"].startswith("two lines\nTraceback ")
    assert {row["logger"] for row in logged} == {"shop.workers"}, "our own calls are not in it"


def test_verbose_shows_the_traceback_of_a_failed_task(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """From the task function on."""
    target.write_text(WORKER.replace("return", "raise ValueError(name) #"))
    pair[0].start_tasks("greet", 1, {"name": "Ada"}, retryCount=0)

    done = command("run", target, "--server", f"eu={pair[0].url}", "-v", until=failed(pair[0]))

    assert f'failed: ValueError: Ada\n  Traceback (most recent call last):\n    File "{target}", line 6' in done.stdout
    assert "conductor_adapter/" not in done.stdout


def test_functions_of_conductor_python_beside_workers_are_told(target: Path) -> None:
    """They are not run, and that is said at the start."""
    fake = (
        "import sys, types\nhandler = sys.modules['conductor.client.automator.task_handler'] = types.ModuleType('h')\n"
        "handler._decorated_functions = {('charge', None): {}}\n"
    )
    target.write_text(fake + WORKER)

    done = command("run", target, "--server", f"eu={URL}", "--duration", "0.1")

    assert (
        "found a function with @worker_task of conductor-python ('charge'), which this command does not" in done.stdout
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_run_cleanly(pair: tuple[DevServer, DevServer], target: Path, number: signal.Signals) -> None:
    """One signal drains and ends with 0."""
    arguments = [COMMAND, "run", target, "--server", f"eu={pair[0].url}"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
        assert process.stdout is not None
        assert "polling eu" in process.stdout.readline()
        while pair[0].counts()["polls"] == 0:
            pass
        process.send_signal(number)

        assert "stopped; nothing is left undone" in process.stdout.read()
        assert process.wait(GUARD) == 0


SLOW_WORKER = """
import time
from conductor_adapter import worker
from conductor_adapter.running import lifecycle

lifecycle.SAME_SIGNAL = 0.0  # the tests need not wait until a signal counts as another one

@worker("greet")
def greet() -> None:
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_second_signal_ends_run_at_once(
    pair: tuple[DevServer, DevServer], target: Path, numbers: tuple[signal.Signals, signal.Signals]
) -> None:
    """The first signal lets the running task finish, the second does not wait: status 1, and what was left is told."""
    target.write_text(SLOW_WORKER)
    pair[0].start_tasks("greet", 1)
    arguments = [COMMAND, "run", target, "--server", f"eu={pair[0].url}", "--grace", "600"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        while "begun" not in process.stdout.readline():
            pass
        process.send_signal(numbers[0])
        while "stopping" not in process.stdout.readline():
            pass
        process.send_signal(numbers[1])
        told, errors = process.communicate(timeout=GUARD)

    assert (process.returncode, errors) == (1, "")
    assert "1 task still running" in told


HELD_UP_WORKER = """
import os, pathlib, time
from conductor_adapter import worker

@worker("greet", threads=1)
def greet() -> None:
    print("begun", flush=True)
    while not os.path.exists("released"):
        time.sleep(0.01)
"""


@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_run_that_stops_while_every_server_hangs_ends_with_1_and_tells_what_is_left(
    pair: tuple[DevServer, DevServer], tmp_path: Path, transport: str
) -> None:
    """It ends though nobody answers, and every task that came is told: as a result or as an un-started one.

    That is both of them, unless a server hung before its answer with the task was out.
    """
    (tmp_path / "held_up.py").write_text(HELD_UP_WORKER)
    for server in pair:
        server.start_tasks("greet", 1)
    servers = [f"--server={name}={server.url}" for name, server in zip(("eu", "us"), pair, strict=True)]
    options = [*servers, "--transport", transport, "--grace", "1.5", "--json"]
    arguments = [COMMAND, "run", "held_up.py", *options]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        while "begun" not in process.stdout.readline():
            pass
        while not all(server.handed_out() for server in pair):
            pass
        for server in pair:
            server.faults.set(hang=True)
        process.send_signal(signal.SIGTERM)
        while "stopping" not in process.stdout.readline():
            pass
        (tmp_path / "released").touch()
        told, _ = process.communicate(timeout=GUARD)

    assert process.returncode == 1
    rows = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    (end,) = (row for row in rows if row["kind"] == "stopped")
    books = [row for row in rows if row["kind"] == "books"]
    assert (end["left"] + end["kept"], end["unfinished"]) == (sum(row["polled"] for row in books), 0)
    assert max(row["polled"] for row in books) == 1
    assert [(row["updated"], row["balanced"]) for row in books] == [(0, True), (0, True)]


def test_run_exits_with_1_when_a_task_outlives_the_grace(pair: tuple[DevServer, DevServer], tmp_path: Path) -> None:
    """One signal is enough: the process does not wait longer than it was told to."""
    (tmp_path / "held_up.py").write_text(HELD_UP_WORKER)
    pair[0].start_tasks("greet", 1)
    options = (f"--server=eu={pair[0].url}", "--grace", "0.2")

    done = command("run", "held_up.py", *options, folder=tmp_path, until=lambda told: "begun" in told)

    assert done.returncode == 1
    assert "stopped; left undone: 0 results not delivered, 1 task still running" in done.stdout
    assert "eu: 1 task polled: 1 still running; 0 results delivered\n" in done.stdout


NO_THREADS = """
import threading
from conductor_adapter import worker

@worker("greet", threads=2)
def greet() -> None:
    pass

def start(thread: threading.Thread, real=threading.Thread.start) -> None:
    if thread.name == "unit-2":
        raise RuntimeError("can't start new thread")
    real(thread)

threading.Thread.start = start
"""


def test_run_that_gets_no_threads_says_so_and_leaves_nothing(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """One line with the way out and status 1, instead of a worker that takes tasks and cannot run them."""
    target.write_text(NO_THREADS)

    done = command("run", target, "--server", f"eu={pair[0].url}", "--duration", "30")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "not started: can't start new thread: raise the limit of threads (ulimit -u" in done.stderr


def test_reader_who_goes_away_costs_the_lines_and_not_the_work(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """`run | head` is no reason to stop, and no stack trace."""
    pair[0].start_tasks("greet", 3)
    arguments = [COMMAND, "run", target, "--server", f"eu={pair[0].url}"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        try:
            until(lambda: completed(pair[0], 3)(""), "the tasks are completed")
        finally:
            process.terminate()

        assert (process.wait(GUARD), process.stderr.read()) == (0, b"")
    assert pair[0].runs("greet")["COMPLETED"] == 3


def test_worker_with_a_domain_is_told_what_waits_in_that_domain(
    pair: tuple[DevServer, DevServer], target: Path
) -> None:
    """Tasks of a domain wait in a queue of their own."""
    target.write_text(WORKER.replace("threads=2", "domain='blue'"))

    done = command("run", target, "--server", f"eu={pair[0].url}", "--duration", "0.4")

    assert "waiting: 0 blue:greet" in done.stdout


@pytest.mark.parametrize(("switch", "lines"), [("-q", ["polled", "stopped"]), ("-qq", [])])
def test_quiet_run_says_little_or_nothing(
    pair: tuple[DevServer, DevServer], target: Path, switch: str, lines: list[str]
) -> None:
    """-q leaves what matters; -qq leaves the exit status."""
    done = command("run", target, "--server", f"eu={pair[0].url}", "--duration", "0.4", "--grace", "0", switch)

    told = [line for line in done.stdout.splitlines() if "reachable" not in line]
    assert done.returncode == 0
    assert len(told) == len(lines)
    assert all(word in line for word, line in zip(lines, told, strict=True))


def test_run_on_a_terminal_says_when(pair: tuple[DevServer, DevServer], target: Path) -> None:
    """A person at a terminal gets the time of day with every line."""
    done = command("run", target, "--server", f"eu={pair[0].url}", "--duration", "0.4", FORCE_COLOR="1", NO_COLOR="1")

    assert re.search(r"\d\d:\d\d:\d\d .*stopped; nothing is left undone", done.stdout)


@pytest.mark.parametrize(
    ("duration", "at"), [(None, 5.0), (0.4, 0.2), (2.0, 1.0), (3.0, 2.0), (5.5, 4.5), (6.0, 5.0), (100.0, 5.0)]
)
def test_servers_are_looked_at_after_five_seconds_or_just_before_the_end(duration: float | None, at: float) -> None:
    """Five seconds show what is wrong; a shorter run is looked at before it ends."""
    assert first_look(duration) == at


def test_longer_timeout_moves_the_moment_when_the_connection_is_closed() -> None:
    """A poll may take longer than the usual limit, if the user says so."""
    options = RunOptions(
        target="x",
        servers=[],
        config=None,
        threads=None,
        poll_wait=None,
        poll_timeout=40.0,
        transport="auto",
        outbox="none",
        grace=1.0,
        duration=None,
    )

    assert options.runner_config().poll.give_up_after == 80.0
    assert attrs.evolve(options, poll_timeout=None).runner_config().poll.give_up_after == 30.0


BAD_WORKERS = {
    "no_worker": ("x = 1", "no worker in"),
    "twice": (f"{WORKER}\n@worker('greet')\ndef other(): ...\n", "two workers for task type 'greet'"),
    "bad_threads": ("from conductor_adapter import worker\nworker('a', threads=0)(lambda: None)", "threads is 0"),
    "coroutine": ("from conductor_adapter import worker\n@worker('a')\nasync def a(): ...", "is an async def"),
}


@pytest.mark.parametrize("case", BAD_WORKERS)
def test_target_that_gives_no_workers_is_told(case: str, tmp_path: Path) -> None:
    """No worker, two for one type, bad threads, a coroutine function: the error names it and the way out."""
    text, expected = BAD_WORKERS[case]
    (tmp_path / "workers.py").write_text(text)

    done = command("run", tmp_path / "workers.py", "--server", f"eu={URL}")

    assert done.returncode == 2
    assert expected in done.stderr


def test_target_that_does_not_import_shows_the_users_own_traceback(tmp_path: Path) -> None:
    """The user's frames are shown, and none of ours."""
    (tmp_path / "workers.py").write_text("def f():\n    return 1 / 0\nf()\n")

    done = command("run", tmp_path / "workers.py", "--server", f"eu={URL}")

    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr
    assert "return 1 / 0" in done.stderr
    assert "conductor_adapter/" not in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "no server is configured"),
        (["--server", f"eu={URL}", "--server", "eu=http://b/api"], "duplicate server name 'eu'"),
        (["--server", f"eu={URL}", "--server", f"us={URL}/"], "have the same URL"),
        (["--server", URL], "has no name"),
        (["--server", "eu=127.0.0.1:8080/api"], "must begin with http://"),
        (["--server", "eu=http:///api"], "no usable host"),
        (["--server", f"eu={URL}", "--config", "x.toml"], "use only one of them"),
        (["--config", "missing.toml"], "missing.toml cannot be read"),
        (["--server", f"eu={URL}", "--threads", "0"], "'0' must be a whole number"),
        (["--server", f"eu={URL}", "--threads", "-2"], "'-2' must be a whole number"),
        (["--server", f"eu={URL}", "--threads", "1.5"], "'1.5' must be a whole number"),
        (["--server", f"eu={URL}", "--threads", "true"], "'true' must be a whole number"),
        (["--server", f"eu={URL}", "--poll-wait", "nan"], "'nan' must be more than 0"),
        (["--server", f"eu={URL}", "--poll-wait", "0"], "'0' must be more than 0"),
        (["--server", f"eu={URL}", "--poll-wait", "soon"], "not a number of seconds"),
        (["--server", f"eu={URL}", "--poll-wait", "5"], "shorten --poll-wait or lengthen --poll-timeout"),
        (
            ["--server", f"eu={URL}", "--poll-wait", "6", "--poll-timeout", "9"],
            "--poll-wait is 6 s, but Conductor servers wait for at most 5 s",
        ),
        (["--server", f"eu={URL}", "--poll-timeout", "1"], "--poll-wait 1 and --poll-timeout 1"),
        (["--server", f"eu={URL}", "--poll-timeout", "-1"], "'-1' must be more than 0"),
        (["--server", f"eu={URL}", "--poll-timeout", "1e300"], "'1e300' must be at most"),
        (["--server", f"eu={URL}", "--grace", "-1"], "'-1' must be 0 or more"),
        (["--server", f"eu={URL}", "--grace", "1e300"], "'1e300' must be at most"),
        (["--server", f"eu={URL}", "--grace", "inf"], "'inf' must be more than 0"),
        (["--server", f"eu={URL}", "--duration", "1e300"], "omit it"),
        (["--server", f"eu={URL}", "--threads", "10001"], "'10001' must be a whole number, 1 to 10000"),
        (["--server", f"eu={URL}", "--threads", "9" * 5000], "must be a whole number, 1 to 10000"),
        (["--server", f"eu={URL}", "--transport", "ftp"], "unknown transport 'ftp'"),
        (["--server", f"eu={URL}", "--outbox", " "], "--outbox is ' ': name a file, or leave it out"),
        (["--server", f"eu={URL}", "--log-level", "loud"], "'loud' is not a log level; write debug, info, warning, "),
        (["--server", f"\x1b[2J={URL}"], "\\x1b[2J"),
        (["--sever", f"eu={URL}"], "No such option: --sever"),
        (["--no-such-option"], "; see conductor-adapter run --help\n"),
    ],
)
def test_bad_options_get_one_line_that_names_the_value(target: Path, options: list[str], expected: str) -> None:
    """Every mistake is one line on standard error and exit status 2."""
    line = refused(command("run", target, *options))

    assert expected in line
    assert len(line) < 400


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CONDUCTOR_SERVER_URL": f"{URL},http://b/api", "CONDUCTOR_AUTH_KEY": "k"}, "CONDUCTOR_AUTH_KEY"),
        (
            {"CONDUCTOR_SERVER_URL": f"{URL},http://b/api", "CONDUCTOR_AUTH_KEY": "a,b", "CONDUCTOR_AUTH_SECRET": "s"},
            "CONDUCTOR_AUTH_SECRET",
        ),
        ({"CONDUCTOR_SERVER_URL": "b/api"}, "must begin with http://"),
    ],
)
def test_bad_environment_gets_one_line(target: Path, environ: dict[str, str], expected: str) -> None:
    """Counts that differ and URLs that cannot work are named, and no secret is shown."""
    assert expected in refused(command("run", target, **environ))


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "true", '"2"'])
def test_bad_weight_in_a_file_gets_one_line(target: Path, weight: str) -> None:
    """The file, the server and the value are named."""
    file = target.parent / "servers.toml"
    file.write_text(f'[[servers]]\nname = "eu"\nurl = "{URL}"\nweight = {weight}\n')

    line = refused(command("run", target, "--config", file))

    assert "servers.toml" in line
    assert "weight" in line


@pytest.mark.parametrize("target_name", ["missing.py", "no.such.module"])
def test_missing_target_gets_one_line(tmp_path: Path, target_name: str) -> None:
    """A file or module that is not there is named, with where it was looked for."""
    assert target_name in refused(command("run", target_name, "--server", f"eu={URL}", folder=tmp_path))


@pytest.mark.parametrize(("limit", "said"), [(73, True), (74, False), (-1, False)])
def test_limit_of_open_files_that_is_too_small_is_told(limit: int, said: bool) -> None:
    """Two workers of 3 threads on two servers may have 14 connections, and 32 other files are usual."""
    hint = descriptor_hint(limit, 2, [3, 3], 3)

    assert (hint is not None) is said
    assert hint is None or hint.startswith(
        "this process can open 73 files at once, but its 14 connections might need 74: "
    )


def test_run_hints_at_a_small_limit_of_open_files(target: Path) -> None:
    """It is told at the start, with the command that raises it; before it costs tasks."""
    line = f"ulimit -n 40; exec {COMMAND} run {target} --server eu={URL} --threads 20 --duration 0.1 --transport curl"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=GUARD, check=False)  # noqa: S603, S607 - ours

    assert "can open 40 files at once, but its 22 connections might need 98: raise the limit" in done.stdout
    assert "ulimit -n 196" in done.stdout


@pytest.mark.parametrize("target_name", ["x" * 5000, f"{'x' * 5000}.py", f"/{'x' * 5000}/w.py"])
def test_endless_target_gets_one_line(target_name: str) -> None:
    """A name that no file system takes is refused like one that is not there, and not shown in full."""
    line = refused(command("run", target_name, "--server", f"eu={URL}"))

    assert "cannot be a file or module: File name too long; name a Python file or a module" in line
    assert len(line) < 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'[[servers]]\nname = "eu"\nurl = "{URL}"\nverify = "{"x" * 5000}"\n', "there is no such file or folder"),
        (f"a = {'[' * 5000}", "is nested too deeply"),
    ],
    ids=["verify", "nested"],
)
def test_endless_file_gets_one_line(target: Path, text: str, expected: str) -> None:
    """A configuration file that no library digests is a mistake like any other."""
    file = target.parent / "servers.toml"
    file.write_text(text)

    line = refused(command("run", target, "--config", file))

    assert expected in line
    assert len(line) < 600


def test_version_is_told() -> None:
    """The name and the version of the distribution, and nothing else."""
    done = command("--version")

    assert (done.stdout, done.stderr, done.returncode) == (
        f"conductor-adapter {version('conductor-resilience')}\n",
        "",
        0,
    )


def test_unknown_command_is_one_line_that_names_the_help_of_the_whole() -> None:
    """There is no such command to ask for help."""
    assert "'bogus'; see conductor-adapter --help" in refused(command("bogus"))


def test_no_command_shows_the_help() -> None:
    """Whoever calls the command alone is told what it can do."""
    done = command()

    assert "dev-server" in done.stdout
    assert done.returncode == 2


def test_broken_import_of_ours_is_not_called_a_missing_extra(tmp_path: Path) -> None:
    """Only libraries of an extra are advised to be installed; anything else keeps its stack trace."""
    program = tmp_path / "broken.py"
    program.write_text(
        "import sys\nfrom conductor_adapter import cli\nsys.modules['conductor_adapter.cli.run'] = None\ncli.main()\n"
    )

    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=GUARD, check=False)  # noqa: S603 - ours

    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize(
    ("extra", "missing", "arguments"),
    [
        ("cli", "typer", ["run", "x.py"]),
        ("cli", "typer", ["--help"]),
        ("cli", "rich", ["check"]),
        ("cli,dev-server", "typer", ["demo", "--json"]),
        ("cli,dev-server", "typer", ["dev-server"]),
        ("dev-server", "aiohttp", ["demo"]),
        ("dev-server", "aiohttp", ["dev-server"]),
        ("fast", "pycurl", ["check", "--server", f"eu={URL}", "--transport", "curl"]),
    ],
)
def test_missing_extra_is_named_with_the_command_that_installs_it(
    tmp_path: Path, extra: str, missing: str, arguments: list[str]
) -> None:
    """A bare install says in one line which extra a command needs."""
    program = tmp_path / "bare.py"
    program.write_text(
        f"import sys\nsys.modules[{missing!r}] = None\nsys.argv = ['conductor-adapter', *{arguments!r}]\n"
        "from conductor_adapter.cli import main\nmain()\n"
    )

    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=GUARD, check=False)  # noqa: S603 - ours

    assert f"pip install '.[{extra}]' in the checkout" in refused(done)


def test_help_shows_what_a_configuration_file_holds() -> None:
    """Brackets in a help text are text, not markup."""
    assert "[[servers]]" in command("run", "--help").stdout
