"""The outcome or the current state of a run, for callers that wait for it."""

from typing import Any

import attrs

from .model import RunState, Workflow
from .state import Store

__all__ = ["FinishedRun", "find_run", "finished_run", "standing"]


@attrs.frozen(kw_only=True)
class FinishedRun:
    """A run that has ended.

    Attributes:
        run_id: its workflow id.
        status: ``COMPLETED``, ``FAILED``, ``TIMED_OUT`` or ``TERMINATED``.
        output: its output.
        reason: why it did not complete; None if it did.
    """

    run_id: str
    status: str
    output: Any
    reason: str | None = None


def find_run(store: Store, run: str) -> Workflow:
    """Return a run's workflow; KeyError if there is none with this id."""
    workflow = store.workflow(run)
    if workflow is None:
        raise KeyError(f"there is no run {run!r} on this server")
    return workflow


def finished_run(workflow: Workflow) -> FinishedRun:
    """The outcome of a workflow that has ended."""
    return FinishedRun(
        run_id=workflow.workflow_id, status=workflow.state.value, output=workflow.output, reason=workflow.reason
    )


def standing(store: Store, run: str, timeout: float) -> str:
    """The error text for a run that has not ended in time, with its current state."""
    found = store.run(run)
    if found is None or not found.tasks:
        return f"run {run} has not ended after {timeout:g} s"
    task = found.tasks[-1]
    return (
        f"run {run} is still {RunState.RUNNING.value} after {timeout:g} s: its task {task.reference!r} is "
        f"{task.state.value} and was polled {task.poll_count} times (queue {task.queue!r})"
    )
