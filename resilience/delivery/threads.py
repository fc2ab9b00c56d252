"""Results go to their destinations, on threads: from the unit that has one if that is quick, else by the relay.

One daemon thread, started when there is something to wait for, starts attempts when they are due; they run on the
threads of a fan-out session. Which result is where is the ``ledger``'s.
"""

import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, final

from resilience.delivery.attempt import Attempt, Chain
from resilience.delivery.config import RelayConfig
from resilience.delivery.ledger import Ledger
from resilience.delivery.outbox import DeadLetter, MemoryStore, Store
from resilience.delivery.parcel import Parcel
from resilience.delivery.routes import Announcer, Destination, Route, routes
from resilience.delivery.sends import Sends
from resilience.events import Listener
from resilience.outcomes import Rejected

if TYPE_CHECKING:
    from types import TracebackType

    from resilience.registry import BreakerRegistry

__all__ = ["Relay"]

log = logging.getLogger("resilience.delivery")

log = logging.getLogger("resilience.delivery")

Told = threading.Event
Exchange = Callable[[Any, float], Sequence[Any] | None]
_LEAST_TIMEOUT = 0.001  # seconds; what an attempt gets that starts at the very end


_relays: "weakref.WeakSet[Relay]" = weakref.WeakSet()


@final
class Relay:
    """Delivers results, each to its own destination, until that takes it or refuses it for good. Thread-safe.

    A result goes out from the thread that brings it while its destination is prompt; otherwise, or if that fails, it
    is written down and sent by the relay, again and again. Results of one destination and key arrive in their order;
    nothing else waits for anything. Leaving the context manager closes it with ``config.close_timeout``.

    Args:
        destinations: all there are; a result for any other name is refused.
        config: the policy.
        breakers: the destinations' circuit breakers, by name; none if None.
        store: where results that wait are written down; by default in memory.
        clock: monotonic seconds.
        rng: where jitter is drawn from.
        on_event: hears ``DeliveryFailed``, ``DeliveryResumed``, ``DeadLettered`` and ``Undelivered``, in the order in
            which they came about. Every ``DeliveryFailed`` is followed by another one or by a ``DeliveryResumed``.

    Raises:
        ValueError: for two destinations of one name, or none at all.
    """

    def __init__(  # noqa: PLR0913 - collaborators, by keyword
        self,
        destinations: Iterable[Destination],
        *,
        config: RelayConfig = RelayConfig(),  # noqa: B008 - frozen
        breakers: "BreakerRegistry | None" = None,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_event: Listener | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        rng, given = rng or random.Random(), tuple(destinations)
        self._make_routes = partial(routes, given, config, breakers, rng)
        self._given_store = store
        self._on_event = on_event
        self._start_afresh()
        _relays.add(self)

    def deliver(
        self,
        destination: str,
        key: str,
        payload: Any,  # noqa: ANN401 - opaque here
        *,
        chain: Chain | None = None,
    ) -> bool:
        """Deliver ``payload``; returns soon, at the latest after about ``config.inline_timeout`` seconds.

        Args:
            destination: where it goes.
            key: results of one key arrive one after another, in the order they were brought.
            payload: what the destination's ``send`` understands.
            chain: goes on with the next value, if the destination has an ``exchange``: mostly the item itself.

        Returns:
            True if the destination took it; False if the relay has it (or if it became a dead letter at once).

        Raises:
            ValueError: for an unknown destination.
        """
        route = self._route(destination)
        exchange = route.destination.exchange
        if chain is not None and not (exchange and self._may_exchange(route) and chain.may_chain()):
            chain = None
        attempt = self._ledger.admit(route, key, payload, inline=True, chain=chain)
        if not attempt.parcel.inline:
            return self._keep(route, attempt.parcel)
        permit = None if route.breaker is None else route.breaker.try_acquire()
        if isinstance(permit, Rejected):
            self._ledger.bar(attempt, permit.retry_after)
            return self._keep(route, attempt.parcel)
        attempt.permit = permit
        if exchange is not None and attempt.chain is not None:
            return self._exchange(attempt, exchange, attempt.chain)
        return self._send_here(attempt) if route.destination.bounded else self._send_apart(attempt)

    def hand_over(self, destination: str, key: str, payload: Any) -> None:  # noqa: ANN401 - opaque here
        """Give ``payload`` to the relay, which sends it at once if it can; arguments and errors as for ``deliver``."""
        route = self._route(destination)
        self._keep(route, self._ledger.admit(route, key, payload, inline=False).parcel)

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
        return self.pending(destination) < self._config.max_backlog

    def dead_letters(self, destination: str | None = None) -> tuple[DeadLetter, ...]:
        """The results that were refused for good, for ``destination`` or in all, oldest first."""
        letters = self._store.dead_letters()
        return tuple(letter for letter in letters if destination in (None, letter.row.destination))

    def send_again(self, destination: str | None = None) -> int:
        """Try the dead letters (of ``destination``, or all) again.

        Returns:
            How many there were.
        """
        rows = self._store.revive(destination)
        for row in rows:
            route = self._route(row.destination)
            self._ledger.written(route, self._ledger.admit(route, row.key, row.payload, inline=False).parcel, row)
        self._start_driver()
        return len(rows)

    def close(self, timeout: float) -> int:
        """Send what waits, to all destinations at once, then stop; may be called again.

        Every waiting result gets a try, also where an open breaker would not let it through: there is no later. What
        is left after that is reported: an ``Undelivered`` each, and an error in the log. Results that are brought
        while it closes are accepted; those that come later are written down and reported like the rest. Called again,
        it only counts.

        Args:
            timeout: seconds that may take.

        Returns:
            How many results were left.
        """
        self._ledger.drain(timeout)
        left = self._ledger.leave()
        self._sends.close()
        return left

    def __enter__(self) -> "Relay":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, tb: "TracebackType | None"
    ) -> None:
        self.close(self._config.close_timeout)

    def _start_afresh(self) -> None:
        """Also in a forked child, which has no driver; the results that wait are its parent's to send."""
        self._store = MemoryStore() if self._given_store is None else self._given_store
        self._routes = self._make_routes()
        self._ledger = Ledger(self._routes, self._store, Announcer(self._on_event), self._clock)
        self._sends = Sends(self._ledger, self._config.max_in_flight, self._clock)
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

    def _keep(self, route: Route, parcel: Parcel) -> bool:
        self._ledger.keep(route, parcel)
        self._start_driver()
        return False

    def _send_here(self, attempt: Attempt) -> bool:
        try:
            attempt.route.destination.send(attempt.parcel.payload, attempt.parcel.timeout)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the destination's answer
            settled = self._ledger.settle(attempt, error)
        except BaseException:  # somebody ends this thread; the result must live on
            self._ledger.bar(attempt, None)
            self._keep(attempt.route, attempt.parcel)
            raise
        else:
            settled = self._ledger.settle(attempt, None)
        return self._keep(attempt.route, attempt.parcel) if settled.kept else settled.dead is None

    def _may_exchange(self, route: Route) -> bool:
        """One that has not come back is enough; and a breaker's probe is to be a plain send."""
        healthy = route.breaker is None or route.breaker.retry_at is None
        return healthy and not route.astray

    def _exchange(self, attempt: Attempt, exchange: Exchange, chain: Chain) -> bool:
        """Send in the unit's own thread, and let it go on with what that brings; see `Watch`."""
        parcel = attempt.parcel
        self._start_driver()
        try:
            brought = exchange(parcel.payload, self._config.send_timeout)
            values = None if brought is None else list(brought)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the destination's answer
            settled = self._ledger.settle(attempt, error)
        except BaseException:  # somebody ends this thread; the result must live on
            self._ledger.bar(attempt, None)
            if not attempt.left:
                self._keep(attempt.route, parcel)
            raise
        else:
            settled = self._ledger.settle(attempt, None, parcel.grace if values == [] else 0.0)
            if values is not None:
                chain.chain(values)
        if settled.kept and not attempt.left:
            self._keep(attempt.route, parcel)
        return not settled.kept and settled.dead is None

    def _leave(self, attempt: Attempt) -> None:
        """The unit of an exchange waits no longer; the relay has the result."""
        try:
            attempt.chain.leave()  # type: ignore[union-attr] # exchanges have one
        except Exception:  # somebody else's code: the relay must go on
            log.exception("a unit could not be freed")
        self._ledger.keep(attempt.route, attempt.parcel)

    def _send_apart(self, attempt: Attempt) -> bool:
        attempt.told = told = Told()
        self._sends.start(attempt, self._config.send_timeout, self._config.inline_timeout)
        try:
            told.wait(attempt.route.lane.health.patience())
        except BaseException:
            self._go_on(attempt, told)
            raise
        return self._go_on(attempt, told)

    def _go_on(self, attempt: Attempt, told: threading.Event) -> bool:
        """The unit waits no longer; an attempt that still runs is the relay's from here."""
        if self._ledger.detach(attempt):
            return self._keep(attempt.route, attempt.parcel)
        told.wait()
        settled = attempt.settled
        if settled is None or settled.kept:
            return self._keep(attempt.route, attempt.parcel)
        return settled.dead is None

    def _start_driver(self) -> None:
        if self._driver is not None:
            return
        with self._driver_lock:
            if self._driver is None and not self._ledger.closed:
                self._driver = _started(threading.Thread(target=self._drive, name="relay", daemon=True))

    def _drive(self) -> None:
        while not self._ledger.closed:
            for route, parcel in self._ledger.due():
                self._relay(route, parcel)
            leaving, failed = self._ledger.overstayed(self._config.inline_timeout)
            for attempt in leaving:
                self._leave(attempt)
            for attempt in failed:
                self._ledger.time_out(attempt, self._config.inline_timeout)
            self._ledger.sleep(self._sends.expire())

    def _relay(self, route: Route, parcel: Parcel) -> None:
        permit = None if route.breaker is None else route.breaker.try_acquire()
        left = self._ledger.end - self._clock()
        if not isinstance(permit, Rejected):
            attempt = Attempt(route, parcel, permit)
        elif left == math.inf:
            self._ledger.bar(Attempt(route, parcel), permit.retry_after)
            return
        else:
            attempt = Attempt(route, parcel)
        timeout = max(_LEAST_TIMEOUT, min(self._config.send_timeout, left))
        self._sends.start(attempt, timeout, timeout)


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
