"""A worker as a user runs it: ``conductor-adapter run`` in a process of its own, ended by a signal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from harness import Job
from servers import RealServer


class WorkerProcess:
    """Runs a job's worker on servers by name. A context manager that leaves no process behind.

    Args:
        job: whose worker.
        servers: by the names that the worker gives them.
        options: more arguments of the command.
    """

    def __init__(self, job: Job, servers: Mapping[str, RealServer], *options: str) -> None:
        self._job = job
        self._options = [*(f"--server={name}={server.url}" for name, server in servers.items()), "--json", *options]

    def __enter__(self) -> Self:
        before = len(list(self._job.folder.glob("worker-*.log")))
        self._said = self._job.folder / f"worker-{before}.log"
        with self._said.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [Path(sys.executable).with_name("conductor-adapter"), "run", self._job.file, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._job.folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Its process id, which is the end of the name that it gives itself at its servers."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM; it must end cleanly."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=60)
        assert code == 0, self._said.read_text()[-4000:]

    def books(self) -> dict[str, dict[str, Any]]:
        """What it printed of its books at its end, by server."""
        rows = [json.loads(line) for line in self._said.read_text().splitlines() if line.startswith("{")]
        return {row["server"]: row for row in rows if row["kind"] == "books"}
