"""Sources that have nothing, or little."""

import random
from collections.abc import Sequence

from simulation import Simulated

from .row import Row, Scenario, told
from .worlds import full, idle, ran, rate, ratio


def one_caught_up() -> Row:
    """It costs nothing."""
    beside = ratio(ran(4.0, full(), *idle(1)))
    return Row(
        scenario="A + 1 caught up",
        plain="0.94",
        target="1.00",
        ideal="1",
        ours=told(beside),
        floors=[(beside, 0.99)],
    )


def seven_caught_up_at_one() -> Row:
    """Not at capacity 1 either."""
    beside = ratio(ran(20.0, full(), *idle(7), capacity=1))
    return Row(
        scenario="capacity 1, A + 7 caught up",
        plain="0.015",
        target="1.00",
        ideal="1",
        ours=told(beside),
        floors=[(beside, 0.98)],
    )


def many_caught_up() -> Row:
    """However many there are."""
    beside = [ratio(ran(seconds, full(), *idle(number))) for number, seconds in ((31, 2.0), (199, 1.0))]
    return Row(
        scenario="A + 31 / 199 caught up",
        plain="0.004 / 0.001",
        target="1.00",
        ideal="1",
        ours=told(*beside),
        floors=[(it, 0.98) for it in beside],
    )


def polls_beside_a_backlog() -> Row:
    """Nobody is asked again at once."""
    world = ran(6.0, full(), *idle(31))
    polls = max(world.polls[f"idle{i}"] for i in range(31)) / 6.0
    return Row(
        scenario="the same, 31: polls/s of one that is caught up",
        plain="-",
        target="≤ 7.8 (P6)",
        ideal="-",
        ours=told(polls, digits=1),
        ceilings=[(polls, 7.8)],
    )


def trickle() -> Row:
    """It takes its own units and hardly more."""
    world = ran(10.0, full(), Simulated("b", rate=7.0))
    return Row(
        scenario="A + a trickle of 7 tasks/s elsewhere",
        plain="0.77",
        target="0.95 to 0.99",
        ideal="1",
        ours=f"{ratio(world):.2f}, the trickle {rate(world, 'b'):.1f} tasks/s",
        floors=[(ratio(world), 0.95), (rate(world, "b"), 6.5)],
    )


def first_tasks_while_nobody_is_backlogged() -> Row:
    """Everybody is waited on."""
    waits = [_first_waits(number, capacity, []) for number, capacity in ((8, 1), (32, 10), (200, 10))]
    longest = [_p99(it) for it in waits]
    return Row(
        scenario="first task of a caught-up source, p99, nobody backlogged; 1 unit 8 sources / 10 and 32 / 10 and 200",
        plain="0.70 / 0.30 / 3.0 s",
        target="≤ 0.10 s",
        ideal="0",
        ours=told(*longest) + " s",
        ceilings=[(it, 0.1) for it in longest],
    )


def first_tasks_beside_a_backlog() -> Row:
    """It is looked at as often as rule P6 says."""
    waits = [_first_waits(number, capacity, [full(task=task)]) for number, capacity, task in _BESIDE]
    longest = [_p99(it) for it in waits]
    return Row(
        scenario="the same beside A",
        plain="-",
        target="≤ 0.10 s (P6 allows 0.10 / 0.32 / 2.0)",
        ideal="0",
        ours=told(*longest) + " s",
        ceilings=list(zip(longest, (0.12, 0.34, 2.02), strict=True)),
        note="P6 lets a source rest for max(100 ms, 10 ms for each source) after an empty answer: it is seen no sooner",
    )


def polls_while_all_are_caught_up() -> Row:
    """Each poll waits out its second."""
    polls = max(ran(30.0, *idle(3)).polls.values()) / 30.0
    return Row(
        scenario="all caught up: polls/s of one source",
        plain="5.8",
        target="1.0",
        ideal="-",
        ours=told(polls, digits=1),
        ceilings=[(polls, 1.05)],
    )


_BESIDE = ((8, 1, 0.01), (32, 10, 0.01), (200, 10, 0.05))  # sources, capacity, tasks of A


def _first_waits(number: int, capacity: int, others: Sequence[Simulated]) -> list[float]:
    """How long the first task of each of so many sources waits, shortest first, once all have answered."""
    draw, begin = random.Random(number), 2.0 if others else 2.0 + number / 10
    made = {f"idle{i}": begin + draw.uniform(0.0, 4.0) for i in range(number)}
    world = ran(begin + 6.5, *others, *(Simulated(name, rate=1 / at) for name, at in made.items()), capacity=capacity)
    return sorted(world.started_at[name][0] - at for name, at in made.items())


def _p99(waits: Sequence[float]) -> float:
    return waits[int(0.99 * len(waits))]


SCENARIOS: dict[str, Scenario] = {
    "one caught up": one_caught_up,
    "seven caught up at capacity 1": seven_caught_up_at_one,
    "many caught up": many_caught_up,
    "polls beside a backlog": polls_beside_a_backlog,
    "trickle": trickle,
    "first tasks while nobody is backlogged": first_tasks_while_nobody_is_backlogged,
    "first tasks beside a backlog": first_tasks_beside_a_backlog,
    "polls while all are caught up": polls_while_all_are_caught_up,
}
