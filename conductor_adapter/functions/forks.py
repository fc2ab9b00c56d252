"""Forked processes: of a task function that forked, or of a program whose workers run in the parent."""

import os
import sys
import traceback
from contextlib import suppress

__all__ = ["end_copy", "refuse_copy"]


def refuse_copy(pid: int | None) -> None:
    """Raise an error if the workers were started by ``pid`` and this is a fork of that process: threads are not copied.

    Raises:
        RuntimeError: the workers run in that process, not here.
    """
    if pid is not None and pid != os.getpid():
        raise RuntimeError(
            f"these workers were started by process {pid} and run there; process {os.getpid()} was forked from it and "
            "runs none: start workers after the fork (with gunicorn, in post_fork and not before --preload forks)"
        )


def end_copy(pid: int, error: BaseException | None) -> None:
    """End this process if it is not ``pid``, as Python ends one whose main function raised ``error`` or returned.

    A fork of a task function must neither report the task nor continue as a second worker.
    """
    if os.getpid() == pid:
        return
    status = _status(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a user's stream can raise anything, and the error cannot be reported
            stream.flush()
    os._exit(status)  # other exit handlers belong to the process that forked


def _status(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)  # noqa: T201 - as Python does
    return 1
