"""Threads that persist: each serves one key, so that what it keeps (a connection) stays with that key.

A worker that is stuck is not idle, so its key's next job gets another one; once free again it is idle like any other.
All are daemonic: none keeps the process from exiting. Calls that are over sooner than a hand-off are the exception to
"one key": several of them may share a worker (see ``Crew.is_brief``).
"""

import asyncio
import concurrent.futures
import contextvars
import inspect
import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from os import getpid
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from resilience._checks import DATA
from resilience.fan_out.rounds import Places
from resilience.outcomes import Cancelled, Failed, Value

__all__ = ["BRIEF", "IDLE_SECONDS", "MAX_IDLE", "STEADY", "Crew", "Job", "Worker", "attempt"]

BRIEF = 20e-6  # seconds: about what waking one more thread costs
IDLE_SECONDS = 60.0  # an idle worker ends after that
STEADY = 16  # brief calls in a row that make the key's next one likely to be brief
MAX_IDLE = 256  # workers a crew keeps idle: keys that never come back must not pile up threads


class Job(Protocol):
    """What a worker does; it must not raise."""

    @property
    def key(self) -> Hashable:
        """Whose job it is."""

    def perform(self, worker: "Worker") -> bool:
        """Do it, and return whether ``worker`` was parked: one that was not ends."""


class Crew:
    """What an executor has per process: workers, the places of stuck ones, and the lock for all its accounts.

    Methods named ``..._locked`` are called with the lock held, the others without.

    Args:
        places: of abandoned calls.
        closed: no worker is kept.
        max_workers: how many there may be that are not stuck; with so many at work, jobs wait for one. A stuck one is
            no longer counted: the places bound those, by key, so that no key can take the threads of all others.
    """

    def __init__(self, places: Places, *, closed: bool, max_workers: int | None = None) -> None:
        self.pid = getpid()
        self.lock = threading.Lock()
        self.places = places
        self.closed = closed
        self._max_workers = math.inf if max_workers is None else max_workers
        self._count = 0  # workers that are not stuck
        self._waiting: deque[Job] = deque()
        self._idle: dict[Hashable, list[Worker]] = {}
        self._idle_count = 0
        self._streaks: dict[Hashable, int] = {}  # of brief calls, by key

    def hire_locked(self, key: Hashable) -> "Worker | None":
        """Return an idle worker of ``key``, the one that worked last, or None."""
        idle = self._idle.get(key)
        return self._take(idle[-1], idle) if idle else None

    def assign_locked(self, job: "Job") -> "Worker | None":
        """Return a worker for ``job``, idle or not yet started; None if the job waits until one is free."""
        worker = self.hire_locked(job.key)
        if worker is not None:
            return worker
        if self._count < self._max_workers:
            self._count += 1
            return Worker(self, job.key)
        idle = next(filter(None, self._idle.values()), None)
        if idle is not None:
            worker = self._take(idle[0], idle)
            self._forget(worker.key)
            worker.key = job.key
            return worker
        self._waiting.append(job)
        return None

    def lose_locked(self, worker: "Worker | None") -> "list[tuple[Job, Worker]]":
        """``worker`` is stuck: it is not counted now. Returns jobs that need not wait any more, with new workers."""
        if worker is not None and not worker.stuck:
            worker.stuck = True
            self._count -= 1
        orders = []
        while self._waiting and self._count < self._max_workers:
            self._count += 1
            job = self._waiting.popleft()
            orders.append((job, Worker(self, job.key)))
        return orders

    def is_brief_locked(self, key: Hashable) -> bool:
        """Whether ``key`` has an idle worker, and its last calls were all over sooner than a hand-off."""
        return self._streaks.get(key, 0) >= STEADY and key in self._idle

    def note_locked(self, key: Hashable, duration: float) -> None:
        """A call of ``key`` ran for ``duration`` seconds."""
        self._streaks[key] = self._streaks.get(key, 0) + 1 if duration < BRIEF else 0

    def park(self, worker: "Worker") -> bool:
        """Keep ``worker`` for its key's next job; False if it must end."""
        with self.lock:
            if worker.stuck and self._count < self._max_workers:
                worker.stuck = False
                self._count += 1
            if self._waiting and not worker.stuck:
                job = self._waiting.popleft()
                worker.key = job.key
                worker.inbox.put(job)
                return True
            if worker.stuck or self.closed or self._idle_count >= MAX_IDLE:
                self._end(worker)
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
            self._end(worker)
            return True

    def discard(self, worker: "Worker") -> None:
        """``worker`` could not be started."""
        with self.lock:
            self._end(worker)

    def close(self) -> None:
        """End the idle workers now and the others when they are done; waits for none."""
        with self.lock:
            self.closed = True
            workers = [worker for idle in self._idle.values() for worker in idle]
            self._idle.clear()
            self._count -= self._idle_count
            self._idle_count = 0
        for worker in workers:
            worker.inbox.put(None)

    def _take(self, worker: "Worker", idle: "list[Worker]") -> "Worker":
        idle.remove(worker)
        self._idle_count -= 1
        if not idle:
            self._idle.pop(worker.key, None)
        return worker

    def _end(self, worker: "Worker") -> None:
        self._count -= not worker.stuck
        self._forget(worker.key)

    def _forget(self, key: Hashable) -> None:
        """A worker of ``key`` ends: keys that never come back leave nothing behind."""
        if key not in self._idle:
            self._streaks.pop(key, None)


class Worker:
    """A thread that does the jobs of one ``key``, one after another; ``inbox`` takes them, None ends it.

    Attributes:
        key: whose jobs; another's if there may be no more workers, and this one was idle.
        inbox: where jobs are put.
        started: its thread was asked for.
        stuck: its call was abandoned and has not ended; guarded by the crew's lock.
    """

    def __init__(self, crew: Crew, key: Hashable) -> None:
        self.key = key
        self.started = False
        self.stuck = False
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
    if type(value) not in DATA and hasattr(type(value), "__await__"):
        return Failed(_awaitable(value), clock() - began)
    return Value(value, clock() - began)


def _awaitable(value: object) -> TypeError:
    """What a call came to that returned something to be awaited: nothing has been done."""
    if inspect.iscoroutine(value):
        value.close()  # or Python warns that it was never awaited
    return TypeError(
        f"the call returned an awaitable ({type(value).__name__}), and a fan-out on threads awaits nothing: give a "
        "function that does the work, with asyncio.run() inside if it must be a coroutine"
    )
