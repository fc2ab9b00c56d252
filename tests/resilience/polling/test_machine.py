"""Whatever sources, breakers, results and tasks do, the planner keeps its rules: random lives under a referee.

The referee (`referee.py`) is an account of its own, written from the rules' text: it checks P1 to P4, P6, P8, P9, P11
and P13 at every plan and every start. Two kinds of lives: any order of events at all, and worlds in which time runs.
"""

import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from referee import Referee
from simulation import NEVER, Simulated, Simulation
from sizes import part

from resilience.polling import Explanation, PollConfig, PollRequest, Source, Why
from resilience.registry import BreakerRegistry

CONFIG = PollConfig(poll_wait=1.0, overdue_after=0.5, poll_timeout=5.0, give_up_after=30.0, max_hold=5.0)
CAPS = st.none() | st.integers(1, 4)


class PollerLife(RuleBasedStateMachine):
    """Any order of events, at any time, whether or not the driver is quick to start what may start."""

    @initialize(
        sources=st.lists(st.tuples(st.integers(1, 5), CAPS, CAPS, st.booleans()), min_size=1, max_size=5),
        capacity=st.integers(1, 10),
        seed=st.integers(0, 1000),
    )
    def begin(self, sources: list[tuple[int, int | None, int | None, bool]], capacity: int, seed: int) -> None:
        """Some sources, some capacity; some units are kept for some of the first sources."""
        self.now = 0.0
        told = [
            Source(
                f"s{i}",
                print,
                weight=weight,
                max_batch=batch,
                max_units=units,
                reserve=int(reserves and i + 2 < capacity),
            )
            for i, (weight, batch, units, reserves) in enumerate(sources)
        ]
        self.names = [source.name for source in told]
        self.referee = Referee(told, capacity, CONFIG, random.Random(seed))
        self.live: dict[str, tuple[PollRequest, float]] = {}
        self.abandoned: list[PollRequest] = []
        self.executing: list[str] = []
        self.chaining: list[tuple[str, float]] = []
        self.left: list[str] = []
        self.gates: dict[str, float] = {}
        self.early: dict[str, float] = {}
        self.step()

    def step(self) -> None:
        """What a driver does after every event, except that it need not start anything."""
        told = self.referee.planner.explain(self.now, self.gates, self.early)
        sent = self.referee.plan(self.now, self.gates, self.early)
        assert {request.source: request.count for request in sent} == {
            n: e.granted for n, e in told.items() if e.granted
        }
        for name, explanation in told.items():
            self.check_explanation(name, explanation)
        for request in sent:
            self.live[request.source] = request, self.now
        self.referee.overheld(self.now)
        self.referee.next_wakeup(self.now, self.gates, self.early)

    def check_explanation(self, name: str, told: Explanation) -> None:
        """P10: what it says is so, as far as this world knows."""
        account = self.referee.accounts[name]
        assert bool(told.granted) is (told.why in (Why.GRANTED, Why.PROBED))
        assert (told.why is Why.IN_FLIGHT) <= (name in self.live)
        assert (told.why is Why.OPEN) <= (self.gates.get(name, self.now) > self.now)
        assert (told.why is Why.PAUSED) is account.paused
        assert (told.why is Why.UNDELIVERED) is (not account.delivering and not account.paused)
        if told.why is Why.RESTING:
            assert told.until is not None
            assert self.now < told.until <= account.latest
        assert told.reason

    def start_all(self) -> None:
        """Idle units take what may start."""
        self.executing += [held.track.name for held in self.referee.start(self.referee.capacity)]

    def land(self, data: st.DataObject) -> PollRequest:
        """Some poll in flight comes back."""
        return self.live.pop(data.draw(st.sampled_from(sorted(self.live))))[0]

    @rule(seconds=st.sampled_from([0.0005, 0.003, 0.02, 0.06, 0.3, 0.6, 2.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        """The driver wakes up some time later."""
        self.now += seconds
        self.step()

    @rule()
    def wake_up(self) -> None:
        """The driver wakes up when the planner said."""
        self.now = self.referee.next_wakeup(self.now, self.gates, self.early) or self.now
        self.step()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), much=st.sampled_from(["full", "full", "some", "nothing"]))
    def answer(self, data: st.DataObject, much: str) -> None:
        """A poll brings all that it asked for, less, or nothing."""
        request = self.land(data)
        counts = {"full": request.count, "some": data.draw(st.integers(0, request.count)), "nothing": 0}
        self.referee.answered(request, [object() for _ in range(counts[much])], self.now)
        self.step()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), hint=st.sampled_from([0.0, 0.0, 2.0]), good=st.sampled_from([0, 0, 1]))
    def fail(self, data: st.DataObject, hint: float, good: int) -> None:
        """A poll fails, asks for a pause, or brings a damaged answer with something good in it."""
        request = self.land(data)
        self.referee.failed(request, OSError("down"), self.now, hint=hint, values=[object() for _ in range(good)])
        self.step()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def time_out(self, data: st.DataObject) -> None:
        """A poll is abandoned when its time is over, and goes on in the dark."""
        name = data.draw(st.sampled_from(sorted(self.live)))
        self.now = max(self.now, self.live[name][1] + CONFIG.poll_timeout)
        self.step()
        request, _ = self.live.pop(name)
        self.abandoned.append(request)
        self.referee.timed_out(request, self.now)
        self.step()

    @precondition(lambda self: self.abandoned)
    @rule(data=st.data())
    def late(self, data: st.DataObject) -> None:
        """An abandoned poll brings something after all, or its connection is closed."""
        request = self.abandoned.pop(data.draw(st.integers(0, len(self.abandoned) - 1)))
        count = data.draw(st.integers(-1, request.count))
        if count >= 0:
            self.referee.answered(request, [object() for _ in range(count)], self.now)
        else:
            self.referee.failed(request, OSError("closed"), self.now)
        self.step()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), retry_after=st.sampled_from([None, 0.0, 0.5, 30.0, NEVER]))
    def reject(self, data: st.DataObject, retry_after: float | None) -> None:
        """Somebody else has the breaker's only permit."""
        self.referee.rejected(self.land(data), retry_after, self.now)
        self.step()

    @rule()
    def start(self) -> None:
        """Idle units take what may start."""
        self.start_all()
        self.step()

    @rule(limit=st.integers(0, 2))
    def start_few(self, limit: int) -> None:
        """Somebody takes fewer items than may start."""
        self.executing += [held.track.name for held in self.referee.start(limit)]
        self.step()

    @precondition(lambda self: self.executing)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A task ends, and its unit takes the next item."""
        name = self.executing.pop(data.draw(st.integers(0, len(self.executing) - 1)))
        self.referee.finished(name)
        self.step()
        self.start_all()

    @precondition(lambda self: self.executing)
    @rule(data=st.data())
    def ask_to_chain(self, data: st.DataObject) -> None:
        """A task ends, and its unit asks whether it may go on without a poll."""
        number = data.draw(st.integers(0, len(self.executing) - 1))
        if self.referee.may_chain(self.executing[number], self.now, self.gates):
            self.chaining.append((self.executing.pop(number), self.now))

    @precondition(lambda self: self.chaining)
    @rule(data=st.data(), brings=st.sampled_from([1, 1, 1, 0]))
    def chain(self, data: st.DataObject, brings: int) -> None:
        """The answer to its result brings the next item, or nothing; the unit takes what is next."""
        name, asked_at = self.chaining.pop(data.draw(st.integers(0, len(self.chaining) - 1)))
        if brings and self.referee.link(name, self.now, self.gates, asked_at=asked_at):
            self.executing.append(name)
            return
        self.referee.chained(name, [object() for _ in range(brings)], self.now, asked_at=asked_at)
        self.step()
        self.executing += [held.track.name for held in self.referee.start(1)]

    @precondition(lambda self: self.chaining)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """The answer takes too long: the unit waits no longer."""
        name, _ = self.chaining.pop(data.draw(st.integers(0, len(self.chaining) - 1)))
        self.left.append(name)
        self.referee.finished(name)
        self.step()
        self.start_all()

    @precondition(lambda self: self.left)
    @rule(data=st.data(), brings=st.integers(0, 1))
    def late_chain(self, data: st.DataObject, brings: int) -> None:
        """The answer that nobody waits for comes after all."""
        name = self.left.pop(data.draw(st.integers(0, len(self.left) - 1)))
        self.referee.chained(name, [object() for _ in range(brings)], self.now, late=True)
        self.step()

    @precondition(lambda self: self.names)
    @rule(data=st.data(), opens_for=st.sampled_from([None, 0.0, 0.5, 7.0, NEVER]), failing=st.booleans())
    def breaker(self, data: st.DataObject, opens_for: float | None, failing: bool) -> None:
        """A breaker opens for a while, may be probed, or closes."""
        name = data.draw(st.sampled_from(self.names))
        self.gates.pop(name, None)
        self.early.pop(name, None)
        if opens_for is not None:
            self.gates[name] = self.now + opens_for
        if failing and opens_for in (0.5, 7.0):
            self.early[name] = self.now
        self.step()

    @precondition(lambda self: self.names)
    @rule(data=st.data(), asked=st.booleans())
    def outage(self, data: st.DataObject, asked: bool) -> None:
        """Every breaker opens; perhaps one of the sources asked for the pause."""
        for name in self.names:
            self.gates[name] = self.now + data.draw(st.sampled_from([3.0, 40.0]))
            self.early[name] = self.now
        if asked:
            name = data.draw(st.sampled_from(self.names))
            self.early[name] = self.gates[name]
        self.step()

    @precondition(lambda self: self.names)
    @rule(data=st.data(), ok=st.booleans())
    def delivery(self, data: st.DataObject, ok: bool) -> None:
        """Results cannot get home, or can again."""
        self.referee.deliveries(data.draw(st.sampled_from(self.names)), ok=ok)
        self.step()

    def reserved(self) -> int:
        """Units that are kept for somebody."""
        return sum(account.source.reserve for account in self.referee.accounts.values())

    @rule(data=st.data(), weight=st.integers(1, 5), cap=CAPS, reserve=st.integers(0, 1))
    def add(self, data: st.DataObject, weight: int, cap: int | None, reserve: int) -> None:
        """One more source, perhaps with the name of one that was removed."""
        name = data.draw(st.sampled_from([f"s{i}" for i in range(6)]))
        reserve = min(reserve, max(0, self.referee.capacity - 1 - self.reserved()))
        source = Source(name, print, weight=weight, max_units=cap, reserve=reserve)
        if name in self.names:
            with pytest.raises(ValueError, match="already"):
                self.referee.planner.add(source)
            return
        self.names.append(name)
        self.referee.add(source)
        self.step()

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """One source less; what is in flight is as if it had been abandoned."""
        name = data.draw(st.sampled_from(self.names))
        self.names.remove(name)
        self.referee.remove(name)
        if name in self.live:
            self.abandoned.append(self.live.pop(name)[0])
        self.gates.pop(name, None)
        self.early.pop(name, None)
        self.step()

    @precondition(lambda self: self.names)
    @rule(data=st.data(), paused=st.booleans())
    def pause(self, data: st.DataObject, paused: bool) -> None:
        """Somebody pauses a source, or lets it go on."""
        self.referee.pause(data.draw(st.sampled_from(self.names)), paused=paused)
        self.step()

    @precondition(lambda self: self.names)
    @rule(data=st.data(), weight=st.integers(1, 5))
    def set_weight(self, data: st.DataObject, weight: int) -> None:
        """Somebody changes a weight."""
        self.referee.set_weight(data.draw(st.sampled_from(self.names)), weight)
        self.step()

    @rule(capacity=st.integers(1, 10))
    def set_capacity(self, capacity: int) -> None:
        """Somebody changes the capacity, unless that leaves nothing for everybody."""
        if 0 < self.reserved() >= capacity:
            with pytest.raises(ValueError, match="reserves"):
                self.referee.planner.set_capacity(capacity)
            return
        self.referee.set_capacity(capacity)
        self.step()

    @invariant()
    def counts_agree(self) -> None:
        """The planner counts as the world does; reading its counts compares them with the referee's."""
        if hasattr(self, "referee"):
            assert self.referee.executing == len(self.executing) + len(self.chaining)
            assert self.referee.held >= 0


TestPollerLife: Callable[..., Any] = PollerLife.TestCase
TestPollerLife.settings = settings(max_examples=part(150), stateful_step_count=40, deadline=None)  # type: ignore[attr-defined]


@st.composite
def spans(draw: st.DrawFn) -> tuple[tuple[float, float], ...]:
    """A span of time in which something is wrong, mostly none."""
    begin = draw(st.sampled_from([None, None, None, 0.0, 0.7, 3.0]))
    return () if begin is None else ((begin, begin + draw(st.sampled_from([0.3, 1.2, 8.0, NEVER]))),)


@st.composite
def worlds(draw: st.DrawFn) -> Simulation:
    """Sources of every kind: near and far, quick and long tasks, backlogged, trickling, idle, with every fault."""
    sources = []
    for i in range(draw(st.integers(1, 5))):
        troubles = ["stalls", "swallows", "fails", "deaf"]
        backlog, rate = draw(st.sampled_from([(NEVER, 0.0), (NEVER, 0.0), (40, 0.0), (0, 3.0), (0, 60.0), (0, 0.0)]))
        sources.append(
            Simulated(
                f"s{i}",
                trip=draw(st.sampled_from([0.001, 0.001, 0.02, 0.3, 0.7, 2.0, 6.0])),
                backlog=backlog,
                rate=rate,
                task=draw(st.sampled_from([0.02, 0.02, 0.3, 1.0, 8.0])),
                update=draw(st.sampled_from([0.0, 0.0, 0.05])),
                weight=draw(st.integers(1, 5)),
                max_batch=draw(st.sampled_from([None, None, 1, 3])),
                max_units=draw(st.sampled_from([None, None, 1, 3])),
                **{draw(st.sampled_from(troubles)): draw(spans())},
            )
        )
    world = Simulation(sources, draw(st.integers(1, 8)), draw(st.integers(0, 99)), planner=Referee)
    world.chains = draw(st.booleans())
    if draw(st.booleans()):
        world.breakers = BreakerRegistry(clock=lambda: world.now, rng=random.Random(1))
    return world


@settings(max_examples=part(30), deadline=None)
@given(world=worlds())
def test_random_worlds_keep_every_rule(world: Simulation) -> None:
    """Time runs, faults come and go, items wait, go back and come again: the referee finds nothing wrong."""
    world.run(6.5)

    assert world.returns <= 2
    event(f"somebody waited for {round(world.planner.worst_wait, 1)} of its bound")


@settings(max_examples=part(12), deadline=None)
@given(
    weights=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    capacity=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_p5_starts_follow_the_weights_whatever_the_capacity(weights: list[int], capacity: int, seed: int) -> None:
    """Backlogged sources that are alike start by weight, as exactly as shares of whole units allow."""
    sources = [Simulated(f"s{i}", backlog=NEVER, weight=weight) for i, weight in enumerate(weights)]
    world = Simulation(sources, 1, seed, planner=Referee).run(1.0)
    total = sum(weights)

    for source in sources:
        assert abs(world.starts[source.name] - len(world.order) * source.weight / total) < 1 + len(sources)

    crowded = Simulation([attrs.evolve(source, taken=0) for source in sources], capacity, seed, planner=Referee)
    assert sum(crowded.run(0.3).starts.values()) >= 0.8 * capacity * 0.3 / 0.011
