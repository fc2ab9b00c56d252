"""The front doors: what they export is listed in the reference, documented, and used in an executed example."""

import inspect
import re

import pytest
from test_docs import PAGES, blocks_of

import conductor_adapter
import resilience

DOORS = [resilience, conductor_adapter]
NAMES = [pytest.param(door, name, id=f"{door.__name__}.{name}") for door in DOORS for name in door.__all__]
REFERENCE = next(page for page in PAGES if page.name == "reference.md").read_text()
EXAMPLES = "\n".join(code for page in PAGES for _, code in blocks_of(page.read_text()))
ALIASES = {"Event", "Listener", "Outcome"}  # unions and callables: nothing a docstring could hang on


@pytest.mark.parametrize("door", DOORS)
def test_exports_are_sorted_and_exist(door: object) -> None:
    """``__all__`` reads like an index and names nothing that is not there."""
    assert sorted(door.__all__, key=str.lower) == sorted(set(door.__all__), key=str.lower)  # type: ignore[attr-defined]
    assert all(hasattr(door, name) for name in door.__all__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_export_is_in_the_reference_and_in_an_executed_example(door: object, name: str) -> None:
    """Nobody has to read the source to learn what a public name is and how it is used."""
    assert f":: {door.__name__}.{name}\n" in REFERENCE  # type: ignore[attr-defined]
    assert re.search(rf"\b{name}\b", EXAMPLES)


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_export_is_documented(door: object, name: str) -> None:
    """Every public name has a docstring of its own."""
    exported = getattr(door, name)
    assert name in ALIASES or (inspect.getdoc(exported) or "").strip()


def test_reference_lists_nothing_that_is_not_exported() -> None:
    """The reference is of the front doors, and of the helpers for tests."""
    listed = re.findall(r"^\.\. auto(?:class|function|exception|data):: (\w+)\.(\w+)$", REFERENCE, re.MULTILINE)

    assert {(door, name) for door, name in listed} == {(d.__name__, name) for d in DOORS for name in d.__all__}


def test_unknown_name_of_the_adapter_is_an_attribute_error() -> None:
    """Lazy loading of one name does not make others appear."""
    with pytest.raises(AttributeError, match="no attribute 'DevServers'"):
        conductor_adapter.DevServers  # type: ignore[attr-defined] # noqa: B018 - looking is the test
