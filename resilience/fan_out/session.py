"""Outcomes as they come, each told of once: the machinery of the fan-out on threads.

One lock per executor and process guards all accounts; no call, callback, breaker or clock is used under it. Whatever
has threads or locks is made per process: after a fork a child starts with none.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from os import getpid
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar, final

from resilience.fan_out.calls import Batch, SessionCall, Sink, check_calls, guarded, hand_over
from resilience.fan_out.rounds import Round, check_timeout
from resilience.fan_out.workers import Crew, Worker
from resilience.outcomes import Cancelled, Failed, Outcome, Rejected, TimedOut, Value
from resilience.registry import BreakerRegistry

__all__ = ["Session"]

Orders = list[tuple[Batch, Worker | None]]
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@final
class Session:
    """The fan-out without the barrier: outcomes as they come. Made by `FanOutExecutor.session`.

    Every submitted call is told of exactly once, by its ``on_outcome`` or by `next`. Deadlines are noticed by whoever
    is in `next` or calls `expire`: no thread watches them. A context manager that closes it. Thread-safe.
    """

    def __init__(
        self,
        enlist: Callable[[], Crew],
        clock: Callable[[], float],
        breakers: BreakerRegistry | None,
        on_late: Sink | None,
    ) -> None:
        self.clock = clock
        self._enlist = enlist
        self._breakers = breakers
        self._on_late = on_late
        self._closed = False
        self._start_afresh(enlist())

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
            key: whose call it is; its breaker is the one named ``str(key)``.
            call: runs in a copy of the caller's context variables; a function that does its work when it is called.
            timeout: seconds until it counts as timed out; with 0 or less that is at once, and it never runs.
            on_outcome: told ``(key, outcome)`` instead of `next`: in the worker's thread; a ``Rejected`` in this thread
                before `submit` returns; a ``TimedOut`` in the thread that noticed. What it raises is logged.
            on_late: told what comes after ``TimedOut`` or ``Cancelled`` was told, once, mostly in the worker's thread
                (``Cancelled`` if the call never started); the session's ``on_late`` if not given. Nothing comes after
                the ``TimedOut`` of a call that was given no time.
            early: ask its breaker for an early probe (``CircuitBreaker.try_acquire``).
            here: run it in this thread instead, for a call that bounds itself: `submit` returns when it has ended, and
                its end is told at its deadline all the same, by whoever looks.

        Raises:
            ValueError: ``timeout`` bounds nothing (TypeError: is no number).
            TypeError: ``call``, ``on_outcome`` or ``on_late`` is an ``async def``: nobody would await it.
            RuntimeError: the session or its executor is closed.
        """
        check_timeout(timeout)
        check_calls({key: call}, on_outcome=on_outcome, on_late=on_late)
        sink, ours = (self._enqueue, True) if on_outcome is None else (on_outcome, False)
        late = on_late or self._on_late
        self.launch((SessionCall(key, timeout, self.clock() + timeout, call, sink, late, ours, early, here),))

    def next(self, timeout: float) -> tuple[Any, Outcome[Any]] | None:
        """Return the next ``(key, outcome)`` that no ``on_outcome`` takes, or None if ``timeout`` seconds bring none.

        Args:
            timeout: seconds to wait at most; 0 or less just looks. In a closed session nothing is waited for.
        """
        check_timeout(timeout)
        told = self._next(self.clock() + timeout)
        if self._sleepers:
            self._told.put(None)  # this thread may have been the one that knew of the next deadline
        return told

    def expire(self) -> float | None:
        """Tell of every call that is past its deadline now.

        Returns:
            The clock time of the next deadline, None if no call is pending.
        """
        crew = self._here()
        now = self.clock()
        with crew.lock:
            expired = self._round.expire(now)
            orders = self._lost_locked(crew, expired)
            upcoming = self._round.next_deadline()
        if not expired:
            return upcoming
        self._tell_abandoned(crew, [(call, TimedOut(call.timeout)) for call in expired], orders)
        with crew.lock:
            return self._round.next_deadline()

    @property
    def pending(self) -> int:
        """How many calls have no outcome yet."""
        self._here()
        return self._round.pending

    def abandoned(self, key: Hashable) -> int:
        """Return how many calls of ``key`` run on although their end was told, in all sessions of the executor."""
        return self._here().places.abandoned(key)

    def close(self) -> None:
        """Take no more calls, and tell ``Cancelled`` of what is pending; what it brings comes late. Waits for none."""
        crew = self._here()
        with crew.lock:
            self._closed = True
            cancelled = self._round.cancel()
            orders = self._lost_locked(crew, cancelled)
            sleepers = self._sleepers
        self._tell_abandoned(crew, [(call, Cancelled()) for call in cancelled], orders)
        for _ in range(sleepers):
            self._told.put(None)

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- for the executor and the workers ----------------------------------------------------------------------------

    def launch(self, calls: Sequence[SessionCall], shared: Batch | None = None) -> None:
        """Start calls, or tell why they do not run; those that will be brief go into ``shared``, if given."""
        crew = self._here()
        orders: Orders = []
        try:
            self._launch(crew, calls, shared, orders)
        except BaseException:
            self.take_back(calls)
            for batch, worker in orders:
                if worker is not None:  # it was hired: it is to find that there is nothing to do, and be idle again
                    hand_over(crew, batch, worker)
            raise

    def take_back(self, calls: Sequence[SessionCall]) -> None:
        """See that those that have not begun never will, and tell of it; after an exception that came from outside.

        One that this thread ran itself has come to nothing then, too.
        """
        crew = self._here()
        for call in calls:
            if isinstance(call.outcome, Rejected) or not (call.claim() or call.here):
                continue
            with crew.lock:
                was_pending = self._round.withdraw(call)
            if was_pending or call.outcome is None:
                call.outcome = call.outcome or Cancelled()
                call.tell(call.outcome)
            elif isinstance(call.outcome, (TimedOut, Cancelled)):
                call.tell_late(Cancelled())

    def _launch(self, crew: Crew, calls: Sequence[SessionCall], shared: Batch | None, orders: Orders) -> None:
        admitted = [call for call in calls if self._admit(call, crew)]
        with crew.lock:
            closed = self._closed or crew.closed
            if not closed:
                self._begin_locked(crew, admitted, shared, orders)
            nudge = self._sleepers and any(call.deadline < self._wake_at for call in admitted)
        if closed:
            for call in admitted:
                call.claim()
                call.report(Cancelled())
            raise RuntimeError("this session or its executor is closed and takes no more calls: open another one")
        if nudge:
            self._told.put(None)
        for batch, worker in orders:
            if worker is None:
                batch.perform(None)
            else:
                hand_over(crew, batch, worker)

    def rescue(self, shared: Batch) -> None:
        """Give the calls that wait behind one that is not brief after all a worker each."""
        if not shared.begun:
            return
        crew = self._here()
        while (call := shared.take()) is not None:
            batch = Batch(self)
            batch.add(call)
            with crew.lock:
                worker = crew.assign_locked(batch)
            if worker is not None:
                hand_over(crew, batch, worker)

    def give_up(self, batch: Batch, refusal: Rejected) -> None:
        """Tell why the calls of ``batch`` do not run."""
        while (call := batch.take()) is not None:
            if not call.claim():
                continue
            with self._crew.lock:
                in_time = self._round.end(call, refusal)
            if in_time:
                call.tell(refusal)

    def settle(self, call: SessionCall, outcome: Value[Any] | Failed | Cancelled, worker: Worker | None) -> bool:
        """Tell of a call that has ended, and park the ``worker`` it was the last job of; returns whether it was."""
        crew = self._crew
        if crew.pid != getpid():
            return False  # the call forked, and this is the child: it is the parent's to tell
        with crew.lock:
            in_time = self._round.end(call, outcome)
            crew.note_locked(call.key, outcome.duration)
            if call.telling:
                call.late = outcome
        if in_time:
            call.report(outcome)
        if in_time and call.ours:
            # Parked before anybody hears of it: whoever does and submits again finds this worker.
            parked = worker is not None and crew.park(worker)
            call.on_outcome(call.key, outcome)
            return parked
        if in_time:
            guarded(call.on_outcome, call.key, outcome)
        elif call.late is None:
            call.tell_late(outcome)
        return worker is not None and crew.park(worker)

    def park(self, worker: Worker) -> bool:
        """Keep an idle worker; False if it must end."""
        return self._crew.park(worker)

    # -- private -----------------------------------------------------------------------------------------------------

    def _here(self) -> Crew:
        """This process's crew; after a fork the session starts afresh with a new one, whose lock nobody else holds."""
        if self._crew.pid == getpid():
            return self._crew
        crew = self._enlist()
        with crew.lock:
            if self._crew is not crew:
                self._start_afresh(crew)
        return crew

    def _start_afresh(self, crew: Crew) -> None:
        self._round: Round[SessionCall] = Round(crew.places)
        self._told: SimpleQueue[tuple[Any, Outcome[Any]] | None] = SimpleQueue()  # None: look again
        self._sleepers = 0
        self._wake_at = 0.0  # of the sleeper that looked last
        self._crew = crew

    def _enqueue(self, key: Hashable, outcome: Outcome[Any]) -> None:
        self._told.put((key, outcome))

    def _admit(self, call: SessionCall, crew: Crew) -> bool:
        refusal = self._refusal(call, crew)
        if refusal is None:
            return True
        call.outcome = refusal
        guarded(call.on_outcome, call.key, refusal)
        return False

    def _refusal(self, call: SessionCall, crew: Crew) -> Rejected | TimedOut | None:
        """Why the call may not run; takes its permit if it may."""
        if call.timeout <= 0:
            return TimedOut(call.timeout)
        if self.clock() >= call.deadline:
            return Rejected(f"its {call.timeout:.3g} s were over before it could start")
        refusal = crew.places.refusal(call.key)
        if refusal is not None or self._breakers is None:
            return refusal
        breaker = self._breakers.get(str(call.key))
        permit = breaker.try_acquire(early=True) if call.early else breaker.try_acquire()
        if isinstance(permit, Rejected):
            return permit
        call.permit = permit
        if permit.probe:  # what the call calls in turn must not wait for the probe that it is itself
            call.call = partial(permit.run, call.call)
        return None

    def _begin_locked(self, crew: Crew, calls: Sequence[SessionCall], shared: Batch | None, orders: Orders) -> None:
        """Order which batch is handed over to which worker, or done here; others wait for a worker."""
        for call in calls:
            self._round.begin(call)
            if shared is not None and crew.is_brief_locked(call.key):
                shared.add(call)
                continue
            batch = Batch(self)
            batch.add(call)
            worker = None if call.here else crew.assign_locked(batch)
            if call.here or worker is not None:
                orders.append((batch, worker))
        if shared is not None and shared.calls and (worker := crew.assign_locked(shared)) is not None:
            orders.append((shared, worker))

    def _lost_locked(self, crew: Crew, abandoned: Sequence[SessionCall]) -> list[tuple[Any, Worker]]:
        """The workers of ``abandoned`` calls are stuck: what others wait for is done by new ones."""
        orders = []
        for call in abandoned:
            crew.note_locked(call.key, call.timeout)
            orders += crew.lose_locked(call.worker)
            call.telling = True
        return orders

    def _tell_abandoned(
        self, crew: Crew, abandoned: Sequence[tuple[SessionCall, Outcome[Any]]], orders: Sequence[tuple[Batch, Worker]]
    ) -> None:
        """Tell of ``abandoned`` calls, and then of what workers brought for them meanwhile: that is late."""
        try:
            for order in orders:
                hand_over(crew, *order)
            for call, outcome in abandoned:
                call.tell(outcome)
        finally:
            with crew.lock:
                for call, _ in abandoned:
                    call.telling = False
            for call, _ in abandoned:
                if call.late is not None:
                    call.tell_late(call.late)

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
        """Wait for something told, the next deadline, or ``until``; None if there is reason to look again."""
        crew, told = self._crew, self._told
        with crew.lock:
            deadline = self._round.next_deadline()
            self._wake_at = until if deadline is None else min(until, deadline)
            wait = 0.0 if self._closed else max(0.0, self._wake_at - now)
            self._sleepers += 1
        try:
            return told.get(timeout=wait)
        finally:
            with crew.lock:
                self._sleepers -= 1
