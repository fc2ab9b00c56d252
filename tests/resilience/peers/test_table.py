"""The page of other people's defects names tests that exist, and says of every defect why we do not have it."""

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
PAGE = TESTS.parent / "docs" / "explanation" / "peers.md"
ROWS = [re.split(r"\s*\|\s*", line)[1:-1] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
DEFECTS = [row for row in ROWS if row[0] not in {"where", "defect"}]


@functools.cache
def names() -> set[str]:
    """Every test function there is; the files are read, not imported."""
    trees = [ast.parse(path.read_text()) for path in TESTS.rglob("test_*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", DEFECTS, ids=lambda row: f"{row[0]}: {row[1]}")
def test_defect_has_a_test_or_cannot_happen(row: list[str]) -> None:
    """Each row ends with the name of a test, or with the reason why none is needed."""
    where, what, answer = row
    test = re.fullmatch(r"`(test_\w+)`", answer)

    assert where
    assert what
    assert test.group(1) in names() if test else re.fullmatch(r"cannot happen: \w.{10,}", answer)


def test_page_has_every_defect_of_the_first_draft() -> None:
    """Its thirty-six defects are numbered, and none is left out."""
    assert {row[0] for row in DEFECTS if re.fullmatch(r"D\d+", row[0])} == {f"D{number}" for number in range(1, 37)}


def test_no_test_of_a_peers_defect_is_missing_on_the_page() -> None:
    """Whoever writes such a test says in the table whose defect it is about."""
    trees = [ast.parse(path.read_text()) for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    made = {n.name for tree in trees for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    text = PAGE.read_text()

    assert [name for name in sorted(made) if name.startswith("test_") and f"`{name}`" not in text] == []
