"""What `make mutants` is told: modules and tests that exist, and survivors with a reason."""

from pathlib import Path

import pytest
from mutation.__main__ import ACCEPTED, PLAN, fits, judged, main, told

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", PLAN)
def test_plan_names_modules_and_tests_that_exist(module: str) -> None:
    """A module that was moved, or whose tests were, is noticed here and not hours later."""
    assert [name for name in (module, *PLAN[module]) if not (ROOT / name).is_file()] == []


def test_accepted_survivor_is_of_a_module_in_the_plan_and_has_a_reason() -> None:
    """Whether its line is still there is said by `make mutants`, for whoever changed that module."""
    assert {entry["module"] for entry in ACCEPTED} <= set(PLAN)
    assert [entry for entry in ACCEPTED if len(entry["reason"]) < 10 or not entry["before"]] == []


def test_survivor_is_accepted_by_its_lines_or_by_its_words() -> None:
    """With ``after`` an entry is about one change; without it about the words of a text, whatever their case."""
    words = {"before": 'raise ValueError("No")'}
    change = {"before": "a = 1", "after": "a = 2"}

    assert fits(words, 'raise ValueError("No")', 'raise ValueError("XXNoXX")')
    assert fits(words, 'raise ValueError("No")', 'raise ValueError("NO")')
    assert not fits(words, 'raise ValueError("No")', "raise ValueError(None)")
    assert fits(change, "a = 1", "a = 2")
    assert not fits(change, "a = 1", "a = None")


def test_module_without_known_mutants_has_no_score() -> None:
    """What was never looked at is not called good."""
    score = judged("resilience/unknown.py", 1.0)

    assert score.missed
    assert "0.0 %" in told(score)


def test_unknown_module_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A typing error ends at once."""
    with pytest.raises(SystemExit):
        main(["resilience/sharse.py"])
    assert "resilience/shares.py" in capsys.readouterr().err
