"""What a runner logs with `logging`, for programs without a listener: trouble with servers, and failing tasks."""

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
LEASE_LOST = "has outlived its response timeout and might be run again: no heartbeat was accepted"


class Log:
    """Logs what is new, and not every repetition of it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, ...]] = Counter()

    def breaker_changed(self, event: BreakerChanged) -> None:
        """Log that a breaker of a server tripped or closed again; not the probes between."""
        if event.before is BreakerState.CLOSED:
            log.warning("%s: %s are failing; the circuit breaker is open: %s", event.name, event.calls, event.error)
        elif event.after is BreakerState.CLOSED:
            log.info("%s: %s are working again", event.name, event.calls)

    def surplus(self, event: SurplusArrived) -> None:
        """Log that a server returned more tasks than requested; called once for each server and worker."""
        text = "%s: returned more tasks than requested (%d instead of %d); the surplus is given back"
        log.warning(text, event.source, event.count, event.asked)

    def too_large(self, event: PollFailed) -> None:
        """Log that an answer was larger than this worker reads: its tasks are lost until they time out."""
        if count := self._counted("too large", event.source):
            what = f"{count} answers were too large, the last" if count > 1 else "an answer was too large"
            log.warning("%s: %s: %s", event.source, what, event.error)

    def task_failed(self, event: TaskFailed) -> None:
        """Log the first failed task of a server and type, the second, the fourth, the eighth and so on.

        At level DEBUG every one is logged, with its traceback.
        """
        self._warn("have failed", "failed", event, event.reason)
        log.debug("%s: %s failed", event.server, task_named(event.task_id, event.task_type), exc_info=event.error)

    def lease_lost(self, event: TaskLeaseLost) -> None:
        """Likewise for tasks that their server might hand out again while they run."""
        self._warn("have outlived their response timeout", LEASE_LOST, event, event.error)

    def _warn(self, many: str, one: str, event: TaskFailed | TaskLeaseLost, why: object) -> None:
        """Log what became of one task, or of many of which it is the last."""
        server, task_type, task_id = event.server, event.task_type, event.task_id
        count = self._counted(many, server, task_type)
        if count == 1:
            log.warning("%s: %s %s: %s", server, task_named(task_id, task_type), one, why)
        elif count:
            text = "%s: %d tasks of type %r %s, most recently %s: %s"
            log.warning(text, server, count, task_type, many, task_id, why)

    def left_in_copy(self, pid: int | None) -> None:
        """Log that a forked process left the block of a runner, which it must not stop."""
        log.error("process %s runs no workers: process %s started them, and still runs them", os.getpid(), pid)

    def _counted(self, *what: str) -> int:
        """How often this happened so far, if it is time to log it; else 0."""
        with self._lock:
            self._counts[what] += 1
            count = self._counts[what]
        return count if count & (count - 1) == 0 else 0
