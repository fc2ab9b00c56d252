"""The planner against an independent model: whatever sources, breakers and tasks do, the rules hold at every step.

The model is written from the rules' text: it keeps its own account of every poll and item and never asks the planner.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience.polling import PollConfig, PollPlanner, PollRequest, Source

CONFIG = PollConfig(poll_wait=1.0, overdue_after=0.5, poll_timeout=5.0, give_up_after=30.0, max_hold=5.0)


@attrs.define(eq=False)
class Poll:
    """A poll in flight, in the model's own words."""

    request: PollRequest
    sent_at: float
    lendable: bool

    def is_overdue(self, now: float) -> bool:
        """Whether its grant is lent."""
        return now >= self.sent_at + self.request.wait + CONFIG.overdue_after

    @property
    def granted(self) -> int:
        """What it takes from the sum."""
        return 0 if self.request.probe else self.request.count


@attrs.define(eq=False)
class Account:
    """One source, in the model's own words."""

    weight: int
    max_batch: int | None
    answered: bool = False
    failed: bool = False
    full: bool = False
    slow: bool = False
    delivering: bool = True
    gate: float | None = None
    live: Poll | None = None
    abandoned: list[Poll] = attrs.field(factory=list)
    debt: int = 0
    owed: int = 0

    @property
    def suspect(self) -> bool:
        """Its last call failed, or none was answered yet."""
        return self.failed or not self.answered


class PlannerMachine(RuleBasedStateMachine):
    """Random lives of a poller."""

    @initialize(
        sources=st.lists(st.tuples(st.integers(1, 5), st.none() | st.integers(1, 4)), min_size=1, max_size=4),
        capacity=st.integers(1, 6),
        seed=st.integers(0, 1000),
    )
    def begin(self, sources: list[tuple[int, int | None]], capacity: int, seed: int) -> None:
        """Some sources, some capacity."""
        self.now = 0.0
        self.capacity = capacity
        self.sources = {f"s{i}": Account(weight, batch) for i, (weight, batch) in enumerate(sources)}
        told = [Source(n, print, weight=a.weight, max_batch=a.max_batch) for n, a in self.sources.items()]
        self.planner = PollPlanner(told, capacity, CONFIG, random.Random(seed))
        self.items: deque[tuple[int, str, float]] = deque()
        self.numbers = 0
        self.executing: list[str] = []
        self.task_ended = False
        self.plan()

    # -- what the world does -----------------------------------------------------------------------------------------

    @rule(seconds=st.floats(0.0005, 3.0))
    def time_passes(self, seconds: float) -> None:
        """The driver wakes up some time later."""
        self.now += seconds
        self.give_back()
        self.plan()

    @rule()
    def wake_up(self) -> None:
        """P9: nothing is due before the time the planner names, and the driver wakes up just then."""
        wakeup = self.planner.next_wakeup(self.now, self.gates())
        if wakeup is None:
            return
        before = self.now + (wakeup - self.now) / 2
        if self.now < before < wakeup:
            assert self.planner.plan(before, self.gates()) == []
            assert self.planner.overheld(before) == []
        self.now = wakeup
        self.give_back()
        self.plan()

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """A poll brings something, or nothing."""
        name = data.draw(st.sampled_from(self.live()))
        account = self.sources[name]
        poll = self.land(account)
        count = data.draw(st.integers(0, poll.request.count))
        self.planner.answered(poll.request, self.arrive(name, count), self.now)
        account.answered, account.failed = True, False
        account.full = count == poll.request.count
        account.slow = self.now - poll.sent_at > poll.request.wait + CONFIG.overdue_after
        account.owed = max(0, account.owed - 1) if account.full else 0
        account.debt = account.debt if account.full else 0
        self.plan()

    @precondition(lambda self: self.live())
    @rule(data=st.data(), hint=st.sampled_from([0.0, 0.0, 2.0]))
    def fail(self, data: st.DataObject, hint: float) -> None:
        """A poll fails; whatever it asks for as a pause is kept."""
        name = data.draw(st.sampled_from(self.live()))
        account = self.sources[name]
        poll = self.land(account)
        self.planner.failed(poll.request, OSError("down"), self.now, hint=hint)
        account.failed = True
        self.plan()
        if hint:
            assert all(request.source != name for request in self.planner.plan(self.now + hint * 0.99, self.gates()))

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def time_out(self, data: st.DataObject) -> None:
        """A poll is abandoned and goes on in the dark."""
        account = self.sources[data.draw(st.sampled_from(self.live()))]
        poll = account.live
        assert poll is not None
        self.now = max(self.now, poll.sent_at + CONFIG.poll_timeout)
        account.live = None
        account.abandoned.append(poll)
        account.failed = True
        self.planner.timed_out(poll.request, self.now)
        self.give_back()
        self.plan()

    @precondition(lambda self: any(account.abandoned for account in self.sources.values()))
    @rule(data=st.data())
    def late(self, data: st.DataObject) -> None:
        """An abandoned poll brings something after all, or ends."""
        names = [name for name, account in self.sources.items() if account.abandoned]
        name = data.draw(st.sampled_from(names))
        poll = self.sources[name].abandoned.pop(0)
        if data.draw(st.booleans()):
            count = data.draw(st.integers(0, poll.request.count))
            self.planner.answered(poll.request, self.arrive(name, count), self.now)
        else:
            self.planner.failed(poll.request, OSError("closed"), self.now)
        self.plan()

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        """Somebody else has the breaker's only permit."""
        account = self.sources[data.draw(st.sampled_from(self.live()))]
        self.planner.rejected(self.land(account).request, data.draw(st.sampled_from([None, 0.5])), self.now)
        self.plan()

    @rule(limit=st.integers(1, 6))
    def start(self, limit: int) -> None:
        """P2: held items start in the order they came, and never more than the capacity has room for."""
        room = self.capacity - len(self.executing) - self.reserved()
        expected = [number for number, _, _ in list(self.items)[: max(0, min(limit, room))]]

        started = self.planner.start(limit)

        assert [held.value for held in started] == expected
        for held in started:
            self.executing.append(held.track.name)
            self.items.popleft()

    @precondition(lambda self: self.executing)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A task ends."""
        name = data.draw(st.sampled_from(self.executing))
        self.executing.remove(name)
        self.task_ended = True
        self.planner.finished(name)
        self.plan()

    @rule(data=st.data(), opens_for=st.none() | st.floats(0.1, 10.0))
    def breaker(self, data: st.DataObject, opens_for: float | None) -> None:
        """A breaker opens for a while, or closes."""
        account = self.sources[data.draw(st.sampled_from(sorted(self.sources)))]
        account.gate = None if opens_for is None else self.now + opens_for
        self.plan()

    @rule(data=st.data(), ok=st.booleans())
    def delivery(self, data: st.DataObject, ok: bool) -> None:
        """P13: results cannot get home, or can again."""
        name = data.draw(st.sampled_from(sorted(self.sources)))
        self.sources[name].delivering = ok
        self.planner.deliveries(name, ok)
        self.plan()

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def p2_never_more_than_the_capacity(self) -> None:
        """Executing items fit into the capacity, and the planner counts as the model does."""
        if hasattr(self, "planner"):
            assert len(self.executing) <= self.capacity
            assert (self.planner.executing, self.planner.held) == (len(self.executing), len(self.items))

    def plan(self) -> None:
        """Plan, and check every poll that is sent against the rules."""
        sharers = self.sharers()
        room = self.capacity - len(self.executing) - len(self.items) - self.reserved()
        units = {name: self.units(name) for name in self.sources}
        suspects = self.suspect_probes()

        requests = self.planner.plan(self.now, self.gates())

        assert len({request.source for request in requests}) == len(requests)
        for request in requests:
            account = self.sources[request.source]
            self.check_able(account)
            assert request.wait == (0.0 if sharers else CONFIG.poll_wait)
            if request.probe:
                assert request.count == 1
                assert request.source not in sharers
                assert self.task_ended or len(self.executing) < self.capacity
                assert suspects + len(self.items) < max(8, self.capacity)
                suspects += account.suspect
            else:
                room -= request.count
                self.check_grant(request, sharers, units[request.source])
            account.live = Poll(request, self.now, lendable=account.owed == 0 or account.suspect)
        assert room >= 0 or all(request.probe for request in requests)
        self.task_ended = False
        self.check_nothing_to_do()

    def check_able(self, account: Account) -> None:
        """P1, P3 and P13: one live poll, an open source nothing, one that takes no results nothing."""
        assert account.live is None
        assert account.delivering
        assert account.gate is None or account.gate <= self.now
        assert len(account.abandoned) < CONFIG.max_abandoned

    def check_grant(self, request: PollRequest, sharers: set[str], units: int) -> None:
        """P3 and P4: only sharers have a share, and nobody more than its own; who is owed has one unit."""
        account = self.sources[request.source]
        if account.owed and not account.suspect:
            assert request.count == 1
            return
        assert request.source in sharers
        total = sum(self.sources[name].weight for name in sharers)
        assert request.count + units <= math.ceil(self.capacity * account.weight / total)
        assert account.max_batch is None or request.count <= account.max_batch

    def check_nothing_to_do(self) -> None:
        """P9: planning again changes nothing, and the next wake-up lies ahead."""
        assert self.planner.plan(self.now, self.gates()) == []
        wakeup = self.planner.next_wakeup(self.now, self.gates())
        assert wakeup is None or wakeup > self.now
        self.planner.drain_events()

    # -- the model's own account -------------------------------------------------------------------------------------

    def live(self) -> list[str]:
        """Sources with a live poll."""
        return [name for name, account in self.sources.items() if account.live is not None]

    def land(self, account: Account) -> Poll:
        """Take the live poll of a source."""
        poll, account.live = account.live, None
        assert poll is not None
        return poll

    def arrive(self, name: str, count: int) -> list[int]:
        """Items of ``name`` that are held from now on."""
        values = list(range(self.numbers, self.numbers + count))
        self.numbers += count
        self.items.extend((value, name, self.now) for value in values)
        return values

    def give_back(self) -> None:
        """P8: what has been held for too long goes back, and nothing else; its source is owed more every time."""
        given = self.planner.overheld(self.now)
        expected = []
        while self.items and self.items[0][2] + CONFIG.max_hold <= self.now:
            expected.append(self.items.popleft())
        assert [held.value for held in given] == [value for value, _, _ in expected]
        for name in {name for _, name, _ in expected}:
            account = self.sources[name]
            account.debt = min(64, account.debt * 2 or 1)
            account.owed = account.debt

    def gates(self) -> dict[str, float]:
        """What the driver says of breakers that are not closed."""
        return {name: account.gate for name, account in self.sources.items() if account.gate is not None}

    def sharers(self) -> set[str]:
        """Backlogged sources that can be polled and are not overdue; slow ones only if there is no other."""

        def shares(account: Account) -> bool:
            overdue = account.live is not None and account.live.is_overdue(self.now)
            able = account.delivering and account.gate is None and len(account.abandoned) < CONFIG.max_abandoned
            return able and account.full and not account.suspect and not overdue

        backlogged = {name for name, account in self.sources.items() if shares(account)}
        return {name for name in backlogged if not self.sources[name].slow} or backlogged

    def reserved(self) -> int:
        """Granted units that are neither lent nor late."""
        polls = [account.live for account in self.sources.values() if account.live is not None]
        lent = sum(p.granted for p in polls if p.is_overdue(self.now) and p.lendable)
        kept = sum(p.granted for p in polls if not (p.is_overdue(self.now) and p.lendable))
        gone = sum(p.granted for account in self.sources.values() for p in account.abandoned)
        return kept + max(0, lent - max(0, self.capacity - gone))

    def units(self, name: str) -> int:
        """Units a source executes and holds."""
        return self.executing.count(name) + sum(owner == name for _, owner, _ in self.items)

    def suspect_probes(self) -> int:
        """Probes of suspect sources in flight that are not overdue."""
        return sum(
            account.suspect
            and account.live is not None
            and account.live.request.probe
            and not account.live.is_overdue(self.now)
            for account in self.sources.values()
        )


TestPlanner: Callable[..., Any] = PlannerMachine.TestCase
TestPlanner.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)  # type: ignore[attr-defined]
