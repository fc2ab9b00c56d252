"""Real Conductor servers: the demo registers its task type and workflow and starts tasks, but injects no faults."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from conductor_adapter.cli.demo.stage import RefusedError, Scene
from conductor_adapter.cli.demo.story import TASK, TASK_DEF, Account
from conductor_adapter.client.messages import HttpAnswer, HttpCall, TransportError
from conductor_adapter.settings.server_settings import ServerSettings, check_servers
from conductor_adapter.transports import choose
from resilience import Failed, FanOutExecutor, Outcome, Value

if TYPE_CHECKING:
    from conductor_adapter.transports.base import Transport

__all__ = ["Real"]

CALL_TIMEOUT = 10.0
FEED_TIMEOUT = 1.0  # a server that takes longer gets the rest later
ASK_TIMEOUT = 2.0
PATIENCE = 60.0
MOST_AT_ONCE = 20  # new workflows per second and server: each needs a call
OWNER = {"ownerEmail": "demo@example.com"}
ENDED_WELL, ALIVE = "COMPLETED", {"RUNNING", "PAUSED"}


class Real:
    """See `Stage`; servers without auth only.

    Args:
        urls: the URLs of their APIs.
        transport: as in `RunnerConfig`.

    Raises:
        ValueError: a URL is invalid, or two are the same.
    """

    backlog = 100  # enough to see, little enough to be quick

    def __init__(self, urls: Sequence[str], transport: "str | Callable[[ServerSettings], Transport]") -> None:
        named = (ServerSettings(f"real-{number}", url) for number, url in enumerate(urls, start=1))
        self.settings = list(check_servers(named))
        self._transports = {settings.name: choose(transport)(settings) for settings in self.settings}
        self._workflows: dict[str, list[str]] = {settings.name: [] for settings in self.settings}
        self._fan_out = FanOutExecutor()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._fan_out.close()
        for transport in self._transports.values():
            transport.close()

    @property
    def started(self) -> dict[str, int]:
        """See `Stage`."""
        return {name: len(ids) for name, ids in self._workflows.items()}

    def seed(self) -> None:
        """See `Stage`."""
        outcomes = self._fan_out.run({name: partial(self._begin, name) for name in self._workflows}, PATIENCE)
        for name, outcome in outcomes.items():
            if not isinstance(outcome, Value):
                raise RefusedError(_problem(outcome, name))

    def feed(self, counts: dict[str, int]) -> None:
        """See `Stage`."""
        wanted = {name: min(count, MOST_AT_ONCE) for name, count in counts.items() if count}
        self._fan_out.run({name: partial(self._start, name, count) for name, count in wanted.items()}, FEED_TIMEOUT)

    def script(self, seconds: float) -> list[Scene]:  # noqa: ARG002 - no faults, whatever the length
        """See `Stage`."""
        return []

    def is_drained(self) -> bool:
        """See `Stage`."""
        outcomes = self._fan_out.run({name: partial(self._alive, name) for name in self._workflows}, ASK_TIMEOUT)
        return all(isinstance(outcome, Value) and not outcome.value for outcome in outcomes.values())

    def accounts(self) -> list[Account]:
        """See `Stage`."""
        outcomes = self._fan_out.run({name: partial(self._account, name) for name in self._workflows}, PATIENCE)
        return [
            outcome.value
            if isinstance(outcome, Value)
            else Account(server=name, started=self.started[name], problem=_problem(outcome, name))
            for name, outcome in outcomes.items()
        ]

    def _account(self, server: str) -> Account:
        found = {one: self._workflow(server, one) for one in list(self._workflows[server])}
        states = [workflow["status"] for workflow in found.values()]
        return Account(
            server=server,
            started=len(found),
            finished=states.count(ENDED_WELL),
            unfinished=sum(state in ALIVE for state in states),
            handed_out={one: sum(t.get("pollCount", 0) for t in flow["tasks"]) for one, flow in found.items()},
        )

    def _begin(self, server: str) -> None:
        self._register(server)
        self._start(server, self.backlog)

    def _register(self, server: str) -> None:
        task = {"name": TASK, "taskReferenceName": TASK, "type": "SIMPLE", "inputParameters": {}}
        workflow = {"name": TASK, "version": 1, "schemaVersion": 2, "tasks": [task], **OWNER}
        self._ask(server, "POST", "/metadata/taskdefs", [{"name": TASK, **OWNER, **TASK_DEF}])
        self._ask(server, "POST", "/metadata/workflow", workflow, query="overwrite=true")

    def _start(self, server: str, count: int) -> None:
        for _ in range(count):
            answer = self._ask(server, "POST", f"/workflow/{TASK}", {})
            self._workflows[server].append(answer.body.decode().strip('"'))

    def _alive(self, server: str) -> set[str]:
        running = json.loads(self._ask(server, "GET", f"/workflow/running/{TASK}", query="version=1").body)
        return set(running) & set(self._workflows[server])

    def _workflow(self, server: str, workflow_id: str) -> dict[str, Any]:
        answer = self._ask(server, "GET", f"/workflow/{quote(workflow_id)}", query="includeTasks=true")
        return json.loads(answer.body)  # type: ignore[no-any-return]

    def _ask(self, server: str, method: str, path: str, body: object = None, *, query: str = "") -> HttpAnswer:
        headers = (("Content-Type", "application/json"), ("Accept", "*/*"))
        text = None if body is None else json.dumps(body).encode()
        try:
            answer = self._transports[server].send(HttpCall(method, path, query, headers, text), CALL_TIMEOUT)
        except TransportError as error:
            raise RefusedError(f"{error}: is there a Conductor server at this URL?") from error
        if answer.status >= 300:  # noqa: PLR2004 - anything but success
            raise RefusedError(f"{server} refused {method} {path}: HTTP {answer.status} {answer.body[:200]!r}")
        return answer


def _problem(outcome: Outcome[Any], server: str) -> str:
    return str(outcome.error) if isinstance(outcome, Failed) else f"{server} does not answer"
