"""What is on the disk of a relay's results: written when they wait, claimed at the start, left to others at the end."""

import logging
import math
from collections.abc import Callable, Collection, Sequence

from resilience.delivery.archive import Archive
from resilience.delivery.attempt import Attempt
from resilience.delivery.ledger import Ledger
from resilience.delivery.parcel import Parcel
from resilience.delivery.routes import Route
from resilience.delivery.store import DeadLetter, Row
from resilience.events import DeadLettered, RowsKept, Undelivered

__all__ = ["Keeper"]

log = logging.getLogger("resilience.delivery")

_STUCK = 3  # destinations: it is not one large result that finds no room, then, but the disk
_LOOKS = 3  # while a claim is good: one that fails, or comes late, costs nothing yet


class Keeper:
    """Has the rows. Thread-safe, except for ``look``, which one thread at a time calls before it sends anything.

    Args:
        archive: where they are.
        ledger: has the results.
        clock: monotonic seconds.
    """

    def __init__(self, archive: Archive, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._archive = archive
        self._ledger = ledger
        self._clock = clock
        self._identities = {name: route.destination.identity for name, route in ledger.routes.items()}
        self._next_at = -math.inf if archive.durable else math.inf
        self._first = archive.durable

    def keep(self, route: Route, parcel: Parcel) -> None:
        """Write ``parcel`` down if that is to be, then let the relay send it."""
        kept = self._write(route, parcel) if parcel.final and parcel.row is None else parcel.row
        ledger, now = self._ledger, self._clock()
        with ledger.lock:
            parcel.row = row = kept if isinstance(kept, Row) else None
            gone = parcel.gone
            if not gone:
                route.lane.release(parcel)
                ledger.changed.notify_all()
                if isinstance(kept, Exception):
                    ledger.miss(route, parcel, kept, now)
            ledger.announcer.add(route.lane.backlog())
        if gone and row is not None:
            self._archive.cross_out(row, None)  # its attempt succeeded meanwhile
        elif ledger.closed and not gone:
            self._part({route: [parcel]}, [] if row is None else [row])
        ledger.announcer.tell()

    def write_first(self, attempt: Attempt) -> None:
        """Write the result down before its unit sends it."""
        self._ledger.begin(attempt, self._write(attempt.route, attempt.parcel))

    def look(self) -> float:
        """Do what is due; returns the clock time of the next look, if nothing happens."""
        if self._clock() >= self._next_at:
            self.claim()
        self.rewrite()
        return self._next_at

    def claim(self) -> None:
        """Renew the claim, take in what is nobody's, let go of what is no longer ours."""
        if self._archive.durable:
            self._next_at = self._clock() + self._archive.claim_for / _LOOKS
        claimed = self._archive.claim(self._identities)
        if isinstance(claimed, Exception):
            self._miss(claimed)
            return
        if claimed.lost:
            self._pass_on(claimed.lost)
        if claimed.rows or claimed.spoiled:
            self._take_in(claimed.rows, claimed.spoiled)
        if self._first:
            self._first = False
            strangers = self._archive.strangers(self._identities)
            self._ledger.announcer.add(RowsKept(stock.destination, stock.identity, stock.free) for stock in strangers)
        self._ledger.announcer.tell()

    def rewrite(self, *, at_once: bool = False) -> None:
        """Try again to write what could not be written, if it is time."""
        ledger = self._ledger
        now = math.inf if at_once else self._clock()
        with ledger.lock:
            due = ledger.unwritten.due(now)
        stuck: set[str] = set()
        for name, parcel in due:
            if name in stuck:
                continue
            kept = self._write(ledger.routes[name], parcel)
            if not isinstance(kept, Row):
                stuck.add(name)
                with ledger.lock:
                    ledger.unwritten.postpone(name, parcel)
                if len(stuck) == _STUCK:
                    return  # so it is with the others
                continue
            with ledger.lock:
                parcel.row, gone = kept, parcel.gone
                ledger.announcer.add(ledger.unwritten.remove(name, parcel))
            if gone:  # taken meanwhile
                self._archive.cross_out(kept, None)
            ledger.announcer.tell()

    def leave(self) -> int:
        """Nothing is sent any more; report what is left, once, and return how many results that is."""
        ledger = self._ledger
        with ledger.lock:
            again, ledger.closed = ledger.closed, True
            left = {route: route.lane.leftovers() for route in ledger.routes.values()}
            resting = [parcel.row for route in left for parcel in route.lane.resting() if parcel.row is not None]
            ledger.changed.notify_all()
        if not again:
            self._part(left, resting)
            ledger.announcer.tell()
        return sum(map(len, left.values()))

    def _write(self, route: Route, parcel: Parcel) -> Row | Exception:
        kept = self._archive.put(route.row(parcel))
        if isinstance(kept, Row):
            with self._ledger.lock:
                route.tally.written += 1
        return kept

    def _take_in(self, rows: Sequence[Row], spoiled: Sequence[DeadLetter]) -> None:
        """Send ``rows`` that others left, in this order; tell of those that cannot be read."""
        ledger, now = self._ledger, self._clock()
        with ledger.lock:
            for row in rows:
                route = ledger.routes[row.destination]
                parcel = route.lane.admit(row.key, row.payload, now, inline=False)
                parcel.row = row
                route.lane.release(parcel)
                route.tally.inherited += 1
                ledger.announcer.add(route.lane.backlog())
            for letter in spoiled:
                ledger.routes[letter.row.destination].tally.dead += 1
                ledger.announcer.add([DeadLettered(letter.row.destination, letter.row.key, letter.reason)])
            ledger.changed.notify_all()

    def _miss(self, error: Exception) -> None:
        """What was on the disk is not there any more, because of ``error``: it is in memory alone again."""
        ledger, now = self._ledger, self._clock()
        with ledger.lock:
            for route in ledger.routes.values():
                for parcel in route.lane.written():
                    parcel.row = None
                    ledger.miss(route, parcel, error, now)
        ledger.announcer.tell()

    def _pass_on(self, ids: Collection[int]) -> None:
        """Another process has the rows with these ``ids``: they are not ours to send."""
        ledger = self._ledger
        with ledger.lock:
            before = sum(route.tally.passed for route in ledger.routes.values())
            for route in ledger.routes.values():
                route.tally.passed += route.lane.lose(ids)
                ledger.announcer.add(route.lane.backlog())
            passed = sum(route.tally.passed for route in ledger.routes.values()) - before
            ledger.changed.notify_all()
        if passed:
            log.warning("another process has taken over %d results of this one, which seemed frozen", passed)

    def _part(self, left: dict[Route, list[Parcel]], resting: Collection[Row]) -> None:
        """Leave to the next process what is on the disk, and report what ends with this one."""
        safe, lost = {}, {}
        nothing = not (resting or any(left.values()))
        there = nothing or (self._archive.release(resting) and self._archive.durable)
        with self._ledger.lock:
            for route, parcels in left.items():
                name = route.lane.name
                safe[name] = [parcel for parcel in parcels if there and parcel.row is not None]
                lost[name] = [parcel for parcel in parcels if not (there and parcel.row is not None)]
                route.tally.left += len(safe[name])
                route.tally.undelivered += len(lost[name])
                self._ledger.announcer.add(Undelivered(name, parcel.key) for parcel in lost[name])
        if any(safe.values()):
            log.warning("results left in the outbox, for whoever opens it next: %s", _counted(safe))
        if any(lost.values()):
            log.error("results left undelivered: %s", _counted(lost))


def _counted(parcels: dict[str, list[Parcel]]) -> str:
    return ", ".join(f"{name} {len(some)}" for name, some in parcels.items() if some)
