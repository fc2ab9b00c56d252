"""DevServer: the server in a thread of this process, for tests and examples."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from conductor_adapter.settings.server_settings import Credentials, ServerSettings

from .faults import FaultControl, Faults
from .outcome import FinishedRun, find_run, finished_run, standing
from .seed import Seed
from .site import Site, SiteConfig
from .times import wall_clock_ms

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DevServer"]

T = TypeVar("T")
_NOT_RUNNING = "the dev server is not running: use it as a context manager, or call start()"


class DevServer:
    """A Conductor-compatible server in a daemon thread. A context manager; every method is thread-safe.

    Args:
        port: 0 picks a free one.
        name: the name in its ``settings``.
        state: a file for its state, which survives a crash; None keeps the state in memory.
        credentials: the key that it requires; None requires none, like the open-source server.
        token_seconds: how long a token is valid.
        update_v2: False for an old server without ``update-v2``.
        faults: the faults in force from the start.
        sweep_every: seconds between two checks of the timeouts.
        payload_threshold: size in bytes above which a task's input or output is stored outside: the task then contains
            an empty one, and the path from which the real one is fetched. None for no limit.

    Raises:
        OSError: from ``start`` (or ``with``), if the port is in use.
    """

    def __init__(  # noqa: PLR0913 - keyword-only options of the front door
        self,
        port: int = 0,
        *,
        name: str = "dev",
        state: str | Path | None = None,
        credentials: Credentials | None = None,
        token_seconds: float = 3600.0,
        update_v2: bool = True,
        faults: Faults = Faults(),  # noqa: B008 - frozen
        sweep_every: float = 0.5,
        payload_threshold: int | None = None,
    ) -> None:
        self.name = name
        self._config = SiteConfig(
            port=port,
            state=None if state is None else Path(state),
            credentials=credentials,
            token_seconds=token_seconds,
            update_v2=update_v2,
            faults=faults,
            sweep_every=sweep_every,
            payload_threshold=payload_threshold,
        )
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._site: Site | None = None
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start to serve; returns once it accepts calls.

        Raises:
            OSError: the port is in use.
            RuntimeError: it is already running.
        """
        if self._thread is not None:
            raise RuntimeError("the dev server is already running")
        ready = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._main, args=(ready,), name=f"dev-server {self.name}", daemon=True)
        self._thread.start()
        ready.wait()
        if self._error is not None:
            self._thread.join()
            self._thread = None
            raise self._error

    def stop(self) -> None:
        """Stop serving; calls in flight are dropped. Calling it again does nothing."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        thread.join()

    # -- where it is ------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._running().port

    @property
    def url(self) -> str:
        """The URL of its API: ``http://127.0.0.1:PORT/api``."""
        return self._running().url

    @property
    def control_url(self) -> str:
        """The URL of its control path: ``http://127.0.0.1:PORT/dev``."""
        return self._running().control_url

    @property
    def settings(self) -> ServerSettings:
        """The settings with which a worker reaches it, credentials included."""
        return ServerSettings(self.name, self.url, auth=self._config.credentials)

    # -- work -------------------------------------------------------------------------------------------------

    def start_task(
        self,
        task_type: str,
        input: Mapping[str, Any] | str | None = None,  # noqa: A002 - Conductor's word
        *,
        domain: str | None = None,
        **fields: object,
    ) -> str:
        """Start a run of one task and return its id.

        Args:
            task_type: the task type; the workflow created for it has the same name.
            input: the task's input. A str is handed out unchanged, even if no server would have accepted it: a number
                of 5,000 digits, or invalid JSON.
            domain: the domain that it is queued in.
            fields: fields of the task definition, in Conductor's spelling (``responseTimeoutSeconds=2``,
                ``retryCount=0``).
        """
        seed = Seed(task_type=task_type, input=input or {}, domain=domain, task_def=fields)
        return self._do(lambda site: seed.start(site.engine, wall_clock_ms()))

    def start_tasks(
        self,
        task_type: str,
        count: int,
        input: Mapping[str, Any] | str | None = None,  # noqa: A002 - Conductor's word
        *,
        domain: str | None = None,
        **fields: object,
    ) -> None:
        """Start ``count`` runs of one task each, in one transaction; the arguments are those of ``start_task``."""
        seed = Seed(task_type=task_type, input=input or {}, domain=domain, task_def=fields)
        self._do(lambda site: seed.start_many(site.engine, count, wall_clock_ms()))

    def wait(self, run: str, timeout: float) -> FinishedRun:
        """Wait until a run has ended.

        Args:
            run: the id of the run.
            timeout: seconds.

        Raises:
            TimeoutError: it has not ended by then; the text contains its state.
            KeyError: there is no such run.
        """

        async def wait(site: Site) -> FinishedRun:
            until = asyncio.get_running_loop().time() + timeout
            while True:
                workflow = find_run(site.store, run)
                if workflow.finished:
                    return finished_run(workflow)
                left = until - asyncio.get_running_loop().time()
                if left <= 0:
                    raise TimeoutError(standing(site.store, run, timeout))
                await site.waiting.wait(run, left)

        return self._do_async(wait)

    def decide(self, run: str) -> None:
        """Evaluate a run's timeouts now."""
        self._do(lambda site: site.engine.decide(run, wall_clock_ms()))

    # -- what goes wrong --------------------------------------------------------------------------------------

    @property
    def faults(self) -> FaultControl:
        """The faults in force: read, ``set`` or ``clear`` them, or assign a ``Faults``."""
        return FaultControl(lambda: self._do(lambda site: site.faults), self._put_faults)

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._put_faults(faults)

    def _put_faults(self, faults: Faults) -> None:
        self._do_async(lambda site: site.put_faults(faults))

    def expire_tokens(self) -> None:
        """Expire all tokens issued so far; RuntimeError if this server requires none."""
        self._do(_expire_tokens)

    # -- what happened ----------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Count the calls since the start: ``polls``, ``updates``, ``not found`` (updates for tasks of another
        server), ``handed out`` (tasks), and ``status N`` for each status."""  # noqa: D205, D209 - one list
        return self._do(lambda site: {"polls": 0, "updates": 0, "not found": 0, "handed out": 0, **site.api.counts})

    def handed_out(self, run: str | None = None, *, least: int = 0) -> dict[tuple[str, str], int]:
        """Count how often each step was handed to a worker, by (run, reference), including retries.

        Args:
            run: count only this run.
            least: return only counts of at least this number.
        """
        return self._do(lambda site: site.store.handed_out(run, least=least))

    def runs(self, name: str | None = None) -> dict[str, int]:
        """Count the runs (with this name) by status."""
        return self._do(lambda site: site.store.run_states(name))

    # -- the thread -------------------------------------------------------------------------------------------

    def _main(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that called start()
            self._error = error
        finally:
            ready.set()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        site = Site(self._config)
        try:
            await site.open()
            self._site = site
            ready.set()
            await self._stop.wait()
        finally:
            self._site = None
            await site.close()

    def _running(self) -> Site:
        site = self._site
        if site is None:
            raise RuntimeError(_NOT_RUNNING)
        return site

    def _do(self, action: Callable[[Site], T]) -> T:
        """Run ``action`` in the server's thread and return its result."""

        async def act(site: Site) -> T:
            return action(site)

        return self._do_async(act)

    def _do_async(self, action: Callable[[Site], Coroutine[Any, Any, T]]) -> T:
        site = self._running()
        if self._loop is None:
            raise RuntimeError(_NOT_RUNNING)
        return asyncio.run_coroutine_threadsafe(action(site), self._loop).result()


def _expire_tokens(site: Site) -> None:
    if site.access is None:
        raise RuntimeError("this dev server requires no tokens: create it with credentials=Credentials(key, secret)")
    site.access.expire_all()
