"""Leases: which item must be extended when, and when its lease is lost. Pure: a driver sends and reports the outcome.

A source that leases an item, and hands it to another client unless the lease is extended, starts the lease at an
unknown moment between the sending of a call and the arrival of its answer. Heartbeats are timed from the former, and
the loss of a lease from the latter; so the first is never too late, and no lease that might still be valid is given up.

The heartbeats of one key do not wait for those of another. Those of one key are sent one at a time as long as that is
enough; otherwise as many as needed are sent concurrently, up to a limit. See `Leases.due`.
"""

import heapq
import itertools
import math
import random
from collections.abc import Hashable, Iterable
from typing import Any

import attrs

from resilience._checks import check_number
from resilience.backoff import Backoff

__all__ = ["MAX_CALLS", "MAX_UNANSWERED", "Extension", "Lease", "Leases", "check_seconds"]

FIRST_AT = 0.8  # of the lease; Conductor's own workers extend theirs then
TRY_FOR = 0.1  # of the lease, after which a heartbeat is considered hung: this leaves time for another one
LONGEST_TRY = 5.0  # seconds; the same for the longest leases
LONGEST_CALL = 10.0  # seconds until a hung call must end; until then its answer counts
BESIDE_AFTER = 0.05  # of the lease: how long a heartbeat waits for another one of its key
LONGEST_WAIT = 1.0  # seconds; the same for the longest leases
MAX_CALLS = 64  # calls of one key in flight at once, including hung ones
MAX_UNANSWERED = 8  # the same for a key that does not answer; each answer allows one more
SHORTEST = 1e-3  # seconds; the finest timing
NEVER = math.inf
SLACK = 64  # void entries after which a queue is swept


def check_seconds(seconds: float) -> None:
    """Raise unless a lease is a finite number above 0.

    Raises:
        ValueError: it is not (TypeError: it is not a number).
    """
    if type(seconds) is float and 0.0 < seconds < NEVER:  # the fast path, for every item
        return
    check_number("a lease's seconds", seconds, least=0.0, exclusive=True)


@attrs.define(eq=False)
class Lease:
    """The lease of one item. Created by `Leases`; others may only call `end`.

    Attributes:
        key: the key of its source.
        value: the item; None once the lease has ended.
        seconds: how long a lease lasts from when it was last granted.
        held_from: the earliest possible time of that.
        over_at: when it has certainly expired.
        turn: number of changes of its schedule; entries of an older turn are void.
        failures: number of failed attempts to extend it since it was last granted.
        error: the error of the last of them.
        give_up_at: when it is no longer extended, however long its item runs.
        in_flight: number of its heartbeats that have not ended.
        ended: whether it is no longer extended.
        lost: whether that is because it could not be extended.
    """

    key: Hashable
    value: Any
    seconds: float
    held_from: float
    over_at: float
    give_up_at: float = NEVER
    turn: int = 0
    failures: int = 0
    error: BaseException | None = None
    in_flight: int = 0
    ended: bool = False
    lost: bool = False

    def is_lost(self, now: float) -> bool:
        """Whether another client might have its item by ``now``."""
        return self.lost or now >= self.over_at

    def end(self) -> None:
        """Stop extending it, because its item is done or is given back. One step that needs no lock."""
        self.ended = True  # first, so that a reader that finds no value finds it ended
        self.value = None


@attrs.define(eq=False)
class Extension:
    """A heartbeat to send and then to report, exactly once, with `Leases.extended` or `Leases.failed`.

    Attributes:
        lease: the lease to extend.
        value: the item; None if the lease has just ended: check the lease before sending.
        sent_at: when it was sent.
        patience: seconds after which it is considered hung: call `Leases.hangs`, and another one is sent.
        timeout: seconds after which it should end; until then its answer counts.
        turn: the turn of the lease when it was sent.
        hangs: whether it is considered hung.
    """

    lease: Lease
    value: Any
    sent_at: float
    patience: float
    timeout: float
    turn: int
    hangs: bool = False


class Leases:
    """The decisions for the leases of many keys. Not thread-safe except for `Lease.end`: guard it with a lock.

    Beginning a lease takes O(log n), ending one O(1). Every method that depends on time takes ``now``, in seconds of
    any monotonic clock.

    Args:
        rng: the source of the jitter of pauses after a failure.
        max_lease: seconds from its arrival for which a lease is extended; infinite for no limit.
    """

    def __init__(self, rng: random.Random | None = None, max_lease: float = NEVER) -> None:
        self._rng = rng or random.Random()
        self._max_lease = max_lease
        self._numbers = itertools.count()
        self._timed = _Queue()
        self._lines: dict[Hashable, _Line] = {}  # of keys with waiting or in-flight heartbeats
        self._lost: list[Lease] = []
        self._given_up: list[Lease] = []
        self._told = NEVER

    def begin(self, key: Hashable, value: object, seconds: float, *, asked: float, now: float) -> Lease:
        """Begin to extend the lease of ``value``, which arrived ``now``.

        Args:
            key: the key of its source.
            value: the item.
            seconds: the length of the lease without a heartbeat.
            asked: when the call that returned it was sent: the lease cannot have begun before.
            now: when it arrived: the lease cannot have begun later.

        Raises:
            ValueError: ``seconds`` is not a finite number above 0 (TypeError: not a number).
        """
        check_seconds(seconds)
        lease = Lease(key, value, seconds, asked, now + seconds, now + self._max_lease)
        self._timed.add(min(asked + FIRST_AT * seconds, lease.give_up_at), next(self._numbers), lease)
        return lease

    def due(self, now: float) -> list[Extension]:
        """The heartbeats to send now; they count as sent.

        One that is due is sent at once if none of its key is in flight except hung ones. Otherwise it waits for a
        twentieth of its lease (at most 1 s), and is then sent concurrently. Up to ``MAX_UNANSWERED`` of a key can be in
        flight at once, and one more for each that was answered, up to ``MAX_CALLS``; if one hangs, and none has been
        answered since it was sent, the limit is ``MAX_UNANSWERED`` again. So as long as fewer than that hang, none of a
        key is delayed for longer; and a key that answers has as many as it needs.
        """
        while self._timed.has_until(now):
            at, lease = self._timed.take()
            if now >= lease.over_at:
                self._lose(lease)
            elif now >= lease.give_up_at:
                lease.ended = True
                self._given_up.append(lease)
            else:
                line = self._lines.setdefault(lease.key, _Line())
                line.waiting.add(at + min(BESIDE_AFTER * lease.seconds, LONGEST_WAIT), next(self._numbers), lease)
                self._timed.add(min(lease.over_at, lease.give_up_at), next(self._numbers), lease)
        sent = [self._send(line, now) for line in self._lines.values() for _ in line.ready(now)]
        if not sent and self._lines:
            self._lines = {key: line for key, line in self._lines.items() if not line.is_empty()}
        return sent

    def extended(self, extension: Extension, now: float) -> None:
        """Report that a heartbeat succeeded, even late: its lease began again between its sending and ``now``."""
        self._land(extension, now)
        lease = extension.lease
        if lease.ended:
            return
        lease.held_from = max(lease.held_from, extension.sent_at)
        lease.over_at = max(lease.over_at, now + lease.seconds)
        lease.failures, lease.error = 0, None
        self._put_off(lease, lease.held_from + FIRST_AT * lease.seconds)

    def failed(
        self, extension: Extension, error: BaseException, now: float, *, hint: float = 0.0, final: bool = False
    ) -> None:
        """Report that a heartbeat failed: it is sent again after a pause, as long as its lease might be valid.

        Args:
            extension: the heartbeat.
            error: its error.
            now: the time.
            hint: seconds that the source asked to wait; the last attempt is made anyway.
            final: whether the source answered that no other attempt will succeed.
        """
        self._land(extension, now)
        self._fail(extension, error, now, hint=hint, final=final)

    def hangs(self, extension: Extension, now: float) -> None:
        """Report that a heartbeat has not been answered within its patience; it remains in flight."""
        line = self._lines[extension.lease.key]
        extension.hangs = True
        line.prompt -= 1
        line.hanging += 1
        if line.answered_at < extension.sent_at:
            line.allowed = MAX_UNANSWERED
        error = TimeoutError(f"no answer to a heartbeat within {extension.patience:.3g} s")
        self._fail(extension, error, now, hint=0.0, final=False)

    def drain_lost(self) -> list[Lease]:
        """The leases that were lost since the last call; they are no longer extended."""
        lost, self._lost = self._lost, []
        return lost

    def drain_given_up(self) -> list[Lease]:
        """The leases that reached ``max_lease`` since the last call; likewise."""
        given_up, self._given_up = self._given_up, []
        return given_up

    def next_at(self, now: float) -> float:
        """When to call `due` again if nothing happens before; infinite: never.

        A returned time remains valid until it is reached, even if the lease that was due then has ended: a waiting
        driver need not be woken for every item that arrives and ends meanwhile.
        """
        times = [line.next_at() for line in self._lines.values()] if self._lines else []
        at = min([self._timed.first(), *times])
        if not now < self._told <= at:
            self._told = at
        return self._told

    # -- inside ------------------------------------------------------------------------------------------------------

    def _send(self, line: "_Line", now: float) -> Extension:
        _, lease = line.waiting.take()
        line.prompt += 1
        lease.in_flight += 1
        left = lease.over_at - now
        patience = max(min(left / 2, TRY_FOR * lease.seconds, LONGEST_TRY), SHORTEST)
        self._put_off(lease, lease.over_at)
        return Extension(lease, lease.value, now, patience, max(min(left, LONGEST_CALL), patience), lease.turn)

    def _land(self, extension: Extension, now: float) -> None:
        """Record that a heartbeat is no longer in flight."""
        extension.lease.in_flight -= 1
        line = self._lines[extension.lease.key]
        line.answered_at = now
        line.allowed = min(line.allowed + 1, MAX_CALLS)
        if extension.hangs:
            line.hanging -= 1
        else:
            line.prompt -= 1
        if line.is_empty():
            del self._lines[extension.lease.key]

    def _fail(self, extension: Extension, error: BaseException, now: float, *, hint: float, final: bool) -> None:
        lease = extension.lease
        if lease.ended or extension.turn != lease.turn:  # a newer event has superseded it
            return
        lease.error = error
        lease.failures += 1
        if final or now >= lease.over_at:
            self._lose(lease)
            return
        pauses = Backoff(max(min(lease.seconds / 50, 1.0), SHORTEST), max(min(lease.seconds / 10, 10.0), SHORTEST))
        last = lease.over_at - min(BESIDE_AFTER * lease.seconds, LONGEST_TRY)
        again = now + pauses.delay(lease.failures, rng=self._rng, hint=hint)
        if again > last:
            again = last if now < last else lease.over_at
        self._put_off(lease, again)

    def _put_off(self, lease: Lease, at: float) -> None:
        """Schedule the next check of the lease ``at`` this time."""
        lease.turn += 1
        self._timed.add(min(at, lease.give_up_at), next(self._numbers), lease)

    def _lose(self, lease: Lease) -> None:
        lease.ended = lease.lost = True
        self._lost.append(lease)


class _Queue:
    """Leases by time. Entries for an older turn of a lease, or for one that has ended, are skipped."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Lease, int]] = []
        self._sweep_at = SLACK

    def add(self, at: float, number: int, lease: Lease) -> None:
        if len(self._heap) >= self._sweep_at:  # most items end long before they are due
            self._heap = sorted(entry for entry in self._heap if _holds(entry))
            self._sweep_at = 2 * len(self._heap) + SLACK
        heapq.heappush(self._heap, (at, number, lease, lease.turn))

    def first(self) -> float:
        while self._heap and not _holds(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else NEVER

    def has_until(self, now: float) -> bool:
        return self.first() <= now

    def take(self) -> tuple[float, Lease]:
        at, _, lease, _ = heapq.heappop(self._heap)
        return at, lease


def _holds(entry: tuple[float, int, Lease, int]) -> bool:
    return entry[3] == entry[2].turn and not entry[2].ended


class _Line:
    """The heartbeats of one key: the waiting ones, and the number in flight."""

    def __init__(self) -> None:
        self.waiting = _Queue()
        self.prompt = 0
        self.hanging = 0
        self.allowed = MAX_UNANSWERED
        self.answered_at = -NEVER

    def next_at(self) -> float:
        first = self.waiting.first()
        if first == NEVER or self.prompt + self.hanging >= self.allowed:
            return NEVER
        return first if self.prompt else -NEVER

    def ready(self, now: float) -> Iterable[None]:
        """Yield once for each heartbeat that can be sent now; send it before the next step."""
        while self.next_at() <= now:
            yield

    def is_empty(self) -> bool:
        return not self.prompt and not self.hanging and self.waiting.first() == NEVER
