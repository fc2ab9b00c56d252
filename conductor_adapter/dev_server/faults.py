"""What can be made to go wrong: faults as one value, and the switch that holds the one in force."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

__all__ = ["SCOPES", "FaultControl", "FaultSwitch", "Faults"]

SCOPES = ("all", "tasks", "polls", "updates")
"""Which calls a fault can hit: every call, polls and updates, or one of the two."""


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


def _check_times(_: object, field: "attrs.Attribute[int]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field.name} must be a whole number of calls (0: without end), not {value!r}")
    if value < 0:
        raise ValueError(f"{field.name} must be 0 (without end) or more calls, not {value!r}")


_flag = attrs.validators.instance_of(bool)


@attrs.frozen(kw_only=True)
class Faults:
    """What goes wrong on this server. The default is nothing.

    Attributes:
        latency: seconds each call is kept waiting before the server looks at it.
        hang: calls are accepted and never answered; the server does nothing for them.
        swallow: calls are carried out (a poll assigns its tasks) and never answered.
        refuse: the listening socket is closed and with it every connection.
        garbage: calls are answered with 200 and a page of HTML, and nothing is done for them.
        error: calls are answered with this HTTP status, and nothing is done for them; 0 for none.
        retry_after: seconds for a ``Retry-After`` header on those errors; 0 for none.
        only: which calls are hit: ``all``, ``tasks`` (polls and updates), ``polls`` or ``updates``. Refusing is
            for all, whatever this says.
        times: so many calls are hit, then the fault is over; 0 for as long as it is set.
        for_seconds: the faults end by themselves after so many seconds; 0 for never.

    A call that hangs or was swallowed is dropped (its connection is closed) once the faults are changed.
    """

    latency: float = attrs.field(default=0.0, validator=_check_seconds)
    hang: bool = attrs.field(default=False, validator=_flag)
    swallow: bool = attrs.field(default=False, validator=_flag)
    refuse: bool = attrs.field(default=False, validator=_flag)
    garbage: bool = attrs.field(default=False, validator=_flag)
    error: int = attrs.field(default=0, validator=_check_status)
    retry_after: float = attrs.field(default=0.0, validator=_check_seconds)
    only: str = attrs.field(default="all", validator=_check_scope)
    times: int = attrs.field(default=0, validator=_check_times)
    for_seconds: float = attrs.field(default=0.0, validator=_check_seconds)

    @property
    def any(self) -> bool:
        """Whether anything is wrong at all."""
        return bool(self.latency or self.hang or self.swallow or self.refuse or self.garbage or self.error)

    def hit(self, kind: str) -> bool:
        """Whether a call of that kind (``poll``, ``update`` or ``other``) is hit."""
        if self.only == "all":
            return True
        if self.only == "tasks":
            return kind != "other"
        return self.only == f"{kind}s"

    def to_wire(self) -> dict[str, Any]:
        """Render the JSON object of the control path."""
        return attrs.asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Faults":
        """Read the JSON object of the control path; ValueError or TypeError names what is wrong."""
        known = [field.name for field in attrs.fields(cls)]
        unknown = sorted(set(wire) - set(known))
        if unknown:
            raise ValueError(f"there is no fault {unknown[0]!r}; there are {', '.join(known)}")
        return cls(**wire)

    @classmethod
    def parse(cls, text: str) -> "Faults":
        """Read ``"hang"`` or ``"latency=1,only=polls"``; ValueError names what is wrong."""
        wire: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            wire[name] = _parse_value(name, value) if value else True
        return cls.from_wire(wire)


def _parse_value(name: str, value: str) -> Any:  # noqa: ANN401 - what it is depends on the name
    if name == "only":
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


class FaultSwitch:
    """Holds the faults in force. Reading is cheap; whoever sets it tells the server through ``DevServer``."""

    def __init__(self, faults: Faults) -> None:
        self._current = faults
        self._left = faults.times

    @property
    def current(self) -> Faults:
        """The faults in force."""
        return self._current

    def put(self, faults: Faults) -> None:
        """Put other faults in force."""
        self._current = faults
        self._left = faults.times

    def take(self, kind: str) -> Faults | None:
        """Return the faults a call of that kind meets, None if it is not hit; counts ``times`` down."""
        faults = self._current
        if not faults.any or not faults.hit(kind):
            return None
        if faults.times:
            if self._left == 0:
                return None
            self._left -= 1
        return faults


class FaultControl:
    """What goes wrong on a server that runs. Thread-safe."""

    def __init__(self, get: Callable[[], Faults], put: Callable[[Faults], None]) -> None:
        self._get = get
        self._put = put

    @property
    def current(self) -> Faults:
        """The faults in force."""
        return self._get()

    def set(self, **faults: Any) -> None:  # noqa: ANN401 - the fields of Faults
        """Put these faults in force instead of the former ones; the arguments are those of ``Faults``."""
        self._put(Faults(**faults))

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self._put(Faults())
