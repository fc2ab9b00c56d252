"""Conductor's definitions of tasks and workflows as values, to and from their JSON."""

from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["Plan", "Step", "TaskDef"]

# The fields that a real server adds to a definition: workers receive them in every task, so they are part of its cost.
_TASK_DEF_DEFAULTS: Mapping[str, Any] = {
    "createTime": 0,
    "updateTime": 0,
    "createdBy": "",
    "timeoutSeconds": 0,
    "inputKeys": [],
    "outputKeys": [],
    "runtimeMetadata": [],
    "timeoutPolicy": "TIME_OUT_WF",
    "inputTemplate": {},
    "rateLimitPerFrequency": 0,
    "rateLimitFrequencyInSeconds": 1,
    "maxRetryDelaySeconds": 0,
    "backoffJitterMs": 0,
    "totalTimeoutSeconds": 0,
    "taskStatusListenerEnabled": True,
    "enforceSchema": False,
}
_STEP_DEFAULTS: Mapping[str, Any] = {
    "inputParameters": {},
    "type": "SIMPLE",
    "decisionCases": {},
    "defaultCase": [],
    "forkTasks": [],
    "startDelay": 0,
    "joinOn": [],
    "optional": False,
    "defaultExclusiveJoinTask": [],
    "asyncComplete": False,
    "loopOver": [],
    "onStateChange": {},
    "permissive": False,
    "metadata": {},
}
_PLAN_DEFAULTS: Mapping[str, Any] = {
    "createTime": 0,
    "updateTime": 0,
    "inputParameters": [],
    "outputParameters": {},
    "schemaVersion": 2,
    "restartable": True,
    "workflowStatusListenerEnabled": False,
    "timeoutPolicy": "ALERT_ONLY",
    "timeoutSeconds": 0,
    "variables": {},
    "inputTemplate": {},
    "enforceSchema": True,
    "metadata": {},
    "maskedFields": [],
}


@attrs.frozen(kw_only=True)
class TaskDef:
    """Retries and timeouts of tasks of one type; the defaults are those of a real server.

    Attributes:
        name: the task type.
        retry_count: number of attempts after the first.
        retry_delay: seconds before the next attempt.
        retry_logic: ``FIXED``, ``EXPONENTIAL_BACKOFF`` or ``LINEAR_BACKOFF``.
        backoff_scale: factor of the linear growth.
        response_timeout: seconds after which a task without an update times out.
        raw: the definition as received, including fields that this server only stores.
    """

    name: str
    retry_count: int = 3
    retry_delay: int = 60
    retry_logic: str = "FIXED"
    backoff_scale: int = 1
    response_timeout: int = 3600
    raw: Mapping[str, Any] = attrs.field(factory=dict, eq=False, repr=False)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "TaskDef":
        """Read a definition; ValueError names the wrong field."""
        return cls(
            name=_text(wire, "name"),
            retry_count=_number(wire, "retryCount", 3),
            retry_delay=_number(wire, "retryDelaySeconds", 60),
            retry_logic=str(wire.get("retryLogic") or "FIXED"),
            backoff_scale=_number(wire, "backoffScaleFactor", 1),
            response_timeout=_number(wire, "responseTimeoutSeconds", 3600, least=1),
            raw=dict(wire),
        )

    def to_wire(self) -> dict[str, Any]:
        """Render the JSON object of the server's answers: the definition, and defaults for the rest."""
        counted = {
            "name": self.name,
            "retryCount": self.retry_count,
            "retryLogic": self.retry_logic,
            "retryDelaySeconds": self.retry_delay,
            "responseTimeoutSeconds": self.response_timeout,
            "backoffScaleFactor": self.backoff_scale,
        }
        return {**_TASK_DEF_DEFAULTS, **self.raw, **counted}

    def delay(self, retries: int) -> int:
        """Seconds before the attempt that follows ``retries`` retries."""
        if self.retry_logic == "EXPONENTIAL_BACKOFF":
            return int(self.retry_delay * 2**retries)
        if self.retry_logic == "LINEAR_BACKOFF":
            return self.retry_delay * self.backoff_scale * (retries + 1)
        return self.retry_delay


@attrs.frozen(kw_only=True)
class Step:
    """One SIMPLE task of a workflow definition."""

    task_type: str
    reference: str
    inputs: Mapping[str, Any] = attrs.field(factory=dict)
    retry_count: int | None = None
    raw: Mapping[str, Any] = attrs.field(factory=dict, eq=False, repr=False)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Step":
        """Read a step; ValueError for a kind of task that this server does not run."""
        kind = wire.get("type") or "SIMPLE"
        if kind != "SIMPLE":
            raise ValueError(f"the dev server runs SIMPLE tasks only, not {kind!r}")
        count = wire.get("retryCount")
        return cls(
            task_type=_text(wire, "name"),
            reference=_text(wire, "taskReferenceName"),
            inputs=_mapping(wire, "inputParameters"),
            retry_count=None if count is None else _number(wire, "retryCount", 0),
            raw=dict(wire),
        )

    def to_wire(self, task_def: TaskDef) -> dict[str, Any]:
        """Render the JSON object of the server's answers, with the task definition."""
        return {**_STEP_DEFAULTS, **self.raw, "type": "SIMPLE", "taskDefinition": task_def.to_wire()}


@attrs.frozen(kw_only=True)
class Plan:
    """A workflow definition: SIMPLE tasks in sequence."""

    name: str
    version: int
    steps: tuple[Step, ...]
    outputs: Mapping[str, Any] = attrs.field(factory=dict)
    raw: Mapping[str, Any] = attrs.field(factory=dict, eq=False, repr=False)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Plan":
        """Read a definition; ValueError names the problem."""
        tasks = wire.get("tasks") or []
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise ValueError("tasks must be a list of task objects")
        steps = tuple(Step.from_wire(task) for task in tasks)
        if len({step.reference for step in steps}) != len(steps):
            raise ValueError("taskReferenceName must be unique within a workflow definition")
        version = _number(wire, "version", 1)
        return cls(
            name=_text(wire, "name"),
            version=version,
            steps=steps,
            outputs=_mapping(wire, "outputParameters"),
            raw={**wire, "version": version},
        )

    def to_wire(self) -> dict[str, Any]:
        """Render the JSON object of the server's answers."""
        return {**_PLAN_DEFAULTS, **self.raw, "tasks": [{**_STEP_DEFAULTS, **step.raw} for step in self.steps]}

    def step(self, reference: str) -> Step:
        """Return the step of that reference name."""
        return next(step for step in self.steps if step.reference == reference)

    def after(self, reference: str) -> Step | None:
        """Return the step that follows, None at the end."""
        place = next(i for i, step in enumerate(self.steps) if step.reference == reference)
        return self.steps[place + 1] if place + 1 < len(self.steps) else None


def _text(wire: Mapping[str, Any], field: str) -> str:
    """Read a required str."""
    value = wire.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field} must be a non-empty str, not {value!r}")
    return value


def _number(wire: Mapping[str, Any], field: str, default: int, *, least: int = 0) -> int:
    """Read an optional integer."""
    value = wire.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{field} must be a whole number of at least {least}, not {value!r}")
    return value


def _mapping(wire: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Read an optional object."""
    value = wire.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{field} must be an object, not {value!r}")  # noqa: TRY004 - bad data, not a bug
    return value
