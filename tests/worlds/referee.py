"""A planner under watch: an account of its own, written from the rules' text, against which every decision is held.

The referee never asks the planner how things stand. Where the text leaves room (jitter, a moment's lingering, whether
a source that cannot be polled still counts as backlogged) it allows all that the text allows.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import attrs

from resilience.polling import PollConfig, PollPlanner, PollRequest, Source

NO_GATES: Mapping[str, float] = {}
EPSILON = 1e-9


@attrs.define(eq=False)
class Poll:
    """A poll that has been sent."""

    request: PollRequest
    sent_at: float
    overdue_at: float
    lendable: bool

    @property
    def granted(self) -> int:
        """What it takes from the sum."""
        return 0 if self.request.probe else self.request.count

    def is_lent(self, now: float) -> bool:
        """Whether others may use what it was granted."""
        return self.lendable and now >= self.overdue_at


@attrs.define(eq=False)
class Item:
    """An item that has arrived and not started."""

    source: str
    value: object
    since: float
    sent_at: float
    owed: bool = False


@attrs.define(eq=False)
class Account:
    """One source."""

    source: Source[Any]
    answered: bool = False
    failed: bool = False
    full: bool = False
    slow: bool = False
    delivering: bool = True
    paused: bool = False
    kept: int = 0  # units that nobody else may have
    cap: float = math.inf  # units that it may have at most
    live: Poll | None = None
    abandoned: dict[int, Poll] = attrs.field(factory=dict)
    executing: int = 0
    held: int = 0
    debt: int = 0
    owed: int = 0
    empties: int = 0
    failures: int = 0
    earliest: float = -math.inf  # it may not be polled before
    latest: float = -math.inf  # from then on it is due for certain
    trip: float = 0.0
    unserved_since: float | None = None  # it could have been granted units, and was not
    waits_since: float | None = None
    others: int = 0  # starts of others, of items that were asked for since then
    overdue: bool = False  # its live poll was, at the last plan
    passed: int = 0  # items of others that came while it had no unit
    bound: int = 0

    @property
    def suspect(self) -> bool:
        """Its last call failed, or none was answered yet."""
        return self.failed or not self.answered

    @property
    def backlogged(self) -> bool:
        """Its last answer was full."""
        return self.full and not self.suspect

    @property
    def is_owed(self) -> bool:
        """Whether its next poll stands inside the sum."""
        return self.owed > 0 and not self.suspect

    @property
    def units(self) -> int:
        """What it executes, holds and was granted."""
        return self.executing + self.held + (self.live.granted if self.live else 0)

    @property
    def room(self) -> float:
        """How many units it may have besides."""
        return self.cap - self.units

    def lacks(self, *, held: bool) -> int:
        """How many of the units kept for it are to stay free; ``held``: what it holds has its units already."""
        granted = self.live.granted if self.live and not (self.live.lendable and self.overdue) else 0
        return max(0, self.kept - self.executing - granted - (self.held if held else 0))

    def pause(self, shortest: float, longest: float, now: float) -> None:
        """It rests for a time in between."""
        self.earliest, self.latest = now + shortest - EPSILON, now + longest + EPSILON


class Referee:
    """Has the methods of a planner, hands everything on, and fails when a rule is broken."""

    def __init__(
        self, sources: Iterable[Source[Any]], capacity: int, config: PollConfig | None = None, rng: Any = None
    ) -> None:
        told = list(sources)
        self.config = config or PollConfig()
        self.capacity = capacity
        self.planner = PollPlanner(told, capacity, self.config, rng or random.Random(0))
        self.accounts = {source.name: Account(source) for source in told}
        self.departed: Counter[str] = Counter()  # executing items of removed sources
        self.removed: dict[str, Any] = {}
        self.gone: set[int] = set()  # their polls that have not come back
        self.items: list[Item] = []
        self.let_gone: list[Item] = []
        self.task_ended = False
        self.worst_wait = 0.0  # P11: starts of others while one waited, as a part of what the rule allows
        self.last = 0.0
        self.settle()

    def settle(self) -> None:
        """Caps and pauses follow from the sources; who waits begins to wait anew."""
        self.longest_pause = max(0.1, 0.01 * len(self.accounts))
        for account in self.accounts.values():
            account.kept = 0 if account.paused else account.source.reserve
            account.waits_since = account.unserved_since = None
        for account in self.accounts.values():
            others = sum(other.kept for other in self.accounts.values() if other is not account)
            most = account.source.max_units or math.inf
            account.cap = min(most, self.capacity - others) if others else most

    # -- what the driver asks ----------------------------------------------------------------------------------------

    def plan(
        self, now: float, gates: Mapping[str, float] = NO_GATES, early: Mapping[str, float] = NO_GATES
    ) -> list[PollRequest]:
        """Plan, and check every poll that is sent, and that none is missing."""
        self.let_go(now)
        for account in self.accounts.values():
            account.overdue = account.live is not None and now >= account.live.overdue_at
        sharers = self.sharers(now, gates)
        rescued, lost_at = self.rescued(now, gates, early)
        due = [account for account in self.accounts.values() if self.is_due(account, now, gates)]
        requests = self.planner.plan(now, gates, early)
        if now >= lost_at + 7.5 + EPSILON and now < min(gates.values(), default=now):
            gates = {**gates, rescued: now}
        for request in requests:
            account = self.accounts[request.source]
            if request.early:
                assert request.source == rescued, "P12: it has not been open longest, or somebody is not open"
                assert now >= lost_at + 5.0 - EPSILON, "P12: too early"
                assert not due, "P12: an early probe beside a regular one"
                gates = {**gates, rescued: now}
            self.check_able(account, now, gates)
            self.check_wait(request, sharers)
            if request.probe:
                self.check_probe(account, request, sharers, now)
            else:
                self.check_grant(account, request, sharers, now, gates)
            wait = self.config.poll_wait if self.hurries(request, sharers) else request.wait
            overdue_at = now + wait + self.config.overdue_after
            account.live = Poll(request, now, overdue_at, lendable=not account.is_owed)
            account.unserved_since = None
        self.check_nobody_is_forgotten(sharers, now, gates)
        self.task_ended = False
        self.note_waits(sharers, now, gates)
        assert self.planner.plan(now, gates, early) == [], "P9: planning again at the same time finds something to do"
        return requests

    def start(self, limit: int) -> list[Any]:
        """P2, P8: as many items as fit beside what is granted, in the order they came; owed ones have their unit."""
        room = self.capacity - self.executing - self.reserved(self.last)
        fitting = self.fitting(room)
        expected = fitting[:limit]
        assert self.planner.startable() == len(fitting)
        started = self.planner.start(limit)
        assert [id(held.value) for held in started] == [id(item.value) for item in expected]
        for item in expected:
            self.items.remove(item)
            account = self.accounts[item.source]
            account.held -= 1
            account.executing += 1
            self.count_start(item)
        assert not started or self.executing <= self.capacity, "P2: more executing than the capacity"
        return started

    def fitting(self, room: int) -> list[Item]:
        """Those items that may start with ``room`` units, of which some are kept for others."""
        lacks = {name: account.lacks(held=False) for name, account in self.accounts.items()}
        found = []
        for item in sorted(self.items, key=lambda item: not item.owed):
            if room - len(found) - sum(n for name, n in lacks.items() if name != item.source) > 0:
                found.append(item)
                lacks[item.source] -= lacks[item.source] > 0
        return found

    def overheld(self, now: float) -> list[Any]:
        """P8: what has been held for too long goes back, and nothing else; its source is owed more every time."""
        self.let_go(now)
        given = self.planner.overheld(now)
        assert {id(held.value) for held in given} == {id(item.value) for item in self.let_gone}
        self.let_gone = []
        return given

    def let_go(self, now: float) -> None:
        """P8: a plan counts no more on what has been held for too long, though the driver fetches it later."""
        gone = [item for item in self.items if now >= item.since + self.config.max_hold]
        self.items = [item for item in self.items if item not in gone]
        for item in gone:
            self.accounts[item.source].held -= 1
        for name in {item.source for item in gone}:
            account = self.accounts[name]
            account.debt = min(64, account.debt * 2 or 1)
            account.owed = account.debt
        self.let_gone += gone

    def next_wakeup(
        self, now: float, gates: Mapping[str, float] = NO_GATES, early: Mapping[str, float] = NO_GATES
    ) -> float | None:
        """P9: the next wake-up lies ahead, and before it there is nothing to do."""
        wakeup = self.planner.next_wakeup(now, gates, early)
        assert wakeup is None or now < wakeup < math.inf
        before = now + min(10.0, ((now + 20.0 if wakeup is None else wakeup) - now) * 0.999)
        if now < before and (wakeup is None or before < wakeup):
            startable = self.planner.startable()
            assert self.planner.plan(before, gates, early) == [], "P9: something was due before the wake-up"
            assert self.planner.overheld(before) == [], "P9: something was to go back before the wake-up"
            assert self.planner.startable() == startable, "P9: something could start before the wake-up"
            self.planner._planned_at = now  # this was only a question
        return wakeup

    def drain_events(self) -> list[Any]:
        """Not watched."""
        return self.planner.drain_events()

    @property
    def held(self) -> int:
        """Items that have arrived and not started, as the planner says."""
        assert self.planner.held == len(self.items)
        return self.planner.held

    @property
    def executing(self) -> int:
        """Items that have started and not finished."""
        executing = sum(account.executing for account in self.accounts.values()) + self.departed.total()
        assert self.planner.executing == executing
        return executing

    # -- what the driver tells ---------------------------------------------------------------------------------------

    def answered(self, request: PollRequest, values: Sequence[object], now: float) -> None:
        """A poll brought something, in time or late."""
        if self.returns(request, values, now):
            self.planner.answered(request, values, now)
            return
        account = self.accounts[request.source]
        poll, late = self.land(request)
        self.arrive(account, poll.sent_at, values, now, owed=not (late or poll.lendable))
        self.planner.answered(request, values, now)
        if late:
            return
        waited = now - poll.sent_at
        account.answered, account.failed = True, False
        account.failures = 0
        account.full = len(values) >= request.count
        account.slow = waited > request.wait + self.config.overdue_after
        account.trip = max(0.0, waited - request.wait)
        account.owed = max(0, account.owed - 1) if account.full else 0
        account.debt = account.debt if account.full else 0
        self.rest_after_answer(account, len(values), waited, request.wait, now)

    def failed(
        self,
        request: PollRequest,
        error: BaseException,
        now: float,
        *,
        hint: float = 0.0,
        values: Sequence[object] = (),
    ) -> None:
        """A poll failed, in time or late."""
        if self.returns(request, values, now):
            self.planner.failed(request, error, now, hint=hint, values=values)
            return
        account = self.accounts[request.source]
        poll, late = self.land(request)
        self.arrive(account, poll.sent_at, values, now)
        self.planner.failed(request, error, now, hint=hint, values=values)
        if not late:
            self.rest_after_failure(account, now, hint)

    def timed_out(self, request: PollRequest, now: float) -> None:
        """A poll is abandoned."""
        if request.number in self.gone:
            self.planner.timed_out(request, now)
            return
        account = self.accounts[request.source]
        poll, _ = self.land(request)
        account.abandoned[request.number] = poll
        self.planner.timed_out(request, now)
        self.rest_after_failure(account, now, 0.0)

    def rejected(self, request: PollRequest, retry_after: float | None, now: float) -> None:
        """A poll never ran; the source rests a little, which nothing says more of."""
        if self.returns(request, (), now):
            self.planner.rejected(request, retry_after, now)
            return
        self.land(request)
        self.planner.rejected(request, retry_after, now)
        self.accounts[request.source].pause(EPSILON, 1.0, now)

    def may_chain(self, source: str, now: float, gates: Mapping[str, float] = NO_GATES) -> bool:
        """P2, P4, P11, P13: a unit goes on without a poll only while nobody has a better claim to it."""
        answer = self.planner.may_chain(source, now, gates)
        if source not in self.accounts:
            assert not answer, "P7: a chain of a source that was removed"
            return answer
        account, sharers = self.accounts[source], self.sharers(now, gates)
        shares = {name: self.share_of(self.accounts[name], sharers) for name in sharers}
        free = self.capacity - self.executing - self.reserved(self.last) + 1
        free -= sum(other.lacks(held=False) for other in self.accounts.values() if other is not account)
        may = not self.items and source in sharers and not account.slow and account.units <= shares[source] and free > 0
        assert may or not answer, f"P2, P4, P13: a chain of {source} that should end"
        due = [a for a in self.accounts.values() if a is not account and self.is_due(a, now, gates)]
        missing = [shares[a.source.name] - a.units for a in due if a.source.name in sharers]
        missing += [self.share_of(a, sharers) - a.units for a in due if a.is_owed]
        assert max(missing, default=0) <= 1 or not answer, "P11: a chain goes on while somebody is below its share"
        assert not self.somebody_starves(due, sharers) or not answer, "P11: a chain goes on while somebody starves"
        resting = any(not self.is_due(a, now, gates) and not a.live for a in self.accounts.values())
        assert answer or not may or missing or resting, f"a chain of {source} ends though nobody else can use its unit"
        return answer

    def chained(
        self, source: str, values: Sequence[object], now: float, *, late: bool = False, asked_at: float | None = None
    ) -> None:
        """An item ended, and the answer to its result brought something, or came late."""
        origin = self.planner._tracks.get(source)
        if source not in self.accounts:
            self.departed[source] -= not late
            self.task_ended = self.task_ended or not late
            self.let_gone += [Item("", value, now, now) for value in values]
            self.planner.chained(source, values, now, late=late, origin=self.removed[source])
            return
        account = self.accounts[source]
        account.executing -= not late
        self.task_ended = self.task_ended or not late
        self.planner.chained(source, values, now, late=late, origin=origin)
        self.arrive(account, now if asked_at is None else asked_at, values, now)
        if late or account.suspect or account.full == bool(values):
            return
        account.full = bool(values)
        account.failures = 0
        if not values:
            account.debt = account.owed = 0
        self.rest_after_answer(account, len(values), 0.0, 0.0, now)

    def link(
        self, source: str, now: float, gates: Mapping[str, float] = NO_GATES, *, asked_at: float | None = None
    ) -> bool:
        """An item ended and the next one came with the answer: if it starts at once, nothing else was to be done."""
        if not self.planner.link(source, now, gates):
            return False
        assert not self.items, "P2: what is held comes before what a chain brings"
        for other in self.accounts.values():
            other.passed = 0 if other.units else other.passed + 1
        self.count_start(Item(source, None, now, now if asked_at is None else asked_at))
        self.task_ended = True
        self.check_nobody_is_forgotten(self.sharers(now, gates), now, gates)
        self.task_ended = False
        assert self.planner.plan(now, gates) == [], "a link that left something to decide"
        return True

    def finished(self, source: str) -> None:
        """A task ended."""
        if source in self.accounts:
            self.accounts[source].executing -= 1
        else:
            self.departed[source] -= 1
        self.task_ended = True
        self.planner.finished(source)

    def deliveries(self, source: str, ok: bool) -> None:
        """Results get home, or do not."""
        self.accounts[source].delivering = ok
        self.planner.deliveries(source, ok=ok)

    # -- what changes while it runs ----------------------------------------------------------------------------------

    def add(self, source: Source[Any]) -> None:
        """P7: one more; what of an earlier one of its name still runs counts."""
        self.planner.add(source)
        self.accounts[source.name] = Account(source, executing=self.departed.pop(source.name, 0))
        self.settle()

    def remove(self, name: str) -> None:
        """P7: what it holds goes back, and what its polls will bring."""
        account = self.accounts.pop(name)
        self.departed[name] += account.executing
        self.gone |= {*account.abandoned, *([account.live.request.number] if account.live else [])}
        self.let_gone += [item for item in self.items if item.source == name]
        self.items = [item for item in self.items if item.source != name]
        self.removed[name] = self.planner._tracks[name]
        self.planner.remove(name)
        self.settle()

    def pause(self, name: str, *, paused: bool) -> None:
        """P7: it is polled no more, or again."""
        self.accounts[name].paused = paused
        (self.planner.pause if paused else self.planner.resume)(name)
        self.settle()

    def set_weight(self, name: str, weight: int) -> None:
        """P7: another claim."""
        self.accounts[name].source = attrs.evolve(self.accounts[name].source, weight=weight)
        self.planner.set_weight(name, weight)
        self.settle()

    def set_capacity(self, capacity: int) -> None:
        """P7: another capacity."""
        self.capacity = capacity
        self.planner.set_capacity(capacity)
        self.settle()

    def returns(self, request: PollRequest, values: Sequence[object], now: float) -> bool:
        """P7: whether it is a poll of a source that was removed: its values go back."""
        if request.number not in self.gone:
            return False
        self.gone.discard(request.number)
        self.let_gone += [Item("", value, now, now) for value in values]
        return True

    # -- the rules ---------------------------------------------------------------------------------------------------

    def check_able(self, account: Account, now: float, gates: Mapping[str, float]) -> None:
        """P1, P3, P6 and P13: one live poll, none of an open source, none in a pause, none while results wait."""
        assert account.live is None, "P1: a second live poll"
        assert not account.paused, "P7: polled while it is paused"
        assert account.delivering, "P13: polled while its results wait"
        assert now >= gates.get(account.source.name, now), "P3: an open source was polled"
        assert len(account.abandoned) < self.config.max_abandoned, "too many abandoned polls"
        assert now >= account.earliest, "P6: polled in its pause"

    def check_wait(self, request: PollRequest, sharers: set[str]) -> None:
        """P1: nobody waits while somebody is backlogged, nor a suspect while more of them are to be probed than may."""
        if sharers:
            assert request.wait == 0.0, "P1: it waits while somebody is backlogged"
        elif self.hurries(request, sharers):
            assert request.wait == 0.0, "P1: it waits while other suspects cannot be probed"
        elif not any(account.backlogged for account in self.accounts.values()):
            assert request.wait == self.config.poll_wait, "P1: it does not wait though nobody is backlogged"

    def hurries(self, request: PollRequest, sharers: set[str]) -> bool:
        """Whether it would wait, if other suspects did not need its place."""
        suspects = [name for name, account in self.accounts.items() if account.suspect]
        crowded = len(suspects) > max(8, self.capacity) and not sharers
        return crowded and request.probe and request.source in suspects

    def check_probe(self, account: Account, request: PollRequest, sharers: set[str], now: float) -> None:
        """P2 and P3: one unit, for those who do not share, while there is room for what suspects may bring."""
        assert request.count == 1, "P3: a probe of several units"
        assert request.source not in sharers, "P3: a probe of a source that has a share"
        assert not account.is_owed, "P8: who is owed is polled inside the sum"
        assert self.task_ended or self.executing < self.capacity, "P2: a probe while nothing is free"
        assert self.suspect_probes(now) + self.stuck(now) < max(8, self.capacity), "P2: too many suspect probes"
        assert self.has_room(account, sharers), "P11: a probe of a source that has its share already"
        assert account.room >= 1, "more than max_units"

    def check_grant(
        self, account: Account, request: PollRequest, sharers: set[str], now: float, gates: Mapping[str, float]
    ) -> None:
        """P2, P3 and P4: inside the sum, and at most the share."""
        name = request.source
        granted = self.granted() if account.is_owed else self.reserved(now)
        total = self.executing + len(self.items) + granted + request.count
        others = sum(other.lacks(held=True) for other in self.accounts.values() if other is not account)
        assert total + others <= self.capacity, "P2: more than the capacity, or than what is not kept for others"
        assert account.source.max_batch is None or request.count <= account.source.max_batch
        assert request.count <= account.room, "more than max_units"
        if name in sharers:
            assert request.count + account.units <= self.share_of(account, sharers), "P4: more than its share"
        else:
            assert account.is_owed, "P3: a share for a source that has none"
            assert request.count == 1, "P3: several units for a source that has no share"
        assert name not in gates or request.count == 1, "P3: more than a probe for a half-open source"

    def check_nobody_is_forgotten(self, sharers: set[str], now: float, gates: Mapping[str, float]) -> None:
        """P4, P11: a free unit goes to whoever may have it; due probes go out."""
        free = self.capacity - self.executing - len(self.items) - self.reserved(now)
        due = [account for account in self.accounts.values() if self.is_due(account, now, gates)]
        may_probe = (self.task_ended or self.executing < self.capacity) and not self.somebody_starves(due, sharers)
        room = max(8, self.capacity) - self.stuck(now) - self.suspect_probes(now)
        for name, account in self.accounts.items():
            may = self.is_due(account, now, gates) and account.room >= 1 and self.has_room(account, sharers)
            if name in sharers or account.is_owed:
                lent = self.granted() - self.reserved(now) if account.is_owed else 0
                lent += sum(other.lacks(held=True) for other in self.accounts.values() if other is not account)
                self.check_served(account, now, unserved=may and free - lent >= 1)
            else:
                assert not (may and may_probe and room > 0), f"P11: no probe of {name}"

    def check_served(self, account: Account, now: float, *, unserved: bool) -> None:
        """A source with a long round trip may wait for more units, up to 5 % of it and 50 ms."""
        if not unserved:
            account.unserved_since = None
            return
        if account.unserved_since is None:
            account.unserved_since = now
        lingers = min(0.05, account.trip * 0.05)
        assert now < account.unserved_since + lingers, "P4: a free unit, and nobody is polled for it"

    def note_waits(self, sharers: set[str], now: float, gates: Mapping[str, float]) -> None:
        """P11: who waits for a first unit, from now on."""
        total = sum(account.source.weight for account in self.accounts.values())
        for name, account in self.accounts.items():
            waits = name in sharers and self.is_due(account, now, gates) and account.units == 0 and account.room >= 1
            if not waits:
                account.waits_since = None
            else:
                if account.waits_since is None:
                    account.waits_since, account.others, account.bound = now, 0, 0
                account.bound = max(account.bound, -(-total // account.source.weight) + len(sharers) - 1)

    def count_start(self, item: Item) -> None:
        """P11: what was asked for before somebody began to wait runs already, so to speak.

        Units kept for somebody are an exception to it.
        """
        if any(account.source.reserve for account in self.accounts.values()):
            return
        for name, account in self.accounts.items():
            if account.waits_since is not None and name != item.source and item.sent_at >= account.waits_since:
                account.others += 1
                self.worst_wait = max(self.worst_wait, account.others / account.bound)
                assert account.others <= account.bound, f"P11: {name} waits for too many starts of others"

    # -- the account -------------------------------------------------------------------------------------------------

    def sharers(self, now: float, gates: Mapping[str, float]) -> set[str]:
        """Backlogged sources that can be polled, prompt ones unless overdue; slow ones if the prompt leave units."""
        self.last = now
        found = {
            name: account.slow
            for name, account in self.accounts.items()
            if account.backlogged
            and account.delivering
            and not account.paused
            and name not in gates
            and len(account.abandoned) < self.config.max_abandoned
            and (account.slow or not account.live or now < account.live.overdue_at)
        }
        prompt = {name for name, slow in found.items() if not slow}
        usable = sum(min(self.capacity, self.accounts[name].cap) for name in prompt)
        kept = sum(account.kept for name, account in self.accounts.items() if name not in prompt)
        return prompt if usable >= self.capacity - kept else set(found)

    def rescued(self, now: float, gates: Mapping[str, float], early: Mapping[str, float]) -> tuple[str, float]:
        """P12: who has been open longest while all that can be polled are open, and when the last of them opened."""
        asked = [
            account
            for name, account in self.accounts.items()
            if account.delivering
            and not account.paused
            and len(account.abandoned) < self.config.max_abandoned
            and gates.get(name) != math.inf  # somebody forced it open
        ]
        if any(account.live or account.source.name not in early for account in asked):
            return "", math.inf
        opened = {account.source.name: early[account.source.name] for account in asked}
        opened = {name: at for name, at in opened.items() if at <= now}
        return (min(opened, key=opened.__getitem__), max(opened.values())) if opened else ("", math.inf)

    def shares(self, sharers: set[str]) -> dict[str, Fraction]:
        """The exact share of each: by weight, nobody above its max_units, what is left to those below."""
        shares: dict[str, Fraction] = {}
        kept = sum(account.kept for name, account in self.accounts.items() if name not in sharers)
        left, open_ = Fraction(self.capacity - kept), set(sharers)
        while open_:
            weight = sum(self.accounts[name].source.weight for name in open_)
            parts = {name: left * self.accounts[name].source.weight / weight for name in open_}
            capped = {n for n, part in parts.items() if self.accounts[n].cap < part}
            if not capped:
                return shares | parts
            shares |= {name: Fraction(self.accounts[name].cap) for name in capped}
            left -= sum(shares[name] for name in capped)
            open_ -= capped
        return shares

    def has_room(self, account: Account, sharers: set[str]) -> bool:
        """P4, P11: whether it has less than its share, or than the share it would have if it had one."""
        return account.units < self.share_of(account, sharers)

    def share_of(self, account: Account, sharers: set[str]) -> int:
        """P4: its share, rounded up, or what is kept for it."""
        name = account.source.name
        return max(account.kept, math.ceil(self.shares(sharers | {name})[name]))

    def somebody_starves(self, due: Iterable[Account], sharers: set[str]) -> bool:
        """Whether probes may be put off, lest what they bring runs before somebody who has waited long enough."""
        total = sum(self.accounts[name].source.weight for name in sharers)
        waiting = [account for account in due if account.is_owed or account.source.name in sharers]
        return any(account.passed * account.source.weight >= total and not account.units for account in waiting)

    def stuck(self, now: float) -> int:
        """Held items that cannot start at once."""
        return len(self.items) - len(self.fitting(self.capacity - self.executing - self.reserved(now)))

    def is_due(self, account: Account, now: float, gates: Mapping[str, float]) -> bool:
        """Whether it could be polled for certain."""
        return (
            account.live is None
            and account.delivering
            and not account.paused
            and len(account.abandoned) < self.config.max_abandoned
            and now >= account.latest
            and now >= gates.get(account.source.name, now)
        )

    def reserved(self, now: float) -> int:
        """Units that polls in flight keep from others; what is lent, abandoned polls too, is at most the capacity."""
        polls = [account.live for account in self.accounts.values() if account.live]
        lent = sum(poll.granted for poll in polls if poll.is_lent(now))
        gone = sum(poll.granted for account in self.accounts.values() for poll in account.abandoned.values())
        kept = sum(poll.granted for poll in polls if not poll.is_lent(now))
        return kept + lent - min(lent, max(0, self.capacity - gone))

    def granted(self) -> int:
        """Units that polls in flight were granted, lent or not."""
        return sum(account.live.granted for account in self.accounts.values() if account.live)

    def suspect_probes(self, now: float) -> int:
        """Probes of suspect sources in flight that are not overdue."""
        lives = [account.live for account in self.accounts.values() if account.live and account.suspect]
        return sum(live.request.probe and now < live.overdue_at for live in lives)

    def land(self, request: PollRequest) -> tuple[Poll, bool]:
        """The poll that ``request`` asked for, and whether it had been abandoned."""
        account = self.accounts[request.source]
        if request.number in account.abandoned:
            return account.abandoned.pop(request.number), True
        poll, account.live = account.live, None
        assert poll is not None
        assert poll.request is request
        return poll, False

    def arrive(
        self, account: Account, sent_at: float, values: Sequence[object], now: float, *, owed: bool = False
    ) -> None:
        """Hold what came."""
        account.held += len(values)
        for other in self.accounts.values():
            other.passed = 0 if other.units else other.passed + len(values)
        self.items.extend(Item(account.source.name, value, now, sent_at, owed) for value in values)

    def rest_after_answer(self, account: Account, count: int, waited: float, wait: float, now: float) -> None:
        """P6: a pause after an empty answer, unless it used its wait."""
        if count or (wait and waited >= 0.9 * wait):  # the clocks of two machines differ a little
            account.empties = 0
            account.earliest = account.latest = now
            return
        account.empties += 1
        longest = min(self.longest_pause, 0.002 * 2 ** min(30, account.empties - 1))
        account.pause(longest / 2, longest, now)

    def rest_after_failure(self, account: Account, now: float, hint: float) -> None:
        """P6: a longer pause after a failure, and at least what it asked for."""
        account.failed = True
        account.empties = 0
        account.failures += 1
        longest = min(1.0, 0.05 * 2 ** min(30, account.failures - 1))
        account.pause(max(longest / 2, hint), max(longest, hint), now)
