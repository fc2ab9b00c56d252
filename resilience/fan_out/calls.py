"""Which calls are awaited, which run on unawaited, and what that means for the next one. Pure: no lock, no clock.

Four rules, kept here for every driver:

* A call is told of exactly once. What it came to is told if it exists when its deadline is looked at, also at the very
  deadline; ``TimedOut`` only if nothing exists by then. Nothing that came in time is replaced by a timeout.
* What an abandoned call brings later is late; it is late once, and told after the end of the call was.
* An abandoned call keeps a place of its own key until it ends. With ``max_abandoned`` of them the key's next calls are
  rejected; other keys are not touched.
* A breaker is asked before a call begins, and told of its end when its submitter is.
"""

import contextvars
import enum
import heapq
import itertools
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from resilience._checks import check_number, check_plain, check_whole, is_async
from resilience.breaker import Permit
from resilience.events import ends_program
from resilience.outcomes import Cancelled, Outcome, Rejected, TimedOut

if TYPE_CHECKING:
    from resilience.registry import BreakerRegistry

__all__ = ["AbandonedCalls", "Call", "CallBook", "Sink", "Told", "check_calls", "check_timeout", "guarded"]

log = logging.getLogger("resilience")

Sink = Callable[[Any, Outcome[Any]], None]

# Every method of a book may be cut short by an exception out of a signal handler: the accounts are right after each
# line, and what is done twice counts once.
_LONGEST = 1e6  # 11 days: locks cannot wait for much longer on every platform, nobody for a call
_SLACK = 64  # told calls whose deadlines may linger in the heap before it is swept


class Told(enum.Enum):
    """Who is told of the end of a call."""

    IN_TIME = "in time"  # whoever waits for it
    LATE = "late"  # whoever takes what is late
    HELD = "held"  # nobody yet: its timeout is just being told


@attrs.define(eq=False)
class Call:
    """One call, from its submission to its end.

    Attributes:
        key: whose call it is.
        call: the function.
        timeout: the seconds it was given.
        deadline: clock time at which those are over.
        on_outcome: told of its end.
        on_late: told of what comes after that; None for nobody.
        early: its breaker is asked for an early probe.
        outcome: what was told of it; None while it is pending.
        permit: its breaker's leave.
        begun: it was started, and was not over by then.
        number: its place in its book.
        telling: its end is being told.
        late: what it brought meanwhile.
        context: the context variables that it sees.
    """

    key: Hashable
    call: Callable[[], Any]
    timeout: float
    deadline: float
    on_outcome: Sink
    on_late: Sink | None = None
    early: bool = False
    outcome: Outcome[Any] | None = attrs.field(default=None, init=False)
    permit: Permit | None = attrs.field(default=None, init=False)
    begun: bool = attrs.field(default=False, init=False)
    number: int = attrs.field(default=-1, init=False)
    telling: bool = attrs.field(default=False, init=False)
    late: Outcome[Any] | None = attrs.field(default=None, init=False)
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context, init=False)
    _unclaimed: bool = attrs.field(default=True, init=False)

    def claim(self) -> bool:
        """Whether it is the caller's from here, to run it or to take it back; in one step, for it is only one's."""
        try:
            del self._unclaimed
        except AttributeError:
            return False
        return True

    def report(self, outcome: Outcome[Any]) -> None:
        """Tell the breaker. What has not begun, whatever its end, says nothing about the other side."""
        if self.permit is not None:
            guarded(self.permit.report, outcome if self.begun else Cancelled())

    def tell(self, outcome: Outcome[Any]) -> None:
        """Tell the breaker, then whoever submitted it."""
        self.report(outcome)
        guarded(self.on_outcome, self.key, outcome)

    def tell_late(self, outcome: Outcome[Any]) -> None:
        """Tell what came of it after its end was told."""
        if self.on_late is not None:
            guarded(self.on_late, self.key, outcome)


class AbandonedCalls:
    """The calls of each key that are past their deadline and still run; shared by all books of one executor.

    Not thread-safe: its driver guards it.
    """

    def __init__(self, most: int) -> None:
        check_whole("max_abandoned", most, least=1)
        self._most = most
        self._calls: dict[Hashable, set[Call]] = {}

    def count(self, key: Hashable) -> int:
        """Return how many there are of ``key``."""
        return len(self._calls.get(key, ()))

    def refusal(self, key: Hashable) -> Rejected | None:
        """Return why ``key`` may not start another call, or None if it may."""
        count = self.count(key)
        if count < self._most:
            return None
        return Rejected(f"{count} calls of {key!r} were abandoned and still run (max_abandoned={self._most})")

    def add(self, call: Call) -> None:
        """``call`` is abandoned (for books)."""
        self._calls.setdefault(call.key, set()).add(call)

    def remove(self, call: Call) -> None:
        """``call`` was abandoned and has ended (for books)."""
        calls = self._calls.get(call.key, set())
        calls.discard(call)
        if not calls:
            self._calls.pop(call.key, None)


C = TypeVar("C", bound=Call)


class CallBook(Generic[C]):
    """The calls of one session. Not thread-safe: its driver guards it, except for ``admit``.

    Args:
        abandoned: those of all sessions.
        breakers: asked before each call; None for none.
    """

    def __init__(self, abandoned: AbandonedCalls, breakers: "BreakerRegistry | None" = None) -> None:
        self._abandoned = abandoned
        self._breakers = breakers
        self._pending: dict[int, C] = {}
        # Numbers, not calls: a told call and what it brought must not live on until its deadline.
        self._deadlines: list[tuple[float, int]] = []
        self._numbers = itertools.count()

    @property
    def pending(self) -> int:
        """How many calls nothing was told of yet."""
        return len(self._pending)

    def admit(self, call: C, now: float) -> Rejected | TimedOut | None:
        """Why ``call`` may not run; None if it may, and then it has its breaker's permit."""
        if call.timeout <= 0:
            return TimedOut(call.timeout)
        if now >= call.deadline:
            return Rejected(f"its {call.timeout:.3g} s were over before it could start")
        refusal = self._abandoned.refusal(call.key)
        if refusal is not None or self._breakers is None:
            return refusal
        breaker = self._breakers.get(str(call.key))
        permit = breaker.try_acquire(early=True) if call.early else breaker.try_acquire()
        if isinstance(permit, Rejected):
            return permit
        call.permit = permit
        if permit.probe:  # what the call calls in turn must not wait for the probe that it is itself
            call.call = partial(permit.run, call.call)
        return None

    def begin(self, call: C) -> None:
        """Await ``call``, which was admitted."""
        call.number = number = next(self._numbers)
        self._pending[number] = call
        if len(self._deadlines) > 2 * len(self._pending) + _SLACK:
            self._deadlines = sorted((c.deadline, n) for n, c in self._pending.items())
        else:
            heapq.heappush(self._deadlines, (call.deadline, number))

    def end(self, call: C, outcome: Outcome[Any]) -> Told:
        """Take in what ``call`` came to, and say who is to be told of it; to be called once a call."""
        if call.number not in self._pending:
            self._abandoned.remove(call)
            if not call.telling:
                return Told.LATE
            call.late = outcome
            return Told.HELD
        call.outcome = outcome
        del self._pending[call.number]
        return Told.IN_TIME

    def withdraw(self, call: C) -> bool:
        """Forget ``call``, which was begun, or was about to be, and will not run; returns whether it was pending."""
        others = {number: one for number, one in self._pending.items() if one is not call}
        was_pending = len(others) < len(self._pending)
        self._pending = others
        self._abandoned.remove(call)
        return was_pending

    def expire(self, now: float) -> list[C]:
        """Abandon every call whose deadline is ``now`` or past; each has ``TimedOut`` as outcome, earliest first.

        They are to be told of, and then named to `were_told`.
        """
        expired = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            call = self._pending[self._deadlines[0][1]]
            expired.append(call)
            self._abandon(call, TimedOut(call.timeout))
        return expired

    def cancel(self) -> list[C]:
        """Abandon every pending call, in the order they began; each has ``Cancelled`` as outcome. As for `expire`."""
        cancelled = list(self._pending.values())
        for call in cancelled:
            self._abandon(call, Cancelled())
        return cancelled

    def were_told(self, calls: Iterable[C]) -> list[tuple[C, Outcome[Any]]]:
        """The ends of ``calls`` were told; return what some of them have brought meanwhile, which is late."""
        for call in (told := list(calls)):
            call.telling = False
        return [(call, call.late) for call in told if call.late is not None]

    def next_deadline(self) -> float | None:
        """Return the clock time at which the next pending call times out, None if none is pending."""
        while self._deadlines and self._deadlines[0][1] not in self._pending:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _abandon(self, call: C, outcome: Outcome[Any]) -> None:
        self._abandoned.add(call)
        call.telling = True
        call.outcome = outcome
        del self._pending[call.number]


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


def check_calls(calls: Mapping[Any, object], **sinks: object) -> None:
    """Refuse functions that nobody would await.

    Raises:
        TypeError: for an ``async def``, among the calls or as one of the ``sinks``.
    """
    for key, call in calls.items():
        if is_async(call):
            raise TypeError(
                f"the call of {key!r} must be an ordinary function, not the async def {call!r}: a fan-out on threads "
                "awaits nothing; give a function that does the work, with asyncio.run() in it if it must be a coroutine"
            )
    for name, sink in sinks.items():
        if sink is not None:
            check_plain(name, sink)


def guarded(callback: Callable[..., object], *facts: object) -> None:
    """What is somebody else's code must not take a thread, or the calls told of next, down with it."""
    try:
        callback(*facts)
    except BaseException as error:
        if ends_program(error):
            raise
        log.exception("%r raised when told %r", callback, facts)
