"""Scripted sources for the primitive poller: queues in memory that fall ill, and a handler that counts."""

import collections
import threading

from fault_kit import until
from hearing import GUARD

from resilience import PollConfig, Source

TIMES = PollConfig(poll_wait=0.05, overdue_after=0.05, poll_timeout=0.2, give_up_after=5.0, max_hold=0.5)


class Queue:
    """A source in memory that can be made ill; what it handed out, and how often it was asked at once, is kept.

    Args:
        name: the source's.
        count: how many values it has.
    """

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.values = collections.deque((name, number) for number in range(count))
        self.handed_out = collections.Counter()
        self.asked = self.asking = self.most = 0
        self.latency = 0.0
        self.ill: str | None = None
        self.well = threading.Event()
        self._lock = threading.Lock()

    def source(self, **options: object) -> Source:
        """What a poller polls."""
        return Source(self.name, self._poll, give_back=self._give_back, **options)

    def heal(self) -> None:
        """From now on it is well; whoever it kept waiting gets its values late."""
        self.ill = None
        self.well.set()

    def _poll(self, count: int, wait: float) -> list[object]:
        with self._lock:
            self.asked += 1
            self.asking += 1
            self.most = max(self.most, self.asking)
            taken = [self.values.popleft() for _ in range(min(count, len(self.values)))]
            self.handed_out.update(taken)
        try:
            if self.ill == "hung":
                self.well.wait(GUARD)
            elif self.ill:
                self._give_back(taken)
                self.handed_out.subtract(taken)
                raise OSError(self.ill)
            else:
                threading.Event().wait(self.latency if taken else wait)
        finally:
            with self._lock:
                self.asking -= 1
        return taken

    def _give_back(self, values: list[object]) -> None:
        with self._lock:
            self.values.extend(values)


class Done:
    """A handler that counts what it did, and how much of it at once."""

    def __init__(self) -> None:
        self.times = collections.Counter()
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, item) -> None:
        """Handle an item."""
        with self._lock:
            self.times[item.value] += 1
            self.running += 1
            self.most = max(self.most, self.running)
        threading.Event().wait(0.001)
        with self._lock:
            self.running -= 1

    def of(self, name: str) -> int:
        """How many values of that source were done, each counted once."""
        with self._lock:
            return sum(value[0] == name for value in self.times)


def check(queues: list[Queue], done: Done, each: int) -> None:
    """Everything was done, and nothing more often than it was handed out."""
    for queue in queues:
        until(
            lambda queue=queue: done.of(queue.name) == each,
            lambda queue=queue: f"{queue.name}: {done.of(queue.name)}",
            3 * GUARD,
        )
        assert not [value for value, times in queue.handed_out.items() if done.times[value] > times]
