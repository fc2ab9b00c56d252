"""A user's mistake is reported in one line that says what to change, with exit status 2; never with a stack trace."""

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
LONGEST = 100_000.0  # seconds, more than a day: a longer timeout is a typo

LEVELS = ("debug", "info", "warning", "error", "critical")
SHORTEST_STORY, LONGEST_STORY = 2.0, 3600.0


@contextmanager
def refusing() -> Iterator[None]:
    """Report errors in options, environment, files, targets and outboxes in one line, and exit with status 2."""
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
    """A number of seconds, more than 0, as a timeout."""
    return _bounded(text, seconds(text))


def grace_length(text: str) -> float:
    """A number of seconds, 0 or more, as a timeout."""
    value = _number(text)
    if value < 0:
        raise typer.BadParameter(f"{text!r} must be 0 or more seconds")
    return _bounded(text, value)


def story_length(text: str) -> float:
    """A number of seconds that is a possible length of the demo."""
    value = _number(text)
    if not SHORTEST_STORY <= value <= LONGEST_STORY:
        raise typer.BadParameter(f"{text!r} must be from {SHORTEST_STORY:g} to {LONGEST_STORY:g} seconds")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number of seconds; write for example 2.5") from None
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text!r} must be more than 0 and finite")
    return value


def _bounded(text: str, value: float) -> float:
    if value > LONGEST:
        raise typer.BadParameter(f"{text!r} must be at most {LONGEST:.0f} seconds")
    return value


def log_level(text: str) -> str:
    """The name of a logging level, from an option."""
    if text.lower() not in LEVELS:
        raise typer.BadParameter(f"{text[:50]!r} is not a log level; write {', '.join(LEVELS[:-1])} or {LEVELS[-1]}")
    return text.lower()


def server_name(text: str) -> str:
    """The name of a server from an option."""
    if not can_be_sent(text):
        raise typer.BadParameter(f"{text!r} is not valid UTF-8, so it cannot be the name of a server")
    return text


def count(text: str) -> int:
    """A number of threads from an option."""
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST_COUNT or not 1 <= int(text) <= MAX_THREADS:
        raise typer.BadParameter(f"{text[:50]!r} must be a whole number, 1 to {MAX_THREADS}")
    return int(text)
