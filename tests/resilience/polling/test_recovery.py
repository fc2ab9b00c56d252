"""How soon a source is served after its fault has ended, and how little it is asked until then: in virtual time."""

import random

import pytest
from simulation import NEVER, Simulated, Simulation
from sizes import part

from resilience.breaker import BreakerConfig

BEGIN = 2.0
OPEN_BY = BEGIN + 20.0  # three polls have timed out
RESET = 30.0
LONGEST_RESET = 1.5 * RESET  # jitter
SLACK = 2.0
ENDS = [BEGIN + random.Random(seed).uniform(0.1, 4 * RESET) for seed in range(part(12))]


def ill_until(end: float, fault: str) -> Simulation:
    """A healthy source, and one whose fault ends now."""
    work = {"task": 0.5, "update": 0.002, "trip": 0.01, "backlog": NEVER}
    sources = [Simulated("well", **work), Simulated("ill", **work, **{fault: [(BEGIN, end)]})]
    breaker = BreakerConfig(reset_timeout=RESET, max_reset_timeout=RESET)
    return Simulation(sources, 4, seed=int(min(end, 1e6))).count_failures(breaker)


@pytest.mark.many
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("fault", ["stalls", "swallows", "fails", "deaf"])
def test_b2_source_is_served_soon_after_its_fault_has_ended(fault: str, end: float) -> None:
    """Within 2 s from when its breakers let a probe through, so within a reset and 2 s from the end of the fault."""
    world = ill_until(end, fault).run(end)
    opens_at = [breakers.get("ill").retry_at for breakers in (world.breakers, world.update_breakers)]
    by = max([end, *(at for at in opens_at if at is not None)]) + SLACK

    world.run(by)

    assert any(end < at <= by for at in world.started_at["ill"])
    assert by <= end + LONGEST_RESET + SLACK


@pytest.mark.parametrize("fault", ["stalls", "swallows", "fails"])
def test_b2_source_is_sent_one_probe_a_reset_while_its_fault_lasts(fault: str) -> None:
    """No more, however many units are free for it."""
    world = ill_until(NEVER, fault).run(OPEN_BY)
    before = world.polls["ill"]
    world.run(OPEN_BY + 20 * LONGEST_RESET)

    assert 19 <= world.polls["ill"] - before <= 30
