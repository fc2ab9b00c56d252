"""What the rules together achieve, in virtual time, beyond the rows of the table (`test_scenarios.py`)."""

import itertools

import pytest
from referee import Referee
from scenarios.worlds import alone, full, idle, ran, rate
from simulation import NEVER, Simulated, Simulation


@pytest.mark.parametrize("breakers", [False, True])
@pytest.mark.parametrize("trouble", ["stalls", "swallows", "fails"])
def test_source_that_stops_answering_costs_the_others_nothing(trouble: str, breakers: bool) -> None:
    """Hung, swallowing or refusing in the middle of its work: its units go to the others half a second later."""
    world = ran(6.0, full(), full("b", **{trouble: [(1.0, NEVER)]}), breakers=breakers)

    assert rate(world, since=1.0) >= 0.93 * alone()
    assert rate(world, since=2.0) >= 0.99 * alone()


def test_source_that_never_answers_costs_nothing() -> None:
    """A source that hangs from the beginning was never granted anything."""
    assert rate(ran(2.0, full(), full("b", stalls=[(0.0, NEVER)]))) >= 0.99 * alone()


def test_weights_hold_among_slow_sources() -> None:
    """What slow sources lend to each other does not go to whoever comes back first."""
    sources = (full(name, trip=1.0, weight=weight, task=0.05) for name, weight in [("a", 1), ("b", 2), ("c", 5)])
    starts = ran(60.0, *sources, capacity=8).starts

    assert starts["b"] >= 1.5 * starts["a"]
    assert starts["c"] >= 3.5 * starts["a"]
    assert sum(starts.values()) / 60.0 >= 7.0


@pytest.mark.parametrize("chains", [False, True])
def test_p5_source_that_had_little_has_its_part_when_it_has_much(chains: bool) -> None:
    """What it was charged for a task now and then is not paid for later: five sixths of the starts are its own."""
    other = Simulated("b", rate=1 / 3, weight=5, task=1.0)
    world = Simulation([full(task=1.0), other], 4, seed=1, chains=chains).run(400.0)
    before = world.starts.copy()
    other.backlog = NEVER
    world.run(460.0)

    since = world.starts - before
    assert 0.8 <= since["b"] / since.total() <= 0.86


def test_slow_source_with_long_tasks_has_its_share_and_no_more() -> None:
    """Probes outside the sum stop where a share would: minute-long tasks of a slow source leave the other its half."""
    world = ran(20.0, full(), full("slow", trip=1.0, task=60.0))

    assert rate(world, since=12.0) >= 0.45 * alone()
    assert world.starts["slow"] == 5


@pytest.mark.parametrize(("number", "task"), [(2, 1.5), (2, 8.0), (3, 3.0), (5, 3.0)])
def test_slow_sources_with_long_tasks_let_a_prompt_one_in_at_capacity_one(number: int, task: float) -> None:
    """An item of theirs is ready whenever a task ends; all the same everybody starts, and nothing goes back twice."""
    slow = [full(f"slow{i}", trip=1.0, task=task) for i in range(number)]
    world = ran(200.0, full(), *slow, capacity=1)

    starts = [-1, *(i for i, name in enumerate(world.order) if name == "a"), len(world.order)]
    assert max(after - before - 1 for before, after in itertools.pairwise(starts)) <= 2 * number + 1
    assert min(world.starts[it.name] for it in slow) >= 0.5 * max(world.starts[it.name] for it in slow)
    assert world.returns <= 2


@pytest.mark.parametrize("capacity", [1, 10])
def test_p1_many_sources_without_work_have_soon_answered(capacity: int) -> None:
    """Those that were never heard of are not asked one wait after another; then each poll waits out its second."""
    world = Simulation(idle(60), capacity, planner=Referee).run(1.1)
    assert {view.state for view in world.planner.planner.view().values()} == {"caught up"}

    before = world.polls.copy()
    assert max((world.run(4.1).polls - before).values()) <= 4


def test_idle_sources_are_polled_once_a_second() -> None:
    """When all are caught up each poll waits out its second, and the planner has hardly anything to do."""
    world = ran(30.0, *idle(3))

    assert all(29 <= polls <= 31 for polls in world.polls.values())
    assert world.steps <= 30 * 3 * 8
