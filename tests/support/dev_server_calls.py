"""What the dev server's tests share: an API on virtual time, and calls over a socket."""

import asyncio
import http.client
import json
from collections.abc import Mapping

from conductor_adapter.dev_server.answers import Call
from conductor_adapter.dev_server.engine import Engine
from conductor_adapter.dev_server.polling import Polling
from conductor_adapter.dev_server.routes import Api
from conductor_adapter.dev_server.state import Store
from conductor_adapter.dev_server.waiting import Waiting

JSON = {"Content-Type": "application/json"}


def split(answer):
    """The status and the value of an answer: JSON, or text as it is."""
    text = answer.body.decode()
    return answer.status, json.loads(text) if answer.media_type == "application/json" else text


class TimedApi:
    """The API without a socket; ``now`` is milliseconds, and moves only by hand."""

    def __init__(self, path=None, **options):
        self.now = 1_000_000
        self.store = Store(path)
        self.waiting = Waiting()
        self.engine = Engine(self.store, self.waiting.notify)
        polling = Polling(self.engine, self.waiting, lambda: self.now)
        self.api = Api(self.engine, polling, now=lambda: self.now, **options)

    def call(self, method, target, body=None, headers: Mapping[str, str] = JSON):
        """Make one call and return its answer."""
        path, _, query = target.partition("?")
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return asyncio.run(self.api.answer(Call(method, path, query, headers, data)))

    def ask(self, method, target, body=None):
        """Make one call and return its status and value."""
        return split(self.call(method, target, body))

    def define(self, *references, task_def=None, task_type="t"):
        """Define a workflow ``w`` of tasks of one type, one for each reference name."""
        self.ask("POST", "/api/metadata/taskdefs", [{"name": task_type, "retryDelaySeconds": 0, **(task_def or {})}])
        steps = [{"name": task_type, "taskReferenceName": reference} for reference in references]
        assert self.ask("POST", "/api/metadata/workflow?overwrite=true", {"name": "w", "tasks": steps})[0] == 200

    def start(self, given=None):
        """Start a ``w`` and return its id."""
        status, run = self.ask("POST", "/api/workflow/w", given or {})
        assert status == 200, run
        return run

    def poll(self, count=1, *, task_type="t", timeout=0, domain=None):
        """Poll and return the tasks."""
        suffix = f"&domain={domain}" if domain else ""
        target = f"/api/tasks/poll/batch/{task_type}?workerid=me&count={count}&timeout={timeout}{suffix}"
        status, tasks = self.ask("GET", target)
        assert status == 200
        return tasks

    def update(self, task, path="/api/tasks", **fields):
        """Report a task as completed, or as the fields say."""
        return self.ask("POST", path, result(task, **fields))

    def run(self, run):
        """The run as the API shows it."""
        return self.ask("GET", f"/api/workflow/{run}")[1]

    def close(self):
        """Close the store."""
        self.store.close()


def result(task, **fields):
    """A task result, completed unless the fields say otherwise."""
    ids = {"workflowInstanceId": task["workflowInstanceId"], "taskId": task["taskId"]}
    return {**ids, "workerId": "me", "status": "COMPLETED", "outputData": {}, **fields}


def fetch(port, method, path, body=None, *, headers: Mapping[str, str] = JSON):
    """Make one call over a connection of its own and return its status and value."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), dict(headers))
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    is_json = (response.getheader("Content-Type") or "").startswith("application/json")
    return response.status, json.loads(text) if is_json and text else text
