"""What the contract's tests share: one workflow with its tasks, and the answers that are promised."""

import http.client
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
from client import Answer, ConductorClient, result_of

from conductor_adapter.tasks import Task

JSON = "application/json"
TEXT = "text/plain;charset=UTF-8"
OK = Answer(200, "")
NO_CONTENT = Answer(204, "")
RESPONSE_TIMEOUT = 60  # seconds, unless a test defines another one
AMPLE = 4.0  # seconds: less than the longest wait of a poll, far more than any server needs


def soon(attempt: Callable[[], None]) -> bool:
    """Whether one of five attempts ends before a poll is over: a machine may stall, a server that waits always does."""
    for _ in range(5):
        began = time.monotonic()
        attempt()
        if time.monotonic() - began < AMPLE:
            return True
    return False


@attrs.frozen
class Flow:
    """A workflow whose steps are tasks of one type; both are called ``name``."""

    server: ConductorClient
    name: str

    def define(self, steps: int = 1, **definition: Any) -> None:
        """Define it; ``definition`` changes the task definition."""
        usual = {"responseTimeoutSeconds": RESPONSE_TIMEOUT, "retryDelaySeconds": 0}
        self.server.register(self.name, *[self.name] * steps, **{**usual, **definition})

    def start(self, count: int = 1) -> list[str]:
        """Start it ``count`` times, with ``number`` 0, 1, … as input."""
        return self.server.start(self.name, count)

    def start_in(self, domain: str) -> str:
        """Start it with its tasks in a domain."""
        request = {"name": self.name, "version": 1, "input": {"number": 0}, "taskToDomain": {self.name: domain}}
        return self.server.call("POST", "/workflow", request).expect()

    def poll(self, count: int = 1, timeout_ms: int = 0, **query: Any) -> Answer:
        """Batch poll."""
        path = f"/tasks/poll/batch/{quote(self.name, safe='')}"
        return self.server.call("GET", path, workerid="tests", count=count, timeout=timeout_ms, **query)

    def take(self, count: int = 1, timeout_ms: int = 5000, **query: Any) -> list[dict[str, Any]]:
        """Poll for exactly ``count`` tasks, which must be there or come."""
        tasks = self.poll(count, timeout_ms, **query).expect()
        assert len(tasks) == count
        return tasks

    def update(self, task: dict[str, Any], status: str | None = "COMPLETED", **fields: Any) -> Answer:
        """Report a task."""
        return self.server.call("POST", "/tasks", result_of(task, status, **fields))

    def update_v2(self, task: dict[str, Any], status: str | None = "COMPLETED", **fields: Any) -> Answer:
        """Report a task and ask for the next."""
        return self.server.call("POST", "/tasks/update-v2", result_of(task, status, **fields))

    def give_back(self, task: dict[str, Any], **fields: Any) -> None:
        """Put a task back into its queue."""
        self.update(task, "IN_PROGRESS", **fields).expect()

    def task(self, task: dict[str, Any]) -> dict[str, Any]:
        """A task as the server has it now."""
        return self.server.call("GET", f"/tasks/{task['taskId']}").expect()

    def first_task(self, workflow_id: str) -> dict[str, Any]:
        """The task of a workflow that has just been started, without polling it."""
        (task,) = self.server.workflow(workflow_id)["tasks"]
        return task

    def queue_size(self, **query: Any) -> Answer:
        """How many tasks wait, as the server says it."""
        return self.server.call("GET", "/tasks/queue/size", taskType=self.name, **query)

    def let_pass(self, seconds: float) -> None:
        """Let time pass: the server itself waits, in a poll that nobody fills."""
        elsewhere = attrs.evolve(self, name=f"{self.name}_nobody")
        assert elsewhere.poll(timeout_ms=int(1000 * seconds)).expect() == []

    def task_as_read(self, workflow_id: str, task_id: str, **fields: Any) -> Task:
        """The task that a worker must read from an answer: every field, as after a first poll unless said."""
        usual = {
            "task_type": self.name,
            "workflow_type": self.name,
            "reference_name": f"{self.name}_0",
            "input": {"number": 0},
            "poll_count": 1,
            "response_timeout": float(RESPONSE_TIMEOUT),
            "seq": 1,
        }
        return Task(workflow_id=workflow_id, task_id=task_id, **{**usual, **fields})

    def poll_and_leave(self, timeout_ms: int = 0, **query: Any) -> http.client.HTTPConnection:
        """Send a poll whose answer nobody will read; the caller closes the connection."""
        address = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        fields = {"workerid": "gone", "count": 1, "timeout": timeout_ms, **query}
        words = "&".join(f"{key}={value}" for key, value in fields.items())
        connection.request("GET", f"{address.path}/tasks/poll/batch/{self.name}?{words}")
        assert isinstance(connection.sock, socket.socket)
        return connection


def json_answer(body: Any, status: int = 200) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, body, JSON)


def text_answer(body: str) -> Answer:
    """An answer that is plain text, as ids are."""
    return Answer(200, body, TEXT)


def check_refused(answer: Answer, status: int, message: str | None = None) -> None:
    """The error object of the API, with that message if one is given; nothing says that a retry would help."""
    assert (answer.status, answer.media_type) == (status, JSON), answer
    assert answer.body.keys() == {"status", "message", "instance", "retryable"}
    assert (answer.body["status"], answer.body["retryable"]) == (status, False)
    assert answer.body["message"]
    assert answer.body["instance"]
    assert message is None or answer.body["message"] == message
