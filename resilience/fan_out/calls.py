"""A call with all that running it and telling of it takes, and the batch in which it goes to a worker."""

import contextvars
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from resilience.breaker import Permit
from resilience.events import ends_program
from resilience.fan_out.rounds import Call
from resilience.fan_out.workers import Worker, attempt
from resilience.outcomes import Cancelled, Failed, Outcome, TimedOut, Value

if TYPE_CHECKING:
    from resilience.fan_out.session import Session

__all__ = ["Batch", "SessionCall", "Sink", "guarded"]

log = logging.getLogger("resilience")

Sink = Callable[[Any, Outcome[Any]], None]


@attrs.define(eq=False)
class SessionCall(Call):
    """A call with all that running it and telling of it takes."""

    call: Callable[[], Any]
    on_outcome: Sink
    on_late: Sink | None
    ours: bool  # on_outcome is: it returns at once and does not raise
    early: bool = False  # its breaker is asked for an early probe
    here: bool = False  # the thread that submits it runs it
    permit: Permit | None = attrs.field(default=None, init=False)
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context, init=False)

    def report(self, outcome: Outcome[Any]) -> None:
        """Tell the breaker."""
        if self.permit is not None:
            guarded(_report, self.permit, outcome)

    def tell(self, outcome: Outcome[Any]) -> None:
        """Tell the breaker, then whoever submitted it."""
        self.report(outcome)
        guarded(self.on_outcome, self.key, outcome)


class Batch:
    """Calls for one worker, in turn, mostly one; those that have not begun can be taken back."""

    def __init__(self, session: "Session") -> None:
        self.calls: deque[SessionCall] = deque()
        self.begun = False
        self._session = session

    def take(self) -> SessionCall | None:
        """Take the next call, which is the taker's then, in one step; None if there is none."""
        try:
            return self.calls.popleft()
        except IndexError:
            return None

    def perform(self, worker: Worker | None) -> bool:
        """Run the calls in ``worker``, or in this thread if None; a call whose end was told is not run any more."""
        session = self._session
        self.begun = True
        while (call := self.take()) is not None:
            told = call.outcome is not None
            outcome = Cancelled() if told else attempt(call.context, call.call, session.clock)
            parked = session.settle(call, outcome, None if self.calls else worker)
            del call, outcome  # an error's traceback leads to this frame: it must not lead back to the error
            if parked:
                return True
        return worker is not None and session.park(worker)


def _report(permit: Permit, outcome: Outcome[Any]) -> None:
    if isinstance(outcome, Value):
        permit.success()
    elif isinstance(outcome, Failed):
        permit.failure(outcome.error)
    elif isinstance(outcome, TimedOut):
        permit.failure(TimeoutError(f"no outcome within {outcome.timeout:.3g} s"))
    else:
        permit.release()


def guarded(callback: Callable[..., object], *facts: object) -> None:
    """What is somebody else's code must not take a worker, or the calls told of next, down with it."""
    try:
        callback(*facts)
    except BaseException as error:
        if ends_program(error):
            raise
        log.exception("%r raised when told %r", callback, facts)
