"""The API's paths: from a call to an answer. It knows neither sockets nor an HTTP library."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from .access import Access
from .answers import EMPTY, NO_CONTENT, Answer, ApiError, Call, json_answer, text_answer
from .bodies import read_start, read_update
from .engine import Engine, Missing
from .metadata import Metadata
from .model import queue_name
from .polling import Polling

__all__ = ["Api", "Router", "call_kind", "wall_clock_ms"]

VERSION = "3.32.1"
_HEALTH = {"healthResults": [], "suppressedHealthResults": [], "healthy": True}
Handler = Callable[..., "Answer | Awaitable[Answer]"]


def wall_clock_ms() -> int:
    """Milliseconds since the epoch: times go onto the wire and outlive the process."""
    return time.time_ns() // 1_000_000


def call_kind(method: str, path: str) -> str:
    """Tell a ``poll`` and an ``update`` from every ``other`` call."""
    if path.startswith("/api/tasks"):
        if method == "GET" and path.startswith("/poll/", 10):
            return "poll"
        if method == "POST" and path in {"/api/tasks", "/api/tasks/update-v2"}:
            return "update"
    return "other"


class Router:
    """Finds the handler of a call; what it does not find is refused the way Spring refuses it."""

    def __init__(self, table: dict[str, Handler]) -> None:
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[int, list[tuple[str, list[str], Handler]]] = {}
        for line, handler in table.items():
            method, path = line.split()
            if "{" in path:
                parts = path.split("/")
                self._patterns.setdefault(len(parts), []).append((method, parts, handler))
            else:
                self._exact[method, path] = handler

    def find(self, method: str, path: str) -> tuple[Handler, list[str]]:
        """Return the handler and the values of the path's parameters; ApiError (404, 405) if there is none."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, []
        parts = path.split("/")
        others = any(known == path for _, known in self._exact)
        for known_method, pattern, handler in self._patterns.get(len(parts), ()):
            values = _match(pattern, parts)
            if values is None:
                continue
            if known_method == method:
                return handler, values
            others = True
        if others:
            raise ApiError(405, f"Request method '{method}' is not supported")
        raise ApiError(404, f"No static resource {path.lstrip('/')}.")


def _match(pattern: list[str], parts: list[str]) -> list[str] | None:
    values = []
    for known, part in zip(pattern, parts, strict=True):
        if known.startswith("{"):
            if not part:
                return None
            values.append(unquote(part))
        elif known != part:
            return None
    return values


class Api:
    """Answers calls. Not thread-safe: it belongs to one event loop.

    Args:
        engine: what the calls change.
        polling: the long polls.
        access: who may call; None asks for nothing and has no tokens, like the open-source server.
        now: milliseconds since the epoch.
        update_v2: False for a server as old as not to have ``update-v2``.
    """

    def __init__(
        self,
        engine: Engine,
        polling: Polling,
        access: Access | None = None,
        *,
        now: Callable[[], int] = wall_clock_ms,
        update_v2: bool = True,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._engine = engine
        self._polling = polling
        self._access = access
        self._now = now
        metadata = Metadata(engine)
        table = {**self._task_routes(), **self._workflow_routes(), **metadata.routes()}
        if not update_v2:
            del table["POST /api/tasks/update-v2"]
        if access is not None:
            table["POST /api/token"] = lambda call: access.token(call, self._now())
        self._router = Router(table)

    async def answer(self, call: Call) -> Answer:
        """Answer a call; errors of the API are answers too."""
        try:
            self._check_access(call)
            handler, values = self._router.find(call.method, call.path)
            answer = handler(call, *values)
            if not isinstance(answer, Answer):
                answer = await answer
        except ApiError as error:
            answer = error.answer()
        except Missing as error:
            answer = ApiError(404, str(error)).answer()
        self.counts[f"status {answer.status}"] += 1
        return answer

    def _check_access(self, call: Call) -> None:
        if self._access is not None and call.path.startswith("/api/") and call.path != "/api/token":
            self._access.check(call.headers, self._now())

    def _task_routes(self) -> dict[str, Handler]:
        return {
            "POST /api/tasks": self._update,
            "POST /api/tasks/update-v2": self._update_v2,
            "GET /api/tasks/poll/batch/{type}": self._poll_batch,
            "GET /api/tasks/poll/{type}": self._poll,
            "GET /api/tasks/queue/size": self._queue_size,
            "GET /api/tasks/queue/all": lambda _: json_answer(self._engine.store.queue_sizes()),
            "GET /api/tasks/queue/polldata": self._poll_data,
            "GET /api/tasks/{id}": self._task,
            "POST /api/tasks/{id}/log": self._add_log,
            "GET /api/tasks/{id}/log": self._logs,
            "GET /health": lambda _: json_answer(_HEALTH),
            "GET /api/health": lambda _: json_answer(_HEALTH),
            "GET /api/version": lambda _: text_answer(VERSION),
        }

    def _workflow_routes(self) -> dict[str, Handler]:
        return {
            "POST /api/workflow": self._start,
            "POST /api/workflow/{name}": self._start_named,
            "GET /api/workflow/{id}": self._workflow,
            "DELETE /api/workflow/{id}": self._terminate,
            "GET /api/workflow/{id}/status": self._workflow_status,
            "GET /api/workflow/running/{name}": self._running,
            "PUT /api/workflow/decide/{id}": self._decide,
            "POST /api/workflow/bulk/search": self._bulk_search,
        }

    # -- tasks ------------------------------------------------------------------------------------------------

    async def _poll_batch(self, call: Call, task_type: str) -> Answer:
        self.counts["polls"] += 1
        wait_ms = call.number("timeout", 100)
        count = call.number("count", 1)
        if wait_ms > 5000:  # noqa: PLR2004 - the server's own limit
            raise ApiError(400, "Long Poll Timeout value cannot be more than 5 seconds")
        queue = queue_name(task_type, call.text("domain"))
        texts = await self._polling.poll(queue, call.text("workerid"), count, wait_ms / 1000)
        self.counts["handed out"] += len(texts)
        return Answer(200, f"[{','.join(texts)}]".encode(), "application/json")

    async def _poll(self, call: Call, task_type: str) -> Answer:
        self.counts["polls"] += 1
        return await self._one_task(queue_name(task_type, call.text("domain")), call.text("workerid"))

    async def _one_task(self, queue: str, worker_id: str | None) -> Answer:
        """Answer with one task, or with nothing after the server's own short wait."""
        texts = await self._polling.poll(queue, worker_id, 1, 0.1)
        self.counts["handed out"] += len(texts)
        return Answer(200, texts[0].encode(), "application/json") if texts else NO_CONTENT

    def _update(self, call: Call) -> Answer:
        self.counts["updates"] += 1
        task = self._counted(lambda: self._engine.update(read_update(call, strict=True), self._now()))
        return text_answer(task.task_id)

    async def _update_v2(self, call: Call) -> Answer:
        self.counts["updates"] += 1
        update = read_update(call, strict=False)
        task = self._counted(lambda: self._engine.update(update, self._now()))
        if task.state.live:
            return NO_CONTENT
        return await self._one_task(task.queue, update.worker_id)

    def _counted(self, update: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the update returns
        """Count the updates that were sent to the wrong server."""
        try:
            return update()
        except Missing:
            self.counts["not found"] += 1
            raise

    def _queue_size(self, call: Call) -> Answer:
        queue = queue_name(call.text("taskType") or "", call.text("domain"))
        return json_answer(self._engine.store.queue_size(queue))

    def _poll_data(self, call: Call) -> Answer:
        return json_answer(self._polling.poll_data(call.text("taskType") or ""))

    def _task(self, _call: Call, task_id: str) -> Answer:
        found = self._engine.store.task(task_id)
        if found is None:
            raise ApiError(404, f"Task not found for taskId: {task_id}")
        return Answer(200, self._engine.task_json(*found).encode(), "application/json")

    def _add_log(self, call: Call, task_id: str) -> Answer:
        self._engine.add_log(task_id, call.body.decode("utf-8", "replace"), self._now())
        return EMPTY

    def _logs(self, _call: Call, task_id: str) -> Answer:
        logs = self._engine.store.logs(task_id)
        return json_answer(logs) if logs else NO_CONTENT

    # -- workflows --------------------------------------------------------------------------------------------

    def _start(self, call: Call) -> Answer:
        request = read_start(call.mapping())
        try:
            return text_answer(self._engine.start(request, self._now()))
        except Missing:
            version = "null" if request.version is None else request.version
            raise ApiError(404, f"No such workflow defined. name={request.name}, version={version}") from None

    def _start_named(self, call: Call, name: str) -> Answer:
        wire = {
            "name": name,
            "input": call.mapping(),
            "version": call.number("version", 0) or None,
            "correlationId": call.text("correlationId"),
            "priority": call.number("priority", 0),
        }
        return text_answer(self._engine.start(read_start(wire), self._now()))

    def _workflow(self, call: Call, workflow_id: str) -> Answer:
        text = self._engine.run_json(workflow_id, tasks=call.flag("includeTasks", default=True))
        return Answer(200, text.encode(), "application/json")

    def _workflow_status(self, _call: Call, workflow_id: str) -> Answer:
        workflow = self._engine.store.workflow(workflow_id)
        if workflow is None:
            raise Missing(f"No such workflow found by id: {workflow_id}")
        status = {"workflowId": workflow_id, "status": workflow.state.value}
        if workflow.correlation_id is not None:
            status["correlationId"] = workflow.correlation_id
        return json_answer(status)

    def _running(self, call: Call, name: str) -> Answer:
        return json_answer(self._engine.store.running(name, call.number("version", 1)))

    def _decide(self, _call: Call, workflow_id: str) -> Answer:
        self._engine.decide(workflow_id, self._now())
        return EMPTY

    def _terminate(self, call: Call, workflow_id: str) -> Answer:
        self._engine.terminate(workflow_id, call.text("reason"), self._now())
        return EMPTY

    def _bulk_search(self, call: Call) -> Answer:
        tasks = call.flag("includeTasks", default=True)
        found, errors = [], []
        for workflow_id in map(str, call.json()):
            try:
                found.append(self._engine.run_json(workflow_id, tasks=tasks))
            except Missing as error:  # noqa: PERF203 - each id is answered for itself
                errors.append((workflow_id, str(error)))
        body = f'{{"bulkErrorResults": {_object(errors)}, "bulkSuccessfulResults": [{", ".join(found)}]}}'
        return Answer(200, body.encode(), "application/json")


def _object(pairs: list[tuple[str, str]]) -> str:
    return json_answer(dict(pairs)).body.decode()
