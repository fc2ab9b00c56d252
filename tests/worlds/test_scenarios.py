"""Every row of the table that ``make scenarios`` prints reaches its target."""

from collections.abc import Iterator

import attrs
import poller_figures
import pytest
from scenarios import CHAINED, MADE, Row, worlds

WHAT_UNITS_WAIT_FOR = ("ill beside healthy", "one after another")  # costs a little, and comes besides


@pytest.fixture
def chains() -> Iterator[None]:
    """Units ask for the next item with a result."""
    worlds.CHAINS[0] = True
    yield
    worlds.CHAINS[0] = False


@pytest.mark.parametrize("name", MADE)
def test_scenario_reaches_its_target(name: str) -> None:
    """What the rules were made for, they do; the design's table has the figures."""
    row = MADE[name]()

    assert row.reached, row


@pytest.mark.parametrize("name", CHAINED)
def test_scenario_of_chains_reaches_its_target(name: str) -> None:
    """What chains save, and what they may lose."""
    row = CHAINED[name]()

    assert row.reached, row


@pytest.mark.slow
@pytest.mark.usefixtures("chains")
@pytest.mark.parametrize("name", MADE)
def test_scenario_reaches_its_target_with_chains(name: str) -> None:
    """Units that go on without a poll take nothing from anybody, and make good what long round trips cost."""
    row = MADE[name]()

    if name in WHAT_UNITS_WAIT_FOR:
        row = attrs.evolve(
            row,
            floors=[(it, least - 0.01) for it, least in row.floors],
            ceilings=[(it, most + 10) for it, most in row.ceilings],  # one late item a unit
        )
    assert row.reached, row


def test_a_row_says_when_it_misses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The table marks a row that is not reached, tells of those that cannot be, and its command fails."""
    missed = Row(scenario="s", plain="1", target="2", ideal="3", ours="1.9", floors=[(1.9, 2.0)], note="because")
    monkeypatch.setattr(poller_figures, "ALL", {"s": lambda: missed})

    assert poller_figures.main([]) == 1
    printed = capsys.readouterr().out
    assert "| s | 1 | 2 | 1.9 † ✗ | 3 |" in printed
    assert "† s: because." in printed
    assert "not reached (✗): s" in printed


def test_a_world_can_be_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    """A seed says what is in its world, and what came of it."""
    assert poller_figures.main(["--seed", "7"]) == 0
    assert "nothing broken" in capsys.readouterr().out


def test_many_worlds_can_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Any number of them, with their worst."""
    assert poller_figures.main(["--worlds", "5"]) == 0
    assert "(--seed " in capsys.readouterr().out
