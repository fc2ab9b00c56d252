"""How results get home in virtual time: the real schedule and breakers of the relay, driven as its threads do."""

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from resilience.consumer.engine import ConsumerEngine
from resilience.delivery.config import RelayConfig
from resilience.delivery.parcel import Parcel, Settled
from resilience.delivery.routes import report
from resilience.delivery.schedule import Lane
from resilience.events import BacklogDrained, BacklogFull, DeliveryFailed, DeliveryResumed, Event
from resilience.outcomes import Rejected

from .sources import Simulated, ends

if TYPE_CHECKING:
    from .world import Simulation


TELLING = (DeliveryFailed, DeliveryResumed, BacklogFull, BacklogDrained)  # of whether a source may be polled


@attrs.define(eq=False)
class Send:
    """One attempt to send a result; a unit waits for it, or the relay has it."""

    post: "Post"
    source: Simulated
    parcel: Parcel
    permit: Any
    unit_waits: bool

    def go(self, timeout: float) -> None:
        """It takes as long as the source takes for an update, and until the source listens again."""
        world, source = self.post.world, self.source
        deaf = ends(source.deaf, world.now)
        answer = (world.now if deaf is None else deaf) + source.update
        if answer <= world.now:
            self.end(None)
        elif answer - world.now < timeout:
            world.at(answer, lambda: self.end(None))
        else:
            world.at(world.now + timeout, lambda: self.end(TimeoutError()))

    def end(self, error: BaseException | None) -> None:
        """The source has it, or the attempt's time is over."""
        lane, now = self.post.lanes[self.source.name], self.post.world.now
        report(self.permit, lane.judge(self.parcel, error, now), error)
        settled = lane.settle(self.parcel, error, now)
        self.post.note(self.source, settled)
        if self.unit_waits:
            if settled.kept:
                lane.release(self.parcel)
            self.post.world.finished(self.source)


class Post:
    """The relay of a world: a lane for each source, units that send by themselves while they may."""

    def __init__(self, world: "Simulation", config: RelayConfig | None = None) -> None:
        self.world = world
        self.config = config or RelayConfig()
        rng = random.Random(world.seed + 2)
        self.lanes = {source.name: Lane(source.name, self.config, rng) for source in world.sources if source.tells}
        self.deliveries = ConsumerEngine()
        self.taken = 0
        self._numbers = 0
        self._wake_at = -math.inf

    def deliver(self, source: Simulated) -> None:
        """A unit has a result for ``source``: it is free again once that is sent, or left to the relay."""
        world, lane = self.world, self.lanes[source.name]
        self._numbers += 1
        parcel = lane.admit(str(self._numbers), None, world.now)
        permit = self._permit(source.name) if parcel.inline else None
        if not parcel.inline or isinstance(permit, Rejected):
            if isinstance(permit, Rejected):
                lane.health.barred(permit.retry_after, world.now)
                lane.postpone(parcel, world.now)
            lane.release(parcel)
            self._tell(source, ())
            world.finished(source)
            return
        Send(self, source, parcel, permit, unit_waits=True).go(parcel.timeout)

    def relay(self) -> None:
        """Start what is due, and see to it that the world looks again in time."""
        now = self.world.now
        for name, lane in self.lanes.items():
            while (parcel := lane.start(now)) is not None:
                self._relay(self.world.by_name[name], lane, parcel)
        wake_at = min((lane.wake_at(now) for lane in self.lanes.values()), default=math.inf)
        if wake_at < math.inf and not now < self._wake_at <= wake_at:
            self._wake_at = wake_at
            self.world.at(wake_at, self.world.stir)

    def note(self, source: Simulated, settled: Settled) -> None:
        """Tell the planner what a delivery says about its source, as the adapter does."""
        self.taken += not settled.kept
        self.world.stirred = True
        self._tell(source, settled.events)

    def _tell(self, source: Simulated, events: Sequence[Event]) -> None:
        lane = self.lanes[source.name]
        for event in (*events, *lane.backlog()):
            if isinstance(event, TELLING):
                self.deliveries.note(event, lane.pending)
                self.world.planner.deliveries(source.name, ok=self.deliveries.may_poll(source.name))

    def _relay(self, source: Simulated, lane: Lane, parcel: Parcel) -> None:
        permit = self._permit(source.name)
        if isinstance(permit, Rejected):
            lane.health.barred(permit.retry_after, self.world.now)
            lane.postpone(parcel, self.world.now)
            return
        Send(self, source, parcel, permit, unit_waits=False).go(self.config.send_timeout)

    def _permit(self, name: str) -> Any:
        breakers = self.world.update_breakers
        return None if breakers is None else breakers.get(name).try_acquire()
