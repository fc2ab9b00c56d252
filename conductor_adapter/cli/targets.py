"""The target of ``conductor-adapter run``: a Python file or module with ``@worker`` functions."""

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

from conductor_adapter.functions.decorator import WorkerSpec, attached_spec, collect_workers, spec_of

__all__ = ["TargetError", "load_target", "sdk_advice"]

_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
_OURS = f"{Path(__file__).parents[1]}{os.sep}"
_SDK = "conductor.client.automator.task_handler"  # conductor-python's; its @worker_task notes every function there
_NAMED = 5  # task types named in one line
_NOT_THEIRS = (_OURS, contextlib.__file__, importlib.__file__, "<frozen importlib", "<attrs generated")


class TargetError(Exception):
    """The target provides no workers. The text is for the user: what is wrong, where, and what to change."""


def load_target(target: str | os.PathLike[str]) -> list[WorkerSpec]:
    """Import ``target`` and find its workers, in the order of their definition.

    Like ``python FILE`` and ``python -m MODULE``, this puts the file's folder, or the current one, first on the import
    path. Workers that the module imports from elsewhere are included.

    Args:
        target: a path that ends in ``.py``, or the dotted name of a module.

    Raises:
        TargetError: there is no such file or module, importing it failed (with the traceback of the user's own code),
            it contains no worker, or it contains two for one task type and domain.
    """
    name = os.fspath(target)
    _check_length(name)
    module = _import_file(Path(name)) if _looks_like_a_file(name) else _import_module(name)
    found = _workers_in(module)
    if not found and (advice := sdk_advice()):
        raise TargetError(f"no worker in {name}: {advice}")
    if not found:
        raise TargetError(f'no worker in {name}: write @worker("task type") above a function at its top level')
    try:
        return list(collect_workers(found))
    except ValueError as error:
        raise TargetError(f"{name}: {error}") from error


def sdk_advice() -> str | None:
    """A hint about imported functions with conductor-python's ``@worker_task``; None without any."""
    noted = getattr(sys.modules.get(_SDK), "_decorated_functions", None)
    types = list(dict.fromkeys(str(key[0]) for key in noted)) if isinstance(noted, dict) else []
    if not types:
        return None
    shown = ", ".join(map(repr, types[:_NAMED])) + (", …" if len(types) > _NAMED else "")
    many = "a function" if len(types) == 1 else f"{len(types)} functions"
    return (
        f"found {many} with @worker_task of conductor-python ({shown}), which this command does not run: "
        f"write @worker({types[0]!r}) above the function instead (from conductor_adapter import worker)"
    )


def _check_length(name: str) -> None:
    try:
        Path(name).exists()
    except OSError as error:  # no file and no folder on a module's path can have this name
        raise TargetError(
            f"{name:.60}… cannot be a file or module: {error.strerror}; name a Python file or a module"
        ) from None


def _looks_like_a_file(name: str) -> bool:
    return name.endswith(".py") or os.sep in name or Path(name).exists()


def _workers_in(module: types.ModuleType) -> list[WorkerSpec]:
    found = []
    for value in list(vars(module).values()):
        if isinstance(value, WorkerSpec):
            found.append(value)
        # only possible functions are examined: accessing a lazy proxy can have any effect
        elif isinstance(value, _FUNCTIONS) and attached_spec(value) is not None:
            found.append(spec_of(value))
    return found


def _import_file(path: Path) -> types.ModuleType:
    if path.is_dir():
        raise TargetError(f"{path} is a folder; name the Python file in it, or a module (with dots, no slashes)")
    if not path.is_file():
        raise TargetError(f"no such file: {path} (looked in {Path.cwd()})")
    path = path.resolve()
    name = path.stem
    if name in sys.modules or not name.isidentifier():
        name = f"conductor_target_{abs(hash(path)):x}"  # must not replace a module that is already imported
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is not a Python file; its name must end in .py")
    _search_first(path.parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # data classes and pickle look their module up there
    try:
        with _telling(str(path)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> types.ModuleType:
    _search_first(Path.cwd())
    with _telling(name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not error.name or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module exists; a module that it imports does not
            raise TargetError(
                f"no module named {name!r} (looked in {Path.cwd()} and in this Python's packages); "
                "name a module such as shop.workers, or a file such as workers.py"
            ) from error


def _search_first(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turn any exception from the import of the user's module into one error that shows only the user's frames."""
    try:
        yield
    except (KeyboardInterrupt, TargetError):
        raise
    except SystemExit as error:
        hint = 'put that below if __name__ == "__main__":'
        raise TargetError(f"importing {name} called exit({error.code!r}); {hint}") from error
    except BaseException as error:
        raise TargetError(f"importing {name} failed:\n{_users_own(error)}") from error


def _users_own(error: BaseException) -> str:
    """The traceback without our frames and those of the import system."""
    told = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = told
    while part is not None:
        theirs = [frame for frame in part.stack if not frame.filename.startswith(_NOT_THEIRS)]
        part.stack = traceback.StackSummary.from_list(theirs)
        part = part.__cause__ or part.__context__
    return "".join(told.format()).rstrip()
