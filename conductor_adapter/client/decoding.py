"""Reading the answers of Conductor's API: tasks, tokens, texts and numbers, or what is there instead."""

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
    """A task that the server handed out and that cannot be read here: it never runs, and its server is to be told.

    Attributes:
        task_id: its id.
        workflow_id: its workflow's.
        reason: why it cannot be read, in words.
        task_type: its type, if that can be read.
    """

    task_id: str
    workflow_id: str
    reason: str
    task_type: str = ""


@attrs.frozen
class PollAnswer:
    """What a batch poll brought.

    Attributes:
        tasks: every task of the answer that can be run, also when the rest of the answer is odd.
        problem: what was not as the protocol says, in words; None for a clean answer.
        unreadable: the tasks that cannot be read, but whose ids can: they are no problem of the answer.
    """

    tasks: tuple[Task, ...] = ()
    problem: str | None = None
    unreadable: tuple[UnreadableTask, ...] = ()


NOTHING = PollAnswer()
LONGEST_TEXT = 1000  # bytes
READ_CLOSELY = 10  # entries that are no tasks; of those after them only what has a task id is looked at
MOST_NONSENSE = 10_000  # entries that are no tasks, after which the rest of an answer is not read
SURPLUS = 1000  # tasks beyond what was asked for, after which the rest of an answer is not read
LARGEST = 4 * 2**20  # bytes of any answer without tasks; the reader keeps all other threads waiting


def read_json(answer: HttpAnswer) -> Any:  # noqa: ANN401 - JSON is anything
    """The body as JSON.

    Raises:
        ServerFailed: it is none, or far larger than such an answer ever is.
    """
    if len(answer.body) > LARGEST:
        raise ServerFailed(f"expected at most {LARGEST} bytes, got {len(answer.body)}: {excerpt(answer)}")
    try:
        return answer.json()
    except ValueError:
        raise ServerFailed(f"expected JSON, got {excerpt(answer)}") from None


def read_poll(answer: HttpAnswer, count: int) -> PollAnswer:
    """The tasks of the answer to a poll for ``count``; never raises, what is wrong with the answer is its ``problem``.

    Some tasks more than were asked for are read as well, for the server has handed them out; a thousand at most.
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
    """The entries of a list; what servers usually send is read at once."""
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
        ValueError: it must be read with care.
    """
    if len(answer.body) > SMALL:
        raise ValueError("it is large")
    return answer.json()


class _Reading:
    """Sorts entries: tasks, each once; tasks of which only the ids can be read; and nonsense, whose first is described.

    An answer may hold millions of entries that are nothing: an error for each of them would stop all other work.
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
                self._end = f"more than {self._total} entries are too many, the rest is not read"
                return

    def damaged(self, problem: str) -> None:
        """The answer cannot be read on."""
        self._end = f"after {self._total} entries {problem}"

    def answer(self) -> PollAnswer | None:
        """What there was; None if the body is no list."""
        if self._end and not self._total:
            return None
        problems = [self._end] if self._end else []
        if self._bad:
            problems.append(f"{self._bad} of its {self._total} entries cannot be used; the first: {self._first}")
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
            self._spoil(f"task {task.task_id:.80} comes more than once")

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
    """What is no ``Task`` because of ``error``: one that its server can be told of; else what is wrong with it."""
    if isinstance(entry, Unreadable):
        problem, fields = entry.problem, entry.fields
    else:
        problem, fields = str(error), entry if isinstance(entry, dict) else {}
    task_id, workflow_id, task_type = [_text(fields, name) for name in TEXTS]
    if task_id and workflow_id:
        return UnreadableTask(task_id, workflow_id, problem, task_type)
    return problem


def _text(fields: Mapping[str, Any], name: str) -> str:
    """A text that can be sent back, or nothing."""
    text = fields.get(name)
    return text if isinstance(text, str) and can_be_sent(text) else ""


def read_next_task(answer: HttpAnswer) -> Task | UnreadableTask | None:
    """The task that an update-v2 brought; None when there was none.

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
    """Where a large payload is.

    Attributes:
        path: what the server calls it.
        origin: the URL of the host, without a path.
        own: whether that is the server's own, so that its credentials may go there.
        target: path and query below the origin; it may let anybody in who has it, so ``repr`` leaves it out.
    """

    path: str
    origin: str
    own: bool
    target: str = attrs.field(repr=False)


def read_place(answer: HttpAnswer, server: str) -> Place:
    """The place that a server at the URL ``server`` named.

    Raises:
        ServerFailed: it named none, or none that is fetched from.
    """
    entry = as_object(answer)
    uri, path = entry.get("uri"), entry.get("path")
    if not isinstance(uri, str) or not uri or not isinstance(path, str):
        raise ServerFailed(
            "it names no address: its storage of large payloads (external payload storage) is not set up"
        )
    try:
        parts = urlsplit(urljoin(f"{server}/", uri))
        origin = f"{parts.scheme}://{parts.netloc}"
        own = _origin(split_url(origin)) == _origin(split_url(server))
    except ValueError as error:
        raise ServerFailed(f"it names an address that is not fetched from: {error}") from None
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
        raise ServerFailed(f"expected a JSON object that can be read: {payload.problem}")
    return payload  # type: ignore[no-any-return] # an object begins with a brace


def read_token(answer: HttpAnswer) -> str | None:
    """The token of a token call's answer; None when there is none that a header could carry."""
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
