"""Leases: which item must be extended when, and when its lease is lost. Pure: a driver sends and tells what came of it.

A source that lends an item for a while, and hands it to somebody else unless it hears of it, starts the while at a
moment nobody here knows: between the sending of a call and the arrival of its answer. Heartbeats count from the former,
giving up from the latter; so the first is never too late, and no lease that may still hold is given up.

The heartbeats of one key do not wait for those of another. Those of one key go out one at a time as long as that is
enough; as many as are needed, up to a bound, go out side by side when it is not. See `Leases.due`.
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
TRY_FOR = 0.1  # of the lease: a heartbeat that hangs for so long leaves time for another one
LONGEST_TRY = 5.0  # seconds; the longest of leases need no longer to tell that a call hangs
LONGEST_CALL = 10.0  # seconds until a call that hangs must end; until then its answer counts
BESIDE_AFTER = 0.05  # of the lease: so long a heartbeat waits for another one of its key
LONGEST_WAIT = 1.0  # seconds; the same for the longest of leases
MAX_CALLS = 64  # of one key in flight at once, those that hang included
MAX_UNANSWERED = 8  # the same for a key that does not answer; each answer allows one more
SHORTEST = 1e-3  # seconds; nothing is timed more finely
NEVER = math.inf
SLACK = 64  # entries that may linger before a queue is swept


def check_seconds(seconds: float) -> None:
    """Refuse a lease that is no finite number above 0.

    Raises:
        ValueError: it is none (TypeError: no number at all).
    """
    if type(seconds) is float and 0.0 < seconds < NEVER:  # nearly always, and for every item
        return
    check_number("a lease's seconds", seconds, least=0.0, exclusive=True)


@attrs.define(eq=False)
class Lease:
    """An item that its source lends. Made by `Leases`, which alone changes it but for `end`.

    Attributes:
        key: whose item it is.
        value: the item; None once it has ended.
        seconds: how long a lease lasts from when it was last given.
        held_from: the earliest time at which that may have been.
        over_at: when it is surely over.
        turn: how often what is to be done about it has changed; what was noted for an older turn is void.
        failures: attempts to extend it that have failed since.
        error: what the last of them came to.
        give_up_at: when it is extended no longer, however long its item runs.
        in_flight: heartbeats of it that have not ended.
        ended: whether there is nothing to be extended any more.
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
        """Whether somebody else may have been given its item by ``now``."""
        return self.lost or now >= self.over_at

    def end(self) -> None:
        """Its item is done or goes back: stop extending it. One step that needs no lock."""
        self.ended = True  # before the value goes: who finds none finds it ended
        self.value = None


@attrs.define(eq=False)
class Extension:
    """A heartbeat that is to be sent, and then told of: by `Leases.extended` or `Leases.failed`, once.

    Attributes:
        lease: what it extends.
        value: the item; None if it ended at that very moment: look at the lease before sending.
        sent_at: when it was sent.
        patience: seconds after which it hangs: tell `Leases.hangs`, another one is sent then.
        timeout: seconds after which it is to end; until then its answer counts.
        turn: the lease's when it was sent.
        hangs: whether it does.
    """

    lease: Lease
    value: Any
    sent_at: float
    patience: float
    timeout: float
    turn: int
    hangs: bool = False


class Leases:
    """Decides for the leases of many keys. Not thread-safe but for `Lease.end`: its driver guards it with one lock.

    Beginning a lease takes O(log n) of those that run, ending one a step. Every method that depends on time takes
    ``now``, in seconds of any monotonic clock.

    Args:
        rng: draws the jitter of pauses after a failure.
        max_lease: seconds from its arrival for which an item is extended; infinite: as long as it takes.
    """

    def __init__(self, rng: random.Random | None = None, max_lease: float = NEVER) -> None:
        self._rng = rng or random.Random()
        self._max_lease = max_lease
        self._numbers = itertools.count()
        self._timed = _Queue()
        self._lines: dict[Hashable, _Line] = {}  # of keys that wait for something
        self._lost: list[Lease] = []
        self._given_up: list[Lease] = []
        self._told = NEVER

    def begin(self, key: Hashable, value: object, seconds: float, *, asked: float, now: float) -> Lease:
        """Extend ``value``, which arrived ``now``, until its lease ends.

        Args:
            key: whose it is.
            value: what is lent.
            seconds: how long it is lent without a heartbeat.
            asked: when the call was sent that brought it: its lease cannot have begun before.
            now: when it arrived: its lease cannot have begun after.

        Raises:
            ValueError: ``seconds`` is no finite number above 0 (TypeError: no number).
        """
        check_seconds(seconds)
        lease = Lease(key, value, seconds, asked, now + seconds, now + self._max_lease)
        self._timed.add(min(asked + FIRST_AT * seconds, lease.give_up_at), next(self._numbers), lease)
        return lease

    def due(self, now: float) -> list[Extension]:
        """Which heartbeats to send now; they count as sent.

        A due one is sent at once if none of its key is in flight but those that hang. Otherwise it waits for a
        twentieth of its lease (1 s at most), and is then sent beside them. ``MAX_UNANSWERED`` of a key may be in
        flight at once, and one more for each that was answered, ``MAX_CALLS`` in all; when one hangs, and none was
        answered since it was sent, it is ``MAX_UNANSWERED`` again. So as long as fewer than that hang, none of a key
        is held up for longer; and a key that answers has as many as it needs.
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
        """A heartbeat succeeded, be it late: its lease began anew, between its sending and ``now``."""
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
        """A heartbeat failed: it is sent again after a pause, as long as its lease may hold.

        Args:
            extension: which.
            error: what it came to.
            now: the time.
            hint: seconds that the source asked to be left alone; but the last attempt is made.
            final: whether the source said that no other one will succeed.
        """
        self._land(extension, now)
        self._fail(extension, error, now, hint=hint, final=final)

    def hangs(self, extension: Extension, now: float) -> None:
        """A heartbeat has not been answered within its patience; it stays in flight."""
        line = self._lines[extension.lease.key]
        extension.hangs = True
        line.prompt -= 1
        line.hanging += 1
        if line.answered_at < extension.sent_at:
            line.allowed = MAX_UNANSWERED
        error = TimeoutError(f"no answer to a heartbeat within {extension.patience:.3g} s")
        self._fail(extension, error, now, hint=0.0, final=False)

    def drain_lost(self) -> list[Lease]:
        """The leases that were lost since the last call; nothing is done for them any more."""
        lost, self._lost = self._lost, []
        return lost

    def drain_given_up(self) -> list[Lease]:
        """The leases that have been extended for as long as they may since the last call; likewise."""
        given_up, self._given_up = self._given_up, []
        return given_up

    def next_at(self, now: float) -> float:
        """When to call `due` again if nothing happens before; infinite: never.

        A time that was told stands until it has come, even if what was due then has ended: whoever waits for it need
        not be woken for every item that comes and goes meanwhile.
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
        """A heartbeat is in flight no longer."""
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
        if lease.ended or extension.turn != lease.turn:  # what came since is newer
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
        """Look at the lease ``at`` that time, and not before; but for its end."""
        lease.turn += 1
        self._timed.add(min(at, lease.give_up_at), next(self._numbers), lease)

    def _lose(self, lease: Lease) -> None:
        lease.ended = lease.lost = True
        self._lost.append(lease)


class _Queue:
    """Leases by time. What was noted for an older turn of a lease, or of one that has ended, is not there any more."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Lease, int]] = []
        self._sweep_at = SLACK

    def add(self, at: float, number: int, lease: Lease) -> None:
        if len(self._heap) >= self._sweep_at:  # most items end long before anything of theirs is due
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
    """The heartbeats of one key: those that wait, and how many are in flight."""

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
        """Once for each heartbeat that may be sent now; it must be sent before the next."""
        while self.next_at() <= now:
            yield

    def is_empty(self) -> bool:
        return not self.prompt and not self.hanging and self.waiting.first() == NEVER
