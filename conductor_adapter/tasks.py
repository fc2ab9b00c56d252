"""Conductor's task and task result as values, to and from the JSON objects of its API."""

import enum
import functools
import json
import math
from collections.abc import Mapping
from typing import Any

import attrs

from resilience._texts import cut

__all__ = ["TOO_MANY", "JsonText", "Task", "TaskResult", "TaskStatus", "can_be_sent", "cut_log", "encode", "task_named"]

encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # ASCII only, so that any text can be sent
TOO_MANY = 2**53  # a larger JSON number is nonsense for a count, and might not even fit into a float
LONGEST_REASON = 500  # characters; Conductor's servers keep no more
LONGEST_LOG = 8000  # characters of an entry: a server's index refuses more than 32,766 bytes
MOST_LOGS = 100  # entries; most servers keep the first ten


_OUTPUT_PATH = "externalOutputPayloadStoragePath"


class JsonText(str):
    """An object as JSON text, unaffected by later changes of the objects that it was made from."""

    __slots__ = ()


class TaskStatus(enum.Enum):
    """The status of a task, as far as a worker can report it, in Conductor's own words."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    FAILED_WITH_TERMINAL_ERROR = "FAILED_WITH_TERMINAL_ERROR"


@attrs.frozen(kw_only=True)
class Task:
    """One polled task. Immutable as far as Python allows: treat the mappings as read-only, as threads can share them.

    The data of a workflow can be private, so ``repr`` shows neither input nor output.

    Attributes:
        task_id: Conductor's id of this attempt; a retry has another one.
        workflow_id: the workflow that the task belongs to.
        task_type: the task type that was polled.
        reference_name: the task's name inside its workflow definition.
        input: the task's input.
        output: the output of earlier updates of this task; an update replaces it.
        retry_count: number of attempts before this one.
        poll_count: number of times that this attempt was handed out, including this one.
        domain: Conductor's domain; None for a task without one.
        response_timeout: seconds without an update after which the server considers the task lost; 0: never.
        seq: the task's position in its workflow.
        iteration: the iteration of the loop that contains it; 0 outside a loop.
        workflow_type: name of the workflow's definition.
        input_path: where the server stores the input if it is too large for the task itself; None if it is in the task.
            A `WorkerRunner` fetches it before the function runs.
        output_path: the same for ``output``.
        raw: the whole JSON object as received.
    """

    task_id: str
    workflow_id: str = ""
    task_type: str = ""
    reference_name: str = ""
    input: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    output: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    retry_count: int = 0
    poll_count: int = 0
    domain: str | None = None
    response_timeout: float = 0.0
    seq: int = 0
    iteration: int = 0
    workflow_type: str = ""
    input_path: str | None = None
    output_path: str | None = None
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)

    @classmethod
    def from_wire(cls, entry: object) -> "Task":
        """Read one entry of a poll's answer.

        Only entries that would make an unusable task are refused; a secondary field of a wrong type gets its default,
        because the server has already handed out the task: refused, it would be lost until its response timeout.

        Args:
            entry: any JSON value.

        Raises:
            ValueError: it is not an object, has no task id, has an id that could not be sent back, or its input is not
                an object.
        """
        if not isinstance(entry, dict):
            raise ValueError(f"a task must be a JSON object, not {type(entry).__name__}")  # noqa: TRY004 - bad data, not a bug
        task_id = entry.get("taskId")
        if not isinstance(task_id, str) or not task_id:
            raise ValueError("the task has no taskId")
        workflow_id = _text(entry, "workflowInstanceId")
        task_type = _text(entry, "taskType") or _text(entry, "taskDefName")
        if not can_be_sent(task_id + workflow_id + task_type):
            raise ValueError(
                f"task {task_id!a:.80}: its ids or type contain a lone surrogate, which cannot be sent back"
            )
        given = entry.get("inputData")
        if given is not None and not isinstance(given, dict):
            raise ValueError(f"task {task_id:.80}: its inputData is not a JSON object")
        output = entry.get("outputData")
        return cls(
            task_id=task_id,
            workflow_id=workflow_id,
            task_type=task_type,
            reference_name=_text(entry, "referenceTaskName"),
            input=given or {},
            output=output if isinstance(output, dict) else {},
            retry_count=_count(entry, "retryCount"),
            poll_count=_count(entry, "pollCount"),
            domain=_text(entry, "domain") or None,
            response_timeout=float(_count(entry, "responseTimeoutSeconds")),
            seq=_count(entry, "seq"),
            iteration=_count(entry, "iteration"),
            workflow_type=_text(entry, "workflowType"),
            input_path=_text(entry, "externalInputPayloadStoragePath") or None,
            output_path=_text(entry, _OUTPUT_PATH) or None,
            raw=entry,
        )


def cut_log(text: str) -> str:
    """An entry of a task's log, cut in its middle if it is longer than a server's index accepts."""
    return cut(text, LONGEST_LOG, tail=LONGEST_LOG // 2)


def _cut_logs(logs: tuple[tuple[float, str], ...]) -> tuple[tuple[float, str], ...]:
    """At most as many entries as can be sent: of more, the first and the last ones, with a note between them."""
    if len(logs) > MOST_LOGS:
        half = MOST_LOGS // 2
        note = (logs[half][0], f"… (cut; {len(logs):,} entries in all)")
        logs = (*logs[:half], note, *logs[half + 1 - MOST_LOGS :])
    return tuple([(created, cut_log(text)) for created, text in logs])


def _object_of(output: Mapping[str, Any] | JsonText) -> Mapping[str, Any]:
    """An output as an object, however it is stored."""
    return json.loads(output) if isinstance(output, JsonText) else output


@attrs.frozen(kw_only=True)
class TaskResult:
    """The result of a task, or a report that it is not finished yet. Immutable; ``repr`` does not show the output.

    Attributes:
        task_id: the task; a task function can omit it, the adapter fills it in.
        workflow_id: the task's workflow; likewise.
        status: the new status of the task.
        output: the task's output; replaces the output that the server has. A returned output is shown as a copy.
        reason: why it failed, for people; cut to the 500 characters that a server keeps when it is sent.
        callback_after: for IN_PROGRESS: seconds after which the server hands the task out again; 0: at once.
        logs: lines for the task's log, each with the time it was written (seconds since the epoch); cut to 100 lines
            of 8,000 characters when they are sent.
        worker_id: the worker that ran it.
        output_path: the place of the output in the server's storage for large payloads; ``output`` is not sent then. A
            `WorkerRunner` with ``max_result_bytes`` stores larger outputs there.
    """

    task_id: str = ""
    workflow_id: str = ""
    status: TaskStatus = TaskStatus.COMPLETED
    _output: Mapping[str, Any] | JsonText = attrs.field(factory=dict, repr=False, eq=_object_of)
    reason: str | None = None
    callback_after: float = 0.0
    logs: tuple[tuple[float, str], ...] = attrs.field(default=(), repr=False)
    worker_id: str | None = None
    output_path: str | None = None

    @property
    def output(self) -> Mapping[str, Any]:
        """The output as an object, which is created anew on each access if it is stored as text."""
        return _object_of(self._output)

    def to_wire(self) -> dict[str, Any]:
        """The JSON object of an update; fields that are not set are omitted, since older servers reject nulls."""
        return {**self._head(), **({} if self.output_path else {"outputData": dict(self.output)})}

    def to_json(self) -> str:
        """The same as text, created once; it is sent, and stored in the outbox.

        Raises:
            TypeError: a part of it is not a JSON value (ValueError, RecursionError: likewise).
        """
        return self._json

    @functools.cached_property
    def _json(self) -> str:
        # One by one: the encoder has a fast path for a str, none for an object.
        head = ",".join([f'"{name}":{encode(value)}' for name, value in self._head().items()])
        return f"{{{head}}}" if self.output_path else f'{{{head},"outputData":{self.output_json()}}}'

    def output_json(self) -> str:
        """The output as text; raises the same errors as ``to_json``."""
        return self._output if isinstance(self._output, JsonText) else encode(dict(self._output))

    def stored_at(self, path: str) -> "TaskResult":
        """The same with its output in the server's storage for large payloads."""
        return attrs.evolve(self, output={}, output_path=path)

    def of(self, task: Task, worker_id: str | None, logs: tuple[tuple[float, str], ...]) -> "TaskResult":
        """The same as the result of ``task``, with ``logs`` before its own, and ``worker_id`` unless it has one."""
        return TaskResult(
            task_id=task.task_id,
            workflow_id=task.workflow_id,
            status=self.status,
            output=self._output,
            reason=None if self.reason is None else cut(self.reason, LONGEST_REASON),
            callback_after=self.callback_after,
            logs=_cut_logs((*logs, *self.logs)) if logs or self.logs else (),
            worker_id=self.worker_id or worker_id,
            output_path=self.output_path,
        )

    @classmethod
    def from_json(cls, text: str) -> "TaskResult":
        """Read a result from the text of ``to_json``; both are sent to a server in the same way.

        Raises:
            ValueError: it is not such a text.
        """
        try:
            wire = json.loads(text)
            return cls(
                task_id=wire["taskId"],
                workflow_id=wire["workflowInstanceId"],
                status=TaskStatus(wire["status"]),
                output=JsonText(encode({} if wire.get(_OUTPUT_PATH) else wire["outputData"])),
                reason=wire.get("reasonForIncompletion"),
                callback_after=wire.get("callbackAfterSeconds", 0.0),
                logs=tuple((line["createdTime"] / 1000, line["log"]) for line in wire.get("logs", ())),
                worker_id=wire.get("workerId"),
                output_path=wire.get(_OUTPUT_PATH),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a stored task result: {error!r}") from None

    @property
    def is_final(self) -> bool:
        """Whether the task has ended; an IN_PROGRESS report is worthless if it arrives late."""
        return self.status is not TaskStatus.IN_PROGRESS

    def _head(self) -> dict[str, Any]:
        """An update without the output."""
        wire: dict[str, Any] = {
            "workflowInstanceId": self.workflow_id,
            "taskId": self.task_id,
            "status": self.status.value,
        }
        if self.worker_id is not None:
            wire["workerId"] = self.worker_id
        if self.reason is not None:
            wire["reasonForIncompletion"] = cut(self.reason, LONGEST_REASON)  # regardless of its origin
        if self.status is TaskStatus.IN_PROGRESS:
            wire["callbackAfterSeconds"] = math.ceil(self.callback_after)  # whole seconds, rounded up
        if self.output_path is not None:
            wire[_OUTPUT_PATH] = self.output_path
        if self.logs:
            wire["logs"] = [{"log": text, "createdTime": round(created * 1000)} for created, text in self.logs]
        return wire


def _text(entry: dict[str, Any], key: str) -> str:
    """The value of a str field, or an empty str."""
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def task_named(task_id: str, task_type: str) -> str:
    """The name of a task in a line about it."""
    return f"task {task_id} of type {task_type!r}"


def can_be_sent(text: str) -> bool:
    """Whether a str can be encoded: JSON can contain lone surrogates, UTF-8 cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _count(entry: dict[str, Any], key: str) -> int:
    """The value of an integer field if it is plausible and not negative, or 0."""
    value = entry.get(key)
    return value if type(value) is int and 0 < value < TOO_MANY else 0
