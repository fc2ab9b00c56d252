"""The events of a runner besides those of `resilience`: the outcomes of tasks."""

from collections.abc import Callable
from typing import Union

import attrs

from conductor_adapter.tasks import TaskStatus
from resilience.events import Event

__all__ = ["RunnerEvent", "RunnerListener", "TaskFailed", "TaskLeaseLost"]


@attrs.frozen
class TaskFailed:
    """A task function raised an exception, or reported that its task failed; the result is being sent to the server.

    Attributes:
        server: the server of the task.
        task_type: its type.
        task_id: Conductor's id of this attempt.
        status: FAILED, which the server can retry, or FAILED_WITH_TERMINAL_ERROR.
        reason: the reason as it is sent to the server; None if the function gave none.
        error: the exception of the function, or the error in its input or return value; its traceback begins at the
            task function. None if the function returned a failed `TaskResult`.
    """

    server: str
    task_type: str
    task_id: str
    status: TaskStatus
    reason: str | None
    error: BaseException | None = None


@attrs.frozen
class TaskLeaseLost:
    """A task's response timeout is over, and no heartbeat could extend it: the server might hand the task out again.

    The task function continues, and its result is sent; a server that has started a new attempt by then ignores it.
    Emitted instead of ``resilience.LeaseLost``.

    Attributes:
        server: the server of the task.
        task_type: its type.
        task_id: Conductor's id of this attempt.
        error: the error of the last heartbeat.
    """

    server: str
    task_type: str
    task_id: str
    error: BaseException


RunnerEvent = Union[Event, TaskFailed, TaskLeaseLost]  # noqa: UP007 - one name for all, usable in annotations of user code
RunnerListener = Callable[[RunnerEvent], None]
