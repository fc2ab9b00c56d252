"""One running server on an event loop: the API on its port, the control path, faults and the sweeper."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any

import attrs

from conductor_adapter.settings.server_settings import Credentials

from .access import Access
from .answers import Answer, ApiError, Call, json_answer
from .control import Control
from .engine import Engine
from .faults import Faults, FaultSwitch
from .listener import Listener
from .polling import Polling
from .router import call_kind
from .routes import Api
from .state import Store
from .times import wall_clock_ms
from .waiting import Waiting

__all__ = ["Site", "SiteConfig"]

HIGHEST_PORT = 65535
_GARBAGE = Answer(200, b"<html><body>Welcome to the wrong place</body></html>", "text/html")
_NO_TASKS = json_answer([])
_WITHOUT_DATABASE = {"/health", "/api/health", "/api/version", "/api/token", "/api/tasks/externalstoragelocation"}


def _port(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= HIGHEST_PORT:
        raise ValueError(f"{attribute.name} is {value!r}; it must be from 0 (pick a free port) to {HIGHEST_PORT}")


def _bytes(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{attribute.name} is {value!r}; it must be a number of bytes, 1 or more, or None")


@attrs.frozen(kw_only=True)
class SiteConfig:
    """The configuration of a dev server.

    Attributes:
        host: the address it listens on.
        port: the API's port; 0 picks a free one.
        control_port: a second port for ``/dev`` only, which stays open when the first one refuses connections; 0 picks
            a free one, None means none. ``/dev`` is on the API's port too.
        state: the file for its state; None keeps the state in memory.
        credentials: the key that it requires; None requires none, like the open-source server.
        token_seconds: how long a token is valid.
        update_v2: False for an old server without ``update-v2``.
        faults: the faults in force from the start.
        sweep_every: seconds between two checks of the timeouts.
        payload_threshold: size in bytes above which a task's input or output is stored outside; None for no limit.
    """

    host: str = "127.0.0.1"
    port: int = attrs.field(default=0, validator=_port)
    control_port: int | None = attrs.field(default=None, validator=attrs.validators.optional(_port))
    state: Path | None = None
    credentials: Credentials | None = None
    token_seconds: float = 3600.0
    update_v2: bool = True
    faults: Faults = attrs.field(factory=Faults)
    sweep_every: float = 0.5
    payload_threshold: int | None = attrs.field(default=None, validator=_bytes)


class Site:
    """A running server. Not thread-safe: everything happens on its event loop."""

    def __init__(self, config: SiteConfig) -> None:
        self.config = config
        self.store = Store(config.state)
        self.waiting = Waiting()
        self.engine = Engine(self.store, self.waiting.notify, config.payload_threshold)
        self.access = Access(config.credentials, config.token_seconds) if config.credentials else None
        polling = Polling(self.engine, self.waiting, wall_clock_ms)
        self.api = Api(self.engine, polling, self.access, update_v2=config.update_v2)
        self._switch = FaultSwitch(config.faults)
        self._control = Control(self.engine, self.api, self._switch, self.put_faults, wall_clock_ms)
        self._changed = asyncio.Event()
        self._door = asyncio.Lock()
        self._end: asyncio.TimerHandle | None = None
        self._listener = Listener(self._answer, config.host, config.port)
        self._control_listener: Listener | None = None
        self._chores: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of its API."""
        return f"http://{self.config.host}:{self._listener.port}/api"

    @property
    def port(self) -> int:
        """The API's port."""
        return self._listener.port

    @property
    def control_url(self) -> str:
        """The URL of its control path: on the control port if there is one."""
        listener = self._control_listener or self._listener
        return f"http://{self.config.host}:{listener.port}/dev"

    @property
    def faults(self) -> Faults:
        """The faults in force."""
        return self._switch.current

    async def open(self) -> None:
        """Start to serve; OSError if a port is in use."""
        await self._listener.open()
        if self.config.control_port is not None:
            self._control_listener = Listener(self._answer_control, self.config.host, self.config.control_port)
            await self._control_listener.open()
        self._begin(self._sweep())
        await self.put_faults(self.config.faults)

    async def close(self) -> None:
        """Stop serving: calls in flight are dropped, the state is closed."""
        self._changed.set()
        for chore in self._chores:
            chore.cancel()
        await self._listener.close()
        if self._control_listener is not None:
            await self._control_listener.close()
        self.store.close()

    async def put_faults(self, faults: Faults) -> None:
        """Replace the faults in force; calls that hung because of the old ones are dropped.

        When it returns, the port is open or closed as the faults require.
        """
        self._switch.put(faults)
        self._changed.set()
        self._changed = asyncio.Event()
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if faults.for_seconds:
            loop = asyncio.get_running_loop()
            self._end = loop.call_later(faults.for_seconds, lambda: self._begin(self.put_faults(Faults())))
        async with self._door:  # of concurrent calls the last one applies the current faults
            if self._switch.current.refuse:
                await self._listener.refuse()
            else:
                await self._listener.open()

    def _begin(self, chore: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.config.sweep_every)
            self.engine.sweep(wall_clock_ms())

    # -- calls ------------------------------------------------------------------------------------------------

    async def _answer_control(self, call: Call) -> Answer | None:
        return await self._control.answer(call)

    async def _answer(self, call: Call) -> Answer | None:
        if call.path.startswith("/dev/"):
            return await self._control.answer(call)
        if not self._switch.current.any:
            return await self.api.answer(call)
        faults = self._switch.take(call_kind(call.method, call.path), call.headers)
        if faults is None:
            return await self.api.answer(call)
        return await self._answer_badly(call, faults)

    async def _answer_badly(self, call: Call, faults: Faults) -> Answer | None:
        changed = self._changed
        if faults.latency:
            await asyncio.sleep(faults.latency)
        if faults.hang:
            await changed.wait()
            return None
        instead = _answer_instead(call, faults)
        if instead is not None:
            return instead
        answer = await self.api.answer(call)
        if faults.swallow:
            await changed.wait()
            return None
        if faults.surplus or faults.entries:
            return await self._with_more(answer, call, faults)
        return answer

    async def _with_more(self, answer: Answer, call: Call, faults: Faults) -> Answer:
        """Add to the answer of a batch poll: tasks that were not requested, and text that is not a task."""
        if not _is_batch_poll(call) or answer.status != HTTPStatus.OK:
            return answer
        more = _NO_TASKS
        if faults.surplus:
            query = f"{call.query}&count={faults.surplus}&timeout=0"  # of two values the last one counts
            more = await self.api.answer(Call(call.method, call.path, query, call.headers))
        parts = filter(None, (answer.body[1:-1], more.body[1:-1], faults.entries.encode()))
        return attrs.evolve(answer, body=b"[" + b",".join(parts) + b"]")


def _is_batch_poll(call: Call) -> bool:
    return call.path.startswith("/api/tasks/poll/batch/")


def _answer_instead(call: Call, faults: Faults) -> Answer | None:
    """Return the answer to a call that is not executed, None if it should be executed."""
    if faults.garbage:
        return _GARBAGE
    if faults.answers:
        return _answer_told(faults)
    if faults.database_away and call.path not in _WITHOUT_DATABASE:
        return _answer_without_database(call)
    return None


def _answer_told(faults: Faults) -> Answer:
    """Return the answer that the faults describe."""
    retryable = faults.error >= HTTPStatus.INTERNAL_SERVER_ERROR
    answer = ApiError(faults.error, "the dev server was told to answer so", retryable=retryable).answer()
    if faults.body is not None:
        body = faults.body.encode() if isinstance(faults.body, str) else faults.body
        answer = attrs.evolve(answer, status=faults.error or HTTPStatus.OK.value, body=body)
    headers = dict(faults.headers)
    for name in [name for name in headers if name.lower() == "content-type"]:
        answer = attrs.evolve(answer, media_type=headers.pop(name))
    if faults.retry_after:
        headers["Retry-After"] = f"{faults.retry_after:.16g}"
    return attrs.evolve(answer, headers=headers)


def _answer_without_database(call: Call) -> Answer:
    """Return the answer of a real server whose pool has no free connection: to a poll, an empty list."""
    if _is_batch_poll(call):
        return _NO_TASKS
    message = "HikariPool-1 - Connection is not available, request timed out after 1000ms."
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR.value, message).answer()
