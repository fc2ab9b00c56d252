"""What a signal means to a command before its work begins, and once it is done. Imports next to nothing.

The first process of a container does not hear a signal that it has no handler for, and any process dies of one that
comes while Python takes its modules apart, whatever its exit status would have been. So a handler is there as soon as
possible, and there is one until the process is gone.
"""

import atexit
import os
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

__all__ = ["end_at_once", "interrupts_raise", "keep_until_gone"]

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
SIGNALLED = 128  # plus the signal's number: the exit status, as shells have it
SAME_SIGNAL = 1.0  # seconds after the end in which a signal asks for nothing more than that
Handler = Callable[[int, FrameType | None], None]


def end_at_once(arguments: Sequence[str]) -> None:
    """From here on a signal ends this process at once and without a word.

    Status 0 for ``run``, which has taken no task yet and leaves none; but Ctrl-C is 130 for every command.
    """
    drained = list(arguments[:1]) == ["run"]

    def end(number: int, _frame: FrameType | None) -> None:
        os._exit(0 if drained and number != signal.SIGINT else SIGNALLED + number)

    _handle(end)
    atexit.register(_ignore)  # runs last of all, when Python is about to take the handlers away


def interrupts_raise() -> None:
    """From here on Ctrl-C is Python's KeyboardInterrupt again, for commands that end in order."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def keep_until_gone(status: int) -> None:
    """The work is done: a signal changes nothing any more, but after a second it ends a process that hangs.

    Args:
        status: the exit status that the process ends with.
    """
    done = time.monotonic()

    def end(_number: int, _frame: FrameType | None) -> None:
        if time.monotonic() - done > SAME_SIGNAL:
            os._exit(status)

    _handle(end)


def _handle(handler: Handler) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish, or that of a shell for its background job
            signal.signal(number, handler)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
