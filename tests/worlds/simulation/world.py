"""Time, and the loop that drives the real planner as its driver on threads does."""

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import attrs

from resilience.breaker import BreakerConfig
from resilience.outcomes import Rejected
from resilience.polling import PollConfig, PollPlanner, PollRequest
from resilience.registry import BreakerRegistry

from .chains import Chains
from .polls import Call
from .results import Post
from .sources import Job, Simulated


@attrs.define(eq=False, slots=False)
class Simulation:
    """Runs a planner against simulated sources.

    The planner is asked when it was told something, and when it said that it wants to be: what happens far away, like
    the arrival of a task, asks it nothing.

    Args:
        sources: what is polled.
        capacity: units.
        seed: of every random draw.
        config: the timing of polls.
        breakers: of polls, one per source, which count failures and timeouts.
        update_breakers: of results, one per source.
        planner: makes the planner; tests put a referee in its place.
        chains: whether units ask for the next item with a result where the planner lets them.
    """

    sources: list[Simulated]
    capacity: int
    seed: int = 0
    config: PollConfig = attrs.field(factory=PollConfig)
    breakers: BreakerRegistry | None = None
    update_breakers: BreakerRegistry | None = None
    planner: Any = PollPlanner
    chains: bool = False
    now: float = 0.0
    starts: Counter[str] = attrs.field(factory=Counter)
    busy: dict[str, float] = attrs.field(factory=lambda: defaultdict(float))  # seconds of units until `run` ends
    order: list[str] = attrs.field(factory=list)
    polls: Counter[str] = attrs.field(factory=Counter)
    returns: int = 0  # of the task that was given back most often
    most_held: int = 0
    most_over: int = 0  # items that executed or were held, above the capacity
    steps: int = 0
    started_at: dict[str, list[float]] = attrs.field(factory=dict)
    stirred: bool = True  # the planner was told something
    _until: float = 0.0
    _wake_at: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = attrs.field(factory=list)
    _numbers: "itertools.count[int]" = attrs.field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        told = [source.source() for source in self.sources]
        self.planner = self.planner(told, self.capacity, self.config, random.Random(self.seed))
        self._draw = random.Random(self.seed + 1)
        self.by_name = {source.name: source for source in self.sources}
        self.post = Post(self)
        self.chaining = Chains(self)

    def count_failures(self, config: BreakerConfig = BreakerConfig()) -> "Simulation":  # noqa: B008 - frozen
        """Give every source a breaker for its polls and one for its results."""
        self.breakers = BreakerRegistry(config, clock=self._clock, rng=random.Random(self.seed + 3))
        self.update_breakers = BreakerRegistry(config, clock=self._clock, rng=random.Random(self.seed + 4))
        return self

    def run(self, until: float) -> "Simulation":
        """Go on until virtual time ``until``."""
        self._until, self.stirred = until, True
        while self.stirred:
            self._step()
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
            while self.stirred:
                self._step()
        self.now = until
        return self

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen at ``time``; if it concerns the planner, it says so by ``stirred``."""
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def stir(self) -> None:
        """Let the planner be asked now."""
        self.stirred = True

    def finished(self, source: Simulated) -> None:
        """A unit is free again."""
        self.stirred = True
        self.planner.finished(source.name)

    def gates(self) -> dict[str, float]:
        """The time from which each source may be probed whose breaker is not closed."""
        if self.breakers is None:
            return {}
        retry_at = {name: self.breakers.get(name).retry_at for name in self.by_name}
        return {name: at for name, at in retry_at.items() if at is not None}

    def early(self) -> dict[str, float]:
        """The time from which each source may be probed early whose breaker is open."""
        if self.breakers is None:
            return {}
        early_at = {name: self.breakers.get(name).early_at for name in self.by_name}
        return {name: at for name, at in early_at.items() if at is not None}

    def _clock(self) -> float:
        return self.now

    def _step(self) -> None:
        self.steps += 1
        self.stirred = False
        gates, early = self.gates(), self.early()
        for request in self.planner.plan(self.now, gates, early):
            self._poll(request)
        for held in self.planner.start(self.capacity):
            self.start(held.value)
        for held in self.planner.overheld(self.now):
            held.value.returns += 1
            self.returns = max(self.returns, held.value.returns)
            self.by_name[held.value.source].returned.append(held.value)
        self.planner.drain_events()
        self.most_held = max(self.most_held, self.planner.held)
        self.most_over = max(self.most_over, self.planner.held + self.planner.executing - self.capacity)
        wakeup = self.planner.next_wakeup(self.now, gates, early)
        if wakeup is not None and not self.now < self._wake_at <= wakeup:
            self._wake_at = wakeup
            self.at(wakeup, self.stir)
        if self.post.lanes:
            self.post.relay()

    def start(self, job: Job) -> None:
        """A unit begins with a task."""
        source = self.by_name[job.source]
        duration = source.task * self._draw.uniform(1 - source.spread, 1 + source.spread)
        self.starts[source.name] += 1
        self.busy[source.name] += min(duration, self._until - self.now)
        self.order.append(source.name)
        self.started_at.setdefault(source.name, []).append(self.now)
        self.at(self.now + duration, lambda: self._ended(source))

    def _ended(self, source: Simulated) -> None:
        if self.chains and self.chaining.go(source):
            return
        (self.post.deliver if source.tells else self.finished)(source)

    def _poll(self, request: PollRequest) -> None:
        source = self.by_name[request.source]
        self.polls[source.name] += 1
        permit = None
        if self.breakers is not None:
            permit = self.breakers.get(source.name).try_acquire(early=request.early)
            if isinstance(permit, Rejected):
                self.stirred = True
                self.planner.rejected(request, permit.retry_after, self.now)
                return
        Call(self, source, request, permit).go()
