"""Sources that are well: near or far, of any weight."""

from .row import Row, Scenario, told
from .worlds import HOUR, full, ran, rate, ratio


def two_healthy() -> Row:
    """Two sources do as much as one."""
    both, halves = [], []
    for task, seconds in ((0.0001, 0.15), (0.001, 0.4), (0.01, 3.0)):
        one = ran(seconds, full(task=task)).starts["a"]
        starts = ran(seconds, full("a", task=task), full("b", task=task)).starts
        both.append(sum(starts.values()) / one)
        halves.append(min(starts.values()) / max(starts.values()))
    return Row(
        scenario="two healthy ÷ one; 0.1 / 1 / 10 ms tasks",
        plain="0.53 / 0.75 / 0.92",
        target="1.00",
        ideal="1",
        ours=told(*both),
        floors=[*((it, 0.98) for it in both), *((it, 0.95) for it in halves)],
    )


def half_of_a_far_one() -> Row:
    """Fair is a half each."""
    world = ran(12.0, full(), full("far", trip=0.4))
    return Row(
        scenario="A + backlogged at 0.4 s round trip (fair half = 0.5)",
        plain="0.48",
        target="0.50",
        ideal="0.50",
        ours=told(ratio(world)) + f", the other {rate(world, 'far'):.0f} tasks/s",
        floors=[(ratio(world), 0.49), (rate(world, "far"), 10.0)],
    )


def three_far() -> Row:
    """Round trips overlap."""
    world = ran(40.0, *(full(f"s{i}", trip=0.2) for i in range(3)))
    total = sum(world.starts.values()) / 40.0
    return Row(
        scenario="three sources at 200 ms round trip: tasks/s",
        plain="24.6",
        target="34",
        ideal="47.6",
        ours=told(total, digits=0),
        floors=[(total, 34.0), (min(world.starts.values()), 0.6 * max(world.starts.values()))],
    )


def eight_far() -> Row:
    """Units of polls on their way are used by others."""
    world = ran(40.0, *(full(f"s{i}", trip=0.7) for i in range(8)))
    total = sum(world.starts.values()) / 40.0
    return Row(
        scenario="eight sources at 0.7 s: tasks/s",
        plain="11.4",
        target="14.8",
        ideal="14.1 (inline)",
        ours=told(total, digits=1),
        floors=[(total, 14.8), (min(world.starts.values()), 0.85 * max(world.starts.values()))],
    )


def weights_at_one() -> Row:
    """One unit is divided exactly."""
    starts = ran(20.0, *(full(n, weight=w) for n, w in (("a", 1), ("b", 2), ("c", 5))), capacity=1).starts
    off = max(abs(starts["b"] - 2 * starts["a"]), abs(starts["c"] - 5 * starts["a"]))
    return Row(
        scenario="weights 1:2:5 at capacity 1",
        plain="1:1:1",
        target="1:2:5",
        ideal="1:2:5",
        ours=":".join(f"{starts[name] / starts['a']:.2f}".rstrip("0").rstrip(".") for name in "abc"),
        ceilings=[(off, 8)],
    )


def hour_long() -> Row:
    """A fast source does not take every unit that falls free while the other answers."""
    starts = ran(20.0 * HOUR, full(task=HOUR), full("far", task=HOUR, trip=0.7)).starts
    return Row(
        scenario="1-hour tasks, a fast and a 0.7 s source: starts",
        plain="200 : 4",
        target="106 : 98",
        ideal="1 : 1",
        ours=f"{starts['a']} : {starts['far']}",
        floors=[(starts["far"] / starts["a"], 0.9)],
    )


SCENARIOS: dict[str, Scenario] = {
    "two healthy": two_healthy,
    "half of a far one": half_of_a_far_one,
    "three far": three_far,
    "eight far": eight_far,
    "weights at capacity 1": weights_at_one,
    "hour-long tasks": hour_long,
}
