"""Many calls, one deadline, on threads: calls that cannot be stopped are left running, and nothing waits for them.

``calls`` decides. One lock per executor and process guards all state; no call, callback, breaker or clock is used under
it. Threads and locks are created per process: after a fork the child starts without any.
"""

import asyncio
import concurrent.futures
import contextvars
import inspect
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from os import getpid
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar, final

import attrs

from resilience._checks import DATA, check_whole
from resilience.fan_out.calls import AbandonedCalls, Call, CallBook, Sink, Told, check_calls, check_timeout
from resilience.fan_out.pool import KeyedThreads, PoolThread
from resilience.outcomes import Cancelled, Failed, Outcome, Rejected, TimedOut, Value
from resilience.registry import BreakerRegistry

__all__ = ["FanOutExecutor", "Session"]

Threads = KeyedThreads["SessionCall"]
Thread = PoolThread["SessionCall"]
Orders = list[tuple["SessionCall", Thread]]
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@attrs.define(eq=False)
class SessionCall(Call):
    """A call as the job of a thread.

    Attributes:
        session: the session of the call.
        ours: whether ``on_outcome`` is our own function, which returns at once and does not raise.
        here: whether the submitting thread runs it.
        thread: the thread that runs it; None until then, or if it runs here.
    """

    session: "Session" = attrs.field(kw_only=True)
    ours: bool = False
    here: bool = False
    thread: Thread | None = attrs.field(default=None, init=False)

    def begin(self, thread: Thread | None) -> Callable[[], Outcome[Any]] | None:
        """The function to run in ``thread``, or in this one if None; None if it was taken back."""
        if not self.claim():
            return None
        if self.outcome is not None:  # it was already reported
            return Cancelled
        self.thread, self.begun = thread, True
        return partial(_attempt, self.context, self.call, self.session.clock)

    def end(self, came: Outcome[Any], thread: Thread | None) -> bool:
        """See `Session.settle`."""
        return self.session.settle(self, came, thread)


@final
class Session:
    """The fan-out without the barrier: outcomes as they arrive. Created by `FanOutExecutor.session`.

    The outcome of every submitted call is reported exactly once, to its ``on_outcome`` or by `next`. Deadlines are
    checked in `next` and `expire`: no extra thread watches them. A context manager that closes it. Thread-safe.
    """

    def __init__(
        self,
        per_process: Callable[[], "_PerProcess"],
        clock: Callable[[], float],
        breakers: BreakerRegistry | None,
        on_late: Sink | None,
    ) -> None:
        self.clock = clock
        self._per_process = per_process
        self._breakers = breakers
        self._on_late = on_late
        self._closed = False
        self._start_afresh(per_process())

    def submit(  # noqa: PLR0913 - options of one call, by keyword
        self,
        key: K,
        call: Callable[[], T],
        timeout: float,
        *,
        on_outcome: Callable[[K, Outcome[T]], None] | None = None,
        on_late: Callable[[K, Outcome[T]], None] | None = None,
        early: bool = False,
        here: bool = False,
    ) -> None:
        """Start ``call`` on a thread of ``key``; several calls of one key may run at once, each on its own thread.

        Args:
            key: the key of the call; its breaker is the one named ``str(key)``.
            call: the function, which runs in a copy of the caller's context variables and does its work when called.
            timeout: seconds until it counts as timed out; with 0 or less that is at once, and it never runs.
            on_outcome: called with ``(key, outcome)`` instead of `next`: in the worker's thread; with ``Rejected``, in
                this thread before `submit` returns; with ``TimedOut``, in the thread that checks the deadline. What it
                raises is logged.
            on_late: called once with an outcome that arrives after ``TimedOut`` or ``Cancelled`` was reported, mostly
                in the worker's thread (``Cancelled`` if the call never started); by default the session's ``on_late``.
                There is none after the ``TimedOut`` of a call with a timeout of 0 or less.
            early: ask its breaker for an early probe (``CircuitBreaker.try_acquire``).
            here: run it in this thread instead, for a call that enforces its timeout: `submit` returns when it has
                ended; its timeout is still reported at its deadline, by any thread that checks.

        Raises:
            ValueError: ``timeout`` is out of range (TypeError: not a number).
            TypeError: ``call``, ``on_outcome`` or ``on_late`` is an ``async def``, which would not be awaited.
            RuntimeError: the session or its executor is closed.
        """
        check_timeout(timeout)
        check_calls({key: call}, on_outcome=on_outcome, on_late=on_late)
        made = SessionCall(
            key,
            call,
            timeout,
            self.clock() + timeout,
            self._enqueue if on_outcome is None else on_outcome,
            on_late or self._on_late,
            early,
            session=self,
            ours=on_outcome is None,
            here=here,
        )
        self.launch((made,))

    def next(self, timeout: float) -> tuple[Any, Outcome[Any]] | None:
        """Return the next ``(key, outcome)`` of calls without ``on_outcome``, or None after ``timeout`` seconds.

        Args:
            timeout: maximum seconds to wait; with 0 or less it does not wait. Nor does it if the session is closed.
        """
        check_timeout(timeout)
        told = self._next(self.clock() + timeout)
        if self._sleepers:
            self._told.put(None)  # this thread might have been the only one waiting for the next deadline
        return told

    def expire(self) -> float | None:
        """Report all calls that are past their deadline now.

        Returns:
            The clock time of the next deadline, None if no call is pending.
        """
        threads = self._here()
        now = self.clock()
        with self._orders(threads) as orders:
            with threads.lock:
                expired = self._book.expire(now)
                self._lose(threads, expired, orders)
                upcoming = self._book.next_deadline()
            if not expired:
                return upcoming
            self._tell_abandoned(threads, [(call, TimedOut(call.timeout)) for call in expired], orders)
        with threads.lock:
            return self._book.next_deadline()

    @property
    def pending(self) -> int:
        """The number of calls that have no outcome yet."""
        self._here()
        return self._book.pending

    def abandoned(self, key: Hashable) -> int:
        """Return the number of abandoned calls of ``key`` still running, in all sessions of the executor."""
        self._here()
        return self._abandoned.count(key)

    def close(self) -> None:
        """Accept no more calls, and report pending ones as ``Cancelled``; their outcomes are late. Does not wait."""
        threads = self._here()
        with self._orders(threads) as orders:
            with threads.lock:
                self._closed = True
                cancelled = self._book.cancel()
                self._lose(threads, cancelled, orders)
                sleepers = self._sleepers
            self._tell_abandoned(threads, [(call, Cancelled()) for call in cancelled], orders)
        for _ in range(sleepers):
            self._told.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- for the executor and the threads ----------------------------------------------------------------------------

    def launch(self, calls: Sequence[SessionCall]) -> None:
        """Start ``calls``, or report why they do not run."""
        threads = self._here()
        orders: Orders = []
        try:
            self._launch(threads, calls, orders)
        except BaseException:
            self.take_back(calls)
            for call, thread in orders:  # it was assigned: it will find that there is nothing to do, and be idle again
                self._hand_over(threads, call, thread)
            raise

    def take_back(self, calls: Sequence[SessionCall]) -> None:
        """Cancel ``calls`` that have not begun, and report it; after an exception from outside.

        A call that this thread was running itself has been interrupted too.
        """
        threads = self._here()
        for call in calls:
            if isinstance(call.outcome, Rejected) or not (call.claim() or call.here):
                continue
            with threads.lock:
                was_pending = self._book.withdraw(call)
            if was_pending or call.outcome is None:
                call.outcome = call.outcome or Cancelled()
                call.tell(call.outcome)
            elif isinstance(call.outcome, (TimedOut, Cancelled)):
                call.tell_late(Cancelled())

    def settle(self, call: SessionCall, outcome: Outcome[Any], thread: Thread | None) -> bool:
        """Report a call that has ended, and park the ``thread`` that ran it; returns whether it was parked."""
        threads = self._threads
        if threads.pid != getpid():
            return False  # the call forked, and this is the child: the parent reports it
        with threads.lock:
            told = self._book.end(call, outcome)
        if told is Told.IN_TIME and call.ours:
            # Parked before the outcome is reported: a receiver that submits another call then finds this thread idle.
            call.report(outcome)
            parked = thread is not None and threads.park(thread)
            call.on_outcome(call.key, outcome)
            return parked
        if told is Told.IN_TIME:
            call.tell(outcome)
        elif told is Told.LATE:
            call.tell_late(outcome)
        return thread is not None and threads.park(thread)

    # -- private -----------------------------------------------------------------------------------------------------

    def _here(self) -> Threads:
        """This process's threads; after a fork the session starts again with new ones, whose lock is free."""
        if self._threads.pid == getpid():
            return self._threads
        mine = self._per_process()
        with mine.threads.lock:
            if self._threads is not mine.threads:
                self._start_afresh(mine)
        return mine.threads

    def _start_afresh(self, mine: "_PerProcess") -> None:
        self._abandoned = mine.abandoned
        self._book: CallBook[SessionCall] = CallBook(mine.abandoned, self._breakers)
        self._told: SimpleQueue[tuple[Any, Outcome[Any]] | None] = SimpleQueue()  # None: look again
        self._sleepers = 0
        self._wake_at = 0.0  # of the sleeper that checked last
        self._threads = mine.threads

    def _enqueue(self, key: Hashable, outcome: Outcome[Any]) -> None:
        self._told.put((key, outcome))

    def _launch(self, threads: Threads, calls: Sequence[SessionCall], orders: Orders) -> None:
        admitted = [call for call in calls if self._admit(call)]
        with threads.lock:
            closed = self._closed or threads.closed
            for call in () if closed else admitted:
                self._book.begin(call)
                if not call.here:
                    threads.assign(call, orders)
            nudge = self._sleepers and any(call.deadline < self._wake_at for call in admitted)
        if closed:
            for call in admitted:
                call.claim()
                call.report(Cancelled())
            raise RuntimeError("this session or its executor is closed: create another one")
        if nudge:
            self._told.put(None)
        for order in orders:
            self._hand_over(threads, *order)
        for call in admitted:
            if call.here and (run := call.begin(None)) is not None:
                call.end(run(), None)

    def _admit(self, call: SessionCall) -> bool:
        refusal = self._book.admit(call, self.clock())
        if refusal is None:
            return True
        call.outcome = refusal
        call.tell(refusal)
        return False

    def _hand_over(self, threads: Threads, call: SessionCall, thread: Thread) -> None:
        """Give ``call`` to ``thread``; if that cannot start, reject it, unless it was reported or taken back."""
        try:
            threads.hand_over(call, thread)
        except RuntimeError as error:
            if not call.claim():
                return
            refusal = Rejected(f"no thread could be started for it: {error}")
            call.session.settle(call, Cancelled() if call.outcome else refusal, None)

    @contextmanager
    def _orders(self, threads: Threads) -> Iterator[Orders]:
        """The calls that threads are assigned to; an exception from outside must not keep those threads from them."""
        orders: Orders = []
        try:
            yield orders
        except BaseException:
            for call, thread in orders:  # those that were handed over already have nothing to do
                self._hand_over(threads, call, thread)
            raise

    def _lose(self, threads: Threads, abandoned: Sequence[SessionCall], orders: Orders) -> None:
        """Record that the threads of ``abandoned`` calls are stuck: new threads do the waiting jobs."""
        for call in abandoned:
            threads.lose(call.thread, orders)

    def _tell_abandoned(
        self, threads: Threads, abandoned: Sequence[tuple[SessionCall, Outcome[Any]]], orders: Orders
    ) -> None:
        """Report ``abandoned`` calls, and then the outcomes that arrived for them meanwhile, which are late."""
        try:
            for order in orders:
                self._hand_over(threads, *order)
            for call, outcome in abandoned:
                call.tell(outcome)
        finally:
            with threads.lock:
                late = self._book.were_told(call for call, _ in abandoned)
            for call, outcome in late:
                call.tell_late(outcome)

    def _next(self, until: float) -> tuple[Any, Outcome[Any]] | None:
        while True:
            self.expire()
            now = self.clock()
            try:
                told = self._sleep(now, until)
            except Empty:
                if self._closed or now >= until:
                    return None
            else:
                if told is not None:
                    return told

    def _sleep(self, now: float, until: float) -> tuple[Any, Outcome[Any]] | None:
        """Wait for an outcome, the next deadline, or ``until``; None if deadlines should be checked again."""
        threads, told = self._threads, self._told
        with threads.lock:
            deadline = self._book.next_deadline()
            self._wake_at = until if deadline is None else min(until, deadline)
            wait = 0.0 if self._closed else max(0.0, self._wake_at - now)
            self._sleepers += 1
        try:
            return told.get(timeout=wait)
        finally:
            with threads.lock:
                self._sleepers -= 1


@final
class FanOutExecutor:
    """Runs many calls with one deadline, however they behave, on persistent threads. Thread-safe.

    Calls must wait without holding the GIL, as I/O does; one that holds it blocks all threads. A call past its deadline
    is abandoned: it is left running, and nothing waits for it, not even process exit. Threads are created on first use,
    per process: after a fork the child starts without threads, and without its parent's calls. A context manager that
    closes it.

    Args:
        breakers: the breaker named ``str(key)`` is asked before each call and gets its outcome: a value is a success;
            an error is a failure; so is a timeout, when it is reported and not when the call ends; a cancelled call is
            neither.
        max_workers: maximum number of calls that run at once, at least 1, and so of threads; None for no limit. Further
            calls wait in order of submission; one that is still waiting at its deadline is ``TimedOut`` like any other,
            without having run, and nothing is reported to its breaker. An abandoned call does not block others: its
            thread does not count, and is limited by ``max_abandoned``.
        max_abandoned: number of abandoned calls of one key, at least 1, at which its next calls are ``Rejected`` until
            one ends.
        clock: returns monotonic seconds. `run` and `Session.next` wait in real seconds for it to advance.

    Raises:
        ValueError: ``max_abandoned`` or ``max_workers`` is below 1 (TypeError: not an integer).
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
        self._processes = {getpid(): self._make()}

    def run(
        self,
        calls: Mapping[K, Callable[[], T]],
        timeout: float,
        *,
        on_late: Callable[[K, Outcome[T]], None] | None = None,
    ) -> dict[K, Outcome[T]]:
        """Run all ``calls`` at once; return when all have ended, or at the deadline.

        Args:
            calls: functions by key; each runs in a copy of the caller's context variables. They must do their work when
                called: one that returns an awaitable is ``Failed``.
            timeout: seconds until the deadline; with 0 or less it has passed: each call is ``TimedOut``, and none runs.
            on_late: called once, in another thread, with ``(key, outcome)`` of a call that ends after it timed out: the
                outcome might be real work. Without it such outcomes are dropped.

        Returns:
            An outcome for every key, in the order of ``calls``; outcomes that exist by the deadline are never lost.

        Raises:
            ValueError: ``timeout`` is out of range (TypeError: not a number).
            TypeError: ``calls`` is not a mapping, or contains an ``async def``, which would not be awaited.
            RuntimeError: the executor is closed. Exceptions of the calls are never raised.
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
        latch, session = _Latch(len(calls)), self.session()
        started = [
            SessionCall(key, call, timeout, deadline, latch.count, on_late, session=session, ours=True)
            for key, call in calls.items()
        ]
        try:
            session.launch(started)
            while not latch.is_open and (left := deadline - self._clock()) > 0:
                latch.wait(left)
            if not latch.is_open:
                session.expire()
        except BaseException:
            session.take_back(started)
            session.close()
            raise
        return {call.key: call.outcome for call in started}  # type: ignore[misc] # each was told of

    def session(self, *, on_late: Callable[[Any, Outcome[Any]], None] | None = None) -> Session:
        """Return a new session; ``on_late`` is the default for its calls.

        Raises:
            RuntimeError: the executor is closed.
            TypeError: ``on_late`` is an ``async def``, which would not be awaited.
        """
        check_calls({}, on_late=on_late)
        if self._closed:
            raise RuntimeError("this executor is closed: create another one")
        return Session(self._per_process, self._clock, self._breakers, on_late)

    def close(self) -> None:
        """Accept no more calls and end idle threads; running calls are left to their sessions. Does not wait."""
        self._closed = True
        self._per_process().threads.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _per_process(self) -> "_PerProcess":
        """This process's part. Uses atomic setdefault, as any lock might have been held by a thread at the fork."""
        pid = getpid()
        return self._processes.get(pid) or self._processes.setdefault(pid, self._make())

    def _make(self) -> "_PerProcess":
        threads = Threads(closed=self._closed, most=self._max_workers)
        return _PerProcess(threads, AbandonedCalls(self._max_abandoned))


@attrs.frozen
class _PerProcess:
    """The part of an executor in one process."""

    threads: Threads
    abandoned: AbandonedCalls


class _Latch:
    """Opens when ``expected`` outcomes have been counted."""

    def __init__(self, expected: int) -> None:
        self.is_open = not expected
        self._missing = list(range(expected))  # pop() is atomic
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


def _attempt(
    context: contextvars.Context, call: Callable[[], Any], clock: Callable[[], float]
) -> Value[Any] | Failed | Cancelled:
    """Run a call and return its outcome; takes no job, as an error keeps this frame alive, and a job its error."""
    began = clock()
    try:
        value = context.run(call)
    except (asyncio.CancelledError, concurrent.futures.CancelledError):
        return Cancelled(clock() - began)
    except BaseException as error:  # noqa: BLE001 - SystemExit is an outcome too; it must not end the thread
        return Failed(error, clock() - began)
    if type(value) not in DATA and hasattr(type(value), "__await__"):
        return Failed(_awaitable(value), clock() - began)
    return Value(value, clock() - began)


def _awaitable(value: object) -> TypeError:
    """The error for a call that returned an awaitable: nothing has been done."""
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns that it was never awaited
    return TypeError(
        f"the call returned an awaitable ({type(value).__name__}), but a fan-out on threads awaits nothing: pass a "
        "function that does the work, with asyncio.run() inside if it must be a coroutine"
    )
