"""Heartbeats: keep the leases of a poller's items while they are held or run; `leases` decides, this sends.

Calls run on the fan-out's threads, a key for each source: one that hangs holds up nobody but its own source, and that
only for as long as `leases` allows. No lock is held while a source is called or a listener told.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from resilience._checks import refuse_unrun
from resilience.errors import Undeliverable
from resilience.events import LeaseGivenUp, LeaseLost, Listener, ends_program, notify
from resilience.fan_out import FanOutExecutor
from resilience.leases import MAX_CALLS, Extension, Lease, Leases, check_seconds
from resilience.outcomes import Failed, Outcome, TimedOut, Value
from resilience.polling.pausing import pause_asked
from resilience.polling.source import Source

__all__ = ["Heartbeats", "bare", "is_lost", "parted", "wrapped"]

TOO_LATE = "no heartbeat could be sent before the lease was over"


class Leased:
    """A value on its way through the planner, with its lease if it has one; the value of a source that lends some."""

    __slots__ = ("lease", "value")

    def __init__(self, value: object, lease: Lease | None) -> None:
        self.value = value
        self.lease = lease


class Heartbeats:
    """Extends leases until their items end. Thread-safe; somebody who keeps the time calls `beat`.

    Args:
        clock: monotonic seconds.
        rng: draws the jitter of pauses after a failure.
        on_event: told `LeaseLost` and `LeaseGivenUp`.
        on_change: called when `beat` may be due earlier than was said.
        on_lost: called after leases were lost: what was lent and has not started is to be dropped.
        max_lease: seconds for which an item is extended; None: as long as it takes.
    """

    def __init__(  # noqa: PLR0913 - all but the options are its driver's
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_event: Listener | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
        max_lease: float | None = None,
    ) -> None:
        self._clock = clock
        self._on_event = on_event
        self._on_change = on_change
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._landed = threading.Condition(self._lock)
        self._afterwards: dict[Lease, Callable[[], object]] = {}
        self._max_lease = float("inf") if max_lease is None else max_lease
        self._leases = Leases(rng, self._max_lease)
        self._used = False
        self._executor = FanOutExecutor(max_abandoned=MAX_CALLS, clock=clock)
        self._session = self._executor.session()

    def leased(self, source: Source[Any], values: Sequence[Any], asked: float | None) -> Sequence[Any]:
        """The values with their leases, which are kept from now on; as they are if ``source`` lends nothing.

        Args:
            source: whose they are.
            values: what it brought.
            asked: when the call was sent that brought them; None if that is not known, and so was just now.
        """
        if source.lease is None or not values:
            return values
        seconds = [self._seconds(source, value) for value in values]
        with self._lock:
            now = self._clock()
            self._used = True
            since = now if asked is None else asked
            return [Leased(v, self._begin(source, v, s, since, now)) for v, s in zip(values, seconds, strict=True)]

    def beat(self) -> float | None:
        """Send what is due, and tell what was lost; returns when the next heartbeat in flight will hang."""
        if not self._used:
            return None
        self._session.expire()
        with self._lock:
            due = self._leases.due(self._clock())
        for extension in due:
            self._send(extension)
        self._tell_lost()
        return self._session.expire()

    def next_at(self) -> float:
        """When `beat` is to be called again if nothing happens before; infinite: never."""
        if not self._used:
            return float("inf")
        with self._lock:
            return self._leases.next_at(self._clock())

    def end(self, lease: Lease, timeout: float, late: Callable[[], object]) -> bool:
        """Extend ``lease`` no more, and wait ``timeout`` seconds for a heartbeat of it that is in flight.

        Returns:
            Whether none is any more; if one is, ``late`` is called once it has ended.
        """
        lease.end()
        with self._lock:
            if self._landed.wait_for(lambda: not lease.in_flight, timeout):
                return True
            self._afterwards[lease] = late
            return False

    def close(self) -> None:
        """Send no more; what is in flight is left alone."""
        self._executor.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _seconds(self, source: Source[Any], value: object) -> float | None:
        """For how long a value is lent; one of which that cannot be told is not extended, but runs."""
        try:
            seconds = source.lease(value) if source.lease is not None else None
            if seconds is not None:
                refuse_unrun("lease", seconds)
                check_seconds(seconds)
        except BaseException as error:  # the source's own code must not cost the values that it brought
            if ends_program(error):
                raise
            notify(self._on_event, LeaseLost(source.name, value, error))
            return None
        return seconds

    def _begin(
        self, source: Source[Any], value: object, seconds: float | None, asked: float, now: float
    ) -> Lease | None:
        if seconds is None:
            return None
        return self._leases.begin(source.name, (source, value), seconds, asked=asked, now=now)

    def _send(self, extension: Extension) -> None:
        key = str(extension.lease.key)
        told, late = partial(self._told, extension), partial(self._told, extension)
        try:
            self._session.submit(key, partial(_extend, extension), extension.patience, on_outcome=told, on_late=late)
        except RuntimeError as error:  # closed: nobody looks after items any more
            self._told(extension, key, Failed(error, 0.0))

    def _told(self, extension: Extension, _: str, outcome: Outcome[object]) -> None:
        lease = extension.lease
        with self._lock:
            _note(self._leases, extension, outcome, self._clock())
            self._landed.notify_all()
            late = None if lease.in_flight else self._afterwards.pop(lease, None)
        self._tell_lost()
        self._on_change()
        if late is not None:
            late()

    def _tell_lost(self) -> None:
        with self._lock:
            lost = self._leases.drain_lost()
            given_up = self._leases.drain_given_up()
        for lease in lost:
            leased = lease.value
            if leased is not None:  # or its item has ended meanwhile
                source, value = leased
                notify(self._on_event, LeaseLost(source.name, value, lease.error or TimeoutError(TOO_LATE)))
        for lease in given_up:
            if (leased := lease.value) is not None:
                source, value = leased
                notify(self._on_event, LeaseGivenUp(source.name, value, self._max_lease))
        if lost:
            self._on_lost()


def parted(value: Any) -> tuple[Any, Lease | None]:  # noqa: ANN401 - a value or one with its lease
    """A value that has been through the planner, and its lease."""
    return (value.value, value.lease) if isinstance(value, Leased) else (value, None)


def is_lost(value: object, now: float) -> bool:
    """Whether a value that has been through the planner was lent, and somebody else may have been given it by now."""
    return isinstance(value, Leased) and value.lease is not None and value.lease.is_lost(now)


def wrapped(value: object, lease: Lease | None) -> object:
    """The opposite of ``parted``."""
    return value if lease is None else Leased(value, lease)


def bare(value: Any) -> Any:  # noqa: ANN401 - likewise
    """A value that goes back: its lease is kept no longer."""
    value, lease = parted(value)
    if lease is not None:
        lease.end()
    return value


def _extend(extension: Extension) -> None:
    if not extension.lease.ended:
        source, value = extension.value
        refuse_unrun("extend", source.extend(value, extension.timeout))


def _note(leases: Leases, extension: Extension, outcome: Outcome[object], now: float) -> None:
    """Tell what a heartbeat came to."""
    if isinstance(outcome, TimedOut):
        leases.hangs(extension, now)
    elif isinstance(outcome, Value):
        leases.extended(extension, now)
    else:
        error = outcome.error if isinstance(outcome, Failed) else RuntimeError(f"the heartbeat never ran: {outcome}")
        leases.failed(extension, error, now, hint=pause_asked(error), final=isinstance(error, Undeliverable))
