"""What a consumer is told: its endpoints, the kinds of work, and how it runs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from resilience._checks import check_plain, number, plain, teaches_options, text, whole
from resilience.breaker import BreakerConfig
from resilience.delivery import Destination, RelayConfig
from resilience.polling import Item, PollConfig, Source

__all__ = ["ConsumerConfig", "Endpoint", "Work", "check_endpoints", "destinations_of"]

V = TypeVar("V")


def always(_: object) -> bool:
    """Every answer must arrive."""
    return True


@teaches_options()
@attrs.frozen(kw_only=True)
class Endpoint(Generic[V]):
    """One service: a source of items, and the destination of their answers.

    Attributes:
        name: what it is called in shares, breakers, events and items; unique in one kind of work.
        poll: ``poll(count, wait)`` returns at most ``count`` values, as for `Source`.
        send: ``send(answer, timeout)`` returns once the service took what the handler returned, as for `Destination`.
        give_back: ``give_back(values)`` returns values that never started, as for `Source`.
        extend: ``extend(value, timeout)`` extends the lease of a value, as for `Source`.
        lease: ``lease(value)`` returns for how many seconds a value is ours, as for `Source`.
        exchange: ``exchange(answer, timeout)`` sends an answer and returns the values that come with the reply, as for
            `Destination`; a plain ``send`` otherwise.
        exchange_wait: seconds that the service may wait for a value in ``exchange``.
        key: ``key(answer)`` is what events and dead letters call an answer; answers of one key are sent in their order.
            None numbers them: then no answer waits for another one.
        persist: ``persist(answer)`` is False for an answer that is worthless later, such as a progress report: it is
            sent again as long as the process lives, never written down, and the item's lease goes on. None: all must
            arrive.
        bounded: ``poll`` and ``send`` keep to their times by themselves, whatever the service does; such calls need no
            thread of their own.
        weight: its claim to the capacity, relative to the others.
        max_batch: the most values that one poll may ask for; None for no limit.
        max_units: the most units that its items may hold at once; None for no limit.
        identity: what the name stands for (a URL, say); written down with each answer.

    Raises:
        ValueError, TypeError: as for `Source` and `Destination`.
    """

    name: str = attrs.field(validator=text, kw_only=False)
    poll: Callable[[int, float], Sequence[V] | Iterator[V] | None]
    send: Callable[[Any, float], None]
    give_back: Callable[[Sequence[V]], object] | None = None
    extend: Callable[[V, float], object] | None = None
    lease: Callable[[V], float | None] | None = None
    exchange: Callable[[Any, float], Sequence[V] | None] | None = None
    exchange_wait: float = 0.0
    key: Callable[[Any], str] | None = attrs.field(default=None, validator=attrs.validators.optional(plain()))
    persist: Callable[[Any], bool] = attrs.field(default=always, validator=plain())
    bounded: bool = False
    weight: int = 1
    max_batch: int | None = None
    max_units: int | None = None
    identity: str = ""

    def __attrs_post_init__(self) -> None:
        self.source()
        self.destination()

    def source(self) -> Source[V]:
        """What a `Poller` polls."""
        return Source(
            self.name,
            self.poll,
            give_back=self.give_back,
            extend=self.extend,
            lease=self.lease,
            bounded=self.bounded,
            weight=self.weight,
            max_batch=self.max_batch,
            max_units=self.max_units,
        )

    def destination(self) -> Destination:
        """Where a `Relay` sends to."""
        return Destination(
            self.name,
            self.send,
            identity=self.identity,
            bounded=self.bounded,
            exchange=self.exchange,
            exchange_wait=self.exchange_wait,
        )


def _are_endpoints(work: "Work[Any]", _: object, value: object) -> None:
    wanted = f"endpoints of work {work.name!r} must be a list of Endpoint objects"
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{wanted}, not {value!r:.60} of type {type(value).__name__}: write [...]")
    for one in value:
        if not isinstance(one, Endpoint):
            raise TypeError(f"{wanted}, not {one!r:.60} of type {type(one).__name__} among them")
    if not value:
        raise ValueError(f"{wanted}; there is none")
    check_names(value)


def check_names(endpoints: Iterable[Endpoint[Any]]) -> None:
    """Refuse two endpoints of one name in one kind of work.

    Raises:
        ValueError: there are such.
    """
    names = [endpoint.name for endpoint in endpoints]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two endpoints are called {name!r}: their shares and items need different names")


@attrs.frozen
class Work(Generic[V]):
    """One kind of work of a consumer that has several: they share its destinations, and nothing else.

    Attributes:
        name: what it is called in ``explain`` and errors; unique in a consumer.
        handler: ``handler(item)`` returns the answer to an item; None for an item that needs no answer.
        endpoints: where its items come from; those of one name are the same destination in every kind of work.
        capacity: items that may be handled at once.

    Raises:
        ValueError: a capacity below 1, no endpoint, or two of one name.
        TypeError: a ``handler`` that is not a plain function, or another value of the wrong type.
    """

    name: str = attrs.field(validator=text)
    handler: Callable[[Item[V]], object] = attrs.field(validator=plain())
    endpoints: Sequence[Endpoint[V]] = attrs.field(validator=_are_endpoints)
    capacity: int = attrs.field(validator=whole(1))


def _is_config(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    wanted = {"poll": PollConfig, "breaker": BreakerConfig, "relay": RelayConfig}[attribute.name]
    if not isinstance(value, wanted):
        raise TypeError(f"{attribute.name} must be a {wanted.__name__}, not {value!r} of type {type(value).__name__}")


@teaches_options(poll=PollConfig, breaker=BreakerConfig, relay=RelayConfig)
@attrs.frozen(kw_only=True)
class ConsumerConfig:
    """How a consumer runs.

    Attributes:
        poll: the timing of polls.
        breaker: when an endpoint is left alone, for polls and for sends.
        relay: how answers are delivered.
        grace: seconds that stopping may take.

    Raises:
        ValueError: a number out of range.
        TypeError: a value of the wrong type.
    """

    poll: PollConfig = attrs.field(factory=PollConfig, validator=_is_config)
    breaker: BreakerConfig = attrs.field(factory=BreakerConfig, validator=_is_config)
    relay: RelayConfig = attrs.field(factory=RelayConfig, validator=_is_config)
    grace: float = attrs.field(default=10.0, validator=number(0.0))


def destinations_of(endpoints: Iterable[Endpoint[Any]]) -> list[Destination]:
    """The destinations of all endpoints, one for each name.

    Raises:
        ValueError: two endpoints of one name send to different places.
    """
    found: dict[str, Destination] = {}
    for endpoint in endpoints:
        destination = endpoint.destination()
        if found.setdefault(endpoint.name, destination) != destination:
            raise ValueError(
                f"two endpoints are called {endpoint.name!r} and differ in how they send (send, exchange, identity or"
                " bounded): give them names of their own"
            )
    return list(found.values())


def check_endpoints(given: object) -> "tuple[Endpoint[Any], ...] | tuple[Work[Any], ...]":
    """The endpoints of a consumer, or its kinds of work.

    Raises:
        ValueError: there is none, or two kinds of work have one name.
        TypeError: anything else; the text says what to write.
    """
    wanted = "a consumer takes a list of Endpoint objects, or of Work objects"
    if isinstance(given, (Endpoint, Work, Mapping, str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"{wanted}, not {given!r:.60} of type {type(given).__name__}: write [...]")
    found = tuple(given)
    if not found:
        raise ValueError(f"{wanted}; there is none")
    kind = type(found[0])
    for one in found:
        if not isinstance(one, (Endpoint, Work)) or type(one) is not kind:
            raise TypeError(f"{wanted}, not {one!r:.60} of type {type(one).__name__} among them")
    check_names(one for one in found if isinstance(one, Endpoint))
    names = [one.name for one in found if isinstance(one, Work)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two kinds of work are called {name!r}: give them names of their own")
    return found


def work_of(handler: Callable[[Item[V]], object], endpoints: Sequence[Endpoint[V]], capacity: int) -> Work[V]:
    """The only kind of work of a consumer."""
    check_plain("handler", handler)
    return Work("", handler, endpoints, capacity)
