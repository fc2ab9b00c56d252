"""Many calls, one deadline, on threads: what cannot be stopped is left running, and nobody waits for it."""

import time
from collections.abc import Callable, Hashable, Mapping
from os import getpid
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar, final

from resilience._checks import check_whole
from resilience.fan_out.calls import Batch, SessionCall, check_calls
from resilience.fan_out.rounds import Places, check_timeout
from resilience.fan_out.session import Session
from resilience.fan_out.workers import Crew
from resilience.outcomes import Outcome, TimedOut
from resilience.registry import BreakerRegistry

__all__ = ["FanOutExecutor"]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

# Seconds for which calls that used to be brief may wait for each other: the interpreter's own switch interval, and
# longer than a tick of the system, since a finer timer would cost as much as the hand-offs that are saved.
_BRIEF_AT_MOST = 0.005


@final
class FanOutExecutor:
    """Runs many calls against one deadline, however they behave, on threads that persist. Thread-safe.

    Calls must wait without holding the interpreter lock, as I/O does; one that holds it delays everybody. A call past
    its deadline is abandoned: left running, and waited for by nobody, not even by process exit. Threads are made on
    first use, per process: after a fork the child starts with none, and without its parent's calls. A context manager
    that closes it.

    Args:
        breakers: the breaker named ``str(key)`` is asked before each call and told what came of it: a value is a
            success; an error is a failure; so is a timeout, when it is told and not when the call ends; a cancelled
            call is neither.
        max_workers: how many calls may run at once, at least 1, and so how many threads there are; None for as many as
            there are calls. Further calls wait, first come, first served; one that still waits at its deadline is
            ``TimedOut`` like any other, without having run, and its breaker hears nothing of that. An abandoned call
            does not keep others waiting: it has its thread besides, which ``max_abandoned`` bounds.
        max_abandoned: how many abandoned calls of one key, at least 1, make its next calls ``Rejected`` until one ends.
        clock: monotonic seconds. `run` and `Session.next` wait in real seconds for it to move.

    Raises:
        ValueError: ``max_abandoned`` or ``max_workers`` below 1 (TypeError: no whole number).
    """

    def __init__(
        self,
        *,
        breakers: BreakerRegistry | None = None,
        max_abandoned: int = 2,
        max_workers: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_workers is not None:
            check_whole("max_workers", max_workers, least=1)
        self._breakers = breakers
        self._max_abandoned = max_abandoned
        self._max_workers = max_workers
        self._clock = clock
        self._closed = False
        self._crews = {getpid(): self._new_crew()}

    def run(
        self,
        calls: Mapping[K, Callable[[], T]],
        timeout: float,
        *,
        on_late: Callable[[K, Outcome[T]], None] | None = None,
    ) -> dict[K, Outcome[T]]:
        """Run all ``calls`` at once; return when all have ended, or at the deadline.

        Args:
            calls: what to call, by key; each runs in a copy of the caller's context variables. Functions that do
                their work when they are called: what one returns that must be awaited is ``Failed``.
            timeout: seconds until the deadline; with 0 or less that is over: every call is ``TimedOut``, and none runs.
            on_late: told ``(key, outcome)`` once, in another thread, of what a call brings after it timed out: it may
                be real work. Without it that is dropped.

        Returns:
            An outcome for every key, in the order of ``calls``; what exists by the deadline is in it.

        Raises:
            ValueError: ``timeout`` bounds nothing (TypeError: is no number).
            TypeError: ``calls`` is no mapping, or has an ``async def`` in it, which nobody would await.
            RuntimeError: the executor is closed. Nothing is raised for what a call does.
        """
        check_timeout(timeout)
        if not isinstance(calls, Mapping):
            raise TypeError(
                f"calls must be a mapping of keys to functions, not a {type(calls).__name__}: write "
                "run({key: function, ...}, timeout), or run(dict(enumerate(functions)), timeout) if they have no names"
            )
        check_calls(calls, on_late=on_late)
        if timeout <= 0 and not self._closed:
            return dict.fromkeys(calls, TimedOut(timeout))
        deadline = self._clock() + timeout
        latch = _Latch(len(calls))
        started = [
            SessionCall(key, timeout, deadline, call, latch.count, on_late, ours=True) for key, call in calls.items()
        ]
        session = self.session()
        shared = Batch(session)
        try:
            session.launch(started, shared)
            while not latch.is_open and (left := deadline - self._clock()) > 0:
                latch.wait(min(left, _BRIEF_AT_MOST) if shared.calls else left)
                if left > _BRIEF_AT_MOST:
                    session.rescue(shared)
            if not latch.is_open:
                session.expire()
            session.rescue(shared)
        except BaseException:
            session.take_back(started)
            session.close()
            raise
        return {call.key: call.outcome for call in started}  # type: ignore[misc] # each was told of

    def session(self, *, on_late: Callable[[Any, Outcome[Any]], None] | None = None) -> Session:
        """Return a new session; ``on_late`` is for the calls that are submitted without one of their own.

        Raises:
            RuntimeError: the executor is closed.
            TypeError: ``on_late`` is an ``async def``: nobody would await it.
        """
        check_calls({}, on_late=on_late)
        if self._closed:
            raise RuntimeError("this executor is closed: make another one")
        return Session(self._crew, self._clock, self._breakers, on_late)

    def close(self) -> None:
        """Take no more calls and end idle threads; calls that run are left to their sessions. Waits for none."""
        self._closed = True
        self._crew().close()

    def __enter__(self) -> "FanOutExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _crew(self) -> Crew:
        """This process's. One-step setdefault, for any lock may have been held by another thread at the fork."""
        pid = getpid()
        crew = self._crews.get(pid)
        return crew or self._crews.setdefault(pid, self._new_crew())

    def _new_crew(self) -> Crew:
        return Crew(Places(self._max_abandoned), closed=self._closed, max_workers=self._max_workers)


class _Latch:
    """Opens when ``expected`` outcomes were counted."""

    def __init__(self, expected: int) -> None:
        self.is_open = not expected
        self._missing = list(range(expected))  # pop() is one step
        self._opened: SimpleQueue[None] = SimpleQueue()

    def count(self, _: Hashable, __: Outcome[Any]) -> None:
        self._missing.pop()
        if not self._missing:
            self.is_open = True
            self._opened.put(None)

    def wait(self, seconds: float) -> None:
        try:
            self._opened.get(timeout=seconds)
        except Empty:
            return
