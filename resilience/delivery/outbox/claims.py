"""Who may send what several processes keep in one file: decided without clock, lock, thread or I/O.

Every process that has rows there makes a claim: until when they are its own. It renews the claim long before that, so
a claim that has run out belongs to a process that is dead or frozen, and others take its rows over. The clock they
share is the wall clock, which jumps: after a jump every claim looks as if it had run out, or as if it were too good to
be true. Hence the second look: a claim is over once two looks in a row have found it so, unchanged, by which time
whoever is alive has renewed it. The first look of a process needs no second: it comes from a start, not from a jump.
"""

from collections.abc import Iterable, Mapping

import attrs

__all__ = ["Claim", "Looks"]

_RENEWED = 3  # times that a claim is renewed while it is good


@attrs.frozen
class Claim:
    """Until when the rows of a process are its own.

    Attributes:
        owner: the process.
        until: seconds since the epoch.
        span: how many seconds it was made for.
    """

    owner: int
    until: float
    span: float

    def good(self, now: float) -> bool:
        """Whether it has not run out, and is not further ahead than it can be."""
        return now < self.until <= now + self.span

    def due(self, now: float) -> bool:
        """Whether it is time to renew it."""
        return not (self.good(now) and now <= self.until - self.span + self.span / _RENEWED)

    def renewed(self, now: float) -> "Claim":
        """The same, made now."""
        return attrs.evolve(self, until=now + self.span)


@attrs.frozen
class Looks:
    """What one process has seen of the others' claims: those that had run out at its last look, by owner.

    Attributes:
        bad: until when each was; None before the first look.
    """

    bad: Mapping[int, float] | None = None

    def next(self, claims: Iterable[Claim], now: float) -> tuple[list[int], "Looks"]:
        """The owners whose rows may be taken over, given all ``claims`` of others; to be asked a while apart."""
        bad = {claim.owner: claim.until for claim in claims if not claim.good(now)}
        before = bad if self.bad is None else self.bad
        return [owner for owner, until in bad.items() if before.get(owner) == until], Looks(bad)
