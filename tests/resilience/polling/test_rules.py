"""The poller's rules one by one, on the planner alone: time is a number here."""

import math
import random
from itertools import pairwise

import pytest
from simulation import NEVER, Simulated, Simulation

from resilience.polling import PollConfig, PollPlanner, PollRequest, Source
from resilience.polling.holding import reserved
from resilience.polling.pausing import Pausing
from resilience.polling.probing import probes
from resilience.polling.reasons import Why
from resilience.polling.sharing import Room, Sharing, share_of
from resilience.polling.track import Flight, Track

CONFIG = PollConfig()


def planner_of(*names: str, capacity: int = 10, **options: int) -> PollPlanner:
    """A planner of sources with these names."""
    return PollPlanner([Source(name, print, **options) for name in names], capacity, CONFIG, random.Random(1))


def answer_first_probe(planner: PollPlanner, now: float, *, full: bool) -> None:
    """Let every source answer its first probe."""
    for request in planner.plan(now):
        planner.answered(request, ["item"] if full else [], now + 0.001)


def run_all(planner: PollPlanner) -> None:
    """Start and finish whatever is held."""
    for held in planner.start(100):
        planner.finished(held.track.name)


def test_p1_every_source_has_one_live_poll_and_waits_while_nobody_is_backlogged() -> None:
    """Sources that never answered are asked for one item, with the long wait, and not again while that is out."""
    planner = planner_of("a", "b")

    requests = planner.plan(0.0)

    assert [(r.source, r.count, r.wait, r.probe) for r in requests] == [("a", 1, 1.0, True), ("b", 1, 1.0, True)]
    assert planner.plan(0.5) == []


def test_p1_nobody_waits_while_somebody_is_backlogged() -> None:
    """A backlogged source is polled with wait 0, and so is every other."""
    planner = planner_of("a", "b")
    first, second = planner.plan(0.0)
    planner.answered(first, ["item"], 0.1)
    planner.answered(second, [], 1.0)
    run_all(planner)

    assert {(r.source, r.wait) for r in planner.plan(2.0)} == {("a", 0.0), ("b", 0.0)}


def test_p2_what_an_overdue_poll_was_granted_is_lent_and_its_items_are_held() -> None:
    """The others get the units of an overdue poll; what it brings runs when a unit falls free, before anything new."""
    planner = planner_of("a", "b", capacity=2)
    answer_first_probe(planner, 0.0, full=True)
    run_all(planner)
    a, b = planner.plan(0.1)
    planner.answered(b, ["b1"], 0.101)
    assert [held.value for held in planner.start(9)] == ["b1"]

    lent = [r for r in planner.plan(0.7) if r.source == "b"]
    assert [r.count for r in lent] == [1]
    planner.answered(lent[0], ["b2"], 0.8)
    assert [held.value for held in planner.start(9)] == ["b2"]

    planner.answered(a, ["a1"], 0.9)
    assert planner.start(9) == []
    planner.finished("b")
    assert [held.value for held in planner.start(9)] == ["a1"]


def test_p3_an_open_source_gets_nothing_and_a_half_open_one_gets_one_probe() -> None:
    """Before its gate nothing is sent to it; from then on, one item is asked for."""
    planner = planner_of("a", "b")
    answer_first_probe(planner, 0.0, full=True)
    run_all(planner)

    assert [r.source for r in planner.plan(1.0, {"a": 5.0})] == ["b"]
    assert [(r.source, r.count, r.probe) for r in planner.plan(5.0, {"a": 5.0})] == [("a", 1, True)]


def test_p3_a_slow_source_gets_one_probe_beside_a_prompt_one_and_its_share_alone() -> None:
    """A source that takes its time is not granted units that a prompt one can use."""
    planner = planner_of("a", "slow", capacity=4)
    a, slow = planner.plan(0.0)
    planner.answered(a, ["item"], 0.001)
    planner.answered(slow, ["item"], 1.6)
    run_all(planner)
    assert {(r.source, r.count) for r in planner.plan(1.7)} == {("a", 4), ("slow", 1)}

    planner = planner_of("a", "slow", capacity=4)
    a, slow = planner.plan(0.0)
    planner.answered(a, [], 0.001)
    planner.answered(slow, ["item"], 1.6)
    run_all(planner)
    assert ("slow", 4) in {(r.source, r.count) for r in planner.plan(1.7)}


@pytest.mark.parametrize("weights", [(1, 1), (1, 2), (1, 2, 5)])
@pytest.mark.parametrize("capacity", [1, 8])
def test_p4_backlogged_sources_divide_the_capacity_by_weight(weights: tuple[int, ...], capacity: int) -> None:
    """Over time each gets its part of what runs, also at capacity 1."""
    sources = [Simulated(f"s{i}", backlog=NEVER, weight=w) for i, w in enumerate(weights)]

    run = Simulation(sources, capacity).run(until=3.0)

    total, started = sum(weights), sum(run.starts.values())
    for source in sources:
        assert run.starts[source.name] == pytest.approx(started * source.weight / total, rel=0.2, abs=capacity)


def test_p4_what_a_capped_source_cannot_use_the_others_do() -> None:
    """A limit of units is kept, and costs nobody else."""
    run = Simulation([Simulated("a", backlog=NEVER, max_units=1), Simulated("b", backlog=NEVER)], 10).run(3.0)
    alone = Simulation([Simulated("b", backlog=NEVER)], 9).run(3.0)

    assert run.starts["b"] >= 0.97 * alone.starts["b"]
    assert run.starts["a"] > 0


def test_p4_who_has_its_part_comes_after_who_has_less() -> None:
    """A unit that falls free goes to the source that is owed and below its part, though the other has more credit."""
    a, far = (
        Track(Source(name, print), answered=True, full=True, executing=units) for name, units in [("a", 2), ("far", 1)]
    )
    far.slow, far.owed = True, 1
    sharing = Sharing([a, far])
    sharing.contend([a, far])
    sharing.started(far)
    assert sharing.credit("a") > sharing.credit("far")

    assert sharing.grants([a], [a, far], Room(capacity=4, free=1, lent=0), 0.0) == [(far, 1)]


def test_p5_a_source_that_paused_does_not_cash_in_on_its_absence() -> None:
    """Whoever comes back after a while shares like everybody else from then on, and starves nobody."""
    late = Simulated("late", backlog=0, rate=0.0)
    sim = Simulation([Simulated("a", backlog=NEVER), late], 1).run(10.0)
    late.backlog, before = NEVER, len(sim.order)
    sim.run(20.0)

    since = sim.order[before:]
    assert 0.45 <= since.count("a") / len(since) <= 0.55
    assert max(len(run) for run in "".join(name[0] for name in since).split("l")) <= 3


@pytest.mark.parametrize(("sources", "longest"), [(1, 0.1), (10, 0.1), (40, 0.4)])
def test_p6_pauses_after_empty_answers_grow_and_are_bounded(sources: int, longest: float) -> None:
    """From 2 ms, doubling, at most 100 ms or 10 ms for each source, jittered down to half."""
    pausing, track = Pausing(sources, random.Random(1)), Track(Source("a", print))
    for number in range(12):
        pausing.after_answer(track, 0, 0.001, 0.0, now=5.0)

        most = min(0.002 * 2**number, longest)
        assert most / 2 <= track.not_before - 5.0 + 1e-9
        assert track.not_before - 5.0 <= most + 1e-9
    pausing.after_answer(track, 1, 0.001, 0.0, now=6.0)
    assert track.not_before <= 6.0


def test_p6_no_pause_after_an_empty_answer_that_used_its_whole_wait() -> None:
    """A long poll that ran to its end is sent again at once."""
    planner = planner_of("a")
    (request,) = planner.plan(0.0)
    planner.answered(request, [], 1.0)

    assert len(planner.plan(1.0)) == 1


def test_p6_pauses_after_failures_grow_to_a_second_and_a_request_to_wait_is_kept() -> None:
    """From 50 ms, doubling to 1 s, jittered down to half; at least what the source asks for."""
    planner, now = planner_of("a"), 0.0
    for number in range(8):
        (request,) = planner.plan(now)
        planner.failed(request, OSError("down"), now)
        wakeup = planner.next_wakeup(now)
        assert wakeup is not None
        most = min(0.05 * 2**number, 1.0)
        assert most / 2 - 1e-9 <= wakeup - now <= most + 1e-9
        now = wakeup
    (request,) = planner.plan(now)
    planner.failed(request, OSError("down"), now, hint=7.0)

    assert planner.next_wakeup(now) == pytest.approx(now + 7.0)


def test_p8_a_source_whose_items_went_back_is_owed_a_unit_of_its_own() -> None:
    """After a give-back its next poll stands inside the sum and is not lent; a short answer clears the debt."""
    planner = planner_of("a", "b", capacity=1)
    a, b = planner.plan(0.0)
    planner.answered(a, ["a1"], 0.1)
    planner.answered(b, ["b1"], 0.1)
    assert [held.value for held in planner.start(1)] == ["a1"]
    assert [held.value for held in planner.overheld(5.1)] == ["b1"]

    planner.finished("a")
    (again,) = [r for r in planner.plan(5.2) if not r.probe and r.source == "a"] or [None]
    if again is not None:  # equal credit: the one named first may go first, once
        planner.answered(again, ["a2"], 5.21)
        planner.start(1)
        planner.finished("a")
    (granted,) = [r for r in planner.plan(5.3) if not r.probe] if again is not None else planner.plan(5.2)
    assert (granted.source, granted.count) == ("b", 1)
    assert [r for r in planner.plan(9.0) if not r.probe] == []  # overdue by now, and nobody else has its unit

    planner.answered(granted, [], 9.1)
    assert [r.source for r in planner.plan(9.1) if not r.probe] == ["a"]


def test_p9_a_planner_with_nothing_to_do_names_no_time() -> None:
    """When only others can change anything there is nothing to wake up for."""
    planner = planner_of("a")
    planner.deliveries("a", ok=False)

    assert planner.plan(0.0) == []
    assert planner.next_wakeup(0.0) is None


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (1, 1, 3)])
@pytest.mark.parametrize("capacity", [1, 3])
def test_p11_nobody_starves(weights: tuple[int, ...], capacity: int) -> None:
    """A backlogged source waits for few starts of others beyond what already runs, also at capacity 1."""
    sources = [Simulated(f"s{i}", backlog=NEVER, weight=w) for i, w in enumerate(weights)]

    order = Simulation(sources, capacity).run(until=3.0).order

    for source in sources:
        bound = math.ceil(sum(weights) / source.weight) + capacity + len(sources)
        at = [-1, *(i for i, name in enumerate(order) if name == source.name), len(order)]
        assert max(later - earlier - 1 for earlier, later in pairwise(at)) <= bound


def test_p11_due_probes_go_out_whenever_a_task_ends() -> None:
    """A source beside one that takes every unit at once is still asked, at every end of a task."""
    planner = planner_of("a", "idle", capacity=1)
    a, idle = planner.plan(0.0)
    planner.answered(a, ["a1"], 0.1)
    planner.start(1)
    planner.answered(idle, [], 1.0)
    assert planner.plan(2.0) == []

    planner.finished("a")

    assert {(r.source, r.probe) for r in planner.plan(2.1)} == {("a", False), ("idle", True)}


def test_p13_a_source_that_takes_no_results_is_not_polled_until_it_does() -> None:
    """Polling starts again with the first result that was taken."""
    planner = planner_of("a")
    planner.deliveries("a", ok=False)
    assert planner.plan(0.0) == []

    planner.deliveries("a", ok=True)

    assert len(planner.plan(0.0)) == 1


def test_a_poll_is_told_of_once() -> None:
    """Telling of a poll twice is a mistake of the driver's, and it is said."""
    planner = planner_of("a")
    (request,) = planner.plan(0.0)
    planner.answered(request, [], 0.1)

    with pytest.raises(ValueError, match="tell of each poll once"):
        planner.answered(request, [], 0.2)


def test_a_long_round_trip_waits_a_moment_for_more_units() -> None:
    """A slow source is polled once for many units and not for each that falls free; nobody waits beyond 50 ms."""
    planner = planner_of("slow", capacity=4)
    (probe,) = planner.plan(0.0)
    planner.answered(probe, ["x"], 2.0)
    assert len(planner.start(4)) == 1
    (full,) = planner.plan(2.0) or [PollRequest("none", 0, 0.0, probe=True, number=0)]
    assert full.source in {"slow", "none"}

    wakeup = planner.next_wakeup(2.0)
    assert wakeup is not None
    assert wakeup <= 2.05
    (request,) = planner.plan(wakeup)
    assert request.count == 3


def test_views_tell_the_state_of_each_source() -> None:
    """Suspect, backlogged, caught up and slow can be read, with the units in use."""
    planner = planner_of("a", "b", "c", "d")
    a, b, c, _ = planner.plan(0.0)
    planner.answered(a, ["x"], 0.1)
    planner.answered(b, [], 0.1)
    planner.answered(c, ["x"], 1.9)

    states = {name: view.state for name, view in planner.view().items()}

    assert states == {"a": "backlogged", "b": "caught up", "c": "slow", "d": "suspect"}
    assert (planner.view()["a"].held, planner.view()["d"].in_flight) == (1, 1)


def track_of(name: str, **facts: object) -> Track:
    """A source that has answered, and what else is known of it."""
    options = {key: facts.pop(key) for key in ("weight", "max_units") if key in facts}
    return Track(Source(name, print, **options), answered=True, **facts)  # type: ignore[arg-type]


def test_p2_what_abandoned_polls_of_several_sources_were_granted_adds_up() -> None:
    """Two sources whose abandoned polls may still bring six items each: of another overdue poll nothing is lent."""
    tracks = [track_of(name) for name in "abc"]
    for number, track in enumerate(tracks):
        request = PollRequest(track.name, 6, 0.0, probe=False, number=number)
        flight = Flight(request, 0.0, 0.5, overdue=True)
        if track.name == "c":
            track.live = flight
        else:
            track.abandoned[number] = flight

    assert reserved(tracks, capacity=10) == 6
    assert reserved(tracks[1:], capacity=10) == 2


def test_p4_capped_sources_leave_their_rest_in_the_order_in_which_they_are_full() -> None:
    """A heavy source with a cap is full before a light one with a lower cap, and both others divide what it leaves."""
    light, heavy, free = track_of("light", max_units=4), track_of("heavy", weight=3, max_units=5), track_of("free")
    sharers = [light, heavy, free]

    assert {track.name: share_of(sharers, track, 10) for track in sharers} == {"light": 3, "heavy": 5, "free": 3}


def test_p4_source_with_less_than_its_part_comes_before_one_that_has_it() -> None:
    """A heavy source with five of its seven and a half units is served before a light one: it is owed more."""
    heavy, light = track_of("heavy", weight=3, executing=5), track_of("light")
    sharing = Sharing([light, heavy])
    sharing.contend([light, heavy])

    assert sharing.grants([light, heavy], [light, heavy], Room(capacity=10, free=1, lent=0), now=0.0) == [(heavy, 1)]
    heavy.executing = 8
    assert sharing.grants([light, heavy], [light, heavy], Room(capacity=10, free=1, lent=0), now=0.0) == [(light, 1)]


def test_p6_pauses_after_empty_answers_begin_anew_after_a_failure() -> None:
    """A source that failed and answers empty again is asked as soon as one that had something."""
    pausing, track = Pausing(2, random.Random(1)), track_of("a")
    for _ in range(5):
        pausing.after_answer(track, 0, 0.0, 0.0, 10.0)
    pausing.after_failure(track, 10.0, 0.0)
    pausing.after_answer(track, 0, 0.0, 0.0, 10.0)

    assert 0.001 <= track.not_before - 10.0 <= 0.002


def test_p8_source_whose_items_went_back_takes_one_unit_and_none_that_is_only_lent() -> None:
    """What it brings is to start: so it is not asked for its whole share, nor for a unit of somebody's overdue poll."""
    owed, other = track_of("owed", owed=1), track_of("other")
    sharing = Sharing([owed, other])
    sharing.contend([owed, other])

    assert sharing.grants([owed, other], [owed], Room(capacity=10, free=10, lent=0), now=0.0) == [(owed, 1)]
    assert sharing.grants([owed, other], [owed], Room(capacity=10, free=2, lent=2), now=0.0) == []
    assert owed.why is Why.NO_UNIT
    assert sharing.grants([owed, other], [owed], Room(capacity=10, free=3, lent=2), now=0.0) == [(owed, 1)]


def test_p10_items_that_started_are_counted_for_good() -> None:
    """However many starts there were, and whatever became of the items."""
    planner = planner_of("a")
    answer_first_probe(planner, 0.0, full=True)
    run_all(planner)
    (request,) = planner.plan(1.0)
    planner.answered(request, ["item"] * 4, 1.1)
    run_all(planner)

    assert planner.view()["a"].started == 5


def test_p11_source_that_was_removed_is_not_waited_for() -> None:
    """Who waits for a unit waits for as many starts as those that are left may have, from the removal on."""
    first, second, gone = track_of("a", executing=1), track_of("b"), track_of("c")
    sharing = Sharing([first, second, gone])
    sharing.contend([first, second, gone])

    sharing.remove(gone)
    sharing.received(1)
    assert not sharing.starves([second])
    sharing.received(1)

    assert sharing.starves([second])


def test_p11_items_that_came_the_quick_way_are_waited_for_one_by_one() -> None:
    """However many items a chain brought before anybody looked, each counts as one start for who has no unit."""
    busy, waiting = track_of("a", executing=1), track_of("b", weight=2)
    sharing = Sharing([busy, waiting])
    sharing.contend([busy, waiting])

    for _ in range(3):
        sharing.linked(busy)
    sharing.settle()
    assert waiting.waited_for == 3
    sharing.settle()

    assert waiting.waited_for == 3


def test_p2_every_probe_there_is_no_room_for_says_so() -> None:
    """Suspect sources beyond the room are told apart from the one that is probed."""
    held, capacity = 7, 4
    suspects = [Track(Source(name, print), polled_at=float(at)) for at, name in enumerate("abc")]

    assert probes([suspects[2], suspects[0], suspects[1]], suspects, held, capacity) == [suspects[0]]
    assert [track.why for track in suspects[1:]] == [Why.CROWDED, Why.CROWDED]
