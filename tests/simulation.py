"""Discrete events in virtual time that drive the real planner: sources, tasks and faults as values, no threads."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable

import attrs

from resilience.polling import PollConfig, PollPlanner, PollRequest, Source

NEVER = float("inf")


@attrs.define(eq=False)
class Simulated:
    """A source: ``backlog`` tasks at the start and ``rate`` new ones a second; its calls take ``trip`` seconds.

    It answers at once when it has something, else when the wait is over. Between ``down`` times it is hung (swallowing:
    assigns and never answers), and ``failing`` makes every call fail after its trip.
    """

    name: str
    trip: float = 0.001
    backlog: float = 0
    rate: float = 0.0
    task: float = 0.01
    weight: int = 1
    max_units: int | None = None
    swallows: tuple[float, float] = (NEVER, NEVER)
    fails: tuple[float, float] = (NEVER, NEVER)
    taken: int = 0

    def waiting(self, now: float) -> int:
        """Tasks that can be polled at ``now``."""
        made = self.backlog + self.rate * now
        return 10**9 if made == NEVER else int(made + 1e-9) - self.taken

    def next_at(self, now: float) -> float:
        """When the next task can be polled."""
        if self.waiting(now) > 0:
            return now
        return (self.taken + 1 - self.backlog) / self.rate if self.rate else NEVER

    def source(self) -> Source[object]:
        """What the planner is told of it; the simulation polls instead of it."""
        return Source(self.name, print, weight=self.weight, max_units=self.max_units)


@attrs.define(eq=False, slots=False)
class Simulation:
    """Runs the planner against simulated sources.

    Args:
        sources: what is polled.
        capacity: units.
        seed: of every random draw.
    """

    sources: list[Simulated]
    capacity: int
    seed: int = 0
    config: PollConfig = attrs.field(factory=PollConfig)
    now: float = 0.0
    starts: Counter[str] = attrs.field(factory=Counter)
    order: list[str] = attrs.field(factory=list)
    polls: Counter[str] = attrs.field(factory=Counter)
    given_back: Counter[str] = attrs.field(factory=Counter)
    most_held: int = 0
    _wake_at: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = attrs.field(factory=list)
    _numbers: "itertools.count[int]" = attrs.field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        self.planner = PollPlanner(
            [s.source() for s in self.sources], self.capacity, self.config, random.Random(self.seed)
        )
        self._draw = random.Random(self.seed + 1)
        self.by_name = {s.name: s for s in self.sources}

    def run(self, until: float) -> "Simulation":
        """Go on until virtual time ``until``."""
        self._step()
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
            self._step()
        self.now = until
        return self

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def _step(self) -> None:
        for request in self.planner.plan(self.now):
            self._poll(request)
        for held in self.planner.start(self.capacity):
            name = held.track.name
            self.starts[name] += 1
            self.order.append(name)
            self._at(
                self.now + self.by_name[name].task * self._draw.uniform(0.5, 1.5),
                lambda name=name: self.planner.finished(name),
            )
        for held in self.planner.overheld(self.now):
            self.given_back[held.track.name] += 1
            self.by_name[held.track.name].taken -= 1
        self.most_held = max(self.most_held, self.planner.held)
        wakeup = self.planner.next_wakeup(self.now)
        if wakeup is not None and not self.now < self._wake_at <= wakeup:
            self._wake_at = wakeup
            self._at(wakeup, lambda: None)

    def _poll(self, request: PollRequest) -> None:
        source = self.by_name[request.source]
        self.polls[source.name] += 1
        state = {"timed_out": False}

        def time_out() -> None:
            state["timed_out"] = True
            self.planner.timed_out(request, self.now)

        deadline = self.now + self.config.poll_timeout
        if source.swallows[0] <= self.now < source.swallows[1]:
            source.taken += min(request.count, source.waiting(self.now))
            self._at(deadline, time_out)
            return
        if source.fails[0] <= self.now < source.fails[1]:
            self._at(self.now + source.trip, lambda: self.planner.failed(request, OSError("down"), self.now))
            return
        reached = self.now + source.trip / 2
        leaves = min(max(reached, source.next_at(reached)), reached + request.wait)
        arrives = leaves + source.trip / 2

        def take() -> None:
            count = min(request.count, source.waiting(self.now))
            source.taken += count
            self._at(arrives, lambda: self._answer(request, count))

        self._at(leaves, take)
        if arrives > deadline:
            self._at(deadline, time_out)

    def _answer(self, request: PollRequest, count: int) -> None:
        self.planner.answered(request, [request.source] * count, self.now)
