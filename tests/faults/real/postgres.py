"""A real Conductor server on a Postgres of its own, which can be taken away; large payloads are stored outside.

Postgres comes from the system: the programs of Debian's package ``postgresql``.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from program import RealServerError, server_command
from servers import RealServer, free_port, tied_to_us

POOL_TIMEOUT = 1.0  # seconds the server waits for a connection to its database; then it answers 500
PAYLOAD_KB = 10  # inputs and outputs over this size are stored outside
START_TIMEOUT = 60.0  # seconds for the database
OWNER = "postgres"  # who runs it when the tests run as root, which Postgres refuses

DATABASE = f"""\
conductor.db.type=postgres
conductor.queue.type=postgres
conductor.indexing.type=postgres
conductor.workflow-execution-lock.type=local_only
spring.datasource.url=jdbc:postgresql://127.0.0.1:%(port)s/conductor?socketTimeout=10&connectTimeout=2
spring.datasource.username=conductor
spring.datasource.password=conductor
spring.datasource.hikari.maximum-pool-size=8
spring.datasource.hikari.connection-timeout={1000 * POOL_TIMEOUT:.0f}
conductor.external-payload-storage.type=postgres
conductor.external-payload-storage.postgres.conductor-url=http://127.0.0.1:{{port}}
conductor.external-payload-storage.postgres.url=jdbc:postgresql://127.0.0.1:%(port)s/conductor
conductor.external-payload-storage.postgres.username=conductor
conductor.external-payload-storage.postgres.password=conductor
conductor.app.taskInputPayloadSizeThreshold={PAYLOAD_KB}KB
conductor.app.taskOutputPayloadSizeThreshold={PAYLOAD_KB}KB
"""


class Postgres:
    """A database server in a directory of its own, on a free port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._programs = find_postgres()
        self._as_owner = _as_owner()
        self._process: subprocess.Popen[bytes] | None = None
        # Not below the run directory: that one belongs to root alone.
        self._directory = Path(tempfile.mkdtemp(prefix="conductor-postgres-"))
        if self._as_owner:
            shutil.chown(self._directory, OWNER)

    def make(self) -> None:
        """Make the database and start its server."""
        self._run("initdb", "-D", self._directory / "data", "-U", "conductor", "-A", "trust", "--no-sync")
        self.bring_back()
        self._run("createdb", *self._address(), "conductor")

    def take_away(self) -> None:
        """End it at once, as a crash does: every connection is cut, what was committed stays."""
        if self.is_running:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=30)

    def bring_back(self) -> None:
        """Start it on what it has, unless it runs, and wait until it takes connections."""
        if not self.is_running:
            self._start()
        deadline = time.monotonic() + START_TIMEOUT
        ready = [self._programs / "pg_isready", "-q", *self._address()]
        while subprocess.run(ready, check=False).returncode:  # noqa: S603 - our own command line
            if not self.is_running or time.monotonic() > deadline:
                raise RealServerError(f"the database on port {self.port} does not start:\n{self._log()}")
            time.sleep(0.05)

    def remove(self) -> None:
        """End it and remove what it has."""
        self.take_away()
        shutil.rmtree(self._directory)

    @property
    def is_running(self) -> bool:
        """Whether its process exists."""
        return self._process is not None and self._process.poll() is None

    def _start(self) -> None:
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": self._directory, "fsync": "off"}
        command = [self._programs / "postgres", "-D", self._directory / "data", "-p", str(self.port)]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                [*tied_to_us(), *command],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_owner,
            )

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [self._programs / program, *arguments]
        done = subprocess.run(  # noqa: S603 - our own command line
            command, capture_output=True, text=True, check=False, cwd=self._directory, **self._as_owner
        )
        if done.returncode:
            raise RealServerError(f"{program} failed: {done.stderr.strip()}")

    def _address(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", "conductor"]

    def _log(self) -> str:
        return "\n".join((self._directory / "log").read_text(errors="replace").splitlines()[-20:])


class PostgresServer(RealServer):
    """A server and its database. A context manager that starts both and leaves nothing behind."""

    def __init__(self, directory: Path) -> None:
        command = server_command()
        self.database = Postgres()
        super().__init__(directory, command, DATABASE % {"port": self.database.port})

    def take_database_away(self) -> None:
        """End the database at once; the server runs on."""
        self.database.take_away()

    def bring_database_back(self) -> None:
        """Start the database again, and wait until the server has found it."""
        self.database.bring_back()
        self.wait_until_it_answers()

    def __enter__(self) -> Self:
        try:
            self.database.make()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.database.remove()


def find_postgres() -> Path:
    """The folder with the programs of the newest Postgres of this system.

    Raises:
        RealServerError: there is none.
    """
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if not folders and (on_path := shutil.which("initdb")):
        folders.append(Path(on_path).resolve().parent)
    if not folders:
        raise RealServerError(
            "no Postgres found (looked at: /usr/lib/postgresql/*/bin, PATH); apt-get install postgresql"
        )
    return folders[-1]


def _as_owner() -> dict[str, Any]:
    """Arguments for a process that must not be root's."""
    if os.geteuid() != 0:
        return {}
    try:
        owner = pwd.getpwnam(OWNER)
    except KeyError:
        raise RealServerError(f"Postgres does not run as root, and there is no user {OWNER!r}") from None
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
