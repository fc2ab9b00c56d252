"""Results whose answer brings the next item, and how long units wait for it."""

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from .sources import Job, Simulated, ends

if TYPE_CHECKING:
    from .world import Simulation

INLINE_TIMEOUT = 1.0  # how long a unit waits for the answer
PATIENCE = 0.2  # how long it waits while another unit of the same source waits as well
SILENCE = 0.05, 0.005  # for how long a first one may be silent before others ask no more; and one of several
NEXT_WAIT = 0.1  # how long a source waits for the item that is to come with an answer


class Chains:
    """What goes on of the kind in a world."""

    def __init__(self, world: "Simulation") -> None:
        self.world = world
        self.waiting: dict[str, list[Exchange]] = {source.name: [] for source in world.sources}  # units wait for them
        self.astray: Counter[str] = Counter()  # answers that no unit waits for
        self.brought: Counter[str] = Counter()  # items

    def go(self, source: Simulated) -> bool:
        """A unit of ``source`` has a result: whether it may ask for the next item with it."""
        now, name = self.world.now, source.name
        waiting = self.waiting[name]
        if self.astray[name] or ends(source.deaf, now) is not None:
            return False
        if waiting and now - waiting[0].began > SILENCE[len(waiting) >= 3]:
            return False
        if not self.world.planner.may_chain(name, now, self.world.gates()):
            return False
        exchange = Exchange(self, source, now)
        self.world.at(now + (PATIENCE if waiting else INLINE_TIMEOUT) + source.update, exchange.leave)
        self.world.at(now + source.update, exchange.reach)
        waiting.append(exchange)
        return True


@attrs.define(eq=False)
class Exchange:
    """One result on its way to a source that is to hand out its next item with the answer."""

    chains: Chains
    source: Simulated
    began: float
    ended: bool = False
    left: bool = False

    def reach(self) -> None:
        """The result is taken; the answer waits a moment for an item."""
        now = self.chains.world.now
        leaves = min(self.source.next_at(now), now + NEXT_WAIT)
        if leaves > now:
            self.chains.world.at(leaves, self._bring)
        else:
            self._bring()

    def leave(self) -> None:
        """Its unit waits no longer."""
        if not self.ended:
            self.left = True
            self._end()
            self.chains.astray[self.source.name] += 1
            self.chains.world.finished(self.source)

    def _bring(self) -> None:
        """It takes an item, if there is one, and goes back."""
        world = self.chains.world
        if ends(self.source.fails, world.now) is not None:
            self._end()
            world.finished(self.source)  # somebody else sends the result
            return
        jobs = self.source.take(1, world.now)
        stalled = ends(self.source.stalls, world.now)
        if ends(self.source.swallows, world.now) is not None:
            return
        if stalled is None:
            self._arrive(jobs)
        else:
            world.at(stalled, lambda: self._arrive(jobs))

    def _arrive(self, jobs: list[Job]) -> None:
        world, name = self.chains.world, self.source.name
        if self.left:
            world.stirred = True
            self.chains.astray[name] -= 1
            world.planner.chained(name, jobs, world.now, late=True)
            return
        self._end()
        self.chains.brought[name] += len(jobs)
        if jobs and world.planner.link(name, world.now, world.gates()):
            world.start(jobs[0])
            return
        world.stirred = True
        world.planner.chained(name, jobs, world.now)

    def _end(self) -> None:
        """No unit waits for it."""
        self.ended = True
        self.chains.waiting[self.source.name].remove(self)
