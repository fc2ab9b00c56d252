"""What the poller is told: sources, its configuration, and the poll requests that the planner answers with."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from resilience._checks import check_whole, number, plain, refuse_unrun, teaches_options, text, truth, whole
from resilience.errors import MAX_RETRY_AFTER, Incomplete
from resilience.polling.tally import Tally

__all__ = ["PollConfig", "PollRequest", "Source", "SourceView"]

V = TypeVar("V")
MAX_SURPLUS = 1000  # values that are taken from an iterator beyond those that were asked for; it may never end


def check_capacity(capacity: int) -> int:
    """The capacity, if it is a whole number of at least 1."""
    check_whole("capacity", capacity, least=1)
    return capacity


@teaches_options()
@attrs.frozen
class Source(Generic[V]):
    """One thing that is polled.

    Attributes:
        name: what it is called in shares, breakers, events and items; unique in a poller.
        poll: ``poll(count, wait)`` asks for at most ``count`` values, waiting at most ``wait`` seconds for the first;
            it returns a sequence, ``None`` is empty; or an iterator (a generator is asked for ``count`` values and no
            more). It runs in a thread of its own and may raise: `Throttled` pauses the source and counts nothing,
            anything else counts against it. A source whose ``poll`` returns anything else, such as a dict, is paused
            until `Poller.resume`: each further poll would lose what it brings.
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
        TypeError: a name that is no text, something that cannot be called, an ``async def`` function (and but for
            ``poll`` a generator function), a ``bounded`` that is neither True nor False, or no whole number.
    """

    name: str = attrs.field(validator=text)
    poll: Callable[[int, float], Sequence[V] | Iterator[V] | None] = attrs.field(validator=plain(generator=True))
    give_back: Callable[[Sequence[V]], object] | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(plain())
    )
    extend: Callable[[V, float], object] | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(plain())
    )
    lease: Callable[[V], float | None] | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(plain())
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


@teaches_options()
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
        max_retry_after: the longest pause that a source gets by asking for it (`Throttled`).
        max_lease: how long after its arrival an item's lease is extended at most, so that a handler that never returns
            does not keep it for ever; None for as long as it runs.

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
    max_retry_after: float = attrs.field(default=MAX_RETRY_AFTER, validator=number(0.0, exclusive=True))
    max_lease: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(number(0.0, exclusive=True))
    )

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

    ``received``, ``started``, ``finished``, ``given_back``, ``giving_back``, ``kept``, ``dropped``, ``late``, ``held``
    and ``executing`` are counts of items, as there.

    Attributes:
        state: ``suspect``, ``slow``, ``backlogged`` or ``caught up``; ``removed`` while items of it still run.
        in_flight: what its live poll was asked for; 0 without one.
        chained: items that came with the answer to a result and not by a poll, so far.
    """

    state: str
    in_flight: int
    chained: int = 0


class WrongAnswer(TypeError):  # noqa: N818 - says what it was
    """A source returned something that cannot be taken in; what it held is lost, and so would be what comes next."""


def checked(values: Sequence[V] | Iterator[V] | None, source: str, rule: str, most: int = MAX_SURPLUS) -> Sequence[V]:
    """A list of what ``source`` brought, nothing for None; ``rule`` says what it is to be.

    Args:
        values: what it brought.
        source: its name.
        rule: says what it is to be.
        most: how many values are taken from a generator, which makes them as they are asked for; from any other
            iterator, which may have them already, 1000 more.

    Raises:
        WrongAnswer: it cannot be taken in.
        Incomplete: an iterator raised after some values.
    """
    if values is None:
        return ()
    if isinstance(values, Iterator):
        return _taken(values, most)
    if isinstance(values, (str, bytes, bytearray, Mapping)) or not isinstance(values, Sequence):
        raise WrongAnswer(_what_instead(values, source, rule))
    return list(values)  # whatever its class computes is computed here, not under the poller's lock


def _taken(values: Iterator[V], most: int) -> list[V]:
    """At most so many values of an iterator; those that came before it raised are not lost with its error."""
    taken: list[V] = []
    try:
        for value in itertools.islice(values, most if inspect.isgenerator(values) else most + MAX_SURPLUS):
            taken.append(value)  # noqa: PERF402 - it is in the list before the next is asked for
    except Exception as error:
        if not taken:
            raise
        raise Incomplete(f"it raised after {len(taken)} values: {error!r}", taken) from error
    return taken


def _what_instead(values: object, source: str, rule: str) -> str:
    try:
        refuse_unrun("poll", values)
    except TypeError as error:
        return f"source {source!r}: {error}"
    return f"source {source!r} returned {type(values).__name__}; {rule} a list, or None for empty"


def check_sources(sources: Iterable[Source[Any]]) -> list[Source[Any]]:
    """The sources, if there is at least one and no two share a name."""
    if isinstance(sources, (Source, Mapping, str, bytes)) or not isinstance(sources, Iterable):
        raise TypeError(f"a poller takes a list of Source objects, not {_shown(sources)}: write {_list_of(sources)}")
    found = list(sources)
    if not found:
        raise ValueError("a poller needs at least one source")
    for source in found:
        check_source(source)
    names = [source.name for source in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two sources are called {name!r}: their shares, breakers and items need names of their own"
            )
    return found


def check_source(source: object) -> None:
    """Refuse what is not a source.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(source, Source):
        name = "poll" if callable(source) else "..."
        raise TypeError(f"a source must be a Source, not {_shown(source)}: write Source('name', {name})")


def _shown(value: object) -> str:
    return "a lone Source" if isinstance(value, Source) else f"{value!r:.60} of type {type(value).__name__}"


def _list_of(value: object) -> str:
    if isinstance(value, Source):
        return "[source]"
    if isinstance(value, Mapping):
        return "[Source(name, poll) for name, poll in functions.items()]"
    return "[Source('name', poll)]"
