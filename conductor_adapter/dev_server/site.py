"""One running server on an event loop: the API behind its port, the control path, faults and the sweeper."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import attrs

from conductor_adapter.settings import Credentials

from .access import Access
from .answers import Answer, ApiError, Call
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


def _port(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= HIGHEST_PORT:
        raise ValueError(f"{attribute.name} is {value!r}; it must be from 0 (the system chooses) to {HIGHEST_PORT}")


@attrs.frozen(kw_only=True)
class SiteConfig:
    """How a dev server is set up.

    Attributes:
        host: the address it listens on.
        port: the API's port; 0 lets the system choose.
        control_port: a second port for ``/dev`` alone, which stays open when the first refuses; None for none,
            0 lets the system choose. ``/dev`` is on the API's port too.
        state: the file that keeps everything; None keeps it in memory.
        credentials: the key it asks for; None asks for nothing, like the open-source server.
        token_seconds: how long a token is good.
        update_v2: False for a server as old as not to have ``update-v2``.
        faults: what goes wrong from the start.
        sweep_every: seconds between two looks at the timeouts.
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


class Site:
    """A server as long as it runs. Not thread-safe: everything happens on its event loop."""

    def __init__(self, config: SiteConfig) -> None:
        self.config = config
        self.store = Store(config.state)
        self.waiting = Waiting()
        self.engine = Engine(self.store, self.waiting.notify)
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
        """Where its API is."""
        return f"http://{self.config.host}:{self._listener.port}/api"

    @property
    def port(self) -> int:
        """The API's port."""
        return self._listener.port

    @property
    def control_url(self) -> str:
        """Where its control path is: on the control port if there is one."""
        listener = self._control_listener or self._listener
        return f"http://{self.config.host}:{listener.port}/dev"

    @property
    def faults(self) -> Faults:
        """The faults in force."""
        return self._switch.current

    async def open(self) -> None:
        """Start to serve; OSError if a port is taken."""
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
        """Put other faults in force; calls that hung under the former ones are dropped.

        When it returns, the port is open or closed as the faults want it.
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
        async with self._door:  # whoever comes last finds what is in force then, not what it was called with
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
        faults = self._switch.take(call_kind(call.method, call.path)) if self._switch.current.any else None
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
        if faults.garbage:
            return _GARBAGE
        if faults.error:
            return _error(faults)
        answer = await self.api.answer(call)
        if faults.swallow:
            await changed.wait()
            return None
        return answer


def _error(faults: Faults) -> Answer:
    retryable = faults.error >= 500  # noqa: PLR2004 - the server's own faults
    answer = ApiError(faults.error, "the dev server was told to answer so", retryable=retryable).answer()
    if not faults.retry_after:
        return answer
    return attrs.evolve(answer, headers={"Retry-After": f"{faults.retry_after:g}"})
