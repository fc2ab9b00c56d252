"""The option ``reserve``: units kept free for a source, an exception to P4 (nothing is reserved for anyone)."""

import random
import statistics

import pytest
from simulation import NEVER, Simulated, Simulation

from resilience.polling import PollConfig, PollPlanner, PollRequest, Source
from resilience.polling.probing import sharers
from resilience.polling.reserving import fitting, kept_free, missing, settle_caps
from resilience.polling.sharing import Room, Sharing
from resilience.polling.track import Flight, Track

CONFIG = PollConfig()


def planner_of(*sources: Source[object], capacity: int) -> PollPlanner:
    """A planner of these sources; each has answered its first probe: those with a backlog with an item, now done."""
    return PollPlanner(sources, capacity, CONFIG, random.Random(1))


def answer(planner: PollPlanner, now: float, *full: str) -> dict[str, int]:
    """Let every poll that is due be answered, those of ``full`` with all that was asked for; returns what was asked."""
    asked = {}
    for request in planner.plan(now):
        asked[request.source] = request.count
        planner.answered(request, [object()] * request.count if request.source in full else [], now)
    return asked


def start(planner: PollPlanner) -> list[str]:
    """Whose items start."""
    return [held.track.name for held in planner.start(100)]


def test_p4_reserved_units_are_granted_to_nobody_else() -> None:
    """The backlogged source gets all but the units that are kept, and those are free when the other one has work."""
    planner = planner_of(Source("slow", print), Source("urgent", print, reserve=2), capacity=10)
    answer(planner, 0.0, "slow")
    start(planner)
    planner.finished("slow")

    assert answer(planner, 1.0, "slow")["slow"] == 8
    assert len(start(planner)) == 8
    assert "slow" not in {request.source for request in planner.plan(2.0)}


@pytest.mark.parametrize(("capacity", "granted"), [(10, [4, 4]), (9, [4, 3]), (4, [1, 1])])
def test_p4_others_divide_what_is_not_kept(capacity: int, granted: list[int]) -> None:
    """By weight, rounded up, and no more than there is."""
    planner = planner_of(Source("a", print), Source("b", print), Source("urgent", print, reserve=2), capacity=capacity)
    answer(planner, 0.0, "a", "b")
    finish_all(planner)

    asked = answer(planner, 1.0, "a", "b")

    assert [asked[name] for name in "ab"] == granted


def test_p4_item_of_a_reserving_source_starts_at_once() -> None:
    """Its probe goes out although long tasks run everywhere, and what it brings has a unit."""
    planner = planner_of(Source("slow", print), Source("urgent", print, reserve=1), capacity=3)
    answer(planner, 0.0, "slow")
    start(planner)
    answer(planner, 1.0, "slow")
    start(planner)
    assert planner.executing == 2

    assert answer(planner, 2.0, "urgent") == {"urgent": 1}
    assert start(planner) == ["urgent"]


def test_p4_probe_of_another_source_does_not_take_the_kept_unit() -> None:
    """What a probe brought for which no unit was kept waits, and an item behind it that has one does not."""
    planner = planner_of(Source("a", print), Source("b", print), Source("urgent", print, reserve=1), capacity=2)
    requests = {request.source: request for request in planner.plan(0.0)}
    planner.answered(requests["a"], ["a"], 0.1)
    assert start(planner) == ["a"]
    planner.answered(requests["b"], ["b"], 0.2)

    assert planner.startable() == 0
    planner.answered(requests["urgent"], ["urgent"], 0.3)
    assert planner.startable() == 1
    assert start(planner) == ["urgent"]
    assert start(planner) == []
    planner.finished("urgent")
    assert start(planner) == []
    planner.finished("a")
    assert start(planner) == ["b"]


def finish_all(planner: PollPlanner) -> None:
    """Start and end whatever is held."""
    while names := start(planner):
        for name in names:
            planner.finished(name)


def test_p4_granted_units_of_the_reserve_are_not_lent() -> None:
    """When the urgent source's poll is overdue, its kept unit stays free: its items start when they come."""
    planner = planner_of(Source("a", print), Source("b", print), Source("urgent", print, reserve=1), capacity=4)
    answer(planner, 0.0, "a", "b", "urgent")
    finish_all(planner)
    sent = {request.source: request for request in planner.plan(1.0)}
    assert sum(request.count for request in sent.values()) == 4
    planner.answered(sent["a"], ["a"] * sent["a"].count, 1.01)
    planner.answered(sent["b"], ["b"] * sent["b"].count, 1.01)
    assert len(start(planner)) == 3

    assert not [request for request in planner.plan(2.0) if not request.probe]
    planner.answered(sent["urgent"], ["late"], 2.1)
    assert start(planner) == ["urgent"]


def test_p2_no_more_start_than_the_driver_has_room_for() -> None:
    """Also where units are kept free; the others start when it asks again."""
    planner = planner_of(Source("a", print), Source("urgent", print, reserve=1), capacity=4)
    answer(planner, 0.0, "a")
    finish_all(planner)
    answer(planner, 1.0, "a")
    assert planner.held == 3

    assert [held.track.name for held in planner.start(2)] == ["a", "a"]
    assert planner.held == 1


def test_p4_reserve_is_also_a_share() -> None:
    """A light source may use the units that are kept for it, whatever its weight."""
    heavy = [Source(name, print, weight=100) for name in "ab"]
    planner = planner_of(*heavy, Source("urgent", print, reserve=3), capacity=10)
    answer(planner, 0.0, "a", "b", "urgent")
    finish_all(planner)

    asked = answer(planner, 1.0)

    assert asked["urgent"] == 3
    assert asked["a"] + asked["b"] == 7


def test_p4_slow_source_does_not_share_beside_prompt_ones_that_use_all_that_is_not_kept() -> None:
    """The kept unit is no unit that the prompt sources leave."""
    planner = planner_of(Source("prompt", print), Source("late", print), Source("r", print, reserve=1), capacity=4)
    requests = {request.source: request for request in planner.plan(0.0)}
    planner.answered(requests["prompt"], ["item"], 0.0)
    planner.answered(requests["r"], [], 1.0)
    planner.plan(1.6)
    planner.answered(requests["late"], ["item"], 1.7)
    for name in start(planner):
        planner.finished(name)

    sent = {request.source: request for request in planner.plan(2.0)}
    assert sent["late"].probe


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_p4_reserves_that_leave_nothing_are_refused(capacity: int) -> None:
    """One unit at least is for everybody; the error adds up who reserved what, and says the way out."""
    sources = [Source("a", print, reserve=1), Source("b", print, reserve=2)]

    with pytest.raises(ValueError, match=rf"1 \(a\) \+ 2 \(b\) leave none of {capacity} units for everybody: reserve"):
        PollPlanner(sources, capacity)


def test_p4_reserve_beyond_what_may_be_held_is_refused() -> None:
    """``max_units`` below ``reserve`` would keep units for nobody."""
    with pytest.raises(ValueError, match=r"source 'a' reserves 3 units and may hold 2 at once \(max_units\)"):
        Source("a", print, reserve=3, max_units=2)


def hour_long_tasks(reserve: int, seed: int) -> Simulation:
    """A source with one-hour tasks holds every unit it can get, and after 100 s another one has a task."""
    urgent = Simulated("b", backlog=0, task=0.1, reserve=reserve)
    world = Simulation([Simulated("a", backlog=NEVER, task=3600.0), urgent], 10, seed)
    world.at(100.0, lambda: setattr(urgent, "backlog", 1))
    return world.run(110.0)


def test_p4_urgent_work_beside_hour_long_tasks_starts_at_once_at_a_tenth_of_the_capacity() -> None:
    """With one of ten units kept, new work beside hour-long tasks does not wait for one to end."""
    worlds = [hour_long_tasks(1, seed) for seed in range(5)]

    assert statistics.median(world.started_at["b"][0] - 100.0 for world in worlds) <= 0.1
    assert all(world.busy["a"] == pytest.approx(9 * 110.0, rel=0.001) for world in worlds)
    assert "b" not in hour_long_tasks(0, 0).started_at


def tracks_of(capacity: int, **reserves: int) -> list[Track]:
    """Sources that reserve so many units, for which the units are kept."""
    tracks = [Track(Source(name, print, reserve=reserve), answered=True) for name, reserve in reserves.items()]
    settle_caps(tracks, capacity)
    return tracks


def test_p4_units_are_kept_free_until_the_source_has_them() -> None:
    """What executes, was granted or is held has its unit; for what starts now, the held items still need theirs."""
    (track, other) = tracks_of(20, urgent=6, other=3)
    track.executing, track.held = 1, 2
    track.live = Flight(PollRequest("urgent", 1, 0.0, probe=False, number=1), 0.0, 0.5)

    assert (missing(track, held=True), missing(track, held=False)) == (2, 4)
    assert kept_free([track, other]) == 2 + 3
    track.executing = 9
    assert (missing(track, held=True), missing(track, held=False), kept_free([track, other])) == (0, 0, 3)


@pytest.mark.parametrize(
    ("wanting", "free", "may"),
    [
        ("xx", 4, [True, False]),  # three are kept for the others
        ("aaa", 3, [True, True, False]),  # two are kept for it, one for b
        ("aax", 3, [True, True, False]),
        ("bx", 3, [True, False]),
        ("bb", 1, [False, False]),  # fewer are free than are kept for a
        ("aaaa", 4, [True, True, True, False]),
        ("bab", 3, [True, True, False]),
        ("xaab", 4, [True, True, True, True]),
        ("rx", 4, [True, False]),  # r is removed: nothing is kept for it
        ("rb", 3, [False, True]),
    ],
)
def test_p4_items_start_in_turn_beside_what_is_kept_for_others(wanting: str, free: int, may: list[bool]) -> None:
    """Two units are kept for a and one for b; each that starts takes its own kept unit first, then what is left."""
    tracks = {track.name: track for track in tracks_of(8, a=2, b=1, x=0)}
    removed = Track(Source("r", print, reserve=1), answered=True)

    assert fitting([tracks.get(name, removed) for name in wanting], list(tracks.values()), free) == may


def test_p4_paused_source_keeps_no_units_and_caps_stay_in_force() -> None:
    """Each may have what is not kept for others, and never more than its own limit."""
    tracks = [
        Track(Source("a", print, reserve=2)),
        Track(Source("b", print, reserve=3, max_units=4)),
        Track(Source("c", print, max_units=9)),
        Track(Source("d", print)),
    ]

    settle_caps(iter(tracks), 10)
    assert [track.cap for track in tracks] == [7, 4, 5, 5]
    assert {track.all_kept for track in tracks} == {5}
    tracks[1].paused = True
    settle_caps(iter(tracks), 10)
    assert [track.cap for track in tracks] == [None, 4, 8, 8]
    assert [track.kept for track in tracks] == [2, 0, 0, 0]


def test_p4_source_that_has_its_kept_units_leaves_the_others_the_rest() -> None:
    """What it is granted of its own reserve is kept no longer: the next one has all that is left."""
    (reserving, other) = tracks_of(8, a=2, x=0)
    sharing = Sharing([reserving, other])
    sharing.contend([reserving, other])
    room = Room(capacity=8, free=8, lent=0, kept=2)

    assert sharing.grants([reserving, other], [reserving, other], room, 0.0) == [(reserving, 4), (other, 4)]


def test_p2_reserving_source_is_granted_no_more_than_is_free() -> None:
    """An item that it holds has one of its kept units: that one is not counted as free for it again."""
    (reserving, other) = tracks_of(8, a=3, x=0)
    reserving.held = 1
    sharing = Sharing([reserving, other])
    sharing.contend([reserving, other])
    room = Room(capacity=8, free=2, lent=0, kept=2)

    assert sharing.grants([reserving, other], [reserving, other], room, 0.0) == [(reserving, 2)]


@pytest.mark.parametrize(("limit", "together"), [(5, True), (7, True), (8, False)])
def test_p3_slow_source_uses_what_a_prompt_one_with_kept_units_leaves(limit: int, *, together: bool) -> None:
    """What is kept for the prompt source it may use itself: a slow one shares only where its limit leaves units."""
    prompt = Track(Source("p", print, reserve=2, max_units=limit), answered=True, full=True)
    slow = Track(Source("s", print), answered=True, full=True, slow=True)
    settle_caps([prompt, slow], 8)

    assert sharers([prompt, slow], 8, kept=2) == ([prompt, slow] if together else [prompt])
