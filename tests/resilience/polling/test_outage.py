"""P12 in virtual time: the network is away, every source fails, and then it is back."""

import pytest
from referee import Referee
from simulation import NEVER, Simulated, Simulation

from resilience.polling import PollPlanner

BACK = 1003.0


def first_start(sources: int, planner: type = Referee) -> float:
    """Seconds from the end of an outage of all sources to the first start of any."""
    away = [Simulated(f"s{i}", backlog=NEVER, trip=0.05, task=0.5, fails=((3.0, BACK),)) for i in range(sources)]
    world = Simulation(away, 2, planner=planner).count_failures().run(BACK + 500.0)
    return min(at for times in world.started_at.values() for at in times if at > BACK) - BACK


@pytest.mark.parametrize("sources", [1, 2, 5])
def test_p12_work_goes_on_soon_after_an_outage_of_everything(sources: int) -> None:
    """Not after a breaker's wait, which has doubled several times by then, but after 7.5 s and a poll at most."""
    assert first_start(sources) <= 8.0


def test_p12_is_what_makes_it_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without early probes it takes as long as the shortest wait."""
    monkeypatch.setattr("resilience.outage.PAUSE", 1e6)

    assert first_start(1, planner=PollPlanner) > 60.0


def test_p12_outage_is_asked_about_seldom() -> None:
    """One early probe in 5 s, and the breakers' own ones: a network that is away is no reason to poll it."""
    away = [Simulated(f"s{i}", backlog=NEVER, fails=((0.0, NEVER),)) for i in range(3)]
    world = Simulation(away, 2, planner=Referee).count_failures().run(10.0)
    before = world.polls.total()
    world.run(310.0)

    assert 300 / 7.5 - 1 <= world.polls.total() - before <= 300 / 5 + 3 * 6
