"""Worlds drawn at random, the same ones every time: as many as ``WORLDS=20000`` says.

Each runs under a watch that fails when a promise is broken in any step; some run under the referee, who knows every
rule. They find broken promises, not lines without a test: coverage is not measured while they run.
``python tests/worlds/poller_figures.py --seed N`` replays world N.
"""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from referee import Referee
from simulation.random_worlds import random_world, seeded_world
from simulation.survey import Outcome, outcome, part
from simulation.watch import Watch

pytestmark = [pytest.mark.no_cover, pytest.mark.many]
NUMBER = int(os.environ.get("WORLDS", "100"))
CHUNK = 50
CHUNKS = [range(first, min(first + CHUNK, NUMBER)) for first in range(0, NUMBER, CHUNK)]
REFEREED = range(NUMBER, NUMBER + 60)
MOST_SOURCES = 6  # the referee's account takes its time


def name_of(seeds: range) -> str:
    """How a test of these worlds is called."""
    return f"{seeds.start}-{seeds.stop - 1}"


def check(came: Outcome) -> None:
    """Nothing was broken, and nothing went back again and again."""
    replay = f"world {came.seed} (python tests/worlds/poller_figures.py --seed {came.seed})"
    assert not came.broken, f"{replay}: {came.broken}"
    assert came.returns <= 2, f"{replay}: one task was given back {came.returns} times"


@pytest.mark.parametrize("seeds", CHUNKS, ids=name_of)
def test_random_worlds_keep_their_promises(seeds: range) -> None:
    """One live poll a source, never more than fits, nobody starves, no task goes back more than twice."""
    for seed in seeds:
        check(outcome(seed))


@pytest.mark.long
def test_random_worlds_are_near_an_omniscient_scheduler() -> None:
    """Nine worlds of ten do 81 % of what somebody could who knows everything, and all but one in a hundred 43 %."""
    shares = [came.share for came in map(outcome, range(NUMBER)) if came.share is not None]

    assert len(shares) >= 457
    assert part(shares, 10) >= 0.81
    assert part(shares, 1) >= 0.43
    assert part(shares, 50) >= 0.97


def test_p5_nobody_piles_up_credit_in_random_worlds() -> None:
    """Among those who want units nobody is owed more than a few, nor owes them, however long some were away."""
    for seed in range(min(60, NUMBER // 5)):
        made = seeded_world(seed, most_sources=MOST_SOURCES)
        for part_of_it in range(1, 11):
            sharing = made.world.run(made.seconds * part_of_it / 10).planner._sharing
            weights = {name: track.source.weight for name, track in sharing._contenders.items()}
            credit = {name: sharing.credit(name) for name in weights}
            fair = sum(credit.values()) / max(1, sum(weights.values()))
            assert all(abs(credit[name] - fair * weights[name]) <= 4 for name in weights), (seed, credit)


@pytest.mark.long
def test_random_worlds_keep_every_rule() -> None:
    """The referee's account of the rules finds nothing wrong either."""
    for seed in REFEREED:
        check(outcome(seed, Referee, MOST_SOURCES))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(draw=st.randoms(use_true_random=False))
def test_worlds_that_hypothesis_draws_keep_their_promises(draw: random.Random) -> None:
    """The same worlds, drawn by one who shrinks what fails to the smallest world that still does."""
    made = random_world(draw, Watch, MOST_SOURCES)

    assert made.world.run(made.seconds).returns <= 2, made.describe()
