"""Counts that come only from events and tasks: lost leases, retries, results that were sent again."""

import threading
from collections import Counter

from conductor_adapter.tasks import Task

__all__ = ["Counting"]


class Counting:
    """Counts, by server. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._again: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()

    def starts(self, server: str, task: Task) -> None:
        """Count a task that starts, if it is a retry."""
        if task.retry_count:
            with self._lock:
                self._again[server] += 1

    def loses_lease(self, server: str) -> None:
        """Count a lease that is lost."""
        with self._lock:
            self._lost[server] += 1

    def repeats(self, server: str) -> None:
        """Count a result that is sent again."""
        with self._lock:
            self._repeated[server] += 1

    def repeated(self, server: str) -> int:
        """The number of results for ``server`` that were sent again."""
        with self._lock:
            return self._repeated[server]

    def re_executed(self, server: str) -> int:
        """The number of tasks of ``server`` that started and were retries."""
        with self._lock:
            return self._again[server]

    def lost_lease(self, server: str) -> int:
        """The number of lost leases of tasks of ``server``."""
        with self._lock:
            return self._lost[server]
