"""Programs as forks of one process that has imported what they need: a start costs a tenth of a new interpreter's.

A fork is a process like any other: its streams, working directory, environment, arguments, exit status and its end are
its own. What differs is what Python itself does first, so tests of that start `commands.COMMAND`.
"""

import contextlib
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import IO

__all__ = ["Forking"]

LARGEST = 200_000  # bytes of a message


class Fork:
    """A program that was started; what `subprocess.Popen` has of the same names."""

    def __init__(self, report: IO[bytes]) -> None:
        self._report = report
        self.pid = int(report.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float) -> int:
        """The exit code, negative for a signal; raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self.returncode = int(self._report.readline())
            self._report.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Forking:
    """Starts programs, from any thread. Its process ends with this one.

    Args:
        options: of the interpreter, for all of them.
    """

    def __init__(self, *options: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this file
                [sys.executable, *options, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def start(
        self, arguments: list[str], *, cwd: Path, env: dict[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> Fork:
        """Start the program: a Python file, or ``conductor-adapter``. It finds nothing on its standard input."""
        told = json.dumps({"arguments": arguments, "folder": str(cwd), "environment": env})
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb") as report, Path(os.devnull).open("rb") as stdin:
            streams = [stream.fileno() for stream in (stdin, stdout, stderr, report)]
            socket.send_fds(self._socket, [told.encode()], streams)
        return Fork(os.fdopen(reading, "rb", buffering=0))


def _serve(listening: socket.socket) -> None:
    """Fork for every message; returns in the fork that is to be the command."""
    import resilience.testing  # noqa: F401, PLC0415
    from conductor_adapter.cli.app import command  # noqa: PLC0415

    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):  # for what is imported late
        command(["run", "", "--server", "x"])
    gc.collect()
    gc.freeze()  # else every fork copies all objects as it ends
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while True:
        told, streams, *_ = socket.recv_fds(listening, LARGEST, 4)
        if not told:
            sys.exit()
        if os.fork() == 0:
            listening.close()
            _wait_for(json.loads(told), streams)
            return
        for stream in streams:
            os.close(stream)


def _wait_for(told, streams) -> None:
    """Report the process id of a fork and how it ended; returns in the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, report = streams
    child = os.fork()
    if child == 0:
        os.close(report)
        _become(told, standard)
        return
    for stream in standard:
        os.close(stream)
    os.write(report, b"%d\n" % child)
    os.write(report, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def _become(told, standard) -> None:
    """Take on what a new process would have been given."""
    for number, stream in enumerate(standard):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv = told["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).parent)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        try:
            _serve(asked)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        from conductor_adapter.cli import main

        main()
