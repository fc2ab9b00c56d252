"""A machine in virtual time: processes whose threads run one at a time, each step decided by a seed.

A strand is a thread of the simulation. It runs until it waits, or until a point of interest (taking a lock, calling a
server, writing to disk) where another may be let in, or where its process may be killed: between any two steps.
"""

import heapq
import itertools
import random
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet

MOST_SWITCHES = 20_000  # at one moment; more is busy waiting


class Killed(BaseException):
    """Raised in every strand of a process that was killed, wherever it looks up."""


class Strand(greenlet):
    """A thread of a virtual process."""

    def __init__(self, process: "Process", target: Callable[[], object], name: str) -> None:
        super().__init__(self._run, process.machine.hub)
        self.process = process
        self.name = name
        self.parked = False
        self.woken = False
        self.ticket = 0  # of its present wait: what comes for an earlier one is too late
        self.ended = False
        self.joiners: list[Strand] = []
        self._target = target

    def _run(self) -> None:
        try:
            if not self.process.dead:
                self._target()
        except Killed:
            pass
        except BaseException:  # noqa: BLE001 - a thread that ends so is a finding
            self.process.machine.find(f"thread {self.name!r} died: {traceback.format_exc()}")
        self.ended = True
        del self._target
        for joiner in tuple(self.joiners):
            self.process.machine.wake(joiner)


class Process:
    """A process: its strands, and its clocks."""

    def __init__(self, machine: "Machine", name: str) -> None:
        self.machine = machine
        self.name = name
        self.dead = False
        self.skew = 0.0  # of its monotonic clock
        self.frozen_until = 0.0
        self.strands: list[Strand] = []
        self.doom: tuple[str, int] | None = None  # at which kind of point, the how-manieth from now, it dies
        self.on_death: list[Callable[[], None]] = []

    def monotonic(self) -> float:
        """What its monotonic clock shows."""
        return self.machine.now + self.skew

    def spawn(self, target: Callable[[], object], name: str) -> Strand:
        """Start a strand."""
        if self.dead:
            raise Killed
        strand = Strand(self, target, name)
        self.strands.append(strand)
        self.machine.ready.append(strand)
        return strand


class Machine:
    """Time and everything that runs.

    Args:
        seed: of every random draw that the programs make, and of who goes first.
        restless: how likely another strand is let in at a point.
    """

    def __init__(self, seed: int, restless: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.restless = restless
        self.hub = getcurrent()
        self.now = 0.0
        self.disk: Any = None
        self.wall = 1_700_000_000.0  # what the wall clock shows at time 0
        self.ready: deque[Strand] = deque()
        self.found: str = ""
        self.steps = 0
        self.switches = 0  # since time went on
        self._urgent: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Any, int]] = []
        self._numbers = itertools.count()

    # -- for the hub -------------------------------------------------------------------------------------------------

    def run(self, until: float, enough: Callable[[], bool]) -> bool:
        """Go on until ``enough()``, which is asked before time goes on, or something is found; False at ``until``."""
        while True:
            self._run_ready()
            if self.found or enough():
                return True
            if not self._timers or self._timers[0][0] > until:
                self.now = until
                return False
            self._next()

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Let something happen outside of all processes."""
        heapq.heappush(self._timers, (time, next(self._numbers), event, -1))

    def find(self, what: str) -> None:
        """Something is not as it must be; the first finding counts."""
        self.found = self.found or f"at {self.now:.4f} s: {what}"

    def wake(self, strand: Strand) -> bool:
        """End the wait of a strand; False if it does not wait."""
        if not strand.parked:
            return False
        strand.parked, strand.woken = False, True
        self.ready.append(strand)
        return True

    def kill(self, process: Process) -> None:
        """End a process here and now: none of its strands does anything more."""
        if process.dead:
            return
        process.dead = True
        self._urgent.append(lambda: self._bury(process))

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process for a while; its clocks go on."""
        process.frozen_until = max(process.frozen_until, self.now + seconds)

    def skip(self, process: Process, seconds: float) -> None:
        """Let the monotonic clock of a process jump ahead."""
        process.skew += seconds
        self._timers = [
            (max(self.now, at - seconds) if number >= 0 and what.process is process else at, order, what, number)
            for at, order, what, number in self._timers
        ]
        heapq.heapify(self._timers)

    def forget(self) -> None:
        """Let go of everything: what ran here is not to live on because it is still expected."""
        self._timers.clear()
        self._urgent.clear()
        self.ready.clear()

    # -- for strands -------------------------------------------------------------------------------------------------

    def park(self, seconds: float | None = None) -> bool:
        """Wait to be woken; False if that did not happen in time."""
        strand: Strand = getcurrent()  # type: ignore[assignment]
        if strand.process.dead:
            raise Killed
        strand.ticket += 1
        strand.parked = True
        if seconds is not None:
            wake_at = self.now + max(0.0, seconds)
            heapq.heappush(self._timers, (wake_at, next(self._numbers), strand, strand.ticket))
        self.hub.switch()
        if strand.process.dead:
            raise Killed
        return strand.woken

    def point(self, kind: str) -> None:
        """A place between two steps of a strand."""
        strand: Strand = getcurrent()  # type: ignore[assignment]
        process = strand.process
        if process.dead:
            raise Killed
        self.steps += 1
        if process.doom is not None:
            where, left = process.doom
            if where in ("any", kind):
                process.doom = where, left - 1
                if left <= 0:
                    self.kill(process)
                    raise Killed
        if self.restless and self.rng.random() < self.restless:
            self.ready.append(strand)
            self.hub.switch()
            if process.dead:
                raise Killed

    # -- inside ------------------------------------------------------------------------------------------------------

    def _run_ready(self) -> None:
        ready, urgent = self.ready, self._urgent
        while ready or urgent:
            while urgent:
                urgent.popleft()()
            if not ready:
                return
            if self.restless and len(ready) > 1 and self.rng.random() < self.restless:
                ready.rotate(-self.rng.randrange(len(ready)))
            strand = ready.popleft()
            process = strand.process
            if process.dead:
                continue
            if process.frozen_until > self.now:
                self.at(process.frozen_until, lambda strand=strand: ready.append(strand))
                continue
            self.switches += 1
            if self.switches > MOST_SWITCHES:
                self.find(f"busy waiting, at last in thread {strand.name!r}")
            strand.switch()
            if self.found:
                return

    def _next(self) -> None:
        at, _, what, ticket = heapq.heappop(self._timers)
        if at > self.now:
            self.now = at
            self.switches = 0
        if ticket < 0:
            what()
        elif what.parked and what.ticket == ticket and not what.process.dead:
            what.parked = what.woken = False
            self.ready.append(what)

    def _bury(self, process: Process) -> None:
        """Unwind its strands: whatever they try on their way out fails."""
        for strand in process.strands:
            if strand:  # one that has begun and not ended
                strand.throw(Killed)
        process.strands.clear()
        for hear in process.on_death:
            hear()
