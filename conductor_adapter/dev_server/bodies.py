"""Request bodies: task results and start requests, validated like on a real server."""

from collections.abc import Mapping
from typing import Any

from .answers import ApiError, Call
from .definitions import Plan
from .engine import StartRequest
from .model import TaskState
from .workflows import TaskUpdate

__all__ = ["read_start", "read_update"]

_REPORTED = ("CANCELED", "COMPLETED", "FAILED_WITH_TERMINAL_ERROR", "FAILED", "IN_PROGRESS")
_LONGEST_REASON = 500
_IDS = {"workflowInstanceId": "Workflow Id cannot be null or empty", "taskId": "Task ID cannot be null or empty"}


def read_update(call: Call, *, strict: bool) -> TaskUpdate:
    """Read a TaskResult.

    Args:
        call: the call.
        strict: answer missing ids with 400 (``POST /tasks``) rather than 500 (``update-v2``).

    Raises:
        ApiError: the answer of a real server to an invalid body.
    """
    wire = call.mapping()
    status = wire.get("status")
    if status is not None and status not in _REPORTED:
        raise ApiError(
            500,
            f'JSON parse error: Cannot deserialize value of type `TaskResult$Status` from "{status}": not one of the '
            f"values accepted for Enum class: [{', '.join(_REPORTED)}]",
        )
    _check_ids(wire, strict=strict)
    if status is None:
        raise ApiError(500, 'Cannot invoke "TaskResult$Status.name()" because "TaskResult.getStatus()" is null')
    return TaskUpdate(
        workflow_id=str(wire["workflowInstanceId"]),
        task_id=str(wire["taskId"]),
        state=TaskState(status),
        output=_of_type(wire, "outputData", dict) or {},
        output_path=wire.get("externalOutputPayloadStoragePath"),
        reason=_cut(wire.get("reasonForIncompletion")),
        worker_id=wire.get("workerId"),
        callback_after=_whole(wire, "callbackAfterSeconds"),
        extend_lease=bool(wire.get("extendLease")),
        logs=tuple(entry for entry in _of_type(wire, "logs", list) or () if isinstance(entry, Mapping)),
    )


def _cut(reason: Any) -> Any:  # noqa: ANN401 - JSON
    """Cut a reason to the length that a server keeps."""
    return reason[:_LONGEST_REASON] if isinstance(reason, str) else reason


def _check_ids(wire: Mapping[str, Any], *, strict: bool) -> None:
    errors = []
    for field, message in _IDS.items():
        if not wire.get(field):
            error = {"path": f"updateTask.arg0.{field}", "message": message}
            errors.append({**error, "invalidValue": wire[field]} if wire.get(field) is not None else error)
        elif isinstance(wire[field], dict | list):
            raise ApiError(500, f"JSON parse error: {field} must be a text")
    if errors and strict:
        raise _invalid(errors)
    if errors:
        raise ApiError(500, f"Validation failed for argument [0]: {errors[0]['message']}")


def read_start(wire: Mapping[str, Any]) -> StartRequest:
    """Read a StartWorkflowRequest; ApiError is the answer to an invalid one."""
    name = wire.get("name")
    if not name:
        message = "Workflow name cannot be null or empty"
        raise _invalid([{"path": "startWorkflow.arg0.name", "message": message}])
    try:
        plan = Plan.from_wire(wire["workflowDef"]) if wire.get("workflowDef") else None
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    version = wire.get("version")
    return StartRequest(
        name=str(name),
        version=None if version is None else int(version),
        input=wire.get("input") or {},
        correlation_id=wire.get("correlationId"),
        priority=_whole(wire, "priority"),
        domains=wire.get("taskToDomain") or {},
        plan=plan,
    )


def _invalid(errors: list[dict[str, Any]]) -> ApiError:
    message = "Validation failed, check below errors for detail."
    return ApiError(400, message, instance=None, validationErrors=errors)


def _of_type(wire: Mapping[str, Any], field: str, kind: type) -> Any:  # noqa: ANN401 - JSON
    value = wire.get(field)
    if value is not None and not isinstance(value, kind):
        raise ApiError(500, f"JSON parse error: {field} must be a {kind.__name__}, not {value!r}")
    return value


def _whole(wire: Mapping[str, Any], field: str) -> int:
    value = wire.get(field)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ApiError(500, f"JSON parse error: {field} must be a whole number, not {value!r}")
    return value
