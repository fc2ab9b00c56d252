"""Signals to the command, from its first instruction to the last: in processes of its own, also as process 1."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import conductor_adapter
from conductor_adapter import DevServer
from conductor_adapter.cli import signals as of_commands
from conductor_adapter.cli.app import command
from conductor_adapter.running import signals
from conductor_adapter.running.lifecycle import is_another_signal

COMMAND = [str(Path(sys.executable).with_name("conductor-adapter"))]
MODULE = [sys.executable, "-m", "conductor_adapter"]
AS_PROCESS_1 = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
GUARD = 60.0  # seconds until a wrong test fails instead of hanging
NOTICED = 9  # exit status of a command that did not hear the signal
STUCK = f"""
import os, time
os.write(1, b"importing\\n")
time.sleep(20)
os._exit({NOTICED})
"""
WORKER = """
from conductor_adapter import worker

@worker("greet", threads=1)
def greet() -> None: ...
"""


def namespaces() -> bool:
    """Whether a process may be the first one of a namespace of its own."""
    try:
        return subprocess.run([*AS_PROCESS_1, "true"], capture_output=True, check=False, timeout=GUARD).returncode == 0  # noqa: S603 - fixed words
    except OSError:
        return False


def child_of(pid: int) -> int:
    """The process that ``pid`` forked, as this namespace numbers it."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Processes that do not outlive the test."""
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, arguments: Sequence[object], folder: Path | None = None) -> "subprocess.Popen[str]":
    """A command that imports from ``folder`` first."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONDUCTOR_")}
    process = subprocess.Popen(  # noqa: S603 - our own command
        list(map(str, arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, **({} if folder is None else {"PYTHONPATH": str(folder)})},
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def stuck_in(folder: Path, module: str) -> Path:
    """A folder whose module of that name takes for ever to import, and a target that may be it."""
    (folder / f"{module}.py").write_text(STUCK)
    return folder / "target.py"


def until_importing(process: "subprocess.Popen[str]") -> None:
    """Wait until the command imports what takes so long."""
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"


@pytest.mark.parametrize("how", [COMMAND, MODULE], ids=["command", "module"])
@pytest.mark.parametrize("module", ["attrs", "typer", "target"])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)], ids=["TERM", "HUP", "INT"]
)
def test_signal_while_modules_are_imported_ends_run_at_once(  # noqa: PLR0913, PLR0917 - one table
    processes: ExitStack, tmp_path: Path, how: list[str], module: str, number: signal.Signals, status: int
) -> None:
    """Ours, those of others, or the user's: nothing has begun, so nothing is left, and nobody wants a traceback."""
    process = start(
        processes, [*how, "run", stuck_in(tmp_path, module), "--server", "eu=http://127.0.0.1:9/api"], tmp_path
    )
    until_importing(process)

    process.send_signal(number)
    told = process.communicate(timeout=GUARD)

    assert (process.returncode, told) == (status, ("", ""))


@pytest.mark.parametrize(
    ("words", "number", "status"),
    [
        (["check"], signal.SIGTERM, 143),
        (["check"], signal.SIGINT, 130),
        (["dev-server", "--port", "0"], signal.SIGHUP, 129),
    ],
)
def test_signal_while_modules_are_imported_ends_other_commands_with_their_status(
    processes: ExitStack, tmp_path: Path, words: list[str], number: signal.Signals, status: int
) -> None:
    """What was asked for was not done, and the status says so; without a traceback."""
    stuck_in(tmp_path, "typer")
    process = start(processes, [*COMMAND, *words], tmp_path)
    until_importing(process)

    process.send_signal(number)
    told = process.communicate(timeout=GUARD)

    assert (process.returncode, told) == (status, ("", ""))


@pytest.mark.parametrize("module", ["attrs", "typer", "target"])
def test_first_process_of_a_container_hears_sigterm_while_modules_are_imported(
    processes: ExitStack, tmp_path: Path, module: str
) -> None:
    """The system keeps a signal without a handler from process 1, so `docker stop` would wait and kill."""
    if not namespaces():
        pytest.skip("unshare --pid is not there or not permitted")
    words = ["run", stuck_in(tmp_path, module), "--server", "eu=http://127.0.0.1:9/api"]
    process = start(processes, [*AS_PROCESS_1, *COMMAND, *words], tmp_path)
    until_importing(process)

    os.kill(child_of(process.pid), signal.SIGTERM)

    assert process.wait(GUARD) == 0


@pytest.fixture
def eu() -> Iterator[DevServer]:
    """An embedded server."""
    with DevServer(name="eu") as server:
        yield server


def working(stack: ExitStack, eu: DevServer, folder: Path, *before: str) -> "subprocess.Popen[str]":
    """A command that has polled."""
    target = folder / "workers.py"
    target.write_text(WORKER)
    polls = eu.counts()["polls"]
    process = start(stack, [*before, *COMMAND, "run", target, "--server", f"eu={eu.url}"])
    while eu.counts()["polls"] == polls:
        assert process.poll() is None
        time.sleep(0.01)
    return process


def test_signals_that_come_until_the_process_is_gone_change_nothing(
    processes: ExitStack, eu: DevServer, tmp_path: Path
) -> None:
    """A supervisor that sends SIGTERM again and again gets the status of the drain, not a process that died of it."""
    process = working(processes, eu, tmp_path)

    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    told, errors = process.communicate(timeout=GUARD)

    assert (process.returncode, errors) == (0, "")
    assert told.endswith("stopped; nothing is left undone\n")


def test_lost_terminal_is_a_reason_to_stop_cleanly(processes: ExitStack, eu: DevServer, tmp_path: Path) -> None:
    """SIGHUP drains like SIGTERM."""
    process = working(processes, eu, tmp_path)

    process.send_signal(signal.SIGHUP)
    told, errors = process.communicate(timeout=GUARD)

    assert (process.returncode, errors) == (0, "")
    assert told.endswith("stopped; nothing is left undone\n")


def test_run_under_nohup_outlives_its_terminal(processes: ExitStack, eu: DevServer, tmp_path: Path) -> None:
    """A signal that was to be ignored from the start stays ignored."""
    process = working(processes, eu, tmp_path, "nohup")

    process.send_signal(signal.SIGHUP)
    polls = eu.counts()["polls"]
    while eu.counts()["polls"] < polls + 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)

    assert process.wait(GUARD) == 0


# The parts, in this process.


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The statuses that the process would have ended with; all handlers are restored."""
    before = {number: signal.getsignal(number) for number in of_commands.SIGNALS}
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(of_commands.atexit, "register", lambda _: None)
    yield ended
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("words", "statuses"), [(["run", "x"], [0, 0, 130]), (["check"], [143, 129, 130])])
def test_signal_before_the_work_begins(handlers: list[int], words: list[str], statuses: list[int]) -> None:
    """Of `run` nothing is left; another command did not do what it was asked for."""
    of_commands.end_at_once(words)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.raise_signal(number)

    assert handlers == statuses


def test_signal_after_the_work_is_done(handlers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for no more than what is happening; a second later it ends a process that hangs, with its own status."""
    now = [100.0]
    monkeypatch.setattr(of_commands.time, "monotonic", lambda: now[0])
    of_commands.keep_until_gone(1)
    now[0] = 101.0
    signal.raise_signal(signal.SIGTERM)
    assert handlers == []

    now[0] = 101.1
    signal.raise_signal(signal.SIGINT)

    assert handlers == [1]


@pytest.mark.usefixtures("handlers")
def test_signals_are_ignored_while_python_takes_itself_apart() -> None:
    """It would give back the default handlers, which end the process with another status."""
    of_commands._ignore()

    assert {signal.getsignal(number) for number in of_commands.SIGNALS} == {signal.SIG_IGN}
    of_commands.interrupts_raise()
    of_commands.end_at_once(["run"])
    assert {signal.getsignal(number) for number in of_commands.SIGNALS} == {signal.SIG_IGN}


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_is_pythons_own_again_for_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """They end in order; `run` has handlers of its own."""
    for words, expected in ((["run", "--help"], False), (["check", "--help"], True)):
        of_commands.end_at_once(words)
        command(words)
        assert (signal.getsignal(signal.SIGINT) is signal.default_int_handler) == expected
    assert "Usage" in capsys.readouterr().out


def own(_number: int, _frame: object) -> None:
    """A program's handler."""


@pytest.mark.parametrize(
    ("hangup", "keep", "heard"),
    [
        (signal.SIG_DFL, False, True),
        (signal.SIG_IGN, False, False),
        (own, False, False),
        (signal.SIG_DFL, True, True),
        (signal.SIG_IGN, True, False),
        (own, True, True),
    ],
)
@pytest.mark.usefixtures("handlers")
def test_hangup_is_heard_unless_it_means_something_else(hangup: Any, keep: bool, heard: bool) -> None:
    """A library leaves alone what the program does with SIGHUP, and gives back what it takes; the command keeps it."""
    signal.signal(signal.SIGHUP, hangup)
    signal.signal(signal.SIGTERM, own)
    told: signals.Told = SimpleQueue()

    with signals._signals_into(told, keep=keep):
        during = signal.getsignal(signal.SIGHUP)
        if heard:
            signal.raise_signal(signal.SIGHUP)

    assert (during is not hangup, told.qsize()) == (heard, int(heard))
    assert (signal.getsignal(signal.SIGHUP) is hangup) == (not keep or not heard)
    assert (signal.getsignal(signal.SIGTERM) is own) == (not keep)


def test_process_that_a_task_forked_ends_at_a_signal() -> None:
    """It has the worker's handlers, and is none: `multiprocessing` could not end its processes."""
    alive, lives = os.pipe()
    with signals._signals_into(SimpleQueue(), keep=False):
        child = os.fork()
        if child == 0:
            os.write(lives, b".")
            time.sleep(20)
            os._exit(NOTICED)
        os.read(alive, 1)  # Python forgets a signal that comes while it forks
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_signal_to_a_copy_is_not_told_to_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in this process, where it can be watched."""
    raised: list[int] = []
    told: signals.Told = SimpleQueue()
    with signals._signals_into(told, keep=False):
        put: Callable[..., None] = signal.getsignal(signal.SIGTERM)  # type: ignore[assignment]
        monkeypatch.setattr(signals.os, "getpid", lambda: -1)
        monkeypatch.setattr(signals.signal, "raise_signal", raised.append)
        put(signal.SIGTERM, None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    assert (raised, told.empty()) == ([signal.SIGTERM], True)


def test_a_burst_is_one_signal() -> None:
    """Whoever sends one every 20 ms, for however long, is not impatient; whoever sends one 0.2 s after another is."""
    assert not any(is_another_signal(0.0, at / 50, (at - 1) / 50) for at in range(1, 500))
    assert is_another_signal(0.0, 1.5, 1.3)


# The package, which stays out of the way until the command hears signals.


def python(*lines: str) -> str:
    """What a fresh Python says."""
    arguments = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=GUARD).stdout  # noqa: S603 - ours


def test_the_command_line_loads_nothing_before_it_hears_signals() -> None:
    """Half a second of imports would be half a second without a handler."""
    told = python("import sys, conductor_adapter.cli", "print(*(name for name in sys.modules if 'adapter' in name))")

    assert sorted(told.split()) == ["conductor_adapter", "conductor_adapter.cli", "conductor_adapter.cli.signals"]


def test_names_can_be_looked_through_before_they_are_loaded() -> None:
    """Shells and editors complete them."""
    assert set(conductor_adapter.__all__) <= set(dir(conductor_adapter))
