"""The API's paths: from a call to an answer, without sockets or an HTTP library."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from .access import Access
from .answers import EMPTY, NO_CONTENT, Answer, ApiError, Call, json_answer, text_answer
from .bodies import read_update
from .engine import Engine, Missing
from .metadata import Metadata
from .model import queue_name
from .payloads import PayloadRoutes
from .polling import Polling
from .router import Handler, Router
from .running import Workflows
from .times import wall_clock_ms

__all__ = ["Api"]

VERSION = "3.32.1"
_HEALTH = {"healthResults": [], "suppressedHealthResults": [], "healthy": True}


class Api:
    """Answers calls. Not thread-safe: it belongs to one event loop.

    Args:
        engine: executes the calls.
        polling: the long polls.
        access: checks the tokens; None requires none, like the open-source server.
        now: returns milliseconds since the epoch.
        update_v2: False for an old server without ``update-v2``.
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
        table = {**self._task_routes(), **Workflows(engine, now).routes(), **Metadata(engine).routes()}
        table.update(PayloadRoutes(engine.payloads).routes())
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
        """Answer with one task, or without one after the server's own short wait."""
        texts = await self._polling.poll(queue, worker_id, 1, 0.1)
        self.counts["handed out"] += len(texts)
        return Answer(200, texts[0].encode(), "application/json") if texts else NO_CONTENT

    def _update(self, call: Call) -> Answer:
        self.counts["updates"] += 1
        update = self._engine.payloads.settled(read_update(call, strict=True), len(call.body))
        task = self._counted(lambda: self._engine.update(update, self._now()))
        return text_answer(task.task_id)

    async def _update_v2(self, call: Call) -> Answer:
        self.counts["updates"] += 1
        update = self._engine.payloads.settled(read_update(call, strict=False), len(call.body))
        task = self._counted(lambda: self._engine.update(update, self._now()))
        if task.state.live:
            return NO_CONTENT
        return await self._one_task(task.queue, update.worker_id)

    def _counted(self, update: Callable[[], Any]) -> Any:  # noqa: ANN401 - the return value of the update
        """Count updates that were sent to the wrong server."""
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
