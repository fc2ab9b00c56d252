"""Calls and answers as values, and the error bodies of a real server."""

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import attrs

__all__ = ["EMPTY", "NO_CONTENT", "Answer", "ApiError", "Call", "json_answer", "text_answer"]

JSON = "application/json"
TEXT = "text/plain;charset=UTF-8"
_LONGEST_NUMBER = 1000  # characters
_DEEPEST = 1000  # nested objects and lists


@attrs.frozen
class Answer:
    """An answer of the server. ``media_type`` is empty for an answer without a body."""

    status: int
    body: bytes = b""
    media_type: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)


EMPTY = Answer(200)
NO_CONTENT = Answer(204)


@attrs.define
class Call:
    """A client's call: ``path`` without the query, ``query`` as it is after the question mark."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    _parameters: dict[str, str] | None = None

    def text(self, name: str) -> str | None:
        """Return a query parameter, None if it is absent or empty."""
        if self._parameters is None:
            self._parameters = dict(parse_qsl(self.query))
        return self._parameters.get(name)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a query parameter that is true or false."""
        value = self.text(name)
        return default if value is None else value.lower() == "true"

    def number(self, name: str, default: int) -> int:
        """Return a query parameter that must be an integer; raises the ApiError of a real server."""
        value = self.text(name)
        if value is None:
            return default
        try:
            return int(value)
        except ValueError:
            raise ApiError(
                500,
                f"Method parameter '{name}': Failed to convert value of type 'java.lang.String' to required type "
                f"'int'; For input string: \"{value}\"",
            ) from None

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """Return the body as JSON; raises the ApiError (500) of a real server if it is not JSON or not declared so."""
        media_type = self.headers.get("Content-Type", "application/octet-stream")
        if "json" not in media_type:
            raise ApiError(500, f"Content-Type '{media_type}' is not supported")
        if not self.body:
            raise ApiError(500, "Required request body is missing")
        try:
            value = _READER.decode(self.body.decode())
            too_deep = self.body.count(b"[") + self.body.count(b"{") > _DEEPEST and _depth(value) > _DEEPEST
        except ValueError as error:
            raise ApiError(500, f"JSON parse error: {error}") from None
        except RecursionError:
            too_deep = True
        if too_deep:
            raise ApiError(500, f"JSON parse error: Document nesting depth exceeds the maximum allowed ({_DEEPEST})")
        return _without_halves(value) if b"\\u" in self.body else value

    def mapping(self) -> dict[str, Any]:
        """Return the body as a JSON object; ApiError (500) if it is not one."""
        value = self.json()
        if not isinstance(value, dict):
            raise ApiError(500, f"JSON parse error: Cannot deserialize an object from {type(value).__name__}")
        return value


class ApiError(Exception):
    """An error answer of the API.

    Attributes:
        status: HTTP status.
        extra: fields besides the usual ones; None removes a usual one.
    """

    def __init__(self, status: int, message: str, **extra: object) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.extra = extra

    def answer(self) -> Answer:
        """Render the error object of a real server."""
        usual = {"status": self.status, "message": self.message, "instance": "dev-server", "retryable": False}
        body = {name: value for name, value in {**usual, **self.extra}.items() if value is not None}
        return json_answer(body, self.status)


def _depth(value: Any) -> int:  # noqa: ANN401 - JSON
    """The number of objects and lists in each other; how deep Python itself reads depends on its version."""
    depth, level = 0, [value]
    while level := [part for part in level if isinstance(part, dict | list)]:
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
        depth += 1
    return depth


def _whole(text: str) -> int:
    _check_length(text)
    return int(text)


def _real(text: str) -> float | str:
    _check_length(text)
    value = float(text)
    return value if math.isfinite(value) else str(value).replace("inf", "Infinity")


def _check_length(text: str) -> None:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"Number value length ({len(text)}) exceeds the maximum allowed ({_LONGEST_NUMBER})")


def _no_number(text: str) -> float:
    raise ValueError(f"Non-standard token '{text}'")


_READER = json.JSONDecoder(parse_int=_whole, parse_float=_real, parse_constant=_no_number)


def _without_halves(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Replace lone surrogates, which only JSON can contain, by question marks, as Java does."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_halves(part) for part in value]
    return value


def json_answer(value: object, status: int = 200) -> Answer:
    """Answer with a JSON value."""
    return Answer(status, json.dumps(value).encode(), JSON)


def text_answer(text: str) -> Answer:
    """Answer with plain text, like the server with ids."""
    return Answer(200, text.encode(), TEXT)
