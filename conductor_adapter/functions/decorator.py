"""Declaration of workers: ``@worker``, the frozen spec that it attaches, and the check of several together."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs

from conductor_adapter.functions.binding import Binding
from conductor_adapter.tasks import can_be_sent

__all__ = ["WorkerSpec", "attached_spec", "collect_workers", "spec_of", "worker"]

F = TypeVar("F", bound=Callable[..., Any])

MAX_THREADS = 10_000  # of one worker; more is a typo: so many waiting tasks belong in several processes
_ATTRIBUTE = "__conductor_worker__"


@attrs.frozen(kw_only=True, slots=False)  # slots leave no room for the cached binding
class WorkerSpec:
    """One worker: its task type and its function. Immutable; ``attrs.evolve`` creates a validated variant.

    Attributes:
        task_type: the task type to poll for.
        function: the task function.
        threads: maximum number of tasks of this worker that run at once, up to 10,000.
        domain: Conductor's domain of the tasks; None for tasks without one.
        worker_id: the worker's id as sent to the servers; None lets the runner choose it.
        heartbeats: whether a task that takes longer than its response timeout is kept from being handed out again. The
            server then also waits for a function that hangs, until the ``timeoutSeconds`` of its task definition.

    Raises:
        ValueError: a value is out of range; the text names the worker, the option and the value.
        TypeError: the function cannot be run as a task function.
    """

    task_type: str
    function: Callable[..., Any] = attrs.field(repr=False)
    threads: int = 1
    domain: str | None = None
    worker_id: str | None = None
    heartbeats: bool = True

    def __attrs_post_init__(self) -> None:
        if not _is_name(self.task_type):
            raise ValueError(
                f"worker {_place(self.function)}: the task type is {self.task_type!r}; it must be a non-empty str"
            )
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or not 1 <= self.threads <= MAX_THREADS:
            allowed = f"it must be a whole number, 1 to {MAX_THREADS}"
            raise ValueError(f"{self.label}: threads is {self.threads!r}; {allowed}")
        for option in ("domain", "worker_id"):
            value = getattr(self, option)
            if value is not None and not _is_name(value):
                raise ValueError(f"{self.label}: {option} is {value!r}; use a non-empty str, or omit it")
        if not isinstance(self.heartbeats, bool):
            raise TypeError(f"{self.label}: heartbeats is {self.heartbeats!r}; use True or False")
        _check_runnable(self.function, self.label)

    @functools.cached_property
    def binding(self) -> Binding:
        """How the function's parameters are filled; read at its first task, when all names in annotations exist."""
        return Binding.of(self.function)

    @property
    def label(self) -> str:
        """Task type and function, for people."""
        return f"worker {self.task_type!r} ({_place(self.function)})"


def worker(
    task_type: str,
    *,
    threads: int = 1,
    domain: str | None = None,
    worker_id: str | None = None,
    heartbeats: bool = True,
) -> Callable[[F], F]:
    """Mark a function as the worker for a task type; the function itself is returned unchanged.

    Args:
        task_type: the task type of its tasks.
        threads: maximum number of tasks that run at once, up to 10,000.
        domain: Conductor's domain, if the tasks have one.
        worker_id: the worker's id; the runner chooses one if it is None.
        heartbeats: whether a task that takes longer than its response timeout is kept from being handed out again.

    Raises:
        ValueError: a value is out of range; the text names the worker, the option and the value.
        TypeError: it is used without a task type, on an object that cannot be marked, twice, or on ``async def``.
    """
    if callable(task_type):
        raise TypeError(f'@worker needs the task type: write @worker("…") above {_place(task_type)}')

    def mark(function: F) -> F:
        spec = WorkerSpec(
            task_type=task_type,
            function=function,
            threads=threads,
            domain=domain,
            worker_id=worker_id,
            heartbeats=heartbeats,
        )
        earlier = attached_spec(function)
        if earlier is not None:
            raise TypeError(f"{spec.label} is already the {earlier.label}; give each task type its own function")
        try:
            setattr(function, _ATTRIBUTE, spec)
        except AttributeError as error:
            raise TypeError(
                f"{spec.label} cannot be marked; pass WorkerSpec(task_type=…, function=…) instead"
            ) from error
        return function

    return mark


def spec_of(function: Callable[..., Any]) -> WorkerSpec:
    """The ``WorkerSpec`` that ``@worker`` attached to ``function``.

    It runs exactly ``function``: a bound method with its object, and with any decorator written above ``@worker``
    (using ``functools.wraps``).

    Raises:
        TypeError: ``function`` is not a worker.
    """
    spec = attached_spec(function)
    if spec is None:
        raise TypeError(f'{_place(function)} is not a worker; decorate it with @worker("task type")')
    return spec if spec.function is function else attrs.evolve(spec, function=function)


def collect_workers(workers: Iterable[Callable[..., Any] | WorkerSpec]) -> tuple[WorkerSpec, ...]:
    """The specs of ``workers`` (functions marked with ``@worker``, or specs), in order, without duplicates.

    Raises:
        TypeError: ``workers`` is not an iterable of workers.
        ValueError: there are none, or two for one (task type, domain); the text names both functions.
    """
    if not isinstance(workers, Iterable):
        raise TypeError(f"workers must be a list of @worker functions, not {_place(workers)}; write [the_function]")
    found: dict[tuple[str, str | None], WorkerSpec] = {}
    for given in workers:
        spec = given if isinstance(given, WorkerSpec) else spec_of(given)
        other = found.setdefault((spec.task_type, spec.domain), spec)
        if other != spec:
            where = f"domain {spec.domain!r}" if spec.domain else "no domain"
            both = f"{_place(other.function)} and {_place(spec.function)}"
            raise ValueError(f"two workers for task type {spec.task_type!r} with {where}: {both}; keep one of them")
    if not found:
        raise ValueError('no workers given; decorate a function with @worker("task type") and pass that function')
    return tuple(found.values())


def _is_name(value: object) -> bool:
    """Whether it is a str that is not blank and can be part of a URL."""
    return isinstance(value, str) and bool(value.strip()) and can_be_sent(value)


def attached_spec(function: object) -> WorkerSpec | None:
    """The spec that ``@worker`` attached to ``function``, or None."""
    spec = getattr(function, _ATTRIBUTE, None)
    return spec if isinstance(spec, WorkerSpec) else None


def _place(function: object) -> str:
    """The place of a function, for people: name, file and line as far as known."""
    inner = function.func if isinstance(function, functools.partial) else function
    name = getattr(inner, "__qualname__", None) or repr(inner)
    code = getattr(inspect.unwrap(inner) if callable(inner) else inner, "__code__", None)
    return f"{name} in {code.co_filename}:{code.co_firstlineno}" if code else name


def _check_runnable(function: object, label: str) -> None:
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"{label}: a worker is a function, not {type(function).__name__}")
    inner = function.func if isinstance(function, functools.partial) else function
    for candidate in (inner, getattr(inner, "__call__", None)):  # noqa: B004 - an object's own __call__ may be async
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise TypeError(f"{label} is an async def; for now, write def and call asyncio.run(…) inside it")
        if inspect.isgeneratorfunction(candidate):
            raise TypeError(f"{label} is a generator function; return the whole result instead")
    try:
        inspect.signature(function)
    except ValueError:
        raise TypeError(f"{label} has no readable signature; wrap it in a def with named parameters") from None
