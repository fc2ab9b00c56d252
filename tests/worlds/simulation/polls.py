"""One poll on its way: there, perhaps waiting, and back, or not."""

from typing import TYPE_CHECKING, Any

import attrs

from resilience.polling import PollRequest

from .sources import Job, Simulated, ends

if TYPE_CHECKING:
    from .world import Simulation


@attrs.define(eq=False)
class Call:
    """A poll of ``source``; ``permit`` is its breaker's, if there is one."""

    world: "Simulation"
    source: Simulated
    request: PollRequest
    permit: Any
    jobs: list[Job] = attrs.field(factory=list)
    ended: bool = False
    timed_out: bool = False

    def go(self) -> None:
        """It is sent."""
        now = self.world.now
        self.world.at(now + self.source.trip / 2, self._reach)
        self.world.at(now + self.world.config.poll_timeout, self._time_out)

    def _reach(self) -> None:
        """It is there: it fails, or waits for something."""
        now = self.world.now
        if ends(self.source.fails, now) is not None:
            self.world.at(now + self.source.trip / 2, self._fail)
            return
        leaves = min(self.source.next_at(now), now + self.request.wait)
        if leaves > now:
            self.world.at(leaves, self._leave)
        else:
            self._leave()

    def _leave(self) -> None:
        """It takes what is there, and goes back."""
        now = self.world.now
        self.jobs = self.source.take(self.request.count, now)
        if ends(self.source.swallows, now) is None:
            stalled = ends(self.source.stalls, now)
            self.world.at((now if stalled is None else stalled) + self.source.trip / 2, self._arrive)

    def _arrive(self) -> None:
        if not self.ended:
            self._end()
            if self.permit and not self.timed_out:
                self.permit.success()
            self.world.planner.answered(self.request, self.jobs, self.world.now)

    def _fail(self) -> None:
        if not self.ended:
            self._end()
            error = OSError("down")
            if self.permit and not self.timed_out:
                self.permit.failure(error)
            self.world.planner.failed(self.request, error, self.world.now)

    def _time_out(self) -> None:
        """It is abandoned, and its connection is closed some time later."""
        if not self.ended:
            self.timed_out = self.world.stirred = True
            if self.permit:
                self.permit.failure(TimeoutError())
            self.world.planner.timed_out(self.request, self.world.now)
            config = self.world.config
            self.world.at(self.world.now + config.give_up_after - config.poll_timeout, self._give_up)

    def _give_up(self) -> None:
        if not self.ended:
            self._end()
            self.world.planner.failed(self.request, OSError("closed"), self.world.now)

    def _end(self) -> None:
        self.ended = self.world.stirred = True
