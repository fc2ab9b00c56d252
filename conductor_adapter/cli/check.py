"""``conductor-adapter check``: is each server there, does it let us in, and what waits on it."""

import json
from collections.abc import Sequence
from pathlib import Path

import attrs
from rich.console import Console
from rich.table import Table

from conductor_adapter.cli.health import Health, ask_all
from conductor_adapter.cli.servers import find_servers
from conductor_adapter.cli.usage import refusing
from conductor_adapter.transports import choose

__all__ = ["check"]

FAILED = 1
TIMEOUT = 5.0
COLUMNS = ("server", "url", "state", "version", "latency", "auth", "waiting")


def check(
    servers: Sequence[str], config: Path | None, task_types: Sequence[str], transport: str, *, as_json: bool
) -> int:
    """Ask every server, say how it is, and return the exit status: 1 if one cannot be worked with."""
    with refusing():
        settings, make_transport = find_servers(servers, config), choose(transport)
    asked = ask_all(settings, task_types, make_transport, TIMEOUT)
    console = Console(soft_wrap=True)
    if as_json:
        for health in asked:
            print(json.dumps(attrs.asdict(health)))  # noqa: T201 - output of a command
    elif console.is_terminal:
        console.print(_table(asked))
    else:
        for health in asked:
            print("  ".join(_row(health)))  # noqa: T201 - output of a command
    return FAILED if any(health.problem for health in asked) else 0


def _table(asked: Sequence[Health]) -> Table:
    table = Table(*COLUMNS)
    for health in asked:
        table.add_row(*_row(health), style="red" if health.problem else None)
    return table


def _row(health: Health) -> tuple[str, ...]:
    state = health.problem or "ok"
    if health.hint is not None and health.problem is not None and health.hint not in state:
        state += f"; {health.hint}"
    waiting = ", ".join(f"{name}={count}" for name, count in health.waiting.items()) or "-"
    waiting += "".join(f"; {name} is unknown there" for name in health.unknown)
    latency = "-" if health.latency is None else f"{health.latency * 1000:.1f} ms"
    return (health.name, health.url, state, health.version or "-", latency, health.auth, waiting)
