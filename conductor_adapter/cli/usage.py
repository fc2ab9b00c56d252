"""A user's mistake is one line that says what to change, and exit status 2; never our stack trace."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from conductor_adapter.targets import TargetError

__all__ = ["BAD_USAGE", "count", "refusing", "seconds"]

BAD_USAGE = 2


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what options, environment, files and targets are refused with into one line and exit status 2."""
    try:
        yield
    except (ValueError, TypeError, ImportError, TargetError) as error:
        sys.stderr.write(f"conductor-adapter: {error}\n")
        raise SystemExit(BAD_USAGE) from None


def seconds(text: str) -> float:
    """A number of seconds from an option."""
    try:
        value = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number of seconds; write for example 2.5") from None
    if not math.isfinite(value) or value <= 0:
        raise typer.BadParameter(f"{text!r} must be more than 0 seconds and finite")
    return value


def count(text: str) -> int:
    """A whole number from 1 from an option."""
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} must be a whole number, 1 or more")
    return int(text)
