"""The few calls that tests make to a real server besides the worker's own: define, start, look."""

import contextlib
import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import attrs

_SAYS_JSON = {"Content-Type": "application/json"}


@attrs.frozen
class Answer:
    """Status, body and media type of one answer; a body that is called JSON is parsed, any other is text."""

    status: int
    body: Any
    media_type: str = ""

    def expect(self, *statuses: int) -> Any:
        """The body, if the status is one of ``statuses`` (default 200)."""
        assert self.status in (statuses or (200,)), f"{self.status}: {self.body!r:.500}"
        return self.body


class ConductorClient:
    """A plain client of one server; one connection a call, so it can be used from any thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = urlsplit(url)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        within: float = 30.0,
        headers: Mapping[str, str] = _SAYS_JSON,
        **query: Any,
    ) -> Answer:
        """Send one request below the API's address; ``body`` goes as JSON, text as it is; ``within`` seconds a read."""
        target = self._address.path + path + (f"?{urlencode(query)}" if query else "")
        content = body if body is None or isinstance(body, str) else json.dumps(body)
        connection = http.client.HTTPConnection(self._address.hostname, self._address.port, timeout=within)
        with contextlib.closing(connection):
            connection.request(method, target, content, dict(headers))
            answer = connection.getresponse()
            text = answer.read().decode()
        media_type = answer.getheader("Content-Type", "")
        return Answer(answer.status, json.loads(text) if "json" in media_type else text, media_type)

    def register(self, workflow: str, *task_types: str, **definition: Any) -> None:
        """Define a workflow that runs ``task_types`` one after another; ``definition`` changes the task definitions."""
        defaults = {
            "retryCount": 3,
            "retryLogic": "FIXED",
            "retryDelaySeconds": 1,
            "responseTimeoutSeconds": 60,
            "timeoutSeconds": 600,
            "timeoutPolicy": "RETRY",
            "ownerEmail": "tests@example.com",
        }
        tasks = [{"name": name, **defaults, **definition} for name in dict.fromkeys(task_types)]
        self.call("POST", "/metadata/taskdefs", tasks).expect()
        steps = [
            {"name": name, "taskReferenceName": f"{name}_{i}", "type": "SIMPLE", "inputParameters": _WHOLE_INPUT}
            for i, name in enumerate(task_types)
        ]
        described = {
            "name": workflow,
            "version": 1,
            "schemaVersion": 2,
            "ownerEmail": "tests@example.com",
            "timeoutSeconds": 0,
            "tasks": steps,
        }
        self.call("POST", "/metadata/workflow", described, overwrite="true").expect()

    def start(self, workflow: str, count: int = 1) -> list[str]:
        """Start ``count`` workflows, whose tasks get ``number`` 0, 1, … as input; their ids."""
        path = f"/workflow/{quote(workflow)}"
        return [self.call("POST", path, {"number": number}).expect() for number in range(count)]

    def running(self, workflow: str) -> list[str]:
        """Ids of the workflows of this name that have not ended."""
        return self.call("GET", f"/workflow/running/{quote(workflow)}", version=1).expect()

    def workflow(self, workflow_id: str) -> dict[str, Any]:
        """One workflow with all its tasks, those of earlier attempts too."""
        return self.call("GET", f"/workflow/{workflow_id}", includeTasks="true").expect()

    def decide(self, workflow_id: str) -> None:
        """Let the server look at timeouts now instead of at its next sweep."""
        self.call("PUT", f"/workflow/decide/{workflow_id}").expect(200, 204)

    def waiting(self, task_type: str) -> int:
        """Tasks of this type that wait in the queue."""
        return self.call("GET", "/tasks/queue/size", taskType=task_type).expect()

    def poll(
        self, task_type: str, count: int = 1, timeout_ms: int = 100, worker: str = "tests"
    ) -> list[dict[str, Any]]:
        """Batch poll."""
        path = f"/tasks/poll/batch/{quote(task_type)}"
        return self.call("GET", path, workerid=worker, count=count, timeout=timeout_ms).expect()

    def update(self, task: dict[str, Any], status: str = "COMPLETED", **fields: Any) -> Answer:
        """Report ``task`` as ``status``."""
        return self.call("POST", "/tasks", result_of(task, status, **fields))


def result_of(task: dict[str, Any], status: str = "COMPLETED", **fields: Any) -> dict[str, Any]:
    """The wire form of a result for a polled task."""
    ids = {"workflowInstanceId": task["workflowInstanceId"], "taskId": task["taskId"]}
    return {**ids, "workerId": "tests", "status": status, "outputData": {}, **fields}


_WHOLE_INPUT = {"number": "${workflow.input.number}"}
