"""Conductor's ``${…}`` expressions, which take a step's input parameters from the run."""

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["fill"]

_EXPRESSION = re.compile(r"\$\{([^}]*)\}")


def fill(template: Any, scope: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON in, JSON out
    """Replace every ``${a.b.c}`` in a JSON value by the value at that path of the scope.

    A str that is one expression becomes the value itself; an expression within a longer str is inserted as text. A
    missing value is null (within a str: nothing).

    Args:
        template: a JSON value of any depth.
        scope: the values that expressions start from, by first name.

    Returns:
        A new value; the template is not changed.
    """
    if isinstance(template, str):
        return _fill_text(template, scope)
    if isinstance(template, dict):
        return {key: fill(value, scope) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, scope) for value in template]
    return template


def _fill_text(text: str, scope: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON out
    if "${" not in text:
        return text
    whole = _EXPRESSION.fullmatch(text)
    if whole:
        return _look_up(whole[1], scope)
    return _EXPRESSION.sub(lambda match: _as_text(_look_up(match[1], scope)), text)


def _look_up(path: str, scope: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON out
    """Follow a dotted path; None if there is no such value."""
    value: Any = scope
    for name in path.strip().split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _as_text(value: Any) -> str:  # noqa: ANN401 - JSON in
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
