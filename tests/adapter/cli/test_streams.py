"""Standard output that cannot be written: closed, full, or unable to hold a character."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from commands import COMMAND, GUARD, WORKER
from fault_kit import until

from conductor_adapter import DevServer
from conductor_adapter.cli import app, streams
from conductor_adapter.cli.printing import Printer

FULL = "standard output cannot be written: No space left on device; further output is discarded\n"
CLOSED = "standard output cannot be written: it is closed; further output is discarded\n"


@pytest.fixture
def server() -> Iterator[DevServer]:
    """An embedded server."""
    with DevServer(name="eu") as server:
        yield server


def redirected(redirection: str, *arguments: object) -> list[str]:
    """The command with its streams redirected by a shell, whose process it takes over."""
    return ["sh", "-c", f'exec "$@" {redirection}', "sh", str(COMMAND), *map(str, arguments)]


def command(redirection: str, *arguments: object, **environ: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the command to its end with its streams redirected by a shell."""
    line = redirected(redirection, *arguments)
    return subprocess.run(line, capture_output=True, timeout=GUARD, check=False, env={**os.environ, **environ})  # noqa: S603 - ours


@pytest.mark.parametrize(
    ("redirection", "told"), [(">/dev/full", f"conductor-adapter: {FULL}"), (">&-", ""), (">&- 2>&-", "")]
)
def test_worker_goes_on_without_its_output(server: DevServer, tmp_path: Path, redirection: str, told: str) -> None:
    """A full disk or a closed output costs the lines, neither the tasks nor the clean stop; that is told once."""
    target = tmp_path / "workers.py"
    target.write_text(f"{WORKER}    # what a task prints must not fail it\n".replace("return", "print(name); return"))
    server.start_tasks("greet", 3)

    line = redirected(redirection, "run", target, "--server", f"eu={server.url}")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603 - ours
        try:
            until(lambda: server.runs("greet")["COMPLETED"] == 3, "the tasks are completed")
        finally:
            process.terminate()
        printed, errors = process.communicate(timeout=GUARD)

    assert (process.returncode, printed, errors.decode()) == (0, b"", told)


def test_character_that_the_output_cannot_hold_is_escaped(server: DevServer, tmp_path: Path) -> None:
    """A name from another alphabet ends no worker whose terminal knows only ASCII."""
    target = tmp_path / "workers.py"
    target.write_text(WORKER)

    done = command("", "run", target, "--server", f"kö={server.url}", "--duration", "0.2", PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"k\\xf6: 0 tasks polled" in done.stdout


@pytest.mark.parametrize(("redirection", "told"), [(">/dev/full", FULL), (">&-", CLOSED)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_check_that_cannot_say_how_it_is_fails(
    server: DevServer, redirection: str, told: str, options: list[str]
) -> None:
    """Whoever reads the exit status of a check whose answer got lost does not take it for good news."""
    done = command(redirection, "check", "--server", f"eu={server.url}", *options)

    assert (done.returncode, done.stderr.decode()) == (1, f"conductor-adapter: {told}")


def test_help_that_cannot_be_written_fails() -> None:
    """The help on a full disk is one line on standard error."""
    done = command(">/dev/full", "run", "--help")

    assert (done.returncode, done.stderr.decode()) == (1, f"conductor-adapter: {FULL}")


@pytest.mark.parametrize(("redirection", "told"), [(">/dev/full", f"conductor-adapter: {FULL}"), (">&-", "")])
def test_dev_server_serves_without_its_output(redirection: str, told: str) -> None:
    """What cannot be told costs the line and not the server, which ends cleanly."""
    with DevServer() as free:
        port = free.url.split(":")[2].split("/")[0]
    line = redirected(redirection, "dev-server", "--port", port)
    with subprocess.Popen(line, stderr=subprocess.PIPE) as process:  # noqa: S603 - ours
        try:
            assert json.loads(read_when_ready(f"http://127.0.0.1:{port}/api/tasks/queue/all")) == {}
            process.send_signal(signal.SIGTERM)
            errors = process.communicate(timeout=GUARD)[1]
        finally:
            process.kill()

    assert (process.returncode, errors.decode()) == (0, told)


def read_when_ready(url: str) -> bytes:
    """What stands there, once there is somebody who answers."""
    for _ in range(int(GUARD / 0.05)):
        with suppress(OSError), urllib.request.urlopen(url) as answer:  # noqa: S310 - our own
            return bytes(answer.read())
        threading.Event().wait(0.05)
    raise AssertionError(f"nobody answers at {url}")


def test_other_errors_are_not_taken_for_lost_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what cannot be written is told as such; any other error of the system keeps its traceback."""

    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError("something else")

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(FileNotFoundError, match="something else"):
        app.command(["check"])


def test_long_output_that_cannot_be_written_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no difference whether writing fails before the end or at it."""
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit, match="1"), streams.written():
            sys.stdout.write("a line\n")


def test_output_that_fails_at_its_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still on its way out when the command is done counts."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit, match="1"), streams.written():
            sys.stdout.write("a line\n")


def test_closed_output_of_a_check_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody can have read it."""
    monkeypatch.setattr(sys, "stdout", None)
    streams.open_streams()
    with sys.stdout, pytest.raises(SystemExit, match="1"), streams.written():
        pass

    assert CLOSED in capsys.readouterr().err


def test_reader_who_went_away_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    """`| head` is how a command is used."""
    streams.give_up(Broken(), BrokenPipeError())

    assert capsys.readouterr().err == ""


class Broken(io.StringIO):
    """A stream that is no file and takes nothing."""

    def write(self, text: str) -> int:
        """Fail."""
        raise ValueError(f"I/O operation on closed file: {text[:0]}")


def test_output_that_is_lost_for_good_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A stream that fails at every line is one line on standard error."""
    printer = Printer(stream=Broken())
    printer.say("one", "one")
    printer.say("two", "two")

    assert capsys.readouterr().err.count("standard output cannot be written: I/O operation on closed file") == 1


def test_closed_streams_lead_nowhere_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has None for a stream that was closed before it began; a stream that is no file is left alone."""
    monkeypatch.setattr(sys, "stdout", None)
    own = Broken()
    monkeypatch.setattr(sys, "stderr", own)
    streams.open_streams()
    stdout = sys.stdout
    try:
        assert isinstance(stdout, streams.Nowhere)
        assert stdout.write("anything: ö\n") == 12
        assert sys.stderr is own
        streams.say_error("nobody hears")
    finally:
        stdout.close()


def test_line_is_said_or_lost_and_whole_output_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that works gets everything; one that takes nothing raises nothing."""
    works = io.StringIO()
    monkeypatch.setattr(sys, "stdout", works)
    with streams.written():
        streams.say("a line")
    monkeypatch.setattr(sys, "stdout", Broken())
    streams.say("nobody hears")

    assert works.getvalue() == "a line\n"
