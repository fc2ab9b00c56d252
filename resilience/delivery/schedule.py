"""When a result goes to its destination, and by whom: decided per destination, without clock, lock, thread or I/O.

A ``Lane`` is one destination. Results with the same key stand in one line; only the first of a line is ever sent, and
it stays first until it is taken or refused for good: that is the order, and why a result is never sent twice at once.
The lines know nothing of each other. A unit may send by itself while the destination is prompt (``health`` knows);
everything else is the relay's, up to ``max_in_flight`` at a time, single attempts while the destination fails; and as
many in fifteen milliseconds, so that a long backlog leaves its destination, and this process, time for what is new.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Collection, Iterator
from typing import Any

from resilience.delivery.config import RelayConfig
from resilience.delivery.health import Health
from resilience.delivery.parcel import Parcel, Report, Settled
from resilience.errors import Throttled, Undeliverable
from resilience.events import BacklogDrained, BacklogFull, DeadLettered, DeliveryFailed, DeliveryResumed, Event

__all__ = ["Lane"]


_TAKEN = Settled(kept=False)
_PACE = 0.015  # seconds in which the relay begins ``max_in_flight`` attempts at most
_USED = 0.9  # of a timeout; those who keep it look at another clock


class Lane:
    """One destination's results. Not thread-safe: its driver guards it.

    Args:
        name: the destination's, for events.
        config: the policy.
        rng: where jitter is drawn from.
        numbers: for its results; shared by the lanes of a process.
    """

    def __init__(
        self, name: str, config: RelayConfig, rng: random.Random, *, numbers: Iterator[int] | None = None
    ) -> None:
        self.name = name
        self.health = Health(config, rng)
        self._config = config
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._size = 0
        self._inline = 0
        self._lines: dict[str, deque[Parcel]] = {}
        self._waiting: list[tuple[float, int, Parcel]] = []  # heads of lines, by when they may go
        self._flying: dict[int, Parcel] = {}  # in the order they started
        self._relayed = 0  # attempts of the relay that have not ended
        self._begun: deque[float] = deque(maxlen=config.max_in_flight)  # when the relay's last ones began
        self._pace = _PACE
        self._full = False

    @property
    def pending(self) -> int:
        """How many results the relay has: waiting or being sent by it."""
        return self._size - self._inline

    def backlog(self) -> tuple[Event, ...]:
        """What is to be told of the backlog: that it is full, or that half of it is gone. To be asked after changes."""
        most = self._config.max_backlog
        if self._full and self.pending <= most // 2:
            self._full = False
            return (BacklogDrained(self.name),)
        if not self._full and self.pending >= most:
            self._full = True
            return (BacklogFull(self.name, self.pending),)
        return ()

    @property
    def idle(self) -> bool:
        """Whether there is no result, not even one that a unit is sending."""
        return not self._size

    @property
    def waits(self) -> bool:
        """Whether a result of the relay waits for its time or for a free place."""
        return bool(self._waiting)

    def prompt(self, now: float) -> bool:
        """Whether a unit may send by itself."""
        return self.health.well(now) and not self._overdue(now)

    def silent(self, now: float) -> bool:
        """Whether the oldest attempt takes longer than usual, if only because it waits for a next value."""
        for oldest in self._flying.values():
            return self._is_silent(oldest, 0.0, now)
        return False

    def admit(self, key: str, payload: Any, now: float, *, inline: bool = True) -> Parcel:  # noqa: ANN401 - opaque here
        """Take a result in, at the end of its key's line.

        Returns:
            Its parcel. If ``parcel.inline``, the caller sends it now and settles it; otherwise the relay sends it
            once ``release`` has said that it is written down.
        """
        parcel = Parcel(next(self._numbers), key, payload, now)
        self._size += 1
        line = self._lines.get(key)
        if line is not None:
            line.append(parcel)
            return parcel
        self._lines[key] = deque((parcel,))
        if inline and self.prompt(now):
            parcel.inline = True
            # One unit finds out whether the destination has failed; the others leave that to it.
            parcel.timeout = self.health.patience() if self._inline else self._config.inline_timeout
            self._inline += 1
            self._launch(parcel, now)
        return parcel

    def release(self, parcel: Parcel) -> None:
        """``parcel`` is written down: the relay may send it."""
        parcel.released = True
        if not (parcel.away or parcel.gone):
            self._line_up(parcel)

    def begin(self, parcel: Parcel, now: float) -> None:
        """The attempt of a unit starts only now: its result was written down before."""
        if parcel.away:
            del self._flying[parcel.number]
            self._launch(parcel, now)

    def lose(self, ids: Collection[int]) -> int:
        """Rows with these ``ids`` are another process's: theirs are not sent, what is being sent is its last try.

        Returns:
            How many there were.
        """
        lost = [p for line in self._lines.values() for p in line if p.row is not None and p.row.id in ids]
        for parcel in lost:
            parcel.passed = True
        for parcel in [parcel for parcel in lost if not parcel.away]:
            self._let_go(parcel)
        self._waiting = [entry for entry in self._waiting if not entry[2].gone]
        heapq.heapify(self._waiting)
        return len(lost)

    def resting(self, key: str | None = None) -> list[Parcel]:
        """The results of lines (or of one) of which none is being sent: another process may have them, in order."""
        lines = self._lines.values() if key is None else [self._lines[key]] if key in self._lines else []
        return [parcel for line in lines if not line[0].away for parcel in line]

    def detach(self, parcel: Parcel) -> bool:
        """The unit stops waiting for ``parcel``; the attempt goes on.

        Returns:
            False if it was settled just before, so that there is nothing to leave.
        """
        if parcel.away:
            self._leave(parcel)
        return parcel.away

    def start(self, now: float) -> Parcel | None:
        """The next result for the relay to send, now in flight; None if there is none or it is not time."""
        if self.wake_at(now) > now:
            return None
        parcel = heapq.heappop(self._waiting)[2]
        parcel.relayed = True
        self._relayed += 1
        self._begun.append(now)
        self._launch(parcel, now)
        return parcel

    def wake_at(self, now: float) -> float:
        """The clock time from which ``start`` has something; ``inf`` if that takes more than time."""
        if not self._waiting or self._relayed >= self._config.max_in_flight:
            return math.inf
        relayed = [parcel.started for parcel in self._flying.values() if parcel.relayed]
        paced = self._begun[0] + self._pace if len(self._begun) == self._config.max_in_flight else -math.inf
        return max(self._waiting[0][0], paced, self.health.open_at(relayed, overdue=self._overdue(now)))

    def hurry(self, now: float) -> None:
        """The end is near: give every waiting result a try, whatever its pauses; only an asked-for pause stands."""
        self.health.hurry()
        self._pace = 0.0
        self._waiting = [(min(due, now), number, parcel) for due, number, parcel in self._waiting]
        heapq.heapify(self._waiting)

    def leftovers(self) -> list[Parcel]:
        """The results that were not delivered, line by line; not those that units are sending."""
        return [parcel for line in self._lines.values() for parcel in line if not parcel.inline]

    def written(self) -> list[Parcel]:
        """The results that are written down."""
        return [parcel for line in self._lines.values() for parcel in line if parcel.row is not None]

    def postpone(self, parcel: Parcel, now: float) -> None:
        """The attempt never ran, or was cancelled: nothing is known."""
        self._land(parcel)
        if parcel.passed:
            self._let_go(parcel)
            return
        parcel.due = now
        self._line_up(parcel)

    def time_out(self, parcel: Parcel, error: TimeoutError, now: float) -> Settled:
        """The attempt is past its timeout and still running; its parcel stays in flight until it ends."""
        del self._flying[parcel.number]
        parcel.abandoned = True
        return self._fail(parcel, error, now)

    def judge(self, parcel: Parcel, error: BaseException | None, now: float) -> Report:
        """What to tell a breaker of an attempt that ended with ``error``; to be asked before ``settle``.

        A result that fails again, alone, is no news: it must not open the breaker for all others.
        """
        if error is None or isinstance(error, Undeliverable):
            return Report.SUCCESS
        if isinstance(error, Throttled) or self._cut_short(parcel, now):
            return Report.NEUTRAL
        return Report.REPEAT if self.health.known_culprit(parcel.number) else Report.FAILURE

    def settle(self, parcel: Parcel, error: BaseException | None, now: float, waited: float = 0.0) -> Settled:
        """The attempt has ended: None if the destination took the result, else what was raised.

        ``waited`` are the seconds that the destination waited because it was asked to.
        """
        told, cut = parcel.abandoned, self._cut_short(parcel, now)
        self._land(parcel)
        if error is None:
            self._drop(parcel)
            events = self._answered(parcel, now, waited)
            return Settled(kept=False, events=events) if events else _TAKEN
        if isinstance(error, Undeliverable):
            return self._refuse(parcel, error, now)
        settled = self._failed(parcel, error, now, told=told or cut)
        if not parcel.passed:
            self._line_up(parcel)
            return settled
        self._let_go(parcel)
        return Settled(kept=False, events=settled.events, passed=True)

    def _failed(self, parcel: Parcel, error: BaseException, now: float, *, told: bool) -> Settled:
        """``told``: it was when it timed out; or it was ended by ourselves before it could fail."""
        if isinstance(error, Throttled):
            return self._throttle(parcel, error, now)
        return Settled(kept=True) if told else self._fail(parcel, error, now)

    def _fail(self, parcel: Parcel, error: BaseException, now: float) -> Settled:
        parcel.attempts += 1
        parcel.due = now + self.health.pause(parcel.attempts)
        self.health.failed(parcel.number, parcel.started, now)
        return Settled(kept=True, events=(self._failed_once_more(parcel, error),))

    def _throttle(self, parcel: Parcel, error: Throttled, now: float) -> Settled:
        parcel.throttles += 1
        parcel.due = now
        self.health.throttled(error.retry_after, now)
        return Settled(kept=True, events=(self._failed_once_more(parcel, error),))

    def _failed_once_more(self, parcel: Parcel, error: BaseException) -> DeliveryFailed:
        return DeliveryFailed(self.name, parcel.key, parcel.attempts + parcel.throttles, error)

    def _refuse(self, parcel: Parcel, error: Undeliverable, now: float) -> Settled:
        events = self._answered(parcel, now)
        parcel.refusals += 1
        if parcel.refusals >= error.attempts:
            self._drop(parcel)
            dead = DeadLettered(self.name, parcel.key, error.reason)
            return Settled(kept=False, dead=error.reason, events=(*events, dead))
        parcel.due = now + self.health.pause(parcel.refusals)
        self._line_up(parcel)
        return Settled(kept=True, events=events)

    def _cut_short(self, parcel: Parcel, now: float) -> bool:
        """Whether the unit's send was given less than ``inline_timeout``, and used all of that."""
        return parcel.inline and _USED * parcel.timeout <= now - parcel.started < _USED * self._config.inline_timeout

    def _overdue(self, now: float) -> bool:
        """Whether an attempt is silent for longer than it may be."""
        return self.silent(now) and any(self._is_silent(parcel, parcel.grace, now) for parcel in self._flying.values())

    def _is_silent(self, parcel: Parcel, grace: float, now: float) -> bool:
        return self.health.overdue(parcel.started + grace, len(self._flying), now)

    def _answered(self, parcel: Parcel, now: float, waited: float = 0.0) -> tuple[Event, ...]:
        resumed = self.health.answered(max(0.0, now - parcel.started - waited), now)
        return (DeliveryResumed(self.name),) if resumed else ()

    def _launch(self, parcel: Parcel, now: float) -> None:
        parcel.away = True
        parcel.started = now
        self._flying[parcel.number] = parcel

    def _land(self, parcel: Parcel) -> None:
        parcel.away = False
        self._leave(parcel)
        self._relayed -= parcel.relayed
        parcel.relayed = parcel.abandoned = False
        parcel.grace = 0.0
        self._flying.pop(parcel.number, None)

    def _leave(self, parcel: Parcel) -> None:
        if parcel.inline:
            parcel.inline = False
            self._inline -= 1

    def _line_up(self, parcel: Parcel) -> None:
        if parcel.released and self._lines[parcel.key][0] is parcel:
            heapq.heappush(self._waiting, (parcel.due, parcel.number, parcel))

    def _let_go(self, parcel: Parcel) -> None:
        """Another process has it: nothing here may touch its row."""
        parcel.row = None
        self._drop(parcel)

    def _drop(self, parcel: Parcel) -> None:
        parcel.gone = True
        self._size -= 1
        line = self._lines[parcel.key]
        first = line[0] is parcel
        line.remove(parcel)
        if not line:
            del self._lines[parcel.key]
        elif first:
            self._line_up(line[0])
