"""What a signal does to a command before its work begins, and after it has ended. Imports next to nothing.

The first process of a container does not receive a signal that it has no handler for, and a signal that arrives while
Python finalizes its modules kills the process, whatever its exit status would have been. So a handler is installed as
soon as possible, and one remains until the process ends.
"""

import atexit
import os
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

__all__ = ["end_at_once", "interrupts_raise", "keep_until_gone"]

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
SIGNALLED = 128  # plus the signal's number: the exit status, as in a shell
SAME_SIGNAL = 1.0  # seconds after the end in which a signal is ignored
Handler = Callable[[int, FrameType | None], None]


def end_at_once(arguments: Sequence[str]) -> None:
    """From here on a signal ends this process at once, without output.

    The status is 0 for ``run``, which has not taken a task yet; but 130 for every command after Ctrl-C.
    """
    drained = list(arguments[:1]) == ["run"]

    def end(number: int, _frame: FrameType | None) -> None:
        os._exit(0 if drained and number != signal.SIGINT else SIGNALLED + number)

    _handle(end)
    atexit.register(_ignore)  # runs last of all, just before Python removes the handlers


def interrupts_raise() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again, for commands that clean up."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def keep_until_gone(status: int) -> None:
    """The work is done: from here on signals are ignored, but after a second one ends a process that hangs.

    Args:
        status: the exit status of the process.
    """
    done = time.monotonic()

    def end(_number: int, _frame: FrameType | None) -> None:
        if time.monotonic() - done > SAME_SIGNAL:
            os._exit(status)

    _handle(end)


def _handle(handler: Handler) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # set by nohup, or by a shell for a background job
            signal.signal(number, handler)


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
