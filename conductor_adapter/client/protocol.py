"""Conductor's HTTP calls, and the only table of what answers mean. Pure: no I/O, no HTTP library, no clock."""

import email.utils
import enum
import functools
import re
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import quote, urlencode

import attrs

from conductor_adapter.client.messages import AuthRejected, HttpAnswer, HttpCall, RequestRejected, ServerFailed
from conductor_adapter.client.redaction import LONGEST_QUOTE
from conductor_adapter.tasks import Task, TaskResult, TaskStatus, encode
from resilience._texts import one_line
from resilience.errors import Refused, ResilienceError, Throttled, Undeliverable

__all__ = [
    "Meaning",
    "Reply",
    "as_object",
    "build_lease",
    "build_poll",
    "build_storage",
    "build_token",
    "build_update",
    "excerpt",
    "give_back",
    "given_up",
    "judge",
    "refusal",
    "retry_after",
    "too_large",
    "update_refusal",
]

MAX_POLL_WAIT_MS = 5000  # a server answers 400 to a longer wait
MAX_RETRY_AFTER = 300.0  # seconds; otherwise one odd header could switch a server off for a day
AUTH_PAUSE = 30.0  # seconds that a server is not polled for a task type after it refused our credentials
_NOT_TAKEN = "the task's result was not accepted: "
REJECTED_PAUSE = 5.0  # seconds after an invalid request: it will be invalid next time too
_QUOTED = 4 * LONGEST_QUOTE  # letters; an excerpt is shortened once the secrets are out of it
_LARGEST_OBJECT = 2**20  # bytes; an error or a token is far smaller, and reading anything larger would waste time
_JSON_HEADERS = (("Content-Type", "application/json"),)


def build_poll(task_type: str, worker_id: str, count: int, wait: float, domain: str | None = None) -> HttpCall:
    """The call that polls for tasks.

    Args:
        task_type: the task type to poll for.
        worker_id: the worker's id.
        count: maximum number of tasks.
        wait: seconds that the server waits for a task; limited to 5, because servers refuse more.
        domain: Conductor's domain, if any.
    """
    wait_ms = min(int(wait * 1000), MAX_POLL_WAIT_MS)
    path, query = _poll_target(task_type, worker_id, domain)
    return HttpCall("GET", path, f"{query}&count={count}&timeout={wait_ms}")


@functools.lru_cache(maxsize=1024)
def _poll_target(task_type: str, worker_id: str, domain: str | None) -> tuple[str, str]:
    """The parts that are the same in every poll."""
    query = f"workerid={quote(worker_id, safe='')}"
    if domain:
        query += f"&domain={quote(domain, safe='')}"
    return f"/tasks/poll/batch/{quote(task_type, safe='')}", query


def build_update(result: TaskResult, *, v2: bool = False) -> HttpCall:
    """The call that reports a result; with ``v2`` its answer can contain the next task.

    Raises:
        Undeliverable: the output is not JSON-serializable, so no server will ever accept it.
    """
    try:
        body = result.to_json().encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Undeliverable(f"task {result.task_id}: its result is not JSON-serializable: {error}") from error
    return HttpCall("POST", "/tasks/update-v2" if v2 else "/tasks", headers=_JSON_HEADERS, body=body)


def build_lease(task: Task) -> HttpCall:
    """The call that restarts a running task's response timeout and changes nothing else."""
    wire = {
        "workflowInstanceId": task.workflow_id,
        "taskId": task.task_id,
        "status": TaskStatus.IN_PROGRESS.value,
        "extendLease": True,
    }
    return HttpCall("POST", "/tasks", headers=_JSON_HEADERS, body=encode(wire).encode())


def build_storage(path: str, operation: str, payload: str) -> HttpCall:
    """The call that asks for the place of a large payload: ``READ`` or ``WRITE``, ``TASK_INPUT`` or ``TASK_OUTPUT``."""
    query = urlencode({"path": path, "operation": operation, "payloadType": payload})
    return HttpCall("GET", "/tasks/externalstoragelocation", query)


def build_token(key: str, secret: str) -> HttpCall:
    """The call that requests a token."""
    return HttpCall("POST", "/token", headers=_JSON_HEADERS, body=encode({"keyId": key, "keySecret": secret}).encode())


def too_large(result: TaskResult, problem: str) -> TaskResult:
    """The result sent to a server instead of a final result that is too large for it.

    A completed result becomes a terminal error, because a retry would have the same result; a failure keeps its reason.
    """
    if result.status is not TaskStatus.COMPLETED:
        return _without_output(result, result.status, result.reason)
    return _without_output(result, TaskStatus.FAILED_WITH_TERMINAL_ERROR, f"{_NOT_TAKEN}{problem}")


def given_up(result: TaskResult, problem: str) -> TaskResult | None:
    """The result sent to a server instead of a final result that it kept refusing; None if that was one already."""
    if (result.reason or "").startswith(_NOT_TAKEN) or not result.is_final:
        return None
    status = TaskStatus.FAILED if result.status is TaskStatus.COMPLETED else result.status
    return _without_output(result, status, f"{_NOT_TAKEN}{problem}")


def _without_output(result: TaskResult, status: TaskStatus, reason: str | None) -> TaskResult:
    return TaskResult(
        task_id=result.task_id,
        workflow_id=result.workflow_id,
        status=status,
        reason=reason,
        worker_id=result.worker_id,
    )


def give_back(task: Task) -> TaskResult:
    """The update that returns an un-started task: the server hands it out again at once, with its output unchanged."""
    return TaskResult(
        task_id=task.task_id,
        workflow_id=task.workflow_id,
        status=TaskStatus.IN_PROGRESS,
        output=task.output,
        output_path=task.output_path,
    )


# What answers mean: the only table.


class Meaning(enum.Enum):
    """What an answer means for the call and for the server."""

    OK = "ok"
    SERVER = "the server failed"  # counts
    PAUSE = "the server asks for a pause"
    AUTH = "credentials refused"
    NO_ENDPOINT = "the server has no such endpoint"
    UNKNOWN_ID = "the server knows no such workflow or task"  # the only answer that is final
    OURS = "the request is wrong"


@attrs.frozen
class Reply:
    """An answer and what it means, judged once.

    Attributes:
        answer: as it came over the wire.
        meaning: what its status and Conductor's own error JSON say; whether an OK body can be read is for its reader
            to say.
        message: the message of Conductor's error JSON; empty for a success, and for an error of a proxy or gateway.
    """

    answer: HttpAnswer
    meaning: Meaning
    message: str = ""

    @property
    def excerpt(self) -> str:
        """What the answer says, for an error message: Conductor's own message, else how the body begins.

        One line, still to be shortened: secrets must be taken out first, or the cut would leave a part of one.
        """
        return excerpt(self.answer, self.message)


def judge(answer: HttpAnswer) -> Reply:
    """What an answer means."""
    if 200 <= answer.status < 300:  # noqa: PLR2004 - success
        return Reply(answer, Meaning.OK)
    message = _own_message(answer)
    for statuses, fits, meaning in _TABLE:
        if answer.status in statuses and fits(answer, message):
            return Reply(answer, meaning, message)
    return Reply(answer, Meaning.SERVER, message)


def _any(_answer: HttpAnswer, _message: str) -> bool:
    return True


def _says_unknown_id(_answer: HttpAnswer, message: str) -> bool:
    return re.match(r"No such (workflow|task) found", message) is not None


def _says_no_endpoint(_answer: HttpAnswer, message: str) -> bool:
    return message.startswith("No static resource")


def _is_conductors_own(_answer: HttpAnswer, message: str) -> bool:
    return bool(message)


def _has_retry_after(answer: HttpAnswer, _message: str) -> bool:
    return "retry-after" in answer.headers


# The first matching row wins. An answer that matches none is a failure of the server: redirects, any 5xx, and any 4xx
# that does not come from Conductor itself. A 500 has "retryable": false even while a database is away: ignored.
_TABLE: tuple[tuple[Collection[int], Callable[[HttpAnswer, str], bool], Meaning], ...] = (
    ((401, 403), _any, Meaning.AUTH),
    ((404,), _says_unknown_id, Meaning.UNKNOWN_ID),
    ((402, 407, 409, 423, 429), _any, Meaning.PAUSE),  # a quota, a proxy that requires a login, a lock
    (range(400, 600), _has_retry_after, Meaning.PAUSE),
    ((404,), _says_no_endpoint, Meaning.NO_ENDPOINT),
    ((404,), _any, Meaning.SERVER),  # from a proxy, or a wrong URL
    ((405,), _any, Meaning.NO_ENDPOINT),
    ((408, 421, 425), _any, Meaning.SERVER),  # the same request might succeed next time
    (range(400, 500), _is_conductors_own, Meaning.OURS),
)


def _own_message(answer: HttpAnswer) -> str:
    message = as_object(answer).get("message")
    return message if isinstance(message, str) else ""


def refusal(reply: Reply, text: str) -> ResilienceError:
    """The exception for an answer that is not OK, with ``text`` as its message."""
    if reply.meaning is Meaning.PAUSE:
        return Throttled(retry_after(reply.answer), text)
    if reply.meaning is Meaning.AUTH:
        return AuthRejected(AUTH_PAUSE, text)
    if reply.meaning in (Meaning.OURS, Meaning.NO_ENDPOINT, Meaning.UNKNOWN_ID):
        return RequestRejected(REJECTED_PAUSE, text)
    return ServerFailed(text)


def update_refusal(reply: Reply, text: str) -> ResilienceError:
    """The same for an update: only Conductor's answer that there is no such task or workflow is final for a result."""
    if reply.meaning is Meaning.UNKNOWN_ID:
        return Undeliverable(text)
    if reply.meaning in (Meaning.OURS, Meaning.NO_ENDPOINT, Meaning.SERVER):
        return Refused(text, counts=reply.meaning is not Meaning.OURS)
    return refusal(reply, text)


def retry_after(answer: HttpAnswer) -> float:
    """The seconds that the answer asks to wait, at most 300; 0 if it contains no valid time.

    A date is compared with the answer's own ``Date``, so that neither clock has to be right.
    """
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER)
    try:
        until = email.utils.parsedate_to_datetime(text)
        sent = email.utils.parsedate_to_datetime(answer.headers.get("date", ""))
        seconds = (until - sent).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def excerpt(answer: HttpAnswer, message: str = "") -> str:
    """``message``, or how the body begins, in one line; see `Reply.excerpt`."""
    words = one_line(message[:_QUOTED] or answer.body[:_QUOTED].decode("utf-8", "replace"))
    return f"HTTP {answer.status}: {words}" if words else f"HTTP {answer.status} with an empty body"


def as_object(answer: HttpAnswer) -> dict[str, Any]:
    """The body as an object; an empty one if it is not an object, or larger than any error or token."""
    if len(answer.body) > _LARGEST_OBJECT:
        return {}
    try:
        entry = answer.json()
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
