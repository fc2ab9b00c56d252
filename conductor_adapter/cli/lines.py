"""What a running worker says: one line for each thing worth knowing, repeated ones sampled. Pure but for `Printer`."""

import json
import sys
import time
from collections.abc import Callable
from threading import Lock
from typing import Any, TextIO

import attrs

from resilience import (
    BreakerChanged,
    DeadLettered,
    DeliveryFailed,
    DeliveryResumed,
    Event,
    GaveBack,
    GiveBackFailed,
    HandlerFailed,
    ItemsArrivedLate,
    PollFailed,
    PollOverdue,
    PollTimedOut,
    Undelivered,
)

__all__ = ["Line", "Printer", "Sampler", "line_of"]

QUIET, NORMAL, VERBOSE = 0, 1, 2


@attrs.frozen
class Line:
    """One thing to say.

    Attributes:
        kind: what it is about, for machines and for sampling.
        server: the server it is about.
        text: the sentence for people.
        level: 0 is said even when quiet, 2 only when verbose.
    """

    kind: str
    server: str
    text: str
    level: int = NORMAL


def line_of(event: Event) -> Line | None:
    """What there is to say about ``event``; None for what happens all the time."""
    return _of_polls(event) or _of_deliveries(event) or _of_tasks(event)


def _of_polls(event: Event) -> Line | None:
    match event:
        case BreakerChanged(name, before, after):
            wait = f", next probe in {event.retry_after:.1f} s" if event.retry_after is not None else ""
            return Line("breaker", name, f"breaker {before.value} -> {after.value}{wait}", QUIET)
        case PollFailed(source, error):
            return Line("poll failed", source, f"poll failed: {_text(error)}")
        case PollTimedOut(source, timeout):
            return Line("poll timed out", source, f"no answer to a poll within {timeout:g} s; a late one is taken in")
        case PollOverdue(source, granted):
            return Line("poll overdue", source, f"a poll is overdue; its {granted} units work for others", VERBOSE)
    return None


def _of_deliveries(event: Event) -> Line | None:
    match event:
        case DeliveryFailed(destination, key, attempt, error):
            text = f"result of task {key} not taken (attempt {attempt}), it is sent again: {_text(error)}"
            return Line("delivery failed", destination, text)
        case DeliveryResumed(destination):
            return Line("delivery resumed", destination, "takes results again")
        case DeadLettered(destination, key, reason):
            return Line("dead letter", destination, f"result of task {key} was refused for good: {reason}", QUIET)
        case Undelivered(destination, key):
            return Line("undelivered", destination, f"result of task {key} was left undelivered", QUIET)
    return None


def _of_tasks(event: Event) -> Line | None:
    match event:
        case ItemsArrivedLate(source, count) if count:
            return Line("late tasks", source, f"{_tasks(count)} arrived late, taken in")
        case GaveBack(source, count, reason):
            return Line("gave back", source, f"{_tasks(count)} given back un-started ({reason})")
        case GiveBackFailed(source, count, error):
            text = f"{_tasks(count)} could not be given back, the server times them out: {_text(error)}"
            return Line("give-back failed", source, text)
        case HandlerFailed(source, error):
            return Line("task failed", source, f"a task could not be handled: {_text(error)}", QUIET)
    return None


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


class Sampler:
    """Lets the first lines of a kind and server through, then one in ten times as many each time.

    Args:
        first: how many in a row are let through.
    """

    def __init__(self, first: int = 3) -> None:
        self._first = first
        self._seen: dict[tuple[str, str], int] = {}

    def admit(self, line: Line) -> str | None:
        """The text to say, with a count if some were left out; None to say nothing. A change of breaker starts anew."""
        if line.kind in {"breaker", "delivery resumed"}:
            self._seen = {key: count for key, count in self._seen.items() if key[1] != line.server}
            return line.text
        seen = self._seen[line.kind, line.server] = self._seen.get((line.kind, line.server), 0) + 1
        if seen <= self._first:
            return line.text
        return f"{line.text} ({seen} times by now)" if _is_round(seen) else None


def _is_round(count: int) -> bool:
    return str(count).rstrip("0") in {"1", "2", "5"} and count >= 10  # noqa: PLR2004 - 10, 20, 50, 100 …


class Printer:
    """Says lines: sentences for people, JSON objects for machines. Thread-safe.

    Args:
        as_json: one JSON object a line.
        level: how much to say, from -1 (nothing but the end) to 2.
        stream: where to.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        level: int = NORMAL,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._as_json = as_json
        self._level = level
        self._stream = stream or sys.stdout
        self._clock = clock
        self._sampler = Sampler()
        self._lock = Lock()

    def hear(self, event: Event) -> None:
        """Say what there is to say about ``event``."""
        line = line_of(event)
        if line is None or line.level > self._level:
            return
        with self._lock:
            text = self._sampler.admit(line)
        if text is not None:
            self.say(line.kind, text, server=line.server)

    def say(self, kind: str, text: str, *, server: str | None = None, **facts: Any) -> None:  # noqa: ANN401 - JSON
        """Say one thing; ``facts`` are for machines alone."""
        if self._as_json:
            row = {"at": round(self._clock(), 3), "kind": kind, "server": server, "text": text, **facts}
            text = json.dumps({name: fact for name, fact in row.items() if fact is not None})
        elif server is not None:
            text = f"{server}: {text}"
        with self._lock:
            self._stream.write(f"{text}\n")
            self._stream.flush()
