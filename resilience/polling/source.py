"""What the poller is told: sources, its configuration, and the poll requests that the planner answers with."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import attrs

__all__ = ["PollConfig", "PollRequest", "Source"]

V = TypeVar("V")


def check_seconds(instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuse what is no positive, finite number of seconds."""
    name = f"{type(instance).__name__}.{attribute.name}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be more than 0 seconds and finite, not {value!r}")


def check_count(instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuse what is no whole number of at least 1."""
    name = f"{type(instance).__name__}.{attribute.name}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")


def check_capacity(capacity: object) -> int:
    """The capacity, if it is a whole number of at least 1."""
    if isinstance(capacity, bool) or not isinstance(capacity, int):
        raise TypeError(f"capacity must be a whole number of units, not {capacity!r}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1 unit, not {capacity!r}")
    return capacity


@attrs.frozen
class Source(Generic[V]):
    """One thing that is polled.

    Attributes:
        name: what it is called in shares, breakers, events and items; unique in a poller.
        poll: ``poll(count, wait)`` asks for at most ``count`` values, waiting at most ``wait`` seconds for the first;
            it returns a sequence, ``None`` is empty. It runs in a thread of its own and may raise:
            `Throttled` pauses the source and counts nothing, anything else counts against it.
        give_back: ``give_back(values)`` returns values that never started. Without it they are reported as lost.
        weight: its claim to the capacity, relative to the others.
        max_batch: the most it can be asked for in one poll; None for no limit.
        max_units: the most units it may hold at once; None for no limit.
    """

    name: str = attrs.field(validator=attrs.validators.instance_of(str))
    poll: Callable[[int, float], Sequence[V] | None] = attrs.field(validator=attrs.validators.is_callable())
    give_back: Callable[[Sequence[V]], object] | None = attrs.field(default=None, kw_only=True)
    weight: int = attrs.field(default=1, kw_only=True, validator=check_count)
    max_batch: int | None = attrs.field(default=None, kw_only=True, validator=attrs.validators.optional(check_count))
    max_units: int | None = attrs.field(default=None, kw_only=True, validator=attrs.validators.optional(check_count))


@attrs.frozen(kw_only=True)
class PollConfig:
    """How a poller times its polls, in seconds; a poll's clock starts when it is sent.

    Attributes:
        poll_wait: how long a source may wait for its first value while nobody is backlogged.
        overdue_after: past its wait, when what a poll was granted is lent to the others.
        poll_timeout: when a poll is abandoned and counted against its source; a late answer is still taken in.
        give_up_after: when the connection of an abandoned poll is to be closed. The poller hands this number on and
            does not act on it: only the source's ``poll`` can close its connection.
        max_hold: how long an item may be held without starting before it is given back.
        max_abandoned: abandoned polls of one source that may run at once.
    """

    poll_wait: float = attrs.field(default=1.0, validator=check_seconds)
    overdue_after: float = attrs.field(default=0.5, validator=check_seconds)
    poll_timeout: float = attrs.field(default=5.0, validator=check_seconds)
    give_up_after: float = attrs.field(default=30.0, validator=check_seconds)
    max_hold: float = attrs.field(default=5.0, validator=check_seconds)
    max_abandoned: int = attrs.field(default=3, validator=check_count)

    def __attrs_post_init__(self) -> None:
        overdue = self.poll_wait + self.overdue_after
        if not overdue < self.poll_timeout < self.give_up_after:
            raise ValueError(
                "poll_wait + overdue_after < poll_timeout < give_up_after must hold, or a healthy source's polls time out;"
                f" it is {self.poll_wait!r} + {self.overdue_after!r}, {self.poll_timeout!r}, {self.give_up_after!r}:"
                " shorten poll_wait or lengthen the others"
            )


@attrs.frozen
class PollRequest:
    """The planner's word that a poll is to be sent.

    Attributes:
        source: the source's name.
        count: how many values to ask for.
        wait: seconds the source may wait for the first.
        probe: whether it stands outside the capacity's sum (rule P2).
        number: which poll of this planner it is, from 1.
    """

    source: str
    count: int
    wait: float
    probe: bool
    number: int
