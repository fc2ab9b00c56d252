"""Counting attempts of tasks that were not the first."""

import threading
from collections import Counter

from conductor_adapter.tasks import Task

__all__ = ["Counting"]


class Counting:
    """Counts, by server. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._again: Counter[str] = Counter()

    def starts(self, server: str, task: Task) -> None:
        """Count a task that starts, if it is not its server's first attempt."""
        if task.retry_count:
            with self._lock:
                self._again[server] += 1

    def re_executed(self, server: str) -> int:
        """Tasks of ``server`` that started and were not its first attempt."""
        with self._lock:
            return self._again[server]
