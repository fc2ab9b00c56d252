"""How a task's input becomes the arguments of its function."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter.functions.attempt import execute
from conductor_adapter.functions.binding import Binding
from conductor_adapter.functions.decorator import worker
from conductor_adapter.functions.structure import UnbindableError
from conductor_adapter.tasks import Task, TaskStatus

if TYPE_CHECKING:
    from somewhere import Unknown


def bound(function, **given_input):
    """The positional and named arguments for this input."""
    return Binding.of(function).arguments(Task(task_id="t", input=given_input))


def test_arguments_are_bound_by_name() -> None:
    """Each parameter gets the input of its name, whatever the order and kind; what has no parameter is ignored."""

    def function(a, /, b, c=3, *, d, e=5, **_rest): ...
    def strict(b): ...

    assert bound(function, d=4, b=2, a=1) == ([1], {"b": 2, "d": 4})
    assert bound(strict, b=2, other=1) == ([], {"b": 2})


def test_defaults_are_the_functions_own() -> None:
    """An absent parameter with a default is left to the function; null is a value and not absence."""

    def function(a=1, /, b=2, *, c=3): ...

    assert bound(function) == ([1], {})
    assert bound(function, b=None) == ([1], {"b": None})


def test_missing_parameter_is_named() -> None:
    """The error names the parameter and what the input has instead; the task fails for good."""

    def function(order_id, amount=1): ...

    with pytest.raises(UnbindableError, match=r"no 'order_id'.*it has: amount, orderId"):
        bound(function, orderId="7", amount=2)
    with pytest.raises(UnbindableError, match="it has: nothing"):
        bound(function)
    result = execute(function, {})
    assert result.status is TaskStatus.FAILED_WITH_TERMINAL_ERROR
    assert "'order_id'" in result.reason


def test_extra_input_goes_to_kwargs_only() -> None:
    """``**kwargs`` takes what no parameter took."""

    def function(a, /, b, *args, **kwargs):
        return [a, b, args, kwargs]

    assert execute(function, {"a": 1, "b": 2, "c": 3}).output == {"result": [1, 2, [], {"c": 3}]}


def test_parameter_of_type_task_gets_the_task() -> None:
    """By annotation, not by name, also when it may be None or the annotation is text."""

    def function(this: Task, task: str, other: Optional[Task] = None, more: Task | None = None): ...  # noqa: UP045

    task = Task(task_id="t", input={"task": "text", "this": 1})

    assert Binding.of(function).arguments(task) == ([], {"this": task, "task": "text", "other": task, "more": task})


def test_annotation_for_type_checkers_only_costs_nothing() -> None:
    """One that cannot be resolved at run time is passed as it comes, and the others still work."""

    def function(a: Unknown, b: Order, task: Task): ...

    _, named = bound(function, a={"x": 1}, b={"number": 1})

    assert named["a"] == {"x": 1}
    assert named["b"] == Order(1)
    assert isinstance(named["task"], Task)


@worker("early")
def early(invoice: Invoice) -> int:
    """A worker above the class that it names."""
    return invoice.total


@attrs.frozen
class Invoice:
    """Defined after the worker."""

    total: int


def test_class_may_be_defined_below_its_worker() -> None:
    """Annotations are looked up when the first task comes, not where the decorator stands."""
    assert execute(early, {"invoice": {"total": 3}}).output == {"result": 3}


@attrs.frozen
class Customer:
    """A data class inside another one."""

    name: str
    _secret: str = ""


@attrs.frozen
class Order:
    """An attrs class as parameter."""

    number: int = attrs.field(validator=attrs.validators.instance_of(int))
    customer: Customer | None = None
    lines: list[Line] = attrs.field(factory=list)
    made: int = attrs.field(init=False, default=0)


@dataclasses.dataclass
class Line:
    """A data class in a list."""

    price: int
    total: int = dataclasses.field(init=False, default=0)


@attrs.define
class Odd:
    """A class whose annotations cannot be resolved."""

    value: Unknown


def test_data_classes_are_built_from_objects() -> None:
    """Classes of attrs and data classes, nested and in lists; unknown keys are ignored."""

    def function(order: Order, line: Line | None, lines: list[Line], plain: dict[str, Any], odd: Odd): ...

    _, named = bound(
        function,
        order={
            "number": 1,
            "customer": {"name": "Ann", "secret": "s"},
            "lines": [{"price": 2}, None],
            "made": 9,
            "x": 0,
        },
        line=None,
        lines="not a list",
        plain={"a": 1},
        odd={"value": {"b": 1}},
    )

    assert named["order"] == Order(1, Customer("Ann", "s"), [Line(2), None])
    assert named["line"] is None
    assert named["lines"] == "not a list"
    assert named["plain"] == {"a": 1}
    assert named["odd"] == Odd({"b": 1})


def test_parameters_that_are_data_classes_or_lists_of_them_are_built() -> None:
    """Not only what is inside of another class: a data class, and each entry of a list of them."""

    def function(line: Line, lines: list[Line], orders: list[Order | None], words: list[str]): ...

    _, named = bound(
        function, line={"price": 3}, lines=[{"price": 1}, Line(2)], orders=[{"number": 1}, None], words=["a"]
    )

    assert named == {"line": Line(3), "lines": [Line(1), Line(2)], "orders": [Order(1), None], "words": ["a"]}


def test_callable_object_is_bound_like_a_function() -> None:
    """What has a signature but is no function, such as an object with ``__call__``, takes its input by name too."""

    class Charge:
        def __call__(self, amount: int, line: Line | None = None, currency: str = ""): ...

    assert bound(Charge(), amount=3, line={"price": 1}) == ([], {"amount": 3, "line": Line(1)})
    assert bound(functools.partial(Charge(), currency="EUR"), amount=3) == ([], {"amount": 3})


def test_instance_is_passed_as_it_is() -> None:
    """``execute`` in a test may be given the object itself."""

    def function(order: Order): ...

    assert bound(function, order=Order(3)) == ([], {"order": Order(3)})


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("text", "input 'order' is of type str, Order needs an object"),
        ({}, "^input 'order.number' is missing$"),
        ({"number": "1"}, "^input 'order' does not fit: 'number' must be <class 'int'>"),
        ({"number": 1, "customer": 5}, "input 'order.customer' is of type int, Customer needs an object"),
        ({"number": 1, "lines": [{"price": 1}, {}]}, r"^input 'order.lines\[1\].price' is missing$"),
        ({"lines": [{}]}, r"^input 'order.number' is missing; input 'order.lines\[0\].price' is missing$"),
    ],
)
def test_value_that_fits_no_data_class_is_named(order: object, message: str) -> None:
    """The error has the path to the value, the class and what it wants."""

    def function(order: Order): ...

    with pytest.raises(UnbindableError, match=message):
        bound(function, order=order)


class Colour(enum.Enum):
    """An enum whose values are words."""

    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    """An enum whose values are numbers."""

    LOW = 1


@dataclasses.dataclass
class Tree:
    """A class that holds itself."""

    name: str
    children: list[Tree] = dataclasses.field(default_factory=list)
    by_name: dict[str, Tree] = dataclasses.field(default_factory=dict)


@attrs.frozen
class Event:
    """A class with a converter of its own."""

    when: dt.datetime = attrs.field(converter=lambda value: ("converted", value))
    colour: Colour = Colour.RED


class Model:
    """What a model of pydantic looks like from outside."""

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def model_validate(cls, value: dict[str, Any]) -> Model:
        """Build one, with pydantic's own checks."""
        if not isinstance(value.get("number"), int):
            raise ValueError("number should be an integer")  # noqa: TRY004 - as pydantic's is
        return cls(value["number"])


NOON = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
ORDER_ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("hint", "value", "built"),
    [
        (dict[str, Line], {"a": {"price": 1}, "b": None}, {"a": Line(1), "b": None}),
        (Mapping[str, list[Line]], {"a": [{"price": 1}]}, {"a": [Line(1)]}),
        (tuple[Line, ...], [{"price": 1}], (Line(1),)),
        (tuple[Line, Colour], [{"price": 1}, "red"], (Line(1), Colour.RED)),
        (Sequence[Line], [{"price": 1}], [Line(1)]),
        (set[Colour], ["red", "green"], {Colour.RED, Colour.GREEN}),
        (dict[Colour, int], {"red": 1}, {Colour.RED: 1}),
        (Colour, "green", Colour.GREEN),
        (Colour, Colour.GREEN, Colour.GREEN),
        (Colour | None, None, None),
        (Colour, None, None),
        (Level, 1, Level.LOW),
        (dt.datetime, "2026-11-30T12:00:00Z", NOON),
        (dt.date, "2026-11-30", dt.date(2026, 11, 30)),
        (dt.time, "12:30", dt.time(12, 30)),
        (list[dt.date | None], ["2026-11-30", None], [dt.date(2026, 11, 30), None]),
        (decimal.Decimal, "0.10", decimal.Decimal("0.10")),
        (uuid.UUID, str(ORDER_ID), ORDER_ID),
        (Order | Line, {"number": 1}, Order(1)),
        (Order | Line | None, {"price": 1}, Line(1)),
        (list[Order | Line], [{"price": 1}, {"number": 2}], [Line(1), Order(2)]),
        (Line | str, {"price": 1}, Line(1)),
        (Line | str, "text", "text"),
        (dt.date | int, "2026-11-30", dt.date(2026, 11, 30)),
        (dt.date | int, 5, 5),
        (Event, {"when": "noon", "colour": "green"}, Event("noon", Colour.GREEN)),
        (
            Tree,
            {"name": "a", "children": [{"name": "b"}], "by_name": {"c": {"name": "c"}}},
            Tree("a", [Tree("b")], {"c": Tree("c")}),
        ),
    ],
)
def test_values_are_built_as_annotations_say(hint: Any, value: object, built: object) -> None:
    """Data classes, enums, dates, decimals and ids, and containers and unions of them."""

    def function(argument): ...

    function.__annotations__["argument"] = hint

    assert bound(function, argument=value) == ([], {"argument": built})


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, "3"),
        (str, 3),
        (float, True),
        (bool, "false"),
        (tuple[int, int], [1, 2]),
        (set[str], ["a", "a"]),
        (dict[str, int], {"a": "1"}),
        (list[Line], "not a list"),
        (Sequence[decimal.Decimal], "12"),
        (set[decimal.Decimal], 12),
        (tuple[Line, ...], {"price": 1}),
        (dict[str, Line], "not a dict"),
        (dt.datetime, 1764504000000),
        (decimal.Decimal, 0.1),
        (dt.date | str, "2026-11-30"),
        (dt.date | Colour, "red"),
        (Order | Line, {"other": 1}),
        (Order | Line, 7),
        (Line | Any, 7),
        (Callable[[Line], Line], {"price": 1}),
    ],
)
def test_what_is_not_built_is_passed_as_it_comes(hint: Any, value: object) -> None:
    """No value is coerced, rounded or made unique in silence; which of several types is meant is not guessed."""

    def function(argument): ...

    function.__annotations__["argument"] = hint
    ((_, named),) = [bound(function, argument=value)]

    assert named["argument"] is value


def test_fields_are_not_coerced_either() -> None:
    """A number that came as text stays a text inside of a data class as well."""

    def function(line: Line): ...

    assert bound(function, line={"price": "3"}) == ([], {"line": Line("3")})


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (Colour, "blue", "input 'argument' is 'blue', which is not a Colour: known are 'red', 'green'"),
        (dt.date, "soon", "input 'argument' is 'soon', which is not a date"),
        (decimal.Decimal, "much", "input 'argument' is 'much', which is not a Decimal"),
        (list[dict[str, Colour]], [{"a": "blue"}], r"input \"argument\[0\]\['a'\]\" is 'blue', which"),
        (tuple[Line, ...], [{"price": 1}, 7], r"input 'argument\[1\]' is of type int, Line needs an object"),
        (dict[str, Line], {"a": {}}, r"input \"argument\['a'\].price\" is missing"),
        (Order | Line, {"price": 1, "number": []}, "input 'argument"),
        (Model, {"number": "x"}, "input 'argument' does not fit: number should be an integer"),
        (list[Model], [7], r"input 'argument\[0\]' is of type int, Model needs an object"),
    ],
)
def test_a_value_that_cannot_be_built_is_named_with_its_place(hint: Any, value: object, message: str) -> None:
    """The task fails for good: the same input will never fit."""

    def function(argument): ...

    function.__annotations__["argument"] = hint

    with pytest.raises(UnbindableError, match=message):
        bound(function, argument=value)


def test_models_of_pydantic_build_themselves() -> None:
    """By what they are able to do, so that pydantic need not be installed; inside of containers too."""

    def function(one: Model, more: dict[str, Model], given: Model | None): ...

    model = Model(3)
    _, named = bound(function, one={"number": 1}, more={"a": {"number": 2}}, given=model)

    assert (named["one"].number, named["more"]["a"].number, named["given"]) == (1, 2, model)


@given(
    given_input=st.dictionaries(st.sampled_from("abcdef"), st.integers()),
    defaulted=st.sets(st.sampled_from("abcd")),
)
def test_binding_calls_like_keywords(given_input: dict[str, int], defaulted: set[str]) -> None:
    """Binding means the same as calling with the input as keywords, for functions that take any."""
    parameters = ", ".join(f"{name}=0" if name in defaulted else name for name in "abcd")
    scope: dict[str, Any] = {}
    exec(f"def function(*, {parameters}, **rest): return dict(locals())", scope)  # noqa: S102 - a function made of the example
    function = scope["function"]
    try:
        expected = function(**given_input)
    except TypeError:
        with pytest.raises(UnbindableError):
            bound(function, **given_input)
        return
    positional, named = bound(function, **given_input)
    assert function(*positional, **named) == expected
