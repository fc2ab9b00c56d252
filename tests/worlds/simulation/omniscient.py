"""What a scheduler could do who knows everything beforehand: who has what, who is in trouble and until when.

It is a fluid: items flow at steady rates from one event to the next. It keeps to the rules' limits: one poll at a time
of a source, a unit for every item that is asked for (but not for probes), items by weight, and no source above its
share rounded up while others want more. It wastes nothing: no poll is empty, fails or hangs, and nobody pauses.
With ``prefetch`` it may do more than the rules allow: units never wait for what was asked for.
"""

import math
from collections.abc import Sequence

import attrs

from .sources import NEVER, Simulated, Windows, ends

SLOW = 0.5  # a round trip that is longer makes a source slow: a probe at a time while others could use the capacity
STEP = 0.05  # seconds; nothing is looked at more often


@attrs.define(eq=False)
class Flow:
    """One source: what waits there, what comes, and what it is given."""

    source: Simulated
    capacity: int
    waiting: float
    cost: float = 0.0  # seconds of a unit for an item
    most: float = 0.0  # items a second, at most
    rate: float = 0.0
    troubles: Windows = ()

    def __attrs_post_init__(self) -> None:
        self.troubles = troubles(self.source)

    @property
    def units(self) -> int:
        """The most units it may have."""
        return min(self.capacity, self.source.max_units or self.capacity)

    @property
    def occupied(self) -> float:
        """Seconds that an item occupies its unit once it is there."""
        return self.source.task + self.source.update

    @property
    def drained_in(self) -> float:
        """Seconds until nothing waits any more."""
        shrinks = self.rate - self.source.rate
        return self.waiting / shrinks if 0 < self.waiting < NEVER and shrinks > 1e-9 else NEVER

    def well_at(self, now: float) -> bool:
        """Whether polling it comes to something."""
        return ends(self.troubles, now) is None

    def limit(self, *, outside: bool, prefetch: bool) -> None:
        """Note what an item costs and how many there may be a second; ``outside``: probes, which wait for no unit."""
        source = self.source
        self.cost = self.occupied + (0.0 if outside or prefetch else source.trip)
        batch = 1 if outside else min(self.units, source.max_batch or self.capacity)
        coming = NEVER if self.waiting > 1e-9 else source.rate
        self.most = min(coming, batch / source.trip, self.units / self.cost)


def best(sources: Sequence[Simulated], capacity: int, seconds: float, *, prefetch: bool = False) -> float:
    """Seconds of units that tasks could have in so many ``seconds``."""
    flows = [Flow(source, capacity, source.backlog) for source in sources]
    turns = {turn for source in sources for span in troubles(source) for turn in span}
    marks = sorted({turn for turn in turns if 0 < turn < seconds} | {seconds})
    now = busy = 0.0
    while now < seconds:
        _divide([flow for flow in flows if flow.well_at(now)], capacity, prefetch=prefetch)
        until = min(next(mark for mark in marks if mark > now), now + max(STEP, min(flow.drained_in for flow in flows)))
        for flow in flows:
            busy += flow.rate * flow.source.task * (until - now)
            flow.waiting = max(0.0, flow.waiting + (flow.source.rate - flow.rate) * (until - now))
            flow.rate = 0.0
        now = until
    return busy


def troubles(source: Simulated) -> Windows:
    """All spans in which polling ``source`` comes to nothing."""
    return [*source.stalls, *source.swallows, *source.fails, *source.deaf]


def _divide(flows: Sequence[Flow], capacity: int, *, prefetch: bool) -> None:
    """Give every flow its rate."""
    prompt = [flow for flow in flows if flow.waiting > 1e-9 and flow.source.trip <= SLOW]
    crowded = sum(flow.units for flow in prompt) >= capacity
    for flow in flows:
        outside = flow.waiting <= 1e-9 or (crowded and flow not in prompt)
        flow.limit(outside=outside, prefetch=prefetch)
    for flow, share in zip(flows, _shares(flows, capacity), strict=True):
        flow.most = min(flow.most, share / flow.cost)
    _by_weight(flows, capacity)


def _shares(flows: Sequence[Flow], capacity: int) -> list[float]:
    """Units of each by weight, rounded up; what one cannot use the others may."""
    left, weight, shares = float(capacity), sum(flow.source.weight for flow in flows), {}
    for flow in sorted(flows, key=lambda flow: flow.most * flow.cost / flow.source.weight):
        part = left * flow.source.weight / weight
        shares[id(flow)] = share = min(part, flow.most * flow.cost)
        left, weight = left - share, weight - flow.source.weight
    return [math.ceil(shares[id(flow)] - 1e-9) for flow in flows]


def _by_weight(flows: Sequence[Flow], capacity: int) -> None:
    """Raise all rates by weight until each is at its most or the capacity is used up."""
    left = float(capacity)
    cost = sum(flow.source.weight * flow.cost for flow in flows)
    for flow in sorted(flows, key=lambda flow: flow.most / flow.source.weight):
        level = left / cost if cost > 1e-12 else NEVER
        flow.rate = min(flow.most, level * flow.source.weight)
        left -= flow.rate * flow.cost
        cost -= flow.source.weight * flow.cost
