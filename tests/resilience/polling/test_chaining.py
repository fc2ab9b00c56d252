"""When a unit may go on with the next item of its source, without a poll: the rules by example, in virtual time.

`test_polling_machine.py` has them all at once, `test_polling_scenarios.py` what they achieve.
"""

import random

import pytest
from simulation import NEVER, Simulated, Simulation

from resilience.events import ItemsArrived, ItemsArrivedLate
from resilience.polling import PollConfig, PollPlanner, PollRequest, Source
from resilience.polling.chaining import Turn, may_go_on
from resilience.polling.sharing import Sharing
from resilience.polling.track import Track

DOWN = OSError("down")


class Desk:
    """A planner whose sources are backlogged and have their units, and what a driver does, in few words."""

    def __init__(self, *sources: Source[object], capacity: int) -> None:
        self.now = 0.0
        self.capacity = capacity
        self.planner = PollPlanner(sources, capacity, PollConfig(), random.Random(7))
        self.gates: dict[str, float] = {}
        self.live: dict[str, PollRequest] = {}

    def plan(self) -> None:
        """Send what is to be sent."""
        self.live |= {request.source: request for request in self.planner.plan(self.now, self.gates)}

    def answer(self, name: str, count: int | None = None, after: float = 0.001) -> None:
        """The live poll of ``name`` brings all that it asked for, or ``count``."""
        self.now += after
        request = self.live.pop(name)
        self.planner.answered(request, [object()] * (request.count if count is None else count), self.now)

    def start(self) -> list[str]:
        """The sources of the items that start now."""
        return [held.track.name for held in self.planner.start(self.capacity)]

    def fill(self, *idle: str) -> "Desk":
        """Let all but the ``idle`` ones answer full, and their items start, until every unit is busy."""
        while self.planner.executing < self.capacity:
            self.plan()
            for name in list(self.live):
                self.answer(name, 0 if name in idle else None)
            assert self.start()
        return self

    def units(self) -> dict[str, int]:
        """Items that execute, by source."""
        return {name: view.executing for name, view in self.planner.view().items()}

    def may(self, name: str) -> bool:
        """Whether a unit of ``name`` may go on."""
        return self.planner.may_chain(name, self.now, self.gates)

    def chain(self, name: str, count: int = 1) -> list[str]:
        """An answer brings ``count`` items; the sources of those that the unit then starts."""
        self.planner.chained(name, [object()] * count, self.now)
        self.plan()
        return [held.track.name for held in self.planner.start(1)]


def sources(*names: str, **options: int) -> list[Source[object]]:
    """Sources of these names."""
    return [Source(name, print, **options) for name in names]


def test_backlogged_source_alone_keeps_its_units_without_polls() -> None:
    """The first polls fill the units; after that every item comes with the answer to a result."""
    desk = Desk(*sources("a"), capacity=4).fill()
    desk.plan()
    assert desk.live == {}

    for _ in range(20):
        assert desk.may("a")
        assert desk.chain("a") == ["a"]

    assert desk.live == {}
    view = desk.planner.view()["a"]
    assert (view.executing, view.chained, view.started) == (4, 20, 24)


def test_p2_chain_ends_for_what_is_held() -> None:
    """Whatever has arrived and waits for a unit comes first."""
    desk = Desk(*sources("a", "b"), capacity=1).fill("b")
    desk.now += 10
    desk.planner.finished("a")
    desk.plan()  # b is probed beside a's only unit
    desk.answer("a")
    assert desk.start() == ["a"]
    assert desk.may("a") or desk.live
    desk.answer("b")
    assert desk.planner.held == 1

    assert not desk.may("a")


def test_p2_held_item_runs_before_what_a_chain_brings() -> None:
    """What was held while the answer was under way has the unit; what came waits for the next one."""
    desk = Desk(*sources("a", "b"), capacity=1).fill("b")
    desk.now += 10
    assert desk.chain("a") == ["a"]
    assert desk.live["b"].probe
    assert desk.may("a")
    desk.answer("b")

    assert desk.chain("a") == ["b"]
    assert desk.planner.held == 1
    desk.planner.finished("b")
    assert desk.start() == ["a"]


def test_p2_chained_items_never_exceed_the_capacity() -> None:
    """A unit goes on with one item, whatever the answer brought; the others are held."""
    desk = Desk(*sources("a"), capacity=2).fill()

    assert desk.chain("a", 3) == ["a"]

    assert (desk.planner.executing, desk.planner.held) == (2, 2)


def test_p3_only_a_prompt_backlogged_source_that_can_be_polled_chains() -> None:
    """Caught up, failed, slow, open, undeliverable or stopped: a plain answer."""
    desk = Desk(*sources("a"), capacity=2).fill()
    assert desk.may("a")

    desk.gates = {"a": desk.now}
    assert not desk.may("a")
    desk.gates = {}

    desk.planner.deliveries("a", ok=False)
    assert not desk.may("a")
    desk.planner.deliveries("a", ok=True)
    assert desk.may("a")

    desk.planner.finished("a")
    desk.plan()
    desk.planner.failed(desk.live.pop("a"), DOWN, desk.now)
    assert not desk.may("a")

    slow = Desk(*sources("a"), capacity=2).fill()
    slow.planner.finished("a")
    slow.plan()
    slow.answer("a", after=0.6)
    assert slow.start() == ["a"]
    assert not slow.may("a")

    stopped = Desk(*sources("a"), capacity=2).fill()
    stopped.planner.stop()
    assert not stopped.may("a")

    assert not Desk(*sources("a"), capacity=1).may("a")


def test_p4_chain_ends_for_a_due_source_below_its_share() -> None:
    """Two equals at ten units: the one with more gives units up until both have five; then both go on."""
    desk = Desk(*sources("a", "b"), capacity=10).fill("b")
    assert desk.units() == {"a": 10, "b": 0}
    desk.now += 1
    desk.chain("a")
    desk.answer("b")  # the probe: b is backlogged

    polls = 0
    while desk.units()["b"] < 5:
        assert not desk.may("a")
        desk.planner.finished("a")
        desk.start()
        desk.plan()
        if "b" in desk.live:
            desk.answer("b")
            desk.start()
            polls += 1
    desk.plan()
    assert polls >= 4

    assert desk.units() == {"a": 5, "b": 5}
    for _ in range(10):
        assert desk.may("a")
        assert desk.may("b")
        assert (desk.chain("a"), desk.chain("b")) == (["a"], ["b"])
    assert desk.live == {}


def test_p4_no_chain_beyond_the_own_share() -> None:
    """Also while the other one's poll is on its way, whoever has more than its share gives it up."""
    desk = Desk(*sources("a", "b"), capacity=6).fill("b")
    desk.now += 1
    desk.chain("a")
    desk.answer("b")
    desk.planner.finished("a")
    assert desk.start() == ["b"]
    desk.planner.finished("a")
    desk.plan()
    assert desk.live["b"].count == 1
    assert desk.units() == {"a": 4, "b": 1}

    assert not desk.may("a")

    desk.planner.finished("a")
    assert desk.may("a")


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (2, 3, 5), (1, 1, 1)])
@pytest.mark.parametrize("capacity", [1, 3, 10])
def test_p5_starts_follow_the_weights(weights: tuple[int, ...], capacity: int) -> None:
    """Chained items are charged like polled ones: whatever the rounding of shares, starts are by weight."""
    told = [Simulated(f"s{i}", backlog=NEVER, weight=weight) for i, weight in enumerate(weights)]
    ran = Simulation(told, capacity, chains=True).run(6.0 / capacity)
    total = sum(ran.starts.values())

    for source in told:
        share = total * source.weight / sum(weights)
        assert abs(ran.starts[source.name] - share) <= 0.05 * share + len(told) * capacity
    assert total >= 0.93 * 600 * 10 / 10.5


def test_p5_chains_need_few_polls() -> None:
    """Three sources that divide ten units unevenly chain most of their items all the same."""
    told = [Simulated(name, backlog=NEVER) for name in "abc"]
    ran = Simulation(told, 10, chains=True).run(2.0)

    assert sum(ran.chaining.brought.values()) >= 0.6 * sum(ran.starts.values())


def test_p4_max_units_are_kept() -> None:
    """A source that may have two units chains with two, and the other has the rest."""
    capped = Source("a", print, max_units=2)
    desk = Desk(capped, *sources("b"), capacity=5).fill()

    for _ in range(5):
        assert desk.may("a")
        assert desk.chain("a") == ["a"]
        assert desk.chain("b") == ["b"]

    assert desk.units() == {"a": 2, "b": 3}


def test_p8_source_that_is_owed_ends_a_chain() -> None:
    """Who had to give items back is due a unit of the sum, before anybody goes on without a poll."""
    desk = Desk(*sources("a", "b"), capacity=1).fill("b")
    desk.now += 1
    desk.chain("a")
    desk.answer("b")
    desk.now += 6
    assert [held.track.name for held in desk.planner.overheld(desk.now)] == ["b"]

    assert not desk.may("a")


@pytest.mark.parametrize(
    ("units", "owed", "turn"),
    [
        ((3, 3, 3), 0, Turn.NOBODY_ELSES),
        ((4, 3, 2), 0, Turn.OVER),  # it has more than its share
        ((3, 3, 2), 0, Turn.ITS),  # somebody misses one unit, and is owed no item yet
        ((3, 5, 1), 0, Turn.OVER),  # somebody misses two
        ((3, 3, 2), 1, Turn.OVER),  # somebody's items went back
    ],
)
def test_p4_p8_whose_turn_it_is(units: tuple[int, ...], owed: int, turn: Turn) -> None:
    """Three equals, nine units: who has how many, whether the last is owed one, and whether the first goes on."""
    told = zip(sources("a", "b", "c"), units, strict=True)
    tracks = [Track(source, executing=count, answered=True, full=True) for source, count in told]
    tracks[2].owed = owed

    assert may_go_on(tracks[0], tracks, tracks, Sharing(tracks), 9) is turn


@pytest.mark.parametrize(("waited_for", "turn"), [(0, Turn.ITS), (3, Turn.ITS), (4, Turn.OVER)])
def test_p11_who_has_no_unit_ends_a_chain_when_it_has_waited_for_long_enough(waited_for: int, turn: Turn) -> None:
    """A source of weight 3 has two of its two and a quarter units; one of weight 1 may wait for four starts."""
    heavy = Track(Source("heavy", print, weight=3), executing=2, answered=True, full=True)
    light = Track(Source("light", print), answered=True, full=True)
    sharing = Sharing([heavy, light])
    sharing.contend([heavy, light])
    light.waited_for = waited_for

    assert may_go_on(heavy, [heavy, light], [heavy, light], sharing, 3) is turn


def calm() -> Desk:
    """One source has all units, another one is caught up and rests a moment."""
    desk = Desk(*sources("a", "b"), capacity=2).fill("b")
    desk.now += 1
    desk.chain("a")
    desk.answer("b", 0)
    desk.plan()
    assert desk.may("a")
    assert desk.planner.link("a", desk.now)
    return desk


def test_link_that_leaves_nothing_to_decide_is_counted_and_no_more() -> None:
    """The quick way tells the same as the long one."""
    desk = calm()
    before = desk.planner.view()["a"]

    assert desk.planner.link("a", desk.now)

    after = desk.planner.view()["a"]
    assert (after.started, after.chained) == (before.started + 1, before.chained + 1)
    assert (after.received, after.finished) == (before.received + 1, before.finished + 1)
    assert (after.executing, after.held, desk.planner.executing) == (2, 0, 2)


def test_p11_no_quick_way_past_a_source_that_is_due() -> None:
    """Whoever may be probed at the end of a task is looked at, also when that time comes in the middle of a chain."""
    desk = calm()
    desk.now += 0.005
    assert not desk.planner.link("a", desk.now)
    desk.plan()
    assert desk.live == {}, "no unit is free, and no task has ended"
    assert desk.may("a")
    assert not desk.planner.link("a", desk.now)

    assert desk.chain("a") == ["a"]
    assert desk.live["b"].probe


@pytest.mark.parametrize("news", ["finished", "deliveries", "stop", "set_weight", "pause", "set_capacity", "late"])
def test_news_ends_the_quick_way(news: str) -> None:
    """After anything was told there may be something to decide."""
    desk = calm()
    tell = {
        "finished": lambda: desk.planner.finished("a"),
        "deliveries": lambda: desk.planner.deliveries("b", ok=False),
        "stop": desk.planner.stop,
        "set_weight": lambda: desk.planner.set_weight("b", 2),
        "pause": lambda: desk.planner.pause("a"),
        "set_capacity": lambda: desk.planner.set_capacity(1),
        "late": lambda: desk.planner.chained("b", [object()], desk.now, late=True),
    }
    tell[news]()

    assert not desk.planner.link("a", desk.now)


def test_gate_of_anybody_ends_the_quick_way() -> None:
    """A breaker that is not closed is looked at."""
    desk = calm()

    assert not desk.planner.link("a", desk.now, {"b": desk.now + 1})
    assert not desk.planner.link("b", desk.now)
    assert not desk.planner.link("a", desk.now, origin=Track(Source("a", print)))


def test_quick_way_and_long_way_say_the_same() -> None:
    """While nothing is to be decided a unit may go on, but not past the source's own gate."""
    desk = calm()
    assert desk.may("a")

    desk.gates = {"a": desk.now + 1}

    assert not desk.may("a")


def test_p3_quick_way_ends_when_an_open_breaker_is_to_be_looked_at() -> None:
    """Others may have closed it by then, and nobody tells: so it does not end only when the gate would open."""
    desk = calm()
    desk.now += 0.5
    desk.planner.finished("a")  # news: what was calm is over
    desk.gates = {"b": desk.now + 60}
    desk.plan()
    desk.answer("a")
    assert desk.start() == ["a"]
    desk.plan()
    assert desk.may("a")
    desk.gates = {}
    assert desk.planner.link("a", desk.now)

    desk.now += 1.1

    assert not desk.planner.link("a", desk.now)


def test_p8_source_that_is_owed_but_open_ends_no_chain() -> None:
    """It cannot be polled now: the unit would stand idle."""
    desk = Desk(*sources("a", "b"), capacity=1).fill("b")
    desk.now += 1
    desk.chain("a")
    desk.answer("b")
    desk.now += 6
    desk.planner.overheld(desk.now)
    assert not desk.may("a")

    desk.gates = {"b": desk.now + 10}

    assert desk.may("a")


@pytest.mark.parametrize("reserve", [0, 1])
def test_p7_no_chain_takes_a_unit_that_there_is_no_longer_or_that_is_kept(reserve: int) -> None:
    """With one unit less each has no more than its share, and yet too many run: one unit is given up."""
    kept = Source("r", print, reserve=reserve)
    desk = Desk(*sources("a", "b"), kept, capacity=4 + reserve)
    while desk.planner.executing < 4:
        desk.plan()
        for name in list(desk.live):
            desk.answer(name, 0 if name == "r" else None)
        desk.start()
    assert desk.units() == {"a": 2, "b": 2, "r": 0}
    desk.planner.pause("r")
    desk.planner.resume("r")
    assert desk.may("a")

    desk.planner.set_capacity(3 + reserve)

    assert not desk.may("a")
    desk.planner.finished("b")
    assert desk.may("a")


@pytest.mark.parametrize("number", [2, 3, 8])
def test_p11_equals_take_turns_at_capacity_one(number: int) -> None:
    """With one unit no source goes on while another one waits."""
    told = [Simulated(f"s{i}", backlog=NEVER) for i in range(number)]
    order = Simulation(told, 1, chains=True).run(3.0).order[3 * number :]

    longest = max(max(len(run) for run in "".join("x" if o == s.name else " " for o in order).split()) for s in told)
    assert longest <= 2
    for source in told:
        assert order.count(source.name) == pytest.approx(len(order) / number, abs=number)


def test_p11_due_probes_go_out_at_every_link() -> None:
    """A chain does not keep the others from being looked at."""
    desk = Desk(*sources("a", "b"), capacity=1).fill("b")
    desk.now += 1
    desk.plan()
    assert desk.live == {}

    desk.chain("a")

    assert desk.live["b"].probe


def test_empty_answer_makes_the_source_caught_up() -> None:
    """Asked for one and brought none: it is looked at after a short pause, and its other units do not go on."""
    desk = Desk(*sources("a"), capacity=3).fill()

    assert desk.chain("a", 0) == []

    assert desk.planner.view()["a"].state == "caught up"
    assert not desk.may("a")
    assert desk.live == {}
    desk.now += 0.002
    desk.plan()
    assert (desk.live["a"].probe, desk.live["a"].wait) == (True, 1.0)


def test_empty_answers_beside_each_other_are_one_piece_of_news() -> None:
    """Ten units that hear the same do not grow the pause to what ten answers one after another would."""
    desk = Desk(*sources("a"), capacity=10).fill()

    for _ in range(10):
        desk.chain("a", 0)

    desk.now += 0.002
    desk.plan()
    assert "a" in desk.live


def test_chained_item_makes_a_caught_up_source_backlogged_again() -> None:
    """One of one is a full answer."""
    desk = Desk(*sources("a"), capacity=3).fill()
    desk.chain("a", 0)

    assert desk.chain("a") == ["a"]

    assert desk.planner.view()["a"].state == "backlogged"
    assert desk.may("a")


def test_p6_chained_item_ends_the_pause_after_an_empty_answer() -> None:
    """What came with a result shows that there is work: the next poll need not wait."""
    desk = Desk(*sources("a"), capacity=3).fill()
    desk.chain("a", 0)
    assert desk.live == {}

    desk.chain("a")

    assert desk.live["a"].count == 1  # for the unit that had heard of nothing


def test_empty_answer_clears_the_debt() -> None:
    """A source that has nothing is owed nothing."""
    desk = Desk(*sources("a", "b"), capacity=2).fill()
    track = desk.planner._tracks["a"]
    track.debt = track.owed = 4

    desk.chain("a", 0)

    assert (track.debt, track.owed) == (0, 0)


def test_chained_item_does_not_end_the_pause_of_a_failed_source() -> None:
    """Answers to results say nothing about polls that fail."""
    desk = Desk(*sources("a"), capacity=2).fill()
    desk.planner.finished("a")
    desk.plan()
    desk.planner.failed(desk.live.pop("a"), DOWN, desk.now, hint=30.0)

    assert desk.chain("a") == ["a"]
    assert desk.chain("a", 0) == []
    desk.now += 29.0
    desk.plan()

    assert desk.live == {}
    assert desk.planner.view()["a"].state == "suspect"


def test_late_chained_item_is_taken_in_like_a_late_answer() -> None:
    """Its unit has long gone on: it is held, told of, and starts when there is room."""
    desk = Desk(*sources("a"), capacity=1).fill()
    desk.planner.finished("a")
    desk.plan()
    desk.planner.drain_events()

    desk.planner.chained("a", ["x"], desk.now, late=True)

    assert desk.planner.drain_events() == [ItemsArrivedLate("a", 1)]
    assert (desk.planner.executing, desk.planner.held, desk.planner.startable()) == (0, 1, 0)
    desk.answer("a", 0)
    assert desk.start() == ["a"]
    desk.planner.chained("a", [], desk.now, late=True)
    assert not any(isinstance(event, (ItemsArrived, ItemsArrivedLate)) for event in desk.planner.drain_events())
