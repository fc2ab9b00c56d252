"""The roster: the sources of a poller, and what its driver told of each. Pure.

Nothing is decided here; `planner` decides by what is written down here.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from resilience.errors import AnswerTooLarge
from resilience.events import Event, ItemsArrived, ItemsArrivedLate, PollFailed, PollTimedOut, SurplusArrived
from resilience.polling.chaining import note_answer
from resilience.polling.holding import HELD_TOO_LONG, Held, Holding, settle_debt
from resilience.polling.pausing import Pausing
from resilience.polling.reserving import check_reserves, settle_caps
from resilience.polling.sharing import Sharing
from resilience.polling.source import (
    PollConfig,
    PollRequest,
    Source,
    SourceView,
    WrongAnswer,
    check_capacity,
    check_source,
    check_sources,
)
from resilience.polling.tally import Counts, Tally, total
from resilience.polling.track import Flight, Track

__all__ = ["GIVEN_BACK", "Roster"]

GIVEN_BACK = "given back by its holder"
SURPLUS = "more than was asked for"


class Roster:
    """Keeps the account of many sources; the part of a planner that is told things."""

    def __init__(self, sources: Iterable[Source[Any]], capacity: int, config: PollConfig, rng: random.Random) -> None:
        self._tracks = {source.name: Track(source) for source in check_sources(sources)}
        self._departed: dict[str, Track] = {}  # removed sources, items of which still run
        self._gone: dict[int, tuple[Track, Flight]] = {}  # their polls that have not come back
        self._past = Counts()  # of those that are gone
        self._capacity = check_capacity(capacity)
        self._config = config
        check_reserves((t.source for t in self._tracks.values()), capacity)
        self._sharing = Sharing(self._tracks.values())
        self._pausing = Pausing(len(self._tracks), rng)
        self._holding = Holding()
        self._overheld: list[Held] = []
        self._executing = 0
        self._task_ended = False
        self._calm_until = -math.inf  # until then nothing is to be decided, unless something is told
        self._events: list[Event] = []
        self._settle()

    def view(self) -> dict[str, SourceView]:
        """How each source stands, by name."""
        return {name: track.view() for name, track in {**self._departed, **self._tracks}.items()}

    def total(self) -> Tally:
        """What became of everything that came, from sources that were removed as well."""
        known = [*self._tracks.values(), *self._departed.values()]
        return total([self._past, *(track.counts for track in known)], held=self.held, executing=self._executing)

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
        flights = [t.live for t in self._tracks.values() if t.live is not None]
        flights += [flight for _, flight in self._gone.values()]
        return sum(not flight.overdue for flight in flights)

    # -- changes while it runs (rule P7) -----------------------------------------------------------------------------

    def add(self, source: Source[Any]) -> None:
        """Poll one more source from now on; the name of one that was removed may come again.

        Raises:
            ValueError: there is a source of this name, or the reserves leave no unit for everybody.
        """
        check_source(source)
        if source.name in self._tracks:
            raise ValueError(
                f"there is a source called {source.name!r} already: remove it first, or give this one another name"
            )
        check_reserves([*(t.source for t in self._tracks.values()), source], self._capacity)
        track, before = Track(source), self._departed.pop(source.name, None)
        if before is not None:  # what still runs is its own from now on, whose units it takes
            track.executing = before.executing
            before.counts.move(before.executing, track.counts)
            self._fold(before)
        self._tracks[source.name] = track
        self._sharing.add(track)
        self._settle()

    def remove(self, name: str) -> None:
        """Poll the source called ``name`` no more.

        Its un-started items are to be given back, and so is what its polls in flight bring; running ones finish.

        Raises:
            ValueError: there is none of this name.
        """
        track = self._tracks.pop(self._known(name).name)
        track.removed = True
        self._sharing.remove(track)
        self._overheld += self._holding.withdraw(track)
        for number, flight in track.abandoned.items():
            flight.overdue = True
            self._gone[number] = track, flight
        if track.live is not None:
            self._gone[track.live.request.number] = track, track.live
        if track.executing:
            self._departed[name] = track
        else:
            self._fold(track)
        track.live, track.abandoned = None, {}
        self._settle()

    def pause(self, name: str) -> None:
        """Send no polls to the source called ``name`` until `resume`; what it brought before runs.

        Raises:
            ValueError: there is none of this name.
        """
        self._known(name).paused = True
        self._settle()

    def resume(self, name: str) -> None:
        """Poll the source called ``name`` again; its credit is what it was, but for at most one unit (rule P5).

        Raises:
            ValueError: there is none of this name.
        """
        track = self._known(name)
        track.paused = track.broken = False
        self._settle()

    def set_weight(self, name: str, weight: int) -> None:
        """Change the claim of the source called ``name`` to the capacity; it keeps its credit.

        Raises:
            ValueError: there is none of this name, or a weight below 1 (TypeError: no whole number).
        """
        track = self._known(name)
        track.source = attrs.evolve(track.source, weight=weight)
        self._sharing.add(track)
        self._calm_until = -math.inf

    def set_capacity(self, capacity: int) -> None:
        """Change how many items may execute at once; when there are more now, nothing starts until there are fewer.

        Raises:
            ValueError: below 1, or the reserves leave none for everybody (TypeError: no whole number).
        """
        check_reserves((t.source for t in self._tracks.values()), check_capacity(capacity))
        self._capacity = capacity
        self._settle()

    def is_alone(self, source: str) -> bool:
        """Whether ``source`` is the only one, and prompt: nobody else waits while it is being asked (rule P14)."""
        track = self._tracks[source]
        return len(self._tracks) == 1 and not (track.suspect or track.slow)

    # -- what a driver tells -----------------------------------------------------------------------------------------

    def answered(self, request: PollRequest, values: Sequence[object], now: float) -> None:
        """A poll brought ``values``; a late one is taken in as well.

        Those beyond what was asked for go back: held, they would stand in the way of everybody else's.
        """
        if self._is_gone(request, values, now):
            return
        track, flight, late = self._land(request)
        self._receive(track, values[: request.count], now, owed=not (late or flight.lendable))
        self._refuse_surplus(track, values, request, now)
        if late:
            self._came_late(track, len(values))
            return
        waited = now - flight.sent_at
        track.answered, track.failed = True, False
        track.full = len(values) >= request.count
        track.trip = max(0.0, waited - request.wait)
        track.slow = waited > request.wait + self._config.overdue_after
        if track.full:
            track.note_full(request.count)
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
        """A poll raised ``error``; ``hint`` is the pause it asks for, ``values`` the good part of a damaged answer.

        After a `WrongAnswer` the source is paused: every further poll would lose what it brings.
        """
        if self._is_gone(request, values, now):
            return
        track, _, late = self._land(request)
        self._receive(track, values[: request.count], now, owed=False)
        self._refuse_surplus(track, values, request, now)
        self._events.append(PollFailed(track.name, error))
        if isinstance(error, AnswerTooLarge):
            track.ask_less(request.count)
        if isinstance(error, WrongAnswer):
            track.paused = track.broken = True
            self._settle()
        if late:
            track.counts.late += len(values)
        else:
            track.failed = True
            self._pausing.after_failure(track, now, min(hint, self._config.max_retry_after))

    def timed_out(self, request: PollRequest, now: float) -> None:
        """A poll was abandoned: it is still running, and its answer will be late."""
        if request.number in self._gone:
            flight = self._gone[request.number][1]
            flight.overdue = flight.abandoned = True
            return
        track, flight, _ = self._land(request)
        track.abandoned[request.number] = flight
        flight.abandoned = True
        track.failed = True
        self._pausing.after_failure(track, now, 0.0)
        self._events.append(PollTimedOut(track.name, self._config.poll_timeout))

    def rejected(self, request: PollRequest, retry_after: float | None, now: float) -> None:
        """A poll never ran, for instance because somebody else has the breaker's probe."""
        if self._is_gone(request, (), now):
            return
        track, _, _ = self._land(request)
        self._pausing.after_rejection(track, now, retry_after)

    def revoked(self, request: PollRequest, now: float) -> None:
        """It is not known whether a poll was sent: nobody waits for it, and what it brings after all goes back."""
        track = self._tracks.get(request.source)
        if track is None or track.live is None or track.live.request is not request:
            return  # it has come to something, or its source was removed
        flight, track.live = track.live, None
        flight.overdue = flight.abandoned = True
        self._gone[request.number] = track, flight
        self._pausing.after_rejection(track, now, None)
        self._calm_until = -math.inf

    def put_back(self, started: Sequence[Held], back: Sequence[Held], events: Sequence[Event], now: float) -> None:
        """What was to start, to go back and to be told was not: it is to be asked for again."""
        self._overheld[:0] = back
        self._events[:0] = events
        for held in started:
            if held.track.removed:
                self.gave_up(held.track.name, held.value, now, origin=held.track)
            else:
                held.track.counts.started -= 1
                self._free_unit(held.track)
        self._holding.put_back([held for held in started if not held.track.removed])

    def drop(self, is_lost: Callable[[object], bool]) -> None:
        """The items whose lease is lost are not to start: somebody else may have been given them (rule P15)."""
        self._holding.drop(is_lost)
        self._calm_until = -math.inf

    def drop_started(self, items: Sequence[Held]) -> None:
        """These were about to start, and their lease was lost."""
        for held in items:
            held.track.counts.started -= 1
            held.track.counts.dropped += 1
            self._free_unit(held.track)

    def drop_returned(self, items: Sequence[Held]) -> None:
        """These were about to go back, and their lease was lost."""
        for held in items:
            held.track.counts.giving_back -= 1
            held.track.counts.dropped += 1

    def finished(self, source: str) -> None:
        """An executing item of ``source`` has ended."""
        track = self._tracks.get(source) or self._departed[source]
        track.counts.finished += 1
        self._free_unit(track)

    def gave_up(self, source: str, value: object, now: float, *, origin: Track | None = None) -> None:
        """An executing item of ``source`` is to go back, as if it had never started; ``origin`` as for `chained`."""
        track = self._tracks.get(source) or self._departed[source]
        home = origin or track
        track.counts.move(1, home.counts)
        self._free_unit(track)
        home.counts.leave(1)
        self._overheld.append(Held(home, value, now, GIVEN_BACK))

    def returned(self, track: Track, back: int, kept: int) -> None:
        """Of the items of ``track`` that were to be given back ``back`` were taken, and ``kept`` were not."""
        track.counts.returned(back, kept)

    def chained(
        self, source: str, values: Sequence[object], now: float, *, late: bool = False, origin: Track | None = None
    ) -> None:
        """An item of ``source`` has ended, and ``values`` came with the answer to its result: its unit may go on.

        Call `start` for the unit. A ``late`` answer is one that the unit did not wait for: it had finished before.
        ``origin`` says whose item it was, if its name may be another's by now: then the values go back.
        """
        track = origin or self._tracks.get(source) or self._departed[source]
        if not late:
            self.finished(source)
        if track.removed:
            track.counts.late += late and len(values)
            self._refuse(track, values, now)
        else:
            self._continue(track, values, now, late=late)

    def deliveries(self, source: str, ok: bool) -> None:  # noqa: FBT001 - a fact, not a mode
        """Whether the last delivery to ``source`` succeeded; while it failed the source is not polled (rule P13).

        News of a source that was removed meanwhile is no news.
        """
        if source in self._tracks:
            self._tracks[source].delivering = ok
            self._calm_until = -math.inf

    # -- inside ------------------------------------------------------------------------------------------------------

    def _continue(self, track: Track, values: Sequence[object], now: float, *, late: bool) -> None:
        track.chained += len(values)
        self._receive(track, values, now, owed=False)
        if not late:
            note_answer(track, len(values), self._pausing, now)
        else:
            self._came_late(track, len(values))

    def _came_late(self, track: Track, count: int) -> None:
        track.counts.late += count
        self._events += [ItemsArrivedLate(track.name, count)] if count else []

    def _refuse_surplus(self, track: Track, values: Sequence[object], request: PollRequest, now: float) -> None:
        """What a poll brought beyond what it asked for goes back; that is told once of each source."""
        self._refuse(track, values[request.count :], now, SURPLUS)
        if len(values) > request.count and not track.overfills:
            track.overfills = True
            self._events.append(SurplusArrived(track.name, len(values), request.count))

    def _refuse(self, track: Track, values: Sequence[object], now: float, reason: str = HELD_TOO_LONG) -> None:
        """These values of ``track`` go back without having been held."""
        track.counts.received += len(values)
        track.counts.leave(len(values))
        self._overheld += [Held(track, value, now, reason) for value in values]

    def _free_unit(self, track: Track) -> None:
        track.executing -= 1
        self._executing -= 1
        self._task_ended = True
        self._calm_until = -math.inf
        if track.removed and not track.executing:
            del self._departed[track.name]
            self._fold(track)

    def _fold(self, track: Track) -> None:
        """Nobody asks for the counts of ``track`` by its name any more: they are part of the past from now on."""
        self._past.add(track.counts)
        track.counts = self._past

    def _known(self, name: str) -> Track:
        if name not in self._tracks:
            known = ", ".join(map(repr, self._tracks)) or "none"
            raise ValueError(f"there is no source called {name!r}: there are {known}")
        return self._tracks[name]

    def _settle(self) -> None:
        """Keep what follows from the sources and the capacity."""
        self._calm_until = -math.inf
        settle_caps(self._tracks.values(), self._capacity)
        self._kept = sum(track.kept for track in self._tracks.values())
        self._pausing.count_sources(len(self._tracks))

    def _is_gone(self, request: PollRequest, values: Sequence[object], now: float) -> bool:
        """Whether the source of a poll was removed while it was in flight: then what it brought goes back."""
        gone = self._gone.pop(request.number, None)
        if gone is None:
            return False
        track, flight = gone
        track.counts.late += flight.abandoned and len(values)
        self._refuse(track, values, now)
        return True

    def _land(self, request: PollRequest) -> tuple[Track, Flight, bool]:
        self._calm_until = -math.inf
        track = self._tracks[request.source]
        late = track.abandoned.pop(request.number, None)
        if late is not None:
            return track, late, True
        flight = track.live
        if flight is None or flight.request is not request:  # the one that is in flight is another, and goes on
            raise ValueError(f"{request} is not in flight: tell of each poll once")
        track.live = None
        return track, flight, False

    def _receive(self, track: Track, values: Sequence[object], now: float, *, owed: bool) -> None:
        self._calm_until = -math.inf
        if values:
            track.counts.received += len(values)
            self._holding.add(track, values, now, owed=owed)
            self._sharing.received(len(values))
