"""One worker on several Conductor servers, built on the primitives of `resilience`.

The layers, from the bottom up; each imports only those below it:

* values: `tasks`, `settings` (servers and how they are treated)
* `client`: one Conductor server without I/O; `transports`: one file for each HTTP library
* `functions`: from a function and a task to a task result
* `running`: a worker's life
* the edge: `cli`, `dev_server`

Import from here. A name is loaded on first access: the command line must handle signals before it imports modules for
half a second, and ``DevServer`` needs the extra ``dev-server``.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers treat it like that of typing, whose import takes longer than all others here
if TYPE_CHECKING:
    from conductor_adapter.dev_server import DevServer
    from conductor_adapter.events import RunnerEvent, RunnerListener, TaskFailed, TaskLeaseLost
    from conductor_adapter.functions.attempt import InProgress, NonRetryable, TaskContext, execute, task_context
    from conductor_adapter.functions.decorator import WorkerSpec, worker
    from conductor_adapter.running import Books, RunnerConfig, ServerView, StopReport, WorkerRunner, run_workers
    from conductor_adapter.settings.loading import servers_from_env, servers_from_toml
    from conductor_adapter.settings.server_settings import Credentials, ServerSettings
    from conductor_adapter.tasks import Task, TaskResult, TaskStatus

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

_MODULES = {  # where the names above are
    "dev_server": ("DevServer",),
    "events": ("RunnerEvent", "RunnerListener", "TaskFailed", "TaskLeaseLost"),
    "functions.attempt": ("InProgress", "NonRetryable", "TaskContext", "execute", "task_context"),
    "functions.decorator": ("WorkerSpec", "worker"),
    "running": ("Books", "RunnerConfig", "ServerView", "StopReport", "WorkerRunner", "run_workers"),
    "settings.loading": ("servers_from_env", "servers_from_toml"),
    "settings.server_settings": ("Credentials", "ServerSettings"),
    "tasks": ("Task", "TaskResult", "TaskStatus"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
