"""Running workers until a signal says stop; the only place that installs signal handlers."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from conductor_adapter.declaring import WorkerSpec
from conductor_adapter.events import RunnerListener
from conductor_adapter.running.lifecycle import RunnerConfig, StopReport
from conductor_adapter.running.threads import WorkerRunner
from conductor_adapter.settings import ServerSettings

__all__ = ["run_until_signal", "run_workers"]

MOMENT = 0.5  # seconds that the main thread waits at a time
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_workers(
    workers: Iterable[Callable[..., Any] | WorkerSpec],
    servers: Iterable[ServerSettings] | None = None,
    *,
    config: RunnerConfig | None = None,
    duration: float | None = None,
    on_event: RunnerListener | None = None,
) -> StopReport:
    """Run workers until SIGTERM or SIGINT, or for ``duration`` seconds, then stop cleanly.

    A second signal ends the waiting at once. Handlers are installed in the main thread only, and restored afterwards.

    Args:
        workers: functions marked with ``@worker``.
        servers: where tasks come from; None reads the environment.
        config: how they run.
        duration: seconds; None for no end.
        on_event: told of everything that happens.

    Returns:
        What was left undone.

    Raises:
        ValueError, TypeError, ImportError: as for `WorkerRunner`.
    """
    runner = WorkerRunner(workers, servers, config=config, on_event=on_event)
    return run_until_signal(runner, duration)


def run_until_signal(runner: WorkerRunner, duration: float | None = None) -> StopReport:
    """Start ``runner`` and stop it after a signal or ``duration`` seconds; a second signal ends at once."""
    told: SimpleQueue[StopReport | None] = SimpleQueue()
    with _signals_into(told):
        runner.start()
        _get(told, duration)
        threading.Thread(target=lambda: told.put(runner.stop()), daemon=True).start()
        report = _get(told, None)
    return report if report is not None else _interrupted(runner)


def _get(told: "SimpleQueue[StopReport | None]", timeout: float | None) -> StopReport | None:
    """What comes first; None also after ``timeout`` seconds.

    It waits for a moment at a time: Python runs no handler while the main thread waits in C, and a signal that another
    thread takes, or that comes just before the wait, does not end the wait.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        with suppress(Empty):
            return told.get(timeout=min(left, MOMENT))
    return None


def _interrupted(runner: WorkerRunner) -> StopReport:
    views = runner.view().values()
    return StopReport(
        left=sum(view.waiting for view in views),
        unfinished=sum(view.executing for view in views),
        kept=sum(view.held for view in views),
    )


@contextmanager
def _signals_into(told: "SimpleQueue[StopReport | None]") -> Iterator[None]:
    """Let SIGTERM and SIGINT do nothing but put None into ``told``: the only thing that is safe in a handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def put(_signum: int, _frame: FrameType | None) -> None:
        told.put(None)

    before = {number: signal.signal(number, put) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
