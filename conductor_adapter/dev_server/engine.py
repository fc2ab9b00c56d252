"""The server's operations: the changes by each call, decided by ``workflows`` and stored by ``state``."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from .definitions import Plan, TaskDef
from .model import Task, TaskState, Workflow
from .payloads import PayloadStorage
from .state import Store
from .workflows import Rules, Run, TaskUpdate, advance, apply_update, assign, begin, terminate

__all__ = ["Engine", "Missing", "StartRequest", "new_id"]

_MAX_LOGS = 10


class Missing(Exception):  # noqa: N818 - it means that something is missing
    """The workflow, task or definition does not exist; the text is the real server's."""


@attrs.frozen(kw_only=True)
class StartRequest:
    """A request to start a workflow.

    Attributes:
        plan: a definition in the request; without one, it is found by name and version.
        whole_input: give the first task the unchanged input of the workflow, whatever its parameters are.
    """

    name: str
    version: int | None = None
    input: Any = attrs.field(factory=dict)
    correlation_id: str | None = None
    priority: int = 0
    domains: Mapping[str, str] = attrs.field(factory=dict)
    plan: Plan | None = None
    whole_input: bool = False


def new_id() -> str:
    """Create an id that looks like the server's."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


class Engine:
    """Polls, updates, starts. ``now`` is in milliseconds since the epoch: deadlines survive the process.

    Args:
        store: the state.
        notify: called afterwards with a queue that got a task, or a workflow id that ended.
        payload_threshold: size in bytes above which an input or output is shown as a path; None for no limit.

    Not thread-safe: it belongs to one event loop's thread.
    """

    def __init__(
        self, store: Store, notify: Callable[[str], None] = lambda _key: None, payload_threshold: int | None = None
    ) -> None:
        self.store = store
        self.payloads = PayloadStorage(store, payload_threshold)
        self._notify = notify
        self._rules = Rules(store.task_defs, new_id)
        self._wires: dict[tuple[int, str], str] = {}

    # -- workers' calls ---------------------------------------------------------------------------------------

    def hold(self, queue: str, count: int, now: int) -> list[str]:
        """Take up to ``count`` tasks off a queue for a poll that keeps waiting; returns their ids."""
        found = [task.task_id for task, _ in self.store.ready(queue, count, now)]
        if found:
            with self.store.transaction():
                self.store.hold(found)
        return found

    def hand_out(self, tasks: Sequence[tuple[Task, int]], worker_id: str | None, now: int) -> list[str]:
        """Assign tasks to a worker permanently, and return the JSON text of each for the answer."""
        if not tasks:
            return []
        answers = []
        with self.store.transaction():
            for task, plan in tasks:
                body = self.store.save_task(assign(task, worker_id, now))
                answers.append(self._with_step(self.payloads.shown(task, body), plan, task.reference))
        return answers

    def held(self, task_ids: Sequence[str]) -> list[tuple[Task, int]]:
        """Return the held tasks that can still be handed out."""
        found = [self.store.task(task_id) for task_id in task_ids]
        return [entry for entry in found if entry is not None and entry[0].state is TaskState.SCHEDULED]

    def update(self, update: TaskUpdate, now: int) -> Task:
        """Apply a worker's report and return the changed task; a finished task ignores it.

        Raises:
            Missing: no such workflow, or no such task.
        """
        before = self._run(update.workflow_id)
        task = next((task for task in before.tasks if task.task_id == update.task_id), None)
        if task is None:
            return self._update_elsewhere(update, now)
        return self._update_in(before, task, update, now)

    def _update_elsewhere(self, update: TaskUpdate, now: int) -> Task:
        """Update a task of a workflow other than the reported one: a real server allows that too."""
        found = self.store.task(update.task_id)
        if found is None:
            raise Missing(f"No such task found by id: {update.task_id}")
        return self._update_in(self._run(found[0].workflow_id), found[0], update, now)

    def _update_in(self, before: Run, task: Task, update: TaskUpdate, now: int) -> Task:
        changed = apply_update(task, update, now)
        if changed is task or before.workflow.finished:
            return task
        if update.output_path is None:
            changed = self.payloads.stored(changed)
        after = before.replace(changed)
        if not changed.state.live:
            after = advance(after, now, self._rules)
        with self.store.transaction():
            self.store.save_run(before, after)
            if update.logs and not update.extend_lease:
                self.store.add_logs(task.task_id, _log_entries(update.logs, now))
        self._tell(before, after)
        return changed

    def add_log(self, task_id: str, text: str, now: int) -> None:
        """Store one log line of a task."""
        with self.store.transaction():
            self.store.add_logs(task_id, [(now, text)])

    # -- callers' calls ---------------------------------------------------------------------------------------

    def start(self, request: StartRequest, now: int) -> str:
        """Start a workflow and return its id.

        Raises:
            Missing: there is no definition with this name and version.
        """
        with self.store.transaction():
            run = self._begin(request, self._plan_number(request), now)
            self.store.add_run(run)
        self._tell(None, run)
        return run.workflow.workflow_id

    def start_many(self, request: StartRequest, count: int, now: int) -> None:
        """Start ``count`` runs of a one-task workflow in one transaction.

        Raises:
            Missing: there is no definition with this name and version.
        """
        run = self._begin(request, self._plan_number(request), now)
        with self.store.transaction():
            self.store.add_copies(run, ((new_id(), new_id()) for _ in range(count)))
        self._tell(None, run)

    def define_task(self, task_type: str, fields: Mapping[str, Any]) -> None:
        """Make sure that a one-task workflow with the name of the task type exists, and the type's definition.

        Fields (in Conductor's spelling: ``responseTimeoutSeconds``) replace an existing definition.
        """
        known = task_type in self.store.task_defs and self.store.find_plan(task_type, None) is not None
        if known and not fields:
            return
        with self.store.transaction():
            if fields or task_type not in self.store.task_defs:
                self.store.put_task_def(TaskDef.from_wire({"name": task_type, "retryDelaySeconds": 0, **fields}))
            if self.store.find_plan(task_type, None) is None:
                self.store.put_plan(_one_task_plan(task_type))
        self.forget_definitions()

    def decide(self, workflow_id: str, now: int) -> None:
        """Evaluate a run's timeouts now.

        Raises:
            Missing: no such workflow.
        """
        before = self._run(workflow_id)
        self._save(before, advance(before, now, self._rules))

    def sweep(self, now: int) -> int:
        """Evaluate every run with a task whose response timeout is over; returns their number."""
        overdue = self.store.overdue(now)
        for workflow_id in overdue:
            self.decide(workflow_id, now)
        return len(overdue)

    def terminate(self, workflow_id: str, reason: str | None, now: int) -> None:
        """Stop a run from outside.

        Raises:
            Missing: no such workflow.
        """
        before = self._run(workflow_id)
        self._save(before, terminate(before, reason, now))

    # -- answers ----------------------------------------------------------------------------------------------

    def task_json(self, task: Task, plan: int) -> str:
        """Render a task with its step, as in every answer."""
        return self._with_step(self.payloads.shown(task, json.dumps(task.to_wire())), plan, task.reference)

    def run_json(self, workflow_id: str, *, tasks: bool) -> str:
        """Render a run with its definition, and optionally its tasks.

        Raises:
            Missing: no such workflow.
        """
        run = self._run(workflow_id)
        texts = [self.task_json(task, run.workflow.plan) for task in run.tasks] if tasks else []
        flow = json.dumps({"ownerApp": "", **run.workflow.to_wire(), "workflowDefinition": run.plan.to_wire()})
        return f'{flow[:-1]}, "tasks": [{", ".join(texts)}]}}'

    def forget_definitions(self) -> None:
        """Forget rendered steps after a definition changed."""
        self._wires.clear()

    def _with_step(self, body: str, plan: int, reference: str) -> str:
        """Add the step's definition, rendered once, to a rendered task."""
        key = (plan, reference)
        step_text = self._wires.get(key)
        if step_text is None:
            step = self.store.plan(plan).step(reference)
            task_def = self._rules.task_def(step.task_type)
            added = {"workflowTask": step.to_wire(task_def), "taskDefinition": task_def.to_wire()}
            step_text = self._wires[key] = f", {json.dumps(added)[1:]}"
        return body[:-1] + step_text

    def _plan_number(self, request: StartRequest) -> int:
        """Find the requested definition, or store the one in the request."""
        if request.plan is not None:
            return self.store.put_plan(request.plan, listed=False)
        number = self.store.find_plan(request.name, request.version)
        if number is None:
            version = "null" if request.version is None else request.version
            raise Missing(f"No such workflow found by name: {request.name}, version: {version}")
        return number

    def _begin(self, request: StartRequest, number: int, now: int) -> Run:
        plan = self.store.plan(number)
        workflow = Workflow(
            workflow_id=new_id(),
            name=plan.name,
            version=plan.version,
            plan=number,
            input=request.input,
            correlation_id=request.correlation_id,
            priority=request.priority,
            domains=request.domains,
            started=now,
        )
        run = begin(workflow, plan, now, self._rules)
        if request.whole_input and run.tasks:
            return run.replace(attrs.evolve(run.tasks[0], input=request.input))
        return run

    def _run(self, workflow_id: str) -> Run:
        run = self.store.run(workflow_id)
        if run is None:
            raise Missing(f"No such workflow found by id: {workflow_id}")
        return run

    def _save(self, before: Run, after: Run) -> None:
        if after is before:
            return
        with self.store.transaction():
            self.store.save_run(before, after)
        self._tell(before, after)

    def _tell(self, before: Run | None, after: Run) -> None:
        """Notify pollers and callers that might be waiting."""
        if after.tasks and after.tasks[-1].state is TaskState.SCHEDULED:
            self._notify(after.tasks[-1].queue)
        if after.workflow.finished and not (before and before.workflow.finished):
            self._notify(after.workflow.workflow_id)


def _one_task_plan(task_type: str) -> Plan:
    step = {"name": task_type, "taskReferenceName": f"{task_type}_ref", "type": "SIMPLE"}
    return Plan.from_wire({"name": task_type, "version": 1, "tasks": [step]})


def _log_entries(logs: Sequence[Mapping[str, Any]], now: int) -> list[tuple[int, str]]:
    return [(int(entry.get("createdTime") or now), str(entry.get("log", ""))) for entry in logs[:_MAX_LOGS]]
