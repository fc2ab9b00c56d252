"""One worker on several Conductor servers, on the primitives of `resilience`.

The floors, from the bottom up; each knows only those below it:

* values: `settings` (servers), `tasks`, `protocol` (a call and its answer), `worker` (task functions)
* `server`: one Conductor server without I/O; `transports`: one HTTP library a file
* `running`: a worker's life
* the edge: `cli`, `dev_server`

Import from here. ``DevServer`` needs the extra ``dev-server`` and is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING

from conductor_adapter.events import RunnerEvent, RunnerListener, TaskFailed, TaskLeaseLost
from conductor_adapter.running import Books, RunnerConfig, ServerView, StopReport, WorkerRunner, run_workers
from conductor_adapter.settings import Credentials, ServerSettings, servers_from_env, servers_from_toml
from conductor_adapter.tasks import Task, TaskResult, TaskStatus
from conductor_adapter.worker import (
    InProgress,
    NonRetryable,
    TaskContext,
    WorkerSpec,
    execute,
    task_context,
    worker,
)

if TYPE_CHECKING:
    from conductor_adapter.dev_server import DevServer

__all__ = [
    "Books",
    "Credentials",
    "DevServer",
    "InProgress",
    "NonRetryable",
    "RunnerConfig",
    "RunnerEvent",
    "RunnerListener",
    "ServerSettings",
    "ServerView",
    "StopReport",
    "Task",
    "TaskContext",
    "TaskFailed",
    "TaskLeaseLost",
    "TaskResult",
    "TaskStatus",
    "WorkerRunner",
    "WorkerSpec",
    "execute",
    "run_workers",
    "servers_from_env",
    "servers_from_toml",
    "task_context",
    "worker",
]


def __getattr__(name: str) -> object:
    if name == "DevServer":
        from conductor_adapter.dev_server import DevServer  # noqa: PLC0415 - optional

        return DevServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
