"""Which calls are awaited, which are abandoned, and the consequences for the next one. Pure: no lock, no clock.

Four rules, implemented here for every driver:

* The outcome of a call is reported exactly once. It is the real one if it exists when the deadline is checked, even at
  the very deadline, and otherwise ``TimedOut``. An outcome that exists in time is never replaced by a timeout.
* The outcome of an abandoned call is late; it is reported as late once, after the timeout was reported.
* An abandoned call occupies a place of its key until it ends. With ``max_abandoned`` of them the key's next calls are
  rejected; other keys are not affected.
* A breaker is asked before a call begins, and notified of its end when its submitter is.
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

# Every method of a book can be interrupted by an exception from a signal handler: its state is consistent after each
# line, and repeated steps count once.
_LONGEST = 1e6  # 11 days: locks cannot wait for much longer on all platforms
_SLACK = 64  # deadlines of reported calls that can remain in the heap before it is swept


class Told(enum.Enum):
    """Which callback gets the outcome of a call."""

    IN_TIME = "in time"  # on_outcome
    LATE = "late"  # on_late
    HELD = "held"  # none yet: its timeout is just being reported


@attrs.define(eq=False)
class Call:
    """One call, from its submission to its end.

    Attributes:
        key: the key of the call.
        call: the function.
        timeout: its timeout in seconds.
        deadline: clock time of the timeout.
        on_outcome: called with its outcome.
        on_late: called with a later outcome; None for no callback.
        early: whether its breaker is asked for an early probe.
        outcome: the reported outcome; None while it is pending.
        permit: the permit of its breaker.
        begun: whether it was started before its end was reported.
        number: its number in its book.
        telling: whether its end is being reported.
        late: the outcome that arrived meanwhile.
        context: the context variables of the call.
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
        """Whether the caller now owns it, to run it or to take it back; atomic, because only one caller can."""
        try:
            del self._unclaimed
        except AttributeError:
            return False
        return True

    def report(self, outcome: Outcome[Any]) -> None:
        """Report to the breaker. A call that has not begun, whatever its end, tells nothing about the other side."""
        if self.permit is not None:
            guarded(self.permit.report, outcome if self.begun else Cancelled())

    def tell(self, outcome: Outcome[Any]) -> None:
        """Report to the breaker, then to the submitter."""
        self.report(outcome)
        guarded(self.on_outcome, self.key, outcome)

    def tell_late(self, outcome: Outcome[Any]) -> None:
        """Report an outcome that arrived after its end was reported."""
        if self.on_late is not None:
            guarded(self.on_late, self.key, outcome)


class AbandonedCalls:
    """The calls of each key that are past their deadline and still running; shared by all books of one executor.

    Not thread-safe: its driver guards it with a lock.
    """

    def __init__(self, most: int) -> None:
        check_whole("max_abandoned", most, least=1)
        self._most = most
        self._calls: dict[Hashable, set[Call]] = {}

    def count(self, key: Hashable) -> int:
        """Return the number of abandoned calls of ``key``."""
        return len(self._calls.get(key, ()))

    def refusal(self, key: Hashable) -> Rejected | None:
        """Return why ``key`` must not start another call, or None if it can."""
        count = self.count(key)
        if count < self._most:
            return None
        return Rejected(f"{count} calls of {key!r} were abandoned and are still running (max_abandoned={self._most})")

    def add(self, call: Call) -> None:
        """Record that ``call`` is abandoned (for books)."""
        self._calls.setdefault(call.key, set()).add(call)

    def remove(self, call: Call) -> None:
        """Record that the abandoned ``call`` has ended (for books)."""
        calls = self._calls.get(call.key, set())
        calls.discard(call)
        if not calls:
            self._calls.pop(call.key, None)


C = TypeVar("C", bound=Call)


class CallBook(Generic[C]):
    """The calls of one session. Not thread-safe: its driver guards it with a lock, except for ``admit``.

    Args:
        abandoned: the abandoned calls of all sessions.
        breakers: asked before each call; None for none.
    """

    def __init__(self, abandoned: AbandonedCalls, breakers: "BreakerRegistry | None" = None) -> None:
        self._abandoned = abandoned
        self._breakers = breakers
        self._pending: dict[int, C] = {}
        # Numbers, not calls: a reported call and its outcome must not stay alive until its deadline.
        self._deadlines: list[tuple[float, int]] = []
        self._numbers = itertools.count()

    @property
    def pending(self) -> int:
        """The number of calls without a reported outcome."""
        return len(self._pending)

    def admit(self, call: C, now: float) -> Rejected | TimedOut | None:
        """Why ``call`` must not run; None if it can, and then it has its breaker's permit."""
        if call.timeout <= 0:
            return TimedOut(call.timeout)
        if now >= call.deadline:
            return Rejected(f"its timeout of {call.timeout:.3g} s expired before it could start")
        refusal = self._abandoned.refusal(call.key)
        if refusal is not None or self._breakers is None:
            return refusal
        breaker = self._breakers.get(str(call.key))
        permit = breaker.try_acquire(early=True) if call.early else breaker.try_acquire()
        if isinstance(permit, Rejected):
            return permit
        call.permit = permit
        if permit.probe:  # calls that it makes in turn must not wait for this probe
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
        """Record the outcome of ``call``, and return which callback gets it; call this once per call."""
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
        """Remove ``call``, which has begun or was about to, and will not run; returns whether it was pending."""
        others = {number: one for number, one in self._pending.items() if one is not call}
        was_pending = len(others) < len(self._pending)
        self._pending = others
        self._abandoned.remove(call)
        return was_pending

    def expire(self, now: float) -> list[C]:
        """Abandon every call whose deadline is ``now`` or past; each has ``TimedOut`` as outcome, earliest first.

        Report them, and then pass them to `were_told`.
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
        """Record that the ends of ``calls`` were reported; return the late outcomes that arrived meanwhile."""
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
    """Raise unless ``timeout`` is valid. One of 0 or less is valid: its deadline has passed.

    Raises:
        ValueError: it is not finite, or longer than a lock can wait.
        TypeError: it is not a number.
    """
    if type(timeout) is float and 0.0 < timeout <= _LONGEST:
        return
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and -math.inf < timeout <= 0:
        return
    check_number("timeout", timeout, least=0)
    if timeout > _LONGEST:
        raise ValueError(f"timeout must be at most {_LONGEST:.0f} seconds, not {timeout!r}: locks cannot wait longer")


def check_calls(calls: Mapping[Any, object], **sinks: object) -> None:
    """Raise if a function would have to be awaited.

    Raises:
        TypeError: one of the calls or ``sinks`` is an ``async def``.
    """
    for key, call in calls.items():
        if is_async(call):
            raise TypeError(
                f"the call of {key!r} must be an ordinary function, not the async def {call!r}: a fan-out on threads "
                "awaits nothing; pass a function that does the work, with asyncio.run() in it if necessary"
            )
    for name, sink in sinks.items():
        if sink is not None:
            check_plain(name, sink)


def guarded(callback: Callable[..., object], *facts: object) -> None:
    """Call a callback; its errors must not end a thread, or keep other outcomes from being reported."""
    try:
        callback(*facts)
    except BaseException as error:
        if ends_program(error):
            raise
        log.exception("%r raised when called with %r", callback, facts)
