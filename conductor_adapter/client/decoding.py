"""Reading the answers of Conductor's API: tasks, tokens, texts and numbers, or the errors in them."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import attrs

from conductor_adapter.client.entries import SMALL, TEXTS, Unreadable, read_entries, read_object
from conductor_adapter.client.messages import HttpAnswer, ServerFailed
from conductor_adapter.client.protocol import as_object, excerpt
from conductor_adapter.settings.server_settings import split_url
from conductor_adapter.tasks import Task, can_be_sent

__all__ = [
    "Place",
    "PollAnswer",
    "UnreadableTask",
    "read_count",
    "read_counts",
    "read_json",
    "read_next_task",
    "read_payload",
    "read_place",
    "read_poll",
    "read_taken",
    "read_text",
    "read_token",
]


@attrs.frozen
class UnreadableTask:
    """A task that the server handed out but that cannot be read: it never runs, and its server has to be notified.

    Attributes:
        task_id: its id.
        workflow_id: the id of its workflow.
        reason: why it cannot be read, for people.
        task_type: its type, if that can be read.
    """

    task_id: str
    workflow_id: str
    reason: str
    task_type: str = ""


@attrs.frozen
class PollAnswer:
    """The answer to a batch poll.

    Attributes:
        tasks: all tasks of the answer that can be run, even if the rest of the answer is invalid.
        problem: the violation of the protocol, for people; None for a valid answer.
        unreadable: the tasks that cannot be read but whose ids can; they do not make the answer invalid.
    """

    tasks: tuple[Task, ...] = ()
    problem: str | None = None
    unreadable: tuple[UnreadableTask, ...] = ()


NOTHING = PollAnswer()
LONGEST_TEXT = 1000  # bytes
READ_CLOSELY = 10  # invalid entries; after those only entries with a task id are examined
MOST_NONSENSE = 10_000  # invalid entries after which the rest of an answer is not read
SURPLUS = 1000  # tasks beyond the requested number after which the rest of an answer is not read
LARGEST = 4 * 2**20  # bytes of any answer without tasks; reading it blocks all other threads


def read_json(answer: HttpAnswer) -> Any:  # noqa: ANN401 - JSON is anything
    """The body as JSON.

    Raises:
        ServerFailed: it is not JSON, or far larger than any such answer.
    """
    if len(answer.body) > LARGEST:
        raise ServerFailed(f"expected at most {LARGEST} bytes, got {len(answer.body)}: {excerpt(answer)}")
    try:
        return answer.json()
    except ValueError:
        raise ServerFailed(f"expected JSON, got {excerpt(answer)}") from None


def read_poll(answer: HttpAnswer, count: int) -> PollAnswer:
    """The tasks of the answer to a poll for ``count``; never raises: errors in the answer are its ``problem``.

    Up to a thousand tasks more than requested are read as well, because the server has handed them out.
    """
    if answer.body == b"[]" or answer.status == 204:  # noqa: PLR2004 - No Content
        return NOTHING
    reading = _Reading(count + SURPLUS)
    try:
        reading.read(_entries(answer))
    except ValueError as error:
        reading.damaged(str(error))
    return reading.answer() or PollAnswer(problem=f"expected a list of tasks, got {excerpt(answer)}")


def _entries(answer: HttpAnswer) -> Iterable[Any]:
    """The entries of a list; a typical answer is read at once."""
    try:
        entries = _at_once(answer)
    except ValueError:
        return read_entries(answer.body)
    if not isinstance(entries, list):
        raise ValueError("it is not a list")  # noqa: TRY004 - bad data, not a bug
    return entries


def _at_once(answer: HttpAnswer) -> Any:  # noqa: ANN401 - JSON is anything
    """A small body.

    Raises:
        ValueError: it must be read entry by entry.
    """
    if len(answer.body) > SMALL:
        raise ValueError("it is large")
    return answer.json()


class _Reading:
    """Sorts entries: tasks, each once; tasks of which only the ids can be read; and invalid entries.

    The first invalid entry is described. An answer can contain millions of them: an error for each of them would block
    all other work.
    """

    def __init__(self, most: int) -> None:
        self._room = most
        self._tasks: dict[str, Task] = {}
        self._unreadable: dict[str, UnreadableTask] = {}
        self._bad = self._total = 0
        self._first = self._end = ""

    def read(self, entries: Iterable[Any]) -> None:
        for entry in entries:
            self._total += 1
            if self._bad < READ_CLOSELY or _has_id(entry):
                self._take(entry)
            else:
                self._bad += 1
            if self._room <= 0 or self._bad >= MOST_NONSENSE:
                self._end = f"after {self._total} entries the rest is not read, because there are too many"
                return

    def damaged(self, problem: str) -> None:
        """Record that the rest of the answer cannot be read."""
        self._end = f"after {self._total} entries {problem}"

    def answer(self) -> PollAnswer | None:
        """The result; None if the body is not a list."""
        if self._end and not self._total:
            return None
        problems = [self._end] if self._end else []
        if self._bad:
            problems.append(f"{self._bad} of its {self._total} entries are unusable; the first: {self._first}")
        return PollAnswer(tuple(self._tasks.values()), "; ".join(problems) or None, tuple(self._unreadable.values()))

    def _take(self, entry: Any) -> None:  # noqa: ANN401 - JSON is anything
        try:
            task = Task.from_wire(entry)
        except ValueError as error:
            self._put_aside(entry, error)
            return
        if self._tasks.setdefault(task.task_id, task) is task:
            self._room -= 1
        else:
            self._spoil(f"task {task.task_id:.80} is in it more than once")

    def _put_aside(self, entry: Any, error: ValueError) -> None:  # noqa: ANN401 - JSON is anything
        read = _unreadable(entry, error)
        if isinstance(read, str):
            self._spoil(read)
        else:
            self._unreadable.setdefault(read.task_id, read)
            self._room -= 1

    def _spoil(self, problem: str) -> None:
        self._bad += 1
        self._first = self._first or problem


def _has_id(entry: object) -> bool:
    fields = entry.fields if isinstance(entry, Unreadable) else entry
    return isinstance(fields, dict) and bool(fields.get("taskId"))


def _unreadable(entry: Any, error: ValueError) -> UnreadableTask | str:  # noqa: ANN401 - JSON is anything
    """An entry that is not a ``Task`` because of ``error``: a task that can be reported, or else the problem."""
    if isinstance(entry, Unreadable):
        problem, fields = entry.problem, entry.fields
    else:
        problem, fields = str(error), entry if isinstance(entry, dict) else {}
    task_id, workflow_id, task_type = [_text(fields, name) for name in TEXTS]
    if task_id and workflow_id:
        return UnreadableTask(task_id, workflow_id, problem, task_type)
    return problem


def _text(fields: Mapping[str, Any], name: str) -> str:
    """A str that can be sent back, or an empty one."""
    text = fields.get(name)
    return text if isinstance(text, str) and can_be_sent(text) else ""


def read_next_task(answer: HttpAnswer) -> Task | UnreadableTask | None:
    """The task in the response to an update-v2; None if there is none.

    Raises:
        ServerFailed: the body is neither empty nor a task.
    """
    if not answer.body.strip():
        return None
    try:
        entry = _at_once(answer)
    except ValueError:
        entry = _with_care(answer)
    if not entry and (entry is None or isinstance(entry, dict)):
        return None
    try:
        return Task.from_wire(entry)
    except ValueError as error:
        read = _unreadable(entry, error)
    if isinstance(read, str):
        raise ServerFailed(f"expected the next task: {read}")
    return read


def _with_care(answer: HttpAnswer) -> Any:  # noqa: ANN401 - JSON is anything
    try:
        return read_object(answer.body)
    except ValueError:
        raise ServerFailed(f"expected JSON, got {excerpt(answer)}") from None


@attrs.frozen
class Place:
    """The place of a large payload.

    Attributes:
        path: the server's path of it.
        origin: the URL of the host, without a path.
        own: whether that is the server itself, so that its credentials can be sent.
        target: path and query below the origin; they might grant access, so ``repr`` omits them.
    """

    path: str
    origin: str
    own: bool
    target: str = attrs.field(repr=False)


def read_place(answer: HttpAnswer, server: str) -> Place:
    """The place that a server at the URL ``server`` returned.

    Raises:
        ServerFailed: it returned none, or one that is not allowed.
    """
    entry = as_object(answer)
    uri, path = entry.get("uri"), entry.get("path")
    if not isinstance(uri, str) or not uri or not isinstance(path, str):
        raise ServerFailed(
            "it returned no URL: its storage for large payloads (external payload storage) is not configured"
        )
    try:
        parts = urlsplit(urljoin(f"{server}/", uri))
        origin = f"{parts.scheme}://{parts.netloc}"
        own = _origin(split_url(origin)) == _origin(split_url(server))
    except ValueError as error:
        raise ServerFailed(f"it returned a URL that is not allowed: {error}") from None
    return Place(path, origin, own, urlunsplit(("", "", parts.path or "/", parts.query, "")))


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def read_payload(answer: HttpAnswer) -> dict[str, Any]:
    """A large payload: an object.

    Raises:
        ServerFailed: it is something else, or cannot be read.
    """
    try:
        payload = read_object(answer.body, most=len(answer.body), members=math.inf)
    except ValueError:
        raise ServerFailed(f"expected a JSON object, got {excerpt(answer)}") from None
    if isinstance(payload, Unreadable):
        raise ServerFailed(f"expected a readable JSON object: {payload.problem}")
    return payload  # type: ignore[no-any-return] # an object begins with a brace


def read_token(answer: HttpAnswer) -> str | None:
    """The token in the answer to a token request; None if there is none that is valid in a header."""
    token = as_object(answer).get("token")
    return token if isinstance(token, str) and re.fullmatch(r"[!-~]+", token) else None


def read_text(answer: HttpAnswer) -> str:
    """A short plain text.

    Raises:
        ServerFailed: it is empty, or a web page.
    """
    text = answer.body[:LONGEST_TEXT].decode("utf-8", "replace").strip().strip('"')
    if not text or text.startswith("<"):
        raise ServerFailed(f"expected a short text, got {excerpt(answer)}")
    return text


def read_count(answer: HttpAnswer) -> int:
    """An integer.

    Raises:
        ServerFailed: it is something else.
    """
    count = read_json(answer)
    if type(count) is not int:
        raise ServerFailed(f"expected a number, got {excerpt(answer)}")
    return count


def read_counts(answer: HttpAnswer) -> dict[str, int]:
    """An object of integers.

    Raises:
        ServerFailed: it is something else.
    """
    counts = read_json(answer)
    if not isinstance(counts, dict) or any(type(count) is not int for count in counts.values()):
        raise ServerFailed(f"expected numbers by name, got {excerpt(answer)}")
    return counts


def read_taken(answer: HttpAnswer, task_id: str) -> None:
    """Check that an update was accepted: Conductor answers with the task's id, or older versions with an empty body.

    Raises:
        ServerFailed: something else answered, such as a proxy's login page.
    """
    if answer.body.strip() and task_id.encode() not in answer.body:
        raise ServerFailed(f"expected the id of the updated task, got {excerpt(answer)}")
