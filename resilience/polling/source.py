"""What the poller is told: sources, its configuration, and the poll requests that the planner answers with."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import attrs

from resilience._checks import check_whole, function, number, text, truth, whole
from resilience.polling.tally import Tally

__all__ = ["PollConfig", "PollRequest", "Source", "SourceView"]

V = TypeVar("V")


def check_capacity(capacity: int) -> int:
    """The capacity, if it is a whole number of at least 1."""
    check_whole("capacity", capacity, least=1)
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
        extend: ``extend(value, timeout)`` prolongs the lease of a value that is held or runs, by its whole length from
            now on; within ``timeout`` seconds, or its answer is worth nothing. It runs in a thread of its own, may
            raise (it is tried again then; not after `Undeliverable`), and may be called a moment after the value's end.
        lease: ``lease(value)`` tells how many seconds ``value`` is lent without an ``extend``; None for ever.
        bounded: ``poll`` ends soon after its wait, whatever the other side does: where it is the only source, and
            prompt, the threads of `Poller.start` poll it themselves (rule P14), and it runs in no thread of its own.
        weight: its claim to the capacity, relative to the others.
        max_batch: the most it can be asked for in one poll; None for no limit.
        max_units: the most units it may hold at once; None for no limit.
        reserve: units that nobody else may have, so that its items start at once, at the cost that these units often
            idle; for urgent work beside tasks that take an hour.

    Raises:
        ValueError: a number below 1 (``reserve``: below 0, or above ``max_units``); one of ``extend`` and ``lease``
            without the other.
        TypeError: a name that is no text, something that cannot be called, a ``bounded`` that is neither True nor
            False, or no whole number.
    """

    name: str = attrs.field(validator=text)
    poll: Callable[[int, float], Sequence[V] | None] = attrs.field(validator=function)
    give_back: Callable[[Sequence[V]], object] | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(function)
    )
    extend: Callable[[V, float], object] | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(function)
    )
    lease: Callable[[V], float | None] | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(function)
    )
    bounded: bool = attrs.field(default=False, kw_only=True, validator=truth)
    weight: int = attrs.field(default=1, kw_only=True, validator=whole(1))
    max_batch: int | None = attrs.field(default=None, kw_only=True, validator=attrs.validators.optional(whole(1)))
    max_units: int | None = attrs.field(default=None, kw_only=True, validator=attrs.validators.optional(whole(1)))
    reserve: int = attrs.field(default=0, kw_only=True, validator=whole(0))

    def __attrs_post_init__(self) -> None:
        if self.max_units is not None and self.reserve > self.max_units:
            raise ValueError(
                f"source {self.name!r} reserves {self.reserve} units and may hold {self.max_units} at once (max_units):"
                " reserve no more than it may hold"
            )
        if (self.extend is None) != (self.lease is None):
            given, missing = ("lease", "extend") if self.extend is None else ("extend", "lease")
            raise ValueError(
                f"source {self.name!r} has {given} and no {missing}: give both, how long its values are lent and how"
                " that is prolonged, or neither"
            )

    def __deepcopy__(self, _: object) -> "Source[V]":
        """A value like any other: copies of what plans with it share it, and what it calls."""
        return self


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
        max_abandoned: abandoned polls of one source that may run at once; with so many it is not polled.

    Raises:
        ValueError: a number out of range, or ``poll_wait`` + ``overdue_after`` < ``poll_timeout`` < ``give_up_after``
            does not hold.
        TypeError: a value of the wrong type.
    """

    poll_wait: float = attrs.field(default=1.0, validator=number(0.0, exclusive=True))
    overdue_after: float = attrs.field(default=0.5, validator=number(0.0, exclusive=True))
    poll_timeout: float = attrs.field(default=5.0, validator=number(0.0, exclusive=True))
    give_up_after: float = attrs.field(default=30.0, validator=number(0.0, exclusive=True))
    max_hold: float = attrs.field(default=5.0, validator=number(0.0, exclusive=True))
    max_abandoned: int = attrs.field(default=3, validator=whole(1))

    def __attrs_post_init__(self) -> None:
        overdue = self.poll_wait + self.overdue_after
        if not overdue < self.poll_timeout < self.give_up_after:
            raise ValueError(
                "poll_wait + overdue_after < poll_timeout < give_up_after must hold, or healthy polls time out;"
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
        early: whether it is to be probed though its breaker is open (rule P12).
    """

    source: str
    count: int
    wait: float
    probe: bool
    number: int
    early: bool = False


@attrs.frozen(kw_only=True)
class SourceView(Tally):
    """How a source stands, and what became of all that it brought so far (`Tally`).

    ``received``, ``started``, ``finished``, ``given_back``, ``giving_back``, ``kept``, ``late``, ``held`` and
    ``executing`` are counts of items, as there.

    Attributes:
        state: ``suspect``, ``slow``, ``backlogged`` or ``caught up``; ``removed`` while items of it still run.
        in_flight: what its live poll was asked for; 0 without one.
        chained: items that came with the answer to a result and not by a poll, so far.
    """

    state: str
    in_flight: int
    chained: int = 0


def checked(values: Sequence[V] | None, source: str, rule: str) -> Sequence[V]:
    """A list of what ``source`` brought, nothing for None; ``rule`` says what it is to be."""
    if values is None:
        return ()
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise TypeError(f"source {source!r} returned {type(values).__name__}; {rule} a list, or None for empty")
    return list(values)  # whatever its class computes is computed here, not under the poller's lock


def check_sources(sources: Iterable[Source[Any]]) -> list[Source[Any]]:
    """The sources, if there is at least one and no two share a name."""
    found = list(sources)
    if not found:
        raise ValueError("a poller needs at least one source")
    names = [source.name for source in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two sources are called {name!r}: their shares, breakers and items need names of their own"
            )
    return found
