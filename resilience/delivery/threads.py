"""Results go to their destinations, on threads: from the unit that has one if that is quick, else by the relay.

One daemon thread, started when there is something to wait for, starts attempts when they are due; they run on the
threads of a fan-out session. Which result is where is the ``ledger``'s; sends for which a unit waits are in ``units``;
what a durable store wants is the ``keeper``'s.
"""

import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, final

from resilience._checks import check_plain
from resilience.delivery.archive import Archive
from resilience.delivery.attempt import Attempt, Chain
from resilience.delivery.config import RelayConfig
from resilience.delivery.keeper import Keeper
from resilience.delivery.ledger import Ledger
from resilience.delivery.parcel import Parcel
from resilience.delivery.routes import Announcer, Destination, Route, check_destinations, routes
from resilience.delivery.sends import Sends
from resilience.delivery.store import DeadLetter, MemoryStore, Store, check_store
from resilience.delivery.tally import DestinationView
from resilience.delivery.units import Units
from resilience.events import Listener
from resilience.outcomes import Rejected
from resilience.registry import BreakerRegistry

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Relay"]

log = logging.getLogger("resilience.delivery")

_LEAST_TIMEOUT = 0.001  # seconds; what an attempt gets that starts at the very end


_relays: "weakref.WeakSet[Relay]" = weakref.WeakSet()


@final
class Relay:
    """Delivers results, each to its own destination, until that takes it or refuses it for good. Thread-safe.

    A result goes out from the thread that brings it while its destination is prompt; otherwise, or if that fails, it
    is written down and sent by the relay, again and again. Results of one destination and key arrive in their order;
    nothing else waits for anything. Entering the context manager starts it, leaving it closes it with
    ``config.close_timeout``.

    Args:
        destinations: all there are; a result for any other name is refused.
        config: the policy.
        breakers: the destinations' circuit breakers, by name; none if None. They hear what came of the attempts. Open,
            they keep the threads that deliver from sending by themselves; the relay goes on with single attempts, at
            least one every ``config.retry_maximum`` seconds, unless the breaker was forced open.
        store: where results that wait are written down; by default in memory. An `Outbox` outlives the process. It is
            not closed with the relay.
        clock: monotonic seconds.
        rng: where jitter is drawn from.
        on_event: hears ``DeliveryFailed``, ``DeliveryRefused``, ``DeliveryResumed``, ``DeadLettered``,
            ``BacklogFull``, ``BacklogDrained``, ``OutboxFailed``, ``OutboxResumed``, ``RowsKept`` and ``Undelivered``,
            in the order in which they came about. Every ``DeliveryFailed`` is followed by another one, by a
            ``DeliveryResumed`` or, where its result was given up, by a ``DeadLettered``.

    Raises:
        ValueError: for two destinations of one name, or none at all.
        TypeError: for an argument of the wrong type; the text says what to write.
    """

    def __init__(  # noqa: PLR0913 - collaborators, by keyword
        self,
        destinations: Iterable[Destination],
        *,
        config: RelayConfig = RelayConfig(),  # noqa: B008 - frozen
        breakers: BreakerRegistry | None = None,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_event: Listener | None = None,
    ) -> None:
        if store is not None:
            check_store("store", store)
        if not isinstance(config, RelayConfig):
            raise TypeError(f"config must be a RelayConfig, not {config!r} of type {type(config).__name__}")
        if breakers is not None and not isinstance(breakers, BreakerRegistry):
            raise TypeError(f"breakers must be a BreakerRegistry, not {breakers!r} of type {type(breakers).__name__}")
        if on_event is not None:
            check_plain("on_event", on_event)
        self._config = config
        self._clock = clock
        rng, given = rng or random.Random(), check_destinations(destinations)
        self._make_routes = partial(routes, given, config, breakers, rng)
        self._given_store = store
        self._on_event = on_event
        self._start_afresh()
        _relays.add(self)

    def start(self) -> None:
        """Take in what former processes left in a durable store, and send it; done by entering the context manager.

        Without it that happens once a result waits, beside that one. May be called again.
        """
        if self._store.durable and self._driver is None and not self._ledger.closed:
            self._keeper.look()
            self._start_driver()

    def deliver(
        self,
        destination: str,
        key: str,
        payload: Any,  # noqa: ANN401 - opaque here
        *,
        chain: Chain | None = None,
        final: bool = True,
    ) -> bool:
        """Deliver ``payload``; returns soon, at the latest after about ``config.inline_timeout`` seconds.

        Args:
            destination: where it goes.
            key: results of one key arrive one after another, in the order they were brought.
            payload: what the destination's ``send`` understands.
            chain: goes on with the next value, if the destination has an ``exchange``: mostly the item itself.
            final: it must arrive. One that does not matter later, such as a word on how far the work has got, is sent
                again as long as the process lives, but never written down, and no dead letter.

        Returns:
            True if the destination took it; False if the relay has it (or if it became a dead letter at once).

        Raises:
            ValueError: for an unknown destination.
            TypeError: for a key that is not a text, or a payload that cannot be written down; nothing was done.
        """
        route = self._route(destination)
        self._check(key, payload, final=final)
        exchange = route.destination.exchange
        if chain is not None and not (exchange and self._units.may_exchange(route) and chain.may_chain()):
            chain = None
        first_written = final and self._writes_first
        attempt = self._ledger.admit(
            route, key, payload, inline=True, chain=chain, final=final, first_written=first_written
        )
        if not attempt.parcel.inline:
            return self._units.keep(attempt)
        permit = None if route.breaker is None else route.breaker.try_acquire()
        if isinstance(permit, Rejected):
            self._ledger.bar(attempt, permit.retry_after)
            return self._units.keep(attempt)
        attempt.permit = permit
        if first_written:
            self._keeper.write_first(attempt)
        if exchange is not None and attempt.chain is not None:
            return self._units.exchange(attempt, exchange, attempt.chain)
        return self._units.send_here(attempt) if route.destination.bounded else self._units.send_apart(attempt)

    def hand_over(self, destination: str, key: str, payload: Any, *, final: bool = True) -> None:  # noqa: ANN401 - opaque
        """Give ``payload`` to the relay, which sends it at once if it can; arguments and errors as for ``deliver``."""
        route = self._route(destination)
        self._check(key, payload, final=final)
        self._units.keep(self._ledger.admit(route, key, payload, inline=False, final=final))

    def is_prompt(self, destination: str) -> bool:
        """Whether ``deliver`` would send to ``destination`` itself now.

        Raises:
            ValueError: for an unknown destination.
        """
        route = self._route(destination)
        return self._ledger.prompt(route) and (route.breaker is None or route.breaker.retry_at is None)

    def pending(self, destination: str | None = None) -> int:
        """How many results the relay has, for ``destination`` or in all: waiting or being sent by it.

        Raises:
            ValueError: for an unknown destination.
        """
        return self._ledger.pending(None if destination is None else self._route(destination).destination.name)

    def has_room(self, destination: str) -> bool:
        """Whether fewer than ``config.max_backlog`` results wait for ``destination``; it takes more all the same.

        Raises:
            ValueError: for an unknown destination.
        """
        return self._ledger.has_room(self._route(destination))

    def view(self) -> dict[str, DestinationView]:
        """What became of the results so far, by destination."""
        return self._ledger.view()

    def dead_letters(self, destination: str | None = None) -> tuple[DeadLetter, ...]:
        """The results that were refused for good, for ``destination`` or in all, oldest first.

        Raises:
            OutboxError: the store cannot be read.
        """
        return self._store.dead_letters(destination)

    def send_again(self, destination: str | None = None) -> int:
        """Try the dead letters (of ``destination``, or all) again: at once, or from a file within a third of its claim.

        Returns:
            How many there were.

        Raises:
            OutboxError: the store cannot be written.
        """
        count = self._store.revive(destination)
        if not self._store.durable:  # else a look between two looks would take the rows of others for dead (rule D7)
            self._keeper.claim()
        self._start_driver()
        return count

    def close(self, timeout: float) -> int:
        """Send what waits, to all destinations at once, then stop; may be called again.

        Every waiting result gets a try, also where an open breaker would not let it through: there is no later. What
        is left after that stays in a durable store for whoever opens it next, and is in the log. What is not written
        there is reported: an ``Undelivered`` each, and an error in the log; ``view`` has the counts of both. Results
        that are brought while it closes are accepted; those that come later are written down and reported like the
        rest. When this returns the listener has heard of all of it, if there was time. Called again, it only counts.

        Args:
            timeout: seconds that may take.

        Returns:
            How many results were left.
        """
        self._ledger.drain(timeout)
        if not self._ledger.closed:
            self._keeper.rewrite(at_once=True)
        left = self._keeper.leave()
        self._sends.close()
        self._ledger.finish_telling()
        return left

    def __enter__(self) -> "Relay":
        self.start()
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, tb: "TracebackType | None"
    ) -> None:
        self.close(self._config.close_timeout)

    def _start_afresh(self) -> None:
        """Also in a forked child, which has no driver; the results that wait are its parent's to send."""
        self._store = MemoryStore() if self._given_store is None else self._given_store
        self._routes = self._make_routes()
        archive = Archive(self._store)
        self._ledger = Ledger(self._routes, archive, Announcer(self._on_event), self._clock)
        self._keeper = Keeper(archive, self._ledger, self._clock)
        self._sends = Sends(self._ledger, self._config.max_in_flight, self._clock)
        self._units = Units(self._ledger, self._keeper, self._sends, self._config, self._start_driver)
        self._writes_first = self._config.write_first and self._store.durable
        self._driver: threading.Thread | None = None
        self._driver_lock = threading.Lock()

    def _route(self, name: str) -> Route:
        try:
            return self._routes[name]
        except KeyError:
            known = ", ".join(self._routes)
            raise ValueError(
                f"no destination is called {name!r}: a result goes to one of {known}, or nowhere"
            ) from None

    def _check(self, key: str, payload: object, *, final: bool) -> None:
        if not isinstance(key, str):
            raise TypeError(f"key of a result must be a text, not {key!r}: convert it with str()")
        if final:
            self._store.check(payload)

    def _start_driver(self) -> None:
        if self._driver is not None:
            return
        with self._driver_lock:
            if self._driver is None and not self._ledger.closed:
                self._driver = _started(threading.Thread(target=self._drive, name="relay", daemon=True))

    def _drive(self) -> None:
        while not self._ledger.closed:
            self._ledger.sleep(self._look_round())

    def _look_round(self) -> float:
        """Do what is due; a frame of its own, so that a driver that sleeps keeps no result alive."""
        look_at = self._keeper.look()  # first: another process may have what we waited to send
        for route, parcel in self._ledger.due():
            self._relay(route, parcel)
        self._units.look_after()
        expires = self._sends.expire()
        return look_at if expires is None else min(look_at, expires)

    def _relay(self, route: Route, parcel: Parcel) -> None:
        left = self._ledger.end - self._clock()
        permit = None if route.breaker is None else route.breaker.try_acquire()
        if isinstance(permit, Rejected):
            if permit.retry_after == math.inf and left == math.inf:  # forced open
                self._ledger.bar(Attempt(route, parcel), permit.retry_after)
                return
            permit = None  # how often a destination is tried is for its lane to say (rule D8)
        timeout = max(_LEAST_TIMEOUT, min(self._config.send_timeout, left))
        self._sends.start(Attempt(route, parcel, permit), timeout, timeout)


def _started(thread: threading.Thread) -> threading.Thread | None:
    """The thread; None if there is none to be had, which the next result is to try again."""
    try:
        thread.start()
    except RuntimeError:
        log.exception("no thread for the results that wait; they are kept, and the next one tries again")
        return None
    return thread


def _after_fork() -> None:
    for relay in list(_relays):
        relay._start_afresh()  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_after_fork)
