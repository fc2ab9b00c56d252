"""Workers whose servers answer polls oddly: too large, too much, or with tasks that nobody can read."""

import json
import logging
import threading
from collections import Counter
from urllib.parse import parse_qs

import pytest
from fault_kit import quick, until
from hearing import Heard

from conductor_adapter import RunnerConfig, ServerSettings, TaskFailed, TaskStatus, WorkerRunner, worker
from conductor_adapter.client.messages import HttpAnswer, TransportError, TransportErrorKind
from resilience import BreakerChanged, GaveBack, PollFailed, SurplusArrived

DIGITS = "9" * 5000  # more than Python turns into a number


def task(name, given='{"number": 1}'):
    """A task as a server's JSON has it, also where that is none."""
    return f'{{"taskType": "count", "inputData": {given}, "workflowInstanceId": "w-{name}", "taskId": "{name}"}}'


class Server:
    """A Conductor server as a transport: a queue of tasks as text, and the updates that it was sent.

    Args:
        tasks: what waits, by id.
        extra: tasks that it hands out beyond what it is asked for.
        most: bytes of an answer that the transport reads.
        v2: whether it hands out the next task with the answer to a result.
    """

    bounded = True

    def __init__(self, tasks, *, extra=0, most=64 * 2**20, v2=False):
        self.tasks = dict(tasks)
        self.waiting = list(tasks)
        self.updates, self.asked, self.lost, self.handed = {}, [], [], Counter()
        self._extra, self._most, self._v2 = extra, most, v2
        self._lock = threading.Lock()

    def __call__(self, _settings):
        """The transport to it."""
        return self

    def send(self, call, _timeout):
        """Answer."""
        with self._lock:
            if call.method == "GET":
                return self._poll(int(parse_qs(call.query)["count"][0]))
            return self._update(json.loads(call.body), call.path.endswith("v2"))

    def close(self):
        """Nothing to close."""

    def _poll(self, count):
        self.asked.append(count)
        names = self._take(count + self._extra)
        body = f"[{','.join(self.tasks[name] for name in names)}]".encode()
        if len(body) > self._most:
            self.lost.append(names)
            self.waiting += names  # as if their response timeout were over at once
            raise TransportError(TransportErrorKind.TOO_LARGE, f"the answer is larger than {self._most} bytes")
        return HttpAnswer(200, {}, body)

    def _take(self, count):
        names, self.waiting = self.waiting[:count], self.waiting[count:]
        self.handed.update(names)
        return names

    def _update(self, result, v2):
        if v2 and not self._v2:
            return HttpAnswer(405)
        name = result["taskId"]
        if result["status"] == "IN_PROGRESS":
            self.waiting.append(name)
        else:
            self.updates[name] = result
        if not v2:
            return HttpAnswer(200, {}, name.encode())
        return HttpAnswer(200, {}, self.tasks[found[0]].encode()) if (found := self._take(1)) else HttpAnswer(204)

    def ends(self):
        """The statuses of its tasks."""
        return Counter(result["status"] for result in self.updates.values())


def run(server, heard, *, threads):
    """A worker of the server that counts."""

    @worker("count", threads=threads)
    def count(number: int = 0, text: str = "") -> dict[str, int]:
        return {"number": number, "letters": len(text)}

    config: RunnerConfig = quick(server)
    return WorkerRunner([count], [ServerSettings("eu", "http://eu/api")], config=config, on_event=heard)


@pytest.mark.parametrize("v2", [False, True])
def test_odd_tasks_fail_with_the_reason_and_take_no_good_one_along(v2, caplog):
    """Of forty tasks four cannot be read: those end for good, the others run, and nothing counts against the server."""
    tasks = {f"t{number}": task(f"t{number}") for number in range(40)}
    odd = {3: f'{{"x": {DIGITS}}}', 8: '{"x": ' + "[" * 20_000 + "]" * 20_000 + "}", 13: '{"x": "a\tb"}', 29: "7"}
    tasks |= {f"t{number}": task(f"t{number}", given) for number, given in odd.items()}
    server, heard = Server(tasks, v2=v2), Heard()

    with caplog.at_level(logging.WARNING, "conductor_adapter"), run(server, heard, threads=10):
        until(lambda: len(server.updates) == 40, server.ends)

    assert server.ends() == {"COMPLETED": 36, "FAILED_WITH_TERMINAL_ERROR": 4}
    reasons = {name: result.get("reasonForIncompletion", "") for name, result in server.updates.items()}
    assert reasons["t3"].startswith("the worker cannot read the task: Exceeds the limit (4300")
    assert reasons["t29"] == "the worker cannot read the task: task t29: its inputData is not a JSON object"
    assert all(count == 1 for count in server.handed.values())
    assert not any(isinstance(event, (PollFailed, BreakerChanged)) for event in heard)
    failed = [event for event in heard if isinstance(event, TaskFailed)]
    assert {(event.task_id, event.task_type, event.status) for event in failed} == {
        (f"t{number}", "count", TaskStatus.FAILED_WITH_TERMINAL_ERROR) for number in odd
    }
    assert "of type 'count' failed: the worker cannot read the task" in caplog.text


def test_server_that_brings_more_than_it_is_asked_for_is_well(caplog):
    """Ten tasks for each that is asked for: all are done, the surplus goes back, and that is said once."""
    server, heard = Server({f"t{number}": task(f"t{number}") for number in range(60)}, extra=9), Heard()

    with caplog.at_level(logging.WARNING, "conductor_adapter"), run(server, heard, threads=2):
        until(lambda: len(server.updates) == 60, server.ends)

    assert server.ends() == {"COMPLETED": 60}
    assert not any(isinstance(event, (PollFailed, BreakerChanged)) for event in heard)
    assert any(isinstance(event, GaveBack) and event.reason == "more than was asked for" for event in heard)
    assert [event for event in heard if isinstance(event, SurplusArrived)] == [SurplusArrived("eu", 10, 1)]
    assert caplog.text.count("returned more tasks than requested (10 instead of 1); the surplus is given back") == 1


def test_after_an_answer_that_is_too_large_less_is_asked_for(caplog):
    """Forty tasks of 3 MB for thirty threads: a few go twice, and all are done."""
    given = json.dumps({"text": "x" * 30_000})
    server = Server({f"t{number}": task(f"t{number}", given) for number in range(40)}, most=640_000)
    heard = Heard()

    with caplog.at_level(logging.WARNING, "conductor_adapter"), run(server, heard, threads=30):
        until(lambda: len(server.updates) == 40, server.ends)

    assert server.ends() == {"COMPLETED": 40}
    assert [len(names) for names in server.lost] == [29]
    assert max(server.asked[server.asked.index(29) + 1 :]) == 14
    assert "an answer was too large: " in caplog.text
    assert "its tasks time out, and the next poll asks for half as many" in caplog.text


def test_single_task_that_is_too_large_is_named(caplog):
    """Nothing smaller can be asked for: the error says so, and how it could be had."""
    server, heard = Server({"t": task("t", json.dumps({"text": "x" * 1000}))}, most=900), Heard()

    with caplog.at_level(logging.WARNING, "conductor_adapter"), run(server, heard, threads=2):
        failed = heard.wait_for(PollFailed, source="eu")

    assert "a single task of type 'count' is too large to be had" in str(failed.error)
    assert set(server.asked) == {1}
