"""Destinations and the lanes that lead to them; what is told and logged of a delivery. Shared by the drivers."""

import itertools
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from resilience._checks import check_plain, number, text, truth
from resilience.delivery.config import RelayConfig
from resilience.delivery.parcel import Parcel, Report
from resilience.delivery.schedule import Lane
from resilience.delivery.store import Row
from resilience.delivery.tally import Tally
from resilience.events import (
    DeadLettered,
    DeliveryFailed,
    DeliveryRefused,
    DeliveryResumed,
    Event,
    Listener,
    OutboxResumed,
    RowsKept,
    notify,
)

if TYPE_CHECKING:
    from resilience.breaker import CircuitBreaker, Permit
    from resilience.registry import BreakerRegistry

__all__ = ["Announcer", "Destination", "Exchange", "Route", "check_destinations", "report", "routes"]

log = logging.getLogger("resilience.delivery")

Exchange = Callable[[Any, float], Sequence[Any] | None]
_numbers = itertools.count(1)  # of a process: its rows keep their order also if one relay follows another


@attrs.frozen
class Destination:
    """Where results go.

    Attributes:
        name: what deliveries call it; its circuit breaker has the same name.
        send: ``send(payload, timeout)`` returns once the result was taken, within ``timeout`` seconds if it can. It
            raises ``Undeliverable`` for a result that it will certainly never take, ``Refused`` for one that it did not
            take, ``Throttled`` to be left alone for a while, and anything else to say that it failed. Called from
            several threads.
        identity: what the name stands for (a URL, say); written down with each result.
        bounded: ``send`` keeps to its timeout by itself, whatever the other side does: it may run in the unit's thread.
        exchange: ``exchange(payload, timeout)`` is a ``send`` that brings what its source hands out next: it returns
            values (none: the source has no more for now), or None when nothing was asked for. Only used for a result
            that is delivered with a ``chain``, and never to repeat: a lost answer may have been a value.
        exchange_wait: seconds that ``exchange`` may wait for a value after the result was taken.

    Raises:
        ValueError: for an empty name, or a negative wait.
        TypeError: for a name or an identity that is no text, a ``send`` or ``exchange`` that is not a plain function,
            such as an ``async def``, or a ``bounded`` that is neither True nor False.
    """

    name: str
    send: Callable[[Any, float], None]
    identity: str = attrs.field(default="", validator=text)
    bounded: bool = attrs.field(default=False, validator=truth)
    exchange: Exchange | None = attrs.field(default=None, kw_only=True)
    exchange_wait: float = attrs.field(default=0.0, kw_only=True, validator=number(0.0))

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name of a destination must be a text, not {self.name!r}: convert it with str()")
        if not self.name:
            raise ValueError("name of a destination must not be '': give it one, its results and events carry it")
        for option, value in (("send", self.send), ("exchange", self.exchange)):
            if value is not None or option == "send":
                check_plain(f"{option} of destination {self.name!r}", value)


@attrs.define(eq=False)
class Route:
    """A destination, the lane of its results, and its breaker, if it has one.

    ``astray`` counts the exchanges that go on without their unit; the ledger's lock guards it and the ``tally``.
    """

    destination: Destination
    lane: Lane
    breaker: "CircuitBreaker | None"
    astray: int = 0
    tally: Tally = attrs.field(factory=Tally)

    def row(self, parcel: Parcel) -> Row:
        """What is written down of ``parcel``."""
        return Row(self.destination.name, self.destination.identity, parcel.key, parcel.number, parcel.payload)


def check_destinations(given: object) -> tuple[Destination, ...]:
    """The destinations of a relay.

    Raises:
        TypeError: for anything else than several `Destination`; the text says what to write.
    """
    wanted = "destinations must be several Destination, such as [Destination('eu', send)]"
    if isinstance(given, (str, Destination, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(f"{wanted}, not {given!r} of type {type(given).__name__}")
    found = tuple(given)
    for one in found:
        if not isinstance(one, Destination):
            raise TypeError(f"{wanted}, and one of them is {one!r} of type {type(one).__name__}")
    return found


def routes(
    destinations: Iterable[Destination], config: RelayConfig, breakers: "BreakerRegistry | None", rng: random.Random
) -> Mapping[str, Route]:
    """A route for each destination, by name.

    Raises:
        ValueError: for two destinations of one name, or none at all.
    """
    made: dict[str, Route] = {}
    for destination in destinations:
        name = destination.name
        if name in made:
            raise ValueError(f"two destinations are called {name!r}: give each its own name")
        lane = Lane(name, config, rng, numbers=_numbers)
        made[name] = Route(destination, lane, None if breakers is None else breakers.get(name))
    if not made:
        raise ValueError("destinations must not be empty: a relay needs at least one Destination to deliver to")
    return made


def report(permit: "Permit | None", judged: Report, error: BaseException | None) -> None:
    """Tell a breaker, through the ``permit`` of an attempt, what came of it."""
    if permit is None:
        return
    if judged is Report.SUCCESS:
        permit.success()
    elif judged is Report.FAILURE or (judged is Report.REPEAT and permit.probe):
        permit.failure(error)
    else:
        permit.release()


class Announcer:
    """Tells a listener of events in the order in which they were added, one at a time, whichever thread does it.

    The order matters: a listener that heard *resumed* before the *failed* that it answers would wait for ever.
    """

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._told = threading.Condition(self._lock)
        self._events: deque[Event] = deque()
        self._teller: int | None = None  # the thread
        self._failing: set[str] = set()

    def add(self, events: Iterable[Event]) -> None:
        """Note ``events``; to be called under the lock that orders them."""
        with self._lock:
            self._events.extend(events)

    def tell(self) -> None:
        """Tell what was noted, unless another thread is at it: then that one does. To be called with no lock held."""
        while True:
            with self._lock:
                if self._teller is not None or not self._events:
                    return
                self._teller = threading.get_ident()
                event = self._events.popleft()
            try:
                self._log(event)
                notify(self._listener, event)
            finally:
                with self._lock:
                    self._teller = None
                    self._told.notify_all()

    def finish(self, timeout: float) -> None:
        """Tell all, or wait until another thread has, at most ``timeout`` seconds; not from within the listener."""
        self.tell()
        with self._lock:
            if self._teller != threading.get_ident():
                self._told.wait_for(lambda: self._teller is None and not self._events, max(0.0, timeout))

    def _log(self, event: Event) -> None:
        """A failing destination is in the log once, not once per attempt."""
        if isinstance(event, DeliveryFailed):
            if event.destination not in self._failing:
                log.warning(
                    "%s does not take results: %r; they are kept and sent again", event.destination, event.error
                )
            self._failing.add(event.destination)
        elif isinstance(event, DeliveryRefused):
            if event.attempt == 1:
                log.warning("%s refuses a result: %r; it is kept and sent again", event.destination, event.error)
        elif isinstance(event, DeliveryResumed):
            self._failing.discard(event.destination)
            log.info("%s takes results again", event.destination)
        elif isinstance(event, DeadLettered):
            log.error("%s refused the result of %s for good: %s", event.destination, event.key, event.reason)
        elif isinstance(event, RowsKept):
            log.warning(
                "%d results wait for %s (%s), which is not among the destinations: they are kept until it is",
                event.count,
                event.destination,
                event.identity,
            )
        elif isinstance(event, OutboxResumed):
            log.info("all results of %s that wait are written down again", event.destination)
