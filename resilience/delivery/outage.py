"""Outage: results are not kept from a destination by its breaker's wait when every destination is down (rule P12).

A source whose results wait is not polled (rule P13), so no early probe of a poller would find out that it is back: the
results that wait are the probes. Once one destination is back the outage is over, and the others are each sent to once.
"""

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from resilience.outage import EarlyProbes

if TYPE_CHECKING:
    from resilience.breaker import CircuitBreaker
    from resilience.delivery.routes import Route
    from resilience.registry import BreakerRegistry

__all__ = ["Outage"]


class Outage:
    """Decides which destination is sent to early.

    Args:
        routes: all destinations, by name.
        polls: breakers of other calls to the same places, by the same names: they may know of one that is down too.
        pending: how many results wait for the destination of that name.
        rng: draws the pause.
    """

    def __init__(
        self,
        routes: Mapping[str, "Route"],
        polls: "BreakerRegistry | None",
        pending: Callable[[str], int],
        rng: random.Random,
    ) -> None:
        self._routes = routes
        self._polls = polls
        self._pending = pending
        self._probes = EarlyProbes(rng)
        self._lost: set[Route] = set()  # open since everything was down, or, harmlessly, open again

    def early_at(self, route: "Route", now: float) -> float:
        """From when on a result may be sent to ``route`` though its breaker is open; infinite unless it is its turn.

        To be asked by whoever sends then.
        """
        opened = dict(self._opened())
        if route not in opened:
            return math.inf
        if all(map(self._is_down, self._routes.values())):
            self._lost = set(opened)
            return self._turn_of(route, opened, now)
        if route in self._lost and opened[route] <= now and any(map(self._is_well, self._routes.values())):
            self._lost.discard(route)
            return now
        return math.inf

    def _turn_of(self, route: "Route", opened: "Mapping[Route, float]", now: float) -> float:
        waiting = {one: at for one, at in opened.items() if at <= now and self._pending(one.destination.name)}
        if route not in waiting:
            return math.inf
        first, at = self._probes.next_of(waiting)
        return at if first is route else math.inf

    def _opened(self) -> "Iterable[tuple[Route, float]]":
        for route in self._routes.values():
            at = None if route.breaker is None else route.breaker.early_at
            if at is not None:
                yield route, at

    def _is_down(self, route: "Route") -> bool:
        """One whose breaker was forced open does not count: somebody wanted that."""
        return any(one.early_at is not None or one.retry_at == math.inf for one in self._breakers(route))

    def _is_well(self, route: "Route") -> bool:
        return all(one.retry_at is None for one in self._breakers(route))

    def _breakers(self, route: "Route") -> "list[CircuitBreaker]":
        polls = None if self._polls is None else self._polls.get(route.destination.name)
        return [one for one in (route.breaker, polls) if one is not None]
