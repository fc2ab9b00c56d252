"""Decisions about runs, modelled on Conductor's decider. Pure: no I/O and no clock."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from .definitions import Plan, Step, TaskDef
from .expressions import fill
from .model import RunState, Task, TaskState, Workflow

__all__ = ["Rules", "Run", "TaskUpdate", "advance", "apply_update", "assign", "begin", "terminate"]


@attrs.frozen
class Run:
    """A workflow, its definition, and its tasks in order of creation."""

    workflow: Workflow
    plan: Plan
    tasks: tuple[Task, ...] = ()

    def replace(self, task: Task) -> "Run":
        """Return the run with this task instead of its old version."""
        return attrs.evolve(self, tasks=tuple(task if old.task_id == task.task_id else old for old in self.tasks))


@attrs.frozen
class Rules:
    """What a decision needs besides the run: task definitions, and ids for new tasks."""

    task_defs: Mapping[str, TaskDef]
    new_id: Callable[[], str]

    def task_def(self, task_type: str) -> TaskDef:
        """Return the definition of a task type, or the server's defaults for an unknown one."""
        return self.task_defs.get(task_type) or TaskDef(name=task_type)


@attrs.frozen(kw_only=True)
class TaskUpdate:
    """A worker's report; ``callback_after`` is in seconds."""

    workflow_id: str
    task_id: str
    state: TaskState
    output: Any = attrs.field(factory=dict)
    output_path: str | None = None
    reason: str | None = None
    worker_id: str | None = None
    callback_after: int = 0
    extend_lease: bool = False
    logs: tuple[Mapping[str, Any], ...] = ()


def begin(workflow: Workflow, plan: Plan, now: int, rules: Rules) -> Run:
    """Start a run: its first task is scheduled, or it ends at once if there is none. ``now`` is in ms."""
    run = Run(workflow, plan)
    if not plan.steps:
        return _finish(run, now, RunState.COMPLETED)
    return _schedule(run, plan.steps[0], now, rules)


def assign(task: Task, worker_id: str | None, now: int) -> Task:
    """Give a scheduled task to a worker; ``now`` is in ms."""
    return attrs.evolve(
        task,
        state=TaskState.IN_PROGRESS,
        started=task.started or now,
        updated=now,
        worker_id=worker_id,
        poll_count=task.poll_count + 1,
        callback_after=0,
    )


def apply_update(task: Task, update: TaskUpdate, now: int) -> Task:
    """Apply a worker's report to a live task; a finished one is not changed. ``now`` is in ms."""
    if not task.state.live:
        return task
    if update.extend_lease:
        return attrs.evolve(task, updated=now)
    output, path = update.output, update.output_path
    if path is None and task.output_path is not None:  # a real server merges it into the stored output
        output, path = {**task.output, **update.output}, task.output_path
    reported = attrs.evolve(task, output=output, output_path=path, worker_id=update.worker_id, reason=update.reason)
    if update.state is TaskState.IN_PROGRESS:
        return attrs.evolve(reported, state=TaskState.SCHEDULED, callback_after=update.callback_after, updated=now)
    return attrs.evolve(reported, state=update.state, ended=now)


def advance(run: Run, now: int, rules: Rules) -> Run:
    """Advance a run as far as possible: time out, retry, continue with the next step, end. ``now`` is in ms."""
    if run.workflow.finished or not run.tasks:
        return run
    last = run.tasks[-1]
    if last.deadline is not None and now >= last.deadline:
        last = _timed_out(last, now)
        run = run.replace(last)
    if last.state.live:
        return run
    if last.state is TaskState.COMPLETED:
        return _go_on(run.replace(attrs.evolve(last, executed=True)), now, rules)
    return _retry(run, last, now, rules)


def terminate(run: Run, reason: str | None, now: int) -> Run:
    """Stop a run from outside: its live task is cancelled. ``now`` is in ms."""
    if run.workflow.finished:
        return run
    for task in run.tasks:
        if task.state.live:
            run = run.replace(attrs.evolve(task, state=TaskState.CANCELED, ended=now))
    return _finish(run, now, RunState.TERMINATED, reason)


def _timed_out(task: Task, now: int) -> Task:
    reason = (
        f"responseTimeout: {task.response_timeout} exceeded for the taskId: {task.task_id} "
        f"with Task Definition: {task.task_type}"
    )
    return attrs.evolve(task, state=TaskState.TIMED_OUT, reason=reason, ended=now)


def _go_on(run: Run, now: int, rules: Rules) -> Run:
    step = run.plan.after(run.tasks[-1].reference)
    if step is None:
        return _finish(run, now, RunState.COMPLETED)
    return _schedule(run, step, now, rules)


def _retry(run: Run, task: Task, now: int, rules: Rules) -> Run:
    """Schedule the next attempt, or end the run if none is left."""
    failed = tuple(dict.fromkeys((*run.workflow.failed, task.reference)))
    run = attrs.evolve(run, workflow=attrs.evolve(run.workflow, failed=failed))
    task_def = rules.task_def(task.task_type)
    override = run.plan.step(task.reference).retry_count
    allowed = task_def.retry_count if override is None else override
    if task.state not in _RETRIED or task.retry_count >= allowed:
        ending = _ENDINGS[task.state]
        return _finish(run, now, ending, _reason(task, ending))
    again = attrs.evolve(
        task,
        task_id=rules.new_id(),
        state=TaskState.SCHEDULED,
        output={},
        output_path=None,
        seq=len(run.tasks) + 1,
        worker_id=None,
        retry_count=task.retry_count + 1,
        retried_task_id=task.task_id,
        poll_count=0,
        scheduled=now,
        started=0,
        first_started=task.first_started or task.started,
        updated=now,
        ended=0,
        start_delay=task_def.delay(task.retry_count),
        callback_after=0,
        response_timeout=task_def.response_timeout,
    )
    run = run.replace(attrs.evolve(task, retried=True))
    return attrs.evolve(run, tasks=(*run.tasks, again))


_RETRIED = frozenset({TaskState.FAILED, TaskState.TIMED_OUT})
_ENDINGS = {
    TaskState.FAILED: RunState.FAILED,
    TaskState.FAILED_WITH_TERMINAL_ERROR: RunState.FAILED,
    TaskState.TIMED_OUT: RunState.TIMED_OUT,
    TaskState.CANCELED: RunState.TERMINATED,
}


def _reason(task: Task, ending: RunState) -> str:
    """Why a task ended its run, in the real server's words, which are null if there is no reason."""
    reason = "null" if task.reason is None else task.reason
    return f"Task {task.task_id} failed with status: {ending.value} and reason: '{reason}'"


def _schedule(run: Run, step: Step, now: int, rules: Rules) -> Run:
    workflow = run.workflow
    task = Task(
        task_id=rules.new_id(),
        workflow_id=workflow.workflow_id,
        workflow_type=workflow.name,
        task_type=step.task_type,
        reference=step.reference,
        input=fill(dict(step.inputs), _scope(run)),
        seq=len(run.tasks) + 1,
        domain=_domain(workflow.domains, step.task_type),
        correlation_id=workflow.correlation_id,
        priority=workflow.priority,
        scheduled=now,
        response_timeout=rules.task_def(step.task_type).response_timeout,
    )
    return attrs.evolve(run, tasks=(*run.tasks, task))


def _finish(run: Run, now: int, state: RunState, reason: str | None = None) -> Run:
    output: Any = run.tasks[-1].output if run.tasks else {}
    if run.plan.outputs:
        output = fill(dict(run.plan.outputs), _scope(run))
    workflow = attrs.evolve(run.workflow, state=state, output=output, reason=reason, updated=now, ended=now)
    return attrs.evolve(run, workflow=workflow)


def _scope(run: Run) -> dict[str, Any]:
    """The values that expressions can refer to: the workflow, and the latest attempt at each step."""
    workflow = run.workflow
    scope: dict[str, Any] = {
        "workflow": {
            "input": workflow.input,
            "workflowId": workflow.workflow_id,
            "workflowType": workflow.name,
            "version": workflow.version,
            "correlationId": workflow.correlation_id,
        }
    }
    for task in run.tasks:
        scope[task.reference] = {
            "input": task.input,
            "output": task.output,
            "status": task.state.value,
            "taskId": task.task_id,
        }
    return scope


def _domain(domains: Mapping[str, str], task_type: str) -> str | None:
    """The domain that a task type was started in; the last one of a list, as if none of them were polled."""
    chosen = (domains.get(task_type) or domains.get("*") or "").split(",")[-1].strip()
    return None if chosen.upper() in {"", "NO_DOMAIN"} else chosen
