"""What a running worker says: one line for each thing worth knowing. Pure."""

from collections.abc import Mapping
from typing import Any

import attrs

from conductor_adapter.events import RunnerEvent, TaskFailed, TaskLeaseLost
from conductor_adapter.tasks import Task, TaskStatus, task_named
from resilience import (
    BacklogDrained,
    BacklogFull,
    BreakerChanged,
    BreakerState,
    DeadLettered,
    DeliveryFailed,
    DeliveryRefused,
    DeliveryResumed,
    GaveBack,
    GiveBackFailed,
    HandlerFailed,
    ItemsArrivedLate,
    LeaseGivenUp,
    OutboxFailed,
    OutboxResumed,
    PollFailed,
    PollOverdue,
    PollTimedOut,
    RowsKept,
    SurplusArrived,
    ThreadUnavailable,
    Undelivered,
)

__all__ = ["NORMAL", "QUIET", "VERBOSE", "Line", "counted", "line_of", "without_name"]

QUIET, NORMAL, VERBOSE = 0, 1, 2
_ENDS = {
    TaskStatus.FAILED: "failed",
    TaskStatus.FAILED_WITH_TERMINAL_ERROR: "failed for good",
}


@attrs.frozen
class Line:
    """One thing to say.

    Attributes:
        kind: what it is about, for machines and for sampling.
        server: the server it is about.
        text: the sentence for people.
        level: 0 is said even when quiet, 2 only when verbose.
        style: how it looks on a terminal, in rich's words.
        facts: what machines get beside the sentence, by name.
        error: what went wrong, if its traceback is worth showing to those who want to see everything.
    """

    kind: str
    server: str
    text: str
    level: int = NORMAL
    style: str = ""
    facts: Mapping[str, Any] = attrs.field(factory=dict)
    error: BaseException | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What counts as the same line again; tasks of one type do not hide those of another."""
        task_type = self.facts.get("task_type")
        return (self.kind if task_type is None else f"{self.kind} ({task_type})", self.server)


def line_of(event: RunnerEvent) -> Line | None:
    """What there is to say about ``event``; None for what happens all the time."""
    return _of_polls(event) or _of_deliveries(event) or _of_backlog(event) or _of_outbox(event) or _of_arrivals(event)


def _of_polls(event: RunnerEvent) -> Line | None:
    match event:
        case BreakerChanged(name, before, after):
            return _of_breaker(event, name, before, after)
        case PollFailed(source, error):
            return Line("poll failed", source, f"poll failed: {_text(error, source)}", style="red")
        case PollTimedOut(source, timeout):
            text = f"no answer to a poll within {timeout:g} s; a late one is taken in"
            return Line("poll timed out", source, text, style="red")
        case ThreadUnavailable(source, purpose, reason):
            return Line("no thread", source, f"{purpose} has to wait: {reason}", style="red")
        case PollOverdue(source, granted):
            units = "unit works" if granted == 1 else f"{granted} units work"
            return Line("poll overdue", source, f"a poll is overdue; its {units} for others", VERBOSE)
    return None


def _of_breaker(event: BreakerChanged, name: str, before: BreakerState, after: BreakerState) -> Line:
    """Trips and recoveries are one kind, the probes between them another: those repeat while a server is down."""
    wait = f", next probe in {event.retry_after:.1f} s" if event.retry_after is not None else ""
    if wait and event.calls == "updates":
        wait = ", results are tried every few seconds"  # rule D8
    trip = before is BreakerState.CLOSED
    kind = "breaker" if trip or after is BreakerState.CLOSED else "probe"
    because = f": {_text(event.error, name)}" if trip and event.error is not None else ""
    calls = "" if event.calls is None else f" of {event.calls}"
    text = f"breaker{calls} {before.value} -> {after.value}{wait}{because}"
    return Line(
        f"{kind}{calls}", name, text, QUIET, style="bold green" if after is BreakerState.CLOSED else "bold yellow"
    )


def _of_deliveries(event: RunnerEvent) -> Line | None:
    match event:
        case DeliveryFailed(destination, key, attempt, error):
            said = without_name(_text(error), destination, key)
            text = f"result of task {key} not taken (attempt {attempt}), it is sent again: {said}"
            return Line("delivery failed", destination, text, style="red", facts={"task": key})
        case DeliveryRefused(destination, key, attempt, error):
            said = without_name(_text(error), destination, key)
            text = f"result of task {key} refused (attempt {attempt}), it is sent again: {said}"
            return Line("delivery refused", destination, text, style="red", facts={"task": key})
        case DeliveryResumed(destination):
            return Line("delivery resumed", destination, "takes results again", style="green")
        case DeadLettered(destination, key, reason):
            text = f"result of task {key} was refused for good: {without_name(reason, destination, key)}"
            return Line("dead letter", destination, text, QUIET, style="bold red", facts={"task": key})
        case Undelivered(destination, key):
            text = f"result of task {key} was left undelivered"
            return Line("undelivered", destination, text, QUIET, style="bold red", facts={"task": key})
    return None


def _of_backlog(event: RunnerEvent) -> Line | None:
    match event:
        case BacklogFull(destination, waiting):
            text = f"takes results too slowly: {waiting} wait, and it is not polled until half of them are gone"
            return Line("backlog full", destination, text, style="yellow")
        case BacklogDrained(destination):
            return Line("backlog drained", destination, "half of the waiting results are gone, it is polled again")
    return None


def _of_outbox(event: RunnerEvent) -> Line | None:
    match event:
        case OutboxFailed(destination, error):
            text = f"results cannot be written down; no more tasks until they are delivered or written: {_text(error)}"
            return Line("outbox failed", destination, text, QUIET, style="bold red")
        case OutboxResumed(destination):
            return Line("outbox resumed", destination, "no result is unwritten any more", QUIET, style="green")
        case RowsKept(destination, identity, count):
            them = "waits" if count == 1 else "wait"
            text = f"{counted(count, 'result')} of a former worker {them} for {identity}, which is no server here"
            return Line("results kept", destination, text, style="yellow")
    return None


def _of_arrivals(event: RunnerEvent) -> Line | None:
    match event:
        case SurplusArrived(source, count, asked):
            text = f"brings more tasks than it is asked for ({count} for {asked}); the surplus goes back"
            return Line("surplus", source, text, style="yellow")
        case ItemsArrivedLate(source, count) if count:
            return Line("late tasks", source, f"{counted(count, 'task')} arrived late, taken in", style="cyan")
    return _of_tasks(event)


def _of_tasks(event: RunnerEvent) -> Line | None:
    match event:
        case GaveBack(source, count, reason):
            return Line("gave back", source, f"{counted(count, 'task')} given back un-started ({reason})", style="cyan")
        case GiveBackFailed(source, count, error):
            text = (
                f"{counted(count, 'task')} could not be given back, the server times them out: {_text(error, source)}"
            )
            return Line("give-back failed", source, text, style="red")
        case HandlerFailed(source, error):
            which = getattr(error, "__notes__", None) or ["a task"]  # the runner notes there which one it was
            text = f"{which[-1]} could not be handled: {_text(error)}"
            return Line("task lost", source, text, QUIET, style="bold red", error=error)
        case TaskFailed(server, task_type, task_id, status, reason, error):
            text = f"{task_named(task_id, task_type)} {_ENDS[status]}: {reason or 'it gave no reason'}"
            facts = {"task": task_id, "task_type": task_type}
            return Line("task failed", server, text, style="red", facts=facts, error=error)
    return _of_leases(event)


def _of_leases(event: RunnerEvent) -> Line | None:
    match event:
        case TaskLeaseLost(server, task_type, task_id, error):
            what = f"{task_named(task_id, task_type)} has outlived its response timeout"
            facts = {"task": task_id, "task_type": task_type}
            return Line(
                "lease lost", server, f"{what}; it may be run again: {_text(error, server)}", style="red", facts=facts
            )
        case LeaseGivenUp(source, Task(task_id=task_id, task_type=task_type), max_lease):
            what = f"{task_named(task_id, task_type)} runs for more than {max_lease:g} s (max_lease)"
            facts = {"task": task_id, "task_type": task_type}
            return Line("lease given up", source, f"{what}: it is kept alive no longer", style="red", facts=facts)
    return None


def counted(count: int, what: str) -> str:
    """``count`` of ``what``, in the plural unless it is one."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def without_name(text: str, server: str, task_id: str | None = None) -> str:
    """What went wrong, where the server, and the task, are named already."""
    text = text.removeprefix(f"server {server!r}: ")
    return text if task_id is None else text.replace(f" of task {task_id}: ", ": ", 1)


def _text(error: BaseException, server: str = "") -> str:
    return without_name(str(error), server) or type(error).__name__
