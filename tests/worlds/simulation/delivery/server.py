"""A Conductor server as its rules are known (see §3 and §4 of the research): queues, response timeouts, updates."""

import heapq
import itertools
import json
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from conductor_adapter.client.messages import HttpAnswer

from .judge import Judge
from .machine import Machine
from .plan import Flow, ServerPlan

TYPE = "charge"
RETRY_DELAY = 0.5
REFUSES = 10.0  # seconds
TERMINAL = ("COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "TIMED_OUT")
EMPTY = HttpAnswer(200, {}, b"[]")
NOTHING = HttpAnswer(204)


@attrs.define(eq=False)
class Run:
    """A workflow that runs."""

    name: str
    flow: Flow
    step: int = 0
    attempts: int = 0
    state: str = "RUNNING"
    refuses_until: float = math.inf


@attrs.define(eq=False)
class ServedTask:
    """One attempt of a step."""

    name: str
    run: Run
    attempt: int
    status: str = "SCHEDULED"
    updated_at: float = 0.0
    polls: int = 0
    output: Any = attrs.field(factory=dict)


class Server:
    """One server; what it does is done at once, when a call of it is served."""

    def __init__(self, name: str, plan: ServerPlan, machine: Machine, judge: Judge) -> None:
        self.name = name
        self.plan = plan
        self.runs: list[Run] = []
        self._machine = machine
        self._judge = judge
        self._numbers = itertools.count(1)
        self._tasks: dict[str, ServedTask] = {}
        self._queue: deque[ServedTask] = deque()
        self._polls: list[tuple[float, int, Poll]] = []
        self.troubled: Callable[[float], bool] = bool  # told by the network: whether anything was wrong since then
        for flow in plan.flows:
            machine.at(flow.at, lambda flow=flow: self._begin(flow))

    # -- calls -------------------------------------------------------------------------------------------------------

    def poll(self, count: int, wait: float, reply: Callable[[HttpAnswer], None]) -> None:
        """Hand out tasks as soon as there is one."""
        poll = Poll(count, reply)
        heapq.heappush(self._polls, (self._machine.now, next(self._numbers), poll))
        self._serve()
        if poll.open:
            self._machine.at(self._machine.now + wait, lambda: poll.answer(EMPTY))

    def update(self, body: bytes) -> HttpAnswer:
        """Take a result; what is known already changes nothing."""
        told = json.loads(body)
        task = self._tasks.get(told["taskId"])
        self._judge.update_arrives(self.name, told)
        if task is None:
            return _error(404, f"No such workflow found by id: {told['workflowInstanceId']}")
        if told.get("extendLease"):
            task.updated_at = self._machine.now
            return HttpAnswer(200, {}, task.name.encode())
        if task.run.flow.how == "poison" and told["status"] != "IN_PROGRESS":
            task.run.state, task.status = "REFUSED", "FAILED"
            self._judge.refused(self.name, task.name)
            return _error(404, f"No such task found by id: {task.name}")
        if task.run.flow.how == "refused" and told["status"] != "IN_PROGRESS":
            task.run.refuses_until = min(task.run.refuses_until, self._machine.now + REFUSES)
            if self._machine.now < task.run.refuses_until:
                return _error(400, "this result cannot be taken now")
        self._judge.accepted(told)
        if task.status not in TERMINAL and task.run.state == "RUNNING":
            self._apply(task, told)
        return HttpAnswer(200, {}, task.name.encode())

    def update_v2(self, body: bytes) -> HttpAnswer:
        """The same, and hand out the next task."""
        if not self.plan.has_v2:
            return _error(404, "No static resource api/tasks/update-v2.")
        answer = self.update(body)
        if answer.status != 200:
            return answer
        if json.loads(body)["status"] == "IN_PROGRESS" or not self._queue:
            return NOTHING
        return HttpAnswer(200, {}, json.dumps(self._hand_out()).encode())

    def forget(self) -> None:
        """It starts again with nothing in its memory."""
        for run in self.runs:
            run.state = "FORGOTTEN"
        for task in self._tasks:
            self._judge.refused(self.name, task)
        self._tasks.clear()
        self._queue.clear()

    def drop_polls(self) -> None:
        """It died: nobody waits any more."""
        for _, _, poll in self._polls:
            poll.open = False

    # -- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, flow: Flow) -> None:
        run = Run(f"{self.name}-w{len(self.runs)}", flow)
        self.runs.append(run)
        self._schedule(run)

    def _schedule(self, run: Run) -> None:
        task = ServedTask(f"{run.name}-t{run.step}-{run.attempts}", run, run.attempts)
        run.attempts += 1
        self._tasks[task.name] = task
        self._judge.belongs(task.name, self.name)
        self._queue.append(task)
        self._serve()

    def _serve(self) -> None:
        while self._queue and self._polls:
            _, _, poll = heapq.heappop(self._polls)
            if poll.open:
                tasks = [self._hand_out() for _ in range(min(poll.count, len(self._queue)))]
                poll.answer(HttpAnswer(200, {}, json.dumps(tasks).encode()))

    def _hand_out(self) -> dict[str, Any]:
        task = self._queue.popleft()
        task.status, task.updated_at = "IN_PROGRESS", self._machine.now
        task.polls += 1
        self._expect(task)
        return {
            "taskId": task.name,
            "workflowInstanceId": task.run.name,
            "taskType": TYPE,
            "retryCount": task.attempt,
            "pollCount": task.polls,
            "responseTimeoutSeconds": self.plan.response_timeout,
            "inputData": {"seconds": task.run.flow.steps[task.run.step], "how": task.run.flow.how},
            "outputData": task.output,
        }

    def _expect(self, task: ServedTask) -> None:
        """Look for a sign of life when the response timeout is over."""
        self._machine.at(task.updated_at + self.plan.response_timeout, lambda: self._look_after(task))

    def _look_after(self, task: ServedTask) -> None:
        if task.status != "IN_PROGRESS" or task.run.state != "RUNNING":
            return
        if self._machine.now < task.updated_at + self.plan.response_timeout:
            self._expect(task)
            return
        task.status = "TIMED_OUT"
        self._judge.timed_out(self.name, task.name, excused=self.troubled(task.updated_at))
        self._machine.at(self._machine.now + RETRY_DELAY, lambda: self._retry(task))

    def _retry(self, task: ServedTask) -> None:
        if task.run.state == "RUNNING":
            self._schedule(task.run)

    def _apply(self, task: ServedTask, told: dict[str, Any]) -> None:
        task.updated_at = self._machine.now
        task.output = told.get("outputData", {})
        if told["status"] == "IN_PROGRESS":
            if task.status == "IN_PROGRESS":
                task.status = "SCHEDULED"
                after = told.get("callbackAfterSeconds", 0)
                self._machine.at(self._machine.now + after, lambda: self._again(task))
            return
        task.status = told["status"]
        if task in self._queue:  # it was to be handed out again
            self._queue.remove(task)
        if task.status == "COMPLETED":
            task.run.step += 1
            if task.run.step == len(task.run.flow.steps):
                task.run.state = "COMPLETED"
                return
            task.run.attempts = 0
            self._schedule(task.run)
        else:
            self._machine.at(self._machine.now + RETRY_DELAY, lambda: self._retry(task))

    def _again(self, task: ServedTask) -> None:
        if task.status == "SCHEDULED" and self._tasks.get(task.name) is task:
            self._queue.append(task)
            self._serve()


class Poll:
    """A poll that waits."""

    def __init__(self, count: int, reply: Callable[[HttpAnswer], None]) -> None:
        self.count = count
        self.open = True
        self._reply = reply

    def answer(self, answer: HttpAnswer) -> None:
        """Answer it, once."""
        if self.open:
            self.open = False
            self._reply(answer)


def _error(status: int, message: str) -> HttpAnswer:
    body = {"status": status, "message": message, "instance": "model", "retryable": False}
    return HttpAnswer(status, {"content-type": "application/json"}, json.dumps(body).encode())
