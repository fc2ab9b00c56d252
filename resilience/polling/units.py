"""Units: what executing items do with them, and the threads on which a handler runs."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import attrs

from resilience._checks import check_plain, refuse_unrun
from resilience.events import HandlerFailed, Listener, ThreadUnavailable, notify
from resilience.leases import Lease
from resilience.polling.heartbeats import parted
from resilience.polling.items import Item
from resilience.polling.planner import PollPlanner
from resilience.polling.source import checked

__all__ = ["Units"]

log = logging.getLogger("resilience")

_LOOK_AGAIN = 0.1  # seconds
_PAUSE = threading.Event()  # is never set

V = TypeVar("V")
Tell = Callable[[PollPlanner, float], None]


@attrs.frozen
class Desk(Generic[V]):
    """What units ask of their poller.

    Attributes:
        step: ``step(tell, limit)`` tells the planner, under its lock, and returns at most ``limit`` items to start.
        ask: the same for one item and a thread that has nothing else to do, which may be made to poll.
        may_chain: whether the unit of that item may go on without a poll.
        leased: the values that came with the answer to that item's result, with their leases.
        link: lets the unit of that item go on with another one, if that leaves nothing to decide; whether it did.
        wait: waits until items may start; False once the poller has stopped.
        end_lease: extends an item no more; whether none of its heartbeats is in flight any more.
    """

    step: Callable[[Tell | None, int], list[Item[V]]]
    ask: Callable[[Tell | None], list[Item[V]]]
    may_chain: Callable[[Item[V]], bool]
    leased: Callable[[Item[V], Sequence[V]], Sequence[Any]]
    link: Callable[[Item[V]], bool]
    wait: Callable[[], bool]
    end_lease: Callable[[Lease, float, Callable[[], object]], bool]


class Units(Generic[V]):
    """Lets executing items end or go on. Thread-safe; it is the items' holder.

    Args:
        desk: its poller.
        on_event: told what a handler raised.
    """

    def __init__(self, desk: Desk[V], on_event: Listener | None) -> None:
        self._desk = desk
        self._on_event = on_event
        self._handler: Callable[[Item[V]], object] | None = None
        self._lock = threading.Lock()
        self._threads = 0  # that were ever made
        self._gate: threading.Event | None = None
        self._working = 0  # that are units now
        self._wanted = 0

    # -- threads -----------------------------------------------------------------------------------------------------

    def begin(self, handler: Callable[[Item[V]], object], gate: threading.Event | None) -> None:
        """Have the threads that `resize` makes run ``handler``, once ``gate`` is set.

        Raises:
            RuntimeError: there is one already.
            TypeError: it is no function, or one that has not run when it returns.
        """
        check_plain("handler", handler)
        if self._handler is not None:
            raise RuntimeError("this poller is running already: make another one for another handler")
        self._handler, self._gate = handler, gate

    def resize(self, count: int) -> None:
        """Have ``count`` threads, if there is a handler to run; those that are too many end when they are idle."""
        with self._lock:
            self._wanted = count
            missing = count - self._working if self._handler is not None else 0
        for _ in range(missing):
            self._add()
            with self._lock:
                self._working += 1

    @property
    def surplus(self) -> bool:
        """Whether there are more threads than wanted."""
        return self._working > self._wanted

    def _add(self) -> None:
        handler = self._handler
        with self._lock:
            self._threads += 1
            name = f"unit-{self._threads}"
        threading.Thread(target=self._work, args=(handler,), name=name, daemon=True).start()

    def _retires(self) -> bool:
        """Whether the thread that asks is one too many; it is to end then."""
        if not self.surplus:
            return False
        with self._lock:
            surplus = self.surplus
            self._working -= surplus
            return surplus

    def _work(self, handler: Callable[[Item[V]], object]) -> None:
        if self._gate is not None:
            self._gate.wait()
        item = self._going_on(self._first)
        while item is not None:
            try:
                refuse_unrun("handler", handler(item))
            except BaseException as error:  # noqa: BLE001 - a unit outlives whatever a handler raises
                notify(self._on_event, HandlerFailed(item.source, error))
            item = self._going_on(partial(self._after, item))

    def _going_on(self, find: Callable[[], Item[V] | None]) -> Item[V] | None:
        """The next item, from ``find``; whatever raises meanwhile leaves the accounts right, and the unit goes on."""
        while True:
            try:
                return find()
            except BaseException:
                log.exception("looking for the next item raised")
                _PAUSE.wait(_LOOK_AGAIN)  # what raises every time must not keep a processor busy
                find = self._first

    def _first(self) -> Item[V] | None:
        while self._desk.wait():
            if self._retires():
                self._desk.step(None, 0)  # what it was woken for is another's
                return None
            if items := self._desk.ask(None):
                return items[0]
        return None

    def _after(self, item: Item[V]) -> Item[V] | None:
        """What the thread runs next; None if it is to end."""
        while (follower := item.follower) is not None:
            item.follower = None  # who keeps an item, such as the traceback of an error, keeps none that came after it
            item = follower
            if not item.ended:
                return item
        if item.end():
            items = self._desk.ask(partial(_finished, item.source))
            return items[0] if items else self._first()
        with self._lock:
            if item.left:
                return None
        return self._first()

    # -- the items' holder -------------------------------------------------------------------------------------------

    def finish(self, item: Item[Any], *, give_back: bool) -> None:
        """Free the unit, once."""
        if not item.ended:
            tell = partial(_gave_up, item) if give_back else partial(_finished, item.source)
            self._desk.step(partial(_ended, item, tell), 0)

    def end_lease(self, lease: Lease, timeout: float, late: Callable[[], object]) -> bool:
        """Extend it no more; whether none of its heartbeats is in flight any more."""
        return self._desk.end_lease(lease, timeout, late)

    def may_chain(self, item: Item[Any]) -> bool:
        """Whether the unit may go on without a poll."""
        return not item.ended and self._desk.may_chain(item)

    def chain(self, item: Item[Any], values: Sequence[Any] | None) -> Item[Any] | None:
        """End the item and let its unit go on with ``values``, or with what has been held for longer."""
        some = checked(values, item.source, "chain() takes")
        try:
            came = self._desk.leased(item, some)
        except BaseException:  # out of a signal handler: they came, and are not lost
            self._desk.step(partial(_chained, item, some, late=True), 0)
            raise
        if not item.end():
            self._desk.step(partial(_chained, item, came, late=True), 0)
            return None
        if len(came) == 1 and self._desk.link(item):
            value, lease = parted(came[0])
            return self._follow(item, Item(item.source, value, self, item.origin, lease))
        items = self._desk.step(partial(_chained, item, came), 1)
        if len(came) > 1:
            self._desk.step(None, 0)  # wakes other units for the rest
        return self._follow(item, items[0]) if items else None

    def _follow(self, item: Item[Any], follower: Item[Any]) -> Item[Any]:
        if self._handler is not None:  # else it is its taker's: a long chain must not hang on its first item
            item.follower = follower
        return follower

    def leave(self, item: Item[Any]) -> None:
        """Free the unit, and put another thread in the place of the one that is held up."""
        with self._lock:
            if not item.end():
                return
            item.left = self._handler is not None
        try:
            if self._handler is not None:
                self._add()
        except RuntimeError as error:  # no thread to be had: the one that is held up goes on when it can
            item.left = False
            notify(self._on_event, ThreadUnavailable(item.source, "a unit", str(error)))
        self._desk.step(partial(_finished, item.source), 0)


def _ended(item: Item[Any], tell: Tell, planner: PollPlanner, now: float) -> None:
    """One step with the planner's: whoever is interrupted before may say it again."""
    if item.end():
        tell(planner, now)


def _finished(source: str, planner: PollPlanner, _: float) -> None:
    planner.finished(source)


def _gave_up(item: Item[Any], planner: PollPlanner, now: float) -> None:
    planner.gave_up(item.source, item.value, now, origin=item.origin)


def _chained(
    item: Item[Any], values: Sequence[object], planner: PollPlanner, now: float, *, late: bool = False
) -> None:
    planner.chained(item.source, values, now, late=late, origin=item.origin)
