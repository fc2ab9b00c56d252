"""A call over the wire and what came of it, as values and errors; each error says whose doing it is."""

import enum
import json
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any

import attrs

from resilience.errors import ResilienceError, Throttled

__all__ = [
    "AuthRejected",
    "HttpAnswer",
    "HttpCall",
    "OutOfDescriptors",
    "RequestRejected",
    "ServerFailed",
    "TransportError",
    "TransportErrorKind",
]


class ServerFailed(ResilienceError):  # noqa: N818 - says who failed, like its siblings
    """The server did not do what the protocol says: this counts against it."""


class AuthRejected(Throttled):
    """The server refuses our credentials even with a fresh token: it pauses for this task type, nothing counts."""


class RequestRejected(Throttled):
    """The server says that the request is wrong: our doing, so it is reported and does not count."""


class OutOfDescriptors(Throttled):
    """This process has no file descriptor left for a connection: our doing, so there is a pause and nothing counts."""


class TransportErrorKind(enum.Enum):
    """At which point a call got stuck."""

    CONNECT = "connect"  # no connection: nothing was sent
    TLS = "tls"  # the two sides could not agree on a secure connection
    TIMEOUT = "timeout"
    BROKEN = "broken"  # the connection ended before the answer did, or the answer is no HTTP
    TOO_LARGE = "too large"
    OTHER = "other"


class TransportError(ServerFailed):
    """No answer came over the wire; the text holds no credentials.

    Attributes:
        kind: at which point it got stuck.
    """

    def __init__(self, kind: TransportErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type["TransportError"], tuple[TransportErrorKind, str]]:
        return type(self), (self.kind, str(self))


@attrs.frozen
class HttpCall:
    """One HTTP request, relative to a server's URL.

    Attributes:
        method: GET, POST or PUT.
        path: begins with a slash, already quoted.
        query: already encoded, without the question mark.
        headers: name and value pairs; may carry credentials, so ``repr`` leaves them out.
        body: what is sent; None with GET.
    """

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    body: bytes | None = attrs.field(default=None, repr=False)

    @property
    def target(self) -> str:
        """Path and query as they stand behind a server's URL."""
        return f"{self.path}?{self.query}" if self.query else self.path


@attrs.frozen
class HttpAnswer:
    """One HTTP answer, read to its end.

    Attributes:
        status: the HTTP status code.
        headers: lower-case names; a transport need only keep content-type, date and retry-after, and of a success none.
        body: as bytes, decompressed.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(default=b"", repr=False)

    def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        """The body as JSON, which is UTF-8; Python's reader would look at the first bytes to guess.

        Raises:
            ValueError: it is not JSON, or is nested too deeply for Python's reader.
        """
        text = self.body.removeprefix(BOM_UTF8).decode("utf-8", "surrogatepass")
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
