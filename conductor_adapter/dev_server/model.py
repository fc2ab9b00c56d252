"""Conductor's records as values: tasks and workflows, to and from their JSON."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

__all__ = ["RunState", "Task", "TaskState", "Workflow", "queue_name"]


class TaskState(StrEnum):
    """The state of a task, in Conductor's words."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    FAILED_WITH_TERMINAL_ERROR = "FAILED_WITH_TERMINAL_ERROR"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"

    @property
    def live(self) -> bool:
        """Whether a worker can still change it."""
        return self in _LIVE


_LIVE = frozenset({TaskState.SCHEDULED, TaskState.IN_PROGRESS})


class RunState(StrEnum):
    """The state of a workflow, in Conductor's words."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    TERMINATED = "TERMINATED"


def queue_name(task_type: str, domain: str | None) -> str:
    """The name of the queue of a task type; each domain has its own queue."""
    return f"{domain}:{task_type}" if domain else task_type


@attrs.frozen(kw_only=True)
class Task:
    """One attempt at one step. Times are milliseconds since the epoch, 0 if nothing has happened yet.

    ``start_delay``, ``callback_after`` and ``response_timeout`` are seconds. An input that is a str is handed out as
    JSON, unchanged. ``output_path`` is the path of an output that is stored outside, which is also here.
    """

    task_id: str
    workflow_id: str
    workflow_type: str
    task_type: str
    reference: str
    state: TaskState = TaskState.SCHEDULED
    input: Any = attrs.field(factory=dict)
    output: Any = attrs.field(factory=dict)
    output_path: str | None = None
    seq: int = 1
    domain: str | None = None
    correlation_id: str | None = None
    priority: int = 0
    worker_id: str | None = None
    reason: str | None = None
    retry_count: int = 0
    retried_task_id: str | None = None
    retried: bool = False
    executed: bool = False
    poll_count: int = 0
    scheduled: int = 0
    started: int = 0
    first_started: int = 0
    updated: int = 0
    ended: int = 0
    start_delay: int = 0
    callback_after: int = 0
    response_timeout: int = 3600

    @property
    def queue(self) -> str:
        """The queue that it waits in."""
        return queue_name(self.task_type, self.domain)

    @property
    def ready_at(self) -> int:
        """When a worker can get it (ms), if it is scheduled."""
        if self.callback_after:
            return self.updated + 1000 * self.callback_after
        if self.poll_count:
            return self.updated
        return self.scheduled + 1000 * self.start_delay

    @property
    def deadline(self) -> int | None:
        """When its response timeout is over (ms); None unless a worker has it."""
        if self.state is not TaskState.IN_PROGRESS:
            return None
        return self.updated + 1000 * (self.response_timeout + self.callback_after)

    def to_wire(self) -> dict[str, Any]:
        """Render the JSON object of the server's answers; absent means null."""
        wire = {
            "taskType": self.task_type,
            "status": self.state.value,
            "inputData": self.input,
            "referenceTaskName": self.reference,
            "retryCount": self.retry_count,
            "seq": self.seq,
            "pollCount": self.poll_count,
            "taskDefName": self.task_type,
            "scheduledTime": self.scheduled,
            "startTime": self.started,
            "endTime": self.ended,
            "updateTime": self.updated,
            "startDelayInSeconds": self.start_delay,
            "retried": self.retried,
            "executed": self.executed,
            "callbackFromWorker": True,
            "responseTimeoutSeconds": self.response_timeout,
            "workflowInstanceId": self.workflow_id,
            "workflowType": self.workflow_type,
            "taskId": self.task_id,
            "callbackAfterSeconds": self.callback_after,
            "outputData": self.output,
            "rateLimitPerFrequency": 0,
            "rateLimitFrequencyInSeconds": 1,
            "workflowPriority": self.priority,
            "iteration": 0,
            "subworkflowChanged": False,
            "firstStartTime": self.first_started,
            "executionMetadata": {"additionalContext": {}, "empty": True, "additionalContextMap": {}},
            "queueWaitTime": self.started - self.scheduled if self.started else 0,
            "loopOverTask": False,
        }
        optional = (
            ("domain", self.domain),
            ("correlationId", self.correlation_id),
            ("workerId", self.worker_id),
            ("reasonForIncompletion", self.reason),
            ("retriedTaskId", self.retried_task_id),
            ("externalOutputPayloadStoragePath", self.output_path),
        )
        wire.update((name, value) for name, value in optional if value is not None)
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Task":
        """Read back what to_wire rendered."""
        return cls(
            task_id=wire["taskId"],
            workflow_id=wire["workflowInstanceId"],
            workflow_type=wire["workflowType"],
            task_type=wire["taskType"],
            reference=wire["referenceTaskName"],
            state=TaskState(wire["status"]),
            input=wire["inputData"],
            output=wire["outputData"],
            output_path=wire.get("externalOutputPayloadStoragePath"),
            seq=wire["seq"],
            domain=wire.get("domain"),
            correlation_id=wire.get("correlationId"),
            priority=wire["workflowPriority"],
            worker_id=wire.get("workerId"),
            reason=wire.get("reasonForIncompletion"),
            retry_count=wire["retryCount"],
            retried_task_id=wire.get("retriedTaskId"),
            retried=wire["retried"],
            executed=wire["executed"],
            poll_count=wire["pollCount"],
            scheduled=wire["scheduledTime"],
            started=wire["startTime"],
            first_started=wire["firstStartTime"],
            updated=wire["updateTime"],
            ended=wire["endTime"],
            start_delay=wire["startDelayInSeconds"],
            callback_after=wire["callbackAfterSeconds"],
            response_timeout=wire["responseTimeoutSeconds"],
        )


@attrs.frozen(kw_only=True)
class Workflow:
    """One run of a workflow definition. Times are milliseconds since the epoch.

    Attributes:
        plan: the stored number of the definition it started with; later versions do not change it.
    """

    workflow_id: str
    name: str
    version: int
    plan: int
    state: RunState = RunState.RUNNING
    input: Any = attrs.field(factory=dict)
    output: Any = attrs.field(factory=dict)
    reason: str | None = None
    correlation_id: str | None = None
    priority: int = 0
    domains: Mapping[str, str] = attrs.field(factory=dict)
    failed: tuple[str, ...] = ()
    started: int = 0
    updated: int = 0
    ended: int = 0

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.state is not RunState.RUNNING

    def to_wire(self) -> dict[str, Any]:
        """Render the JSON object of the server's answers, without definition and tasks."""
        wire = {
            "createTime": self.started,
            "updateTime": self.updated,
            "status": self.state.value,
            "endTime": self.ended,
            "workflowId": self.workflow_id,
            "input": self.input,
            "output": self.output,
            "taskToDomain": dict(self.domains),
            "failedReferenceTaskNames": list(self.failed),
            "priority": self.priority,
            "variables": {},
            "startTime": self.started,
            "workflowName": self.name,
            "workflowVersion": self.version,
        }
        optional = (("correlationId", self.correlation_id), ("reasonForIncompletion", self.reason))
        wire.update((name, value) for name, value in optional if value is not None)
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any], plan: int) -> "Workflow":
        """Read back what to_wire rendered."""
        return cls(
            workflow_id=wire["workflowId"],
            name=wire["workflowName"],
            version=wire["workflowVersion"],
            plan=plan,
            state=RunState(wire["status"]),
            input=wire["input"],
            output=wire["output"],
            reason=wire.get("reasonForIncompletion"),
            correlation_id=wire.get("correlationId"),
            priority=wire["priority"],
            domains=wire["taskToDomain"],
            failed=tuple(wire["failedReferenceTaskNames"]),
            started=wire["startTime"],
            updated=wire["updateTime"],
            ended=wire["endTime"],
        )
