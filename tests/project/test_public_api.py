"""The front doors: what they export is sorted, listed in the reference, documented, and used in an executed example."""

import inspect
import re
from types import ModuleType

import pytest
from repository import PAGES, blocks_of

import conductor_adapter
import conductor_adapter.dev_server
import resilience
import resilience.testing

DOORS = [resilience, resilience.testing, conductor_adapter]
NAMES = [pytest.param(door, name, id=f"{door.__name__}.{name}") for door in DOORS for name in door.__all__]
REFERENCE = "\n".join(page.read_text() for page in PAGES if page.parent.name == "reference")
LISTED = re.findall(
    r"^\.\. auto(?:class|function|exception|data):: ([\w.]+)\.(\w+)(?:\(.*\))?$", REFERENCE, re.MULTILINE
)
EXAMPLES = "\n".join(code for page in PAGES for _, code in blocks_of(page.read_text()))
ALIASES = {
    "Event",
    "Listener",
    "Outcome",
    "RunnerEvent",
    "RunnerListener",
}  # unions and callables: nothing a docstring could hang on
BESIDE_THE_DOORS = {
    ("conductor_adapter.dev_server", "FaultControl"),  # what DevServer's members give and take
    ("conductor_adapter.dev_server", "Faults"),
    ("conductor_adapter.dev_server", "FinishedRun"),
}


@pytest.mark.parametrize("door", DOORS)
def test_exports_are_sorted_and_exist(door: ModuleType) -> None:
    """``__all__`` reads like an index, each name once, and names nothing that is not there."""
    assert door.__all__ == sorted(set(door.__all__))
    assert all(hasattr(door, name) for name in door.__all__)


def test_reference_lists_what_is_exported_and_nothing_else() -> None:
    """Whoever looks a public name up finds it, once."""
    exported = {(door.__name__, name) for door in DOORS for name in door.__all__}

    assert sorted(LISTED) == sorted(exported | BESIDE_THE_DOORS)


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_export_is_used_in_an_executed_example(door: ModuleType, name: str) -> None:
    """Nobody has to read the source to learn how a public name is used."""
    imported = rf"from {re.escape(door.__name__)} import (?:\([^)]*\b{name}\b|.*\b{name}\b)"
    uses = [block for block in re.split(r"^# runnable$", EXAMPLES, flags=re.MULTILINE) if re.search(imported, block)]

    assert any(len(re.findall(rf"\b{name}\b", block)) > 1 for block in uses), f"{name} is imported by no example"


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_export_and_its_members_are_documented(door: ModuleType, name: str) -> None:
    """Every public name, and every public method and property of it, has a docstring of its own."""
    exported = getattr(door, name)
    members = {name: exported} if name not in ALIASES else {}
    if inspect.isclass(exported):
        members |= {n: m for n, m in vars(exported).items() if not n.startswith("_") and _can_have_docstring(m)}

    assert [n for n, member in members.items() if not (member.__doc__ or "").strip()] == []


def _can_have_docstring(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_docstring_of_a_value_names_every_field(door: ModuleType, name: str) -> None:
    """A frozen value says what each of its fields means, and in which unit."""
    exported = getattr(door, name)
    fields = [field.name for field in getattr(exported, "__attrs_attrs__", ()) if field.init and field.name[0] != "_"]
    text = inspect.getdoc(exported) or ""

    assert [field for field in fields if not re.search(rf"\b{field}\b", text)] == []


def test_unknown_name_of_the_adapter_is_an_attribute_error() -> None:
    """Lazy loading of one name does not make others appear."""
    with pytest.raises(AttributeError, match="no attribute 'DevServers'"):
        conductor_adapter.DevServers  # type: ignore[attr-defined] # noqa: B018 - looking is the test
