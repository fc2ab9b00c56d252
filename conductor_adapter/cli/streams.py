"""Standard output and error of a command, even where they cannot be written to. Needs no extra."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from resilience._texts import cut, indented, printable

__all__ = [
    "UNREAD",
    "UNWRITABLE",
    "Nowhere",
    "flushed",
    "give_up",
    "open_streams",
    "put",
    "say",
    "say_error",
    "silence",
    "written",
]

UNREAD = 1  # exit status
LONGEST_ERROR = 16_000  # characters
UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)  # for a stream that was open


class Nowhere(io.TextIOWrapper):
    """Replaces a standard stream that was closed before the command began."""


def open_streams() -> None:
    """Give this process standard streams that accept every character; a closed one is replaced by the null device.

    Otherwise Python has None there, and the next connection would get the file descriptor that others print to.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Nowhere(Path(os.devnull).open("wb"), encoding="utf-8"))  # noqa: SIM115 - until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """Send the rest of ``stream`` to the null device, because its reader is gone."""
    with suppress(OSError, ValueError):  # a stream without a file descriptor needs nothing
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def give_up(stream: TextIO, error: Exception) -> None:
    """Discard the rest of ``stream``, because writing to it raised ``error``; report it unless its reader left."""
    silence(stream)
    if not isinstance(error, BrokenPipeError):
        why = getattr(error, "strerror", None) or error
        say_error(f"standard output cannot be written: {why}; further output is discarded")


def put(*columns: str) -> None:
    """Print a line, with two spaces between columns; call it within ``written``."""
    print("  ".join(map(printable, columns)))  # noqa: T201 - it is a command


def say(line: str) -> None:
    """Write a line to standard output, if possible."""
    try:
        print(printable(line), flush=True)  # noqa: T201 - it is a command
    except (OSError, ValueError) as error:
        give_up(sys.stdout, error)


def say_error(text: str) -> None:
    """Write a line to standard error, with a traceback below it if the text has one, if possible."""
    first, _, rest = cut(text, LONGEST_ERROR, tail=LONGEST_ERROR // 2).partition("\n")
    below = f"\n{indented(rest)}" if rest else ""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"conductor-adapter: {printable(first)}{below}\n")
        sys.stderr.flush()


def flushed() -> bool:
    """Whether everything written to standard output could be flushed."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        give_up(sys.stdout, error)
        return False
    return True


@contextmanager
def written() -> Iterator[None]:
    """Wrap the output of a command whose purpose is its output: it exits with status 1 if that cannot be written."""
    try:
        yield
    except OSError as error:
        give_up(sys.stdout, error)
        raise SystemExit(UNREAD) from None
    if isinstance(sys.stdout, Nowhere):
        give_up(sys.stdout, OSError("it is closed"))
        raise SystemExit(UNREAD)
    if not flushed():
        raise SystemExit(UNREAD)
