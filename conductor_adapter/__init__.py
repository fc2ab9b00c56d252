"""One worker on several Conductor servers, built on the primitives of `resilience`.

The layers, from the bottom up; each imports only those below it:

* values: `settings` (servers), `tasks`, `protocol` (a call and its answer), `worker` (task functions)
* `server`: one Conductor server without I/O; `transports`: one file for each HTTP library
* `running`: a worker's life
* the edge: `cli`, `dev_server`

Import from here. A name is loaded on first access: the command line must handle signals before it imports modules for
half a second, and ``DevServer`` needs the extra ``dev-server``.
"""

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # type checkers treat it like that of typing, whose import takes longer than all others here
if TYPE_CHECKING:
    from conductor_adapter.dev_server import DevServer
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
    "running": ("Books", "RunnerConfig", "ServerView", "StopReport", "WorkerRunner", "run_workers"),
    "settings": ("Credentials", "ServerSettings", "servers_from_env", "servers_from_toml"),
    "tasks": ("Task", "TaskResult", "TaskStatus"),
    "worker": ("InProgress", "NonRetryable", "TaskContext", "WorkerSpec", "execute", "task_context", "worker"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


class _FrontDoor(ModuleType):
    """This package: ``conductor_adapter.worker`` is the function, even after the module of that name was imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _FrontDoor


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
