"""Sources that answer late, or whose tasks are long."""

import random
import statistics
from typing import Any

import attrs
from simulation import Simulated, Simulation

from .row import Row, Scenario, told
from .worlds import HOUR, full, idle, ran, rate, ratio


def slow_beside_prompt() -> Row:
    """It gets a probe at a time."""
    world = ran(20.0, full(), full("slow", trip=1.0))
    return Row(
        scenario="A + slow 1 s: from the third second on; onset included",
        plain="0.998",
        target="same",
        ideal="1",
        ours=f"{ratio(world, since=2.0):.3f}; {ratio(world):.2f}, the slow one {rate(world, 'slow'):.1f} tasks/s",
        floors=[(ratio(world, since=2.0), 0.995), (ratio(world), 0.98), (rate(world, "slow"), 0.9)],
    )


def slow_beside_idle() -> Row:
    """It has everything."""
    world = ran(20.0, full("slow", trip=1.0), *idle(2))
    return Row(
        scenario="slow 1 s, the others caught up: tasks/s",
        plain="1.0",
        target="5.0",
        ideal="9.9 (needs prefetch)",
        ours=told(rate(world, "slow"), digits=1),
        floors=[(rate(world, "slow"), 5.0)],
    )


def starts_in_turn() -> Row:
    """All are served alike."""
    starts = _eight_slow().starts.values()
    return Row(
        scenario="capacity 1, eight sources at 1 s, 6 s tasks: starts each",
        plain="172, then 0 for seven",
        target="21 to 22 each",
        ideal="equal",
        ours=f"{min(starts)} to {max(starts)}",
        floors=[(min(starts), 21), (sum(starts), 168)],
        ceilings=[(max(starts) - min(starts), 2)],
    )


def returns_in_turn() -> Row:
    """No task goes back again and again."""
    returns = _eight_slow().returns
    return Row(
        scenario="the same: times one task was given back, worst",
        plain="171",
        target="2",
        ideal="0",
        ours=str(returns),
        ceilings=[(returns, 2)],
    )


def new_work_beside_hour_long_tasks() -> Row:
    """It waits for the first unit that falls free."""
    waits = []
    for seed in range(61):
        at = random.Random(seed).uniform(10 * HOUR, 11 * HOUR)
        world = ran(13 * HOUR, full(task=HOUR), Simulated("b", rate=1 / at), seed=seed)
        waits.append(world.started_at["b"][0] - at)
    median = statistics.median(waits)
    return Row(
        scenario="A holds every unit with 1-hour tasks, then B gets work: median wait",
        plain="818 s",
        target="671 s",
        ideal="-",
        ours=f"{median:.0f} s",
        ceilings=[(median, 760.0)],
    )


def new_work_with_a_unit_kept_free() -> Row:
    """It starts as soon as it is seen; the unit that is kept for it is the others' loss."""
    waits, done = [], []
    for seed in range(15):
        at = random.Random(seed).uniform(5.0, 25.0)
        urgent: dict[str, Any] = {"rate": 1 / at, "reserve": 1}
        world = ran(30.0, full(task=HOUR), Simulated("b", **urgent), seed=seed)
        waits.append(world.started_at["b"][0] - at)
        done.append(world.busy["a"] / (10 * world.now))
    median, rest = statistics.median(waits), statistics.median(done)
    return Row(
        scenario="the same with reserve=1 for B; what A does of the capacity",
        plain="-",
        target="36 ms; 0.90",
        ideal="0; 1",
        ours=f"{median * 1000:.0f} ms; {rest:.2f}",
        floors=[(rest, 0.89)],
        ceilings=[(median, 0.06)],
    )


def _eight_slow() -> Simulation:
    return ran(1200.0, *(full(f"s{i}", trip=1.0, task=6.0, spread=0.0) for i in range(8)), capacity=1)


SCENARIOS: dict[str, Scenario] = {
    "slow beside prompt": slow_beside_prompt,
    "slow beside idle": slow_beside_idle,
    "starts in turn": starts_in_turn,
    "returns in turn": returns_in_turn,
    "new work beside hour-long tasks": new_work_beside_hour_long_tasks,
}
if "reserve" in attrs.fields_dict(Simulated):
    SCENARIOS["new work with a unit kept free"] = new_work_with_a_unit_kept_free
