"""From a task's input to the arguments of a task function: bound by name, with data classes from objects. Pure."""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from conductor_adapter.tasks import Task

__all__ = ["Binding", "UnbindableError"]

_BY_POSITION = inspect.Parameter.POSITIONAL_ONLY
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_MISSING: Any = object()


class UnbindableError(ValueError):
    """The task's input does not fit the function's parameters: the same input will never fit, so do not retry."""


@attrs.frozen
class Binding:
    """How the parameters of one function are filled; created once per function. Immutable, so thread-safe."""

    positional: tuple["_Parameter", ...]
    named: tuple["_Parameter", ...]
    takes_extra: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Binding":
        """Read the signature and the annotations of ``function``; it must have a signature."""
        parameters = inspect.signature(function).parameters.values()
        known = _annotations(function, parameters)
        return cls(
            tuple(_Parameter.of(p, known) for p in parameters if p.kind is _BY_POSITION),
            tuple(_Parameter.of(p, known) for p in parameters if p.kind in _BY_NAME),
            any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters),
        )

    def arguments(self, task: Task) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments for ``task``; its input is not changed.

        Raises:
            UnbindableError: a parameter without a default is not in the input, or a value does not fit its data class.
        """
        positional = [p.argument(task, p.default) for p in self.positional]
        named = {p.name: value for p in self.named if (value := p.argument(task, _MISSING)) is not _MISSING}
        if self.takes_extra:
            taken = {p.name for p in (*self.positional, *self.named)}
            named.update((name, value) for name, value in task.input.items() if name not in taken)
        return positional, named


@attrs.frozen
class _Parameter:
    """One parameter: the source of its value, and its conversion."""

    name: str
    default: Any
    wants_task: bool
    convert: Callable[[Any, str], Any] | None

    @classmethod
    def of(cls, parameter: inspect.Parameter, known: Mapping[str, Any]) -> "_Parameter":
        hint = _without_none(known.get(parameter.name, Any))
        default = _MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        return cls(parameter.name, default, hint is Task, _converter(hint))

    def argument(self, task: Task, absent: Any) -> Any:  # noqa: ANN401 - a task's input is any JSON value
        if self.wants_task:
            return task
        value = task.input.get(self.name, _MISSING)
        if value is not _MISSING:
            return value if self.convert is None else self.convert(value, self.name)
        if self.default is _MISSING:
            given = ", ".join(sorted(map(str, task.input))) or "nothing"
            raise UnbindableError(f"input has no {self.name!r}, a parameter without a default (it has: {given})")
        return absent


def _annotations(function: Callable[..., Any], parameters: typing.Iterable[inspect.Parameter]) -> dict[str, Any]:
    """Resolve each annotation separately: one that exists only for type checkers must not affect the others."""
    inner = inspect.unwrap(function)
    names = getattr(inner if hasattr(inner, "__globals__") else type(inner).__call__, "__globals__", {})
    known = {}
    for parameter in parameters:
        alone = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        try:
            known.update(typing.get_type_hints(alone, globalns=names))
        except (NameError, AttributeError, TypeError, SyntaxError):
            continue  # not resolvable here: the value is passed unchanged
    return known


def _without_none(hint: Any) -> Any:  # noqa: ANN401 - any annotation
    if typing.get_origin(hint) not in {typing.Union, types.UnionType}:
        return hint
    others = [member for member in typing.get_args(hint) if member is not type(None)]
    return others[0] if len(others) == 1 else hint


def _converter(hint: Any) -> Callable[[Any, str], Any] | None:  # noqa: ANN401 - any annotation
    """The function that converts JSON to ``hint``; None if values are passed unchanged."""
    hint = _without_none(hint)
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        convert_item = _converter(item)
        return None if convert_item is None else functools.partial(_build_list, convert_item)
    if isinstance(hint, type) and (attrs.has(hint) or dataclasses.is_dataclass(hint)):
        return functools.partial(_build, hint)
    return None


def _build_list(convert_item: Callable[[Any, str], Any], value: Any, path: str) -> Any:  # noqa: ANN401 - JSON in
    if not isinstance(value, list):
        return value
    return [convert_item(item, f"{path}[{index}]") for index, item in enumerate(value)]


def _build(kind: type, value: Any, path: str) -> Any:  # noqa: ANN401 - JSON in, any data class out
    """An instance of ``kind`` from an object: fields by name, unknown keys ignored, None and instances unchanged."""
    if value is None or isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise UnbindableError(f"input {path!r} is of type {type(value).__name__}, but {kind.__name__} needs an object")
    names = {argument: convert for argument, convert in _fields(kind) if argument in value}
    arguments = {
        name: value[name] if convert is None else convert(value[name], f"{path}.{name}")
        for name, convert in names.items()
    }
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UnbindableError(f"input {path!r} cannot be converted to {kind.__name__}: {error}") from error


@functools.lru_cache(maxsize=256)
def _fields(kind: type) -> tuple[tuple[str, Callable[[Any, str], Any] | None], ...]:
    """Name and converter of each argument of a data class's constructor."""
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, AttributeError, TypeError):
        hints = {}
    if attrs.has(kind):
        members = [(field.name, field.alias or field.name) for field in attrs.fields(kind) if field.init]
    else:
        members = [(field.name, field.name) for field in dataclasses.fields(kind) if field.init]
    return tuple((argument, _converter(hints.get(name, Any))) for name, argument in members)
