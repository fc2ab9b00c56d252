"""Running workers until a signal says stop; the only place that installs signal handlers."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from conductor_adapter.events import RunnerListener
from conductor_adapter.functions.decorator import WorkerSpec
from conductor_adapter.running.lifecycle import RunnerConfig, StopReport, is_another_signal
from conductor_adapter.running.threads import WorkerRunner
from conductor_adapter.settings.server_settings import ServerSettings
from resilience._checks import check_number

__all__ = ["run_until_signal", "run_workers"]

MOMENT = 0.5  # seconds that the main thread waits at a time
Told = SimpleQueue[StopReport | BaseException | float]  # how stopping ended, or when a signal came


def run_workers(
    workers: Iterable[Callable[..., Any] | WorkerSpec],
    servers: Iterable[ServerSettings] | None = None,
    *,
    config: RunnerConfig | None = None,
    duration: float | None = None,
    on_event: RunnerListener | None = None,
) -> StopReport:
    """Run workers until SIGTERM, SIGINT or SIGHUP, or for ``duration`` seconds, then stop cleanly.

    A second signal ends the waiting at once; one within a second of the first is the first once more. Handlers are
    installed in the main thread only, and restored afterwards; a program's own handler of SIGHUP is left alone.

    Args:
        workers: functions marked with ``@worker``.
        servers: where tasks come from; None reads the environment.
        config: how they run.
        duration: seconds, 0 or more; None for no end.
        on_event: told of everything that happens.

    Returns:
        What was left undone.

    Raises:
        ValueError, TypeError: as for `WorkerRunner`, and a ``duration`` that is no finite number of seconds.
        ImportError: as for `WorkerRunner`.
        RuntimeError: there are no threads left to run the workers on; nothing runs then.
    """
    runner = WorkerRunner(workers, servers, config=config, on_event=on_event)
    return run_until_signal(runner, duration)


def run_until_signal(runner: WorkerRunner, duration: float | None = None, *, keep: bool = False) -> StopReport:
    """Start ``runner`` and stop it after a signal or ``duration`` seconds; a second signal ends at once.

    Args:
        runner: what is started.
        duration: seconds; None for no end.
        keep: whether this process is the command's own: its handlers stay for good, and SIGHUP is always heard.
    """
    if duration is not None:
        check_number("duration", duration, least=0.0)
    told: Told = SimpleQueue()
    with _signals_into(told, keep=keep):
        runner.start()
        first = _get(told, duration)
        asked = time.monotonic()
        _stop_apart(runner, told)
        before, end = first if isinstance(first, float) else -math.inf, _get(told, None)
        while isinstance(end, float) and not is_another_signal(asked, end, before):
            before, end = end, _get(told, None)
    if isinstance(end, BaseException):
        raise end
    return end if isinstance(end, StopReport) else runner.report()


def _stop_apart(runner: WorkerRunner, told: Told) -> None:
    """Stop in a thread, so that a signal can end the waiting for it; here, if there is none."""

    def stop() -> None:
        try:
            told.put(runner.stop())
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of the end, whatever it is
            told.put(error)

    try:
        threading.Thread(target=stop, name="stopping", daemon=True).start()
    except RuntimeError:  # the system has no thread left
        stop()


def _get(told: Told, timeout: float | None) -> StopReport | BaseException | float | None:
    """What comes first; None after ``timeout`` seconds.

    It waits for a moment at a time: Python runs no handler while the main thread waits in C, and a signal that another
    thread takes, or that comes just before the wait, does not end the wait.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        with suppress(Empty):
            return told.get(timeout=min(left, MOMENT))
    return None


@contextmanager
def _signals_into(told: Told, *, keep: bool) -> Iterator[None]:
    """Let signals do nothing but put the time into ``told``: the only thing that is safe in a handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pid = os.getpid()

    def put(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == pid:
            told.put(time.monotonic())
            return
        signal.signal(number, signal.SIG_DFL)  # a process that a task function forked is no worker, and ends
        signal.raise_signal(number)

    before = {number: signal.signal(number, put) for number in _signals(keep=keep)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if not keep:
                signal.signal(number, handler)


def _signals(*, keep: bool) -> list[signal.Signals]:
    """Those that stop a worker: SIGHUP is not one where it is ignored (nohup), or means something to the program."""
    handler = signal.getsignal(signal.SIGHUP)
    hears = handler is not signal.SIG_IGN if keep else handler is signal.SIG_DFL
    return [signal.SIGTERM, signal.SIGINT] + [signal.SIGHUP] * hears
