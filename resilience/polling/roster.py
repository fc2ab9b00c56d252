"""The roster: the sources of a poller, and what its driver told of each. Pure.

Nothing is decided here; `planner` decides by what is written down here.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from resilience.events import Event, ItemsArrived, ItemsArrivedLate, PollFailed, PollTimedOut
from resilience.polling.chaining import note_answer
from resilience.polling.holding import Holding, settle_debt
from resilience.polling.pausing import Pausing
from resilience.polling.sharing import Sharing
from resilience.polling.source import PollConfig, PollRequest, Source, SourceView, check_capacity, check_sources
from resilience.polling.track import Flight, Track

__all__ = ["Roster"]


class Roster:
    """Keeps the account of many sources; the part of a planner that is told things."""

    def __init__(self, sources: Iterable[Source[Any]], capacity: int, config: PollConfig, rng: random.Random) -> None:
        self._tracks = {source.name: Track(source) for source in check_sources(sources)}
        self._capacity = check_capacity(capacity)
        self._config = config
        self._sharing = Sharing(self._tracks.values())
        self._pausing = Pausing(len(self._tracks), rng)
        self._holding = Holding()
        self._executing = 0
        self._task_ended = False
        self._events: list[Event] = []

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

    def chained(self, source: str, values: Sequence[object], now: float, *, late: bool = False) -> None:
        """An item of ``source`` has ended, and ``values`` came with the answer to its result: its unit may go on.

        Call `start` for the unit. A ``late`` answer is one that the unit did not wait for: it had finished before.
        """
        track = self._tracks[source]
        track.chained += len(values)
        self._receive(track, values, now, owed=False)
        if late:
            self._events += [ItemsArrivedLate(source, len(values))] if values else []
            return
        self.finished(source)
        note_answer(track, len(values), self._pausing, now)

    def deliveries(self, source: str, ok: bool) -> None:  # noqa: FBT001 - a fact, not a mode
        """Whether the last delivery to ``source`` succeeded; while it failed the source is not polled (rule P13)."""
        self._tracks[source].delivering = ok

    # -- inside ------------------------------------------------------------------------------------------------------

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
