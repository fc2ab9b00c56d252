"""The state of a server, in one SQLite database: a file that survives SIGKILL, or memory.

A transaction is in the file (in the operating system's cache) once it is committed, so nothing is lost if the process
dies at any moment; with ``synchronous=OFF`` data can be lost only in a power failure.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .definitions import Plan, TaskDef
from .model import RunState, Task, TaskState, Workflow
from .workflows import Run

__all__ = ["Store"]

# Exclusive: two servers on one file would hand out each other's tasks, and a lock dies with its process.
_PRAGMAS = """
PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY;
"""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS task_defs (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS plans (id INTEGER PRIMARY KEY, name TEXT, version INTEGER, listed INTEGER, body TEXT);
CREATE TABLE IF NOT EXISTS workflows (
    id TEXT NOT NULL UNIQUE, name TEXT, version INTEGER, plan INTEGER, state TEXT, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS running ON workflows (name) WHERE state = 'RUNNING';
CREATE TABLE IF NOT EXISTS tasks (
    id TEXT NOT NULL UNIQUE, workflow TEXT NOT NULL, reference TEXT, plan INTEGER, queue TEXT NOT NULL, state TEXT,
    ready INTEGER, deadline INTEGER, polls INTEGER, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS tasks_of ON tasks (workflow);
CREATE INDEX IF NOT EXISTS waiting ON tasks (queue, ready) WHERE state = 'SCHEDULED';
CREATE INDEX IF NOT EXISTS deadlines ON tasks (deadline) WHERE deadline IS NOT NULL;
CREATE TABLE IF NOT EXISTS logs (task TEXT NOT NULL, created INTEGER, text TEXT);
CREATE INDEX IF NOT EXISTS logs_of ON logs (task);
CREATE TABLE IF NOT EXISTS payloads (path TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""
# A task that a long poll holds but has not handed out: a state of the row only, reset when the server starts.
_HELD = "HELD"


class Store:
    """Workflows, tasks, definitions and logs. Not thread-safe: it belongs to one event loop's thread.

    Args:
        path: the file, which no other process must have open; None keeps everything in memory.

    Raises:
        OSError: the file cannot be used; the text names it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._db = _open(path)
        self._plans: dict[int, Plan] = {}
        self.task_defs: dict[str, TaskDef] = {
            name: TaskDef.from_wire(json.loads(body)) for name, body in self._db.execute("SELECT * FROM task_defs")
        }

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes within the block happen completely or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- definitions ------------------------------------------------------------------------------------------

    def put_task_def(self, task_def: TaskDef) -> None:
        """Add or replace the definition of a task type."""
        self._db.execute("REPLACE INTO task_defs VALUES (?, ?)", (task_def.name, json.dumps(dict(task_def.raw))))
        self.task_defs[task_def.name] = task_def

    def put_plan(self, plan: Plan, *, listed: bool = True) -> int:
        """Add a workflow definition and return its number; runs keep the number they started with.

        ``listed=False`` is for a definition from a start request: it cannot be found by name.
        """
        row = (plan.name, plan.version, listed, json.dumps(plan.raw))
        number = self._db.execute("INSERT INTO plans (name, version, listed, body) VALUES (?, ?, ?, ?)", row).lastrowid
        return int(number or 0)

    def find_plan(self, name: str, version: int | None) -> int | None:
        """Return the number of the latest definition with this name (and version)."""
        found = self._db.execute(
            "SELECT id FROM plans WHERE name = ?1 AND listed AND (?2 IS NULL OR version = ?2)"
            " ORDER BY version DESC, id DESC LIMIT 1",
            (name, version),
        ).fetchone()
        return found and int(found[0])

    def plan(self, number: int) -> Plan:
        """Return a definition by its number."""
        if number not in self._plans:
            (body,) = self._db.execute("SELECT body FROM plans WHERE id = ?", (number,)).fetchone()
            self._plans[number] = Plan.from_wire(json.loads(body))
        return self._plans[number]

    # -- runs -------------------------------------------------------------------------------------------------

    def workflow(self, workflow_id: str) -> Workflow | None:
        """Return a workflow, None if there is none with this id."""
        row = self._db.execute("SELECT body, plan FROM workflows WHERE id = ?", (workflow_id,)).fetchone()
        return row and Workflow.from_wire(json.loads(row[0]), row[1])

    def run(self, workflow_id: str) -> Run | None:
        """Return a workflow with its definition and its tasks, None if there is none with this id."""
        workflow = self.workflow(workflow_id)
        if workflow is None:
            return None
        rows = self._db.execute("SELECT body FROM tasks WHERE workflow = ? ORDER BY rowid", (workflow_id,))
        return Run(workflow, self.plan(workflow.plan), tuple(Task.from_wire(json.loads(body)) for (body,) in rows))

    def task(self, task_id: str) -> tuple[Task, int] | None:
        """Return a task and the number of its workflow's definition, None if there is none with this id."""
        row = self._db.execute("SELECT body, plan FROM tasks WHERE id = ?", (task_id,)).fetchone()
        return row and (Task.from_wire(json.loads(row[0])), row[1])

    def add_run(self, run: Run) -> None:
        """Store a new run."""
        self._db.execute("INSERT INTO workflows VALUES (?, ?, ?, ?, ?, ?)", _workflow_row(run.workflow))
        for task in run.tasks:
            self._db.execute(
                "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _task_row(task, run.workflow.plan)
            )

    def save_run(self, before: Run, after: Run) -> None:
        """Store the changes of a run."""
        if after.workflow != before.workflow:
            workflow = after.workflow
            self._db.execute(
                "UPDATE workflows SET state = ?, body = ? WHERE id = ?",
                (workflow.state.value, json.dumps(workflow.to_wire()), workflow.workflow_id),
            )
        known = {task.task_id: task for task in before.tasks}
        for task in after.tasks:
            if task.task_id not in known:
                row = _task_row(task, after.workflow.plan)
                self._db.execute("INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            elif task is not known[task.task_id]:
                self.save_task(task)

    def save_task(self, task: Task) -> str:
        """Store a task that exists; returns its JSON text."""
        body = json.dumps(task.to_wire())
        ready = task.ready_at if task.state is TaskState.SCHEDULED else None
        self._db.execute(
            "UPDATE tasks SET state = ?, ready = ?, deadline = ?, polls = ?, body = ? WHERE id = ?",
            (task.state.value, ready, task.deadline, task.poll_count, body, task.task_id),
        )
        return body

    def add_copies(self, run: Run, ids: Iterable[tuple[str, str]]) -> None:
        """Store many runs that differ only in their ids (pairs of workflow and task id)."""
        (task,) = run.tasks
        flow, plan = run.workflow, run.workflow.plan
        flow_body, task_body = json.dumps(flow.to_wire()), json.dumps(task.to_wire())
        for flow_id, task_id in ids:
            body = flow_body.replace(flow.workflow_id, flow_id, 1)
            row = (flow_id, flow.name, flow.version, plan, flow.state.value, body)
            self._db.execute("INSERT INTO workflows VALUES (?, ?, ?, ?, ?, ?)", row)
            body = task_body.replace(flow.workflow_id, flow_id, 1).replace(task.task_id, task_id, 1)
            self._db.execute(
                "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, 'SCHEDULED', ?, NULL, 0, ?)",
                (task_id, flow_id, task.reference, plan, task.queue, task.ready_at, body),
            )

    # -- payloads ---------------------------------------------------------------------------------------------

    def put_payload(self, path: str, body: bytes) -> None:
        """Store a payload, or replace it."""
        self._db.execute("REPLACE INTO payloads VALUES (?, ?)", (path, body))

    def payload(self, path: str) -> bytes | None:
        """Return a payload, None if there is none with this path."""
        row = self._db.execute("SELECT body FROM payloads WHERE path = ?", (path,)).fetchone()
        return row and bytes(row[0])

    # -- queues -----------------------------------------------------------------------------------------------

    def ready(self, queue: str, count: int, now: int) -> list[tuple[Task, int]]:
        """Return up to ``count`` waiting tasks that are due, oldest first (all of them if it is negative)."""
        rows = self._db.execute(
            "SELECT body, plan FROM tasks WHERE queue = ? AND state = 'SCHEDULED' AND ready <= ?"
            " ORDER BY ready, rowid LIMIT ?",
            (queue, now, count),
        )
        return [(Task.from_wire(json.loads(body)), plan) for body, plan in rows]

    def hold(self, task_ids: Sequence[str]) -> None:
        """Take tasks out of their queue for a poll that is still waiting for more."""
        self._db.executemany("UPDATE tasks SET state = ? WHERE id = ?", [(_HELD, task_id) for task_id in task_ids])

    def next_ready(self, queue: str) -> int | None:
        """Return when the next task of the queue is due (ms), None if it is empty."""
        row = self._db.execute(
            "SELECT ready FROM tasks WHERE queue = ? AND state = 'SCHEDULED' ORDER BY ready LIMIT 1", (queue,)
        ).fetchone()
        return row and int(row[0])

    def queue_size(self, queue: str) -> int:
        """Count the tasks waiting in a queue, due or not."""
        row = self._db.execute("SELECT COUNT(*) FROM tasks WHERE queue = ? AND state = 'SCHEDULED'", (queue,))
        return int(row.fetchone()[0])

    def queue_sizes(self) -> dict[str, int]:
        """Count the waiting tasks, by queue."""
        rows = self._db.execute("SELECT queue, COUNT(*) FROM tasks WHERE state = 'SCHEDULED' GROUP BY queue")
        return dict(rows.fetchall())

    def overdue(self, now: int) -> list[str]:
        """Return the workflows with a task whose response timeout is over."""
        # Without DISTINCT: with it, SQLite prefers to scan all tasks in the order of their workflows.
        rows = self._db.execute("SELECT workflow FROM tasks WHERE deadline <= ? ORDER BY deadline", (now,))
        return list(dict.fromkeys(workflow for (workflow,) in rows))

    # -- reports ----------------------------------------------------------------------------------------------

    def running(self, name: str) -> list[str]:
        """Return the ids of the unfinished runs with this name, whatever their version."""
        rows = self._db.execute("SELECT id FROM workflows WHERE name = ? AND state = 'RUNNING' ORDER BY rowid", (name,))
        return [workflow for (workflow,) in rows]

    def run_states(self, name: str | None = None) -> dict[str, int]:
        """Count the runs (with this name) by state."""
        rows = self._db.execute(
            "SELECT state, COUNT(*) FROM workflows WHERE ?1 IS NULL OR name = ?1 GROUP BY state", (name,)
        )
        return dict.fromkeys((state.value for state in RunState), 0) | dict(rows.fetchall())

    def handed_out(self, workflow_id: str | None = None, *, least: int = 0) -> dict[tuple[str, str], int]:
        """Count how often a step's tasks were handed to a worker, by (workflow, reference), including retries."""
        rows = self._db.execute(
            "SELECT workflow, reference, SUM(polls) FROM tasks WHERE ?1 IS NULL OR workflow = ?1"
            " GROUP BY workflow, reference HAVING SUM(polls) >= ?2",
            (workflow_id, least),
        )
        return {(workflow, reference): count for workflow, reference, count in rows}

    def add_logs(self, task_id: str, entries: Iterable[tuple[int, str]]) -> None:
        """Store log lines of a task: time (ms) and text."""
        rows = [(task_id, created, text) for created, text in entries]
        self._db.executemany("INSERT INTO logs VALUES (?, ?, ?)", rows)

    def logs(self, task_id: str) -> list[Mapping[str, Any]]:
        """Return the log lines of a task as in the server's answers."""
        rows = self._db.execute("SELECT created, text FROM logs WHERE task = ? ORDER BY rowid", (task_id,))
        return [{"log": text, "taskId": task_id, "createdTime": created} for created, text in rows]


def _open(path: Path | None) -> sqlite3.Connection:
    """Open the database and release the tasks that long polls held when it was closed."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        if path is not None:
            db.close()
            db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        db.executescript(_PRAGMAS)
        db.executescript(_SCHEMA)
        db.execute("UPDATE tasks SET state = 'SCHEDULED' WHERE state = ?", (_HELD,))
    except sqlite3.Error as error:
        db.close()
        raise OSError(f"cannot keep the state in {path}: {error}") from error
    return db


def _workflow_row(flow: Workflow) -> tuple[Any, ...]:
    body = json.dumps(flow.to_wire())
    return flow.workflow_id, flow.name, flow.version, flow.plan, flow.state.value, body


def _task_row(task: Task, plan: int) -> tuple[Any, ...]:
    ready = task.ready_at if task.state is TaskState.SCHEDULED else None
    body = json.dumps(task.to_wire())
    place = (task.task_id, task.workflow_id, task.reference, plan, task.queue)
    return (*place, task.state.value, ready, task.deadline, task.poll_count, body)
