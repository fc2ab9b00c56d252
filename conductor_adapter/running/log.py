"""What a runner writes to Python's log, for those who listen to no events: trouble with servers, and failing tasks."""

import logging
import os
import threading
from collections import Counter

from conductor_adapter.events import TaskFailed, TaskLeaseLost
from conductor_adapter.tasks import task_named
from resilience._texts import guard_loggers
from resilience.events import BreakerChanged, BreakerState, PollFailed, SurplusArrived

__all__ = ["Log"]

log = logging.getLogger("conductor_adapter")

guard_loggers(log.name)
LEASE_LOST = "has outlived its response timeout and may be run again: no heartbeat came through"


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

    def surplus(self, event: SurplusArrived) -> None:
        """A server brings more tasks than it was asked for; heard once for each server and worker."""
        text = "%s: it brings more tasks than it is asked for (%d for %d); the surplus goes back"
        log.warning(text, event.source, event.count, event.asked)

    def too_large(self, event: PollFailed) -> None:
        """An answer was larger than this worker reads: its tasks are lost until they time out."""
        if count := self._counted("too large", event.source):
            what = f"{count} answers were too large, the last" if count > 1 else "an answer was too large"
            log.warning("%s: %s: %s", event.source, what, event.error)

    def task_failed(self, event: TaskFailed) -> None:
        """The first failed task of a server and type, the second, the fourth, the eighth and so on.

        Every one, with its traceback, at level DEBUG.
        """
        self._warn("have failed", "failed", event, event.reason)
        log.debug("%s: %s failed", event.server, task_named(event.task_id, event.task_type), exc_info=event.error)

    def lease_lost(self, event: TaskLeaseLost) -> None:
        """Likewise of tasks that their server may hand out again while they run."""
        self._warn("have outlived their response timeout", LEASE_LOST, event, event.error)

    def _warn(self, many: str, one: str, event: TaskFailed | TaskLeaseLost, why: object) -> None:
        """Say what became of one task, or of many of which it is the last."""
        server, task_type, task_id = event.server, event.task_type, event.task_id
        count = self._counted(many, server, task_type)
        if count == 1:
            log.warning("%s: %s %s: %s", server, task_named(task_id, task_type), one, why)
        elif count:
            log.warning("%s: %d tasks of type %r %s, the last is %s: %s", server, count, task_type, many, task_id, why)

    def left_in_copy(self, pid: int | None) -> None:
        """A process that was forked from the workers' leaves their block, and must not end what is not its own."""
        log.error("process %s runs no workers: they were started by process %s, and run on there", os.getpid(), pid)

    def _counted(self, *what: str) -> int:
        """How often that was the case so far, if it is time to say so; else 0."""
        with self._lock:
            self._counts[what] += 1
            count = self._counts[what]
        return count if count & (count - 1) == 0 else 0
