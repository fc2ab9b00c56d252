"""P10: `explain` says for every source what the next plan grants it and why, in words and as values."""

import copy
import math
import random
import threading

import pytest

from resilience.polling import Explanation, PollConfig, PollPlanner, PollRequest, Source, Why

CONFIG = PollConfig()
DOWN = OSError("down")


def planner_of(*names: str, capacity: int = 10, **options: int) -> PollPlanner:
    """A planner of sources with these names."""
    return PollPlanner([Source(name, print, **options) for name in names], capacity, CONFIG, random.Random(3))


def answer_all(planner: PollPlanner, *full: str, now: float = 0.0, trip: float = 0.0) -> None:
    """Every poll that is due is answered; those of ``full`` with all they asked for, the others with nothing."""
    for request in planner.plan(now):
        values = [object()] * request.count if request.source in full else []
        planner.answered(request, values, now + request.wait * (not values) + trip)


def run_all(planner: PollPlanner, *, keep: int = 0) -> None:
    """Start what is held, and end all but some of it."""
    while started := planner.start(100):
        for held in started[keep:]:
            planner.finished(held.track.name)


def told(planner: PollPlanner, name: str, now: float, *, sent: list[PollRequest] | None = None) -> Explanation:
    """What is told of ``name``; nothing changes by it, and the next plan does it."""
    before = planner.view(), planner.held
    explanation = planner.explain(now)[name]
    assert (planner.view(), planner.held) == before
    requests = copy.deepcopy(planner).plan(now) if sent is None else sent
    assert explanation.granted == sum(request.count for request in requests if request.source == name)
    return explanation


def test_p10_backlogged_source_is_told_its_share_and_what_it_asks_for() -> None:
    """So many units in use, of so many, and what is asked for now."""
    planner = planner_of("a", "b", capacity=10)
    answer_all(planner, "a", "b")
    run_all(planner, keep=2)

    explanation = told(planner, "a", 1.5)

    assert explanation == Explanation(
        source="a",
        state="backlogged",
        why=Why.GRANTED,
        granted=4,
        units=1,
        share=5,
        until=None,
        reason="backlogged: 1 of its share of 5 in use, asks for 4",
    )


def test_p10_source_that_was_never_heard_of_is_probed() -> None:
    """One unit, to find out."""
    assert told(planner_of("a"), "a", 0.0).reason == "suspect: probed for one unit"


def test_p10_probe_beside_running_items() -> None:
    """What runs already is said."""
    planner = planner_of("a")
    answer_all(planner, "a")
    run_all(planner, keep=1)
    for request in planner.plan(0.1):
        planner.answered(request, [], 0.2)

    assert told(planner, "a", 5.0).reason == "caught up: probed for one unit, 1 in use"


def test_p10_poll_in_flight() -> None:
    """When it was sent, what it asked for, and whether it is overdue."""
    planner = planner_of("a")
    planner.plan(0.0)

    assert (told(planner, "a", 0.25).why, told(planner, "a", 0.25).reason) == (
        Why.IN_FLIGHT,
        "asked for 1 0.25 s ago, no answer yet",
    )
    assert told(planner, "a", 2.0).reason == "asked for 1 2.0 s ago: overdue, others may use what it was granted"


@pytest.mark.parametrize(("left", "reason"), [(12.3, "open: next probe in 12.3 s"), (math.inf, "forced open")])
def test_p10_open_source(left: float, reason: str) -> None:
    """When its next probe is, or that somebody forced it open."""
    explanation = planner_of("a").explain(7.0, {"a": 7.0 + left})["a"]

    assert (explanation.why, explanation.reason, explanation.until) == (Why.OPEN, reason, 7.0 + left)


def test_p10_half_open_and_early_probes() -> None:
    """A probe because its time has come, and one because everybody is open."""
    planner = planner_of("a")
    assert planner.explain(7.0, {"a": 6.0})["a"].reason == (
        "its breaker may let one call through; suspect: probed for one unit"
    )
    assert planner.explain(30.0, {"a": 99.0}, {"a": 1.0})["a"].reason == (
        "open like every source, so the fault is likely here: probed early for one unit"
    )


def test_p10_pauses() -> None:
    """For how long, and after what."""
    planner = planner_of("a", "b", "c")
    a, b, c = planner.plan(0.0)
    planner.answered(a, [], 0.1)
    planner.failed(b, DOWN, 0.1, hint=2.0)
    planner.rejected(c, 0.5, 0.1)

    assert told(planner, "a", 0.1).reason == "paused for 0.00 s after an empty answer"
    assert told(planner, "b", 0.1).reason == "paused for 2.0 s after a failure"
    assert told(planner, "c", 0.1).reason == "paused for 0.50 s because its poll was not let through"
    assert told(planner, "b", 0.1).until == pytest.approx(2.1)


def test_p10_source_that_takes_no_results() -> None:
    """P13 in words."""
    planner = planner_of("a")
    planner.deliveries("a", ok=False)

    assert told(planner, "a", 0.0).reason == "not polled: its results do not arrive, or too slowly"


def test_p10_abandoned_polls() -> None:
    """How many still run."""
    planner = planner_of("a")
    for i in range(CONFIG.max_abandoned):
        (request,) = planner.plan(20.0 * i)
        planner.timed_out(request, 20.0 * i + 5.0)

    assert told(planner, "a", 100.0).reason == "not polled: 3 abandoned polls still running"


def test_p10_abandoned_poll() -> None:
    """One is singular."""
    planner = PollPlanner([Source("a", print)], 4, PollConfig(max_abandoned=1), random.Random(0))
    (request,) = planner.plan(0.0)
    planner.timed_out(request, 5.0)

    assert told(planner, "a", 100.0).reason == "not polled: 1 abandoned poll still running"


def test_p10_no_unit() -> None:
    """It could be polled, if there were a unit."""
    planner = planner_of("a", "b", capacity=1)
    answer_all(planner, "a")
    assert planner.start(1)
    planner.plan(0.001)

    assert told(planner, "b", 5.0).reason == "due, but no unit is free"


def test_p10_source_that_has_its_share() -> None:
    """Its share of the capacity, or what it may have at most, whether it shares or would share."""
    planner = planner_of("a", capacity=2, max_units=1)
    answer_all(planner, "a")
    assert planner.start(1)
    assert told(planner, "a", 1.0).reason == "backlogged: has 1 unit already, its max_units of 1"

    planner = planner_of("a", "b", capacity=2)
    answer_all(planner, "a", "b")
    assert len(planner.start(2)) == 2
    planner.finished("a")
    assert told(planner, "b", 0.0).reason == "backlogged: has 1 unit already, its share of 1"

    planner = planner_of("a", "b", capacity=1)
    answer_all(planner, "a")
    assert planner.start(1)
    planner.finished("a")
    planner.plan(0.0)
    assert told(planner, "b", 5.0).state == "caught up"


def test_p10_long_round_trip() -> None:
    """It waits for more units, for a moment."""
    planner = planner_of("a", capacity=2)
    answer_all(planner, "a", trip=1.4)
    assert planner.start(1)

    explanation = told(planner, "a", 1.5)

    assert (explanation.why, explanation.until) == (Why.LINGERING, pytest.approx(1.52))
    assert explanation.reason.startswith("backlogged: 1 of its share of 2 in use, waits 0.02 s for more units")


def test_p10_no_room_for_what_suspects_may_bring() -> None:
    """Eight probes of sources that were never heard of are out: the ninth and the tenth wait."""
    planner = planner_of(*"abcdefghij", capacity=1)

    reasons = {name: explanation.why for name, explanation in planner.explain(0.0).items()}

    assert [name for name, why in reasons.items() if why is Why.CROWDED] == ["i", "j"]
    assert "no room" in told(planner, "i", 0.0).reason


def test_p10_owed_source() -> None:
    """Whoever's items went back gets one unit for certain."""
    planner = planner_of("a", "b", capacity=1)
    answer_all(planner, "a", "b")
    (running,) = planner.start(1)
    other = "b" if running.track.name == "a" else "a"
    planner.finished(running.track.name)
    planner.deliveries(running.track.name, ok=False)
    assert [held.track.name for held in planner.overheld(20.0)] == [other]

    explanation = told(planner, other, 20.0)

    assert explanation.reason == "owed for items that went back: 0 of its share of 1 in use, asks for 1"


def test_p10_somebody_comes_first() -> None:
    """While one that has waited for long has nothing, nobody is probed."""
    planner = planner_of("a", "b", "c", "d", capacity=1)
    a, b, c, d = planner.plan(0.0)
    planner.failed(d, DOWN, 0.1, hint=0.5)
    planner.answered(a, ["a"], 0.1)
    run_all(planner)
    planner.failed(c, DOWN, 0.1, values=["c"])
    assert planner.start(1)
    planner.plan(0.2)
    planner.failed(b, DOWN, 0.3, values=["b"])
    planner.finished("c")

    assert told(planner, "a", 1.0).why is Why.NO_UNIT
    assert told(planner, "d", 1.0).reason == "due, but somebody who has waited for long comes first"


def test_p10_stopped() -> None:
    """Nothing is polled, and that is why."""
    planner = planner_of("a")
    planner.stop()

    assert told(planner, "a", 0.0).reason == "not polled: the poller has stopped"


class Locked:
    """A source's client, and a value: neither can be copied, nor may be."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def poll(self, _: int, __: float) -> list[object]:
        """Bring itself."""
        return [self]


def test_p10_neither_sources_nor_values_are_copied_by_explaining() -> None:
    """What cannot be copied, such as a client with a lock, can be explained while its values are held."""
    client = Locked()
    planner = PollPlanner([Source("a", client.poll)], 2, CONFIG, random.Random(3))
    (request,) = planner.plan(0.0)
    planner.answered(request, [client], 0.1)

    assert planner.explain(0.2)["a"].why is Why.GRANTED
    (held,) = planner.start(1)
    assert held.value is client


def test_p10_explaining_tells_no_events_and_draws_no_jitter() -> None:
    """Asking as often as one likes changes neither what is told of polls nor when anybody is polled next."""
    planners, again = [planner_of("a", "b"), planner_of("a", "b")], []
    for planner in planners:
        first, _ = planner.plan(0.0)
        planner.answered(first, [], 0.1)
        again += planner.plan(0.2)
    for _ in range(5):
        planners[0].explain(9.0)

    assert planners[0].drain_events() == planners[1].drain_events()
    for planner, request in zip(planners, again, strict=True):
        planner.failed(request, DOWN, 10.1)
    assert planners[0].next_wakeup(10.2) == planners[1].next_wakeup(10.2)
