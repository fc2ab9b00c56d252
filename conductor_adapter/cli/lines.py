"""The lines that a running worker prints: one for each event worth knowing. Pure."""

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
    TaskStatus.FAILED_WITH_TERMINAL_ERROR: "failed permanently",
}


@attrs.frozen
class Line:
    """One line of output.

    Attributes:
        kind: the subject, for machines and for sampling.
        server: the server it is about.
        text: the sentence for people.
        level: 0 is printed even when quiet, 2 only when verbose.
        style: how it looks on a terminal, as a style of rich.
        facts: further facts for machines, by name.
        error: the error, if its traceback is to be shown when verbose.
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
        """Lines with the same key are sampled together; tasks of one type do not hide those of another."""
        task_type = self.facts.get("task_type")
        return (self.kind if task_type is None else f"{self.kind} ({task_type})", self.server)


def line_of(event: RunnerEvent) -> Line | None:
    """The line for ``event``; None if it is routine."""
    return _of_polls(event) or _of_deliveries(event) or _of_backlog(event) or _of_outbox(event) or _of_arrivals(event)


def _of_polls(event: RunnerEvent) -> Line | None:
    match event:
        case BreakerChanged(name, before, after):
            return _of_breaker(event, name, before, after)
        case PollFailed(source, error):
            return Line("poll failed", source, f"poll failed: {_text(error, source)}", style="red")
        case PollTimedOut(source, timeout):
            text = f"poll timed out after {timeout:g} s; a late answer will still be used"
            return Line("poll timed out", source, text, style="red")
        case ThreadUnavailable(source, purpose, reason):
            return Line("no thread", source, f"{purpose} is waiting for a thread: {reason}", style="red")
        case PollOverdue(source, granted):
            units = "unit is" if granted == 1 else f"{granted} units are"
            return Line("poll overdue", source, f"a poll is overdue; its {units} lent to other servers", VERBOSE)
    return None


def _of_breaker(event: BreakerChanged, name: str, before: BreakerState, after: BreakerState) -> Line:
    """Trips and recoveries are one kind; the probes between them, which repeat while a server is down, are another."""
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
            text = f"result of task {key} could not be delivered (attempt {attempt}; will retry): {said}"
            return Line("delivery failed", destination, text, style="red", facts={"task": key})
        case DeliveryRefused(destination, key, attempt, error):
            said = without_name(_text(error), destination, key)
            text = f"result of task {key} was refused (attempt {attempt}; will retry): {said}"
            return Line("delivery refused", destination, text, style="red", facts={"task": key})
        case DeliveryResumed(destination):
            return Line("delivery resumed", destination, "accepts results again", style="green")
        case DeadLettered(destination, key, reason):
            text = f"result of task {key} was refused permanently: {without_name(reason, destination, key)}"
            return Line("dead letter", destination, text, QUIET, style="bold red", facts={"task": key})
        case Undelivered(destination, key):
            text = f"result of task {key} was lost: it could be neither delivered nor stored"
            return Line("undelivered", destination, text, QUIET, style="bold red", facts={"task": key})
    return None


def _of_backlog(event: RunnerEvent) -> Line | None:
    match event:
        case BacklogFull(destination, waiting):
            text = f"accepts results too slowly: {waiting} waiting; polling is paused until half of them are delivered"
            return Line("backlog full", destination, text, style="yellow")
        case BacklogDrained(destination):
            return Line("backlog drained", destination, "half of the waiting results are delivered; polling resumed")
    return None


def _of_outbox(event: RunnerEvent) -> Line | None:
    match event:
        case OutboxFailed(destination, error):
            text = f"results cannot be stored; polling is paused until they are delivered or stored: {_text(error)}"
            return Line("outbox failed", destination, text, QUIET, style="bold red")
        case OutboxResumed(destination):
            return Line("outbox resumed", destination, "all results are delivered or stored", QUIET, style="green")
        case RowsKept(destination, identity, count):
            are = "is" if count == 1 else "are"
            text = f"{counted(count, 'result')} of an earlier worker {are} waiting for {identity}, not configured here"
            return Line("results kept", destination, text, style="yellow")
    return None


def _of_arrivals(event: RunnerEvent) -> Line | None:
    match event:
        case SurplusArrived(source, count, asked):
            text = f"returned more tasks than requested ({count} instead of {asked}); the surplus is given back"
            return Line("surplus", source, text, style="yellow")
        case ItemsArrivedLate(source, count) if count:
            return Line("late tasks", source, f"{counted(count, 'task')} arrived late and will be run", style="cyan")
    return _of_tasks(event)


def _of_tasks(event: RunnerEvent) -> Line | None:
    match event:
        case GaveBack(source, count, reason):
            return Line("gave back", source, f"{counted(count, 'task')} given back un-started ({reason})", style="cyan")
        case GiveBackFailed(source, count, error):
            what = f"{counted(count, 'task')} could not be given back"
            text = f"{what}; the server waits for the response timeout: {_text(error, source)}"
            return Line("give-back failed", source, text, style="red")
        case HandlerFailed(source, error):
            which = getattr(error, "__notes__", None) or ["a task"]  # the runner names the task there
            text = f"{which[-1]} could not be handled: {_text(error)}"
            return Line("task lost", source, text, QUIET, style="bold red", error=error)
        case TaskFailed(server, task_type, task_id, status, reason, error):
            text = f"{task_named(task_id, task_type)} {_ENDS[status]}: {reason or 'no reason given'}"
            facts = {"task": task_id, "task_type": task_type}
            return Line("task failed", server, text, style="red", facts=facts, error=error)
    return _of_leases(event)


def _of_leases(event: RunnerEvent) -> Line | None:
    match event:
        case TaskLeaseLost(server, task_type, task_id, error):
            what = f"{task_named(task_id, task_type)} has outlived its response timeout"
            facts = {"task": task_id, "task_type": task_type}
            return Line(
                "lease lost", server, f"{what}; it might be run again: {_text(error, server)}", style="red", facts=facts
            )
        case LeaseGivenUp(source, Task(task_id=task_id, task_type=task_type), max_lease):
            what = f"{task_named(task_id, task_type)} has been running for more than {max_lease:g} s (max_lease)"
            facts = {"task": task_id, "task_type": task_type}
            return Line("lease given up", source, f"{what}: its heartbeats end", style="red", facts=facts)
    return None


def counted(count: int, what: str) -> str:
    """``count`` of ``what``, in the plural unless ``count`` is 1."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def without_name(text: str, server: str, task_id: str | None = None) -> str:
    """The text of an error without the names of the server and the task, which the line already has."""
    text = text.removeprefix(f"server {server!r}: ")
    return text if task_id is None else text.replace(f" of task {task_id}: ", ": ", 1)


def _text(error: BaseException, server: str = "") -> str:
    return without_name(str(error), server) or type(error).__name__
