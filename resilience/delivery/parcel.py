"""One result on its way, what came of an attempt to send it, and what that tells a breaker: values, no decisions."""

import enum
import math
from typing import Any

import attrs

from resilience.delivery.store import Row
from resilience.events import Event

__all__ = ["Parcel", "Report", "Settled"]


class Report(enum.Enum):
    """What an answer tells a circuit breaker; ``REPEAT`` is a failure that only a probe's permit should report."""

    SUCCESS = "success"
    FAILURE = "failure"
    REPEAT = "repeat"
    NEUTRAL = "neutral"


@attrs.frozen
class Settled:
    """What came of an attempt.

    Attributes:
        kept: the result is still to be delivered.
        dead: why it never will be, if so.
        events: what to tell, in order.
        passed: it is another process's to deliver by now.
        taken: the destination has it.
    """

    kept: bool
    dead: str | None = None
    events: tuple[Event, ...] = ()
    passed: bool = False
    taken: bool = attrs.field(init=False)

    @taken.default
    def _taken(self) -> bool:
        return not (self.kept or self.passed) and self.dead is None


@attrs.define(eq=False)
class Parcel:
    """One result on its way. Its ``Lane`` changes it; drivers read it, and set ``row`` once it is written down.

    Attributes:
        number: its place among the results of its destination.
        key: its line.
        payload: the result.
        due: clock time before which it is not sent.
        inline: the unit that brought it is waiting for the attempt.
        timeout: seconds its unit should wait.
        grace: seconds besides for which its attempt may be silent: it waits for a next value.
        relayed: the running attempt was started by the relay.
        repeated: and its result had been tried before.
        away: an attempt is running (also one that is past its timeout: then ``abandoned``).
        started: clock time at which its last attempt began.
        released: it is written down, so that the relay may send it.
        gone: taken, or refused for good.
        attempts: how many attempts failed.
        throttles: how many ended in ``Throttled``.
        refusals: how many ended in ``Refused``.
        alone: how many of those came after another result had been taken since the one before.
        refused_at: clock time of the first of those.
        refused_last: clock time of the last refusal or request for a pause.
        final: it is the last word of its key, and must arrive; else it is never written down.
        row: what was written down.
        passed: another process has taken its row over, while an attempt was running.
    """

    number: int
    key: str
    payload: Any
    due: float
    inline: bool = False
    timeout: float = math.inf
    grace: float = 0.0
    relayed: bool = False
    repeated: bool = False
    away: bool = False
    abandoned: bool = False
    started: float = 0.0
    released: bool = False
    gone: bool = False
    attempts: int = 0
    throttles: int = 0
    refusals: int = 0
    alone: int = 0
    refused_at: float = math.inf
    refused_last: float = math.inf
    final: bool = True
    row: Row | None = None
    passed: bool = False

    @property
    def tried(self) -> bool:
        """Whether an attempt has failed before."""
        return bool(self.attempts or self.throttles)
