"""Reports: a poll's call, and what its outcome tells the planner."""

from collections.abc import Sequence
from typing import TypeVar

from resilience.errors import Incomplete
from resilience.outcomes import Failed, Outcome, Rejected, TimedOut, Value
from resilience.polling.pausing import pause_asked
from resilience.polling.planner import PollPlanner
from resilience.polling.source import PollRequest, Source, checked

__all__ = ["brought", "called", "report"]

V = TypeVar("V")


def called(source: Source[V], request: PollRequest) -> Sequence[V]:
    """Poll ``source``; what it returns must be a sequence, and may be longer than was asked for."""
    return checked(source.poll(request.count, request.wait), source.name, "poll() returns", request.count)


def brought(outcome: Outcome[Sequence[V]]) -> Sequence[V]:
    """The values that a poll brought."""
    if isinstance(outcome, Value):
        return outcome.value
    error = outcome.error if isinstance(outcome, Failed) else None
    return error.values if isinstance(error, Incomplete) else ()


def report(
    request: PollRequest,
    outcome: Outcome[Sequence[object]],
    values: Sequence[object],
    planner: PollPlanner,
    now: float,
) -> None:
    """Tell the planner what a poll came to, and which ``values`` it brought; `Throttled` may ask for a pause."""
    if isinstance(outcome, Value):
        planner.answered(request, values, now)
    elif isinstance(outcome, TimedOut):
        planner.timed_out(request, now)
    elif isinstance(outcome, Rejected):
        planner.rejected(request, outcome.retry_after, now)
    else:
        error = outcome.error if isinstance(outcome, Failed) else RuntimeError("the poll was cancelled")
        planner.failed(request, error, now, hint=pause_asked(error), values=values)
