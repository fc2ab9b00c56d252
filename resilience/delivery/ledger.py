"""The accounts of a relay on threads: which result is where, kept under one lock, and what follows from a change.

No send, store, breaker, listener or clock is used under that lock. Whatever happens to an attempt goes through here:
its result is taken in (``admit``), it ends (``settle``) or did not come about (``bar``). Rows are the ``keeper``'s.
"""

import math
import threading
from collections.abc import Callable, Collection, Mapping

from resilience.delivery.archive import Archive
from resilience.delivery.attempt import Attempt, Chain
from resilience.delivery.parcel import Parcel, Report, Settled
from resilience.delivery.routes import Announcer, Route, report
from resilience.delivery.store import Row
from resilience.delivery.tally import DestinationView
from resilience.delivery.unwritten import Unwritten
from resilience.delivery.watch import Watch
from resilience.outcomes import Rejected

__all__ = ["Ledger"]

_MOST_CROSSING = 100  # threads that may wait for the disk; more sends would bring more of them
_LONGEST_SLEEP = 3600.0  # seconds; locks refuse to wait for ever so long


class Ledger:
    """The lanes of all destinations, thread-safe.

    Attributes:
        routes: the destinations, by name.
        lock: guards all of it; ``changed`` is notified under it.
        unwritten: what should be on the disk and is not.
        announcer: is told of events under the lock, and tells them without it.
        end: clock time of the last attempts; ``inf`` while the relay is open.
        closed: nothing is sent any more.
    """

    def __init__(
        self, routes: Mapping[str, Route], archive: Archive, announcer: Announcer, clock: Callable[[], float]
    ) -> None:
        self.routes = routes
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.unwritten = Unwritten()
        self.announcer = announcer
        self.end = math.inf
        self.closed = False
        self._archive = archive
        self._clock = clock
        self._watch = Watch()
        self._crossing = 0  # settled results whose rows are being crossed out

    def admit(  # noqa: PLR0913 - a result and its options, by keyword
        self,
        route: Route,
        key: str,
        payload: object,
        *,
        inline: bool,
        chain: Chain | None = None,
        final: bool = True,
        first_written: bool = False,
    ) -> Attempt:
        """Take a result in; its unit may send it if ``attempt.parcel.inline`` says so.

        With a ``chain`` its answer may bring the next value, and somebody is to look after it: see `Watch`. One that is
        ``first_written`` is only sent after `begin`.
        """
        now = self._clock()
        with self.lock:
            asks = chain is not None and not route.lane.silent(now)  # else there may be no value, or no answer
            parcel = route.lane.admit(key, payload, now, inline=inline and not self.closed)
            if not final:
                parcel.final = False
            attempt = Attempt(route, parcel, chain=chain if asks else None)
            if not first_written:
                self._look_after(attempt, now)
        return attempt

    def begin(self, attempt: Attempt, kept: Row | Exception) -> None:
        """Its unit sends it only now: it was written down before, or could not be."""
        route, parcel, now = attempt.route, attempt.parcel, self._clock()
        with self.lock:
            route.lane.begin(parcel, now)
            self._look_after(attempt, now)
            if isinstance(kept, Row):
                parcel.row = kept
            else:
                self.miss(route, parcel, kept, now)
        self.announcer.tell()

    def miss(self, route: Route, parcel: Parcel, error: Exception, now: float) -> None:
        """A result is not on the disk, because of ``error``; under the lock."""
        self.announcer.add(self.unwritten.add(route.lane.name, parcel, error, now))
        self._hurry(self.unwritten.retry_at)

    def overstayed(self, inline_timeout: float) -> tuple[list[Attempt], list[Attempt]]:
        """Exchanges that their units are to leave, which the relay has from now on; and left ones that have failed."""
        now = self._clock()
        with self.lock:
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
        with self.lock:
            for route in () if self._crossing >= _MOST_CROSSING else self.routes.values():
                while (parcel := route.lane.start(now)) is not None:
                    due.append((route, parcel))
        return due

    def detach(self, attempt: Attempt) -> bool:
        """The unit leaves ``attempt``; False if that has just been settled."""
        with self.lock:
            return attempt.route.lane.detach(attempt.parcel)

    def prompt(self, route: Route) -> bool:
        """Whether a unit may send by itself now."""
        now = self._clock()
        with self.lock:
            return route.lane.prompt(now)

    def pending(self, name: str | None) -> int:
        """How many results the relay has, for one destination or in all."""
        with self.lock:
            return sum(route.lane.pending for route in self.routes.values() if name in (None, route.destination.name))

    def has_room(self, route: Route) -> bool:
        """Whether the backlog of a destination is not full."""
        with self.lock:
            return route.lane.has_room

    def bar(self, attempt: Attempt, pause: float | None) -> None:
        """The attempt did not run, or says nothing: look again after ``pause`` seconds (None: soon)."""
        report(attempt.permit, Report.NEUTRAL, None)
        lane, now = attempt.route.lane, self._clock()
        with self.lock:
            if attempt.chain is not None:
                self._forget(attempt)
            lane.health.barred(pause, now)
            lane.postpone(attempt.parcel, now)
            free = lane.resting(attempt.parcel.key) if self.closed else ()
            self.changed.notify_all()
        if free:
            self._release(free)
        if attempt.told is not None:
            _finish(attempt, attempt.told, Settled(kept=True))

    def settle(self, attempt: Attempt, error: BaseException | None, waited: float = 0.0) -> Settled:
        """The attempt has ended: None if the destination took the result, else what was raised.

        ``waited`` are the seconds that the destination waited because it was asked to.
        """
        lane, parcel, now = attempt.route.lane, attempt.parcel, self._clock()
        self._report(attempt, error, now)
        with self.lock:
            if attempt.chain is not None:
                self._forget(attempt)
            settled = lane.settle(parcel, error, now, waited)
            told = self._note(attempt, settled, now)
            written = parcel.gone and (parcel.row is not None or (parcel.final and settled.dead is not None))
            if written:
                self._crossing += 1
            free = lane.resting(parcel.key) if self.closed else ()
        if written:
            self._archive.cross_out(parcel.row or attempt.route.row(parcel), settled.dead)
            with self.lock:
                self._crossing -= 1
                if self._crossing == _MOST_CROSSING - 1 or self.end < math.inf:
                    self.changed.notify_all()
        if free:
            self._release(free)
        if attempt.told is not None:
            _finish(attempt, attempt.told, settled)
        if told:
            self.announcer.tell()
        return settled

    def time_out(self, attempt: Attempt, timeout: float) -> None:
        """The attempt is past its timeout; it runs on."""
        error = TimeoutError(f"no answer within {timeout:.3g} s")
        now = self._clock()
        self._report(attempt, error, now)
        with self.lock:
            if not attempt.left or attempt in self._watch:
                self._watch.remove(attempt)
                self._note(attempt, attempt.route.lane.time_out(attempt.parcel, error, now), now)
        self.announcer.tell()

    def sleep(self, deadline: float) -> None:
        """Wait until something is due, ``deadline`` has come, or something changed."""
        now = self._clock()
        with self.lock:
            held_up = self._crossing >= _MOST_CROSSING
            wake_at = math.inf if held_up else min(route.lane.wake_at(now) for route in self.routes.values())
            wake_at = min(wake_at, self._watch.next_at(), self.unwritten.retry_at, deadline)
            if wake_at > now and not self.closed:
                self._watch.wake_at = wake_at
                self.changed.wait(min(wake_at - now, _LONGEST_SLEEP))
                self._watch.wake_at = -math.inf

    def drain(self, timeout: float) -> None:
        """Give every waiting result a try; wait until all are settled or the time is over. Once closed, do nothing."""
        now = self._clock()
        with self.lock:
            if self.closed:
                return
            self.end = end = now + timeout
            for route in self.routes.values():
                route.lane.hurry(now)
            self.changed.notify_all()
        while (seconds := end - self._clock()) > 0:
            with self.lock:
                if not self._crossing and all(route.lane.idle for route in self.routes.values()):
                    return
                self.changed.wait(min(seconds, _LONGEST_SLEEP))

    def finish_telling(self) -> None:
        """Let the listener hear of everything, while there is time."""
        self.announcer.finish(min(self.end - self._clock(), _LONGEST_SLEEP))

    def view(self) -> dict[str, DestinationView]:
        """What is known of every destination."""
        with self.lock:
            return {
                name: route.tally.view(route.lane.pending, self.unwritten.count(name))
                for name, route in self.routes.items()
            }

    def _release(self, parcels: Collection[Parcel]) -> None:
        """Its attempt outlived the end: now other processes may have these."""
        self._archive.release([parcel.row for parcel in parcels if parcel.row is not None])

    def _look_after(self, attempt: Attempt, now: float) -> None:
        """An exchange begins, if it is one."""
        parcel = attempt.parcel
        if attempt.chain is None or not parcel.inline:
            return
        parcel.grace = attempt.route.destination.exchange_wait
        if self._watch.set(attempt, now + parcel.timeout + parcel.grace):
            self.changed.notify_all()

    def _hurry(self, at: float) -> None:
        """Wake who sleeps beyond ``at``; under the lock."""
        if at < self._watch.wake_at:
            self.changed.notify_all()

    def _forget(self, attempt: Attempt) -> None:
        """An exchange has ended."""
        self._watch.remove(attempt)
        attempt.route.astray -= attempt.left

    def _report(self, attempt: Attempt, error: BaseException | None, now: float) -> None:
        """To the breaker, before the lane knows: the relay could ask for the next permit too early."""
        permit, breaker = attempt.permit, attempt.route.breaker
        if permit is None and error is None and breaker is not None:  # an attempt beside an open breaker succeeded
            answer = breaker.try_acquire(early=True)
            permit = None if isinstance(answer, Rejected) else answer
        if permit is not None:
            report(permit, attempt.route.lane.judge(attempt.parcel, error, now), error)

    def _note(self, attempt: Attempt, settled: Settled, now: float) -> bool:
        """Wake who waits for this; returns whether there is something to tell."""
        route = attempt.route
        events = settled.events + route.lane.backlog()
        if settled.taken:
            route.tally.delivered += 1
        elif settled.dead is not None:
            route.tally.dead += 1
        if self.unwritten.parcels and not settled.kept:  # it need not be written down any more
            events += self.unwritten.remove(route.lane.name, attempt.parcel)
        if events:
            self.announcer.add(events)
        if self.end < math.inf:  # somebody waits for all of them
            self.changed.notify_all()
        elif route.lane.waits:
            self._hurry(route.lane.wake_at(now))
        return bool(events)


def _finish(attempt: Attempt, told: threading.Event, settled: Settled) -> None:
    attempt.settled = settled
    told.set()
