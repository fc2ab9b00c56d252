"""The command line as a user has it, in processes of its own."""

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from forking import Fork, Forking

__all__ = ["COMMAND", "GUARD", "MEASURED", "URL", "WORKER", "command", "program", "refused"]

COMMAND = Path(sys.executable).with_name("conductor-adapter")
GUARD = 60.0  # seconds until a wrong test fails instead of hanging
URL = "http://127.0.0.1:9/api"  # nobody is there, and nobody needs to be
WORKER = """
from conductor_adapter import worker

@worker("greet", threads=2)
def greet(name: str = "you") -> str:
    return f"hello {name}"
"""


PAUSE = 0.02  # seconds between two looks
MEASURED = "COVERAGE_PROCESS_CONFIG" in os.environ or "COVERAGE_PROCESS_START" in os.environ
forking = functools.cache(Forking)


def command(
    *arguments: object, folder: Path | None = None, until: Callable[[str], bool] | None = None, **environ: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, without any Conductor variable of this process's environment.

    Once ``until`` is true of what it has printed it is sent SIGTERM.
    It is a fork, unless Python itself reads a variable as it starts, or coverage is measured.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONDUCTOR_")}
    fresh = any(name.startswith("PYTHON") for name in environ)
    told = [str(COMMAND), *map(str, arguments)]
    environment = {**clean, "COLUMNS": "200", **environ}
    return _run(told, folder or Path.cwd(), environment, until, _start if fresh or MEASURED else forking().start)


def program(text: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a Python program to its end; a fork, unless coverage is measured."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(text)
        file.flush()
        start = _start_python if MEASURED else forking().start
        return _run([file.name, *arguments], Path.cwd(), dict(os.environ), None, start)


def _run(
    told: list[str], folder: Path, environment: dict[str, str], until: Callable[[str], bool] | None, start: Any
) -> "subprocess.CompletedProcess[str]":
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start(told, cwd=folder, env=environment, stdout=output, stderr=errors)
        try:
            if until is not None and _comes(lambda: until(_text(output)), process):
                process.send_signal(signal.SIGTERM)
            code = process.wait(GUARD)
        except BaseException:
            process.send_signal(signal.SIGKILL)
            process.wait(GUARD)
            raise
        return subprocess.CompletedProcess(told, code, _text(output), _text(errors))


def _start(arguments: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, **options)  # noqa: S603 - our own command


def _start_python(arguments: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    return _start([sys.executable, *arguments], **options)


def _comes(condition: Callable[[], bool], process: "Fork | subprocess.Popen[bytes]") -> bool:
    """Whether it comes true while the command runs."""
    end = time.monotonic() + GUARD
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < end, "what the command was to do did not come"
        time.sleep(PAUSE)
    return False


def _text(stream: IO[bytes]) -> str:
    """What stands in a file whose place the command shares."""
    return os.pread(stream.fileno(), os.fstat(stream.fileno()).st_size, 0).decode()


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line on standard error, after checking that it is all there is."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr
