"""DevServerProcess: the server in its own process, which can be frozen, killed and restarted."""

import http.client
import json
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

from conductor_adapter.settings.server_settings import ServerSettings

from .faults import Faults

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DevServerProcess"]

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0


class DevServerProcess:
    """A dev server in a child process. A context manager.

    Args:
        name: the name in its ``settings``.
        port: 0 picks a free one; the port stays the same after a restart.
        state: the file for its state; None creates one that ``stop`` deletes.
        faults: the faults in force from the start; after a restart there are none.
        seed: the number of one-task workflows to start, by task type.
        payload_threshold: size in bytes above which a task's input or output is stored outside; None for no limit.

    The child process ends with this process, however that ends. Not thread-safe.
    """

    def __init__(  # noqa: PLR0913 - keyword-only options of the front door
        self,
        *,
        name: str = "dev",
        port: int = 0,
        state: str | Path | None = None,
        faults: Faults = Faults(),  # noqa: B008 - frozen
        seed: Mapping[str, int] | None = None,
        payload_threshold: int | None = None,
    ) -> None:
        self.name = name
        self.url = ""
        self._port = port
        self._own = tempfile.TemporaryDirectory(prefix="dev-server-") if state is None else None
        self._state = Path(self._own.name) / "state.db" if self._own else Path(str(state))
        self._faults = faults
        self._seed = dict(seed or {})
        self._payload_threshold = payload_threshold
        self._child: subprocess.Popen[bytes] | None = None
        self._control: tuple[str, int] = ("", 0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.stop()

    # -- its life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process; returns once it accepts calls.

        Raises:
            RuntimeError: it did not start; the text contains its error output.
        """
        if self._child is not None:
            raise RuntimeError("the dev server's process is already running")
        faults = json.dumps(self._faults.to_wire())
        command = [sys.executable, "-m", "conductor_adapter.dev_server", "--with-parent", "--control-port", "0"]
        command += ["--port", str(self._port), "--state", str(self._state), "--faults", faults]
        if self._payload_threshold is not None:
            command += ["--payload-threshold", str(self._payload_threshold)]
        for task_type, count in self._seed.items():
            command += ["--seed-tasks", f"{task_type}={count}"]
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._read_ready_line(self._child)

    def _read_ready_line(self, child: "subprocess.Popen[bytes]") -> None:
        if child.stdout is None:
            raise RuntimeError("the dev server's process has no standard output")
        readable, _, _ = select.select([child.stdout], [], [], _START_TIMEOUT)
        line = child.stdout.readline().decode() if readable else ""
        if not line:
            child.kill()
            _, said = child.communicate()
            self._child = None
            raise RuntimeError(f"the dev server's process did not start: {said.decode().strip() or 'no error output'}")
        words = line.split()
        self.url = words[2]
        self._port = int(self.url.rsplit(":", 1)[1].split("/")[0])
        host, _, port = words[4].split("/")[2].partition(":")
        self._control = (host, int(port))

    def stop(self) -> None:
        """Stop the process and wait for its end; it is killed if it does not stop by itself."""
        child, self._child = self._child, None
        if child is not None:
            child.send_signal(signal.SIGCONT)
            child.terminate()
            try:
                child.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                child.kill()
            child.communicate()
        if self._own is not None:
            self._own.cleanup()

    def kill(self) -> None:
        """Kill the process (SIGKILL) and wait for its end; its state is kept."""
        child, self._child = self._running(), None
        child.kill()
        child.communicate()

    def restart(self) -> None:
        """Restart the process with the same state and port; if it is still running, it is killed first."""
        if self._child is not None:
            self.kill()
        self._faults = Faults()
        self.start()

    def freeze(self) -> None:
        """Freeze the process (SIGSTOP): it accepts connections and never answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume a frozen process (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._running().pid

    @property
    def port(self) -> int:
        """The port of the API."""
        return self._port

    @property
    def settings(self) -> ServerSettings:
        """The settings with which a worker reaches it."""
        return ServerSettings(self.name, self.url)

    # -- control ----------------------------------------------------------------------------------------------

    def faults(self, **faults: Any) -> None:  # noqa: ANN401 - the fields of Faults
        """Replace the faults in force (without arguments, remove them)."""
        self._ask("PUT", "/dev/faults", Faults(**faults).to_wire())

    def start_tasks(
        self,
        task_type: str,
        count: int,
        input: Mapping[str, Any] | str | None = None,  # noqa: A002 - Conductor's word
        *,
        domain: str | None = None,
        **fields: object,
    ) -> None:
        """Start ``count`` runs of one task each, in one transaction; see ``DevServer.start_tasks``."""
        query = urlencode({"type": task_type, "count": count})
        given = input if isinstance(input, str) else dict(input or {})
        self._ask("POST", f"/dev/tasks?{query}", {"input": given, "domain": domain, "taskDef": fields})

    def runs(self, name: str | None = None) -> dict[str, int]:
        """Count the runs (with this name) by status."""
        return dict(self._ask("GET", f"/dev/counts?name={quote(name or '')}")["runs"])

    def counts(self) -> dict[str, int]:
        """Count the calls since the process started; see ``DevServer.counts``."""
        return {"polls": 0, "updates": 0, "not found": 0, "handed out": 0, **self._ask("GET", "/dev/counts")["calls"]}

    def handed_out(self, *, least: int = 0) -> dict[tuple[str, str], int]:
        """Count how often each step was handed to a worker, by (run, reference); only counts of at least ``least``."""
        rows = self._ask("GET", f"/dev/handed-out?least={least}")
        return {(row["workflow"], row["reference"]): row["times"] for row in rows}

    def sweep(self) -> int:
        """Evaluate all timeouts now; returns how many runs had one."""
        return int(self._ask("POST", "/dev/sweep")["workflows"])

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        self._running()
        connection = http.client.HTTPConnection(*self._control, timeout=60)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise RuntimeError(f"the dev server refused {method} {path}: {answer.decode()}")
        return json.loads(answer) if answer else None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            raise RuntimeError("the dev server's process is not running")
        return self._child
