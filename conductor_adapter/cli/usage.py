"""A user's mistake is one line that says what to change, and exit status 2; never our stack trace."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from conductor_adapter.cli.streams import say_error
from conductor_adapter.cli.targets import TargetError
from conductor_adapter.functions.decorator import MAX_THREADS
from conductor_adapter.tasks import can_be_sent
from resilience import OutboxError

__all__ = [
    "BAD_USAGE",
    "count",
    "grace_length",
    "log_level",
    "refusing",
    "seconds",
    "server_name",
    "story_length",
    "timeout",
]

BAD_USAGE = 2
LONGEST_COUNT = 20  # digits
LONGEST = 100_000.0  # seconds, more than a day: a longer timeout is a typing error

LEVELS = ("debug", "info", "warning", "error", "critical")
SHORTEST_STORY, LONGEST_STORY = 2.0, 3600.0


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what options, environment, files, targets and outboxes are refused with into a line and exit status 2."""
    try:
        yield
    except (ValueError, TypeError, ImportError, TargetError, OutboxError) as error:
        say_error(str(error))
        raise SystemExit(BAD_USAGE) from None


def seconds(text: str) -> float:
    """A number of seconds, more than 0, from an option."""
    value = _number(text)
    if value <= 0:
        raise typer.BadParameter(f"{text!r} must be more than 0 seconds")
    return value


def timeout(text: str) -> float:
    """A number of seconds, more than 0, for which something may wait."""
    return _bounded(text, seconds(text))


def grace_length(text: str) -> float:
    """A number of seconds for which something may wait; 0 is one."""
    value = _number(text)
    if value < 0:
        raise typer.BadParameter(f"{text!r} must be 0 or more seconds")
    return _bounded(text, value)


def story_length(text: str) -> float:
    """A number of seconds in which the demo's story can be told."""
    value = _number(text)
    if not SHORTEST_STORY <= value <= LONGEST_STORY:
        raise typer.BadParameter(f"{text!r} must be from {SHORTEST_STORY:g} to {LONGEST_STORY:g} seconds")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number of seconds; write for example 2.5") from None
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text!r} must be more than 0 and finite")
    return value


def _bounded(text: str, value: float) -> float:
    if value > LONGEST:
        raise typer.BadParameter(f"{text!r} must be at most {LONGEST:.0f} seconds")
    return value


def log_level(text: str) -> str:
    """The name of a level of Python's log from an option."""
    if text.lower() not in LEVELS:
        raise typer.BadParameter(f"{text[:50]!r} is not a log level; write {', '.join(LEVELS[:-1])} or {LEVELS[-1]}")
    return text.lower()


def server_name(text: str) -> str:
    """The name of a server from an option."""
    if not can_be_sent(text):
        raise typer.BadParameter(f"{text!r} holds bytes that are no text in UTF-8; no server is called that")
    return text


def count(text: str) -> int:
    """A number of threads from an option."""
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST_COUNT or not 1 <= int(text) <= MAX_THREADS:
        raise typer.BadParameter(f"{text[:50]!r} must be a whole number, 1 to {MAX_THREADS}")
    return int(text)
