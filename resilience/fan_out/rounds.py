"""Which calls are awaited, which run on unawaited, and what that means for the next one. Pure: no lock, no clock.

Three rules, kept here for every driver:

* A call is told of exactly once. What it came to is told if it exists when its deadline is looked at, also at the very
  deadline; ``TimedOut`` only if nothing exists by then. Nothing that came in time is replaced by a timeout.
* What an abandoned call brings later is late; it is late once.
* An abandoned call keeps a place of its own key until it ends. With no place left the key's next calls are rejected;
  other keys are not touched.
"""

import heapq
import itertools
import math
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import attrs

from resilience._checks import check_number, check_whole
from resilience.outcomes import Cancelled, Outcome, Rejected, TimedOut

__all__ = ["Call", "Places", "Round", "check_timeout"]

# Every method may be cut short by an exception out of a signal handler: the accounts are right after each line, and
# what is done twice counts once.
_LONGEST = 1e6  # 11 days: locks cannot wait for much longer on every platform, nobody for a call
_SLACK = 64  # told calls whose deadlines may linger in the heap before it is swept


def check_timeout(timeout: float) -> None:
    """Refuse a ``timeout`` that bounds nothing. One of 0 or less bounds everything: its deadline is over.

    Raises:
        ValueError: not finite, or longer than a lock can wait.
        TypeError: not a number.
    """
    if type(timeout) is float and 0.0 < timeout <= _LONGEST:
        return
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and -math.inf < timeout <= 0:
        return
    check_number("timeout", timeout, least=0)
    if timeout > _LONGEST:
        raise ValueError(f"timeout must be at most {_LONGEST:.0f} seconds, not {timeout!r}: no one waits for longer")


@attrs.define(eq=False)
class Call:
    """One call of a round; drivers add what they need to run it.

    Attributes:
        key: whose call it is.
        timeout: the seconds it was given.
        deadline: clock time at which those are over.
        outcome: what was told of it; None while it is pending.
        number: its place in its round, given by the round.
    """

    key: Hashable
    timeout: float
    deadline: float
    outcome: Outcome[Any] | None = attrs.field(default=None, init=False)
    number: int = attrs.field(default=-1, init=False)


class Places:
    """How many abandoned calls each key has; shared by all rounds of one executor.

    Not thread-safe: its driver guards it.
    """

    def __init__(self, max_abandoned: int) -> None:
        check_whole("max_abandoned", max_abandoned, least=1)
        self._max_abandoned = max_abandoned
        self._abandoned: dict[Hashable, set[Call]] = {}

    def abandoned(self, key: Hashable) -> int:
        """Return how many calls of ``key`` are past their deadline and still running."""
        return len(self._abandoned.get(key, ()))

    def refusal(self, key: Hashable) -> Rejected | None:
        """Return why ``key`` may not start another call, or None if it may."""
        count = self.abandoned(key)
        if count < self._max_abandoned:
            return None
        return Rejected(f"{count} calls of {key!r} were abandoned and still run (max_abandoned={self._max_abandoned})")

    def take(self, call: Call) -> None:
        """``call`` is abandoned (for rounds)."""
        self._abandoned.setdefault(call.key, set()).add(call)

    def free(self, call: Call) -> None:
        """``call`` was abandoned and has ended (for rounds)."""
        calls = self._abandoned.get(call.key, set())
        calls.discard(call)
        if not calls:
            self._abandoned.pop(call.key, None)


C = TypeVar("C", bound=Call)


class Round(Generic[C]):
    """The calls of one session. Not thread-safe: its driver guards it with the lock that guards its ``Places``."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._pending: dict[int, C] = {}
        # Numbers, not calls: a told call and what it brought must not live on until its deadline.
        self._deadlines: list[tuple[float, int]] = []
        self._numbers = itertools.count()

    @property
    def pending(self) -> int:
        """How many calls nothing was told of yet."""
        return len(self._pending)

    def begin(self, call: C) -> None:
        """Await ``call``; whether its key may start one is ``Places.refusal``'s to say."""
        call.number = number = next(self._numbers)
        self._pending[number] = call
        if len(self._deadlines) > 2 * len(self._pending) + _SLACK:
            self._deadlines = sorted((c.deadline, n) for n, c in self._pending.items())
        else:
            heapq.heappush(self._deadlines, (call.deadline, number))

    def end(self, call: C, outcome: Outcome[Any]) -> bool:
        """Take in what ``call`` came to; to be called once a call.

        Returns:
            True if ``outcome`` is to be told; False if something else was told before, so that it is late.
        """
        if call.number not in self._pending:
            self._places.free(call)
            return False
        call.outcome = outcome
        del self._pending[call.number]
        return True

    def withdraw(self, call: C) -> bool:
        """Forget ``call``, which was begun, or was about to be, and will not run; returns whether it was pending."""
        others = {number: one for number, one in self._pending.items() if one is not call}
        was_pending = len(others) < len(self._pending)
        self._pending = others
        self._places.free(call)
        return was_pending

    def expire(self, now: float) -> list[C]:
        """Abandon every call whose deadline is ``now`` or past; each has ``TimedOut`` as outcome, earliest first."""
        expired = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            call = self._pending[self._deadlines[0][1]]
            expired.append(call)
            self._abandon(call, TimedOut(call.timeout))
        return expired

    def cancel(self) -> list[C]:
        """Abandon every pending call, in the order they began; each has ``Cancelled`` as its outcome."""
        cancelled = list(self._pending.values())
        for call in cancelled:
            self._abandon(call, Cancelled())
        return cancelled

    def next_deadline(self) -> float | None:
        """Return the clock time at which the next pending call times out, None if none is pending."""
        while self._deadlines and self._deadlines[0][1] not in self._pending:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _abandon(self, call: C, outcome: Outcome[Any]) -> None:
        self._places.take(call)
        call.outcome = outcome
        del self._pending[call.number]
