"""Random schedules of faults, the same ones every time: as many as ``SCHEDULES=50000`` says.

The real runner, its threads and what it keeps run in virtual time while servers hang, die, forget, answer late, twice
or not at all, clocks jump, and the worker's process is killed between any two steps and started again. They find broken
promises, not lines without a test: coverage is not measured while they run.
``python tests/worlds/delivery_figures.py --seed N`` replays schedule N and makes it small.
"""

import os
import re

import pytest
from simulation.delivery import Schedule, draw, network, play
from simulation.delivery.defects import PLANTED
from simulation.delivery.plan import Event, Flow, ServerPlan
from simulation.delivery.shrink import shrink

from conductor_adapter.client.messages import HttpAnswer

pytestmark = [pytest.mark.no_cover, pytest.mark.many]
NUMBER = int(os.environ.get("SCHEDULES", "200"))
CHUNK = 100
CHUNKS = [range(first, min(first + CHUNK, NUMBER)) for first in range(0, NUMBER, CHUNK)]
ENOUGH = 1000  # schedules within which a defect is found
RARE = ("order_broken", "lost_late_answer")  # some hundred schedules until they show
LATE = 120.0  # virtual seconds


@pytest.fixture(autouse=True)
def _books_balance() -> None:
    """In the place of what notes every poller there ever was: the judge compares their books with the wire's."""


def name_of(seeds: range) -> str:
    """How a test of these schedules is called."""
    return f"{seeds.start}-{seeds.stop - 1}"


def found(schedule: Schedule) -> str:
    """What is not as it must be."""
    return play(schedule).found


def fails(schedule: Schedule) -> str:
    """What to say of a schedule that fails: the smallest one that does."""
    small = shrink(schedule, found)
    return f"{found(small)}\n  python tests/worlds/delivery_figures.py --schedule '{small.to_text()}'"


@pytest.mark.parametrize("seeds", CHUNKS, ids=name_of)
def test_nothing_is_lost_misrouted_or_done_twice_at_once(seeds: range) -> None:
    """Every result arrives at its own server, the books balance, and everything comes to rest."""
    for seed in seeds:
        verdict = play(draw(seed))

        assert not verdict.found, f"schedule {seed}: {verdict.found}; made small: {fails(draw(seed))}"
        assert verdict.rest <= LATE, f"schedule {seed}: at rest only {verdict.rest:.0f} s after the last fault"


@pytest.mark.parametrize("seconds", [1.0, 2.0, 5.0, 20.0])
@pytest.mark.parametrize("status", [400, 402, 404, 405, 407, 409, 413, 423, 429, 500, 501, 503])
@pytest.mark.parametrize("body", ['{"message":"No static resource.","retryable":false}', "<html>not now</html>"])
def test_d6_nothing_is_given_up_while_a_server_refuses_everything(status, body, seconds, monkeypatch):
    """Whatever it answers to all results for a while: once it is well each task is completed, at its first attempt."""
    monkeypatch.setitem(network.ANSWERS, "away", HttpAnswer(status, {}, body.encode()))
    flows = tuple(Flow(0.0, (0.05,)) for _ in range(10))
    server, trouble = ServerPlan(0.002, 60, flows), Event(0.04, "away", seconds=seconds, calls="updates")

    verdict = play(Schedule(1, (server,), (trouble,), capacity=8))

    assert verdict.found == ""
    assert list(verdict.executions.values()) == [1] * 10


@pytest.mark.parametrize("name", [pytest.param(it, marks=pytest.mark.long) if it in RARE else it for it in PLANTED])
def test_defects_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the program put wrong breaks a promise within so many schedules."""
    what, plant = PLANTED[name]
    plant(monkeypatch)

    assert any(re.search(what, found(draw(seed))) for seed in range(ENOUGH)), f"{name} is not found"


def test_the_same_schedule_runs_the_same_way() -> None:
    """A schedule that was written down and read again takes the same steps to the same end."""
    for seed in range(20):
        schedule = draw(seed)

        assert play(Schedule.from_text(schedule.to_text())) == play(schedule)


def test_a_failing_schedule_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a schedule that shows a defect is little, and still shows it."""
    what, plant = PLANTED["dead_letter_on_a_proxys_404"]
    plant(monkeypatch)
    schedule = next(draw(seed) for seed in range(ENOUGH) if len(draw(seed).events) > 2 and found(draw(seed)))

    small = shrink(schedule, found)

    assert re.search(what, found(small))
    assert len(small.events) == 1
    assert sum(len(server.flows) for server in small.servers) == 1
