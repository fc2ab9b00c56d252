"""Worlds drawn at random: near and far sources, long and short tasks, every fault; the draw may be Hypothesis's."""

import random
from collections.abc import Callable
from typing import Any

import attrs

from resilience.breaker import BreakerConfig
from resilience.polling import PollPlanner

from .sources import NEVER, Simulated, Windows
from .world import Simulation

BREAKER = BreakerConfig(reset_timeout=1.0, max_reset_timeout=4.0)  # as quick as these worlds are short
STARTS = 200  # about how many tasks a world runs: what it costs to simulate it


@attrs.frozen
class RandomWorld:
    """A world that has not begun, and how long it is to go on."""

    world: Simulation
    seconds: float

    def describe(self) -> str:
        """What is in it, one source a line."""
        world = self.world
        also = ", breakers" * (world.breakers is not None) + ", chains" * world.chains
        lines = [f"capacity {world.capacity}, {len(world.sources)} sources, {self.seconds:g} s{also}"]
        default = Simulated("")
        for source in world.sources:
            fields = [field.name for field in attrs.fields(Simulated) if field.name not in ("taken", "returned")]
            changed = [name for name in fields if getattr(source, name) != getattr(default, name)]
            lines.append("  " + ", ".join(f"{name}={_short(getattr(source, name))}" for name in changed))
        return "\n".join(lines)


def random_world(draw: random.Random, planner: Callable[..., Any] = PollPlanner, most_sources: int = 40) -> RandomWorld:
    """A world: ``draw`` decides everything in it."""
    capacity = draw.choice([1, 1, 2, 3, 4, 6, 8, 10, 10, 16, 32, 64])
    number = min(most_sources, draw.choice([1, 2, 2, 3, 3, 4, 5, 6, 8, 12, 20, 40]))
    pace = draw.choice([4.0, 8.0, 16.0])  # tasks a second, if all goes well
    seconds = min(45.0, max(15.0, STARTS / pace))
    sources = [_source(f"s{i}", draw, capacity / pace, seconds) for i in range(number)]
    chains = draw.choice([False, False, True])
    world = Simulation(sources, capacity, draw.randint(0, 10**6), planner=planner, chains=chains)
    return RandomWorld(world.count_failures(BREAKER) if draw.choice([True, False]) else world, seconds)


def seeded_world(seed: int, planner: Callable[..., Any] = PollPlanner, most_sources: int = 40) -> RandomWorld:
    """World number ``seed``."""
    return random_world(random.Random(seed), planner, most_sources)


def _source(name: str, draw: random.Random, task: float, seconds: float) -> Simulated:
    backlog, rate = draw.choice(
        [(NEVER, 0.0), (NEVER, 0.0), (NEVER, 0.0), (draw.choice([5, 40]), 0.0), (0, 0.0), (0, draw.choice([1, 7, 60]))]
    )
    source = Simulated(
        name,
        trip=draw.choice([0.0005, 0.001, 0.001, 0.005, 0.02, 0.1, 0.3, 0.7, 1.0, 2.0]),
        backlog=backlog,
        rate=float(rate),
        task=task * draw.choice([0.2, 1.0, 1.0, 1.0, 4.0]),
        spread=draw.choice([0.0, 0.5, 0.9]),
        update=draw.choice([0.0, 0.0, 0.0, 0.002, 0.05]),
        weight=draw.choice([1, 1, 1, 2, 5]),
        max_batch=draw.choice([None, None, None, 1, 5]),
        max_units=draw.choice([None, None, None, 1, 4]),
    )
    trouble = draw.choice(["", "", "", "", "", "stalls", "swallows", "fails", "deaf", "flapping"])
    if trouble == "flapping":
        return attrs.evolve(source, fails=_flapping(draw, seconds))
    changes: dict[str, Any] = {trouble: _span(draw, seconds)} if trouble else {}
    return attrs.evolve(source, **changes)


def _span(draw: random.Random, seconds: float) -> Windows:
    """One span of trouble: from the beginning or later, short or for ever."""
    begin = draw.choice([0.0, 0.1, 0.3, 0.6]) * seconds
    return ((begin, begin + draw.choice([0.3, 1.2, 4.0, 8.0, NEVER])),)


def _flapping(draw: random.Random, seconds: float) -> Windows:
    """Trouble that comes and goes, about half of the time."""
    period = draw.choice([0.2, 1.0, 3.0])
    return tuple((period * i, period * (i + 0.5)) for i in range(int(seconds / period) + 1))


def _short(value: object) -> str:
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    spans = " ".join(f"{begin:g} to {end:g}" for begin, end in value[:3])
    return spans + (" …" if len(value) > 3 else "")
