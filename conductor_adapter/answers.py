"""Reading the answers of Conductor's API: tasks, tokens, texts and numbers, or what is there instead."""

import json
import re
from typing import Any

import attrs

from conductor_adapter.protocol import as_object, excerpt
from conductor_adapter.tasks import Task
from conductor_adapter.wire import HttpAnswer, ServerFailed

__all__ = [
    "PollAnswer",
    "read_count",
    "read_counts",
    "read_json",
    "read_next_task",
    "read_poll",
    "read_taken",
    "read_text",
    "read_token",
]


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
LONGEST_TEXT = 1000  # bytes
READ_CLOSELY = 10  # entries that are no tasks; of those after them only what has a task id is looked at


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
    return _sorted(entries)


def _sorted(entries: list[Any]) -> PollAnswer:
    """The tasks among the entries, each once; how many entries are none, and what is wrong with the first of them.

    An answer may hold millions of entries that are nothing: an error for each of them would stop all other work.
    """
    tasks: dict[str, Task] = {}
    first, bad = "", 0
    for entry in entries:
        if bad >= READ_CLOSELY and not (isinstance(entry, dict) and entry.get("taskId")):
            bad += 1
            continue
        read = _task_or_problem(entry)
        if isinstance(read, Task) and tasks.setdefault(read.task_id, read) is read:
            continue
        bad += 1
        first = first or (read if isinstance(read, str) else f"task {read.task_id:.80} comes more than once")
    problem = f"{bad} of its {len(entries)} entries cannot be used; the first: {first}" if bad else None
    return PollAnswer(tuple(tasks.values()), problem)


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
