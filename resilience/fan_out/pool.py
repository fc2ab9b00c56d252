"""Persistent threads: each serves one key, so that its resources (such as a connection) stay with that key.

A stuck thread is not idle, so its key's next job gets another one; once it is free, it is idle like any other. All are
daemon threads: none keeps the process from exiting.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from os import getpid
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["IDLE_SECONDS", "MAX_IDLE", "Job", "KeyedThreads", "PoolThread"]

IDLE_SECONDS = 60.0  # after which an idle thread ends
MAX_IDLE = 256  # idle threads of a pool: keys that are never used again must not accumulate threads


class Job(Protocol):
    """The work of a thread; no method raises."""

    @property
    def key(self) -> Hashable:
        """The key of the job."""

    def begin(self, thread: "PoolThread[Any]") -> Callable[[], Any] | None:
        """Return the function to run in ``thread``; None if there is nothing to do any more."""

    def end(self, came: Any, thread: "PoolThread[Any]") -> bool:  # noqa: ANN401 - what that returned
        """Process the outcome, and return whether ``thread`` was parked; otherwise the thread ends."""


J = TypeVar("J", bound=Job)


class KeyedThreads(Generic[J]):
    """The threads of an executor in one process, and the lock for all its state.

    ``assign`` and ``lose`` are called with the lock held, the others without.

    Args:
        closed: whether no idle thread is kept.
        most: maximum number of threads that are not stuck; further jobs wait for one. Stuck threads do not count, as
            the number of abandoned calls per key is limited, so that no key can use up the threads of all others.
    """

    def __init__(self, *, closed: bool, most: int | None = None) -> None:
        self.pid = getpid()
        self.lock = threading.Lock()
        self.closed = closed
        self._most = math.inf if most is None else most
        self._counted: set[PoolThread[J]] = set()  # those that are not stuck
        self._waiting: deque[J] = deque()
        self._idle: dict[Hashable, list[PoolThread[J]]] = {}
        self._idle_count = 0

    def assign(self, job: J, orders: "list[tuple[J, PoolThread[J]]]") -> None:
        """Assign a thread to ``job``: the last used idle one of its key; or a new one; or let it wait."""
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
        """Record that ``thread`` is stuck, so it no longer counts: assign new threads to waiting jobs."""
        if thread is not None:
            self._counted.discard(thread)  # first: a stuck thread that counted could never be parked
            thread.stuck = True
        while self._waiting and len(self._counted) < self._most:
            job = self._waiting[0]
            orders.append((job, PoolThread(self, job.key)))  # first: an interrupted caller hands over what is here
            self._counted.add(orders[-1][1])
            self._waiting.popleft()

    def hand_over(self, job: J, thread: "PoolThread[J]") -> None:
        """Give ``job`` to the ``thread`` that was assigned to it, and start that if it is a new one.

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
            if thread not in idle:  # an interrupted caller might have given it a job twice
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
        """End idle threads now and the others when they are done, without waiting for them."""
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
    """A thread that does the jobs of one ``key``, one after another; ``inbox`` accepts them, and None ends it.

    Attributes:
        key: the key of its jobs; it changes if the number of threads is at its limit and this one is idle.
        inbox: the queue for jobs.
        stuck: whether its call was abandoned and has not ended; guarded by the pool's lock.
    """

    def __init__(self, pool: KeyedThreads[J], key: Hashable) -> None:
        self.key = key
        self.stuck = False
        self.inbox: SimpleQueue[J | None] = SimpleQueue()
        self._pool = pool
        self._fresh = True
        self._job: J | None = None  # not a local variable: an error keeps its frames alive, and a job its error

    @property
    def started(self) -> bool:
        """Whether it is reading its inbox."""
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
        except AttributeError:  # an interrupted caller started it twice: the other one does the work
            return
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Do one job, in a separate frame so that an idle thread keeps nothing of its last job alive."""
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
