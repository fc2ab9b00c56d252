"""Worlds that scenarios are made of, and what is read off them. "A" is a healthy backlogged source."""

import functools

from simulation import NEVER, Simulated, Simulation

HOUR = 3600.0
CHAINS = [False]  # whether units ask for the next item with a result; the table's figures are without


def full(name: str = "a", **options: object) -> Simulated:
    """A source with more tasks than anybody can do."""
    return Simulated(name, backlog=NEVER, **options)  # type: ignore[arg-type]


def idle(number: int) -> list[Simulated]:
    """Sources that have nothing."""
    return [Simulated(f"idle{i}") for i in range(number)]


def ran(seconds: float, *sources: Simulated, capacity: int = 10, seed: int = 0, breakers: bool = False) -> Simulation:
    """A world after so many seconds."""
    world = Simulation(list(sources), capacity, seed, chains=CHAINS[0])
    return (world.count_failures() if breakers else world).run(seconds)


def alone(capacity: int = 10, task: float = 0.01, update: float = 0.0) -> float:
    """Tasks a second of A when it is alone."""
    return _alone(capacity, task, update, chains=CHAINS[0])


@functools.cache
def _alone(capacity: int, task: float, update: float, *, chains: bool) -> float:  # noqa: ARG001 - a part of the key
    seconds = 1000 * (task + update)
    return ran(seconds, full(task=task, update=update), capacity=capacity).starts["a"] / seconds


def rate(world: Simulation, name: str = "a", since: float = 0.0) -> float:
    """Tasks a second of a source, from some second on."""
    return sum(at >= since for at in world.started_at.get(name, [])) / (world.now - since)


def ratio(world: Simulation, since: float = 0.0) -> float:
    """The rate of A in a world to its rate alone."""
    return rate(world, since=since) / alone(world.capacity, world.by_name["a"].task, world.by_name["a"].update)
