"""Tallies: what became of everything that sources brought, exactly. Pure.

Whatever arrives is received once, and from then on it is in one place: it is held, it executes, it has finished, it
is on its way back, is back, or could not be taken back, or it was dropped.
"""

from collections.abc import Iterable

import attrs

__all__ = ["Counts", "Tally", "total"]


@attrs.frozen(kw_only=True)
class Tally:
    """What became of the items that a source, or all of them, brought so far.

    Attributes:
        received: items that arrived, however they came: with polls, late, or with the answer to a result.
        started: those that started.
        finished: those that started and ended.
        given_back: those that went back to their source without having finished.
        giving_back: those that are on their way back.
        kept: those that could not be given back: their source times them out, if it does such a thing.
        dropped: those whose lease was lost before they started: somebody else may have been given them.
        late: those that arrived after nobody waited for them any more; they are in the other numbers too.
        held: those that have not started.
        executing: those that have started and not finished.
    """

    received: int = 0
    started: int = 0
    finished: int = 0
    given_back: int = 0
    giving_back: int = 0
    kept: int = 0
    dropped: int = 0
    late: int = 0
    held: int = 0
    executing: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every item that arrived is accounted for once; it always is, or there is a defect here."""
        gone = self.finished + self.given_back + self.giving_back + self.kept + self.dropped
        return self.received == gone + self.held + self.executing


@attrs.define(eq=False)
class Counts:
    """The running counts of a `Tally`, without those that planning keeps anyway."""

    received: int = 0
    started: int = 0
    finished: int = 0
    given_back: int = 0
    giving_back: int = 0
    kept: int = 0
    dropped: int = 0
    late: int = 0

    def add(self, other: "Counts") -> None:
        """Count what ``other`` has counted, too."""
        for field in attrs.fields(Counts):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def leave(self, count: int) -> None:
        """So many items begin to go back."""
        self.giving_back += count

    def returned(self, back: int, kept: int) -> None:
        """Of those that went back so many are ``back``, and so many ``kept`` because they were not taken."""
        self.giving_back -= back + kept
        self.given_back += back
        self.kept += kept

    def move(self, count: int, to: "Counts") -> None:
        """So many items that have started are somebody else's."""
        for counts, change in ((self, -count), (to, count)):
            counts.received += change
            counts.started += change

    def tally(self, *, held: int, executing: int) -> Tally:
        """What has been counted, with what is held and executing now."""
        return Tally(**attrs.asdict(self), held=held, executing=executing)


def total(counts: Iterable[Counts], *, held: int, executing: int) -> Tally:
    """All of them together."""
    everything = Counts()
    for some in counts:
        everything.add(some)
    return everything.tally(held=held, executing=executing)
