"""Units that go on with what comes with the answer to a result: they save polls, and take nothing from anybody."""

from collections.abc import Iterator
from contextlib import contextmanager

from simulation import NEVER

from . import worlds
from .row import Row, Scenario, told
from .worlds import full, ran, ratio


@contextmanager
def chains() -> Iterator[None]:
    """Worlds made inside have chains."""
    before, worlds.CHAINS[0] = worlds.CHAINS[0], True
    try:
        yield
    finally:
        worlds.CHAINS[0] = before


def short_tasks() -> Row:
    """A chain ends for held items and for sources below their share, and not for everybody who is due."""
    both, polls = [], []
    with chains():
        for task, seconds in ((0.0001, 0.15), (0.001, 0.4), (0.01, 3.0)):
            world = ran(seconds, full("a", task=task), full("b", task=task))
            both.append(sum(world.starts.values()) / ran(seconds, full(task=task)).starts["a"])
            polls.append(sum(world.polls.values()) / sum(world.starts.values()))
    return Row(
        scenario="chains: two healthy ÷ one; 0.1 / 1 / 10 ms tasks; polls for a task",
        plain="half",
        target="1.00",
        ideal="1",
        ours=f"{told(*both)}; {told(*polls, digits=3)}",
        floors=[(it, 0.98) for it in both],
        ceilings=[(it, 0.1) for it in polls],
    )


def far_ones() -> Row:
    """A chain makes good what a long round trip costs."""
    with chains():
        world = ran(12.0, full(), full("far", trip=0.4))
        total = sum(ran(20.0, *(full(f"s{i}", trip=0.2) for i in range(3))).starts.values()) / 20.0
        beside = ratio(world)
    return Row(
        scenario="chains: A + backlogged at 0.4 s round trip; three sources at 200 ms round trip: tasks/s",
        plain="-",
        target="0.50; 34",
        ideal="0.50; 1000 (no polls)",
        ours=f"{beside:.2f}; {total:.0f}",
        floors=[(beside, 0.49), (total, 34.0)],
    )


def swallowed() -> Row:
    """An answer that never comes may have been a task: one for each unit, beside those that were polled for."""
    plain = _swallowed()
    with chains():
        chained = _swallowed()
    return Row(
        scenario="A + one that swallows tasks from some moment on: how many; the same with chains",
        plain="-",
        target="one more for each of its units",
        ideal="1; 1",
        ours=f"{plain}; {chained}",
        ceilings=[(chained, plain + 5)],
    )


def _swallowed() -> int:
    sick = full("b", swallows=[(2.0, NEVER)])
    world = ran(10.0, full(), sick, breakers=True)
    return sick.taken - world.starts["b"]


SCENARIOS: dict[str, Scenario] = {"chains of short tasks": short_tasks, "far chains": far_ones, "swallowed": swallowed}
