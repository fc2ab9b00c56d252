"""What a server is like right now, asked without taking a task or changing anything."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import attrs

from conductor_adapter.server import AuthRejected, ConductorServer, RequestRejected
from conductor_adapter.settings import ServerSettings
from conductor_adapter.transports import Transport, drive
from resilience import Failed, FanOutExecutor, Value

__all__ = ["Health", "ask_all"]

UNKNOWN_TASK = "conductor-adapter-check"


@attrs.frozen(kw_only=True)
class Health:
    """How one server answered.

    Attributes:
        name: the server.
        url: where it is.
        problem: what is wrong; None when it can be worked with.
        hint: what looks odd about it though it may be right.
        version: its version; None if it does not tell.
        latency: seconds that one poll took.
        auth: ``none``, ``ok`` or ``rejected``.
        waiting: tasks waiting, by task type.
        unknown: task types that it has no definition of.
    """

    name: str
    url: str
    problem: str | None = None
    hint: str | None = None
    version: str | None = None
    latency: float | None = None
    auth: str = "none"
    waiting: Mapping[str, int] = attrs.field(factory=dict)
    unknown: tuple[str, ...] = ()


def ask_all(
    servers: Iterable[ServerSettings],
    task_types: Iterable[str],
    make_transport: Callable[[ServerSettings], Transport],
    timeout: float,
) -> list[Health]:
    """Ask all servers at once; one that does not answer within ``timeout`` seconds is told to be so."""
    settings = list(servers)
    types = tuple(task_types)
    with FanOutExecutor() as fan_out:
        calls = {one.name: partial(_ask, one, types, make_transport(one), timeout) for one in settings}
        outcomes = fan_out.run(calls, timeout)
    return [_health(one, outcomes[one.name], timeout) for one in settings]


def _health(settings: ServerSettings, outcome: object, timeout: float) -> Health:
    if isinstance(outcome, Value):
        return outcome.value  # type: ignore[no-any-return]
    auth = "none" if settings.auth is None else "?"
    if isinstance(outcome, Failed) and isinstance(outcome.error, AuthRejected):
        auth = "rejected"
    problem = str(outcome.error) if isinstance(outcome, Failed) else f"no answer within {timeout:g} s"
    return Health(name=settings.name, url=settings.url, problem=problem, hint=settings.hint, auth=auth)


def _ask(settings: ServerSettings, task_types: tuple[str, ...], transport: Transport, timeout: float) -> Health:
    server = ConductorServer(settings)
    probe = task_types[0] if task_types else UNKNOWN_TASK
    drive(server.poll(probe, UNKNOWN_TASK, 0, 0.0), transport, timeout)  # asking for none takes none
    began = time.monotonic()
    drive(server.poll(probe, UNKNOWN_TASK, 0, 0.0), transport, timeout)
    latency = time.monotonic() - began
    sizes = drive(server.queue_sizes(), transport, timeout)
    wanted = task_types or tuple(name for name in sizes if not name.startswith("_"))
    return Health(
        name=settings.name,
        url=settings.url,
        hint=settings.hint,
        version=_version(server, transport, timeout),
        latency=latency,
        auth="none" if settings.auth is None else "ok",
        waiting={name: sizes.get(name, 0) for name in wanted},
        unknown=tuple(t for t in task_types if not drive(server.knows_task_type(t), transport, timeout)),
    )


def _version(server: ConductorServer, transport: Transport, timeout: float) -> str | None:
    try:
        return drive(server.version(), transport, timeout)
    except RequestRejected:
        return None  # not every server tells
