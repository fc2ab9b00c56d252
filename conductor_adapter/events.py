"""What a runner tells of beside the events of `resilience`: what came of tasks."""

from collections.abc import Callable
from typing import Union

import attrs

from conductor_adapter.tasks import TaskStatus
from resilience.events import Event

__all__ = ["RunnerEvent", "RunnerListener", "TaskFailed", "TaskLeaseLost"]


@attrs.frozen
class TaskFailed:
    """A task function raised, or said that its task failed; the result is on its way to the server.

    Attributes:
        server: where the task came from.
        task_type: its type.
        task_id: Conductor's id of this attempt.
        status: FAILED, which the server may try again, or FAILED_WITH_TERMINAL_ERROR.
        reason: why, in the words that the server gets; None if the function gave none.
        error: what the function raised, or what its input or return value was refused with; its traceback begins at
            the task function. None if the function returned a `TaskResult` that says so.
    """

    server: str
    task_type: str
    task_id: str
    status: TaskStatus
    reason: str | None
    error: BaseException | None = None


@attrs.frozen
class TaskLeaseLost:
    """A task's response timeout is over, and no heartbeat could prolong it: the server may hand the task out again.

    The task function runs on, and its result is sent; a server that has made a new attempt meanwhile ignores it. Told
    instead of ``resilience.LeaseLost``.

    Attributes:
        server: where the task came from.
        task_type: its type.
        task_id: Conductor's id of this attempt.
        error: what came of the last heartbeat.
    """

    server: str
    task_type: str
    task_id: str
    error: BaseException


RunnerEvent = Union[Event, TaskFailed, TaskLeaseLost]  # noqa: UP007 - one name for all, also in annotations of user code
RunnerListener = Callable[[RunnerEvent], None]
