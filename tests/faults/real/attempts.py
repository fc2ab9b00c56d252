"""Every attempt at a task as its server has it, and what it was in vain for: for tests that kill."""

import time
from collections.abc import Iterable
from typing import Any

import attrs
from harness import Job
from servers import RealServer

STUCK = 10.0  # seconds; what a server had just taken out of its queue when it was killed is back there after a minute


@attrs.frozen
class Attempt:
    """One attempt at a task.

    Attributes:
        server: its server's name.
        task_id: its own; another attempt at the same task has another.
        status: how it ended.
        polls: how often the server says that it gave it out.
        worker_id: who had it last.
        given_out: when that was, in seconds since the epoch.
    """

    server: str
    task_id: str
    status: str
    polls: int
    worker_id: str
    given_out: float


def attempts(server: RealServer, name: str, workflows: Iterable[str]) -> list[Attempt]:
    """Every attempt at the tasks of these workflows, all of which must have completed."""
    found = []
    for workflow_id in workflows:
        shown = server.client.workflow(workflow_id)
        assert shown["status"] == "COMPLETED", (name, workflow_id, shown["status"], shown.get("reasonForIncompletion"))
        found += [_attempt(name, task) for task in shown["tasks"]]
    return found


def unscheduled(server: RealServer, workflows: Iterable[str]) -> list[str]:
    """The workflows that a server failed because its own database did not let it schedule a task; seen once."""
    shown = {workflow_id: server.client.workflow(workflow_id) for workflow_id in workflows}
    return [one for one, has in shown.items() if "Error scheduling tasks" in (has.get("reasonForIncompletion") or "")]


def nudge(job: Job, server: RealServer) -> None:
    """Let a server look at timeouts now, for its own next look may be minutes away."""
    running = server.client.running(job.name)
    for workflow_id in running:
        server.client.decide(workflow_id)
    tasks = [task for workflow_id in running for task in server.client.workflow(workflow_id)["tasks"][-1:]]
    if tasks and all(_is_stuck(task) for task in tasks):
        server.client.call("POST", f"/tasks/queue/requeue/{job.name}").expect()


def _attempt(name: str, task: dict[str, Any]) -> Attempt:
    return Attempt(
        server=name,
        task_id=task["taskId"],
        status=task["status"],
        polls=task["pollCount"],
        worker_id=task.get("workerId") or "",
        given_out=task["startTime"] / 1000,
    )


def _is_stuck(task: dict[str, Any]) -> bool:
    return task["status"] == "SCHEDULED" and time.time() - task["scheduledTime"] / 1000 > STUCK
