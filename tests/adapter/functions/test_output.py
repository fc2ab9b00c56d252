"""What a returned value becomes, and how the place that is no JSON is told."""

import datetime as dt
import enum
import json
import types
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter import tasks
from conductor_adapter.functions import output as output_module
from conductor_adapter.functions.output import NotJsonError, as_output
from conductor_adapter.tasks import TaskResult

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@attrs.frozen
class Box:
    """Holds anything."""

    inside: Any


@given(json_values)
def test_json_values_pass_unchanged(value: object) -> None:
    """Whatever JSON can say arrives as it was, wrapped unless it is an object or nothing."""
    expected = {} if value is None else value if isinstance(value, dict) else {"result": value}

    assert json.loads(as_output(value)) == expected


def test_an_output_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain object is encoded when the function returns, and not again when its result is sent."""
    encoded: list[object] = []

    def counting(value: object) -> str:
        encoded.append(value)
        return json.dumps(value)

    monkeypatch.setattr(output_module, "encode", counting)
    monkeypatch.setattr(tasks, "encode", counting)
    output = {"a": [1, 2]}

    result = TaskResult(task_id="t", output=as_output(output))
    body = json.loads(result.to_json())

    assert body["outputData"] == output
    assert [one for one in encoded if one is output or (isinstance(one, dict) and "outputData" in one)] == [output]


@given(json_values, st.lists(st.sampled_from(["list", "dict", "box", "tuple"]), max_size=5))
def test_data_classes_become_objects_at_any_depth(value: object, wrappers: list[str]) -> None:
    """However a data class is wrapped, the output encodes, and means the same as with plain objects."""
    expected = value
    for wrapper in wrappers:
        value, expected = {
            "list": ([value], [expected]),
            "tuple": ((value,), [expected]),
            "dict": ({"k": value}, {"k": expected}),
            "box": (Box(value), {"inside": expected}),
        }[wrapper]

    assert json.loads(as_output({"it": value})) == {"it": expected}


@given(
    st.sampled_from([float("nan"), float("inf"), -float("inf"), object(), {1}, b"x", 1j, dt.date(2020, 1, 1)]),
    st.lists(st.sampled_from(["list", "dict", "box"]), max_size=5),
)
def test_the_place_of_what_is_no_json_is_told(value: object, wrappers: list[str]) -> None:
    """The text holds the exact path to the value."""
    path = ""
    for wrapper in wrappers:
        value, path = {
            "list": ([0, value], "[1]" + path),
            "dict": ({"k": value}, ".k" + path),
            "box": (Box(value), ".inside" + path),
        }[wrapper]

    with pytest.raises(NotJsonError) as caught:
        as_output({"it": value})

    assert str(caught.value).startswith(f"output.it{path} is ")


class Colour(enum.Enum):
    """An enumeration without JSON form."""

    RED = 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "output.result is nan, which is not JSON-serializable"),
        ([float("-inf")], r"output.result\[0\] is -inf"),
        (dt.date(2020, 1, 1), "output.result is of type datetime.date,"),
        ({"s": {1}}, "output.s is of type set,"),
        (Colour.RED, r"output.result is of type .*test_output.Colour,"),
        (Box, "output.result is of type type"),
        pytest.param(10**5000, "output.result is of type int", id="huge"),
        ({(1, 2): 3}, r"output has the key \(1, 2\) of type tuple; keys must be str"),
        ({"a": {float("nan"): 3}}, "output.a has the key nan"),
    ],
)
def test_what_is_no_json_is_described(value: object, message: str) -> None:
    """Type or value is named with the place."""
    with pytest.raises(NotJsonError, match=message):
        as_output(value)


class Model:
    """What a model of pydantic looks like from outside."""

    def __init__(self, **fields: object) -> None:
        self.fields = fields

    def model_dump(self, *, mode: str) -> dict[str, object]:
        """The fields, as JSON has them when it is asked for that."""
        return {"mode": mode, **self.fields}


def test_models_of_pydantic_become_objects() -> None:
    """By what they are able to do, at any depth; what a model says is no JSON has its place all the same."""
    assert json.loads(as_output(Model(a=1))) == {"mode": "json", "a": 1}
    assert json.loads(as_output({"list": [Model(b=Model())]})) == {"list": [{"mode": "json", "b": {"mode": "json"}}]}
    with pytest.raises(NotJsonError, match=r"output\.list\[0\]\.c is of type set"):
        as_output({"list": [Model(c=set())]})
    with pytest.raises(NotJsonError, match=r"output\.result is of type type"):
        as_output(Model)


def test_other_mappings_become_objects() -> None:
    """A read-only mapping is an object too."""
    assert as_output(types.MappingProxyType({"a": 1})) == '{"a":1}'


def test_value_that_contains_itself_is_told() -> None:
    """A loop, and what is nested too deep for JSON's readers, is an error instead of a crash."""
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]

    for value in (loop, deep):
        with pytest.raises(NotJsonError, match="contains itself"):
            as_output(value)
