"""Discrete events in virtual time that drive the real planner: sources, tasks and faults as values, no threads."""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from resilience.outcomes import Rejected
from resilience.polling import PollConfig, PollPlanner, PollRequest, Source
from resilience.registry import BreakerRegistry

NEVER = float("inf")
INLINE_TIMEOUT = 1.0  # how long a unit waits for its result to be taken before somebody else sends it
Windows = Sequence[tuple[float, float]]


@attrs.define(eq=False)
class Job:
    """One task of a source, and how often it was given back."""

    source: str
    returns: int = 0


@attrs.define(eq=False)
class Simulated:
    """A source: ``backlog`` tasks at the start and ``rate`` new ones a second; its calls take ``trip`` seconds.

    It answers at once when it has something, else when the wait is over. A unit is busy with a task for about ``task``
    seconds and then for ``update`` seconds with its result.

    In these spans of time: ``stalls``: no call answers, what it assigned arrives afterwards; ``swallows``: tasks are
    assigned and no call ever answers; ``fails``: every call fails after its trip; ``deaf``: no result is taken.
    """

    name: str
    trip: float = 0.001
    backlog: float = 0
    rate: float = 0.0
    task: float = 0.01
    spread: float = 0.5
    update: float = 0.0
    weight: int = 1
    max_batch: int | None = None
    max_units: int | None = None
    stalls: Windows = ()
    swallows: Windows = ()
    fails: Windows = ()
    deaf: Windows = ()
    taken: int = 0
    returned: deque[Job] = attrs.field(factory=deque)

    def waiting(self, now: float) -> int:
        """Tasks that can be polled at ``now``."""
        made = self.backlog + self.rate * now
        return 10**9 if made == NEVER else int(made + 1e-9) - self.taken + len(self.returned)

    def next_at(self, now: float) -> float:
        """When the next task can be polled."""
        if self.waiting(now) > 0:
            return now
        return (self.taken + 1 - self.backlog) / self.rate if self.rate else NEVER

    def take(self, count: int, now: float) -> list[Job]:
        """Assign at most ``count`` tasks, those that came back before new ones."""
        jobs = []
        for _ in range(min(count, self.waiting(now))):
            if self.returned:
                jobs.append(self.returned.popleft())
            else:
                self.taken += 1
                jobs.append(Job(self.name))
        return jobs

    def source(self) -> Source[Any]:
        """What the planner is told of it; the simulation polls instead of it."""
        return Source(self.name, print, weight=self.weight, max_batch=self.max_batch, max_units=self.max_units)


def ends(windows: Windows, now: float) -> float | None:
    """When the span that ``now`` lies in is over; None outside all of them."""
    return next((end for begin, end in windows if begin <= now < end), None)


@attrs.define(eq=False, slots=False)
class Simulation:
    """Runs a planner against simulated sources, as the driver on threads does.

    Args:
        sources: what is polled.
        capacity: units.
        seed: of every random draw.
        config: the timing of polls.
        breakers: one per source, which count failures and timeouts.
        planner: makes the planner; tests put a referee in its place.
    """

    sources: list[Simulated]
    capacity: int
    seed: int = 0
    config: PollConfig = attrs.field(factory=PollConfig)
    breakers: BreakerRegistry | None = None
    planner: Any = PollPlanner
    now: float = 0.0
    starts: Counter[str] = attrs.field(factory=Counter)
    busy: Counter[str] = attrs.field(factory=Counter)
    order: list[str] = attrs.field(factory=list)
    polls: Counter[str] = attrs.field(factory=Counter)
    returns: int = 0
    most_held: int = 0
    steps: int = 0
    first_start: dict[str, float] = attrs.field(factory=dict)
    started_at: dict[str, list[float]] = attrs.field(factory=dict)
    _deaf: set[str] = attrs.field(factory=set)
    _wake_at: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = attrs.field(factory=list)
    _numbers: "itertools.count[int]" = attrs.field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        told = [source.source() for source in self.sources]
        self.planner = self.planner(told, self.capacity, self.config, random.Random(self.seed))
        self._draw = random.Random(self.seed + 1)
        self.by_name = {source.name: source for source in self.sources}

    def run(self, until: float) -> "Simulation":
        """Go on until virtual time ``until``."""
        self._step()
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
            self._step()
        self.now = until
        return self

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen at ``time``."""
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def gates(self) -> dict[str, float]:
        """The time from which each source may be probed whose breaker is not closed."""
        if self.breakers is None:
            return {}
        retry_at = {name: self.breakers.get(name).retry_at for name in self.by_name}
        return {name: at for name, at in retry_at.items() if at is not None}

    def _step(self) -> None:
        self.steps += 1
        gates = self.gates()
        for request in self.planner.plan(self.now, gates):
            self._poll(request)
        for held in self.planner.start(self.capacity):
            self._start(held.value)
        for held in self.planner.overheld(self.now):
            held.value.returns += 1
            self.returns = max(self.returns, held.value.returns)
            self.by_name[held.value.source].returned.append(held.value)
        self.planner.drain_events()
        self.most_held = max(self.most_held, self.planner.held)
        wakeup = self.planner.next_wakeup(self.now, gates)
        if wakeup is not None and not self.now < self._wake_at <= wakeup:
            self._wake_at = wakeup
            self.at(wakeup, lambda: None)

    # -- units -------------------------------------------------------------------------------------------------------

    def _start(self, job: Job) -> None:
        source = self.by_name[job.source]
        duration = source.task * self._draw.uniform(1 - source.spread, 1 + source.spread)
        self.starts[source.name] += 1
        self.busy[source.name] += duration
        self.order.append(source.name)
        self.started_at.setdefault(source.name, []).append(self.now)
        self.at(self.now + duration, lambda: self._deliver(source))

    def _deliver(self, source: Simulated) -> None:
        end = ends(source.deaf, self.now)
        if end is None and source.update:
            self.at(self.now + source.update, lambda: self.planner.finished(source.name))
        elif end is None or source.name in self._deaf:
            self.planner.finished(source.name)
        else:
            self.at(self.now + INLINE_TIMEOUT, lambda: self._hand_over(source, end))

    def _hand_over(self, source: Simulated, end: float) -> None:
        """Leave the result to somebody who sends it again when the destination listens."""
        self.planner.finished(source.name)
        if source.name not in self._deaf:
            self._deaf.add(source.name)
            self.planner.deliveries(source.name, ok=False)
            self.at(max(self.now, end), lambda: self._listens(source))

    def _listens(self, source: Simulated) -> None:
        self._deaf.discard(source.name)
        self.planner.deliveries(source.name, ok=True)

    # -- polls -------------------------------------------------------------------------------------------------------

    def _poll(self, request: PollRequest) -> None:
        source = self.by_name[request.source]
        self.polls[source.name] += 1
        permit = None
        if self.breakers is not None:
            permit = self.breakers.get(source.name).try_acquire()
            if isinstance(permit, Rejected):
                self.planner.rejected(request, permit.retry_after, self.now)
                return
        call = Call(self, source, request, permit)
        reached = self.now + source.trip / 2
        self.at(reached, call.reach)
        self.at(self.now + self.config.poll_timeout, call.time_out)
        self.at(self.now + self.config.give_up_after, call.give_up)


@attrs.define(eq=False)
class Call:
    """One poll on its way."""

    world: Simulation
    source: Simulated
    request: PollRequest
    permit: Any
    jobs: list[Job] = attrs.field(factory=list)
    ended: bool = False
    timed_out: bool = False

    def reach(self) -> None:
        """It is there: it fails, or waits for something."""
        now = self.world.now
        if ends(self.source.fails, now) is not None:
            self.world.at(now + self.source.trip / 2, self.fail)
            return
        leaves = min(self.source.next_at(now), now + self.request.wait)
        self.world.at(leaves, self.leave)

    def leave(self) -> None:
        """It takes what is there, and goes back."""
        now = self.world.now
        self.jobs = self.source.take(self.request.count, now)
        if ends(self.source.swallows, now) is None:
            stalled = ends(self.source.stalls, now)
            self.world.at((now if stalled is None else stalled) + self.source.trip / 2, self.arrive)

    def arrive(self) -> None:
        """It is back."""
        if self.ended:
            return
        self.ended = True
        if self.permit and not self.timed_out:
            self.permit.success()
        self.world.planner.answered(self.request, self.jobs, self.world.now)

    def fail(self) -> None:
        """It comes to nothing."""
        if self.ended:
            return
        self.ended = True
        error = OSError("down")
        if self.permit and not self.timed_out:
            self.permit.failure(error)
        self.world.planner.failed(self.request, error, self.world.now)

    def time_out(self) -> None:
        """It is abandoned."""
        if self.ended:
            return
        self.timed_out = True
        if self.permit:
            self.permit.failure(TimeoutError())
        self.world.planner.timed_out(self.request, self.world.now)

    def give_up(self) -> None:
        """Its connection is closed."""
        if not self.ended:
            self.ended = True
            self.world.planner.failed(self.request, OSError("closed"), self.world.now)
