"""What a server is like right now, asked without taking a task and without changing one."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import attrs

from conductor_adapter.cli.lines import without_name
from conductor_adapter.client.messages import AuthRejected, HttpAnswer, HttpCall, ServerFailed, TransportError
from conductor_adapter.client.operations import ConductorServer, Operation
from conductor_adapter.client.redaction import shorten
from conductor_adapter.settings.server_settings import ServerSettings
from conductor_adapter.tasks import TaskResult, can_be_sent
from conductor_adapter.transports.base import Transport, drive
from resilience import Failed, FanOutExecutor, Refused, ResilienceError, Undeliverable, Value
from resilience._texts import one_line

__all__ = ["Health", "Wanted", "ask_all"]

T = TypeVar("T")

OURSELVES = "conductor-adapter-check"  # as task type and worker: no real type may look as if it were polled


@attrs.frozen
class Wanted:
    """A task type to look at, and the domain its tasks are queued in unless the server's settings name one."""

    task_type: str = attrs.field()
    domain: str | None = None

    @task_type.validator
    def _can_be_asked_for(self, _attribute: object, value: str) -> None:
        if not can_be_sent(value):
            raise ValueError(f"task type {value!r} holds bytes that are no text: it cannot be the name of one")


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
        auth: ``none``, ``ok``, ``rejected``, or ``?`` when it was not found out.
        endpoints: what it has, by name: ``batch poll``, ``update-v2`` (only if asked for), ``queue sizes``; None if
            that did not show.
        waiting: tasks waiting, by queue: the task type, behind ``domain:`` where there is one.
        unknown: task types that it has no definition of.
    """

    name: str
    url: str
    problem: str | None = None
    hint: str | None = None
    version: str | None = None
    latency: float | None = None
    auth: str = "none"
    endpoints: Mapping[str, bool | None] = attrs.field(factory=dict)
    waiting: Mapping[str, int] = attrs.field(factory=dict)
    unknown: tuple[str, ...] = ()


def ask_all(
    servers: Iterable[ServerSettings],
    wanted: Iterable[Wanted],
    make_transport: Callable[[ServerSettings], Transport],
    timeout: float,
    *,
    v2: bool = False,
) -> list[Health]:
    """Ask all servers at once; one that does not answer within ``timeout`` seconds is told to be so.

    Whether there is an update-v2 shows only when a server refuses a result of no task: with ``v2`` one is sent.
    """
    settings, queues = list(servers), tuple(wanted)
    with FanOutExecutor() as fan_out:
        calls = {one.name: partial(_ask, _Asking(one, make_transport(one), timeout), queues, v2=v2) for one in settings}
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


def _ask(asking: "_Asking", wanted: tuple[Wanted, ...], *, v2: bool) -> Health:
    try:
        return asking.health(wanted, v2=v2)
    finally:
        asking.transport.close()


class _Asking:
    """One server, the transport to it, and the time there is."""

    def __init__(self, settings: ServerSettings, transport: Transport, timeout: float) -> None:
        self._settings = settings
        self._server = ConductorServer(settings)
        self.transport = transport
        self._timeout = timeout

    def health(self, wanted: tuple[Wanted, ...], *, v2: bool) -> Health:
        """Poll it, which must work; then ask for the rest, which not every server or gateway lets through."""
        self._poll()  # the first one also pays for the connection and the token
        began = time.monotonic()
        self._poll()
        latency = time.monotonic() - began
        sizes = self._told(self._server.queue_sizes())
        types = dict.fromkeys(one.task_type for one in wanted)
        has_v2, refused = self._v2() if v2 else (None, None)
        return Health(
            name=self._settings.name,
            url=self._settings.url,
            problem=refused,
            hint=self._settings.hint,
            version=self._told(self._server.version()),
            latency=latency,
            auth="none" if self._settings.auth is None else "ok",
            endpoints={
                "batch poll": True,
                **({"update-v2": has_v2} if v2 else {}),
                "queue sizes": sizes is not None,
            },
            waiting={} if sizes is None else self._waiting(sizes, wanted),
            unknown=tuple(name for name in types if self._told(self._server.knows_task_type(name)) is False),
        )

    def _poll(self) -> None:
        self._drive(self._server.poll(OURSELVES, OURSELVES, 0, 0.0))  # asking for none takes none

    def _waiting(self, sizes: Mapping[str, int], wanted: tuple[Wanted, ...]) -> dict[str, int]:
        if not wanted:
            others = {name: size for name, size in sizes.items() if not name.startswith("_")}  # those are its own
            return {shorten(one_line(name)): size for name, size in others.items()}
        domains = [self._settings.domain or one.domain for one in wanted]
        names = [f"{d}:{w.task_type}" if d else w.task_type for w, d in zip(wanted, domains, strict=True)]
        return {name: sizes.get(name, 0) for name in names}

    def _v2(self) -> tuple[bool | None, str | None]:
        """Whether it has update-v2: a result for a workflow that cannot be is refused by the endpoint, if there is one.

        And, if no result gets that far, why. Then it does not show.

        The operation itself falls back to the plain update when there is none.
        """
        result = TaskResult(task_id=OURSELVES, workflow_id=OURSELVES)
        calls: list[HttpCall] = []
        try:
            self._drive(_noting(self._server.update_v2(result), calls))
        except TransportError:
            raise
        except Undeliverable:
            return calls[-1].path.endswith("/update-v2"), None
        except (Refused, ServerFailed) as error:
            return None, f"takes no results now: {without_name(str(error), self._settings.name, OURSELVES)}"
        except ResilienceError:
            return False, None
        return False, None  # whoever takes such a result is no Conductor

    def _told(self, operation: Operation[T]) -> T | None:
        """What it answers; None if it refuses, which is no reason not to work with it."""
        try:
            return self._drive(operation)
        except TransportError:
            raise
        except ResilienceError:
            return None

    def _drive(self, operation: Operation[T]) -> T:
        return drive(operation, self.transport, self._timeout)


def _noting(operation: Operation[T], calls: list[HttpCall]) -> Operation[T]:
    """The operation, with its calls noted."""
    answer: HttpAnswer | None = None
    while True:
        try:
            call = next(operation) if answer is None else operation.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return] # a generator's return value is untyped
        calls.append(call)
        answer = yield call
