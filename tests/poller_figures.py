"""Prints the table of docs/explanation/sharing.md: what the poller's rules achieve, measured in virtual time.

Run it as ``python tests/poller_figures.py``; it takes about a minute. "A" is a healthy backlogged source.
"""

import random
import statistics
import sys
from collections.abc import Iterator

from simulation import NEVER, Simulated, Simulation

from resilience.registry import BreakerRegistry

HOUR = 3600.0
Row = tuple[str, str]


def full(name: str = "a", **options: object) -> Simulated:
    """A source with more tasks than anybody can do."""
    return Simulated(name, backlog=NEVER, **options)


def idle(number: int) -> list[Simulated]:
    """Sources that have nothing."""
    return [Simulated(f"idle{i}") for i in range(number)]


def ran(seconds: float, *sources: Simulated, capacity: int = 10, seed: int = 0, breakers: bool = False) -> Simulation:
    """A world after so many seconds."""
    world = Simulation(list(sources), capacity, seed)
    if breakers:
        world.breakers = BreakerRegistry(clock=lambda: world.now, rng=random.Random(1))
    return world.run(seconds)


def rate(world: Simulation, name: str = "a", since: float = 0.0) -> float:
    """Tasks a second of a source, from some second on."""
    return sum(at >= since for at in world.started_at.get(name, [])) / (world.now - since)


def ratio(world: Simulation, since: float = 0.0, task: float = 0.01) -> float:
    """The rate of A in a world to its rate alone in as long a time."""
    return rate(world, since=since) / rate(ran(world.now, full(task=task), capacity=world.capacity), since=since)


def near_idle_sources() -> Iterator[Row]:
    """Sources that have little or nothing."""
    beside = [ratio(ran(3.0, full(), *idle(number))) for number in (1, 31, 199)]
    beside.append(ratio(ran(20.0, full(), *idle(7), capacity=1)))
    yield (
        "A beside 1, 31, 199 caught-up sources; at capacity 1 beside 7: rate ÷ alone",
        ", ".join(f"{r:.2f}" for r in beside),
    )
    world = ran(20.0, full(), Simulated("b", rate=7.0))
    yield (
        "A beside a source with 7 tasks a second: rate ÷ alone; the other's tasks/s",
        f"{ratio(world):.2f}; {rate(world, 'b'):.1f}",
    )
    polls = ran(30.0, *idle(3)).polls
    yield "three caught-up sources: polls/s of each", f"{max(polls.values()) / 30:.1f}"
    for number, capacity in ((8, 1), (32, 10)):
        draw = random.Random(number)
        made = {f"idle{i}": draw.uniform(2.0, 6.0) for i in range(number)}
        world = ran(6.5, full(), *(Simulated(name, rate=1 / at) for name, at in made.items()), capacity=capacity)
        waits = [(world.started_at[name][0] - at) * 1000 for name, at in made.items()]
        yield (
            f"first task of an idle source beside A, {number} sources at capacity {capacity}: median, longest",
            f"{statistics.median(waits):.0f} ms, {max(waits):.0f} ms",
        )


def near_healthy_sources() -> Iterator[Row]:
    """Sources that are well, near or far."""
    both = []
    for task, seconds in ((0.0001, 0.5), (0.001, 2.0), (0.01, 10.0)):
        world = ran(seconds, full("a", task=task), full("b", task=task))
        both.append(sum(world.starts.values()) / ran(seconds, full(task=task)).starts["a"])
    yield "two healthy sources ÷ one; tasks of 0.1, 1, 10 ms", ", ".join(f"{r:.2f}" for r in both)
    starts = ran(20.0, *(full(n, weight=w) for n, w in (("a", 1), ("b", 2), ("c", 5))), capacity=1).starts
    yield "weights 1 : 2 : 5 at capacity 1: starts", " : ".join(str(starts[n]) for n in "abc")
    world = ran(12.0, full(), full("far", trip=0.4))
    yield (
        "A beside a backlogged source at 0.4 s round trip (fair: 0.50); the other's tasks/s",
        f"{ratio(world):.2f}; {rate(world, 'far'):.0f}",
    )
    worlds = [ran(40.0, *(full(f"s{i}", trip=trip) for i in range(n))) for n, trip in ((3, 0.2), (8, 0.7))]
    yield (
        "three sources at 200 ms round trip, eight at 0.7 s: tasks/s",
        ", ".join(f"{sum(w.starts.values()) / 40:.0f}" for w in worlds),
    )


def near_slow_sources() -> Iterator[Row]:
    """Sources that answer late, or whose tasks are long."""
    world = ran(12.0, full(), full("slow", trip=1.0))
    yield (
        "A beside a backlogged source at 1 s round trip: rate ÷ alone; from second 3 on; the slow one's tasks/s",
        f"{ratio(world):.2f}; {ratio(world, since=2.0):.2f}; {rate(world, 'slow'):.1f}",
    )
    world = ran(20.0, full("slow", trip=1.0), *idle(2))
    yield "a source at 1 s round trip while two others have nothing: tasks/s", f"{rate(world, 'slow'):.1f}"
    world = ran(1200.0, *(full(f"s{i}", trip=1.0, task=6.0, spread=0.0) for i in range(8)), capacity=1)
    yield (
        "capacity 1, eight sources at 1 s round trip, 6 s tasks: starts of each in 20 minutes; give-backs of one task",
        f"{min(world.starts.values())} to {max(world.starts.values())}; {world.returns} at most",
    )
    starts = ran(24 * HOUR, full(task=HOUR), full("far", task=HOUR, trip=0.7)).starts
    yield "one-hour tasks, A and a source at 0.7 s round trip: starts in a day", f"{starts['a']} : {starts['far']}"
    waits = []
    for seed in range(15):
        at = random.Random(seed).uniform(10 * HOUR, 11 * HOUR)
        world = ran(13 * HOUR, full(task=HOUR), Simulated("b", rate=1 / at), seed=seed)
        waits.append(world.started_at["b"][0] - at)
    yield (
        "A holds every unit with one-hour tasks, then another source gets work: median wait of 15 runs",
        f"{statistics.median(waits) / 60:.0f} minutes",
    )


def near_ill_sources() -> Iterator[Row]:
    """Sources that hang, fail, swallow, or take no results."""
    for what, trouble in (("hangs", "stalls"), ("swallows tasks", "swallows"), ("fails", "fails")):
        world = ran(10.0, full(), full("b", **{trouble: [(2.0, NEVER)]}), breakers=True)
        yield (
            f"A beside one that {what} from some moment on: rate ÷ alone in the 8 s from then; after one second",
            f"{ratio(world, since=2.0):.2f}; {ratio(world, since=3.0):.2f}",
        )
    world = ran(6.0, full(), full("b", stalls=[(3.0, 4.2)]), breakers=True)
    back = min(at for at in world.started_at["b"] if at > 3.5) - 4.2
    yield "a source stalls for 1.2 s with polls in flight: its first start after the stall", f"{back * 1000:.1f} ms"
    deaf = [ratio(ran(12.0, full(), full("d", deaf=[(0.0, NEVER)]), capacity=c), since=2.0) for c in (1, 2, 4)]
    yield (
        "A beside one that takes no results, capacity 1, 2, 4: rate ÷ alone from the third second on",
        ", ".join(f"{r:.2f}" for r in deaf),
    )
    held = ran(20.0, *(full(f"s{i}", task=60.0, stalls=[(0.0, 2.0)]) for i in range(200))).most_held
    yield "200 sources that never answered before, minute-long tasks: most items held", str(held)
    held = ran(11.0, *(full(f"s{i}", stalls=[(1.0 + 0.6 * i, 9.0)]) for i in range(8))).most_held
    yield "eight sources that stall one after another: most items held", str(held)


def main() -> None:
    """Print the table."""
    sys.stdout.write("| scenario | measured |\n|---|---|\n")
    for group in (near_healthy_sources, near_idle_sources, near_slow_sources, near_ill_sources):
        for scenario, measured in group():
            sys.stdout.write(f"| {scenario} | {measured} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
