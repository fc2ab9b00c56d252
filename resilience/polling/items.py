"""Items: polled values on their way through a unit."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from resilience.leases import Lease

__all__ = ["Holder", "Item"]

V = TypeVar("V")


class Holder(Protocol):
    """What an item asks of the poller that made it."""

    def finish(self, item: "Item[Any]", *, give_back: bool) -> None:
        """Free the unit, once."""

    def may_chain(self, item: "Item[Any]") -> bool:
        """Whether the unit may go on without a poll."""

    def chain(self, item: "Item[Any]", values: Sequence[Any] | None) -> "Item[Any] | None":
        """End the item and let its unit go on."""

    def end_lease(self, lease: Lease, timeout: float, late: Callable[[], object]) -> bool:
        """Extend it no more; whether none of its heartbeats is in flight any more."""

    def leave(self, item: "Item[Any]") -> None:
        """Free the unit and put another thread in the place of the one that is held up."""


class Item(Generic[V]):
    """One polled value, which holds a unit until `done` or `give_back`. Made by a poller.

    A context manager that is done at the end. Thread-safe: whatever ends it first has its effect.

    A source that hands out its next item with the answer to a result saves a poll: ask `may_chain` before the result is
    sent, and say with `chain` what came. `Relay.deliver` does both, and `leave` when that takes too long.

    Attributes:
        value: what the source brought.
        source: the name of the source it came from.
        follower: what its unit's thread goes on with, until it does; for the poller.
        left: whether its handler is held up and has no unit any more; for the poller.
        lease: what keeps it from being handed to somebody else, until it ends; for the poller.
        asked_at: when it was asked whether its unit may chain; for the poller.
        origin: the account of the source it came from, whose name may be another's by now; for the poller.
    """

    __slots__ = ("_holder", "_open", "asked_at", "follower", "lease", "left", "origin", "source", "value")

    def __init__(
        self,
        source: str,
        value: V,
        holder: Holder,
        origin: Any = None,  # noqa: ANN401 - opaque
        lease: Lease | None = None,
    ) -> None:
        self.source = source
        self.value = value
        self.origin = origin
        self.lease = lease
        self.asked_at: float | None = None
        self.follower: Item[V] | None = None
        self.left = False
        self._holder = holder
        self._open = True

    def __repr__(self) -> str:
        return f"Item({self.source!r}, {self.value!r})"

    @property
    def ended(self) -> bool:
        """Whether its unit is free again, or goes on with another item."""
        return not hasattr(self, "_open")

    def end(self) -> bool:
        """For the poller: end it; False if that was done before."""
        try:
            del self._open  # one step, so that of two threads only one ends it
        except AttributeError:
            return False
        if self.lease is not None:
            self.lease.end()
        return True

    def done(self) -> None:
        """Free the unit."""
        self._holder.finish(self, give_back=False)

    def give_back(self) -> None:
        """Free the unit and return the value to its source, as if it had never started."""
        self._holder.finish(self, give_back=True)

    def may_chain(self) -> bool:
        """Whether the unit may go on with the next item of this source without a poll.

        It may while the source is backlogged, prompt and within its share, no item is held, no other source has a
        better claim to the unit, and the poller is not stopping.
        """
        return self._holder.may_chain(self)

    def chain(self, values: "Sequence[V] | None") -> "Item[V] | None":
        """End this item; its unit goes on with ``values``, which its source handed out with an answer, or what is held.

        Args:
            values: what came, mostly one value; None or nothing: the source has no more for now.

        Returns:
            The item that the unit goes on with; None if it is free. Below `Poller.start` and `Poller.run` the handler
            need not do anything with it: it is called with it next. None also if this item had ended already: then the
            values are taken in like a late answer.
        """
        return self._holder.chain(self, values)

    def end_lease(self, timeout: float, late: Callable[[], object]) -> bool:
        """Have the value extended no more, and wait for a heartbeat that is in flight: before its result is sent.

        A source that handles a heartbeat beside a result may write back what it had read before, and so undo the
        result. Without a heartbeat in flight this returns at once.

        Args:
            timeout: seconds to wait at most.
            late: called once the heartbeat has ended, if that takes longer: it should send the result again.

        Returns:
            Whether no heartbeat is in flight any more; else ``late`` will be called.
        """
        if self.lease is None:
            return True
        self.lease.end()
        return not self.lease.in_flight or self._holder.end_lease(self.lease, timeout, late)

    def leave(self) -> None:
        """Free the unit though its handler is still held up; another thread takes the handler's place."""
        self._holder.leave(self)

    def __enter__(self) -> "Item[V]":
        return self

    def __exit__(self, *_: object) -> None:
        self.done()
