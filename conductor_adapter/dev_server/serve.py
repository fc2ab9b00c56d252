"""The server in the foreground, in its own process."""

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from conductor_adapter.settings.server_settings import Credentials
from resilience._texts import printable

from .faults import Faults
from .seed import Seed
from .site import Site, SiteConfig
from .times import wall_clock_ms

__all__ = ["serve"]


def serve(  # noqa: PLR0913 - keyword-only options of a command
    port: int = 8080,
    *,
    host: str = "127.0.0.1",
    control_port: int | None = None,
    state: str | Path | None = None,
    seed: Mapping[str, int] | None = None,
    faults: Faults | str = Faults(),  # noqa: B008 - frozen
    credentials: Credentials | None = None,
    payload_threshold: int | None = None,
    with_parent: bool = False,
    say: Callable[[str], None] = lambda line: print(line, flush=True),  # noqa: T201 - it is a command
) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit status. Call it from the main thread.

    It prints one line with its URLs when it is ready.

    Args:
        port: 0 picks a free one.
        host: the address to listen on.
        control_port: a second port for ``/dev`` only, which stays open while the first one refuses connections; 0
            picks a free one, None means none.
        state: a file for its state, which survives a crash; None keeps the state in memory.
        seed: the number of one-task workflows to start, by task type; types that are already in the state are skipped.
        faults: the faults in force from the start, as ``Faults`` or str (``"latency=1,only=polls"``, or a JSON object).
        credentials: the key that it requires; None requires none.
        payload_threshold: size in bytes above which a task's input or output is stored outside; None for no limit.
        with_parent: stop when standard input ends, that is, when the process that holds it ends.
        say: called with the line.

    Returns:
        0 after a clean stop; 2 if it could not start: the reason is printed in one line on standard error.
    """
    try:
        wanted = Faults.parse(faults) if isinstance(faults, str) else faults
        config = SiteConfig(
            host=host,
            port=port,
            control_port=control_port,
            state=None if state is None else Path(state),
            credentials=credentials,
            faults=wanted,
            payload_threshold=payload_threshold,
        )
        asyncio.run(_serve(config, dict(seed or {}), say, with_parent=with_parent))
    except OSError as error:
        print(printable(_explain(error, host, port)), file=sys.stderr)  # noqa: T201 - it is a command
        return 2
    except (TypeError, ValueError) as error:
        print(printable(f"dev-server: {error}"), file=sys.stderr)  # noqa: T201 - it is a command
        return 2
    return 0


async def _serve(config: SiteConfig, seed: dict[str, int], say: Callable[[str], None], *, with_parent: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    site = Site(config)
    try:
        _seed(site, seed)
        await site.open()
        if with_parent:
            loop.add_reader(sys.stdin, _at_end, stop)
        say(f"dev-server ready: {site.url} control {site.control_url}")
        await stop.wait()
    finally:
        await site.close()


def _seed(site: Site, seed: Mapping[str, int]) -> None:
    for task_type, count in seed.items():
        if any(site.store.run_states(task_type).values()):
            continue
        Seed(task_type=task_type).start_many(site.engine, count, wall_clock_ms())


def _at_end(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin)
        stop.set()


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"dev-server: port {port} on {host} is in use; choose another with --port, or --port 0 for any"
    return f"dev-server: {error}"
