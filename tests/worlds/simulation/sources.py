"""Sources, their tasks and their faults, as values."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs

from resilience.polling import Source

NEVER = float("inf")
Windows = Sequence[tuple[float, float]]


@attrs.define(eq=False)
class Job:
    """One task of a source, and how often it was given back."""

    source: str
    returns: int = 0


@attrs.define(eq=False)
class Simulated:
    """A source: ``backlog`` tasks at the start and ``rate`` new ones a second; its calls take ``trip`` seconds.

    It answers at once when it has something, else when the wait is over. A unit is busy with a task for about ``task``
    seconds and then for ``update`` seconds with its result.

    In these spans of time: ``stalls``: no call answers, what it assigned arrives afterwards; ``swallows``: tasks are
    assigned and no call ever answers; ``fails``: every call fails after its trip; ``deaf``: no result is taken before
    the span is over.
    """

    name: str
    trip: float = 0.001
    backlog: float = 0
    rate: float = 0.0
    task: float = 0.01
    spread: float = 0.5
    update: float = 0.0
    weight: int = 1
    max_batch: int | None = None
    max_units: int | None = None
    reserve: int = 0
    stalls: Windows = ()
    swallows: Windows = ()
    fails: Windows = ()
    deaf: Windows = ()
    taken: int = 0
    returned: deque[Job] = attrs.field(factory=deque)

    @property
    def tells(self) -> bool:
        """Whether it matters how its results get home."""
        return bool(self.update or self.deaf)

    def waiting(self, now: float) -> int:
        """Tasks that can be polled at ``now``."""
        made = self.backlog + self.rate * now
        return 10**9 if made == NEVER else int(made + 1e-9) - self.taken + len(self.returned)

    def next_at(self, now: float) -> float:
        """When the next task can be polled."""
        if self.waiting(now) > 0:
            return now
        return (self.taken + 1 - self.backlog) / self.rate if self.rate else NEVER

    def take(self, count: int, now: float) -> list[Job]:
        """Assign at most ``count`` tasks, those that came back before new ones."""
        jobs = []
        for _ in range(min(count, self.waiting(now))):
            if self.returned:
                jobs.append(self.returned.popleft())
            else:
                self.taken += 1
                jobs.append(Job(self.name))
        return jobs

    def source(self) -> Source[Any]:
        """What the planner is told of it; the simulation polls instead of it."""
        return Source(
            self.name,
            print,
            weight=self.weight,
            max_batch=self.max_batch,
            max_units=self.max_units,
            reserve=self.reserve,
        )


def ends(windows: Windows, now: float) -> float | None:
    """When the span that ``now`` lies in is over; None outside all of them."""
    return next((end for begin, end in windows if begin <= now < end), None)
