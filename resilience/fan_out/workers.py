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

__all__ = ["BRIEF", "IDLE_SECONDS", "MAX_IDLE", "Crew", "Job", "Worker", "attempt"]

BRIEF = 20e-6  # seconds: about what waking one more thread costs
IDLE_SECONDS = 60.0  # an idle worker ends after that
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
        self._brief: set[Hashable] = set()  # a part of the keys of _idle

    def hire_locked(self, key: Hashable) -> "Worker | None":
        """Return an idle worker of ``key``, the one that worked last, or None."""
        idle = self._idle.get(key)
        return self._take(idle[-1], idle) if idle else None

    def is_brief_locked(self, key: Hashable) -> bool:
        """Whether ``key`` has an idle worker and its last call was over sooner than a hand-off."""
        return key in self._brief

    def note_slow_locked(self, key: Hashable) -> None:
        """A call of ``key`` took its time."""
        self._brief.discard(key)

    def park(self, worker: "Worker") -> bool:
        """Keep ``worker`` for its key's next job; False if it must end."""
        with self.lock:
            if self.closed or self._idle_count >= MAX_IDLE:
                return False
            self._idle.setdefault(worker.key, []).append(worker)
            self._idle_count += 1
            if worker.brief:
                self._brief.add(worker.key)
            return True

    def dismiss(self, worker: "Worker") -> bool:
        """Take an idle ``worker`` off the list; False if it has just been hired, so that a job is on its way."""
        with self.lock:
            idle = self._idle.get(worker.key, [])
            return worker in idle and self._take(worker, idle) is worker

    def close(self) -> None:
        """End the idle workers now and the others when they are done; waits for none."""
        with self.lock:
            self.closed = True
            workers = [worker for idle in self._idle.values() for worker in idle]
            self._idle.clear()
            self._brief.clear()
            self._idle_count = 0
        for worker in workers:
            worker.inbox.put(None)

    def _take(self, worker: "Worker", idle: "list[Worker]") -> "Worker":
        idle.remove(worker)
        self._idle_count -= 1
        if not idle:
            del self._idle[worker.key]
            self._brief.discard(worker.key)
        return worker


class Worker:
    """A thread that does one key's jobs, one after another.

    Attributes:
        key: whose jobs.
        brief: whether the key's last call here was over sooner than a hand-off.
        inbox: takes the next job, or None to end it.
    """

    def __init__(self, crew: Crew, key: Hashable) -> None:
        self.key = key
        self.brief = False
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
