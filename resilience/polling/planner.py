"""The poller's decisions: whom to poll for how much, what may start, what goes back. Pure; its driver does the rest.

Rules (P1 to P13 of the design) live in the four modules beside this one: `probing`, `sharing`, `holding`, `pausing`.
Here they meet: a driver tells what happened, asks `plan` what to send, and `start` what to run.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from resilience.events import Event, ItemsArrived, ItemsArrivedLate, PollFailed, PollOverdue, PollTimedOut
from resilience.polling.holding import Held, Holding, lend, reserved, settle_debt
from resilience.polling.outage import Outage
from resilience.polling.pausing import Pausing
from resilience.polling.probing import outsiders, probes, sharers
from resilience.polling.sharing import Room, Sharing
from resilience.polling.source import PollConfig, PollRequest, Source, SourceView, check_capacity, check_sources
from resilience.polling.track import Flight, Track

__all__ = ["NO_GATES", "PollPlanner"]

NO_GATES: Mapping[str, float] = {}
LOOK_AGAIN = 1.0  # a breaker that others use too may close before its gate opens, and nobody tells the planner


class PollPlanner:
    """Decides for many sources and one capacity. Not thread-safe: its driver guards it with one lock.

    Every method that depends on time takes ``now``, in seconds of any monotonic clock.

    Args:
        sources: what is polled; names must be unique.
        capacity: units that may execute at once.
        config: the timing of polls.
        rng: draws the jitter of pauses.
    """

    def __init__(
        self,
        sources: Iterable[Source[Any]],
        capacity: int,
        config: PollConfig | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._tracks = {source.name: Track(source) for source in check_sources(sources)}
        self._capacity = check_capacity(capacity)
        self._config = config or PollConfig()
        self._sharing = Sharing(self._tracks.values())
        rng = rng or random.Random()
        self._pausing = Pausing(len(self._tracks), rng)
        self._outage = Outage(rng)
        self._holding = Holding()
        self._overheld: list[Held] = []
        self._planned_at = -math.inf
        self._numbers = 0
        self._executing = 0
        self._task_ended = False
        self._stopped = False
        self._events: list[Event] = []

    # -- what a driver asks ------------------------------------------------------------------------------------------

    def plan(
        self, now: float, gates: Mapping[str, float] = NO_GATES, early: Mapping[str, float] = NO_GATES
    ) -> list[PollRequest]:
        """Decide which polls to send now; they count as sent.

        Args:
            now: the time.
            gates: for every source whose breaker is not closed, the time from which it may be probed.
            early: for every source whose breaker is open because of failures, the time from which it may be probed
                early (``CircuitBreaker.early_at``).
        """
        self._planned_at = now
        self._events += [PollOverdue(r.source, r.count) for r in lend(self._tracks.values(), now)]
        task_ended, self._task_ended = self._task_ended, False
        if self._stopped:
            return []
        self._overheld += self._holding.give_back(now, self._config.max_hold)
        able = [t for t in self._tracks.values() if self._is_able(t)]
        closed = [t for t in able if t.name not in gates]
        sharing = sharers(closed, self._capacity)
        self._sharing.contend(t for t in closed if t in sharing or t.is_owed)
        due = [t for t in able if t.live is None and now >= max(t.not_before, gates.get(t.name, now))]
        rescued = None if due else self._outage.next_probe(able, gates, early, now)
        if rescued and now >= rescued[1]:
            due = [rescued[0]]
        takers = [t for t in due if t in sharing or t.is_owed]
        wait = 0.0 if sharing else self._config.poll_wait
        grants = self._sharing.grants(sharing, takers, self._room(), now) if takers else []
        requests = [self._send(t, n, wait, now, probe=False, early=now < gates.get(t.name, now)) for t, n in grants]
        if (task_ended or self._executing < self._capacity) and not self._sharing.starves(takers):
            outside, stuck = outsiders(due, sharing, self._capacity), self.held - self.startable()
            chosen = probes(outside, self._tracks.values(), stuck, self._capacity) if outside else []
            requests += [self._send(t, 1, wait, now, probe=True, early=now < gates.get(t.name, now)) for t in chosen]
        return requests

    def start(self, limit: int) -> list[Held]:
        """Take at most ``limit`` items that may start now, oldest first; they are executing from now on."""
        started = self._holding.start(min(limit, self.startable()))
        self._executing += len(started)
        for held in started:
            self._sharing.started(held.track)
        return started

    def startable(self) -> int:
        """How many items may start now without taking a unit that was granted elsewhere."""
        if not self._holding:
            return 0
        free = self._capacity - self._executing - reserved(self._tracks.values(), self._capacity)
        return max(0, min(free, len(self._holding)))

    def overheld(self, now: float) -> list[Held]:
        """Take the items that have been held too long: they are to be given back. Their sources are owed (rule P8)."""
        given, self._overheld = self._overheld, []
        return given + self._holding.give_back(now, self._config.max_hold)

    def next_wakeup(
        self, now: float, gates: Mapping[str, float] = NO_GATES, early: Mapping[str, float] = NO_GATES
    ) -> float | None:
        """When the driver is to call `plan` and `overheld` again if nothing happens before; None: never.

        Later than the last `plan`; ``now`` if something has fallen due since then. The arguments are those of `plan`.
        """
        tracks = self._tracks.values()
        times = [] if self._stopped else [self._due_at(t, gates) for t in tracks]
        rescued = self._outage.next_probe([t for t in tracks if self._is_able(t)], gates, early, now) if early else None
        times += [rescued[1]] if rescued and not self._stopped else []
        times += [t.ripe_at for t in tracks if t.ripe_at is not None]
        times = [at for at in times if at > self._planned_at]
        times += [t.live.overdue_at for t in tracks if t.live is not None and not t.live.overdue]
        oldest = self._holding.oldest()
        if oldest is not None:
            times.append(oldest + self._config.max_hold)
        return max(now, min(times)) if times else None

    def drain_events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    def view(self) -> dict[str, SourceView]:
        """How each source stands, by name."""
        return {name: track.view() for name, track in self._tracks.items()}

    @property
    def executing(self) -> int:
        """Items that have started and not finished."""
        return self._executing

    @property
    def held(self) -> int:
        """Items that have arrived and not started."""
        return len(self._holding)

    @property
    def awaited(self) -> int:
        """Polls in flight that are not overdue."""
        return sum(t.live is not None and not t.live.overdue for t in self._tracks.values())

    # -- what a driver tells -----------------------------------------------------------------------------------------

    def answered(self, request: PollRequest, values: Sequence[object], now: float) -> None:
        """A poll brought ``values``; a late one is taken in as well."""
        track, flight, late = self._land(request)
        self._receive(track, values, now, owed=not (late or flight.lendable))
        if late:
            self._events += [ItemsArrivedLate(track.name, len(values))] if values else []
            return
        waited = now - flight.sent_at
        track.answered, track.failed = True, False
        track.full = len(values) >= request.count
        track.trip = max(0.0, waited - request.wait)
        track.slow = waited > request.wait + self._config.overdue_after
        settle_debt(track)
        self._pausing.after_answer(track, len(values), waited, request.wait, now)
        if values:
            self._events.append(ItemsArrived(track.name, len(values), request.count, waited))

    def failed(
        self,
        request: PollRequest,
        error: BaseException,
        now: float,
        *,
        hint: float = 0.0,
        values: Sequence[object] = (),
    ) -> None:
        """A poll raised ``error``; ``hint`` is the pause it asks for, ``values`` the good part of a damaged answer."""
        track, _, late = self._land(request)
        self._receive(track, values, now, owed=False)
        self._events.append(PollFailed(track.name, error))
        if not late:
            track.failed = True
            self._pausing.after_failure(track, now, hint)

    def timed_out(self, request: PollRequest, now: float) -> None:
        """A poll was abandoned: it is still running, and its answer will be late."""
        track, flight, _ = self._land(request)
        track.abandoned[request.number] = flight
        track.failed = True
        self._pausing.after_failure(track, now, 0.0)
        self._events.append(PollTimedOut(track.name, self._config.poll_timeout))

    def rejected(self, request: PollRequest, retry_after: float | None, now: float) -> None:
        """A poll never ran, for instance because somebody else has the breaker's probe."""
        track, _, _ = self._land(request)
        self._pausing.after_rejection(track, now, retry_after)

    def finished(self, source: str) -> None:
        """An executing item of ``source`` has ended, or was given back."""
        self._tracks[source].executing -= 1
        self._executing -= 1
        self._task_ended = True

    def deliveries(self, source: str, ok: bool) -> None:  # noqa: FBT001 - a fact, not a mode
        """Whether the last delivery to ``source`` succeeded; while it failed the source is not polled (rule P13)."""
        self._tracks[source].delivering = ok

    def stop(self) -> None:
        """Send no more polls."""
        self._stopped = True

    def drain(self) -> list[Held]:
        """Take everything that has not started: it is to be given back."""
        return self.overheld(math.inf)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _is_able(self, track: Track) -> bool:
        return track.delivering and len(track.abandoned) < self._config.max_abandoned

    def _due_at(self, track: Track, gates: Mapping[str, float]) -> float:
        if track.live is not None or not self._is_able(track):
            return -math.inf
        return max(track.not_before, min(gates.get(track.name, -math.inf), self._planned_at + LOOK_AGAIN))

    def _room(self) -> Room:
        kept = reserved(self._tracks.values(), self._capacity)
        lent = sum(t.live.granted for t in self._tracks.values() if t.live is not None) - kept
        return Room(capacity=self._capacity, free=self._capacity - self._executing - self.held - kept, lent=lent)

    def _send(  # noqa: PLR0913 - what a request says
        self, track: Track, count: int, wait: float, now: float, *, probe: bool, early: bool
    ) -> PollRequest:
        self._numbers += 1
        request = PollRequest(track.name, count, wait, probe, self._numbers, early)
        overdue_at = now + wait + self._config.overdue_after
        track.live = Flight(request, now, overdue_at, lendable=not track.is_owed)
        track.polled_at, track.ripe_at = now, None
        return request

    def _land(self, request: PollRequest) -> tuple[Track, Flight, bool]:
        track = self._tracks[request.source]
        late = track.abandoned.pop(request.number, None)
        if late is not None:
            return track, late, True
        flight, track.live = track.live, None
        if flight is None or flight.request is not request:
            raise ValueError(f"{request} is not in flight: tell of each poll once")
        return track, flight, False

    def _receive(self, track: Track, values: Sequence[object], now: float, *, owed: bool) -> None:
        if values:
            self._holding.add(track, values, now, owed=owed)
            self._sharing.received(len(values))
