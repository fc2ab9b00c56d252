"""From a task function's return value to a JSON object, or to an error that names the part that is not JSON. Pure."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import attrs

from conductor_adapter.tasks import TOO_MANY, JsonText, TaskResult, TaskStatus, encode

__all__ = ["LONGEST_WAIT", "NotJsonError", "as_output", "as_sendable", "shown"]

LONGEST_WAIT = 2**31 - 1  # seconds: the maximum of the narrowest column in Conductor's queues

_MAX_DEPTH = 200
_MOST = 1e300  # an int can be larger than any float, and too large for Python to convert to a str
_NOTHING = JsonText("{}")


class NotJsonError(ValueError):
    """The returned value contains a part that is not JSON-serializable; the text names its place and type."""


def as_output(value: Any) -> JsonText:  # noqa: ANN401 - whatever the function returned
    """The output of a task whose function returned ``value``, as text, so that the function can reuse the object.

    None becomes ``{}``; a mapping, a data class and a model become the object itself, and anything else
    ``{"result": value}``.
    Instances of attrs and data classes, and models of pydantic, become objects, at any depth.

    Raises:
        NotJsonError: a part is not a JSON value, such as a date, a set, NaN, or an object that contains itself.
    """
    if value is None:
        return _NOTHING
    if _is_model(value):
        value = value.model_dump(mode="json")
    if not isinstance(value, Mapping) and not _is_record(value):
        value = {"result": value}
    text = _text(value) if isinstance(value, dict) else None
    return JsonText(encode(_plain(value, "output", 0)) if text is None else text)


def as_sendable(result: TaskResult) -> TaskResult:
    """A result that a task function created itself, as it can be sent: no part of it can change any more.

    Raises:
        NotJsonError: no server would accept some part of it; the text names the part.
    """
    if not isinstance(result.status, TaskStatus):
        raise _unsendable(f"its status is {result.status!r:.80}; use a TaskStatus")
    for name in ("reason", "worker_id", "output_path"):
        value = getattr(result, name)
        if value is not None and not isinstance(value, str):
            raise _unsendable(f"its {name} is {_described(value)}; it must be a str")
    later = result.callback_after
    if result.status is TaskStatus.IN_PROGRESS and not (_is_number(later) and 0 <= later <= LONGEST_WAIT):
        raise _unsendable(f"its callback_after is {shown(later)}; it must be 0 to {LONGEST_WAIT} seconds")
    return attrs.evolve(result, output=as_output(_object(result.output)), logs=_logs(result.logs))


def shown(value: object) -> str:
    """A number itself, and the type of any other value: for the text of an error."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{max(-_MOST, min(value, _MOST)):g}"
    return _described(value)


def _object(output: object) -> Mapping[str, Any]:
    if isinstance(output, Mapping):
        return output
    raise _unsendable(f"its output is {_described(output)}; it must be a mapping")


def _logs(logs: Any) -> tuple[tuple[float, str], ...]:  # noqa: ANN401 - whatever the function gave
    try:
        entries = tuple((created, text) for created, text in logs)
    except (TypeError, ValueError):
        raise _unsendable("its logs must be pairs of a time in seconds and a str") from None
    for created, text in entries:
        if not isinstance(text, str) or not (_is_number(created) and 0 <= created * 1000 < TOO_MANY):
            pair = f"{shown(created)} and {shown(text)}"
            raise _unsendable(f"an entry of its logs is {pair}; it must be a time in seconds and a str")
    return entries


def _unsendable(problem: str) -> NotJsonError:
    return NotJsonError(f"the TaskResult cannot be sent: {problem}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str | None:  # noqa: ANN401 - any value
    """The encoder's output, at C speed, or None: most outputs are plain, and only the others need the walk below."""
    try:
        return encode(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_record(value: Any) -> bool:  # noqa: ANN401 - any value
    if isinstance(value, type):
        return False
    return attrs.has(type(value)) or dataclasses.is_dataclass(value)


def _is_model(value: Any) -> bool:  # noqa: ANN401 - any value
    """Whether it is a model of pydantic, or behaves like one."""
    return callable(getattr(type(value), "model_dump", None))


def _plain(value: Any, path: str, depth: int) -> Any:  # noqa: ANN401 - any value in, JSON out
    if depth > _MAX_DEPTH:
        raise NotJsonError(f"{path[:80]}… is nested deeper than {_MAX_DEPTH} levels, or contains itself")
    if isinstance(value, Mapping):
        return {_key(key, path): _plain(part, f"{path}.{key}", depth + 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{path}[{index}]", depth + 1) for index, part in enumerate(value)]
    if _is_model(value):
        return _plain(value.model_dump(mode="json"), path, depth + 1)
    if _is_record(value):
        fields = attrs.fields(type(value)) if attrs.has(type(value)) else dataclasses.fields(value)
        return {f.name: _plain(getattr(value, f.name), f"{path}.{f.name}", depth + 1) for f in fields}
    if _text(value) is None:
        raise NotJsonError(f"{path} is {_described(value)}, which is not JSON-serializable; return for example a str")
    return value


def _key(key: Any, path: str) -> Any:  # noqa: ANN401 - any key in, a valid one out
    if isinstance(key, (str, int, float, bool, type(None))) and _text(key) is not None:
        return key
    raise NotJsonError(f"{path} has the key {key!r:.80} of type {_type_name(key)}; keys must be str")


def _described(value: Any) -> str:  # noqa: ANN401 - any value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return f"of type {_type_name(value)}"


def _type_name(value: Any) -> str:  # noqa: ANN401 - any value
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
