"""One send of one result, as the drivers keep it."""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from resilience._checks import refuse_unrun
from resilience.delivery.parcel import Parcel, Settled
from resilience.delivery.routes import Route

if TYPE_CHECKING:
    from resilience.breaker import Permit

__all__ = ["Attempt", "Chain"]


class Chain(Protocol):
    """What `Relay.deliver` needs of whoever can go on with a next value, such as an `Item`. Thread-safe."""

    def may_chain(self) -> bool:
        """Whether a next value is wanted now."""

    def chain(self, values: Sequence[Any] | None) -> object:
        """Take what came: in the thread that delivers, or late, after `leave`."""

    def leave(self) -> None:
        """Free the unit: its thread is held up by the destination."""


@attrs.define(eq=False)
class Attempt:
    """One send of one parcel.

    Attributes:
        route: where to.
        parcel: what.
        chain: goes on with the next value that it may bring; None for a plain send.
        permit: the breaker's leave for it, if there is a breaker.
        told: set, if a unit waits, once ``settled`` is known.
        settled: what came of it.
        left: its unit did not wait for it; under the ledger's lock.
    """

    route: Route
    parcel: Parcel
    permit: "Permit | None" = None
    chain: Chain | None = None
    told: threading.Event | None = None
    settled: Settled | None = None
    left: bool = False

    def send(self, timeout: float) -> None:
        """Send it; what ``send`` calls in turn under the same breaker runs on this attempt's permit.

        Raises:
            TypeError: what ``send`` returned has yet to run, so nothing was sent.
        """
        send: Callable[..., object] = self.route.destination.send
        payload, permit = self.parcel.payload, self.permit
        returned = send(payload, timeout) if permit is None else permit.run(send, payload, timeout)
        if returned is not None:
            refuse_unrun(f"send of destination {self.route.destination.name!r}", returned)
