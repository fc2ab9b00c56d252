"""What the planner knows of one source: its polls in flight, its units, and its state."""

import math
from typing import Any

import attrs

from resilience.polling.reasons import Why
from resilience.polling.source import PollRequest, Source, SourceView
from resilience.polling.tally import Counts

__all__ = ["Flight", "Track"]

FIRST_GROWTH = 5
SLOWEST_GROWTH = 640


@attrs.define(eq=False)
class Flight:
    """A poll that has been sent and has not come back."""

    request: PollRequest
    sent_at: float
    overdue_at: float
    lendable: bool = True
    overdue: bool = False
    abandoned: bool = False

    @property
    def granted(self) -> int:
        """Units it takes from the sum: none for a probe."""
        return 0 if self.request.probe else self.request.count

    @property
    def is_lent(self) -> bool:
        """Whether others may use what it was granted."""
        return self.overdue and self.lendable


@attrs.define(eq=False)
class Track:
    """One source as the planner sees it."""

    source: Source[Any]
    name: str = attrs.field(init=False)  # the source's
    executing: int = 0
    held: int = 0
    counts: Counts = attrs.field(factory=Counts)
    chained: int = 0
    live: Flight | None = None
    abandoned: dict[int, Flight] = attrs.field(factory=dict)
    answered: bool = False
    failed: bool = False
    slow: bool = False
    full: bool = False
    delivering: bool = True
    paused: bool = False
    broken: bool = False  # its poll returned what cannot be taken in, and so it is paused
    removed: bool = False
    most: int | None = None  # values that a poll may ask for, since more were too large an answer
    grows_after: int = FIRST_GROWTH  # full answers after which it may ask for one more
    full_answers: int = 0
    overfills: bool = False  # it has brought more than it was asked for
    kept: int = 0  # units that nobody else may have
    all_kept: int = 0  # units that are kept for any source
    cap: int | None = None  # units that it may have at most
    why: Why = Why.NO_UNIT
    not_before: float = -math.inf
    rests_after: str = ""
    polled_at: float = -math.inf
    empties: int = 0
    failures: int = 0
    debt: int = 0
    owed: int = 0
    waited_for: int = 0
    trip: float = 0.0
    ripe_at: float | None = None

    def __attrs_post_init__(self) -> None:
        self.name = self.source.name
        self.cap = self.source.max_units

    def ask_less(self, count: int) -> None:
        """The answer to a poll for ``count`` was too large.

        Growing again may cost another answer, with all that it brought: so it is slower each time.
        """
        if self.most is not None:
            self.grows_after = min(2 * self.grows_after, SLOWEST_GROWTH)
        self.most, self.full_answers = max(1, count // 2), 0

    def note_full(self, count: int) -> None:
        """The answer to a poll for ``count`` was full, and could be read."""
        if self.most is None or count < self.most:
            return
        self.full_answers += 1
        if self.full_answers >= self.grows_after:
            self.most, self.full_answers = count + 1, 0

    def batch(self, capacity: int) -> int:
        """The most values that a poll may ask for."""
        return min(self.source.max_batch or capacity, self.most or capacity)

    @property
    def suspect(self) -> bool:
        """Whether its last call failed, or none was answered yet."""
        return self.failed or not self.answered

    @property
    def backlogged(self) -> bool:
        """Whether its last answer was full."""
        return self.full and not self.suspect

    @property
    def is_owed(self) -> bool:
        """Whether its next poll stands inside the sum, because items of it have been given back."""
        return self.owed > 0 and not self.suspect

    @property
    def units(self) -> int:
        """Units it executes, holds and was granted."""
        return self.executing + self.held + (self.live.granted if self.live is not None else 0)

    def view(self) -> SourceView:
        """What others may see of it."""
        return SourceView(
            **attrs.asdict(self.counts),
            state=self.state,
            executing=self.executing,
            held=self.held,
            in_flight=self.live.request.count if self.live is not None else 0,
            chained=self.chained,
        )

    @property
    def state(self) -> str:
        """The word for how it stands."""
        if self.removed:
            return "removed"
        if self.suspect:
            return "suspect"
        if self.slow:
            return "slow"
        return "backlogged" if self.full else "caught up"
