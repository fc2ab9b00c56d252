"""Sources that hang, fail, swallow tasks, or take no results."""

from simulation import NEVER

from .row import Row, Scenario, told
from .worlds import alone, full, ran, rate, ratio

SINCE = 2.0  # when the trouble begins


def ill_beside_healthy() -> Row:
    """The units of one that no longer answers go to the other half a second later."""
    troubles = ("stalls", "swallows", "fails")
    worlds = [ran(12.0, full(), full("b", **{it: [(SINCE, NEVER)]}), breakers=True) for it in troubles]
    during, after = ([ratio(world, since=since) for world in worlds] for since in (SINCE, SINCE + 1.0))
    return Row(
        scenario="A + one that hangs / swallows / refuses from some moment on: from then on; a second later",
        plain="0.98 to 0.99",
        target="same",
        ideal="1",
        ours=f"{told(*during)}; {told(*after)}",
        floors=[*((it, 0.97) for it in during), *((it, 0.995) for it in after)],
    )


def never_answered() -> Row:
    """Probes of sources that nobody knows bring little more than fits."""
    far = ran(20.0, *(full(f"s{i}", task=60.0, trip=0.3) for i in range(200)))
    hung = ran(20.0, *(full(f"s{i}", task=60.0, stalls=[(0.0, 2.0)]) for i in range(200)))
    most = max(far.most_over, hung.most_over)
    return Row(
        scenario="200 sources that never answered, 60 s tasks: items over capacity",
        plain="+190",
        target="+10",
        ideal="0",
        ours=f"{most:+}",
        ceilings=[(most, 10)],
    )


def one_after_another() -> Row:
    """What is lent is lent once, however many polls hang."""
    most = ran(11.0, *(full(f"s{i}", stalls=[(1.0 + 0.6 * i, 9.0)]) for i in range(8))).most_over
    return Row(
        scenario="eight sources stalling one after another: items over capacity 10",
        plain="+31",
        target="+13",
        ideal="0",
        ours=f"{most:+}",
        ceilings=[(most, 13)],
    )


def deaf() -> Row:
    """Its polls are fine and its results hang: what it has, the relay has."""
    beside = []
    for capacity in (1, 2, 4):
        healthy, sick = full(update=0.002), full("d", update=0.002, deaf=[(0.0, NEVER)])
        beside.append(ratio(ran(14.0, healthy, sick, capacity=capacity, breakers=True), since=2.0))
    return Row(
        scenario="updates hang while polls are fine; capacity 1 / 2 / 4",
        plain="0.09 / 0.08 / 0.66",
        target="1.00",
        ideal="1",
        ours=told(*beside),
        floors=[(it, 0.98) for it in beside],
    )


def short_stall() -> Row:
    """One stall is one failure, however many calls were in flight: no breaker opens."""
    end = 4.2
    stall = [(3.0, end)]
    sick = full("b", update=0.005, stalls=stall, deaf=stall)
    world = ran(8.0, full(update=0.005), sick, breakers=True)
    unused = min(at for at in world.started_at["b"] if at > end) - end
    back = rate(world, "b", since=end + 1.0) / alone(10, 0.01, 0.005)
    return Row(
        scenario="one stall of 1.2 s with calls in flight: source unused afterwards",
        plain="28 s",
        target="0.1 s",
        ideal="0",
        ours=f"{unused:.2f} s",
        floors=[(back, 0.48)],
        ceilings=[(unused, 0.12)],
    )


SCENARIOS: dict[str, Scenario] = {
    "ill beside healthy": ill_beside_healthy,
    "never answered": never_answered,
    "one after another": one_after_another,
    "deaf": deaf,
    "short stall": short_stall,
}
