"""Long polls, as with the server's SQL queues: a batch that is not full waits for the whole timeout."""

import asyncio
from collections.abc import Callable
from typing import Any

from .engine import Engine
from .waiting import Waiting

__all__ = ["Polling"]


class Polling:
    """Takes tasks off queues, waiting for them. Not thread-safe: it belongs to one event loop.

    Args:
        engine: owns the queues.
        waiting: notifies of new tasks.
        now: milliseconds since the epoch.
    """

    def __init__(self, engine: Engine, waiting: Waiting, now: Callable[[], int]) -> None:
        self._engine = engine
        self._waiting = waiting
        self._now = now
        self._last_polls: dict[str, tuple[str | None, int]] = {}

    async def poll(self, queue: str, worker_id: str | None, count: int, wait: float) -> list[str]:
        """Assign up to ``count`` tasks and return their JSON texts.

        It returns as soon as there are ``count`` tasks, or after ``wait`` seconds with fewer. If the client is gone by
        then, the tasks are assigned anyway, as with a real server.
        """
        self._last_polls[queue] = (worker_id, self._now())
        ready = self._engine.store.ready
        found = ready(queue, count, self._now())
        if len(found) >= count or wait <= 0:
            return self._engine.hand_out(found, worker_id, self._now())
        held = await self._gather(queue, count, wait)
        return self._engine.hand_out(self._engine.held(held), worker_id, self._now())

    async def _gather(self, queue: str, count: int, wait: float) -> list[str]:
        """Hold tasks until there are enough or the timeout expires."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        held: list[str] = []
        while True:
            held += self._engine.hold(queue, count - len(held), self._now())
            left = until - loop.time()
            if len(held) >= count or left <= 0:
                return held
            await self._waiting.wait(queue, min(left, self._due_in(queue)))

    def _due_in(self, queue: str) -> float:
        """Seconds until the next task of the queue is due."""
        due = self._engine.store.next_ready(queue)
        return float("inf") if due is None else max(0.001, (due - self._now()) / 1000)

    def poll_data(self, task_type: str) -> list[dict[str, Any]]:
        """Return the last worker that polled each queue of a task type, and when."""
        found: list[dict[str, Any]] = []
        for queue, (worker_id, when) in self._last_polls.items():
            domain, _, name = queue.rpartition(":")
            if name != task_type:
                continue
            entry = {"queueName": name, "domain": domain, "workerId": worker_id, "lastPollTime": when}
            found.append({key: value for key, value in entry.items() if value})
        return found
