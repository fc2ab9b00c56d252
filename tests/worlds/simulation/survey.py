"""Many random worlds, each under watch: what came of them, and how near they were to somebody who knows everything."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from .omniscient import best
from .random_worlds import seeded_world
from .watch import Watch

LITTLE = 0.01  # of the capacity's time; a world with less to do says nothing of shares


@attrs.frozen
class Outcome:
    """What came of one world.

    Attributes:
        seed: which world.
        broken: the promise that was broken, empty if none.
        returns: how often the task was given back that was given back most often.
        share: work done, as a part of what an omniscient scheduler would do; None where there is next to no work.
        of_prefetch: the same for one that may prefetch.
    """

    seed: int
    broken: str
    returns: int
    share: float | None
    of_prefetch: float | None


@functools.cache
def outcome(seed: int, planner: Callable[..., Any] = Watch, most_sources: int = 40) -> Outcome:
    """Run world number ``seed``."""
    made = seeded_world(seed, planner, most_sources)
    world, broken = made.world, ""
    try:
        world.run(made.seconds)
    except AssertionError as error:
        broken = f"{type(error).__name__} at {world.now:.4f} s: {error}"
    done, whole = sum(world.busy.values()), world.capacity * made.seconds
    could, might = (best(world.sources, world.capacity, made.seconds, prefetch=it) for it in (False, True))
    if could < LITTLE * whole:
        return Outcome(seed, broken, world.returns, None, None)
    return Outcome(seed, broken, world.returns, done / could, done / might)


def part(shares: Sequence[float], percent: float) -> float:
    """The share that so many per cent of the worlds do not reach."""
    return sorted(shares)[int(len(shares) * percent / 100)]
