"""Real Conductor servers for tests: started on free ports, frozen, killed and restarted at will.

Each server keeps its state in one SQLite file below the run directory; ``postgres.py`` has one on a Postgres.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import attrs
from client import ConductorClient
from program import RealServerError, server_command

START_TIMEOUT = 240.0  # seconds; three servers at once on two busy cores have taken more than one minute each

PROPERTIES = """\
server.port={port}
server.address=127.0.0.1
server.tomcat.max-keep-alive-requests=-1
server.tomcat.accesslog.enabled=true
server.tomcat.accesslog.buffered=false
server.tomcat.accesslog.directory={directory}
server.tomcat.accesslog.prefix=access
server.tomcat.accesslog.suffix=.log
server.tomcat.accesslog.rotate=false
server.tomcat.accesslog.pattern=%m %U %s %D
conductor.integrations.ai.enabled=false
conductor.scheduler.enabled=false
conductor.enable.ui.serving=false
conductor.workflow-monitor.enabled=false
conductor.default-event-processor.enabled=false
conductor.system-task-workers.enabled=false
conductor.app.sweeperThreadCount=1
conductor.app.sweeper.queuePopTimeout=750
conductor.app.workflowOffsetTimeout=5s
conductor.app.taskExecutionPostponeDuration=5s
conductor.app.taskIndexingEnabled=false
management.endpoints.web.exposure.include=health,prometheus
logging.level.root=WARN
"""
SQLITE = """\
spring.datasource.url=jdbc:sqlite:{directory}/conductor.db?busy_timeout=15000&journal_mode=WAL&synchronous=NORMAL
spring.datasource.hikari.maximum-pool-size=4
"""


@attrs.frozen
class Access:
    """One request as the server's own access log has it."""

    method: str
    path: str
    status: int


class RealServer:
    """One server process: its address, its faults, and what it was asked.

    Args:
        directory: where it works, and keeps its log.
        command: Java, its options and the server's jar.
        database: the properties of its database, where ``{directory}`` and ``{port}`` stand for its own.
    """

    def __init__(self, directory: Path, command: list[str], database: str = SQLITE) -> None:
        self.directory = directory
        self._command = command
        self._database = database
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """The API's address, as a worker's settings want it."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def client(self) -> ConductorClient:
        """A client of this server's API."""
        return ConductorClient(self.url)

    def start(self) -> None:
        """Start the process on its database and wait until its API answers."""
        self.launch()
        self.wait_until_it_answers()

    def launch(self) -> None:
        """Start the process on its database; not from a thread that ends before it, or that ends it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        properties = self.directory / "server.properties"
        properties.write_text((PROPERTIES + self._database).format(port=self.port, directory=self.directory))
        java, *rest = self._command
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                [*tied_to_us(), java, f"-DCONDUCTOR_CONFIG_FILE={properties}", *rest],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_it_answers(self) -> None:
        """Wait until the API of a process that was launched answers."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if not self.is_running:
                raise RealServerError(f"the server on port {self.port} died at its start:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RealServerError(f"no answer from port {self.port} in {START_TIMEOUT} s:\n{self._log_tail()}")
            time.sleep(0.25)

    def freeze(self) -> None:
        """SIGSTOP, and wait until every thread has stopped: its sockets stay open and nothing answers."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        if self.is_running:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def restart(self) -> None:
        """Kill it if it runs, and start it again on the same port and database."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """End it properly, frozen or not; kill it after ten seconds."""
        if not self.is_running:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()

    @property
    def is_running(self) -> bool:
        """Whether the process exists (a frozen one does)."""
        return self._process is not None and self._process.poll() is None

    def accesses(self) -> list[Access]:
        """Every request it has answered so far, in its own words."""
        log = self.directory / "access.log"
        rows = [row.split() for row in log.read_text().splitlines()] if log.exists() else []
        return [Access(row[0], row[1], int(row[2])) for row in rows if len(row) == 4]

    def _signal(self, number: signal.Signals) -> None:
        if not self.is_running:
            raise RealServerError(f"the server on port {self.port} does not run")
        os.killpg(self._process.pid, number)

    def _answers(self) -> bool:
        # /health is true before anything works, so ask for something that reads the database
        try:
            return self.client.call("GET", "/metadata/taskdefs", within=5).status == 200
        except OSError:
            return False

    def _log_tail(self) -> str:
        return "\n".join((self.directory / "server.log").read_text(errors="replace").splitlines()[-20:])


class RealServers:
    """Several servers, numbered from 0. A context manager; ``stop`` ends all that were started."""

    def __init__(self, run_dir: Path | None = None) -> None:
        self._temporary = None if run_dir else tempfile.TemporaryDirectory(prefix="conductor-real-")
        self._run_dir = run_dir or Path(self._temporary.name)
        self._servers: list[RealServer] = []

    def start(self, count: int) -> list[RealServer]:
        """Have ``count`` servers running; they start one after another, for together they take longer."""
        command = server_command()
        while len(self._servers) < count:
            server = RealServer(self._run_dir / str(len(self._servers)), command)
            self._servers.append(server)
            server.start()
        return self._servers[:count]

    def keep(self, count: int) -> None:
        """End those beyond the first ``count``."""
        while len(self._servers) > count:
            self._servers.pop().stop()

    def freeze(self, index: int) -> None:
        """SIGSTOP server ``index``."""
        self[index].freeze()

    def thaw(self, index: int) -> None:
        """SIGCONT server ``index``."""
        self[index].thaw()

    def kill(self, index: int) -> None:
        """SIGKILL server ``index``."""
        self[index].kill()

    def restart(self, index: int) -> None:
        """Start server ``index`` again on the same port and database."""
        self[index].restart()

    def heal(self) -> None:
        """Thaw the frozen and start the dead: what one test did to a server must not reach the next test."""
        for server in self._servers:
            if server.is_running:
                server.thaw()
            else:
                server.start()

    def stop(self) -> None:
        """End every server and remove a run directory that was made for them."""
        for server in self._servers:
            server.stop()
        self._servers.clear()
        if self._temporary:
            self._temporary.cleanup()

    def __getitem__(self, index: int) -> RealServer:
        return self._servers[index]

    def __iter__(self) -> Iterator[RealServer]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def tied_to_us() -> list[str]:
    """A prefix for a command: the process ends when the test process is killed, where the system has such a thing."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def free_port() -> int:
    """A port that stays free until the server is up: none of those that the system gives to whoever asks for any."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
