"""Worlds drawn at random, with every fault."""

from simulation.survey import outcome, part

from .row import Row, Scenario

WORLDS = range(1849)


def share_of_omniscient() -> Row:
    """How near the rules come to somebody who knows everything and wastes nothing."""
    outcomes = [outcome(seed) for seed in WORLDS]
    shares = [it.share for it in outcomes if it.share is not None]
    others = [it.of_prefetch for it in outcomes if it.of_prefetch is not None]
    low, lowest = part(shares, 10), part(shares, 1)
    return Row(
        scenario=f"{len(shares)} random scenarios: share of an omniscient scheduler, p10 / p1",
        plain="0.46 / 0.07",
        target="0.81 / 0.43",
        ideal="1",
        ours=f"{low:.2f} / {lowest:.2f} (of one that may prefetch: {part(others, 10):.2f} / {part(others, 1):.2f})",
        floors=[(low, 0.81), (lowest, 0.43)],
    )


def most_returns() -> Row:
    """No task goes back again and again."""
    returns = max(outcome(seed).returns for seed in WORLDS)
    return Row(
        scenario=f"{len(WORLDS):,} random scenarios: most give-backs of one task",
        plain="422",
        target="2",
        ideal="0",
        ours=str(returns),
        ceilings=[(returns, 2)],
    )


def broken_promises() -> Row:
    """What `watch` and, for the planner alone, `referee` look at in every step."""
    broken = [it.seed for it in map(outcome, WORLDS) if it.broken]
    return Row(
        scenario="the same: worlds in which a promise (P1, P2, P3, P8, P11, P13) was broken",
        plain="-",
        target="0",
        ideal="0",
        ours=f"{len(broken)}" + (f": {broken[:5]}" if broken else ""),
        ceilings=[(len(broken), 0)],
    )


SCENARIOS: dict[str, Scenario] = {
    "share of omniscient": share_of_omniscient,
    "most returns": most_returns,
    "broken promises": broken_promises,
}
