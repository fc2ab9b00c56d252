"""Where the demo plays: embedded servers, which can be broken, or real ones, which are only worked on."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol
from urllib.parse import quote

from conductor_adapter.cli.demo.story import PER_SECOND, TASK, Chapter, chapters
from conductor_adapter.dev_server import DevServerProcess
from conductor_adapter.settings import ServerSettings, check_servers
from conductor_adapter.transports import choose
from conductor_adapter.wire import HttpAnswer, HttpCall, TransportError

__all__ = ["Embedded", "Real", "RefusedError", "Scene", "Stage"]

Scene = tuple[Chapter, Callable[[], None]]

CALL_TIMEOUT = 20.0
REAL_TASKS = 100  # on each real server: enough to see, little enough to be quick
TASK_DEF: dict[str, Any] = {"retryCount": 5, "retryDelaySeconds": 0, "responseTimeoutSeconds": 5, "timeoutSeconds": 600}


class RefusedError(Exception):
    """A real server cannot be worked on; the text is for the user."""


class Stage(Protocol):
    """Servers with work on them. A context manager."""

    settings: list[ServerSettings]

    def seed(self, seconds: float) -> dict[str, int]:
        """Start the work for a story of ``seconds``; how much on each server."""

    def script(self, seconds: float) -> list[Scene]:
        """What is done to its servers in a story of ``seconds``; nothing, if they are not ours to break."""

    def unfinished(self, server: str) -> int:
        """Tasks of a server that have not ended."""

    def finished(self, server: str) -> int:
        """Tasks of a server that were completed."""

    def retried(self, server: str) -> int:
        """Tasks that a server handed out more than once."""

    def __enter__(self) -> "Stage": ...  # noqa: PYI034 - typing.Self is newer than Python 3.10

    def __exit__(self, *_: object) -> None: ...


class Embedded:
    """Three embedded servers, each a process that keeps its state in a file."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._servers: dict[str, DevServerProcess] = {}
        self.settings: list[ServerSettings] = []

    def __enter__(self) -> "Embedded":  # noqa: PYI034 - typing.Self is newer than Python 3.10
        with ExitStack() as stack:
            for name in PER_SECOND:
                self._servers[name] = stack.enter_context(DevServerProcess(name=name))
            self._stack = stack.pop_all()
        self.settings = [server.settings for server in self._servers.values()]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def seed(self, seconds: float) -> dict[str, int]:
        """See `Stage`."""
        counts = {name: round(rate * seconds) for name, rate in PER_SECOND.items()}
        for name, count in counts.items():
            self._servers[name].start_tasks(TASK, count, **TASK_DEF)
        return counts

    def script(self, seconds: float) -> list[Scene]:
        """See `Stage`."""
        return [(chapter, getattr(self._servers[chapter.server], chapter.act)) for chapter in chapters(seconds)]

    def unfinished(self, server: str) -> int:
        """See `Stage`."""
        return self._servers[server].runs(TASK)["RUNNING"]

    def finished(self, server: str) -> int:
        """See `Stage`."""
        return self._servers[server].runs(TASK)["COMPLETED"]

    def retried(self, server: str) -> int:
        """See `Stage`."""
        return len(self._servers[server].handed_out(least=2))


class Real:
    """Real Conductor servers: a workflow of one task is registered and started there, and nothing is broken."""

    def __init__(self, urls: Sequence[str], transport: str) -> None:
        named = (ServerSettings(f"real-{number}", url) for number, url in enumerate(urls, start=1))
        self.settings = list(check_servers(named))
        self._transports = {settings.name: choose(transport)(settings) for settings in self.settings}
        self._started: dict[str, list[str]] = {}

    def __enter__(self) -> "Real":  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        for transport in self._transports.values():
            transport.close()

    def seed(self, seconds: float) -> dict[str, int]:  # noqa: ARG002 - a real server gets little, whatever the story
        """See `Stage`."""
        task = {"name": TASK, "taskReferenceName": TASK, "type": "SIMPLE", "inputParameters": {}}
        workflow = {"name": TASK, "version": 1, "schemaVersion": 2, "tasks": [task], "ownerEmail": "demo@example.com"}
        for settings in self.settings:
            definition = {"name": TASK, "ownerEmail": "demo@example.com", **TASK_DEF}
            self._ask(settings.name, "POST", "/metadata/taskdefs", [definition])
            self._ask(settings.name, "POST", "/metadata/workflow", workflow, query="overwrite=true")
            self._started[settings.name] = [self._start(settings.name) for _ in range(REAL_TASKS)]
        return {name: len(ids) for name, ids in self._started.items()}

    def script(self, seconds: float) -> list[Scene]:  # noqa: ARG002 - nothing is broken, however long it takes
        """See `Stage`."""
        return []

    def unfinished(self, server: str) -> int:
        """See `Stage`."""
        running = json.loads(self._ask(server, "GET", f"/workflow/running/{TASK}", query="version=1").body)
        return len(set(running) & set(self._started[server]))

    def finished(self, server: str) -> int:
        """See `Stage`."""
        return sum(self._workflow(server, one)["status"] == "COMPLETED" for one in self._started[server])

    def retried(self, server: str) -> int:
        """See `Stage`."""
        return sum(len(self._workflow(server, one).get("tasks", ())) > 1 for one in self._started[server])

    def _start(self, server: str) -> str:
        return self._ask(server, "POST", f"/workflow/{TASK}", {}).body.decode().strip('"')

    def _workflow(self, server: str, workflow_id: str) -> dict[str, Any]:
        answer = self._ask(server, "GET", f"/workflow/{quote(workflow_id)}", query="includeTasks=true")
        return json.loads(answer.body)  # type: ignore[no-any-return]

    def _ask(self, server: str, method: str, path: str, body: object = None, *, query: str = "") -> HttpAnswer:
        headers = (("Content-Type", "application/json"), ("Accept", "*/*"))
        text = None if body is None else json.dumps(body).encode()
        try:
            answer = self._transports[server].send(HttpCall(method, path, query, headers, text), CALL_TIMEOUT)
        except TransportError as error:
            raise RefusedError(f"{error}: is a Conductor server there?") from error
        if answer.status >= 300:  # noqa: PLR2004 - anything but success
            raise RefusedError(f"{server} refused {method} {path}: HTTP {answer.status} {answer.body[:200]!r}")
        return answer
