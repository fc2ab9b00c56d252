"""The health of a server, found out without taking or changing a task."""

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

OURSELVES = "conductor-adapter-check"  # as task type and worker id: no real task type must appear to be polled


@attrs.frozen
class Wanted:
    """A task type to check, and the domain its tasks are queued in unless the server's settings name one."""

    task_type: str = attrs.field()
    domain: str | None = None

    @task_type.validator
    def _can_be_asked_for(self, _attribute: object, value: str) -> None:
        if not can_be_sent(value):
            raise ValueError(f"task type {value!r} is not valid text, so it cannot be the name of a task type")


@attrs.frozen(kw_only=True)
class Health:
    """How one server answered.

    Attributes:
        name: the name of the server.
        url: its URL.
        problem: what is wrong; None if it can be used.
        hint: what looks odd about it, though it might be right.
        version: its version; None if it does not report it.
        latency: seconds that one poll took.
        auth: ``none``, ``ok``, ``rejected``, or ``?`` if it is not known.
        endpoints: by name, whether it has them: ``batch poll``, ``update-v2`` (only on request), ``queue sizes``; None
            if that is not known.
        waiting: number of waiting tasks by queue: the task type, preceded by ``domain:`` if there is one.
        unknown: task types that it has no definition for.
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
    """Ask all servers at once; one that does not answer within ``timeout`` seconds is reported as not answering.

    Whether a server has update-v2 can be told only from how it refuses a result without a task: ``v2`` sends one.
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
    """One server, the transport to it, and the timeout."""

    def __init__(self, settings: ServerSettings, transport: Transport, timeout: float) -> None:
        self._settings = settings
        self._server = ConductorServer(settings)
        self.transport = transport
        self._timeout = timeout

    def health(self, wanted: tuple[Wanted, ...], *, v2: bool) -> Health:
        """Poll it, which must work; then ask for the rest, which not every server or gateway allows."""
        self._poll()  # the first one includes the time for the connection and the token
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
            others = {name: size for name, size in sizes.items() if not name.startswith("_")}  # those are internal
            return {shorten(one_line(name)): size for name, size in others.items()}
        domains = [self._settings.domain or one.domain for one in wanted]
        names = [f"{d}:{w.task_type}" if d else w.task_type for w, d in zip(wanted, domains, strict=True)]
        return {name: sizes.get(name, 0) for name in names}

    def _v2(self) -> tuple[bool | None, str | None]:
        """Whether it has update-v2, which then refuses a result for a workflow that cannot exist; None if not known.

        The second value is the reason why no result gets that far, or None.

        The operation itself falls back to the plain update if there is no update-v2.
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
            return None, f"accepts no results now: {without_name(str(error), self._settings.name, OURSELVES)}"
        except ResilienceError:
            return False, None
        return False, None  # a server that accepts such a result is not a Conductor server

    def _told(self, operation: Operation[T]) -> T | None:
        """Its answer; None if it refuses, which does not make the server unusable."""
        try:
            return self._drive(operation)
        except TransportError:
            raise
        except ResilienceError:
            return None

    def _drive(self, operation: Operation[T]) -> T:
        return drive(operation, self.transport, self._timeout)


def _noting(operation: Operation[T], calls: list[HttpCall]) -> Operation[T]:
    """The operation, with its calls recorded in ``calls``."""
    answer: HttpAnswer | None = None
    while True:
        try:
            call = next(operation) if answer is None else operation.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return] # a generator's return value is untyped
        calls.append(call)
        answer = yield call
