"""The books of a poller: whatever a source brings is in one place at every moment, and its counts say in which.

A world of its own keeps one entry for every single item, moves it from place to place, and compares: it adds nothing up
that the planner adds up.
"""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sizes import part

from resilience.polling import PollConfig, PollPlanner, PollRequest, Source, Tally
from resilience.polling.holding import Held

CONFIG = PollConfig(poll_wait=1.0, overdue_after=0.5, poll_timeout=5.0, give_up_after=30.0, max_hold=5.0)
HELD, EXECUTING, FINISHED, GOING, BACK, KEPT = "held", "executing", "finished", "giving_back", "given_back", "kept"
DROPPED = "dropped"
PAST = ""  # owns what nobody asks for by name any more


@attrs.define(eq=False)
class Entry:
    """One item: under whose name it is counted, which of the sources of that name brought it, and where it is.

    That it came late is counted where it came, and stays there when its unit becomes another source's.
    """

    owner: str
    generation: int
    place: str
    late: str | None = None
    started: bool = False
    track: Any = None


class BooksLife(RuleBasedStateMachine):
    """Any order of events; every item is followed by itself."""

    @initialize(count=st.integers(1, 3), capacity=st.integers(1, 6), seed=st.integers(0, 99))
    def begin(self, count: int, capacity: int, seed: int) -> None:
        """Some sources, some capacity."""
        self.now = 0.0
        self.planner = PollPlanner(
            [Source(f"s{i}", print) for i in range(count)], capacity, CONFIG, random.Random(seed)
        )
        self.generations = Counter({f"s{i}": 1 for i in range(count)})
        self.names = [f"s{i}" for i in range(count)]
        self.entries: list[Entry] = []
        self.flights: list[tuple[PollRequest, int]] = []  # and the generation of its source
        self.abandoned: set[int] = set()
        self.revoked: set[int] = set()
        self.step()

    # -- the world's own account -------------------------------------------------------------------------------------

    def some(self, place: str) -> list[Entry]:
        """Everything that is there."""
        return [entry for entry in self.entries if entry.place == place]

    def arrive(self, name: str, generation: int, values: list[object], *, late: bool = False) -> list[Entry]:
        """Items come: of a source that is there they are held, of another one they go back."""
        mine = name in self.names and generation == self.generations[name]
        departed = name not in self.names and generation == self.generations[name] and self.runs(name)
        owner = name if mine or departed else PAST
        came = [Entry(owner, generation, HELD if mine else GOING, owner if late else None) for _ in values]
        for value, entry in zip(values, came, strict=True):
            self.by_value[id(value)] = entry
            self.alive.append(value)
        self.entries += came
        return came

    def runs(self, name: str) -> bool:
        """Whether an item executes under this name."""
        return any(entry.owner == name for entry in self.some(EXECUTING))

    def forget(self, name: str) -> None:
        """The counts of a removed source are past once nothing of it runs any more."""
        if name not in self.names and not self.runs(name):
            self.fold(name, [FINISHED, GOING, BACK, KEPT, DROPPED])

    def fold(self, name: str, places: list[str]) -> None:
        """What was counted under this name and is there is counted as past."""
        for entry in self.entries:
            entry.late = PAST if entry.late == name else entry.late
            entry.owner = PAST if entry.owner == name and entry.place in places else entry.owner

    def end(self, entry: Entry, place: str) -> None:
        """An executing item ends there; one that its holder returns goes home to the source that brought it."""
        name, entry.place = entry.owner, place
        if place == GOING and entry.generation != self.generations[name]:
            entry.owner = PAST
        self.forget(name)

    def counts(self, owner: str | None) -> dict[str, int]:
        """How many items of that owner, or of all, are where."""
        mine = [entry for entry in self.entries if owner in (None, entry.owner)]
        places = Counter(entry.place for entry in mine)
        return {
            **{place: places[place] for place in (HELD, EXECUTING, FINISHED, GOING, BACK, KEPT, DROPPED)},
            "received": len(mine),
            "started": sum(entry.started for entry in mine),
            "late": sum(entry.late is not None and owner in (None, entry.late) for entry in self.entries),
        }

    # -- what a driver does ------------------------------------------------------------------------------------------

    @property
    def by_value(self) -> dict[int, Entry]:
        """The entry of each value."""
        return self.__dict__.setdefault("_by_value", {})  # type: ignore[no-any-return]

    @property
    def alive(self) -> list[object]:
        """All values: identities must not come again."""
        return self.__dict__.setdefault("_alive", [])  # type: ignore[no-any-return]

    @property
    def returning(self) -> list[Held]:
        """What the driver is giving back."""
        return self.__dict__.setdefault("_returning", [])  # type: ignore[no-any-return]

    def step(self) -> None:
        """Plan, send, and begin to give back."""
        for request in self.planner.plan(self.now):
            self.flights.append((request, self.generations[request.source]))
        for held in self.planner.overheld(self.now):
            entry = self.by_value[id(held.value)]
            assert entry.place in (HELD, GOING)
            entry.place, entry.track = GOING, held.track
            self.returning.append(held)

    def begun(self, started: list[Held]) -> None:
        """These run now."""
        for held in started:
            entry = self.by_value[id(held.value)]
            assert entry.place == HELD
            entry.place, entry.track, entry.started = EXECUTING, held.track, True

    def land(self, data: st.DataObject) -> tuple[PollRequest, int, bool]:
        """Some poll comes back, in time or late."""
        request, generation = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
        return request, generation, request.number in self.abandoned

    # -- what happens ------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.6, 6.0]))
    def time_passes(self, seconds: float) -> None:
        """Time passes; what was held for too long goes back."""
        self.now += seconds
        self.step()

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), much=st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0]))
    def answer(self, data: st.DataObject, much: float) -> None:
        """A poll brings all that it asked for, less, nothing, or more."""
        request, generation, late = self.land(data)
        values = [object() for _ in range(round(request.count * much))]
        came = self.arrive(request.source, generation, values, late=late)
        for entry in came[0 if request.number in self.revoked else request.count :]:
            entry.place = GOING
        self.planner.answered(request, values, self.now)
        self.step()

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), good=st.integers(0, 2), more=st.integers(0, 2))
    def fail(self, data: st.DataObject, good: int, more: int) -> None:
        """A poll fails, with something good in its answer, and perhaps with more than was asked for."""
        request, generation, late = self.land(data)
        count = min(good, request.count) + (more if good >= request.count else 0)
        values = [object() for _ in range(count)]
        came = self.arrive(request.source, generation, values, late=late)
        for entry in came[0 if request.number in self.revoked else request.count :]:
            entry.place = GOING
        self.planner.failed(request, OSError("down"), self.now, values=values)
        self.step()

    @precondition(lambda self: any(r.number not in self.abandoned for r, _ in self.flights))
    @rule(data=st.data())
    def time_out(self, data: st.DataObject) -> None:
        """A poll is abandoned, and goes on in the dark."""
        request, _ = data.draw(st.sampled_from([f for f in self.flights if f[0].number not in self.abandoned]))
        self.abandoned.add(request.number)
        self.planner.timed_out(request, self.now)
        self.step()

    @precondition(lambda self: any(r.number not in self.abandoned for r, _ in self.flights))
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        """Whoever sends a poll is interrupted: what it brings all the same goes back, and is late."""
        request, generation = data.draw(st.sampled_from([f for f in self.flights if f[0].number not in self.abandoned]))
        self.planner.revoked(request, self.now)
        if request.source in self.names and generation == self.generations[request.source]:
            self.abandoned.add(request.number)
            self.revoked.add(request.number)
        self.step()

    @precondition(lambda self: self.some(HELD))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """The lease of a held item is lost."""
        entry = data.draw(st.sampled_from(self.some(HELD)))
        self.planner.drop(lambda value: self.by_value[id(value)] is entry)
        entry.place = DROPPED
        self.step()

    @rule(limit=st.integers(1, 6))
    def start_what_is_lost(self, limit: int) -> None:
        """That a lease is lost is seen when its item is about to start."""
        started = self.planner.start(limit)
        self.begun(started)
        for held in started:
            entry = self.by_value[id(held.value)]
            entry.place, entry.started = DROPPED, False
        self.planner.drop_started(started)
        self.step()

    @precondition(lambda self: self.returning)
    @rule(data=st.data())
    def lose_what_goes_back(self, data: st.DataObject) -> None:
        """That a lease is lost is seen when its item is about to go back."""
        held = self.returning.pop(data.draw(st.integers(0, len(self.returning) - 1)))
        self.by_value[id(held.value)].place = DROPPED
        self.planner.drop_returned([held])

    @rule(limit=st.integers(1, 6), gone=st.booleans())
    def put_back(self, limit: int, gone: bool) -> None:
        """Whoever takes items is interrupted, and meanwhile their source may have been removed."""
        started = self.planner.start(limit)
        self.begun(started)
        back = list(self.returning)
        self.returning.clear()
        if gone and self.names:
            self.leave(self.names[0])
        self.planner.put_back(started, back, [], self.now)
        for held in started:
            entry = self.by_value[id(held.value)]
            if held.track.removed:
                self.end(entry, GOING)
            else:
                entry.place, entry.started = HELD, False
        self.step()

    @rule(limit=st.integers(0, 6))
    def start(self, limit: int) -> None:
        """Idle units take what may start."""
        self.begun(self.planner.start(limit))
        self.step()

    @precondition(lambda self: self.some(EXECUTING))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """An item ends."""
        entry = data.draw(st.sampled_from(self.some(EXECUTING)))
        self.planner.finished(entry.owner)
        self.end(entry, FINISHED)
        self.step()

    @precondition(lambda self: self.some(EXECUTING))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """Whoever holds an item returns it."""
        entry = data.draw(st.sampled_from(self.some(EXECUTING)))
        value = next(value for value in self.alive if self.by_value[id(value)] is entry)
        self.planner.gave_up(entry.owner, value, self.now, origin=entry.track)
        self.end(entry, GOING)
        self.step()

    @precondition(lambda self: self.returning)
    @rule(data=st.data(), taken=st.booleans())
    def come_back(self, data: st.DataObject, taken: bool) -> None:
        """A source takes its item back, or does not."""
        held = self.returning.pop(data.draw(st.integers(0, len(self.returning) - 1)))
        self.by_value[id(held.value)].place = BACK if taken else KEPT
        self.planner.returned(held.track, int(taken), int(not taken))

    @precondition(lambda self: self.some(EXECUTING))
    @rule(data=st.data(), brings=st.sampled_from([1, 1, 2, 0]))
    def chain(self, data: st.DataObject, brings: int) -> None:
        """The answer to a result brings items, and the unit goes on, perhaps without anything to decide."""
        entry = data.draw(st.sampled_from(self.some(EXECUTING)))
        values, name = [object() for _ in range(brings)], entry.owner
        linked = (
            brings == 1
            and self.planner.may_chain(name, self.now)
            and self.planner.link(name, self.now, origin=entry.track)
        )
        if not linked:
            self.planner.chained(name, values, self.now, origin=entry.track)
        self.end(entry, FINISHED)
        came = self.arrive(name, entry.generation, values)
        if linked:
            came[0].place, came[0].track, came[0].started = EXECUTING, entry.track, True
            return
        self.begun(self.planner.start(1))
        self.step()

    @precondition(lambda self: self.some(FINISHED))
    @rule(data=st.data(), brings=st.integers(0, 1))
    def late_chain(self, data: st.DataObject, brings: int) -> None:
        """The answer to a result that nobody waited for brings an item after all."""
        entry = data.draw(st.sampled_from(self.some(FINISHED)))
        values = [object() for _ in range(brings)]
        self.planner.chained(entry.track.name, values, self.now, late=True, origin=entry.track)
        self.arrive(entry.track.name, entry.generation, values, late=True)
        self.step()

    @rule(name=st.sampled_from(["s0", "s1", "s2", "s3"]))
    def add(self, name: str) -> None:
        """A source comes, or comes again: what still runs of the former one takes its units, and is its own."""
        if name in self.names:
            return
        self.fold(name, [FINISHED, GOING, BACK, KEPT, DROPPED])
        self.planner.add(Source(name, print))
        self.generations[name] += 1
        self.names.append(name)
        self.step()

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """A source goes; what it brought and what did not start goes back."""
        self.leave(data.draw(st.sampled_from(self.names)))
        self.step()

    def leave(self, name: str) -> None:
        """What becomes of the items of a source that goes."""
        self.names.remove(name)
        for entry in self.some(HELD):
            entry.place = GOING if entry.owner == name else HELD
        self.planner.remove(name)
        self.forget(name)

    @rule(capacity=st.integers(1, 6))
    def set_capacity(self, capacity: int) -> None:
        """Somebody changes the capacity."""
        self.planner.set_capacity(capacity)
        self.step()

    @precondition(lambda self: self.flights)
    @rule()
    def stop(self) -> None:
        """A stop gives back all that has not started; here the poller lives on, to see what comes after."""
        for held in self.planner.drain():
            self.by_value[id(held.value)].place = GOING
            self.by_value[id(held.value)].track = held.track
            self.returning.append(held)

    @invariant()
    def every_item_is_counted_where_it_is(self) -> None:
        """By source and in total: the counts are those of the single items, and they balance."""
        if not hasattr(self, "planner"):
            return
        views, fields = self.planner.view(), attrs.fields_dict(Tally)
        for name, view in views.items():
            assert {key: getattr(view, key) for key in fields} == self.counts(name), name
            assert view.balanced
        assert attrs.asdict(self.planner.total()) == self.counts(None)
        assert self.planner.total().balanced
        assert {entry.owner for entry in self.entries} <= {*views, PAST}


TestBooksLife: Callable[..., Any] = BooksLife.TestCase
TestBooksLife.settings = settings(max_examples=part(150), stateful_step_count=40, deadline=None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", ["finished", "given_back", "giving_back", "kept", "dropped", "held", "executing"])
def test_books_balance_only_if_every_item_is_somewhere_once(place: str) -> None:
    """An item that arrived is in one of the places; one in two of them, or in none, is told."""
    assert Tally(received=1, **{place: 1}).balanced
    assert not Tally(received=1, **{place: 2}).balanced
    assert not Tally(received=1).balanced
    assert Tally(received=1, late=1, started=1, **{place: 1}).balanced


def test_books_of_what_runs_are_those_of_the_source_that_has_its_unit() -> None:
    """A source that comes again has the running items of the former one; one that goes back is its own source's."""
    planner = PollPlanner([Source("a", print)], 2, CONFIG, random.Random(1))
    for value in ("first", "second"):
        (request,) = planner.plan(0.0)
        planner.answered(request, [value], 0.0)
    first, second = planner.start(2)
    planner.remove("a")
    planner.add(Source("a", print))
    taken_over = planner.view()["a"]
    assert (taken_over.received, taken_over.started, taken_over.executing) == (2, 2, 2)

    planner.finished("a")
    planner.gave_up("a", second.value, 1.0, origin=second.track)
    (back,) = planner.overheld(1.0)
    planner.returned(back.track, 1, 0)

    again, total = planner.view()["a"], planner.total()
    assert first.track is second.track is back.track
    assert (again.received, again.started, again.finished, again.executing) == (1, 1, 1, 0)
    assert (total.received, total.started, total.finished, total.given_back) == (2, 2, 1, 1)
    assert again.balanced
    assert total.balanced
