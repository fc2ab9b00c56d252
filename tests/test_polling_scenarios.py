"""What the rules together achieve, in virtual time: the scenarios the design was made for, with their ratios.

"a" is a healthy backlogged source (1 ms round trip, 10 ms tasks); its rate is compared with its rate alone.
"""

import functools
import itertools
import random
from collections.abc import Iterable

import pytest
from simulation import NEVER, Simulated, Simulation

from resilience.registry import BreakerRegistry

HOUR = 3600.0


def backlogged(name: str = "a", **options: object) -> Simulated:
    """A source with more tasks than anybody can do."""
    return Simulated(name, backlog=NEVER, **options)  # type: ignore[arg-type]


def world(*sources: Simulated, capacity: int = 10, seed: int = 0, breakers: bool = False) -> Simulation:
    """A world that has not begun."""
    made = Simulation(list(sources), capacity, seed)
    if breakers:
        made.breakers = BreakerRegistry(clock=lambda: made.now, rng=random.Random(1))
    return made


@functools.cache
def alone(capacity: int = 10, task: float = 0.01) -> float:
    """Tasks a second of "a" when it is alone."""
    seconds = 300 * task
    return world(backlogged(task=task), capacity=capacity).run(seconds).starts["a"] / seconds


def rate(ran: Simulation, name: str, since: float = 0.0) -> float:
    """Tasks a second of ``name`` from ``since`` on."""
    return sum(at >= since for at in ran.started_at.get(name, [])) / (ran.now - since)


def idle(number: int) -> Iterable[Simulated]:
    """Sources that have nothing."""
    return (Simulated(f"idle{i}") for i in range(number))


@pytest.mark.parametrize(("number", "capacity", "seconds"), [(1, 10, 2), (7, 1, 15), (31, 10, 1), (199, 10, 0.3)])
def test_caught_up_sources_cost_nothing(number: int, capacity: int, seconds: float) -> None:
    """However many sources have nothing, the one that has something runs as if it were alone."""
    ran = world(backlogged(), *idle(number), capacity=capacity).run(seconds)

    assert rate(ran, "a") >= 0.96 * alone(capacity)


def test_trickle_costs_little_and_is_served() -> None:
    """Seven tasks a second elsewhere take their own units and hardly more."""
    ran = world(backlogged(), Simulated("b", rate=7.0)).run(4.0)

    assert rate(ran, "a") >= 0.95 * alone()
    assert rate(ran, "b") >= 6.0


@pytest.mark.parametrize(("task", "seconds"), [(0.0001, 0.1), (0.001, 0.3), (0.01, 1.5)])
def test_two_healthy_sources_do_as_much_as_one(task: float, seconds: float) -> None:
    """Sharing costs nothing, also with tasks that are much shorter than a round trip, and both get half."""
    ran = world(backlogged("a", task=task), backlogged("b", task=task)).run(seconds)

    assert rate(ran, "a") + rate(ran, "b") >= 0.97 * alone(task=task)
    assert ran.starts["a"] == pytest.approx(ran.starts["b"], rel=0.05)


def test_slow_source_costs_the_others_nothing_and_is_served() -> None:
    """Beside a source that takes a second to answer: nearly everything, and the slow one gets one a second."""
    ran = world(backlogged(), backlogged("slow", trip=1.0)).run(8.0)

    assert rate(ran, "a") >= 0.95 * alone()
    assert rate(ran, "a", since=2.0) >= 0.99 * alone()
    assert rate(ran, "slow") >= 0.85


@pytest.mark.parametrize("breakers", [False, True])
@pytest.mark.parametrize("trouble", ["stalls", "swallows", "fails"])
def test_source_that_stops_answering_costs_the_others_nothing(trouble: str, breakers: bool) -> None:
    """Hung, swallowing or refusing in the middle of its work: its units go to the others half a second later."""
    troubled = backlogged("b", **{trouble: [(1.0, NEVER)]})
    ran = world(backlogged(), troubled, breakers=breakers).run(6.0)

    assert rate(ran, "a", since=1.0) >= 0.93 * alone()
    assert rate(ran, "a", since=2.0) >= 0.99 * alone()


def test_source_that_never_answers_costs_nothing() -> None:
    """A source that hangs from the beginning was never granted anything."""
    ran = world(backlogged(), backlogged("b", stalls=[(0.0, NEVER)])).run(2.0)

    assert rate(ran, "a") >= 0.99 * alone()


def test_source_with_a_long_round_trip_has_its_half() -> None:
    """At 0.4 s a round trip a source fills its half as often as it can, and the other has the other half."""
    ran = world(backlogged(), backlogged("far", trip=0.4)).run(6.0)

    assert 0.48 <= rate(ran, "a") / alone() <= 0.55
    assert rate(ran, "far") >= 10.0


def test_slow_source_has_everything_while_the_others_are_caught_up() -> None:
    """Nobody is kept waiting for its own sake: ten a second come of a one-second round trip."""
    ran = world(backlogged("slow", trip=1.0), *idle(2)).run(20.0)

    assert rate(ran, "slow") >= 9.0


def test_three_sources_with_long_round_trips() -> None:
    """Round trips overlap: at 200 ms three sources bring more than 40 a second, each a fair part."""
    ran = world(*(backlogged(f"s{i}", trip=0.2) for i in range(3))).run(40.0)

    assert sum(ran.starts.values()) / 40.0 >= 40.0
    assert min(ran.starts.values()) >= 0.6 * max(ran.starts.values())


def test_eight_slow_sources_lend_to_each_other() -> None:
    """Units of polls on their way are used by others: more than polls that wait for each other could bring."""
    ran = world(*(backlogged(f"s{i}", trip=0.7) for i in range(8))).run(40.0)

    assert sum(ran.starts.values()) / 40.0 >= 16.0
    assert min(ran.starts.values()) >= 0.85 * max(ran.starts.values())


def test_weights_hold_at_capacity_one() -> None:
    """One unit is divided 1 : 2 : 5, exactly."""
    ran = world(*(backlogged(n, weight=w) for n, w in [("a", 1), ("b", 2), ("c", 5)]), capacity=1).run(20.0)

    assert ran.starts["b"] == pytest.approx(2 * ran.starts["a"], abs=3)
    assert ran.starts["c"] == pytest.approx(5 * ran.starts["a"], abs=6)


def test_weights_hold_among_slow_sources() -> None:
    """What slow sources lend to each other does not go to whoever comes back first."""
    ran = world(*(backlogged(n, trip=1.0, weight=w, task=0.05) for n, w in [("a", 1), ("b", 2), ("c", 5)]), capacity=8)
    ran.run(60.0)

    assert ran.starts["b"] >= 1.5 * ran.starts["a"]
    assert ran.starts["c"] >= 3.5 * ran.starts["a"]
    assert sum(ran.starts.values()) / 60.0 >= 7.0


def test_eight_slow_sources_take_turns_at_capacity_one() -> None:
    """Long tasks, long round trips, one unit: all are served alike, and no task is given back again and again."""
    ran = world(*(backlogged(f"s{i}", trip=1.0, task=6.0, spread=0.0) for i in range(8)), capacity=1).run(1200.0)

    assert sum(ran.starts.values()) >= 171
    assert max(ran.starts.values()) - min(ran.starts.values()) <= 2
    assert ran.returns <= 2


def test_hour_long_tasks_are_shared_with_a_source_that_is_slow_to_answer() -> None:
    """A fast source does not take every unit that falls free in the 0.7 s that the other takes to answer."""
    ran = world(backlogged(task=HOUR), backlogged("far", task=HOUR, trip=0.7)).run(24 * HOUR)

    assert ran.starts["far"] >= 0.9 * ran.starts["a"]
    assert rate(ran, "far", since=8 * HOUR) >= 0.95 * rate(ran, "a", since=8 * HOUR)
    assert ran.returns <= 2


def test_slow_source_with_long_tasks_has_its_share_and_no_more() -> None:
    """Probes outside the sum stop where a share would: minute-long tasks of a slow source leave the other its half."""
    ran = world(backlogged(), backlogged("slow", trip=1.0, task=60.0)).run(20.0)

    assert rate(ran, "a", since=12.0) >= 0.45 * alone()
    assert ran.starts["slow"] == 5


@pytest.mark.parametrize(("number", "task"), [(2, 1.5), (2, 8.0), (3, 3.0), (5, 3.0)])
def test_slow_sources_with_long_tasks_let_a_prompt_one_in_at_capacity_one(number: int, task: float) -> None:
    """An item of theirs is ready whenever a task ends; all the same everybody starts, and nothing goes back twice."""
    slow = [backlogged(f"slow{i}", trip=1.0, task=task) for i in range(number)]
    ran = world(backlogged(), *slow, capacity=1).run(200.0)

    starts = [-1, *(i for i, name in enumerate(ran.order) if name == "a"), len(ran.order)]
    assert max(after - before - 1 for before, after in itertools.pairwise(starts)) <= 2 * number + 1
    assert min(ran.starts[source.name] for source in slow) >= 0.5 * max(ran.starts[source.name] for source in slow)
    assert ran.returns <= 2


@pytest.mark.parametrize(("trouble", "most"), [({"trip": 0.3}, 10), ({"stalls": [(0.0, 2.0)]}, 14)])
def test_sources_that_never_answered_bring_little_more_than_fits(trouble: dict[str, object], most: int) -> None:
    """Two hundred of them with minute-long tasks: about one capacity too many, not two hundred."""
    ran = world(*(backlogged(f"s{i}", task=60.0, **trouble) for i in range(200))).run(20.0)

    assert ran.most_held <= most


def test_sources_that_stall_one_after_another_bring_little_more_than_fits() -> None:
    """What is lent is lent once, however many polls hang."""
    ran = world(*(backlogged(f"s{i}", stalls=[(0.5 + 0.6 * i, 7.0)]) for i in range(8))).run(8.0)

    assert ran.most_held <= 14


@pytest.mark.parametrize("capacity", [1, 2, 4])
def test_source_that_takes_no_results_does_not_hold_units(capacity: int) -> None:
    """Its polls are fine and its results hang: after the first second the others have everything."""
    ran = world(backlogged(), backlogged("deaf", deaf=[(0.0, NEVER)]), capacity=capacity).run(8.0)

    assert rate(ran, "a", since=2.0) >= 0.98 * alone(capacity)
    assert ran.starts["deaf"] <= capacity


def test_short_stall_with_calls_in_flight_is_over_when_it_is_over() -> None:
    """1.2 s of silence open no breaker: the source works again at once."""
    ran = world(backlogged(), backlogged("b", stalls=[(1.0, 2.2)]), breakers=True).run(3.0)

    assert min(at for at in ran.started_at["b"] if at > 1.1) <= 2.3
    assert rate(ran, "b", since=2.3) >= 0.45 * alone()


@pytest.mark.parametrize(("number", "capacity", "longest"), [(8, 1, 0.12), (32, 10, 0.34)])
def test_first_task_of_a_caught_up_source_starts_soon(number: int, capacity: int, longest: float) -> None:
    """Beside a backlogged source an idle one is looked at every 100 ms, or every 10 ms for each source."""
    waits = first_waits(number, capacity, [backlogged()])

    assert waits[int(0.99 * len(waits))] <= longest


@pytest.mark.parametrize(("number", "capacity"), [(8, 1), (32, 10)])
def test_first_task_starts_at_once_when_everybody_waits(number: int, capacity: int) -> None:
    """While nobody is backlogged every source is waited on; what one brings makes the others look in between."""
    waits = first_waits(number, capacity, [])

    assert waits[int(0.9 * len(waits))] <= 0.1
    assert waits[-1] <= 0.34


def first_waits(number: int, capacity: int, others: list[Simulated]) -> list[float]:
    """How long the first task of each of ``number`` sources waits, shortest first."""
    draw = random.Random(number)
    made = {f"idle{i}": draw.uniform(1.0, 3.0) for i in range(number)}
    ran = world(*others, *(Simulated(name, rate=1 / at) for name, at in made.items()), capacity=capacity).run(3.5)
    return sorted(ran.started_at[name][0] - at for name, at in made.items())


def test_idle_sources_are_polled_once_a_second() -> None:
    """When all are caught up each poll waits out its second, and the planner has hardly anything to do."""
    ran = world(*idle(3)).run(30.0)

    assert all(29 <= polls <= 31 for polls in ran.polls.values())
    assert ran.steps <= 30 * 3 * 8


def test_new_work_beside_hour_long_tasks_waits_for_a_unit_and_no_longer() -> None:
    """Nothing is reserved: the first unit that falls free takes the item that its probe brought."""
    draw, waits = random.Random(3), []
    for seed in range(5):
        at = draw.uniform(10 * HOUR, 11 * HOUR)
        ran = world(backlogged(task=HOUR), Simulated("b", rate=1 / at), seed=seed).run(13 * HOUR)
        waits.append(ran.started_at["b"][0] - at)

    assert sorted(waits)[2] <= 900.0


def test_random_worlds_are_near_an_omniscient_bound() -> None:
    """Healthy prompt sources of all kinds keep the units as busy as one could who knows everything."""
    shares = []
    for seed in range(40):
        draw = random.Random(seed)
        sources = [
            Simulated(
                f"s{i}",
                trip=draw.choice([0.0005, 0.001, 0.005, 0.02]),
                backlog=draw.choice([NEVER, NEVER, 100, 0]),
                rate=draw.choice([0.0, 3.0, 50.0]),
                task=draw.choice([0.01, 0.05, 0.3, 2.0]),
                weight=draw.choice([1, 1, 2, 5]),
            )
            for i in range(draw.randint(1, 6))
        ]
        ran = world(*sources, capacity=draw.choice([1, 3, 10]), seed=seed).run(4.0)
        work = sum(min(s.backlog + s.rate * 4.0, 1e6) * s.task for s in sources)
        shares.append(sum(ran.busy.values()) / max(1e-3, min(work, ran.capacity * 4.0)))

    shares.sort()
    assert shares[20] >= 0.95
    assert shares[4] >= 0.75
