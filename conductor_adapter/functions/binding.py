"""From a task's input to the arguments of a task function: bound by name, built as annotations say (pure)."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from conductor_adapter.functions.structure import Build, UnbindableError, builder_of, without_none
from conductor_adapter.tasks import Task

__all__ = ["Binding"]

_BY_POSITION = inspect.Parameter.POSITIONAL_ONLY
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_MISSING: Any = object()


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
            UnbindableError: a parameter without default is not in the input, or a value does not fit its annotation.
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
    convert: Build | None

    @classmethod
    def of(cls, parameter: inspect.Parameter, known: Mapping[str, Any]) -> "_Parameter":
        hint = without_none(known.get(parameter.name, Any))
        default = _MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        return cls(parameter.name, default, hint is Task, builder_of(hint))

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
