"""When a result goes to its destination, and by whom: decided per destination, without clock, lock, thread or I/O.

A ``Lane`` is one destination. Results with the same key stand in one line; only the first of a line is ever sent, and
it stays first until it is taken or refused for good: that is the order, and why a result is never sent twice at once.
The lines know nothing of each other. A unit may send by itself while the destination is prompt (``health`` knows);
everything else is the relay's, up to ``max_in_flight`` at a time, single attempts while the destination fails; and as
many in fifteen milliseconds, so that a long backlog leaves its destination, and this process, time for what is new.

Results that always fail keep no other waiting: while the destination fails, every second attempt is the newest result
that was never tried, and those that were tried before have at most half the places.
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
from resilience.errors import Refused, Throttled, Undeliverable
from resilience.events import (
    BacklogDrained,
    BacklogFull,
    DeadLettered,
    DeliveryFailed,
    DeliveryRefused,
    DeliveryResumed,
    Event,
)

__all__ = ["Lane"]


_TAKEN = Settled(kept=False)
_PACE = 0.015  # seconds in which the relay begins ``max_in_flight`` attempts at most
_STUCK = 5  # refusals after which a result is no sign of how much its destination can take
_ALONE = 3  # refusals between which others were taken, before a result is given up: one may be bad luck
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
        self._untried: dict[int, Parcel] = {}  # heads of lines that were never tried, by number
        self._tried: list[tuple[float, int, Parcel]] = []  # the other heads, by when they may go
        self._stuck: set[int] = set()  # numbers of results that were refused often
        self._flying: dict[int, Parcel] = {}  # in the order they started
        self._relayed = 0  # attempts of the relay that have not ended
        self._repeated = 0  # those among them whose results were tried before
        self._tried_last = False  # whose turn it is while the destination fails
        self._taken_at = -math.inf  # when a result was taken last
        self._begun: deque[float] = deque(maxlen=config.max_in_flight)  # when the relay's last ones began
        self._pace = _PACE
        self._full = False

    @property
    def pending(self) -> int:
        """How many results the relay has: waiting or being sent by it."""
        return self._size - self._inline

    def backlog(self) -> tuple[Event, ...]:
        """What is to be told of the backlog: that it is full, or that half of it is gone. To be asked after changes."""
        most, waiting = self._config.max_backlog, self.pending - len(self._stuck)
        if self._full and waiting <= most // 2:
            self._full = False
            return (BacklogDrained(self.name),)
        if not self._full and waiting >= most:
            self._full = True
            return (BacklogFull(self.name, self.pending),)
        return ()

    @property
    def has_room(self) -> bool:
        """Whether its backlog is not full; results that were refused often do not count."""
        return self.pending - len(self._stuck) < self._config.max_backlog

    @property
    def idle(self) -> bool:
        """Whether there is no result, not even one that a unit is sending."""
        return not self._size

    @property
    def waits(self) -> bool:
        """Whether a result of the relay waits for its time or for a free place."""
        return bool(self._untried or self._tried)

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
        self._untried = {number: parcel for number, parcel in self._untried.items() if not parcel.gone}
        self._tried = [entry for entry in self._tried if not entry[2].gone]
        heapq.heapify(self._tried)
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
        untried, tried = self._untried_at(now) <= now, self._tried_at(now) <= now
        if self._relayed >= self._config.max_in_flight or not (untried or tried):
            return None
        parcel = self._next_untried() if untried and not (tried and self._is_turn_of_tried()) else self._next_tried()
        parcel.relayed = True
        self._relayed += 1
        parcel.repeated = parcel.tried
        self._repeated += parcel.repeated
        self._begun.append(now)
        self._launch(parcel, now)
        return parcel

    def wake_at(self, now: float) -> float:
        """The clock time from which ``start`` has something; ``inf`` if that takes more than time."""
        if self._relayed >= self._config.max_in_flight:
            return math.inf
        return min(self._untried_at(now), self._tried_at(now))

    def hurry(self, now: float) -> None:
        """The end is near: give every waiting result a try, whatever its pauses; only an asked-for pause stands."""
        self.health.hurry()
        self._pace = 0.0
        self._tried = [(min(due, now), number, parcel) for due, number, parcel in self._tried]
        heapq.heapify(self._tried)

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
        if isinstance(error, Throttled) or not _counts(error) or self._cut_short(parcel, now):
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
            self._taken_at = now
            events = self._answered(parcel, now, waited)
            return Settled(kept=False, events=events) if events else _TAKEN
        if isinstance(error, Undeliverable):
            return self._give_up(parcel, error, now, self._answered(parcel, now))
        if isinstance(error, Refused) and self._is_refused_for_good(parcel, now):
            return self._give_up(parcel, error, now, self._failed(parcel, error, now, told=told).events)
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
        if not _counts(error):
            return self._put_off(parcel, error, now)
        return Settled(kept=True) if told else self._fail(parcel, error, now)

    def _fail(self, parcel: Parcel, error: BaseException, now: float) -> Settled:
        parcel.attempts += 1
        parcel.due = now + self.health.pause(parcel.attempts)
        self.health.failed(parcel.number, parcel.started, now)
        return Settled(kept=True, events=(self._failed_once_more(parcel, error),))

    def _throttle(self, parcel: Parcel, error: Throttled, now: float) -> Settled:
        alone = self._taken_at > parcel.refused_last
        parcel.refused_last = now
        if alone:  # others were taken since this one was asked to wait: the pause is meant for it alone
            settled = self._put_off(parcel, error, now)
            parcel.due = max(parcel.due, now + min(error.retry_after, self._config.max_retry_after))
            return settled
        self._tried_last = True  # another result goes first after the pause, and shows whom it is meant for
        parcel.throttles += 1
        parcel.due = now
        self.health.throttled(error.retry_after, now)
        return Settled(kept=True, events=(self._failed_once_more(parcel, error),))

    def _put_off(self, parcel: Parcel, error: BaseException, now: float) -> Settled:
        """The destination is well, and refuses this result alone."""
        parcel.attempts += 1
        parcel.due = now + self.health.pause(parcel.attempts)
        refused = DeliveryRefused(self.name, parcel.key, parcel.attempts + parcel.throttles, error)
        return Settled(kept=True, events=(*self._answered(parcel, now), refused))

    def _failed_once_more(self, parcel: Parcel, error: BaseException) -> DeliveryFailed:
        return DeliveryFailed(self.name, parcel.key, parcel.attempts + parcel.throttles, error)

    def _is_refused_for_good(self, parcel: Parcel, now: float) -> bool:
        """Whether a result that is refused once more will not be taken: others were, for long enough (rule D6)."""
        parcel.refusals += 1
        if self._taken_at > parcel.refused_last:
            parcel.alone += 1
            parcel.refused_at = min(parcel.refused_at, now)  # before that the fault may have been the destination's
        parcel.refused_last = now
        if parcel.refusals == _STUCK:
            self._stuck.add(parcel.number)
        return now - parcel.refused_at >= self._config.refused_for and parcel.alone >= _ALONE

    def _give_up(
        self, parcel: Parcel, error: Undeliverable | Refused, now: float, events: tuple[Event, ...]
    ) -> Settled:
        self._drop(parcel)
        reason = str(error)
        if isinstance(error, Refused):
            reason += f" (refused {parcel.refusals} times in {now - parcel.refused_at:.0f} s, while others were taken)"
        dead = DeadLettered(self.name, parcel.key, reason, parcel.payload, error)
        return Settled(kept=False, dead=reason, events=(*events, dead))

    def _cut_short(self, parcel: Parcel, now: float) -> bool:
        """Whether the unit's send was given less than ``inline_timeout``, and used all of that."""
        return parcel.inline and _USED * parcel.timeout <= now - parcel.started < _USED * self._config.inline_timeout

    def _overdue(self, now: float) -> bool:
        """Whether an attempt is silent for longer than it may be."""
        return self.silent(now) and any(self._is_silent(parcel, parcel.grace, now) for parcel in self._flying.values())

    def _untried_at(self, now: float) -> float:
        if not self._untried:
            return math.inf
        return max(self._oldest_untried().due, self._open_at(now, untried=True))

    def _tried_at(self, now: float) -> float:
        if not self._tried or self._repeated >= max(1, self._config.max_in_flight // 2):
            return math.inf
        return max(self._tried[0][0], self._open_at(now, untried=False))

    def _open_at(self, now: float, *, untried: bool) -> float:
        relayed = [parcel.started for parcel in self._flying.values() if parcel.relayed]
        paced = self._begun[0] + self._pace if len(self._begun) == self._config.max_in_flight else -math.inf
        return max(paced, self.health.open_at(relayed, overdue=self._overdue(now), untried=untried))

    def _is_turn_of_tried(self) -> bool:
        """Of the two that may go now: in turns while the destination fails, else whichever is due for longer."""
        if self.health.failing:
            return not self._tried_last
        due, number, _ = self._tried[0]
        first = self._oldest_untried()
        return (due, number) < (first.due, first.number)

    def _oldest_untried(self) -> Parcel:
        return next(iter(self._untried.values()))

    def _next_untried(self) -> Parcel:
        self._tried_last = False
        return self._untried.pop(max(self._untried) if self.health.failing else next(iter(self._untried)))

    def _next_tried(self) -> Parcel:
        self._tried_last = True
        return heapq.heappop(self._tried)[2]

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
        self._repeated -= parcel.relayed and parcel.repeated
        parcel.relayed = parcel.abandoned = False
        parcel.grace = 0.0
        self._flying.pop(parcel.number, None)

    def _leave(self, parcel: Parcel) -> None:
        if parcel.inline:
            parcel.inline = False
            self._inline -= 1

    def _line_up(self, parcel: Parcel) -> None:
        if not parcel.released or self._lines[parcel.key][0] is not parcel:
            return
        if parcel.tried:
            heapq.heappush(self._tried, (parcel.due, parcel.number, parcel))
        else:
            self._untried[parcel.number] = parcel

    def _let_go(self, parcel: Parcel) -> None:
        """Another process has it: nothing here may touch its row."""
        parcel.row = None
        self._drop(parcel)

    def _drop(self, parcel: Parcel) -> None:
        parcel.gone = True
        self._stuck.discard(parcel.number)
        self._size -= 1
        line = self._lines[parcel.key]
        first = line[0] is parcel
        line.remove(parcel)
        if not line:
            del self._lines[parcel.key]
        elif first:
            self._line_up(line[0])


def _counts(error: BaseException) -> bool:
    """Whether ``error`` says that the destination failed, and not only that it refuses this result."""
    return not isinstance(error, Refused) or error.counts
