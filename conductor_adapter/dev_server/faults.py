"""Faults as one value, and the switch that holds the faults in force."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

__all__ = ["SCOPES", "FaultControl", "FaultSwitch", "Faults"]

SCOPES = ("all", "tasks", "polls", "updates", "payloads")
"""The calls that a fault can affect: all, polls and updates, one of these, or those for payloads stored outside."""
_OF_THE_SERVER = ("content-length", "transfer-encoding")


def _check_seconds(_: object, field: "attrs.Attribute[float]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field.name} must be a number of seconds, not {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{field.name} must be a finite number of seconds, 0 or more, not {value!r}")


def _check_status(_: object, field: "attrs.Attribute[int]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field.name} must be an HTTP status (0 for none), not {value!r}")
    if value != 0 and not 200 <= value <= 599:  # noqa: PLR2004 - the range of HTTP's final statuses
        raise ValueError(f"{field.name} must be an HTTP status from 200 to 599, or 0 for none, not {value!r}")


def _check_scope(_: object, field: "attrs.Attribute[str]", value: object) -> None:
    if value not in SCOPES:
        raise ValueError(f"{field.name} must be one of {', '.join(SCOPES)}, not {value!r}")


def _check_count(_: object, field: "attrs.Attribute[int]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field.name} must be a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{field.name} must be 0 or more, not {value!r}")


def _check_body(_: object, field: "attrs.Attribute[str | bytes | None]", value: object) -> None:
    if value is not None and not isinstance(value, str | bytes):
        raise TypeError(f"{field.name} must be a str or bytes, not {value!r:.80}")


def _check_headers(_: object, field: "attrs.Attribute[Mapping[str, str]]", value: object) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{field.name} must be headers by name, as in {{'Location': '/login'}}, not {value!r:.80}")
    for name, text in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^`|~\w-]+", name, re.ASCII):
            raise ValueError(f"{field.name}: {name!r:.80} is not the name of a header")
        if not isinstance(text, str) or not text.isprintable():
            raise ValueError(f"{field.name}: {name} must be a str in one line, not {text!r:.80}")


def _copied(value: Mapping[str, str]) -> Mapping[str, str]:
    return dict(value) if isinstance(value, Mapping) else value


_flag = attrs.validators.instance_of(bool)


@attrs.frozen(kw_only=True)
class Faults:
    """The faults of a server; by default there are none.

    Attributes:
        latency: seconds by which each call is delayed before the server handles it.
        hang: calls are accepted, but neither executed nor answered.
        swallow: calls are executed (a poll assigns its tasks), but never answered.
        refuse: the listening socket and every connection are closed.
        garbage: calls are answered with 200 and an HTML page, and not executed.
        database_away: calls are answered as by a server whose database is down, and not executed: a poll with no
            tasks, everything that needs the database with a 500 with ``"retryable": false``, the rest as usual. A real
            server answers so after its own timeout, often 1 s or 30 s: use ``latency`` for that.
        error: calls are answered with this HTTP status, and not executed; 0 for none.
        body: the body of those answers, instead of Conductor's own error object: a str, or bytes that are sent
            unchanged, for example compressed ones. Without ``error`` the status is 200.
        headers: additional headers of those answers; ``Content-Type`` defaults to ``application/json``.
        retry_after: seconds for a ``Retry-After`` header of those answers; 0 for none.
        surplus: a batch poll returns this many tasks more than requested, if there are any.
        entries: JSON text that is appended to the tasks of each batch poll, for example ``null`` or
            ``{"taskId": 7}, [[``; it need not be valid.
        only: the calls that are affected: ``all``, ``tasks`` (polls and updates), ``polls``, ``updates``, or
            ``payloads`` (those that fetch and store payloads outside). ``refuse`` always affects all.
        unless: headers by name; a call with all of them is not affected, as with a gateway that requires a new token.
        times: this many calls are affected, then the fault ends; 0 for as long as it is set.
        for_seconds: the faults end after this many seconds of the server's clock; 0 for never.

    A call that hangs or was swallowed is dropped (its connection is closed) when the faults are changed.
    """

    latency: float = attrs.field(default=0.0, validator=_check_seconds)
    hang: bool = attrs.field(default=False, validator=_flag)
    swallow: bool = attrs.field(default=False, validator=_flag)
    refuse: bool = attrs.field(default=False, validator=_flag)
    garbage: bool = attrs.field(default=False, validator=_flag)
    database_away: bool = attrs.field(default=False, validator=_flag)
    error: int = attrs.field(default=0, validator=_check_status)
    body: str | bytes | None = attrs.field(default=None, validator=_check_body)
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_copied, validator=_check_headers)
    retry_after: float = attrs.field(default=0.0, validator=_check_seconds)
    surplus: int = attrs.field(default=0, validator=_check_count)
    entries: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    only: str = attrs.field(default="all", validator=_check_scope)
    unless: Mapping[str, str] = attrs.field(factory=dict, converter=_copied, validator=_check_headers)
    times: int = attrs.field(default=0, validator=_check_count)
    for_seconds: float = attrs.field(default=0.0, validator=_check_seconds)

    def __attrs_post_init__(self) -> None:
        for name in self.headers:
            if name.lower() in _OF_THE_SERVER:
                raise ValueError(f"headers: {name} is set by the server itself")
        if (self.headers or self.retry_after) and not self.answers:
            name = "headers" if self.headers else "retry_after"
            raise ValueError(f"{name} has no effect without an answer: set error= or body= as well")

    @property
    def answers(self) -> bool:
        """Whether calls are answered with ``error`` or ``body``."""
        return bool(self.error) or self.body is not None

    @property
    def any(self) -> bool:
        """Whether there is any fault."""
        flags = (self.hang, self.swallow, self.refuse, self.garbage, self.database_away, self.answers)
        return any(flags) or bool(self.latency or self.surplus or self.entries)

    def hit(self, kind: str, headers: Mapping[str, str]) -> bool:
        """Whether a call of this kind (``poll``, ``update``, ``payload``, ``other``) and these headers is affected."""
        if self.unless and all(headers.get(name) == text for name, text in self.unless.items()):
            return False
        if self.only == "all":
            return True
        if self.only == "tasks":
            return kind in {"poll", "update"}
        return self.only == f"{kind}s"

    def to_wire(self) -> dict[str, Any]:
        """Render the JSON object of the control path; bytes are ``{"base64": …}`` there."""
        wire = attrs.asdict(self)
        if isinstance(self.body, bytes):
            wire["body"] = {"base64": base64.b64encode(self.body).decode()}
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Faults":
        """Read the JSON object of the control path; ValueError or TypeError names the problem."""
        known = [field.name for field in attrs.fields(cls)]
        unknown = sorted(set(wire) - set(known))
        if unknown:
            raise ValueError(f"unknown fault {unknown[0]!r}; known are {', '.join(known)}")
        body = wire.get("body")
        return cls(**{**wire, "body": _bytes_of(body)}) if isinstance(body, Mapping) else cls(**wire)

    @classmethod
    def parse(cls, text: str) -> "Faults":
        """Read ``"hang"``, ``"latency=1,only=polls"`` or the control path's JSON; ValueError names the problem."""
        if text.lstrip().startswith("{"):
            try:
                return cls.from_wire(json.loads(text))
            except json.JSONDecodeError as error:
                raise ValueError(f"faults that begin with {{ must be a JSON object: {error}") from None
        wire: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            wire[name] = _parse_value(name, value) if value else True
        return cls.from_wire(wire)


def _parse_value(name: str, value: str) -> Any:  # noqa: ANN401 - the type depends on the name
    if name in {"only", "body", "entries"}:
        return value
    if value.lower() in {"true", "false"}:
        return value.lower() == "true"
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        raise ValueError(
            f"fault {name}={value}: {value!r} is neither a number, true nor false; separate faults by commas, as in"
            " error=503,only=updates"
        ) from None


def _bytes_of(body: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(body["base64"], validate=True)
    except (KeyError, TypeError, binascii.Error):
        raise ValueError('body must be a str, or bytes as {"base64": "…"}') from None


class FaultSwitch:
    """Holds the faults in force. Reading is cheap; to set them, use ``DevServer``, which notifies the server."""

    def __init__(self, faults: Faults) -> None:
        self._current = faults
        self._left = faults.times

    @property
    def current(self) -> Faults:
        """The faults in force."""
        return self._current

    def put(self, faults: Faults) -> None:
        """Replace the faults in force."""
        self._current = faults
        self._left = faults.times

    def take(self, kind: str, headers: Mapping[str, str]) -> Faults | None:
        """Return the faults for a call, None if it is not affected; counts ``times`` down."""
        faults = self._current
        if not faults.any or not faults.hit(kind, headers):
            return None
        if faults.times:
            if self._left == 0:
                return None
            self._left -= 1
        return faults


class FaultControl:
    """The faults of a running server. Thread-safe."""

    def __init__(self, get: Callable[[], Faults], put: Callable[[Faults], None]) -> None:
        self._get = get
        self._put = put

    @property
    def current(self) -> Faults:
        """The faults in force."""
        return self._get()

    def set(self, **faults: Any) -> None:  # noqa: ANN401 - the fields of Faults
        """Replace the faults in force; the arguments are those of ``Faults``."""
        self._put(Faults(**faults))

    def clear(self) -> None:
        """Remove all faults."""
        self._put(Faults())
