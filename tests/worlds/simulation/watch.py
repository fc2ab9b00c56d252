"""A planner under light watch: what a driver sees of it must never break the promises that hold in every step.

Cheaper than the referee, so that thousands of worlds can be watched: it knows polls, items and units, not the rules.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from resilience.polling import PollConfig, PollPlanner, PollRequest, Source

NO_GATES: Mapping[str, float] = {}


class BrokenError(AssertionError):
    """A promise was broken."""


@attrs.define(eq=False)
class Known:
    """What the driver knows of one source."""

    source: Source[Any]
    full: bool = False
    slow: bool = False
    failed: bool = True
    delivering: bool = True
    live: "Sent | None" = None
    units: int = 0  # items that have arrived and not finished
    waits_since: float | None = None
    others: int = 0  # starts of others since then, of items that were asked for since then


@attrs.define(eq=False)
class Sent:
    """A poll in flight."""

    request: PollRequest
    at: float
    overdue_at: float

    @property
    def granted(self) -> int:
        """Units that it has from the capacity's sum."""
        return 0 if self.request.probe else self.request.count


class Watch:
    """Has the methods of a planner, hands everything on, and raises `BrokenError`."""

    def __init__(
        self, sources: Iterable[Source[Any]], capacity: int, config: PollConfig | None = None, rng: Any = None
    ) -> None:
        told = list(sources)
        self.config = config or PollConfig()
        self.capacity = capacity
        self.planner = PollPlanner(told, capacity, self.config, rng or random.Random(0))
        self.known = {source.name: Known(source) for source in told}
        self.abandoned: dict[int, Sent] = {}
        self.held: int = 0
        self.executing: int = 0
        self.asked_at: dict[int, float] = {}  # when the item with this id was asked for
        self.total = sum(source.weight for source in told)
        self.startable = self.planner.startable
        self.next_wakeup = self.planner.next_wakeup
        self.may_chain = self.planner.may_chain
        self.drain_events = self.planner.drain_events

    # -- what the driver asks ----------------------------------------------------------------------------------------

    def plan(self, now: float, gates: Mapping[str, float] = NO_GATES, *others: Any) -> list[PollRequest]:
        """P1, P2, P3: one live poll a source, none of an open one, grants within the sum, little lent."""
        requests = self.planner.plan(now, gates, *others)
        for request in requests:
            known = self.known[request.source]
            _ensure(known.live is None, "P1: a second live poll", now, request)
            _ensure(known.delivering, "P13: polled while its results wait", now, request)
            opens_at = now if request.early else gates.get(request.source, now)
            _ensure(now >= opens_at, "P3: an open source was polled", now, request)
            known.live = Sent(request, now, now + request.wait + self.config.overdue_after)
            known.waits_since = None
        if any(not request.probe for request in requests):
            self._check_sum(now, requests)
        self._note_waits(now, gates)
        return requests

    def start(self, limit: int) -> list[Any]:
        """P2, P11: no more than fits, and nobody waits for ever."""
        started = self.planner.start(limit)
        self.held -= len(started)
        self.executing += len(started)
        _ensure(self.executing <= self.capacity, "P2: more executing than the capacity", math.nan, started)
        _ensure(self.planner.executing == self.executing, "P2: it counts otherwise", math.nan, started)
        if started:
            self._count_starts([(held.track.name, self.asked_at.pop(id(held.value))) for held in started])
        return started

    def overheld(self, now: float) -> list[Any]:
        """Items that go back are nobody's any more."""
        given = self.planner.overheld(now)
        self.held -= len(given)
        for held in given:
            self.known[held.track.name].units -= 1
            self.asked_at.pop(id(held.value))
        _ensure(self.planner.held == self.held, "P8: it counts otherwise", now, given)
        return given

    # -- what the driver tells ---------------------------------------------------------------------------------------

    def answered(self, request: PollRequest, values: Sequence[object], now: float) -> None:
        """Items have arrived."""
        sent, late = self._land(request)
        known = self.known[request.source]
        self._arrive(known, values, sent.at)
        if not late:
            known.failed, known.full = False, len(values) >= request.count
            known.slow = now > sent.overdue_at
        self.planner.answered(request, values, now)

    def failed(self, request: PollRequest, error: BaseException, now: float) -> None:
        """A poll came to nothing."""
        _, late = self._land(request)
        self.known[request.source].failed |= not late
        self.planner.failed(request, error, now)

    def timed_out(self, request: PollRequest, now: float) -> None:
        """A poll may still bring something."""
        sent, _ = self._land(request)
        self.abandoned[request.number] = sent
        self.known[request.source].failed = True
        self.planner.timed_out(request, now)

    def rejected(self, request: PollRequest, retry_after: float | None, now: float) -> None:
        """A poll never ran."""
        self._land(request)
        self.planner.rejected(request, retry_after, now)

    def finished(self, source: str) -> None:
        """A unit is free."""
        self.executing -= 1
        self.known[source].units -= 1
        self.planner.finished(source)

    def chained(self, source: str, values: Sequence[object], now: float, *, late: bool = False) -> None:
        """A unit may go on with what came with the answer to its result, or is free."""
        known = self.known[source]
        self._arrive(known, values, now)
        if not late:
            self.executing -= 1
            known.units -= 1
            known.full = bool(values)
        self.planner.chained(source, values, now, late=late)

    def link(self, source: str, now: float, gates: Mapping[str, float] = NO_GATES) -> bool:
        """A unit goes on at once with what came: one item has ended, the next has started."""
        if not self.planner.link(source, now, gates):
            return False
        _ensure(self.held == 0, "P2: what is held comes before what a chain brings", now, source)
        self._count_starts([(source, now)])
        return True

    def deliveries(self, source: str, ok: bool) -> None:
        """Results get home, or do not."""
        self.known[source].delivering = ok
        self.planner.deliveries(source, ok=ok)

    # -- the promises ------------------------------------------------------------------------------------------------

    def _check_sum(self, now: float, requests: Sequence[PollRequest]) -> None:
        """What abandoned polls may still bring counts as lent before anything else is."""
        lives = [known.live for known in self.known.values() if known.live is not None]
        overdue = sum(sent.granted for sent in lives if now >= sent.overdue_at)
        prompt = sum(sent.granted for sent in lives) - overdue
        gone = sum(sent.granted for sent in self.abandoned.values())
        lent = min(overdue, max(0, self.capacity - gone))
        total = self.executing + self.held + prompt + overdue - lent
        _ensure(total <= self.capacity, f"P2: {total} units for a capacity of {self.capacity}", now, requests)

    def _note_waits(self, now: float, gates: Mapping[str, float]) -> None:
        for name, known in self.known.items():
            prompt = known.full and not (known.failed or known.slow or known.live or known.units)
            if not (prompt and known.delivering and name not in gates):
                known.waits_since = None
            elif known.waits_since is None:
                known.waits_since, known.others = now, 0

    def _count_starts(self, asked: Sequence[tuple[str, float]]) -> None:
        for name, known in self.known.items():
            if known.waits_since is None:
                continue
            known.others += sum(other != name and at >= known.waits_since for other, at in asked)
            bound = -(-self.total // known.source.weight) + len(self.known) - 1
            _ensure(known.others <= bound, f"P11: {name} waits for {known.others} starts of others", 0.0, bound)

    def _arrive(self, known: Known, values: Sequence[object], asked_at: float) -> None:
        known.units += len(values)
        self.held += len(values)
        self.asked_at.update((id(value), asked_at) for value in values)

    def _land(self, request: PollRequest) -> tuple[Sent, bool]:
        late = self.abandoned.pop(request.number, None)
        if late is not None:
            return late, True
        known = self.known[request.source]
        sent, known.live = known.live, None
        _ensure(sent is not None and sent.request is request, "a poll landed twice", 0.0, request)
        return sent, False  # type: ignore[return-value]


def _ensure(holds: bool, promise: str, now: float, what: object) -> None:
    if not holds:
        raise BrokenError(f"{promise}, at {now:.3f} s: {what}")
