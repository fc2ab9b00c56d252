"""Large inputs and outputs of tasks, stored outside the tasks and fetched by path."""

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote
from uuid import uuid4

import attrs

from .answers import EMPTY, JSON, Answer, ApiError, Call, json_answer
from .model import Task, TaskState
from .state import Store
from .workflows import TaskUpdate

__all__ = ["LARGEST", "PayloadRoutes", "PayloadStorage", "size_over"]

LARGEST = 10 * 1024 * 1024
"""The maximum size of a payload in bytes; larger ones are refused."""

_KINDS = {"WORKFLOW_INPUT", "WORKFLOW_OUTPUT", "TASK_INPUT", "TASK_OUTPUT"}
_GONE = b'{"Error": "Data with this ID does not exist or has been deleted from the external storage."}'


class PayloadStorage:
    """Payloads stored outside their tasks, and the tasks without them. Not thread-safe: it belongs to one event loop.

    Args:
        store: the state.
        threshold: size in bytes above which a payload is stored outside; None for no limit.
    """

    def __init__(self, store: Store, threshold: int | None) -> None:
        self._store = store
        self.threshold = threshold

    def shown(self, task: Task, body: str) -> str:
        """Return the JSON text of a task as it is shown: payloads that are stored outside are empty.

        Args:
            task: the task.
            body: its whole JSON text.
        """
        raw = isinstance(task.input, str)
        if self.threshold is None and task.output_path is None and not raw:
            return body
        wire = json.loads(body)
        input_path = self._outside(task.input if raw else text_of(task.input))
        if input_path:
            wire.update(inputData={}, externalInputPayloadStoragePath=input_path)
        if task.output_path is not None:
            wire.update(outputData={})
        text = json.dumps(wire)
        if raw and not input_path:
            return text.replace(f'"inputData": {json.dumps(task.input)}', f'"inputData": {task.input}', 1)
        return text

    def settled(self, update: TaskUpdate, size: int) -> TaskUpdate:
        """Return a report with its output: one stored outside is fetched, one that is too large fails the task.

        Args:
            update: the report as received.
            size: its size in bytes.

        Raises:
            ApiError: the output stored outside is not a JSON object.
        """
        if update.output_path is not None:
            return attrs.evolve(update, output=self._object(update.output_path))
        excess = size_over(LARGEST, update.output, size)
        if not excess:
            return update
        reason = (
            f"The payload size: {excess} of task: {update.task_id} in workflow: {update.workflow_id}  is greater than "
            f"the permissible limit: {LARGEST} bytes"
        )
        return attrs.evolve(update, state=TaskState.FAILED_WITH_TERMINAL_ERROR, output={}, reason=reason)

    def stored(self, task: Task) -> Task:
        """Return a task whose output is stored outside if it is large."""
        path = self._outside(text_of(task.output)) if self.threshold is not None else None
        return task if path is None else attrs.evolve(task, output_path=path)

    def read(self, path: str) -> bytes:
        """Return the stored payload; a real server answers with an ordinary object if there is none."""
        return self._store.payload(path) or _GONE

    def write(self, path: str, body: bytes) -> None:
        """Store a payload."""
        self._store.put_payload(path, body)

    def _object(self, path: str) -> dict[str, Any]:
        try:
            value = json.loads(self.read(path))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise ApiError(500, f"Unable to download payload from external storage path: {path}")
        return value

    def _outside(self, text: str) -> str | None:
        """Store a text that is larger than the threshold and return its path; None if it is smaller."""
        if self.threshold is None or len(text) <= self.threshold // 4:
            return None
        body = text.encode("utf-8", "replace")
        if len(body) <= self.threshold:
            return None
        path = f"{hashlib.sha256(body).hexdigest()}.hashed.json"
        self._store.put_payload(path, body)
        return path


class PayloadRoutes:
    """Answers the calls that fetch and store payloads."""

    def __init__(self, payloads: PayloadStorage) -> None:
        self._payloads = payloads

    def routes(self) -> dict[str, Callable[..., Answer]]:
        """Return the paths that it answers."""
        locate = {"GET /api/tasks/externalstoragelocation": self._locate}
        if self._payloads.threshold is None:
            return {**locate}
        return {
            **locate,
            "GET /api/external/{path}": lambda _call, path: Answer(200, self._payloads.read(path), JSON),
            "PUT /api/external/{path}": self._write,
        }

    def _locate(self, call: Call) -> Answer:
        """Answer with the place of a payload, existing or new; a server without such a storage returns only a path."""
        given = parse_qs(call.query, keep_blank_values=True)
        for name in ("path", "operation", "payloadType"):
            if name not in given:
                message = f"Required request parameter '{name}' for method parameter type String is not present"
                raise ApiError(500, message)
        path, operation, kind = (given[name][-1] for name in ("path", "operation", "payloadType"))
        if operation.upper() not in {"READ", "WRITE"} or kind.upper() not in _KINDS:
            raise ApiError(400, f"Invalid input - Operation: {operation}, PayloadType: {kind}")
        if self._payloads.threshold is None:
            return json_answer({"path": f"{path}{uuid4()}.json"})
        path = path or f"{uuid4()}.json"
        host = call.headers.get("Host", "localhost")
        return json_answer({"uri": f"http://{host}/api/external/{quote(path, safe='')}", "path": path})

    def _write(self, call: Call, path: str) -> Answer:
        self._payloads.write(path, call.body)
        return EMPTY


def size_over(limit: int, value: Any, at_most: int) -> int:  # noqa: ANN401 - JSON
    """Return the size of a JSON value in bytes if it exceeds ``limit``, else 0; ``at_most`` is an upper bound."""
    if at_most <= limit:
        return 0
    size = len(text_of(value).encode())
    return size if size > limit else 0


def text_of(value: Any) -> str:  # noqa: ANN401 - JSON
    """Write a JSON value as a real server does, because its size depends on that."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
