"""The planner's rules one by one, by example; `test_polling_machine.py` has them all at once."""

import itertools
import math
import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import part

from resilience.errors import AnswerTooLarge
from resilience.events import ItemsArrived, ItemsArrivedLate, PollFailed, PollOverdue, PollTimedOut, SurplusArrived
from resilience.polling import PollConfig, PollPlanner, PollRequest, Source
from resilience.polling.holding import Holding
from resilience.polling.pausing import Pausing
from resilience.polling.sharing import Room, Sharing
from resilience.polling.track import Track

CONFIG = PollConfig(poll_wait=1.0, overdue_after=0.5, poll_timeout=5.0, give_up_after=30.0, max_hold=5.0)
DOWN = OSError("down")


class Desk:
    """A planner and the time; what a driver does, in few words."""

    def __init__(self, *names: str, capacity: int = 10, sources: tuple[Source[object], ...] = ()) -> None:
        told = sources or tuple(Source(name, print) for name in names)
        self.planner = PollPlanner(told, capacity, CONFIG, random.Random(7))
        self.capacity = capacity
        self.now = 0.0
        self.gates: dict[str, float] = {}
        self.early: dict[str, float] = {}

    def plan(self, now: float | None = None) -> dict[str, PollRequest]:
        """What is sent at ``now``, by source."""
        self.now = self.now if now is None else now
        return {request.source: request for request in self.planner.plan(self.now, self.gates, self.early)}

    def answer(self, request: PollRequest, count: int | None = None, after: float = 0.001) -> None:
        """A poll brings ``count`` items, or all that were asked for."""
        self.now += after
        self.planner.answered(request, [object()] * (request.count if count is None else count), self.now)

    def start(self) -> list[str]:
        """The sources of the items that start now."""
        return [held.track.name for held in self.planner.start(self.capacity)]

    def backlogged(self, *names: str, executing: int = 0) -> None:
        """Let the first probes of ``names`` come back full, those of the others empty, and end all but some items."""
        for name, request in self.plan().items():
            self.answer(request, int(name in names), after=0.0)
        while started := self.start():
            for name in started[executing:]:
                self.planner.finished(name)
            executing = 0

    def wakeup(self) -> float | None:
        """When the planner wants to be asked again."""
        return self.planner.next_wakeup(self.now, self.gates, self.early)


# -- P1: one live poll a source; who waits ---------------------------------------------------------------------------


def test_p1_source_has_one_live_poll() -> None:
    """A source is not polled again before its poll came back, however long that takes."""
    desk = Desk("a")
    (probe,) = desk.plan().values()

    assert not any(desk.plan(now) for now in (0.1, 1.5, 4.9))

    desk.answer(probe, 0)
    assert list(desk.plan(6.0)) == ["a"]


def test_p1_polls_wait_as_long_as_the_config_says() -> None:
    """The options are the caller's, and without any they are those of the documents."""
    patient = PollPlanner([Source("a", print)], 1, PollConfig(poll_wait=3.0))

    assert patient.plan(0.0)[0].wait == 3.0
    assert PollPlanner([Source("a", print)], 1).plan(0.0)[0].wait == PollConfig().poll_wait


def test_p1_abandoned_poll_does_not_count_as_live() -> None:
    """A source is polled again beside a poll that was abandoned, until too many of those still run."""
    desk = Desk("a")
    for _ in range(CONFIG.max_abandoned):
        (request,) = desk.plan().values()
        desk.planner.timed_out(request, desk.now + 5.0)
        desk.now += 10.0

    assert desk.plan() == {}
    assert desk.wakeup() is None
    desk.planner.failed(request, DOWN, desk.now)
    assert list(desk.plan()) == ["a"]


def test_p1_sources_wait_only_while_nobody_is_backlogged() -> None:
    """With a backlogged source about, everybody answers at once; otherwise a poll may wait for work."""
    desk = Desk("a", "b")
    assert [request.wait for request in desk.plan().values()] == [1.0, 1.0]

    desk = Desk("a", "b")
    desk.backlogged("a")
    assert {name: request.wait for name, request in desk.plan(1.0).items()} == {"a": 0.0, "b": 0.0}

    desk = Desk("a", "b")
    desk.backlogged()
    assert [request.wait for request in desk.plan(1.0).values()] == [1.0, 1.0]


@pytest.mark.parametrize(("sources", "capacity", "wait"), [(8, 1, 1.0), (9, 1, 0.0), (12, 12, 1.0), (13, 12, 0.0)])
def test_p1_suspects_do_not_wait_when_there_are_more_than_may_be_probed(
    sources: int, capacity: int, wait: float
) -> None:
    """The last one would be asked after many waits of others; who has answered may wait again."""
    desk = Desk(*(f"s{i}" for i in range(sources)), capacity=capacity)
    first = desk.plan()
    assert {request.wait for request in first.values()} == {wait}

    for request in first.values():
        desk.answer(request, 0, after=0.0)
    again = desk.plan(desk.now + 0.1)
    assert {request.wait for name, request in again.items() if name in first} == {1.0}


def test_p1_who_has_answered_waits_beside_many_suspects() -> None:
    """A source that is caught up is not asked again and again because others are ill."""
    desk = Desk(*(f"s{i}" for i in range(20)), capacity=1)
    while sent := desk.plan():
        for name, request in sent.items():
            if name == "s0":
                desk.answer(request, 0, after=0.0)
            else:
                desk.planner.failed(request, DOWN, desk.now)

    assert [(request.source, request.wait) for request in desk.plan(0.003).values()] == [("s0", 1.0)]


# -- P2: the sum -----------------------------------------------------------------------------------------------------


def test_p2_grants_fit_beside_what_executes_is_held_and_was_granted() -> None:
    """Whoever is polled is asked for what is left of the capacity at most."""
    desk = Desk("a", capacity=10)
    desk.backlogged("a", executing=1)

    assert desk.plan()["a"].count == 9


def test_p2_probes_stand_outside_the_sum() -> None:
    """A caught-up source is probed though the backlogged one was granted everything."""
    desk = Desk("a", "b", capacity=1)
    desk.backlogged("a")

    sent = desk.plan(1.0)

    assert (sent["a"].count, sent["a"].probe) == (1, False)
    assert (sent["b"].count, sent["b"].probe) == (1, True)


def test_p2_item_of_a_probe_is_held_rather_than_take_a_granted_unit() -> None:
    """What was granted elsewhere stays there; what the probe brought runs when that is over, before newer items."""
    desk = Desk("a", "b", capacity=1)
    desk.backlogged("a")
    sent = desk.plan(1.0)

    desk.answer(sent["b"])
    assert desk.start() == []
    desk.answer(sent["a"])
    assert desk.start() == ["b"]
    desk.planner.finished("b")
    assert desk.start() == ["a"]


def test_p2_no_probe_without_a_free_unit_until_a_task_ends() -> None:
    """While all units run nobody is probed; the end of a task lets every due probe out."""
    desk = Desk("a", "b", "c", capacity=1)
    desk.backlogged("a", executing=1)

    assert desk.plan(1.0) == {}
    desk.planner.finished("a")
    assert set(desk.plan()) == {"a", "b", "c"}


@pytest.mark.parametrize(("capacity", "most"), [(1, 8), (8, 8), (12, 12)])
def test_p2_sources_that_never_answered_bring_no_more_than_fits(capacity: int, most: int) -> None:
    """Probes of suspects in flight and held items stay below max(8, capacity); overdue probes do not count."""
    desk = Desk(*(f"s{i}" for i in range(50)), capacity=capacity)

    first = desk.plan()
    assert len(first) == most
    assert len(desk.plan(1.4)) == 0
    assert len(desk.plan(1.5)) == most

    for request in first.values():
        desk.answer(request, after=0.0)
    assert desk.planner.held == most
    assert desk.plan() == {}


def test_p2_what_starts_makes_room_for_a_probe_at_the_same_plan() -> None:
    """An item that starts at once is not held: the next suspect is probed without waiting for anything else."""
    desk = Desk(*(f"s{i}" for i in range(12)), capacity=8)
    first = desk.plan()

    desk.answer(first["s0"])

    assert "s8" in desk.plan()


def test_p2_grant_of_an_overdue_poll_is_lent() -> None:
    """Half a second past its wait a poll's units go to the others, and what it brings then is held."""
    desk = Desk("a", "b", capacity=4)
    desk.backlogged("a", "b")
    sent = desk.plan()
    assert {name: request.count for name, request in sent.items()} == {"a": 2, "b": 2}
    desk.answer(sent["a"])
    assert desk.start() == ["a", "a"]

    assert desk.plan(0.4) == {}
    assert desk.wakeup() == pytest.approx(0.5)
    assert desk.plan(0.5)["a"].count == 2
    assert PollOverdue("b", 2) in desk.planner.drain_events()

    desk.answer(sent["b"])
    assert desk.start() == []
    assert desk.planner.held == 2


def test_p2_no_more_is_lent_than_the_capacity() -> None:
    """However many sources stall one after another, their grants are lent once over, not again and again."""
    desk = Desk("a", "b", "c", capacity=1)
    desk.backlogged("a", "b", "c")
    stalled = []
    for _ in range(3):
        stalled += [request for request in desk.plan().values() if not request.probe]
        desk.now += 0.5

    # the first one's unit was lent to the second; the second one's cannot be lent as well
    assert len(stalled) == 2


def test_p2_what_abandoned_polls_were_granted_counts_as_lent() -> None:
    """An abandoned poll may still bring its items: while it is out no other grant is lent besides."""
    desk = Desk("a", "b", capacity=2)
    desk.backlogged("a")
    hung = desk.plan()["a"]
    desk.planner.timed_out(hung, 5.0)
    desk.now = 6.0
    desk.backlogged("a")
    assert [request.count for request in (hung, desk.plan()["a"])] == [2, 2]
    desk.answer(desk.plan(desk.now + 0.6)["b"])

    assert desk.start() == []
    desk.planner.failed(hung, DOWN, desk.now)
    assert desk.start() == ["b"]


# -- P3: who gets what -----------------------------------------------------------------------------------------------


def test_p3_open_source_gets_nothing_and_a_half_open_one_a_probe() -> None:
    """A breaker that is not closed names the time from which one poll for one unit may be had."""
    desk = Desk("a", "b", capacity=4)
    desk.backlogged("a", "b")
    desk.gates = {"b": 3.0}

    assert set(desk.plan(1.0)) == {"a"}
    assert desk.wakeup() == pytest.approx(1.5)  # a's poll is overdue
    desk.plan(2.5)
    assert desk.wakeup() == 3.0
    half_open = desk.plan(3.0)["b"]
    assert (half_open.count, half_open.probe) == (1, True)


@pytest.mark.parametrize("opens_at", [30.0, math.inf])
def test_p3_gate_is_looked_at_every_second(opens_at: float) -> None:
    """A breaker that somebody else's probe closed is noticed soon, though its gate said much later, or never."""
    desk = Desk("a")
    desk.gates = {"a": opens_at}

    assert desk.plan() == {}
    assert desk.wakeup() == 1.0
    desk.gates = {}
    assert set(desk.plan(1.0)) == {"a"}


def test_p3_failed_source_is_probed_again() -> None:
    """A backlogged source whose poll failed has no share until it answered again."""
    desk = Desk("a", capacity=4)
    desk.backlogged("a")
    desk.planner.failed(desk.plan()["a"], DOWN, 0.0)

    again = desk.plan(1.0)["a"]
    assert (again.count, again.probe) == (1, True)
    desk.answer(again)
    assert desk.plan()["a"].count == 3


def test_p3_slow_source_is_probed_beside_a_prompt_one_and_shares_with_its_like() -> None:
    """Who answers late gets one unit at a time while a prompt source can use the rest, else its share."""
    desk = Desk("a", "slow", capacity=4)
    desk.backlogged("slow", "a")
    sent = desk.plan()
    desk.answer(sent["a"])
    desk.start()
    desk.answer(sent["slow"], after=1.0)
    assert desk.start() == ["slow", "slow"]
    assert desk.planner.view()["slow"].state == "slow"
    for name in ("a", "a"):
        desk.planner.finished(name)

    assert {name: request.count for name, request in desk.plan().items()} == {"a": 2}  # slow has its share
    for name in ("slow", "slow"):
        desk.planner.finished(name)
    again = desk.plan()["slow"]
    assert (again.count, again.probe) == (1, True)

    desk.answer(again, after=1.0)
    desk.planner.deliveries("a", ok=False)
    desk.planner.finished(*desk.start())
    again = desk.plan()["slow"]
    assert (again.count, again.probe) == (4, False)


def test_p3_slow_source_uses_what_capped_prompt_ones_leave() -> None:
    """A prompt source that may have one unit only is no reason to leave the others idle."""
    desk = Desk(capacity=4, sources=(Source("a", print, max_units=1), Source("slow", print)))
    desk.backlogged("slow", "a")
    sent = desk.plan()
    desk.answer(sent["a"])
    desk.answer(sent["slow"], after=1.0)
    for name in desk.start():
        desk.planner.finished(name)

    assert {name: request.count for name, request in desk.plan().items()} == {"a": 1, "slow": 3}


# -- P4: shares ------------------------------------------------------------------------------------------------------


@settings(max_examples=part(150), deadline=None)
@given(
    weights=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    caps=st.lists(st.none() | st.integers(1, 5), min_size=6, max_size=6),
    capacity=st.integers(1, 30),
)
def test_p4_backlogged_sources_divide_the_capacity_by_weight(
    weights: list[int], caps: list[int | None], capacity: int
) -> None:
    """Nobody is asked for more than its share, rounded up; what a capped source leaves goes to the others."""
    sources = tuple(Source(f"s{i}", print, weight=w, max_units=caps[i]) for i, w in enumerate(weights))
    desk = Desk(capacity=capacity, sources=sources)
    desk.backlogged(*(source.name for source in sources))

    sent = {name: request.count for name, request in desk.plan().items() if not request.probe}

    shares = water_filled(capacity, {source.name: source for source in sources})
    assert sum(sent.values()) == min(capacity, sum(math.ceil(share) for share in shares.values()))
    assert all(count <= math.ceil(shares[name] - 1e-9) for name, count in sent.items())


def water_filled(capacity: float, sources: Mapping[str, Source[object]]) -> dict[str, float]:
    """Raise a common level until the capacity is used: the plain way to say it."""
    low, high = 0.0, float(capacity)
    for _ in range(60):
        level = (low + high) / 2
        used = sum(min(level * s.weight, s.max_units or math.inf) for s in sources.values())
        low, high = (level, high) if used <= capacity else (low, level)
    return {name: min(low * s.weight, s.max_units or math.inf) for name, s in sources.items()}


def test_p4_what_a_source_has_already_is_taken_off() -> None:
    """Its share less what it executes, holds and was granted."""
    desk = Desk("a", "b", capacity=10)
    desk.backlogged("a", "b", executing=1)

    sent = desk.plan()

    assert {name: request.count for name, request in sent.items()} == {"b": 5, "a": 4}


def test_p4_batches_and_units_are_limited_per_source() -> None:
    """max_batch bounds one poll, max_units what a source may have at once."""
    sources = (Source("batch", print, max_batch=2), Source("units", print, max_units=3))
    desk = Desk(capacity=20, sources=sources)
    desk.backlogged("batch", "units", executing=2)

    assert {name: request.count for name, request in desk.plan().items()} == {"batch": 2, "units": 2}


def test_p4_source_at_its_max_units_is_not_even_probed() -> None:
    """A caught-up source whose units all run could only bring one too many."""
    desk = Desk(capacity=10, sources=(Source("a", print, max_units=1),))
    (probe,) = desk.plan().values()
    desk.answer(probe)
    assert desk.start() == ["a"]
    desk.planner.failed(probe, DOWN, desk.now) if desk.planner.view()["a"].in_flight else None

    assert desk.plan(1.0) == {}
    desk.planner.finished("a")
    assert set(desk.plan()) == {"a"}


def test_p4_long_round_trip_waits_a_moment_for_more_units() -> None:
    """A poll that takes 0.4 s is not sent for one unit when, 20 ms later, there may be more; then it is."""
    desk = Desk("far", capacity=4)
    desk.backlogged("far")
    desk.answer(desk.plan()["far"], after=0.4)
    assert desk.start() == ["far"] * 4

    desk.planner.finished("far")
    assert desk.plan() == {}
    assert desk.wakeup() == pytest.approx(desk.now + 0.02)
    desk.planner.finished("far")
    assert desk.plan(desk.now + 0.01) == {}
    assert desk.plan(desk.now + 0.01)["far"].count == 2


def test_p4_whole_share_is_asked_for_without_lingering() -> None:
    """There is nothing to wait for when all that a source may have is free."""
    desk = Desk("far", capacity=2)
    desk.backlogged("far")
    desk.answer(desk.plan()["far"], after=0.4)
    desk.start()
    for _ in range(2):
        desk.planner.finished("far")

    assert desk.plan()["far"].count == 2


# -- P5: credit ------------------------------------------------------------------------------------------------------


def lap(desk: Desk, rounds: int, brings: Mapping[str, int] | None = None) -> list[str]:
    """Serve the one unit for some rounds; every poll brings what it asks for, or what ``brings`` says."""
    order: list[str] = []
    for _ in range(rounds):
        for name, request in desk.plan(desk.now + 0.2).items():
            desk.answer(request, (brings or {}).get(name), after=0.0)
        for name in desk.start():
            order.append(name)
            desk.planner.finished(name)
    return order


def test_p5_starts_go_by_weight_at_capacity_one() -> None:
    """Weights 1, 2 and 5 give starts 1, 2 and 5, mixed as evenly as possible."""
    desk = Desk(capacity=1, sources=tuple(Source(name, print, weight=w) for name, w in [("a", 1), ("b", 2), ("c", 5)]))
    desk.backlogged("a", "b", "c")

    order = lap(desk, 80)

    assert [order.count(name) for name in "abc"] == [10, 20, 50]


def test_p5_polls_that_bring_nothing_cost_no_credit() -> None:
    """A source that answered empty for long is served as its weight says once it has something."""
    desk = Desk("a", "b", capacity=1)
    desk.backlogged("a")
    lap(desk, 200, brings={"b": 0})

    order = lap(desk, 40)

    assert abs(order.count("a") - order.count("b")) <= 2


def test_p5_items_that_were_given_back_cost_no_credit() -> None:
    """Credit is charged when an item starts: who had to take items back is not behind for it."""
    desk = Desk("a", "b", capacity=1)
    desk.backlogged("a", "b")
    for _ in range(5):
        for request in desk.plan(desk.now + 1.0).values():
            desk.answer(request, after=0.0)
        desk.now += 5.0
        assert desk.planner.overheld(desk.now)

    order = lap(desk, 40)

    assert abs(order.count("a") - order.count("b")) <= 2


def test_p5_absence_is_neither_cashed_in_nor_paid_for() -> None:
    """A source that was caught up while another ran a thousand items joins as an equal; several at once do too."""
    desk = Desk("a", "b", "c", capacity=1)
    desk.backlogged("a")
    lap(desk, 1000, brings={"b": 0, "c": 0})
    desk.gates = {"a": math.inf}
    lap(desk, 3, brings={"b": 0, "c": 0})
    desk.planner.deliveries("b", ok=False)
    desk.planner.deliveries("c", ok=False)
    desk.gates = {}
    lap(desk, 3)
    desk.planner.deliveries("b", ok=True)
    desk.planner.deliveries("c", ok=True)

    order = lap(desk, 60)

    assert max(order.count(name) for name in "abc") - min(order.count(name) for name in "abc") <= 3


@pytest.mark.parametrize("back", [("a", "b", "c", "d"), ("c", "a"), ("a", "c")])
@pytest.mark.parametrize("meanwhile", [(), ("a", "b", "d")])
def test_p5_source_that_becomes_backlogged_is_levelled(meanwhile: tuple[str, ...], back: tuple[str, ...]) -> None:
    """What it was owed when it left is cut to about one unit when it comes back, also if others come with it."""
    tracks = {name: Track(Source(name, print)) for name in "abcd"}
    sharing = Sharing(tracks.values())
    sharing.contend(tracks.values())
    for name in 20 * "abd":
        sharing.started(tracks[name])
    assert sharing.credit("c") > 2

    sharing.contend(tracks[name] for name in meanwhile)
    sharing.contend(tracks[name] for name in back)

    mean = sum(sharing.credit(name) for name in back) / len(back)
    assert sharing.credit("c") - mean <= 1.5


def test_p5_credit_stays_bounded_when_shares_and_not_credit_decide() -> None:
    """Hour-long tasks beside short ones: what the long ones' source cannot use is not put by for later."""
    desk = Desk("short", "long", capacity=3)
    desk.backlogged("short", "long")
    for _ in range(500):
        for request in desk.plan(desk.now + 0.2).values():
            desk.answer(request, after=0.0)
        for name in desk.start():
            if name == "short":
                desk.planner.finished(name)
    for _ in range(desk.planner.view()["long"].executing):
        desk.planner.finished("long")

    order = lap(desk, 20)

    assert abs(order.count("short") - order.count("long")) <= 8


# -- P6: pauses ------------------------------------------------------------------------------------------------------


def pauses(desk: Desk, failing: bool, rounds: int = 12) -> list[float]:
    """How long the source "a" rests after each of several bad polls."""
    found = []
    for _ in range(rounds):
        request = desk.plan()["a"]
        if failing:
            desk.planner.failed(request, DOWN, desk.now)
        else:
            desk.answer(request, 0)
        assert "a" not in desk.plan()
        wakeup = desk.wakeup()
        assert wakeup is not None
        found.append(wakeup - desk.now)
        desk.now = wakeup
    return found


@pytest.mark.parametrize(("sources", "longest"), [(1, 0.1), (40, 0.4)])
def test_p6_pauses_after_empty_answers_double_up_to_a_limit(sources: int, longest: float) -> None:
    """2 ms, 4 ms, … at most 100 ms or 10 ms a source, each jittered down to half."""
    others = {f"s{i}": math.inf for i in range(sources - 1)}
    desk = Desk("a", *others)
    desk.gates = others

    for n, pause in enumerate(pauses(desk, failing=False)):
        full = min(longest, 0.002 * 2**n)
        assert full / 2 <= pause * (1 + 1e-9)
        assert pause <= full * (1 + 1e-9)


def test_p6_pauses_after_failures_are_longer() -> None:
    """50 ms, 100 ms, … at most 1 s, each jittered down to half."""
    for n, pause in enumerate(pauses(Desk("a"), failing=True)):
        full = min(1.0, 0.05 * 2**n)
        assert full / 2 <= pause * (1 + 1e-9)
        assert pause <= full * (1 + 1e-9)


def test_p6_jitter_differs_from_pause_to_pause() -> None:
    """Many pollers do not come back at the same moment."""
    late = pauses(Desk("a"), failing=True)[6:]

    assert len({round(pause, 6) for pause in late}) == len(late)


def test_p6_no_pause_after_a_wait_that_was_used() -> None:
    """An empty answer after its whole wait is how an idle source should behave."""
    desk = Desk("a")
    desk.answer(desk.plan()["a"], 0, after=1.0)

    assert list(desk.plan()) == ["a"]


@pytest.mark.parametrize(("waited", "pauses"), [(0.9, False), (0.89, True)])
def test_p6_nine_tenths_of_a_wait_are_all_of_it(waited: float, *, pauses: bool) -> None:
    """The other side's clock may run a little faster than ours."""
    pausing, track = Pausing(1, random.Random(1)), Track(Source("a", print))
    pausing.after_answer(track, 0, waited, 1.0, 5.0)

    assert (track.not_before > 5.0) is pauses


def test_p6_an_item_ends_the_pauses() -> None:
    """After something came, the next empty answer costs 2 ms again; after an answer, the next failure 50 ms."""
    desk = Desk("a")
    pauses(desk, failing=False)
    desk.answer(desk.plan()["a"], 1)
    desk.planner.finished(*desk.start())
    assert pauses(desk, failing=False, rounds=1)[0] <= 0.002 * (1 + 1e-9)

    pauses(desk, failing=True)
    desk.answer(desk.plan()["a"], 1)
    desk.planner.finished(*desk.start())
    assert pauses(desk, failing=True, rounds=1)[0] <= 0.05 * (1 + 1e-9)


def test_p6_source_that_asks_for_a_pause_gets_it() -> None:
    """A Retry-After is waited for, and nothing longer is made of it."""
    desk = Desk("a")
    desk.planner.failed(desk.plan()["a"], DOWN, 0.0, hint=7.0)

    assert desk.wakeup() == 7.0
    assert desk.plan(6.99) == {}
    assert list(desk.plan(7.0)) == ["a"]


@pytest.mark.parametrize(("retry_after", "pause"), [(None, 0.05), (0.0, 0.05), (-1.0, 0.05), (0.5, 0.5), (30.0, 1.0)])
def test_p6_poll_that_was_rejected_is_sent_again_soon(retry_after: float | None, pause: float) -> None:
    """Never at once, which would be busy waiting; never as late as a breaker says that may close much sooner."""
    desk = Desk("a")
    desk.planner.rejected(desk.plan()["a"], retry_after, 0.0)

    assert desk.plan(pause * 0.99) == {}
    assert desk.wakeup() == pytest.approx(pause)
    assert list(desk.plan(pause)) == ["a"]


# -- P7: changes while it runs; the machine has them all at once -----------------------------------------------------


def test_p7_credit_is_kept_while_a_source_pauses_and_levelled_when_it_is_back() -> None:
    """A pause is no way to save up units, and no debt is forgotten by it."""
    desk = Desk("a", "b", capacity=1)
    desk.backlogged("a", "b")
    lap(desk, 9)
    credit = desk.planner._sharing.credit("b")
    desk.planner.pause("b")
    assert lap(desk, 20) == ["a"] * 20
    assert desk.planner._sharing.credit("b") == credit
    desk.planner.resume("b")

    assert abs(lap(desk, 20).count("a") - 10) <= 1


def test_p7_weight_counts_from_the_next_start() -> None:
    """Three to one, as soon as somebody says so, also for who is urgent."""
    desk = Desk("a", "b", capacity=1)
    desk.backlogged("a", "b")
    lap(desk, 9)
    desk.planner.set_weight("a", 3)

    assert abs(lap(desk, 40).count("a") - 30) <= 1


def test_p7_fewer_units_stop_nothing_and_start_nothing() -> None:
    """What runs goes on; what is held starts when there is room again."""
    desk = Desk("a", capacity=3)
    desk.backlogged("a")
    (request,) = desk.plan(1.0).values()
    desk.answer(request)
    assert len(desk.planner.start(2)) == 2
    desk.planner.set_capacity(1)

    assert (desk.planner.executing, desk.planner.startable(), desk.plan(1.1)) == (2, 0, {})
    desk.planner.finished("a")
    assert desk.planner.startable() == 0
    desk.planner.finished("a")
    assert desk.start() == ["a"]


def test_p11_due_probes_go_out_when_a_task_ends_though_more_run_than_may() -> None:
    """When units have become fewer, whoever is due is asked all the same, or its news waits for the last long task."""
    desk = Desk("a", "b", capacity=2)
    desk.backlogged("a", executing=1)
    desk.answer(desk.plan()["a"])
    assert desk.start() == ["a"]
    desk.planner.set_capacity(1)

    assert (desk.planner.executing, desk.plan(1.0)) == (2, {})
    desk.planner.finished("a")
    assert set(desk.plan()) == {"b"}
    assert desk.plan() == {}


def test_p7_what_did_not_start_after_all_goes_back_if_its_source_was_removed_meanwhile() -> None:
    """Whoever was to start it was interrupted, and there is no source any more that it could wait for."""
    desk = Desk("a")
    desk.answer(desk.plan()["a"], 1)
    started = desk.planner.start(1)
    desk.planner.remove("a")

    desk.planner.put_back(started, [], [], desk.now)

    assert [(held.track.name, held.value) for held in desk.planner.overheld(desk.now)] == [("a", started[0].value)]
    assert (desk.planner.executing, desk.planner.held) == (0, 0)
    assert desk.planner.total().balanced


def test_p7_removed_source_is_forgotten_when_its_last_poll_is_back() -> None:
    """Its polls are waited for until they are overdue, and what they bring or say is no news."""
    desk = Desk("a", "b")
    sent = desk.plan(0.0)
    desk.planner.remove("a")
    assert desk.planner.awaited == 2
    assert desk.wakeup() == 1.5
    desk.plan(1.5)
    assert desk.planner.awaited == 0

    desk.planner.timed_out(sent["a"], 5.0)
    desk.planner.answered(sent["a"], ["late"], 6.0)
    desk.planner.deliveries("a", ok=False)

    assert [(held.track.name, held.value) for held in desk.planner.overheld(6.0)] == [("a", "late")]
    assert list(desk.planner.view()) == ["b"]
    assert desk.planner.held == 0
    with pytest.raises(ValueError, match="there is no source called 'a': there are 'b'"):
        desk.planner.remove("a")
    desk.planner.remove("b")
    with pytest.raises(ValueError, match="there is no source called 'b': there are none"):
        desk.planner.pause("b")


def test_p7_no_chain_goes_on_while_more_run_than_may() -> None:
    """With a smaller capacity a unit is not kept by chaining, though its source has no more than its share."""
    desk = Desk(sources=(Source("a", print), Source("b", print, weight=3)), capacity=4)
    desk.backlogged("a", "b")
    for request in desk.plan(1.0).values():
        desk.answer(request, after=0.0)
    assert sorted(desk.start()) == ["a", "b", "b", "b"]
    assert desk.planner.may_chain("a", 1.0)

    desk.planner.set_capacity(2)

    assert not desk.planner.may_chain("a", 1.0)


def test_p7_removed_source_is_told_of_until_its_last_item_has_ended() -> None:
    """Then nothing is left of it."""
    desk = Desk("a", "b")
    desk.backlogged("a", executing=1)
    desk.planner.remove("a")
    assert desk.planner.view()["a"].state == "removed"
    desk.planner.finished("a")

    assert list(desk.planner.view()) == ["b"]


def test_p7_item_of_an_earlier_source_of_that_name_is_no_link_of_a_chain() -> None:
    """What came with its result is not the new source's, though that one's units may go on as they are."""
    desk = Desk("a", capacity=1)
    desk.backlogged("a", executing=1)
    assert desk.planner.may_chain("a", 0.0)

    assert not desk.planner.link("a", 0.0, origin=Track(Source("a", print)))
    assert desk.planner.link("a", 0.0)


def test_p7_held_items_of_a_removed_source_go_back() -> None:
    """They do not start, and those of the others do, in their turn."""
    desk = Desk("a", "b", capacity=2)
    for request in desk.plan(0.0).values():
        desk.answer(request)
    desk.planner.remove("a")

    assert [held.track.name for held in desk.planner.overheld(desk.now)] == ["a"]
    assert (desk.planner.held, desk.start()) == (1, ["b"])


def test_p7_poll_of_a_removed_source_that_never_ran_is_over() -> None:
    """Nobody waits for it."""
    desk = Desk("a")
    (request,) = desk.plan(0.0).values()
    desk.planner.remove("a")
    desk.planner.rejected(request, None, 0.1)

    assert desk.planner.awaited == 0


def test_p7_abandoned_poll_of_a_removed_source_is_not_waited_for() -> None:
    """It was overdue when its source went."""
    desk = Desk("a")
    (request,) = desk.plan(0.0).values()
    desk.planner.timed_out(request, 5.0)
    desk.planner.remove("a")

    assert desk.planner.awaited == 0
    assert desk.wakeup() is None
    desk.planner.failed(request, DOWN, 6.0, values=["good"])
    assert [held.value for held in desk.planner.overheld(6.0)] == ["good"]


# -- P8: holding -----------------------------------------------------------------------------------------------------


def test_p8_items_that_a_unit_was_kept_for_start_or_leave_like_others() -> None:
    """First of all they come, and what has gone is held no more, whichever of them it was."""
    holding, a, b = Holding(), Track(Source("a", print)), Track(Source("b", print))
    holding.add(b, ["last"], 0.0, owed=False)
    holding.add(a, ["first"], 1.0, owed=True)
    holding.add(b, ["second"], 1.0, owed=True)
    assert [item.value for item in holding] == ["first", "second", "last"]

    assert [item.value for item in holding.withdraw(a)] == ["first"]
    assert [item.value for item in holding.start_some([True, True], 1)] == ["second"]
    assert [item.value for item in holding] == ["last"]
    assert (a.held, b.held, b.executing) == (0, 1, 1)


def test_p8_item_held_too_long_goes_back_and_its_source_is_owed() -> None:
    """After 5 s an item goes back; the next poll of its source has a unit inside the sum that is lent to nobody."""
    desk = Desk("a", "b", capacity=1)
    desk.backlogged("a")
    sent = desk.plan(1.0)
    desk.answer(sent["a"])
    assert desk.start() == ["a"]
    desk.answer(sent["b"])
    held_since = desk.now

    assert desk.plan() == {}
    assert desk.wakeup() == held_since + 5.0
    assert desk.planner.overheld(held_since + 4.9) == []
    (given,) = desk.planner.overheld(held_since + 5.0)
    assert given.track.name == "b"

    desk.planner.finished("a")
    desk.planner.deliveries("a", ok=False)
    owed = desk.plan(held_since + 5.0)["b"]
    assert (owed.count, owed.probe) == (1, False)
    desk.planner.deliveries("a", ok=True)
    desk.plan(owed_at := desk.now + 1.9)
    assert desk.planner.view()["a"].in_flight == 0, f"b's unit was lent at {owed_at}"


def polls_inside(desk: Desk) -> int:
    """Let an item of the half-open source "a" go back, and count its polls until one stands outside the sum again."""
    (request,) = desk.plan().values()
    assert request.probe
    desk.answer(request)
    desk.now += 5.0
    inside = 0
    while not (request := desk.plan()["a"]).probe:
        inside += 1
        assert inside <= 64
        desk.planner.overheld(desk.now)
        desk.answer(request)
        desk.planner.finished(*desk.start())
    desk.answer(request)
    desk.planner.finished(*desk.start())
    return inside


def test_p8_debt_doubles_to_64() -> None:
    """Its next 1, 2, 4 … 64 polls are inside the sum, the more the oftener its items went back."""
    desk = Desk("a", capacity=1)
    desk.gates = {"a": 0.0}

    assert [polls_inside(desk) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_p8_short_answer_clears_the_debt() -> None:
    """A source that has nothing more is owed nothing more, and begins again with one poll."""
    desk = Desk("a", capacity=1)
    desk.gates = {"a": 0.0}
    assert [polls_inside(desk) for _ in range(3)] == [1, 2, 4]

    desk.answer(desk.plan()["a"])
    desk.planner.overheld(desk.now + 5.0)
    desk.now += 5.0
    inside = desk.plan()["a"]
    assert not inside.probe
    desk.answer(inside, 0)

    desk.now += 1.0
    assert [polls_inside(desk) for _ in range(2)] == [1, 2]


def test_p8_item_that_was_owed_a_unit_has_it() -> None:
    """An older item of somebody's probe does not take the unit that was kept, or the owed one would go back again."""
    desk = Desk("a", "b", capacity=1)
    desk.gates = {"a": 0.0, "b": 0.0}
    first = desk.plan()
    desk.answer(first["a"])
    desk.answer(first["b"], 0)
    sent = desk.plan(desk.now + 5.0)
    assert [(name, request.probe) for name, request in sent.items()] == [("a", False), ("b", True)]

    desk.answer(sent["b"])
    assert desk.start() == []
    desk.answer(sent["a"])

    assert desk.start() == ["a"]
    desk.planner.finished("a")
    assert desk.start() == ["b"]


def test_p8_slow_source_that_is_owed_waits_like_those_that_divide_the_capacity() -> None:
    """What the others receive meanwhile is counted, so that its wait has a bound."""
    desk = Desk("a", "b", capacity=1)
    desk.backlogged("a", "b")
    desk.planner.pause("b")
    desk.answer(desk.plan(1.0)["a"])
    assert desk.start() == ["a"]
    waiting = desk.planner._tracks["b"]
    waiting.slow, waiting.owed = True, 1
    desk.planner.resume("b")
    assert desk.plan(1.1) == {}

    for received in range(1, 4):
        desk.planner.chained("a", [object()], 1.2)
        assert waiting.waited_for == received


def test_p8_unit_of_a_source_that_is_owed_is_found_beside_polls_in_time() -> None:
    """Only units of overdue polls are lent, and not for it: those of a poll on its way leave the others free."""
    desk = Desk(capacity=4, sources=(Source("a", print, max_units=2), Source("b", print)))
    desk.backlogged("a", "b")
    desk.planner.pause("b")
    assert desk.plan(1.0)["a"].count == 2
    desk.planner.resume("b")
    desk.planner._tracks["b"].owed = 1

    assert desk.plan(1.1)["b"].count == 1


def test_p8_plan_does_not_count_on_what_goes_back() -> None:
    """What has been held for too long makes room at the same plan, though the driver fetches it afterwards."""
    desk = Desk("a", "b", capacity=1)
    desk.backlogged("a")
    sent = desk.plan(1.0)
    desk.answer(sent["b"])
    desk.planner.failed(sent["a"], DOWN, desk.now)

    later = desk.plan(desk.now + 5.0)

    assert later["b"].probe is False
    assert [held.track.name for held in desk.planner.overheld(desk.now)] == ["b"]


# -- P9: no busy waiting ---------------------------------------------------------------------------------------------


def test_p9_what_falls_due_between_two_questions_is_not_forgotten() -> None:
    """A driver that plans, and a moment later asks when to wake up, hears of what fell due in that moment."""
    desk = Desk("a")
    desk.answer(desk.plan()["a"], 0)
    desk.plan()
    due = desk.wakeup()
    assert due is not None

    assert desk.planner.next_wakeup(due + 0.5) == due + 0.5


def test_p9_end_of_the_rest_of_a_paused_source_is_no_time() -> None:
    """Nothing would be done then: it is not polled before it is resumed."""
    desk = Desk("a")
    desk.backlogged()
    assert desk.wakeup() is not None

    desk.planner.pause("a")

    assert desk.wakeup() is None


def test_p9_nothing_to_do_is_no_time() -> None:
    """A stopped planner that holds nothing never needs to be woken, whoever rests."""
    desk = Desk("a")
    desk.answer(desk.plan()["a"], 0)
    desk.planner.stop()

    assert desk.plan() == {}
    assert desk.wakeup() is None


# -- P11: nobody starves ---------------------------------------------------------------------------------------------


@settings(max_examples=part(60), deadline=None)
@given(weights=st.lists(st.integers(1, 12), min_size=2, max_size=6))
def test_p11_wait_is_bounded_at_capacity_one(weights: list[int]) -> None:
    """At most ceil(sum of weights / weight) starts of others, and one more for each that is due at the same moment."""
    sources = tuple(Source(f"s{i}", print, weight=weight) for i, weight in enumerate(weights))
    desk = Desk(capacity=1, sources=sources)
    desk.backlogged(*(source.name for source in sources))

    order = lap(desk, 6 * sum(weights))

    for source in sources:
        bound = -(-sum(weights) // source.weight) + len(weights) - 2
        places = [-1, *(i for i, name in enumerate(order) if name == source.name)]
        assert len(places) > 3
        assert max(after - before - 1 for before, after in itertools.pairwise(places)) <= bound


@pytest.mark.parametrize("number", [2, 3, 8])
def test_p11_equals_take_turns(number: int) -> None:
    """Sources of one weight start in turn: nobody waits for more than one start of every other."""
    desk = Desk(*(f"s{i}" for i in range(number)), capacity=1)
    desk.backlogged(*(f"s{i}" for i in range(number)))

    order = lap(desk, 10 * number)

    assert all(len(set(order[i : i + number])) == number for i in range(len(order) - number))


def test_p11_who_was_not_probed_for_longest_is_probed_first() -> None:
    """Where not all may be probed at once nobody is left out for good."""
    desk = Desk(*(f"s{i}" for i in range(10)), capacity=1)
    for request in desk.plan().values():
        desk.planner.failed(request, DOWN, desk.now)

    assert {"s8", "s9"} <= set(desk.plan(1.0))


def test_p11_slow_sources_with_long_tasks_do_not_take_the_only_unit() -> None:
    """Two slow ones have an item ready whenever a task ends; the prompt one comes in between all the same."""
    desk = Desk("a", "x", "y", capacity=1)
    desk.backlogged("x", "y")
    order: list[str] = []
    for _ in range(40):
        sent = desk.plan()
        desk.now += 1.0
        for request in sent.values():
            desk.answer(request, after=0.0)
        for name in desk.start():
            order.append(name)
            desk.now += 2.0
            desk.planner.finished(name)

    waits = [i for i, name in enumerate(order) if name == "a"]
    assert waits
    assert max(after - before - 1 for before, after in itertools.pairwise(waits)) <= 5


def test_p11_source_without_a_unit_does_not_linger_beyond_its_bound() -> None:
    """A long round trip waits for more units, but not while others start more than the rule allows."""
    near, far = Track(Source("near", print), executing=3), Track(Source("far", print), trip=0.4)
    sharing = Sharing([near, far])
    sharing.contend([near, far])
    one_is_free = Room(capacity=4, free=1, lent=0)

    assert sharing.grants([near, far], [far], one_is_free, now=0.0) == []
    for _ in range(2):
        assert sharing.grants([near, far], [far], one_is_free, now=0.01) == []
        sharing.received(1)

    assert sharing.grants([near, far], [far], one_is_free, now=0.01) == [(far, 1)]


# -- P12: when every source is open ----------------------------------------------------------------------------------


def lost(desk: Desk, **opened: float) -> None:
    """Breakers are open, since then, for a long time."""
    desk.gates = {name: at + 300.0 for name, at in opened.items()}
    desk.early = dict(opened)


def first_early(desk: Desk, now: float, until: float) -> tuple[float, str]:
    """When the next early probe is sent, and to whom."""
    desk.now = now
    while not (sent := desk.plan()):
        desk.now = desk.wakeup() or until
        assert desk.now < until
    (request,) = sent.values()
    assert (request.count, request.early) == (1, True)
    desk.planner.failed(request, DOWN, desk.now)
    return desk.now, request.source


def test_p12_when_all_are_open_the_one_open_longest_is_probed_every_five_seconds() -> None:
    """One after another, 5 s (jittered up to a half more) after the last one opened: nobody waits for its reset."""
    desk = Desk("a", "b", "c")
    desk.backlogged()
    lost(desk, a=12.0, b=10.0, c=11.0)
    last, names = 12.0, []
    for _ in range(4):
        at, name = first_early(desk, last, last + 20.0)
        assert last + 5.0 <= at <= last + 7.5
        last = desk.early[name] = at  # the probe failed: it is open again since then
        names.append(name)

    assert names == ["b", "c", "a", "b"]


def test_p12_jitter_differs_from_worker_to_worker() -> None:
    """Workers that lost the network at the same moment do not all come back at the same moment."""
    planners = [PollPlanner([Source("a", print)], 1, CONFIG, random.Random(seed)) for seed in range(5)]
    for planner in planners:
        planner.answered(planner.plan(0.0)[0], [], 1.0)
        planner.plan(6.9, {"a": 99.0}, {"a": 2.0})

    assert len({planner.next_wakeup(6.9, {"a": 99.0}, {"a": 2.0}) for planner in planners}) > 1


@pytest.mark.parametrize("other", ["closed", "half-open", "polled"])
def test_p12_one_that_is_not_open_is_reason_to_wait(other: str) -> None:
    """While somebody answers, or is being asked, the others' breakers are left alone."""
    desk = Desk("a", "b")
    if other != "polled":
        desk.backlogged()
    else:
        desk.answer(desk.plan()["a"], 0)
    lost(desk, a=1.0, b=1.0)
    if other == "closed":
        del desk.gates["b"], desk.early["b"]
    elif other == "half-open":
        del desk.early["b"]

    assert "a" not in desk.plan(20.0)


def test_p12_forced_and_undelivered_sources_do_not_count() -> None:
    """Somebody wanted the one open; the other one's waiting results are its probes."""
    desk = Desk("a", "b", "c")
    desk.backlogged()
    lost(desk, a=1.0)
    desk.gates["b"] = math.inf
    desk.planner.deliveries("c", ok=False)

    assert first_early(desk, 1.0, 20.0)[1] == "a"


def test_p12_who_asked_for_a_pause_has_it() -> None:
    """A Retry-After holds, also when all are open; the others are probed meanwhile."""
    desk = Desk("a", "b")
    desk.backlogged()
    lost(desk, a=1.0, b=1.0)
    desk.gates["a"] = desk.early["a"] = 60.0

    assert first_early(desk, 1.0, 20.0)[1] == "b"
    desk.early["b"] = desk.gates["b"] = 90.0
    assert desk.plan(58.0) == {}


def test_p12_stopped_planner_probes_nobody() -> None:
    """Nothing is sent, and nothing waited for, once it was stopped."""
    desk = Desk("a")
    desk.backlogged()
    lost(desk, a=1.0)
    desk.planner.stop()

    assert desk.plan(20.0) == {}
    assert desk.wakeup() is None


def test_p12_stopped_planner_waits_for_no_early_probe() -> None:
    """Also when its time is still to come."""
    desk = Desk("a")
    desk.backlogged()
    lost(desk, a=1.0)
    desk.planner.stop()
    desk.plan(2.0)

    assert desk.wakeup() is None


def test_p12_early_probe_is_sent_at_the_moment_that_was_named() -> None:
    """Until then breakers are looked at every second, as ever: others may have closed them."""
    desk = Desk("a")
    desk.backlogged()
    lost(desk, a=1.0)
    assert desk.plan(1.5) == {}
    looks = 0
    while (at := desk.wakeup()) == desk.now + 1.0:
        assert desk.plan(at) == {}
        looks += 1

    assert 4 <= looks <= 7
    assert at is not None
    assert desk.plan(at)["a"].early


def test_p12_no_early_probe_is_waited_for_while_somebody_is_closed() -> None:
    """One is open and the other one answers: the next look is that at the breaker."""
    desk = Desk("a", "b")
    desk.backlogged("a")
    lost(desk, b=1.0)
    desk.plan(2.0)

    assert desk.wakeup() in (2.5, 3.0)  # what a is asked for may be overdue before


def test_p12_early_probe_has_its_time_before_anything_was_planned() -> None:
    """Breakers that are shared may all be open when a poller begins."""
    desk = Desk("a")
    lost(desk, a=1.0)
    desk.now = 2.0

    assert 6.0 <= (desk.wakeup() or 0.0) <= 8.5


# -- P13: deliveries -------------------------------------------------------------------------------------------------


def test_p13_source_whose_delivery_failed_is_not_polled_until_one_succeeds() -> None:
    """Its waiting results are the probes; others use what it leaves."""
    desk = Desk("a", "b", capacity=4)
    desk.backlogged("a", "b")
    desk.planner.deliveries("b", ok=False)

    assert {name: request.count for name, request in desk.plan().items()} == {"a": 4}
    assert not any("b" in desk.plan(now) for now in (1.0, 10.0, 1000.0))

    desk.planner.deliveries("b", ok=True)
    assert "b" in desk.plan()


# -- what is told ----------------------------------------------------------------------------------------------------


def test_events_tell_what_came_of_each_poll() -> None:
    """Items, failures, timeouts and late items are events; an empty answer is none."""
    desk = Desk("a")
    desk.answer(desk.plan()["a"], 1, after=0.5)
    desk.start()
    desk.planner.failed(desk.plan()["a"], DOWN, 1.0, values=["good"])
    lost = desk.plan(3.0)["a"]
    desk.planner.timed_out(lost, 8.0)
    desk.planner.answered(lost, ["late"], 9.0)
    emptied = desk.plan(10.0)["a"]
    desk.planner.timed_out(emptied, 15.0)
    desk.planner.answered(emptied, [], 16.0)
    desk.answer(desk.plan(20.0)["a"], 0)

    told = [event for event in desk.planner.drain_events() if not isinstance(event, PollOverdue)]

    assert told == [
        ItemsArrived("a", 1, 1, 0.5),
        PollFailed("a", DOWN),
        PollTimedOut("a", 5.0),
        ItemsArrivedLate("a", 1),
        PollTimedOut("a", 5.0),
    ]
    assert desk.planner.drain_events() == []
    assert [held.value for held in desk.planner.overheld(desk.now)] == ["good", "late"]


def test_late_failure_leaves_a_recovered_source_alone() -> None:
    """An abandoned poll that fails at last says nothing of a source that has answered since."""
    desk = Desk("a")
    lost = desk.plan()["a"]
    desk.planner.timed_out(lost, 5.0)
    desk.now = 6.0
    desk.answer(desk.plan()["a"], 0)

    desk.planner.failed(lost, DOWN, 7.0)

    assert desk.planner.view()["a"].state == "caught up"


def test_view_and_counts_say_how_things_stand() -> None:
    """States by name, units by kind."""
    desk = Desk("a", "b", "c", capacity=4)
    assert {view.state for view in desk.planner.view().values()} == {"suspect"}
    desk.backlogged("a", executing=1)
    sent = desk.plan()

    view = desk.planner.view()
    assert (view["a"].state, view["b"].state) == ("backlogged", "caught up")
    assert (view["a"].executing, view["a"].started, view["a"].in_flight) == (1, 1, 3)
    assert desk.planner.awaited == len(sent) == 1
    desk.answer(sent["a"])
    assert desk.planner.view()["a"].held == desk.planner.held == desk.planner.startable() == 3


def test_stopped_planner_sends_nothing_and_lets_everything_go() -> None:
    """What has not started goes back, whatever its age."""
    desk = Desk("a", capacity=4)
    desk.backlogged("a")
    desk.answer(desk.plan()["a"])
    desk.planner.stop()

    assert desk.plan(1.0) == {}
    assert len(desk.planner.drain()) == 4
    assert desk.planner.held == 0


def test_poll_is_told_of_once() -> None:
    """A second report of one poll is a mistake of the driver."""
    desk = Desk("a")
    request = desk.plan()["a"]
    desk.answer(request, 0)

    with pytest.raises(ValueError, match="tell of each poll once"):
        desk.answer(request, 0)


def test_mistaken_report_leaves_the_poll_that_is_in_flight_alone() -> None:
    """Told of a former poll again, the planner still knows the one that it is waiting for."""
    desk = Desk("a")
    former = desk.plan()["a"]
    desk.answer(former, 1)
    live = desk.plan(1.0)["a"]
    with pytest.raises(ValueError, match="tell of each poll once"):
        desk.answer(former, 0)

    desk.answer(live, 1)

    assert desk.planner.total().received == 2


# -- answers that are too large ----------------------------------------------------------------------------------------


def too_large(desk: Desk, source: str = "a") -> int:
    """The next large poll of ``source`` is too large, and the probe after it is not; for how many was asked."""
    desk.now += 2.0
    request = desk.plan()[source]
    desk.planner.failed(request, AnswerTooLarge("64 MiB"), desk.now)
    desk.now += 2.0
    probe = desk.plan()[source]
    assert probe.count == 1
    desk.answer(probe)
    finish_all(desk)
    return request.count


def finish_all(desk: Desk) -> None:
    """Whatever has arrived starts and ends."""
    while started := desk.start():
        for name in started:
            desk.planner.finished(name)


def full_answers(desk: Desk, polls: int) -> list[int]:
    """For how many the only source is asked, poll after poll, while each brings all of it."""
    counts = []
    for _ in range(polls):
        desk.now += 2.0
        (request,) = desk.plan().values()
        counts.append(request.count)
        desk.answer(request)
        finish_all(desk)
    return counts


def test_after_a_too_large_answer_a_source_is_asked_for_half_as_much() -> None:
    """Down to one; it stays backlogged, and others lose nothing by it."""
    desk = Desk("a", "b", capacity=40)
    desk.backlogged("a", "b")

    assert [too_large(desk) for _ in range(6)] == [20, 10, 5, 2, 1, 1]
    assert desk.planner.view()["a"].state == "backlogged"
    assert desk.planner.view()["b"].in_flight == 20


def test_source_is_asked_for_more_again_slower_after_each_too_large_answer() -> None:
    """One more after some full answers, and twice as many of those the next time: each try may cost an answer."""
    desk = Desk("a", capacity=8)
    desk.backlogged("a")
    assert too_large(desk) == 8
    assert full_answers(desk, 23) == [4] * 5 + [5] * 5 + [6] * 5 + [7] * 5 + [8] * 3

    assert too_large(desk) == 8
    assert full_answers(desk, 21) == [4] * 10 + [5] * 10 + [6]


def test_short_answer_is_no_reason_to_ask_for_more() -> None:
    """Only what was full shows that as much can be read."""
    desk = Desk("a", capacity=8)
    desk.backlogged("a")
    too_large(desk)
    for _ in range(20):
        desk.now += 2.0
        request = desk.plan()["a"]
        assert request.count <= 4
        desk.answer(request, request.count - 1)
        finish_all(desk)


def test_largest_batch_of_a_source_holds_beside_the_limit() -> None:
    """The smaller of the two counts."""
    desk = Desk(capacity=30, sources=(Source("a", print, max_batch=6),))
    desk.backlogged("a")

    assert too_large(desk) == 6
    assert full_answers(desk, 1) == [3]


def test_surplus_goes_back_and_is_told_once() -> None:
    """A source that brings more than it was asked for is well; late answers are no exception."""
    desk = Desk("a", capacity=4)
    first = desk.plan()["a"]
    desk.answer(first, 3)
    assert desk.start() == ["a"]
    assert [held.reason for held in desk.planner.overheld(desk.now)] == ["more than was asked for"] * 2
    assert desk.planner.view()["a"].state == "backlogged"

    second = desk.plan()["a"]
    desk.planner.timed_out(second, 10.0)
    desk.now = 20.0
    desk.answer(second, second.count + 5)
    assert len(desk.planner.overheld(desk.now)) == 5
    told = [event for event in desk.planner.drain_events() if isinstance(event, SurplusArrived)]
    assert told == [SurplusArrived("a", 3, 1)]
