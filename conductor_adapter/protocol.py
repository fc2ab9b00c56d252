"""Conductor's HTTP calls and answers as values: build, read, classify. Pure: no I/O, no HTTP library, no clock."""

import email.utils
import enum
import functools
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote

import attrs

from conductor_adapter.tasks import Task, TaskResult, TaskStatus
from resilience.errors import ResilienceError, Throttled, Undeliverable

__all__ = [
    "AuthRejected",
    "HttpAnswer",
    "HttpCall",
    "Meaning",
    "PollAnswer",
    "RequestRejected",
    "ServerFailed",
    "TransportError",
    "TransportErrorKind",
    "build_lease",
    "build_poll",
    "build_token",
    "build_update",
    "classify",
    "excerpt",
    "give_back",
    "own_message",
    "read_count",
    "read_counts",
    "read_json",
    "read_next_task",
    "read_poll",
    "read_taken",
    "read_text",
    "read_token",
    "retry_after",
]

MAX_POLL_WAIT_MS = 5000  # a server answers 400 to a longer wait
MAX_RETRY_AFTER = 300.0  # seconds; more would let one odd header switch a server off for a day
_EXCERPT = 200
_JSON_HEADERS = (("Content-Type", "application/json"),)
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class ServerFailed(ResilienceError):  # noqa: N818 - says who failed, like its siblings
    """The server did not do what the protocol says: this counts against it."""


class AuthRejected(Throttled):
    """The server refuses our credentials even with a fresh token: it pauses for this task type, nothing counts."""


class RequestRejected(Throttled):
    """The server says that the request is wrong: our doing, so it is reported and does not count."""


class TransportErrorKind(enum.Enum):
    """At which point a call got stuck."""

    CONNECT = "connect"  # no connection: nothing was sent
    TLS = "tls"  # the two sides could not agree on a secure connection
    TIMEOUT = "timeout"
    BROKEN = "broken"  # the connection ended before the answer did, or the answer is no HTTP
    TOO_LARGE = "too large"
    OTHER = "other"


class TransportError(ServerFailed):
    """No answer came over the wire; the text holds no credentials.

    Attributes:
        kind: at which point it got stuck.
    """

    def __init__(self, kind: TransportErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type["TransportError"], tuple[TransportErrorKind, str]]:
        return type(self), (self.kind, str(self))


@attrs.frozen
class HttpCall:
    """One HTTP request, relative to a server's URL.

    Attributes:
        method: GET or POST.
        path: begins with a slash, already quoted.
        query: already encoded, without the question mark.
        headers: name and value pairs; may carry credentials, so ``repr`` leaves them out.
        body: what is posted; None with GET.
    """

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    body: bytes | None = attrs.field(default=None, repr=False)

    @property
    def target(self) -> str:
        """Path and query as they stand behind a server's URL."""
        return f"{self.path}?{self.query}" if self.query else self.path


@attrs.frozen
class HttpAnswer:
    """One HTTP answer, read to its end.

    Attributes:
        status: the HTTP status code.
        headers: lower-case names; a transport need only keep content-type, date and retry-after.
        body: as bytes, decompressed.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen
class PollAnswer:
    """What a batch poll brought.

    Attributes:
        tasks: every task of the answer that can be run, also when the rest of the answer is odd.
        problem: what was not as the protocol says, in words; None for a clean answer.
    """

    tasks: tuple[Task, ...] = ()
    problem: str | None = None


NOTHING = PollAnswer()


# Building calls.


def build_poll(task_type: str, worker_id: str, count: int, wait: float, domain: str | None = None) -> HttpCall:
    """The call that polls for tasks.

    Args:
        task_type: what to poll for.
        worker_id: who polls.
        count: tasks at most.
        wait: seconds the server may wait for a task; more than 5 are asked for as 5, a server refuses more.
        domain: Conductor's domain, if any.
    """
    wait_ms = min(int(wait * 1000), MAX_POLL_WAIT_MS)
    path, query = _poll_target(task_type, worker_id, domain)
    return HttpCall("GET", path, f"{query}&count={count}&timeout={wait_ms}")


@functools.lru_cache(maxsize=1024)
def _poll_target(task_type: str, worker_id: str, domain: str | None) -> tuple[str, str]:
    """What stays the same from poll to poll."""
    query = f"workerid={quote(worker_id, safe='')}"
    if domain:
        query += f"&domain={quote(domain, safe='')}"
    return f"/tasks/poll/batch/{quote(task_type, safe='')}", query


def build_update(result: TaskResult, *, v2: bool = False) -> HttpCall:
    """The call that reports a result; with ``v2`` its answer may bring the next task.

    Raises:
        Undeliverable: the output is no JSON, so no server will ever take it.
    """
    try:
        body = _encode(result.to_wire()).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Undeliverable(f"task {result.task_id}: its result is no JSON: {error}") from error
    return HttpCall("POST", "/tasks/update-v2" if v2 else "/tasks", headers=_JSON_HEADERS, body=body)


def build_lease(task: Task) -> HttpCall:
    """The call that restarts a running task's response timeout and changes nothing else."""
    wire = TaskResult(task_id=task.task_id, workflow_id=task.workflow_id, status=TaskStatus.IN_PROGRESS).to_wire()
    return HttpCall("POST", "/tasks", headers=_JSON_HEADERS, body=_encode({**wire, "extendLease": True}).encode())


def build_token(key: str, secret: str) -> HttpCall:
    """The call that asks for a token."""
    return HttpCall("POST", "/token", headers=_JSON_HEADERS, body=_encode({"keyId": key, "keySecret": secret}).encode())


def give_back(task: Task) -> TaskResult:
    """The update that returns an un-started task: the server hands it out again at once, its own output kept."""
    return TaskResult(
        task_id=task.task_id, workflow_id=task.workflow_id, status=TaskStatus.IN_PROGRESS, output=task.output
    )


# What an answer means: the one table.


class Meaning(enum.Enum):
    """What an answer says about the call and about the server."""

    OK = "ok"
    SERVER = "the server failed"  # counts
    PAUSE = "the server asks for a pause"
    AUTH = "credentials refused"
    NO_ENDPOINT = "the server has no such endpoint"
    UNKNOWN_ID = "the server knows no such workflow or task"  # final
    POISON = "the server cannot digest this request"  # final after a few more tries
    OURS = "the request is wrong"


def _any(_answer: HttpAnswer) -> bool:
    return True


def _says_unknown_id(answer: HttpAnswer) -> bool:
    return re.match(r"No such (workflow|task) found", own_message(answer)) is not None


def _says_no_endpoint(answer: HttpAnswer) -> bool:
    return own_message(answer).startswith("No static resource")


def _says_not_retryable(answer: HttpAnswer) -> bool:
    return _object(answer).get("retryable") is False


def _has_retry_after(answer: HttpAnswer) -> bool:
    return "retry-after" in answer.headers


# First row that fits wins; what fits none (1xx, redirects, other 5xx) is the server's failure.
_TABLE: tuple[tuple[Collection[int], Callable[[HttpAnswer], bool], Meaning], ...] = (
    (range(200, 300), _any, Meaning.OK),
    ((401, 403), _any, Meaning.AUTH),
    ((404,), _says_unknown_id, Meaning.UNKNOWN_ID),
    ((404,), _says_no_endpoint, Meaning.NO_ENDPOINT),
    ((404,), _any, Meaning.SERVER),  # a proxy's, or a wrong address
    ((405,), _any, Meaning.NO_ENDPOINT),
    ((408, 421, 425), _any, Meaning.SERVER),  # a proxy's: the same request may succeed next time
    ((429,), _any, Meaning.PAUSE),
    (range(400, 500), _any, Meaning.OURS),
    ((500,), _says_not_retryable, Meaning.POISON),
    ((503,), _has_retry_after, Meaning.PAUSE),
)


def classify(answer: HttpAnswer) -> Meaning:
    """What the status and Conductor's own error JSON say; whether an OK body can be read is for its reader to say."""
    for statuses, fits, meaning in _TABLE:
        if answer.status in statuses and fits(answer):
            return meaning
    return Meaning.SERVER


# Reading answers.


def read_json(answer: HttpAnswer) -> Any:  # noqa: ANN401 - JSON is anything
    """The body as JSON.

    Raises:
        ServerFailed: it is none.
    """
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise ServerFailed(f"expected JSON, got {excerpt(answer)}") from None


def read_poll(answer: HttpAnswer) -> PollAnswer:
    """The tasks of a poll's answer; never raises, what is wrong with the answer is its ``problem``."""
    if answer.body == b"[]" or answer.status == 204:  # noqa: PLR2004 - No Content
        return NOTHING
    try:
        entries = read_json(answer)
    except ServerFailed as error:
        return PollAnswer(problem=str(error))
    if not isinstance(entries, list):
        return PollAnswer(problem=f"expected a list of tasks, got {excerpt(answer)}")
    read = [_task_or_problem(entry) for entry in entries]
    problem = next((one for one in read if isinstance(one, str)), None)
    return PollAnswer(tuple(one for one in read if isinstance(one, Task)), problem)


def _task_or_problem(entry: object) -> Task | str:
    """One entry of a poll's answer, or what is wrong with it."""
    try:
        return Task.from_wire(entry)
    except ValueError as error:
        return str(error)


def read_next_task(answer: HttpAnswer) -> Task | None:
    """The task that an update-v2 brought; None when there was none.

    Raises:
        ServerFailed: the body is neither empty nor a task.
    """
    entry = read_json(answer) if answer.body.strip() else None
    if not entry and (entry is None or isinstance(entry, dict)):
        return None
    try:
        return Task.from_wire(entry)
    except ValueError as error:
        raise ServerFailed(f"expected the next task: {error}") from None


def read_token(answer: HttpAnswer) -> str | None:
    """The token of a token call's answer; None when there is none that a header could carry."""
    token = _object(answer).get("token")
    return token if isinstance(token, str) and re.fullmatch(r"[!-~]+", token) else None


def read_text(answer: HttpAnswer) -> str:
    """A short plain text.

    Raises:
        ServerFailed: it is empty, or a web page.
    """
    text = answer.body.decode("utf-8", "replace").strip().strip('"')
    if not text or text.startswith("<"):
        raise ServerFailed(f"expected a short text, got {excerpt(answer)}")
    return text


def read_count(answer: HttpAnswer) -> int:
    """A whole number.

    Raises:
        ServerFailed: it is something else.
    """
    count = read_json(answer)
    if type(count) is not int:
        raise ServerFailed(f"expected a number, got {excerpt(answer)}")
    return count


def read_counts(answer: HttpAnswer) -> dict[str, int]:
    """An object of whole numbers.

    Raises:
        ServerFailed: it is something else.
    """
    counts = read_json(answer)
    if not isinstance(counts, dict) or any(type(count) is not int for count in counts.values()):
        raise ServerFailed(f"expected numbers by name, got {excerpt(answer)}")
    return counts


def read_taken(answer: HttpAnswer, task_id: str) -> None:
    """Make sure that an update was taken: Conductor says so with the task's id, older ones with nothing.

    Raises:
        ServerFailed: something else answered, such as a proxy's login page.
    """
    if answer.body.strip() and task_id.encode() not in answer.body:
        raise ServerFailed(f"expected the id of the updated task, got {excerpt(answer)}")


def retry_after(answer: HttpAnswer) -> float:
    """Seconds to wait as the answer asks for, at most 300; 0 when it names no time that can be understood.

    A date counts from the answer's own ``Date``, so that neither side's clock need be right.
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


def _object(answer: HttpAnswer) -> dict[str, Any]:
    """The body as an object; an empty one when it is none."""
    try:
        entry = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def own_message(answer: HttpAnswer) -> str:
    """The message of Conductor's error JSON, or nothing when the answer is somebody else's."""
    message = _object(answer).get("message")
    return message if isinstance(message, str) else ""


def excerpt(answer: HttpAnswer) -> str:
    """The answer in a few words for an error message: Conductor's own message, else how the body begins."""
    body = own_message(answer) or answer.body[: 4 * _EXCERPT].decode("utf-8", "replace")
    words = " ".join(body.split())
    shown = words if len(words) <= _EXCERPT else words[:_EXCERPT] + "…"
    return f"HTTP {answer.status}: {shown}" if shown else f"HTTP {answer.status} with an empty body"
