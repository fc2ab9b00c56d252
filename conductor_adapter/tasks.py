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

encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # ASCII alone: no text is too odd to be sent
TOO_MANY = 2**53  # beyond it a JSON number is nonsense for a count, and may not even fit a float
LONGEST_REASON = 500  # characters; Conductor's servers keep no more
LONGEST_LOG = 8000  # characters of an entry: an index of theirs refuses one of more than 32,766 bytes
MOST_LOGS = 100  # entries; most servers keep the first ten


_OUTPUT_PATH = "externalOutputPayloadStoragePath"


class JsonText(str):
    """An object as JSON text: it stays as it is, whatever becomes of the objects that it was made from."""

    __slots__ = ()


class TaskStatus(enum.Enum):
    """How a task stands, as far as a worker may say: the values are Conductor's own words."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    FAILED_WITH_TERMINAL_ERROR = "FAILED_WITH_TERMINAL_ERROR"


@attrs.frozen(kw_only=True)
class Task:
    """One polled task. Immutable as far as Python goes: treat the mappings as read-only, threads may share them.

    What a workflow was given may be private, so ``repr`` shows neither input nor output.

    Attributes:
        task_id: Conductor's id of this attempt; a retry has another one.
        workflow_id: the workflow the task belongs to.
        task_type: what was polled for.
        reference_name: the task's name inside its workflow definition.
        input: the task's input.
        output: what earlier updates of this task left there; an update replaces it.
        retry_count: attempts before this one.
        poll_count: how often this attempt was handed out, this time included.
        domain: Conductor's domain; None for a task without one.
        response_timeout: seconds without an update after which the server takes the task for lost; 0: never.
        seq: the task's place in its workflow.
        iteration: the round of the loop it stands in; 0 outside a loop.
        workflow_type: name of the workflow's definition.
        input_path: where the server keeps the input if it is too large for the task itself; None if it is in the task.
            A `WorkerRunner` fetches it before the function runs.
        output_path: the same for ``output``.
        raw: the whole JSON object as it came.
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

        Only what would make the task unusable is refused; a secondary field of a wrong type gets its default, because
        the server has handed the task out already: refused here, it would be lost until its response timeout.

        Args:
            entry: anything that JSON can be.

        Raises:
            ValueError: it is no object, has no task id, has an id that could not be sent back, or its input is no
                object.
        """
        if not isinstance(entry, dict):
            raise ValueError(f"a task must be a JSON object, not {type(entry).__name__}")  # noqa: TRY004 - bad data, not a bug
        task_id = entry.get("taskId")
        if not isinstance(task_id, str) or not task_id:
            raise ValueError("a task without a taskId")
        workflow_id = _text(entry, "workflowInstanceId")
        task_type = _text(entry, "taskType") or _text(entry, "taskDefName")
        if not can_be_sent(task_id + workflow_id + task_type):
            raise ValueError(
                f"task {task_id!a:.80}: a half of a character in its ids or type; no server would know them"
            )
        given = entry.get("inputData")
        if given is not None and not isinstance(given, dict):
            raise ValueError(f"task {task_id:.80}: its inputData is no JSON object")
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
    """An entry of a task's log, cut in its middle if it has more characters than a server's index takes."""
    return cut(text, LONGEST_LOG, tail=LONGEST_LOG // 2)


def _cut_logs(logs: tuple[tuple[float, str], ...]) -> tuple[tuple[float, str], ...]:
    """As many entries as a server can be sent; of more the first and the last ones, with an entry that says so."""
    if len(logs) > MOST_LOGS:
        half = MOST_LOGS // 2
        note = (logs[half][0], f"… (cut; {len(logs):,} entries in all)")
        logs = (*logs[:half], note, *logs[half + 1 - MOST_LOGS :])
    return tuple([(created, cut_log(text)) for created, text in logs])


def _object_of(output: Mapping[str, Any] | JsonText) -> Mapping[str, Any]:
    """An output as an object, however it is kept."""
    return json.loads(output) if isinstance(output, JsonText) else output


@attrs.frozen(kw_only=True)
class TaskResult:
    """What a task came to, or that it is not finished yet. Immutable; ``repr`` does not show the output.

    Attributes:
        task_id: the task; a task function may leave it out, the adapter fills it in.
        workflow_id: the task's workflow; likewise.
        status: how the task stands now.
        output: the task's output; replaces what the server has. What a task function returned is shown as a copy.
        reason: why it failed, for people. What is sent is cut to the 500 characters that a server keeps.
        callback_after: for IN_PROGRESS: seconds after which the server hands the task out again; 0: at once.
        logs: lines for the task's log, each with the time it was written (seconds since the epoch). What is sent is
            cut to 100 of them, and each to 8,000 characters.
        worker_id: who ran it.
        output_path: where in the server's storage of large payloads the output is; then ``output`` is not sent. A
            `WorkerRunner` that has ``max_result_bytes`` puts larger ones there.
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
        """The output as an object, made anew at each look when it is kept as text."""
        return _object_of(self._output)

    def to_wire(self) -> dict[str, Any]:
        """The JSON object of an update; what is not set is left out, since older servers trip over nulls."""
        return {**self._head(), **({} if self.output_path else {"outputData": dict(self.output)})}

    def to_json(self) -> str:
        """The same as text, made once: it is sent, and written down.

        Raises:
            TypeError: something in it is no JSON value (ValueError, RecursionError: likewise).
        """
        return self._json

    @functools.cached_property
    def _json(self) -> str:
        # One by one: the encoder has a quick way for a text, none for an object.
        head = ",".join([f'"{name}":{encode(value)}' for name, value in self._head().items()])
        return f"{{{head}}}" if self.output_path else f'{{{head},"outputData":{self.output_json()}}}'

    def output_json(self) -> str:
        """The output as text; raises as ``to_json``."""
        return self._output if isinstance(self._output, JsonText) else encode(dict(self._output))

    def stored_at(self, path: str) -> "TaskResult":
        """The same with its output in the server's storage of large payloads."""
        return attrs.evolve(self, output={}, output_path=path)

    def of(self, task: Task, worker_id: str | None, logs: tuple[tuple[float, str], ...]) -> "TaskResult":
        """The same as the result of ``task``, with ``logs`` before its own and ``worker_id`` if it names none."""
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
        """Read back what ``to_json`` wrote; what a server would be sent of both is the same.

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
            raise ValueError(f"no task result as it is written down: {error!r}") from None

    @property
    def is_final(self) -> bool:
        """Whether the task is at its end: what only says how it goes on is stale when it comes late."""
        return self.status is not TaskStatus.IN_PROGRESS

    def _head(self) -> dict[str, Any]:
        """All of an update but the output."""
        wire: dict[str, Any] = {
            "workflowInstanceId": self.workflow_id,
            "taskId": self.task_id,
            "status": self.status.value,
        }
        if self.worker_id is not None:
            wire["workerId"] = self.worker_id
        if self.reason is not None:
            wire["reasonForIncompletion"] = cut(self.reason, LONGEST_REASON)  # whoever made it
        if self.status is TaskStatus.IN_PROGRESS:
            wire["callbackAfterSeconds"] = math.ceil(self.callback_after)  # whole seconds: never sooner than asked for
        if self.output_path is not None:
            wire[_OUTPUT_PATH] = self.output_path
        if self.logs:
            wire["logs"] = [{"log": text, "createdTime": round(created * 1000)} for created, text in self.logs]
        return wire


def _text(entry: dict[str, Any], key: str) -> str:
    """A text field, or nothing."""
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def task_named(task_id: str, task_type: str) -> str:
    """What a task is called in a line about it."""
    return f"task {task_id} of type {task_type!r}"


def can_be_sent(text: str) -> bool:
    """Whether there is an encoding of a text: JSON can write half a character, and nothing else can."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _count(entry: dict[str, Any], key: str) -> int:
    """A sane whole number that is not negative, or zero."""
    value = entry.get(key)
    return value if type(value) is int and 0 < value < TOO_MANY else 0
