"""From what a task function returned to a JSON object, or to the exact place that is none (pure)."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["NotJsonError", "as_output"]

_MAX_DEPTH = 200


class NotJsonError(ValueError):
    """The returned value holds something that JSON cannot say; the text names the place and the type."""


def as_output(value: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever the function returned
    """The output of a task whose function returned ``value``.

    None becomes ``{}``, a mapping and a data class become the object itself, anything else ``{"result": value}``.
    Instances of attrs and data classes become objects, at any depth; what is JSON already is not copied.

    Raises:
        NotJsonError: some part is no JSON value, such as a date, a set, NaN, or an object that contains itself.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) and not _is_record(value):
        value = {"result": value}
    if isinstance(value, dict) and _is_json(value):
        return value
    plain: dict[str, Any] = _plain(value, "output", 0)
    return plain


def _is_json(value: Any) -> bool:  # noqa: ANN401 - any value
    """Let the encoder decide, at C speed: most outputs are plain, and the walk below is for the others."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _is_record(value: Any) -> bool:  # noqa: ANN401 - any value
    if isinstance(value, type):
        return False
    return attrs.has(type(value)) or dataclasses.is_dataclass(value)


def _plain(value: Any, path: str, depth: int) -> Any:  # noqa: ANN401 - any value in, JSON out
    if depth > _MAX_DEPTH:
        raise NotJsonError(f"{path[:80]}… is nested deeper than {_MAX_DEPTH} levels, or contains itself")
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(part, f"{path}.{key}", depth + 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{path}[{index}]", depth + 1) for index, part in enumerate(value)]
    if _is_record(value):
        fields = attrs.fields(type(value)) if attrs.has(type(value)) else dataclasses.fields(value)
        return {f.name: _plain(getattr(value, f.name), f"{path}.{f.name}", depth + 1) for f in fields}
    if not _is_json(value):
        raise NotJsonError(f"{path} is {_described(value)}, which is no JSON value; return text, a number or a list")
    return value


def _key(key: Any, path: str) -> Any:  # noqa: ANN401 - any key in, one that JSON can say out
    if isinstance(key, (str, int, float, bool, type(None))) and _is_json(key):
        return key
    raise NotJsonError(f"{path} has the key {key!r:.80} of type {_type_name(key)}; keys must be text")


def _described(value: Any) -> str:  # noqa: ANN401 - any value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return f"of type {_type_name(value)}"


def _type_name(value: Any) -> str:  # noqa: ANN401 - any value
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
