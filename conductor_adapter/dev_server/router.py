"""The handler of a call; a call without one is refused as Spring refuses it."""

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from .answers import Answer, ApiError

__all__ = ["Handler", "Router", "call_kind"]

Handler = Callable[..., Answer | Awaitable[Answer]]


def call_kind(method: str, path: str) -> str:
    """The kind of a call: ``poll``, ``update``, ``payload`` or ``other``."""
    if path.startswith("/api/external/") or path == "/api/tasks/externalstoragelocation":
        return "payload"
    if path.startswith("/api/tasks"):
        if method == "GET" and path.startswith("/poll/", 10):
            return "poll"
        if method == "POST" and path in {"/api/tasks", "/api/tasks/update-v2"}:
            return "update"
    return "other"


class Router:
    """Finds the handler of a call; a call without one is refused as Spring refuses it."""

    def __init__(self, table: dict[str, Handler]) -> None:
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[int, list[tuple[str, list[str], Handler]]] = {}
        for line, handler in table.items():
            method, path = line.split()
            if "{" in path:
                parts = path.split("/")
                self._patterns.setdefault(len(parts), []).append((method, parts, handler))
            else:
                self._exact[method, path] = handler

    def find(self, method: str, path: str) -> tuple[Handler, list[str]]:
        """Return the handler and the values of the path's parameters; ApiError (404, 405) if there is none."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, []
        parts = path.split("/")
        others = any(known == path for _, known in self._exact)
        for known_method, pattern, handler in self._patterns.get(len(parts), ()):
            values = _match(pattern, parts)
            if values is None:
                continue
            if known_method == method:
                return handler, values
            others = True
        if others:
            raise ApiError(405, f"Request method '{method}' is not supported")
        raise ApiError(404, f"No static resource {path.lstrip('/')}.")


def _match(pattern: list[str], parts: list[str]) -> list[str] | None:
    values = []
    for known, part in zip(pattern, parts, strict=True):
        if known.startswith("{"):
            if not part:
                return None
            values.append(unquote(part))
        elif known != part:
            return None
    return values
