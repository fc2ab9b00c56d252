"""Running workers until a signal; the only module that installs signal handlers."""

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

MOMENT = 0.5  # seconds that the main thread waits without a break
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

    A second signal ends the stop at once; one within a second of the first is ignored. Handlers are installed only in
    the main thread, and restored afterwards; a program's own handler for SIGHUP is not replaced.

    Args:
        workers: functions marked with ``@worker``.
        servers: the servers; None reads the environment.
        config: the configuration.
        duration: seconds, 0 or more; None for no limit.
        on_event: called with all events.

    Returns:
        A report of what was left undone.

    Raises:
        ValueError, TypeError: as for `WorkerRunner`, or ``duration`` is not a finite number of seconds.
        ImportError: as for `WorkerRunner`.
        RuntimeError: there are not enough threads for the workers; nothing is running then.
    """
    runner = WorkerRunner(workers, servers, config=config, on_event=on_event)
    return run_until_signal(runner, duration)


def run_until_signal(runner: WorkerRunner, duration: float | None = None, *, keep: bool = False) -> StopReport:
    """Start ``runner`` and stop it after a signal or ``duration`` seconds; a second signal ends the stop at once.

    Args:
        runner: the runner.
        duration: seconds; None for no limit.
        keep: whether this process belongs to the command: its handlers remain, and SIGHUP is always handled.
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
    """Stop in a thread, so that a signal can end the wait for it; in this thread, if none can be started."""

    def stop() -> None:
        try:
            told.put(runner.stop())
        except BaseException as error:  # noqa: BLE001 - the waiting thread must be notified in any case
            told.put(error)

    try:
        threading.Thread(target=stop, name="stopping", daemon=True).start()
    except RuntimeError:  # the system has no thread left
        stop()


def _get(told: Told, timeout: float | None) -> StopReport | BaseException | float | None:
    """The first item; None after ``timeout`` seconds.

    It waits in short steps: Python runs no handler while the main thread waits in C, and a signal that another thread
    receives, or that arrives just before the wait, does not end the wait.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        with suppress(Empty):
            return told.get(timeout=min(left, MOMENT))
    return None


@contextmanager
def _signals_into(told: Told, *, keep: bool) -> Iterator[None]:
    """Let signal handlers only put the time into ``told``: nothing else is safe in a handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pid = os.getpid()

    def put(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == pid:
            told.put(time.monotonic())
            return
        signal.signal(number, signal.SIG_DFL)  # a process that a task function forked is not a worker, and ends
        signal.raise_signal(number)

    before = {number: signal.signal(number, put) for number in _signals(keep=keep)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if not keep:
                signal.signal(number, handler)


def _signals(*, keep: bool) -> list[signal.Signals]:
    """The signals that stop a worker: without SIGHUP if it is ignored (nohup) or the program handles it."""
    handler = signal.getsignal(signal.SIGHUP)
    hears = handler is not signal.SIG_IGN if keep else handler is signal.SIG_DFL
    return [signal.SIGTERM, signal.SIGINT] + [signal.SIGHUP] * hears
