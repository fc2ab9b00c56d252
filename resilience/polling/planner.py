"""The poller's decisions: whom to poll for how much, what may start, what goes back. Pure; its driver does the rest.

Rules (P1 to P13 of the design) live in the modules beside this one: `readiness`, `probing`, `sharing`, `holding`,
`pausing` and `outage`. Here they meet: a driver tells what happened (`roster`), asks `plan` what to send, and `start`
what to run.
"""

import copy
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from resilience.events import Event, PollOverdue
from resilience.polling.chaining import Turn, may_go_on
from resilience.polling.explaining import Look, explain
from resilience.polling.holding import Held, forget, lend, reserved
from resilience.polling.outage import Outage
from resilience.polling.probing import is_crowded, outsiders, probes, sharers
from resilience.polling.readiness import is_able, is_due
from resilience.polling.reasons import Explanation, Why
from resilience.polling.reserving import fitting, kept_free
from resilience.polling.roster import Roster
from resilience.polling.sharing import Room
from resilience.polling.source import PollConfig, PollRequest, Source
from resilience.polling.track import Flight, Track

__all__ = ["NO_GATES", "PollPlanner"]

NO_GATES: Mapping[str, float] = {}
LOOK_AGAIN = 1.0  # a breaker that others use too may close before its gate opens, and nobody tells the planner


class PollPlanner(Roster):
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
        rng = rng or random.Random()
        super().__init__(sources, capacity, config or PollConfig(), rng)
        self._outage = Outage(rng)
        self._sharers: Sequence[Track] = ()
        self._early: Track | None = None
        self._planned_at = -math.inf
        self._numbers = 0
        self._stopped = False
        self._crowded = False  # with suspects
        self._calm: set[str] = set()  # whose units go on as they are

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
        self._planned_at, self._early = now, None
        self._calm_until = -math.inf
        self._sharing.settle()
        self._events += [PollOverdue(r.source, r.count) for r in lend(self._tracks.values(), now)]
        if self._gone:
            forget((flight for _, flight in self._gone.values()), now)
        task_ended, self._task_ended = self._task_ended, False
        if self._stopped:
            return []
        self._overheld += self._holding.give_back(now, self._config.max_hold)
        able, sharing = self._able(gates)
        self._sharers = sharing
        self._sharing.contend(t for t in able if t in sharing or (t.is_owed and t.name not in gates))
        due = [t for t in able if is_due(t, now, gates)] or self._rescued(able, now, gates, early)
        takers = [t for t in due if t in sharing or t.is_owed]
        wait = 0.0 if sharing else self._config.poll_wait
        grants = self._sharing.grants(sharing, takers, self._room(), now) if takers else []
        requests = [self._send(track, count, wait, now, probe=False) for track, count in grants]
        if task_ended or self._executing < self._capacity:
            self._crowded = not sharing and is_crowded(self._tracks.values(), self._capacity)
            requests += [self._send(track, 1, wait, now, probe=True) for track in self._probed(due, takers)]
        return requests

    def explain(
        self, now: float, gates: Mapping[str, float] = NO_GATES, early: Mapping[str, float] = NO_GATES
    ) -> dict[str, Explanation]:
        """What a `plan` with these arguments would grant each source now, and why; by name. Changes nothing.

        It is that plan, made by a copy of this planner: no second account of the rules can disagree with the first.
        """
        values = [held.value for held in (*self._holding, *self._overheld)]
        shared = [self._config, self._pausing, self._outage, *values]
        twin = copy.deepcopy(self, {id(self._events): [], **{id(kept): kept for kept in shared}})
        return twin._explain(now, gates, early)  # noqa: SLF001 - it is one of us

    def start(self, limit: int) -> list[Held]:
        """Take at most ``limit`` items that may start now, oldest first; they are executing from now on."""
        if self._kept:
            started = self._holding.start_some(self._fitting(), limit)
        else:
            started = self._holding.start(min(limit, self.startable()))
        self._executing += len(started)
        for held in started:
            self._sharing.started(held.track)
        return started

    def may_chain(self, source: str, now: float, gates: Mapping[str, float] = NO_GATES) -> bool:
        """Whether a unit of ``source`` may ask for the next item with its result, and so go on without a poll."""
        if self._is_calm(source, now, gates):
            return True
        track = self._tracks.get(source)
        if track is None or self._stopped or self._holding or not track.full or not self._has_unit(track):
            return False
        self._sharing.settle()
        able, sharing = self._able(gates)
        due = [t for t in able if is_due(t, now, gates)]
        takers = [t for t in due if t in sharing or t.is_owed]
        turn = may_go_on(track, sharing, takers, self._sharing, self._capacity)
        if turn is Turn.NOBODY_ELSES and len(takers) == len(due):
            self._calm_down(source, now, gates)
        return turn is not Turn.OVER

    def link(
        self, source: str, now: float, gates: Mapping[str, float] = NO_GATES, *, origin: Track | None = None
    ) -> bool:
        """A unit of ``source`` goes on with one item that came with an answer, if that leaves nothing to decide.

        Returns:
            Whether it did; if not, say `chained`, then `plan` and `start`.
        """
        if not self._is_calm(source, now, gates):
            return False
        track = self._tracks[source]
        if origin not in (None, track):
            return False
        track.chained += 1
        counts = track.counts
        counts.received += 1
        counts.started += 1
        counts.finished += 1
        self._sharing.linked(track)
        return True

    def startable(self) -> int:
        """How many items may start now without taking a unit that was granted elsewhere."""
        if not self._holding:
            return 0
        return sum(self._fitting()) if self._kept else max(0, min(self._free(), len(self._holding)))

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
        if early and not self._stopped:
            able = [t for t in tracks if is_able(t, self._config.max_abandoned)]
            rescued = self._outage.next_probe(able, gates, early, now)
            times += [rescued[1]] if rescued else []
        times += [t.ripe_at for t in tracks if t.ripe_at is not None]
        times = [at for at in times if at > self._planned_at]
        times += [t.live.overdue_at for t in tracks if t.live is not None and not t.live.overdue]
        times += [flight.overdue_at for _, flight in self._gone.values() if not flight.overdue]
        oldest = self._holding.oldest()
        if oldest is not None:
            times.append(oldest + self._config.max_hold)
        return max(now, min(times)) if times else None

    def drain_events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        """Send no more polls."""
        self._stopped = True
        self._calm_until = -math.inf

    def drain(self) -> list[Held]:
        """Take everything that has not started: it is to be given back."""
        return self.overheld(math.inf)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _explain(self, now: float, gates: Mapping[str, float], early: Mapping[str, float]) -> dict[str, Explanation]:
        """Plan, and say what came of it."""
        sent = {request.source: request for request in self.plan(now, gates, early)}
        for track in self._tracks.values() if self._stopped else ():
            track.why = Why.STOPPED
        return {
            name: explain(track, self._sharers, self._capacity, Look(now, gates), sent.get(name))
            for name, track in self._tracks.items()
        }

    def _able(self, gates: Mapping[str, float]) -> tuple[list[Track], list[Track]]:
        """The sources that can be polled, and those of them that divide the capacity."""
        able = [t for t in self._tracks.values() if is_able(t, self._config.max_abandoned)]
        closed = [t for t in able if t.name not in gates] if gates else able
        return able, sharers(closed, self._capacity, self._kept)

    def _is_calm(self, source: str, now: float, gates: Mapping[str, float]) -> bool:
        return now < self._calm_until and source in self._calm and not gates

    def _calm_down(self, source: str, now: float, gates: Mapping[str, float]) -> None:
        """Nobody waits for anything: until somebody does, or somebody tells something, units of ``source`` go on."""
        if now >= self._calm_until:
            self._calm.clear()
            wakeup = self.next_wakeup(now, gates)
            self._calm_until = math.inf if wakeup is None else wakeup
        self._calm.add(source)

    def _rescued(
        self, able: Sequence[Track], now: float, gates: Mapping[str, float], early: Mapping[str, float]
    ) -> list[Track]:
        """Who is probed early now because everybody is open."""
        first = self._outage.next_probe(able, gates, early, now)
        self._early = first[0] if first and now >= first[1] else None
        return [self._early] if self._early else []

    def _probed(self, due: Sequence[Track], takers: Sequence[Track]) -> Sequence[Track]:
        """Who of those that are due gets a probe, now that a unit is free or a task has ended."""
        if self._sharing.starves(takers):
            for track in due:
                track.why = track.why if track in takers else Why.YIELDING
            return ()
        outside = outsiders(due, self._sharers, self._capacity)
        if not outside:
            return ()
        return probes(outside, self._tracks.values(), self.held - self.startable(), self._capacity)

    def _due_at(self, track: Track, gates: Mapping[str, float]) -> float:
        if track.live is not None or not is_able(track, self._config.max_abandoned):
            return -math.inf
        return max(track.not_before, min(gates.get(track.name, -math.inf), self._planned_at + LOOK_AGAIN))

    def _room(self) -> Room:
        kept = reserved(self._tracks.values(), self._capacity)
        lent = sum(t.live.granted for t in self._tracks.values() if t.live is not None) - kept
        free = self._capacity - self._executing - self.held - kept
        for_others = kept_free(self._tracks.values()) if self._kept else 0
        return Room(capacity=self._capacity, free=free, lent=lent, kept=for_others)

    def _free(self) -> int:
        return self._capacity - self._executing - reserved(self._tracks.values(), self._capacity)

    def _has_unit(self, track: Track) -> bool:
        """Whether what comes next may start when an item of ``track`` has ended: there may be fewer units now."""
        free = self._free() + 1
        return fitting([track], self._tracks.values(), free)[0] if self._kept else free > 0

    def _fitting(self) -> list[bool]:
        """Which of the held items may start beside the units that are kept free."""
        return fitting([held.track for held in self._holding], self._tracks.values(), self._free())

    def _send(self, track: Track, count: int, wait: float, now: float, *, probe: bool) -> PollRequest:
        """Send a poll. One that makes room for other suspects asks for no wait; it is overdue no sooner for that."""
        self._numbers += 1
        asked = 0.0 if self._crowded and track.suspect else wait
        request = PollRequest(track.name, count, asked, probe, self._numbers, track is self._early)
        overdue_at = now + wait + self._config.overdue_after
        track.live = Flight(request, now, overdue_at, lendable=not track.is_owed)
        track.polled_at, track.ripe_at = now, None
        track.why = Why.PROBED if probe else Why.GRANTED
        return request
