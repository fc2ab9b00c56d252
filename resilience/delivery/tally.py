"""What became of the results of a destination, counted."""

import attrs

__all__ = ["DestinationView", "Tally"]


@attrs.define
class Tally:
    """Counts of one destination; the ledger's lock guards them. `DestinationView` says what they mean."""

    delivered: int = 0
    dead: int = 0
    written: int = 0
    inherited: int = 0
    passed: int = 0
    left: int = 0
    undelivered: int = 0

    def view(self, waiting: int, unwritten: int) -> "DestinationView":
        """The same for others to read, with what there is now."""
        return DestinationView(waiting=waiting, unwritten=unwritten, **attrs.asdict(self))


@attrs.frozen(kw_only=True)
class DestinationView:
    """What became of one destination's results, since the relay was made.

    Attributes:
        waiting: results that the relay has now: they wait, or are being sent by it.
        unwritten: how many of these could not be written down.
        delivered: taken by the destination.
        dead: refused for good.
        written: written down; a result that was sent at once is not.
        inherited: taken over from the store: of a former process, of one that died, or revived dead letters.
        passed: taken over by another process, because this one seemed dead.
        left: at the close, safe on the disk for the next process.
        undelivered: at the close, lost with the process.
    """

    waiting: int
    unwritten: int
    delivered: int
    dead: int
    written: int
    inherited: int
    passed: int
    left: int
    undelivered: int
