"""Threads that persist: each serves one key, so that what it keeps (a connection) stays with that key.

A worker that is stuck is not idle, so its key's next job gets another one; once free again it is idle like any other.
All are daemonic: none keeps the process from exiting. Calls that are over sooner than a hand-off are the exception to
"one key": several of them may share a worker (see ``Crew.is_brief``).
"""

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Hashable
from os import getpid
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from resilience.fan_out.rounds import Places
from resilience.outcomes import Cancelled, Failed, Value

__all__ = ["BRIEF", "IDLE_SECONDS", "MAX_IDLE", "STEADY", "Crew", "Job", "Worker", "attempt"]

BRIEF = 20e-6  # seconds: about what waking one more thread costs
IDLE_SECONDS = 60.0  # an idle worker ends after that
STEADY = 16  # brief calls in a row that make the key's next one likely to be brief
MAX_IDLE = 256  # workers a crew keeps idle: keys that never come back must not pile up threads


class Job(Protocol):
    """What a worker does; it must not raise."""

    def perform(self, worker: "Worker") -> bool:
        """Do it, and return whether ``worker`` was parked: one that was not ends."""


class Crew:
    """What an executor has per process: workers, the places of stuck ones, and the lock for all its accounts.

    Methods named ``..._locked`` are called with the lock held, the others without.
    """

    def __init__(self, places: Places, *, closed: bool) -> None:
        self.pid = getpid()
        self.lock = threading.Lock()
        self.places = places
        self.closed = closed
        self._idle: dict[Hashable, list[Worker]] = {}
        self._idle_count = 0
        self._streaks: dict[Hashable, int] = {}  # of brief calls, by key

    def hire_locked(self, key: Hashable) -> "Worker | None":
        """Return an idle worker of ``key``, the one that worked last, or None."""
        idle = self._idle.get(key)
        return self._take(idle[-1], idle) if idle else None

    def is_brief_locked(self, key: Hashable) -> bool:
        """Whether ``key`` has an idle worker, and its last calls were all over sooner than a hand-off."""
        return self._streaks.get(key, 0) >= STEADY and key in self._idle

    def note_locked(self, key: Hashable, duration: float) -> None:
        """A call of ``key`` ran for ``duration`` seconds."""
        self._streaks[key] = self._streaks.get(key, 0) + 1 if duration < BRIEF else 0

    def park(self, worker: "Worker") -> bool:
        """Keep ``worker`` for its key's next job; False if it must end."""
        with self.lock:
            if self.closed or self._idle_count >= MAX_IDLE:
                self._forget(worker.key)
                return False
            self._idle.setdefault(worker.key, []).append(worker)
            self._idle_count += 1
            return True

    def dismiss(self, worker: "Worker") -> bool:
        """Take an idle ``worker`` off the list; False if it has just been hired, so that a job is on its way."""
        with self.lock:
            idle = self._idle.get(worker.key, [])
            if worker not in idle:
                return False
            self._take(worker, idle)
            self._forget(worker.key)
            return True

    def close(self) -> None:
        """End the idle workers now and the others when they are done; waits for none."""
        with self.lock:
            self.closed = True
            workers = [worker for idle in self._idle.values() for worker in idle]
            self._idle.clear()
            self._idle_count = 0
        for worker in workers:
            worker.inbox.put(None)

    def _take(self, worker: "Worker", idle: "list[Worker]") -> "Worker":
        idle.remove(worker)
        self._idle_count -= 1
        if not idle:
            del self._idle[worker.key]
        return worker

    def _forget(self, key: Hashable) -> None:
        """A worker of ``key`` ends: keys that never come back leave nothing behind."""
        if key not in self._idle:
            self._streaks.pop(key, None)


class Worker:
    """A thread that does the jobs of one ``key``, one after another; ``inbox`` takes them, None ends it."""

    def __init__(self, crew: Crew, key: Hashable) -> None:
        self.key = key
        self.inbox: SimpleQueue[Job | None] = SimpleQueue()
        self._crew = crew

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the system has no thread left.
        """
        threading.Thread(target=self._work, name=f"fan-out {self.key!s:.40}", daemon=True).start()

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """A frame of its own for each job: an idle worker keeps nothing of its last one alive."""
        try:
            job = self.inbox.get(timeout=IDLE_SECONDS)
        except Empty:
            job = None if self._crew.dismiss(self) else self.inbox.get()
        return job is not None and job.perform(self)


def attempt(
    context: contextvars.Context, call: Callable[[], Any], clock: Callable[[], float]
) -> Value[Any] | Failed | Cancelled:
    """Call, and return what came of it; takes no job, for an error keeps this frame alive, and a job its error."""
    began = clock()
    try:
        value = context.run(call)
    except (asyncio.CancelledError, concurrent.futures.CancelledError):
        return Cancelled(clock() - began)
    except BaseException as error:  # noqa: BLE001 - SystemExit too is what the call came to; it ends no worker
        return Failed(error, clock() - began)
    return Value(value, clock() - began)
