"""Task functions: how a function becomes a worker, and the result of running it on one task.

A task function takes its arguments by name from the task's input and determines how the task ends by what it
returns or raises:

========================================  ===============================================================
it returns                                the task becomes
========================================  ===============================================================
None; a dict or data class; another value COMPLETED with ``{}``; that object; ``{"result": value}``
``InProgress`` (or raises it)             IN_PROGRESS: the server hands the task out again later
``TaskResult``                            as specified there; missing ids are filled in
it raises ``NonRetryable``                FAILED_WITH_TERMINAL_ERROR: no retry
it raises anything else                   FAILED, with the traceback in the task's log: the server may retry
========================================  ===============================================================

Input that does not fit the parameters, and a returned value that is not JSON-serializable, end the task with a terminal
error. In a process that the function forked, returning or raising ends that process, and nothing is reported from it.
"""

import contextvars
import inspect
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from conductor_adapter.functions.decorator import WorkerSpec, attached_spec, spec_of
from conductor_adapter.functions.forks import end_copy
from conductor_adapter.functions.output import LONGEST_WAIT, NotJsonError, as_output, as_sendable, shown
from conductor_adapter.functions.structure import UnbindableError
from conductor_adapter.tasks import Task, TaskResult, TaskStatus, cut_log

__all__ = ["InProgress", "NonRetryable", "TaskContext", "execute", "run_attempt", "run_task", "task_context"]

_LOGS_KEPT = 10  # a server keeps the first ten entries of a task's log, unless it is configured otherwise

_current: contextvars.ContextVar["TaskContext"] = contextvars.ContextVar("conductor_adapter.task")


class NonRetryable(Exception):  # noqa: N818 - the design's name: it says what to do, not what broke
    """Raised by a task function: the task can never succeed and must not be retried; the text is the reason."""


class InProgress(Exception):  # noqa: N818 - not a fault: the task goes on later
    """Raised or returned by a task function: the task is not finished; the server hands it out again later.

    Attributes:
        callback_after: seconds until the server hands it out again; Conductor counts whole seconds, up to 2**31 - 1.
        output: the output of the task until then; the next time it is in ``Task.output``.

    Raises:
        ValueError: the time is negative or too long for Conductor (TypeError: not a number).
    """

    def __init__(self, callback_after: float = 0.0, output: Mapping[str, Any] | None = None) -> None:
        if isinstance(callback_after, bool) or not isinstance(callback_after, (int, float)):
            raise TypeError(f"InProgress: callback_after must be a number of seconds, not {callback_after!r}")
        if not 0 <= callback_after <= LONGEST_WAIT:
            raise ValueError(
                f"InProgress: callback_after is {shown(callback_after)}; it must be 0 to {LONGEST_WAIT} seconds "
                "from now, not milliseconds or a date"
            )
        super().__init__(callback_after, output)
        self.callback_after = callback_after
        self.output = output


class TaskContext:
    """The context of a running task function. ``add_log`` can be called from any thread.

    Attributes:
        task: the task being run.
        server: name of the server that it came from, which also gets its result.
    """

    def __init__(self, task: Task, server: str) -> None:
        self.task = task
        self.server = server
        self._logs: list[tuple[float, str]] = []

    def add_log(self, text: str) -> None:
        """Add ``text`` to the task's log, which is sent with the result; after the function has ended it is ignored.

        It is cut to 8,000 characters. Of more than 100 entries the first and the last are sent; most servers keep ten.
        """
        self._logs.append((time.time(), cut_log(str(text))))

    def add_traceback(self, text: str) -> None:
        """Add the traceback that ends the task to its log, among the entries that servers keep."""
        self._logs.insert(_LOGS_KEPT - 1, (time.time(), cut_log(text)))

    @property
    def logs(self) -> tuple[tuple[float, str], ...]:
        """The entries so far: seconds since the epoch, and the text."""
        return tuple(self._logs)


def task_context() -> TaskContext:
    """The context of the task that is running here.

    Raises:
        RuntimeError: no task is running here. Threads that the function starts do not inherit context variables.
    """
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError(
            "task_context() works only inside a task function; for a thread that it starts, use "
            "contextvars.copy_context().run as the target"
        ) from None


def run_task(spec: WorkerSpec, task: Task, *, server: str) -> TaskResult:
    """Run the worker's function on ``task``, which came from ``server``, in this thread.

    Any exception that the function raises becomes the result, ``SystemExit`` included: a task must not stop its worker.
    Only a ``KeyboardInterrupt`` in the main thread propagates, because it is meant for the process. Thread-safe.
    """
    return run_attempt(spec, task, server=server)[0]


def run_attempt(spec: WorkerSpec, task: Task, *, server: str) -> tuple[TaskResult, BaseException | None]:
    """The same, with the error that made the task fail, if any; its traceback begins at the task function."""
    context = TaskContext(task, server)
    token = _current.set(context)
    try:
        result, error = _attempt(spec, task)
    except BaseException as raised:  # user code: its exceptions concern the task, not the worker
        if isinstance(raised, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        error = _from_function_on(raised)
        context.add_traceback("".join(traceback.format_exception(error)))
        result = TaskResult(status=TaskStatus.FAILED, reason=_one_line(error))
    finally:
        _current.reset(token)
    return result.of(task, spec.worker_id, context.logs), error


def execute(
    function: Callable[..., Any] | WorkerSpec,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - Conductor's word for it
    *,
    server: str = "local",
    **fields: Any,  # noqa: ANN401 - fields of Task, checked there
) -> TaskResult:
    """Run one task function on one input, without a server: for tests and experiments.

    Args:
        function: a worker, or any plain function.
        input: the task's input.
        server: the value of ``task_context().server``.
        fields: further fields of the ``Task``, such as ``retry_count=1``.

    Returns:
        The result that would be sent. An exception of the function is part of it, and not raised here.

    Raises:
        TypeError: ``Task`` has no such field, or ``function`` cannot be a task function.
    """
    if isinstance(function, WorkerSpec):
        spec = function
    elif attached_spec(function) is not None:
        spec = spec_of(function)
    else:
        spec = WorkerSpec(task_type=getattr(function, "__name__", "task"), function=function)
    known: dict[str, Any] = {
        "task_id": "local-task",
        "workflow_id": "local-workflow",
        "task_type": spec.task_type,
        "domain": spec.domain,
        "input": dict(input or {}),
    }
    return run_task(spec, Task(**{**known, **fields}), server=server)


def _attempt(spec: WorkerSpec, task: Task) -> tuple[TaskResult, BaseException | None]:
    """The result of the function, without ids, and the error that caused it, if it is a failure.

    Ordinary exceptions of the function are raised.
    """
    try:
        positional, named = spec.binding.arguments(task)
        try:
            returned = _call(spec, positional, named)
        except InProgress as later:
            returned = later
        return _meant(returned, task), None
    except NonRetryable as error:
        return _failed_for_good(str(error) or type(error).__name__), _from_function_on(error)
    except (UnbindableError, NotJsonError) as error:
        return _failed_for_good(f"{spec.label}: {error}"), error.with_traceback(None)  # all frames are ours


def _failed_for_good(reason: str) -> TaskResult:
    return TaskResult(status=TaskStatus.FAILED_WITH_TERMINAL_ERROR, reason=reason)


def _call(spec: WorkerSpec, positional: Sequence[Any], named: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the function's
    pid = os.getpid()
    try:
        returned = spec.function(*positional, **named)
    except BaseException as error:
        end_copy(pid, error)
        raise
    end_copy(pid, None)
    return returned


def _meant(returned: Any, task: Task) -> TaskResult:  # noqa: ANN401 - whatever the function returned
    if isinstance(returned, InProgress):
        return TaskResult(
            status=TaskStatus.IN_PROGRESS,
            output=as_output(returned.output),
            callback_after=returned.callback_after,
        )
    if isinstance(returned, TaskResult):
        return _checked(returned, task)
    if inspect.iscoroutine(returned) or inspect.isgenerator(returned):
        returned.close()  # otherwise Python warns, far from here, that it was never awaited
        raise NotJsonError(f"the function returned a {type(returned).__name__}, which is never run; return its value")
    return TaskResult(output=as_output(returned))


def _checked(result: TaskResult, task: Task) -> TaskResult:
    """A result that the function created itself: problems with sending it are found here, not on delivery."""
    ids = ((result.task_id, task.task_id), (result.workflow_id, task.workflow_id))
    if any(said not in {"", own} for said, own in ids):
        raise NotJsonError(f"the TaskResult is for task {result.task_id!r}, not for {task.task_id!r}; omit the ids")
    return as_sendable(result)


def _from_function_on(error: BaseException) -> BaseException:
    """The error with its traceback starting at the task function: the frames before it are ours."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return error.with_traceback(frames)


def _one_line(error: BaseException) -> str:
    told = traceback.TracebackException(type(error), error, None)
    told.__notes__ = None  # they would replace the reason
    return list(told.format_exception_only())[-1].strip()
