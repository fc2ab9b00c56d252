"""Many threads, one transaction: whoever finds nobody writing writes for all who came meanwhile.

There is no thread for it: the first to come leads, and leaves with its own work done. Of those who came in the
meantime the first leads next. Where several came together last time it waits a moment for them to come again: else they
would come while it writes for itself alone, and every other commit would be for one. No lock is held while anything is
written.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Commits", "Job"]

_MOMENT = 0.0005  # seconds; a commit takes about as long


class Job:
    """Something to do within a transaction. Whoever brought it waits; the one who leads does it, and sets the outcome.

    Attributes:
        work: what to do.
        value: what it returned.
        error: what it raised, or why it was not committed.
        over: whether one of these is set.
        leads: whoever waits for it does the work of all.
        abandoned: nobody waits for it any more.
    """

    __slots__ = ("_turn", "abandoned", "error", "leads", "over", "value", "work")

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work
        self.value: Any = None
        self.error: BaseException | None = None
        self.over = False
        self.leads = False
        self.abandoned = False
        self._turn = threading.Lock()
        self._turn.acquire()

    def wait(self, timeout: float = -1) -> None:
        """Until it is over, or leads; or those have come for whom it waits."""
        self._turn.acquire(timeout=timeout)

    def wake(self) -> None:
        """End the waiting."""
        self._turn.release()


class Commits:
    """Brings the jobs of all threads into as few transactions as possible. Thread-safe.

    Args:
        commit: does all of the given jobs and ends each of them, with a value or an error; one thread at a time.
    """

    def __init__(self, commit: Callable[[Sequence[Job]], None]) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._queue: list[Job] = []
        self._led = False
        self._usual = 1  # how many came together last time
        self._waiting: Job | None = None  # for so many, before it leads

    def do(self, work: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - whatever the work returns
        """Return what ``work`` returned, once that is committed.

        Raises:
            Exception: what it raised, or why it could not be committed.
        """
        job = Job(work)
        try:
            self._enqueue(job)
            if not job.leads:
                job.wait()
            if not job.over:
                self._lead(job)
        except BaseException:  # somebody ends this thread: it must not take the lead with it
            self._abandon(job)
            raise
        if job.error is not None:
            raise job.error
        return job.value

    def _enqueue(self, job: Job) -> None:
        with self._lock:
            self._queue.append(job)
            if not self._led:
                self._led = job.leads = True
            elif self._waiting is not None and len(self._queue) >= self._usual:
                self._waiting.wake()
                self._waiting = None

    def _lead(self, own: Job) -> None:
        with self._lock:
            if len(self._queue) < self._usual:
                self._waiting = own
        if self._waiting is own:
            own.wait(_MOMENT)
        with self._lock:
            self._waiting = None
            batch, self._queue = self._queue, []
            self._usual = len(batch)
        try:
            self._commit(batch)
        finally:
            with self._lock:
                self._queue[:0] = [job for job in batch if not (job.over or job.abandoned or job is own)]
                own.leads = False
                self._appoint()
            for job in batch:
                if job.over and job is not own:
                    job.wake()

    def _abandon(self, job: Job) -> None:
        with self._lock:
            job.abandoned = True
            if job in self._queue:
                self._queue.remove(job)
            if job.leads:
                job.leads, self._waiting = False, None
                self._appoint()

    def _appoint(self) -> None:
        """The next one leads, if there is one; under the lock."""
        self._led = bool(self._queue)
        if self._led:
            self._queue[0].leads = True
            self._queue[0].wake()
