"""What a runner writes to Python's log, for those who listen to no events: trouble with servers, and failing tasks."""

import logging
import threading
from collections import Counter

from conductor_adapter.events import TaskFailed, TaskLeaseLost
from resilience.events import BreakerChanged, BreakerState

__all__ = ["Log"]

log = logging.getLogger("conductor_adapter")

LEASE_LOST = "a task has outlived its response timeout and may be run again: no heartbeat came through"


class Log:
    """Writes what is news, and not every repetition of it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, ...]] = Counter()

    def breaker_changed(self, event: BreakerChanged) -> None:
        """A server's calls fail so often that it is left alone, or they work again; not the probes between."""
        if event.before is BreakerState.CLOSED:
            log.warning("%s: its %s fail, it is left alone for a while: %s", event.name, event.calls, event.error)
        elif event.after is BreakerState.CLOSED:
            log.info("%s: its %s work again", event.name, event.calls)

    def task_failed(self, event: TaskFailed) -> None:
        """The first failed task of a server and type, the second, the fourth, the eighth and so on."""
        if count := self._counted("failed", event.server, event.task_type):
            what = f"{count} tasks have failed, the last" if count > 1 else "a task failed"
            log.warning("%s: %s: %s: %s", event.server, event.task_type, what, event.reason)

    def lease_lost(self, event: TaskLeaseLost) -> None:
        """Likewise of tasks that their server may hand out again while they run."""
        if count := self._counted("lease lost", event.server, event.task_type):
            what = f"{count} tasks have outlived their response timeout, the last" if count > 1 else LEASE_LOST
            log.warning("%s: %s: %s: %s", event.server, event.task_type, what, event.error)

    def _counted(self, *what: str) -> int:
        """How often that was the case so far, if it is time to say so; else 0."""
        with self._lock:
            self._counts[what] += 1
            count = self._counts[what]
        return count if count & (count - 1) == 0 else 0
