"""Threads that persist: each serves one key, so that what it keeps (a connection) stays with that key.

A thread that is stuck is not idle, so its key's next job gets another one; once free again it is idle like any other.
All are daemons: none keeps the process from exiting.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from os import getpid
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["IDLE_SECONDS", "MAX_IDLE", "Job", "KeyedThreads", "PoolThread"]

IDLE_SECONDS = 60.0  # an idle thread ends after that
MAX_IDLE = 256  # threads a pool keeps idle: keys that never come back must not pile up threads


class Job(Protocol):
    """What a thread does; no method raises."""

    @property
    def key(self) -> Hashable:
        """Whose job it is."""

    def begin(self, thread: "PoolThread[Any]") -> Callable[[], Any] | None:
        """Return what is to be run in ``thread``; None if there is nothing to do any more."""

    def end(self, came: Any, thread: "PoolThread[Any]") -> bool:  # noqa: ANN401 - what that returned
        """Take what it came to, and return whether ``thread`` was parked: one that was not ends."""


J = TypeVar("J", bound=Job)


class KeyedThreads(Generic[J]):
    """What an executor has per process: its threads, and the lock for all its accounts.

    ``assign`` and ``lose`` are called with the lock held, the others without.

    Args:
        closed: no thread is kept.
        most: how many there may be that are not stuck; with so many, jobs wait for one. A stuck one is not counted: its
            key's abandoned calls are bounded, so that no key can take the threads of all others.
    """

    def __init__(self, *, closed: bool, most: int | None = None) -> None:
        self.pid = getpid()
        self.lock = threading.Lock()
        self.closed = closed
        self._most = math.inf if most is None else most
        self._counted: set[PoolThread[J]] = set()  # that are not stuck
        self._waiting: deque[J] = deque()
        self._idle: dict[Hashable, list[PoolThread[J]]] = {}
        self._idle_count = 0

    def assign(self, job: J, orders: "list[tuple[J, PoolThread[J]]]") -> None:
        """Order a thread for ``job``: an idle one of its key, that which worked last; or a new one; or let it wait."""
        if idle := self._idle.get(job.key):
            orders.append((job, idle[-1]))
            self._take(idle[-1], idle)
        elif len(self._counted) < self._most:
            orders.append((job, PoolThread(self, job.key)))
            self._counted.add(orders[-1][1])
        elif idle := next(filter(None, self._idle.values()), []):
            orders.append((job, idle[0]))
            self._take(idle[0], idle).key = job.key
        else:
            self._waiting.append(job)

    def lose(self, thread: "PoolThread[J] | None", orders: "list[tuple[J, PoolThread[J]]]") -> None:
        """``thread`` is stuck, and not counted now: order new ones for jobs that need not wait any more."""
        if thread is not None:
            thread.stuck = True
            self._counted.discard(thread)
        while self._waiting and len(self._counted) < self._most:
            job = self._waiting.popleft()
            orders.append((job, PoolThread(self, job.key)))
            self._counted.add(orders[-1][1])

    def hand_over(self, job: J, thread: "PoolThread[J]") -> None:
        """Give ``job`` to the ``thread`` that was ordered for it, and start that if it is a new one.

        Raises:
            RuntimeError: the system has no thread left.
        """
        thread.inbox.put(job)
        if thread.started:
            return
        try:
            thread.start()
        except RuntimeError:
            with self.lock:
                self._counted.discard(thread)
            raise

    def park(self, thread: "PoolThread[J]") -> bool:
        """Keep ``thread`` for its key's next job; False if it must end."""
        with self.lock:
            if thread not in self._counted and len(self._counted) < self._most:
                thread.stuck = False
                self._counted.add(thread)
            if self._waiting and not thread.stuck:
                job = self._waiting.popleft()
                thread.key = job.key
                thread.inbox.put(job)
                return True
            if thread.stuck or self.closed or self._idle_count >= MAX_IDLE:
                self._counted.discard(thread)
                return False
            idle = self._idle.setdefault(thread.key, [])
            if thread not in idle:  # it may have been given a job twice by whoever was interrupted
                idle.append(thread)
                self._idle_count += 1
            return True

    def dismiss(self, thread: "PoolThread[J]") -> bool:
        """Take an idle ``thread`` off the list; False if a job is on its way to it."""
        with self.lock:
            idle = self._idle.get(thread.key, [])
            if thread not in idle:
                return False
            self._take(thread, idle)
            self._counted.discard(thread)
            return True

    def close(self) -> None:
        """End the idle threads now and the others when they are done; waits for none."""
        with self.lock:
            self.closed = True
            threads = [thread for idle in self._idle.values() for thread in idle]
            self._idle.clear()
            self._idle_count = 0
            self._counted.difference_update(threads)
        for thread in threads:
            thread.inbox.put(None)

    def _take(self, thread: "PoolThread[J]", idle: "list[PoolThread[J]]") -> "PoolThread[J]":
        idle.remove(thread)
        self._idle_count -= 1
        if not idle:
            self._idle.pop(thread.key, None)
        return thread


class PoolThread(Generic[J]):
    """A thread that does the jobs of one ``key``, one after another; ``inbox`` takes them, None ends it.

    Attributes:
        key: whose jobs; another's if there may be no more threads, and this one was idle.
        inbox: where jobs are put.
        stuck: its call was abandoned and has not ended; guarded by the pool's lock.
    """

    def __init__(self, pool: KeyedThreads[J], key: Hashable) -> None:
        self.key = key
        self.stuck = False
        self.inbox: SimpleQueue[J | None] = SimpleQueue()
        self._pool = pool
        self._fresh = True
        self._job: J | None = None  # no local: an error keeps the frames that led to it, and a job its error

    @property
    def started(self) -> bool:
        """Whether it looks into its inbox."""
        return not hasattr(self, "_fresh")

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the system has no thread left.
        """
        threading.Thread(target=self._work, name=f"fan-out {self.key!s:.40}", daemon=True).start()

    def _work(self) -> None:
        try:
            del self._fresh
        except AttributeError:  # it was started twice, by whoever was interrupted: the other one does the work
            return
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """A frame of its own for each job: an idle thread keeps nothing of its last one alive."""
        try:
            self._job = self.inbox.get(timeout=IDLE_SECONDS)
        except Empty:
            self._job = None if self._pool.dismiss(self) else self.inbox.get()
        if self._job is None:
            return False
        run = self._job.begin(self)
        parked = self._pool.park(self) if run is None else self._job.end(run(), self)
        self._job = None
        return parked
