"""The accounts of a relay on threads: which result is where, kept under one lock, and what follows from a change.

No send, store, breaker, listener or clock is used under that lock. Whatever happens to a result goes through here:
it is written down (``keep``), its attempt ends (``settle``) or did not come about (``bar``), it is left (``leave``).
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence

from resilience.delivery.attempt import Attempt, Chain
from resilience.delivery.outbox import Row, Store
from resilience.delivery.parcel import Parcel, Report, Settled
from resilience.delivery.routes import Announcer, Route, report
from resilience.delivery.watch import Watch
from resilience.events import Undelivered

__all__ = ["Ledger"]

log = logging.getLogger("resilience.delivery")

_LONGEST_SLEEP = 3600.0  # seconds; locks refuse to wait for ever so long


class Ledger:
    """The lanes of all destinations, thread-safe.

    Attributes:
        routes: the destinations, by name.
        end: clock time of the last attempts; ``inf`` while the relay is open.
        closed: nothing is sent any more.
    """

    def __init__(
        self, routes: Mapping[str, Route], store: Store, announcer: Announcer, clock: Callable[[], float]
    ) -> None:
        self.routes = routes
        self.end = math.inf
        self.closed = False
        self._store = store
        self._announcer = announcer
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._watch = Watch()
        self._crossing = 0  # settled results whose rows are being crossed out

    def admit(self, route: Route, key: str, payload: object, *, inline: bool, chain: Chain | None = None) -> Attempt:
        """Take a result in; its unit may send it if ``attempt.parcel.inline`` says so.

        With a ``chain`` its answer may bring the next value, and somebody is to look after it: see `Watch`.
        """
        now = self._clock()
        with self._lock:
            asks = chain is not None and not route.lane.silent(now)  # else there may be no value, or no answer
            parcel = route.lane.admit(key, payload, now, inline=inline and not self.closed)
            attempt = Attempt(route, parcel, chain=chain if asks else None)
            if asks and parcel.inline:
                parcel.grace = route.destination.exchange_wait
                if self._watch.set(attempt, now + parcel.timeout + parcel.grace):
                    self._changed.notify_all()
        return attempt

    def overstayed(self, inline_timeout: float) -> tuple[list[Attempt], list[Attempt]]:
        """Exchanges that their units are to leave, which the relay has from now on; and left ones that have failed."""
        now = self._clock()
        with self._lock:
            due = self._watch.due(now)
            failed = [attempt for attempt in due if attempt.left]
            for attempt in (leaving := [attempt for attempt in due if not attempt.left]):
                parcel = attempt.parcel
                attempt.left = attempt.route.lane.detach(parcel)
                attempt.route.astray += 1
                self._watch.set(attempt, parcel.started + inline_timeout + parcel.grace)
        return leaving, failed

    def due(self) -> list[tuple[Route, Parcel]]:
        """The results that the relay is to send now."""
        now = self._clock()
        due = []
        with self._lock:
            for route in self.routes.values():
                while (parcel := route.lane.start(now)) is not None:
                    due.append((route, parcel))
        return due

    def detach(self, attempt: Attempt) -> bool:
        """The unit leaves ``attempt``; False if that has just been settled."""
        with self._lock:
            return attempt.route.lane.detach(attempt.parcel)

    def prompt(self, route: Route) -> bool:
        """Whether a unit may send by itself now."""
        now = self._clock()
        with self._lock:
            return route.lane.prompt(now)

    def pending(self, name: str | None) -> int:
        """How many results the relay has, for one destination or in all."""
        with self._lock:
            return sum(route.lane.pending for route in self.routes.values() if name in (None, route.destination.name))

    def keep(self, route: Route, parcel: Parcel) -> None:
        """Write ``parcel`` down, then let the relay send it."""
        row = route.row(parcel)
        try:
            self._store.put(row)
        except Exception:  # a full disk must not lose what memory still has
            log.exception("a result for %r could not be written down; it is kept in memory", row.destination)
        self.written(route, parcel, row)

    def written(self, route: Route, parcel: Parcel, row: Row) -> None:
        """``row`` is what was written down of ``parcel``: the relay may send it."""
        with self._lock:
            parcel.row = row
            gone, closed = parcel.gone, self.closed
            if not gone:
                route.lane.release(parcel)
                self._changed.notify_all()
            self._announcer.add(route.lane.backlog())
        if gone:
            self._store.remove(row)  # its attempt succeeded meanwhile
        elif closed:
            self._lament({row.destination: [parcel]})
        self._announcer.tell()

    def bar(self, attempt: Attempt, pause: float | None) -> None:
        """The attempt did not run, or says nothing: look again after ``pause`` seconds (None: soon)."""
        report(attempt.permit, Report.NEUTRAL, None)
        lane, now = attempt.route.lane, self._clock()
        with self._lock:
            self._forget(attempt)
            lane.health.barred(pause, now)
            lane.postpone(attempt.parcel, now)
            self._changed.notify_all()
        _finish(attempt, Settled(kept=True))

    def settle(self, attempt: Attempt, error: BaseException | None, waited: float = 0.0) -> Settled:
        """The attempt has ended: None if the destination took the result, else what was raised.

        ``waited`` are the seconds that the destination waited because it was asked to.
        """
        lane, parcel, now = attempt.route.lane, attempt.parcel, self._clock()
        self._report(attempt, error, now)
        with self._lock:
            self._forget(attempt)
            settled = lane.settle(parcel, error, now, waited)
            told = self._note(attempt, settled)
            written = settled.dead is not None or (parcel.gone and parcel.row is not None)
            self._crossing += written
        if written:
            self._cross_out(attempt, settled)
        _finish(attempt, settled)
        if told:
            self._announcer.tell()
        return settled

    def time_out(self, attempt: Attempt, timeout: float) -> None:
        """The attempt is past its timeout; it runs on."""
        error = TimeoutError(f"no answer within {timeout:.3g} s")
        now = self._clock()
        self._report(attempt, error, now)
        with self._lock:
            if not attempt.left or attempt in self._watch:
                self._watch.remove(attempt)
                self._note(attempt, attempt.route.lane.time_out(attempt.parcel, error, now))
        self._announcer.tell()

    def sleep(self, deadline: float | None) -> None:
        """Wait until something is due, ``deadline`` has come, or something changed."""
        now = self._clock()
        with self._lock:
            wake_at = min(route.lane.wake_at(now) for route in self.routes.values())
            wake_at = min(wake_at, self._watch.next_at(), math.inf if deadline is None else deadline)
            if wake_at > now and not self.closed:
                self._watch.wake_at = wake_at
                self._changed.wait(min(wake_at - now, _LONGEST_SLEEP))
                self._watch.wake_at = -math.inf

    def drain(self, timeout: float) -> None:
        """Give every waiting result a try; wait until all are settled or the time is over. Once closed, do nothing."""
        now = self._clock()
        with self._lock:
            if self.closed:
                return
            self.end = end = now + timeout
            for route in self.routes.values():
                route.lane.hurry(now)
            self._changed.notify_all()
        while (seconds := end - self._clock()) > 0:
            with self._lock:
                if not self._crossing and all(route.lane.idle for route in self.routes.values()):
                    return
                self._changed.wait(min(seconds, _LONGEST_SLEEP))

    def leave(self) -> int:
        """Send nothing more; report what is left, once, and return how many results that is."""
        with self._lock:
            again, self.closed = self.closed, True
            left = {name: route.lane.leftovers() for name, route in self.routes.items()}
            self._changed.notify_all()
        if not again:
            self._lament(left)
        return sum(map(len, left.values()))

    def _forget(self, attempt: Attempt) -> None:
        """An exchange has ended; any other attempt is not known here."""
        self._watch.remove(attempt)
        attempt.route.astray -= attempt.left

    def _report(self, attempt: Attempt, error: BaseException | None, now: float) -> None:
        """To the breaker, before the lane knows: the relay could ask for the next permit too early."""
        if attempt.permit is not None:
            report(attempt.permit, attempt.route.lane.judge(attempt.parcel, error, now), error)

    def _note(self, attempt: Attempt, settled: Settled) -> bool:
        """Wake who waits for this; returns whether there is something to tell."""
        events = settled.events + attempt.route.lane.backlog()
        if events:
            self._announcer.add(events)
        if attempt.route.lane.waits or self.end < math.inf:
            self._changed.notify_all()
        return bool(events)

    def _cross_out(self, attempt: Attempt, settled: Settled) -> None:
        route, parcel = attempt.route, attempt.parcel
        row = parcel.row or route.row(parcel)
        try:
            if settled.dead is None:
                self._store.remove(row)
            else:
                self._store.bury(row, settled.dead)
        except Exception:  # the result is settled all the same; at worst it is sent once more after a restart
            log.exception("a settled result of %r could not be crossed out", row.destination)
        with self._lock:
            self._crossing -= 1
            self._changed.notify_all()

    def _lament(self, left: Mapping[str, Sequence[Parcel]]) -> None:
        counts = ", ".join(f"{name} {len(parcels)}" for name, parcels in left.items() if parcels)
        if not counts:
            return
        log.error("results left undelivered: %s", counts)
        self._announcer.add(Undelivered(name, parcel.key) for name, parcels in left.items() for parcel in parcels)
        self._announcer.tell()


def _finish(attempt: Attempt, settled: Settled) -> None:
    if attempt.told is not None:
        attempt.settled = settled
        attempt.told.set()
