"""The store as a relay uses it: what fails there is in the log and harms nobody else."""

import logging
from collections.abc import Callable, Collection, Mapping

from resilience.delivery.store import Claimed, Row, Stock, Store
from resilience.errors import OutboxError

__all__ = ["Archive"]

log = logging.getLogger("resilience.delivery")


class Archive:
    """A store that never raises. Thread-safe, and slow as disks are: to be called with no lock held.

    Args:
        store: the one.

    Attributes:
        durable: its rows outlive the process.
        claim_for: seconds that a claim is good for.
    """

    def __init__(self, store: Store) -> None:
        self.durable = store.durable
        self.claim_for = store.claim_for
        self._store = store
        self._failing: set[Callable[..., object]] = set()  # one error in the log, not one for each result

    def put(self, row: Row) -> Row | Exception:
        """The row as it was written down, or why it was not."""
        try:
            kept = self._store.put(row)
        except Exception as error:  # noqa: BLE001 - a full disk must not lose what memory still has
            self._complain(
                self.put, error, "a result for %r could not be written down; it is kept in memory", row.destination
            )
            return error
        self._failing.discard(self.put)
        return kept

    def cross_out(self, row: Row, dead: str | None) -> None:
        """It was taken, or is ``dead`` for this reason."""
        try:
            if dead is None:
                self._store.remove(row)
            else:
                self._store.bury(row, dead)
        except Exception as error:  # noqa: BLE001 - the result is settled all the same; at worst it is sent once more after a restart
            self._complain(self.cross_out, error, "a settled result of %r could not be crossed out", row.destination)
        else:
            self._failing.discard(self.cross_out)

    def release(self, rows: Collection[Row]) -> bool:
        """Others may have them; returns False if the disk has none of our rows any more."""
        try:
            self._store.release(rows)
        except Exception as error:  # noqa: BLE001 - they are others' once the claim has run out
            log.info("%d results on the disk could not be released: %s", len(rows), error)
            return not _lost(error)
        return True

    def claim(self, destinations: Mapping[str, str]) -> Claimed | Exception:
        """What there is for us; nothing if that cannot be found out, or why the disk has none of our rows any more."""
        try:
            claimed = self._store.claim(destinations)
        except Exception as error:  # noqa: BLE001 - what we have is sent all the same
            self._complain(self.claim, error, "results on the disk cannot be looked for")
            return error if _lost(error) else Claimed()
        self._failing.discard(self.claim)
        return claimed

    def strangers(self, destinations: Mapping[str, str]) -> list[Stock]:
        """What waits for destinations that are not among these, and is no living process's."""
        try:
            return [
                stock
                for stock in self._store.stock()
                if stock.free and destinations.get(stock.destination) != stock.identity
            ]
        except Exception as error:  # noqa: BLE001 - it is only told
            self._complain(self.claim, error, "results on the disk cannot be counted")
            return []

    def _complain(self, about: Callable[..., object], error: Exception, text: str, *values: object) -> None:
        if about not in self._failing:
            log.error(text, *values, exc_info=error)
        self._failing.add(about)


def _lost(error: Exception) -> bool:
    return isinstance(error, OutboxError) and error.lost
