"""A call with all that running it and telling of it takes, and the batch in which it goes to a worker."""

import contextvars
import logging
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from resilience._checks import check_plain, is_async
from resilience.breaker import Permit
from resilience.events import ends_program
from resilience.fan_out.rounds import Call
from resilience.fan_out.workers import Crew, Worker, attempt
from resilience.outcomes import Cancelled, Outcome, Rejected

if TYPE_CHECKING:
    from resilience.fan_out.session import Session

__all__ = ["Batch", "SessionCall", "Sink", "check_calls", "guarded", "hand_over"]

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
    worker: Worker | None = attrs.field(default=None, init=False)
    begun: bool = attrs.field(default=False, init=False)
    telling: bool = attrs.field(default=False, init=False)  # its end is being told: what it brings waits for that
    late: Outcome[Any] | None = attrs.field(default=None, init=False)  # what it brought meanwhile
    _unclaimed: bool = attrs.field(default=True, init=False)
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context, init=False)

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


class Batch:
    """Calls for one worker, in turn, mostly one; those that have not begun can be taken back."""

    def __init__(self, session: "Session") -> None:
        self.calls: deque[SessionCall] = deque()
        self.key: Hashable = None
        self.begun = False
        self.session = session

    def add(self, call: SessionCall) -> None:
        """Let ``call`` be done after the others; the batch is of the key of its first one."""
        if not self.calls:
            self.key = call.key
        self.calls.append(call)

    def take(self) -> SessionCall | None:
        """Take the next call, which is the taker's then, in one step; None if there is none."""
        try:
            return self.calls.popleft()
        except IndexError:
            return None

    def perform(self, worker: Worker | None) -> bool:
        """Run the calls in ``worker``, or in this thread if None; a call whose end was told is not run any more."""
        session = self.session
        self.begun = True
        while (call := self.take()) is not None:
            if not call.claim():
                continue  # it was taken back
            told = call.outcome is not None
            call.worker, call.begun = worker, not told
            outcome = Cancelled() if told else attempt(call.context, call.call, session.clock)
            parked = session.settle(call, outcome, None if self.calls else worker)
            del call, outcome  # an error's traceback leads to this frame: it must not lead back to the error
            if parked:
                return True
        return worker is not None and session.park(worker)


def guarded(callback: Callable[..., object], *facts: object) -> None:
    """What is somebody else's code must not take a worker, or the calls told of next, down with it."""
    try:
        callback(*facts)
    except BaseException as error:
        if ends_program(error):
            raise
        log.exception("%r raised when told %r", callback, facts)


def hand_over(crew: Crew, batch: Batch, worker: Worker) -> None:
    """Give ``batch`` to ``worker``, and start it if it is a new one; without a thread its calls are rejected."""
    worker.inbox.put(batch)
    if worker.started:
        return
    worker.started = True
    try:
        worker.start()
    except RuntimeError as error:
        crew.discard(worker)
        batch.session.give_up(batch, Rejected(f"no thread could be started for it: {error}"))


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
