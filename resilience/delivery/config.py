"""How results are delivered: the options, checked once."""

import attrs

from resilience._checks import number, truth, whole
from resilience.errors import MAX_RETRY_AFTER

__all__ = ["RelayConfig"]


@attrs.frozen(kw_only=True)
class RelayConfig:
    """How results are delivered. All times are seconds.

    Attributes:
        inline_timeout: how long a destination may hold a unit.
        slow_after: an attempt that takes longer makes its destination slow: its results go to the relay at once.
        send_timeout: how long an attempt of the relay may take.
        max_in_flight: attempts of the relay at a time per destination, and in fifteen milliseconds; single ones
            while it fails.
        retry_initial: the pause after a first failure; it doubles, jittered down to a half.
        retry_maximum: the longest pause after a failure (a destination may ask for a longer one).
        refused_for: a result that its destination keeps refusing (`Refused`) becomes a dead letter after so long, if
            others were taken in that time.
        max_retry_after: the longest pause that a destination can ask for (`Throttled`).
        max_backlog: results that may wait for a destination before its backlog is full: `BacklogFull` is told, and
            ``Relay.has_room`` says no. They are sent ``max_in_flight`` at a time: what waits behind many of them may
            come too late. A result that was refused five times does not count: it may be the only one that waits,
            and other results show whether the destination is at fault.
        close_timeout: how long leaving the context manager may take to deliver what waits.
        write_first: write every result down before it is sent for the first time, if the store is durable: one that was
            sent or on its way when the process died is sent again, and its work is not repeated. It costs two commits
            for each result.

    Raises:
        ValueError: for a number out of range or two in the wrong order.
        TypeError: for a value of the wrong type.
    """

    inline_timeout: float = attrs.field(default=1.0, validator=number(0, exclusive=True))
    slow_after: float = attrs.field(default=0.5, validator=number(0, exclusive=True))
    send_timeout: float = attrs.field(default=30.0, validator=number(0, exclusive=True))
    max_in_flight: int = attrs.field(default=10, validator=whole(1))
    retry_initial: float = attrs.field(default=0.05, validator=number(0, exclusive=True))
    retry_maximum: float = attrs.field(default=5.0, validator=number(0, exclusive=True))
    refused_for: float = attrs.field(default=600.0, validator=number(0))
    max_retry_after: float = attrs.field(default=MAX_RETRY_AFTER, validator=number(0, exclusive=True))
    max_backlog: int = attrs.field(default=50, validator=whole(1))
    close_timeout: float = attrs.field(default=10.0, validator=number(0))
    write_first: bool = attrs.field(default=False, validator=truth)

    def __attrs_post_init__(self) -> None:
        for less, more in (("inline_timeout", "send_timeout"), ("retry_initial", "retry_maximum")):
            if getattr(self, less) > getattr(self, more):
                raise ValueError(
                    f"{less} ({getattr(self, less)!r}) is above {more} ({getattr(self, more)!r}): "
                    "raise the one or lower the other"
                )
