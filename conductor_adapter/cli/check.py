"""``conductor-adapter check``: whether each server is reachable, accepts the credentials, and has waiting tasks."""

import json
from collections.abc import Sequence
from pathlib import Path

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from conductor_adapter.cli.health import Health, Wanted, ask_all
from conductor_adapter.cli.lines import without_name
from conductor_adapter.cli.servers import credentials_hint, find_servers
from conductor_adapter.cli.streams import put, say_error, written
from conductor_adapter.cli.usage import refusing
from conductor_adapter.transports import choose
from resilience._texts import printable

__all__ = ["check"]

FAILED = 1
TIMEOUT = 5.0  # seconds for all calls to one server
NARROW = ("state", "version", "latency", "auth")  # the columns between the URL and the waiting tasks


def check(
    servers: Sequence[str], config: Path | None, task_types: Sequence[str], transport: str, *, as_json: bool
) -> int:
    """Ask every server, print its health, and return the exit status.

    The status is 1 if a server is unusable, or if none of them knows one of the task types.
    """
    with refusing():
        settings = find_servers(servers, config)
        wanted = [Wanted(task_type) for task_type in task_types]
        if hint := credentials_hint(servers, config, settings):
            say_error(hint)  # standard output is for the servers' health
        asked = ask_all(settings, wanted, choose(transport), TIMEOUT, v2=True)
    with written():
        _tell(asked, as_json=as_json)
    well = [health for health in asked if health.problem is None]
    nowhere = [name for name in dict.fromkeys(task_types) if well and all(name in health.unknown for health in well)]
    for name in nowhere:
        say_error(f"no server knows task type {name!r}: correct the name, or register the task type first")
    return FAILED if nowhere or any(health.problem for health in asked) else 0


def _tell(asked: Sequence[Health], *, as_json: bool) -> None:
    console = Console(highlight=False, markup=False, emoji=False)  # text from servers must not be read as markup
    if as_json:
        for health in asked:
            print(json.dumps(attrs.asdict(health)))  # noqa: T201 - output of a command
    elif console.is_terminal:
        _draw(console, asked)
    else:
        for health in asked:
            state = "failed" if health.problem else "ok"
            version, latency, auth, waiting = _facts(health)
            row = [health.name, health.url, state, version, latency, f"auth {auth}"]
            row += [_endpoints(health), waiting, _remarks(health)]
            put(*filter(None, row))


def _draw(console: Console, asked: Sequence[Health]) -> None:
    """Draw a table, with remarks about the servers below it, where there is room."""
    table = Table(show_lines=True)
    table.add_column("server", overflow="fold")
    for column in NARROW:
        table.add_column(column, overflow="fold", min_width=len(column))
    table.add_column("waiting", overflow="fold", min_width=len("waiting"))
    for health in asked:
        state = "failed" if health.problem else "ok"
        place = f"{printable(health.name)}\n{printable(health.url)}"
        table.add_row(place, state, *map(printable, _facts(health)), style="red" if health.problem else None)
    console.print(table)
    for health in asked:
        missing = [f"no {name}" for name, there in health.endpoints.items() if there is False]
        if remarks := "; ".join(filter(None, (*missing, _remarks(health)))):
            style = "red" if health.problem else "yellow"
            console.print(Text(printable(f"{health.name}: {remarks}"), style=style), soft_wrap=True)


def _remarks(health: Health) -> str:
    """What is wrong, or looks wrong, with a server."""
    parts = [without_name(health.problem or "", health.name)]
    if health.hint is not None and health.hint not in parts[0]:
        parts.append(health.hint)
    parts += [f"task type {name!r} is unknown there" for name in health.unknown]
    return "; ".join(filter(None, parts))


def _endpoints(health: Health) -> str:
    words = {True: "", False: "no ", None: "perhaps "}
    return ", ".join(f"{words[there]}{name}" for name, there in health.endpoints.items()) or "-"


def _facts(health: Health) -> tuple[str, str, str, str]:
    waiting = ", ".join(f"{name}={count}" for name, count in health.waiting.items())
    latency = "-" if health.latency is None else f"{health.latency * 1000:.1f} ms"
    return health.version or "-", latency, health.auth, waiting or "-"
