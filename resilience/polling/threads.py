"""The poller on threads: runs the planner's polls on the fan-out's session and hands items to whoever takes them.

One lock guards the planner. It is held for decisions only: polls, handlers, give-backs and listeners run without it.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import attrs

from resilience._checks import check_number, check_plain, check_whole
from resilience.events import Event, Listener, ThreadUnavailable, notify
from resilience.fan_out import FanOutExecutor
from resilience.outcomes import Failed, Outcome, Rejected
from resilience.polling.changes import Changing
from resilience.polling.heartbeats import Heartbeats, is_lost, parted, wrapped
from resilience.polling.holding import Held
from resilience.polling.items import Item
from resilience.polling.pausing import pause_asked
from resilience.polling.planner import NO_GATES, PollPlanner
from resilience.polling.reasons import Explanation
from resilience.polling.reports import brought, called, report
from resilience.polling.returns import Returns
from resilience.polling.roster import GIVEN_BACK
from resilience.polling.source import PollConfig, PollRequest, Source, SourceView, check_sources
from resilience.polling.tally import Tally
from resilience.polling.track import Track
from resilience.polling.units import Desk, Tell, Units
from resilience.registry import BreakerRegistry

__all__ = ["Poller"]

log = logging.getLogger("resilience")

V = TypeVar("V")
Gates = Mapping[str, float]
GRACE = 10.0
LOOK_AGAIN = 1.0  # seconds until the poller looks again at what is due, after something of it raised
NO_THREAD = "no thread could be started"  # so begins the fan-out's reason for a call that it could not start
MORE_THREADS = "raise the limit of threads (ulimit -u; a container's pids limit), or lower the capacity"


@attrs.define
class Todo:
    """What was decided and has not been carried out: if something raises meanwhile it is put back."""

    tells: list[Tell] = attrs.field(factory=list)
    polls: list[tuple[Source[Any], PollRequest]] = attrs.field(factory=list)
    here: bool = False  # this thread polls by itself
    started: list[Held] = attrs.field(factory=list)
    back: list[Held] = attrs.field(factory=list)
    events: list[Event] = attrs.field(factory=list)


class Poller(Changing[V]):
    """Polls many sources for one capacity; a slow, hung, broken or idle source does not slow the others.

    Thread-safe. Threads start on first use: one for each poll in flight, one that keeps the time, and with `start` or
    `run` one for each unit of capacity. After a fork it belongs to the parent, if it was used before: every method
    raises `RuntimeError` in the child.

    Args:
        sources: what is polled.
        capacity: items that may execute at once.
        config: the timing of polls.
        breakers: a registry whose breakers, by source name, decide who may be polled; None for no breakers.
        clock: monotonic seconds.
        rng: draws the jitter of pauses.
        on_event: told of everything that happens, in the thread where it happened.

    Raises:
        ValueError: no source, two of one name, or a capacity below 1.
        TypeError: an argument of the wrong type; the text says what to write.
    """

    def __init__(  # noqa: PLR0913 - two of them are injected for tests alone
        self,
        sources: Iterable[Source[V]],
        *,
        capacity: int,
        config: PollConfig | None = None,
        breakers: BreakerRegistry | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_event: Listener | None = None,
    ) -> None:
        _check_options(config, breakers, on_event)
        found = check_sources(sources)
        self._sources: dict[str, Source[Any]] = {source.name: source for source in found}
        self._config = config or PollConfig()
        self._planner = PollPlanner(found, capacity, self._config, rng)
        self._capacity = capacity
        self._breakers = breakers
        self._clock = clock
        self._on_event = on_event
        self._polls = FanOutExecutor(breakers=breakers, max_abandoned=self._config.max_abandoned, clock=clock)
        self._polling = self._polls.session()
        self._returns = Returns(clock=clock, on_event=on_event, on_settled=self._returned)
        self._beats = Heartbeats(
            clock=clock,
            on_event=on_event,
            on_change=self._hurry,
            on_lost=self._drop_lost,
            max_lease=self._config.max_lease,
        )
        desk = Desk(
            self._step, self._ask, self._may_chain, self._leased, self._link, self._wait_as_unit, self._beats.end
        )
        self._units: Units[V] = Units(desk, on_event)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._earlier = threading.Condition(self._lock)
        self._wake_at = float("-inf")
        self._looks_again = False  # whoever keeps the time, before resting
        self._keeper: threading.Thread | None = None
        self._pid: int | None = None  # of the process that uses it
        self._capped: set[str] = set()  # sources whose wish for a pause was said to be too long
        self._threadless: set[str] = set()  # sources whose polls get no thread
        self._stopping = False
        self._closed = threading.Event()

    def view(self) -> dict[str, SourceView]:
        """How each source stands, by name."""
        self._check_process()
        with self._lock:
            return self._planner.view()

    def total(self) -> Tally:
        """What became of everything that came, from sources that were removed as well."""
        self._check_process()
        with self._lock:
            return self._planner.total()

    def explain(self) -> dict[str, Explanation]:
        """What each source is granted now, and why, in words and as values; by name."""
        self._check_process()
        with self._lock:
            return self._planner.explain(self._clock(), *self._gates())

    def __repr__(self) -> str:
        planner = self._planner
        return f"<Poller of {', '.join(tuple(self._sources))}: {planner.executing} executing, {planner.held} held>"

    # -- taking items ------------------------------------------------------------------------------------------------

    def take(self, timeout: float, limit: int | None = None) -> list[Item[V]]:
        """Wait until any source brought something; being returned is starting.

        Args:
            timeout: seconds to wait at most; 0 or less: not at all.
            limit: the most items to return, and with 0 none; None for as many as there are free units.

        Returns:
            The items, each holding a unit until it is done; empty after the timeout or when the poller has stopped.

        Raises:
            ValueError: a ``timeout`` that is not a number, or a ``limit`` below 0 (TypeError: not of the right type).
            RuntimeError: the poller belongs to the parent of this process, or the system has no thread for it.
        """
        check_number("timeout", max(timeout, 0.0) if isinstance(timeout, (int, float)) else timeout, least=0.0)
        if limit is not None:
            check_whole("limit", limit, least=0)
        self._keep_time()
        deadline = self._clock() + timeout
        items: list[Item[V]] = []
        try:
            while True:
                items = self._step(None, self._capacity if limit is None else limit)
                remaining = deadline - self._clock()
                if items or limit == 0 or remaining <= 0 or not self._wait_for_items(remaining):
                    return items
        except BaseException:  # out of a signal handler: nobody has them
            self._put_back(Todo(started=[Held(i.origin, wrapped(i.value, i.lease), deadline) for i in items]))
            raise

    def __iter__(self) -> Iterator[Item[V]]:
        """Items one by one, until the poller stops; each holds a unit until it is done."""
        while not self._stopping:
            yield from self.take(self._config.poll_wait, 1)

    def start(self, handler: Callable[[Item[V]], object], *, gate: threading.Event | None = None) -> None:
        """Run ``handler(item)`` for every item on ``capacity`` threads, without blocking the caller.

        An item is done when its handler returns; what a handler raises becomes a `HandlerFailed` event, and so does an
        awaitable or a generator that it returns, for nobody runs it.

        Args:
            handler: what is to be done with an item.
            gate: nothing is polled before it is set. Whoever starts hundreds of pollers starts them before one gate:
                else the work of the first ones takes the time that the others need to get their threads. It must be
                set for the threads to end, too.

        Raises:
            RuntimeError: it was started before, or stopped; it belongs to the parent of this process; or the system has
                no threads for it: what had started is stopped again then.
            TypeError: ``handler`` is not a function, or an ``async def`` or generator function.
        """
        self._check_process()
        if self._stopping:
            raise RuntimeError("this poller was stopped: make another one to run again")
        self._units.begin(handler, gate)
        try:
            self._keep_time(gate)
            self._units.resize(self._capacity)
        except RuntimeError as error:
            self._stop_half_way(gate)
            raise RuntimeError(f"the poller was not started: {error}: {MORE_THREADS}") from error
        except BaseException:
            self._stop_half_way(gate)
            raise

    def run(self, handler: Callable[[Item[V]], object]) -> None:
        """Like `start`, and wait until somebody, in another thread, calls `stop`."""
        self.start(handler)
        self._closed.wait()

    # -- what others tell --------------------------------------------------------------------------------------------

    def deliveries(self, source: str, ok: bool) -> None:  # noqa: FBT001 - a fact, not a mode
        """Say whether the last delivery to ``source`` succeeded; it is not polled while it failed (rule P13)."""
        self._step(lambda planner, _: planner.deliveries(source, ok), 0)

    def stop(self, grace: float = GRACE) -> bool:
        """Stop polling, give un-started items back, and let executing ones finish.

        Polls in flight are waited for until they are overdue, and what they bring is given back.

        Args:
            grace: seconds to wait at most.

        Returns:
            Whether everything that had started finished and everything else went back.

        Raises:
            RuntimeError: it belongs to the parent of this process.
        """
        self._check_process()
        deadline = self._clock() + grace
        with self._lock:
            self._stopping = True
            kept_before = self._planner.total().kept
            self._planner.stop()
            self._changed.notify_all()
        self._step(None, 0)
        with self._lock:
            while self._is_busy() and (remaining := deadline - self._clock()) > 0:
                self._changed.wait(remaining)
            clean = not self._is_busy() and self._planner.total().kept == kept_before
            self._closed.set()
            self._earlier.notify_all()
        for executor in (self._polls, self._returns, self._beats):
            executor.close()
        return clean

    def __enter__(self) -> "Poller[V]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._closed.is_set() and self._pid in (None, os.getpid()):
            self.stop()

    # -- decisions, under the lock -----------------------------------------------------------------------------------

    def _ask(self, tell: Tell | None) -> list[Item[V]]:
        """For a unit that has nothing else to do: the same as a step, and it may poll by itself."""
        return self._step(tell, 1, asks=True)

    def _step(self, tell: Tell | None, limit: int, *, asks: bool = False) -> list[Item[V]]:
        """Tell the planner, take what may start, and do what it decides; the one way to the planner.

        If something raises between the decision and its end, what was not done is put back and decided anew.
        """
        todo = Todo()
        try:
            self._check_process()
            todo.tells += [] if tell is None else [tell]
            with self._lock:
                self._decide(todo, limit, asks=asks)
            self._carry_out(todo)
            return [self._item(held) for held in todo.started]
        except BaseException:
            self._put_back(todo)
            raise

    def _decide(self, todo: Todo, limit: int, *, asks: bool) -> None:
        now = self._clock()
        if todo.tells:
            todo.tells.pop()(self._planner, now)
        gates, early = self._gates()
        todo.polls = [(self._sources[r.source], r) for r in self._planner.plan(now, gates, early)]
        if self._stopping:
            todo.back = self._planner.drain()
        else:
            todo.started = self._start(limit, now)
            todo.back = self._planner.overheld(now)
        if todo.back and (lost := [held for held in todo.back if is_lost(held.value, now)]):
            todo.back = [held for held in todo.back if not is_lost(held.value, now)]
            self._planner.drop_returned(lost)
        todo.here = asks and not todo.started and all(map(self._may_poll_here, todo.polls))
        self._wake(limit, now, gates, early)
        todo.events = self._planner.drain_events()

    def _start(self, limit: int, now: float) -> list[Held]:
        """What may start now; whose lease is lost does not (rule P15)."""
        started = self._planner.start(limit)
        while lost := [held for held in started if is_lost(held.value, now)]:
            started = [held for held in started if not is_lost(held.value, now)]
            self._planner.drop_started(lost)
            started += self._planner.start(limit - len(started))
        return started

    def _carry_out(self, todo: Todo) -> None:
        """Each is taken off the list when it is done, or when it may not be done twice."""
        while todo.polls and not todo.here:
            self._poll(*todo.polls[0])
            del todo.polls[0]
        if todo.back:
            self._returns.send(todo.back, self._reason)
            self._look_again()
        while todo.events:
            notify(self._on_event, todo.events.pop(0))
        while todo.polls:
            self._poll(*todo.polls[0], here=True)
            del todo.polls[0]

    def _put_back(self, todo: Todo) -> None:
        """Whoever was to carry it out was interrupted: by a signal handler, or by somebody else's code."""
        if todo == Todo():
            return
        with self._lock:
            now = self._clock()
            while todo.tells:
                todo.tells.pop()(self._planner, now)
            for _, request in todo.polls:
                self._planner.revoked(request, now)
            self._planner.put_back(todo.started, todo.back, todo.events, now)
            self._changed.notify_all()
        self._look_again()

    def _look_again(self) -> None:
        """Who keeps the time does not know what is due now."""
        with self._lock:
            self._looks_again = True
            self._earlier.notify()

    def _check_process(self) -> None:
        """Refuse to go on in a child of the process that uses this poller: its threads are not there."""
        if self._pid is not None and self._pid != os.getpid():
            raise RuntimeError(
                f"this poller belongs to process {self._pid}, which forked this one ({os.getpid()}), and its threads"
                " are there: make a poller of its own in each process, after the fork"
            )

    def _item(self, held: Held) -> Item[V]:
        value, lease = parted(held.value)
        return Item(held.track.name, value, self._units, held.track, lease)

    def _may_poll_here(self, poll: tuple[Source[Any], PollRequest]) -> bool:
        return poll[0].bounded and self._planner.is_alone(poll[0].name)

    def _may_chain(self, item: Item[V]) -> bool:
        with self._lock:
            item.asked_at = now = self._clock()
            return not self._stopping and self._planner.may_chain(item.source, now, self._gates()[0])

    def _leased(self, item: Item[V], values: Sequence[V]) -> Sequence[Any]:
        return self._beats.leased(item.origin.source, values, item.asked_at)

    def _link(self, item: Item[V]) -> bool:
        with self._lock:
            self._hurry_locked()
            return self._planner.link(item.source, self._clock(), self._gates()[0], origin=item.origin)

    def _wake(self, limit: int, now: float, gates: Gates, early: Gates) -> None:
        if self._stopping:
            self._changed.notify_all()
        elif limit == 0 and (startable := self._planner.startable()):
            self._changed.notify(startable)
        if self._wake_at > now and self._next_wakeup(now, gates, early) < self._wake_at:
            self._earlier.notify()

    def _next_wakeup(self, now: float, gates: Gates, early: Gates) -> float:
        wakeup = self._planner.next_wakeup(now, gates, early)
        heartbeat = self._beats.next_at()
        return heartbeat if wakeup is None else min(heartbeat, wakeup)

    def _gates(self) -> tuple[Gates, Gates]:
        """For sources whose breaker is not closed, from when they may be probed, and from when early."""
        if self._breakers is None:
            return NO_GATES, NO_GATES
        gates = {name: at for name in self._sources if (at := self._breakers.get(name).retry_at) is not None}
        if not gates:
            return NO_GATES, NO_GATES
        return gates, {name: at for name in gates if (at := self._breakers.get(name).early_at) is not None}

    def _is_busy(self) -> bool:
        return bool(self._planner.executing or self._planner.awaited or self._planner.total().giving_back)

    def _wait_as_unit(self) -> bool:
        return self._wait_for_items(None, as_unit=True)

    def _wait_for_items(self, timeout: float | None, *, as_unit: bool = False) -> bool:
        """Wait until items may start, or a unit is one too many; False once the poller has stopped."""
        with self._lock:
            surplus = as_unit and self._units.surplus
            if not self._stopping and not surplus and not self._planner.startable():
                self._changed.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
            return not self._stopping

    # -- polls -------------------------------------------------------------------------------------------------------

    def _poll(self, source: Source[Any], request: PollRequest, *, here: bool = False) -> None:
        settle, timeout = partial(self._settle, source, request, self._clock()), self._config.poll_timeout
        call, early = partial(called, source, request), request.early
        try:
            self._polling.submit(source.name, call, timeout, on_outcome=settle, on_late=settle, early=early, here=here)
        except RuntimeError:  # closed by a stop that could not wait: it never ran
            self._step(lambda planner, now: planner.rejected(request, None, now), 0)

    def _settle(
        self, source: Source[Any], request: PollRequest, asked: float, _: str, outcome: Outcome[Sequence[V]]
    ) -> None:
        self._say(source.name, outcome)
        values = self._beats.leased(source, brought(outcome), asked)
        self._step(partial(report, request, outcome, values), 0)

    def _say(self, name: str, outcome: Outcome[Sequence[V]]) -> None:
        """Say what is told once: a pause that is asked for is too long, or there is no thread for a poll."""
        if isinstance(outcome, Rejected) and outcome.reason.startswith(NO_THREAD):
            if name not in self._threadless:
                self._threadless.add(name)
                notify(self._on_event, ThreadUnavailable(name, "a poll", outcome.reason))
            return
        self._threadless.discard(name)
        asked = pause_asked(outcome.error) if isinstance(outcome, Failed) else 0.0
        if asked > self._config.max_retry_after and name not in self._capped:
            self._capped.add(name)
            longest = self._config.max_retry_after
            log.warning("source %r asks for a pause of %g s; it gets %g s (max_retry_after)", name, asked, longest)

    def _drop_lost(self) -> None:
        """Leases were lost: of what is held, nothing that was lent with one of them starts (rule P15)."""
        self._step(lambda planner, now: planner.drop(partial(is_lost, now=now)), 0)

    def _reason(self, held: Held) -> str:
        if held.reason == GIVEN_BACK:
            return held.reason
        if held.track.removed:
            return "its source was removed"
        return "stopping" if self._stopping else held.reason

    def _resized(self) -> None:
        """The threads of the units follow the capacity."""
        self._units.resize(self._capacity)
        with self._lock:
            self._changed.notify_all()  # idle threads that are too many end

    def _returned(self, track: Track, back: int, kept: int) -> None:
        with self._lock:
            self._planner.returned(track, back, kept)
            self._changed.notify_all()

    # -- time --------------------------------------------------------------------------------------------------------

    def _stop_half_way(self, gate: threading.Event | None) -> None:
        if gate is not None:
            gate.set()  # what has started waits there, and would not see that it is over
        self.stop(0.0)  # what has not started goes back all the same, and whoever started it may wait in `stop`

    def _keep_time(self, gate: threading.Event | None = None) -> None:
        self._check_process()
        with self._lock:
            if self._keeper is None:
                self._pid = os.getpid()
                keeper = threading.Thread(target=self._watch, args=(gate,), name="poller-time", daemon=True)
                keeper.start()
                self._keeper = keeper

    def _watch(self, gate: threading.Event | None) -> None:
        if gate is not None:
            gate.wait()
        resting = True
        while resting:
            deadlines: list[float] = []
            try:
                looked = self._polling.expire(), self._returns.expire(), self._beats.beat()
                deadlines += [at for at in looked if at is not None]
                self._step(None, 0)
            except BaseException:  # a breaker's listener, for one: without this thread nothing would go on
                log.exception("looking at what is due raised")
                deadlines += [self._clock() + LOOK_AGAIN]
            resting = self._rest(deadlines)

    def _hurry(self) -> None:
        with self._lock:
            self._hurry_locked()

    def _hurry_locked(self) -> None:
        """A heartbeat may be due earlier than whoever keeps the time knows."""
        if self._beats.next_at() < self._wake_at:
            self._earlier.notify()

    def _rest(self, deadlines: Iterable[float]) -> bool:
        """Wait until something is due, or somebody says that it is due earlier; False once the poller is closed."""
        with self._lock:
            if self._closed.is_set():
                return False
            if self._looks_again:
                self._looks_again = False
                return True
            now = self._clock()
            self._wake_at = min([self._next_wakeup(now, *self._gates()), *deadlines])
            self._earlier.wait(max(0.0, min(self._wake_at - now, threading.TIMEOUT_MAX)))
            self._wake_at = float("-inf")
            return True


def _check_options(config: object, breakers: object, on_event: object) -> None:
    """Refuse what a poller cannot use; the text says what to write.

    Raises:
        TypeError: something of the wrong type.
    """
    if config is not None and not isinstance(config, PollConfig):
        raise TypeError(
            f"config must be a PollConfig, not {config!r:.60} of type {type(config).__name__}:"
            " write config=PollConfig(poll_wait=1.0)"
        )
    if breakers is not None and (isinstance(breakers, Mapping) or not hasattr(breakers, "get")):
        raise TypeError(
            f"breakers must be a BreakerRegistry, not {breakers!r:.60} of type {type(breakers).__name__}:"
            " write breakers=BreakerRegistry(), or BreakerRegistry(BreakerConfig(...))"
        )
    if on_event is not None:
        check_plain("on_event", on_event)
