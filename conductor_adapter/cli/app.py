"""The commands and their options; each command is implemented in the file of the same name."""

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer

from conductor_adapter.cli.check import check as check_servers
from conductor_adapter.cli.dev_server import dev_server as serve_alone
from conductor_adapter.cli.lines import NORMAL
from conductor_adapter.cli.outbox import purge, retry, show
from conductor_adapter.cli.printing import Printer
from conductor_adapter.cli.run import RunOptions
from conductor_adapter.cli.run import run as run_workers
from conductor_adapter.cli.signals import interrupts_raise
from conductor_adapter.cli.streams import UNREAD, UNWRITABLE, flushed, give_up, say_error, written
from conductor_adapter.cli.usage import (
    BAD_USAGE,
    count,
    grace_length,
    log_level,
    refusing,
    seconds,
    server_name,
    story_length,
    timeout,
)

__all__ = ["app", "command"]

INTERRUPTED = 130
MAX_ID = 2**63 - 1  # the largest id of a row
NAME = "conductor-adapter"

app = typer.Typer(
    name=NAME,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Servers = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        metavar="NAME=URL",
        help="A server; repeatable. Credentials: CONDUCTOR_AUTH_KEY_<NAME>, CONDUCTOR_AUTH_SECRET_<NAME>.",
    ),
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help=r"A TOML file with \[\[servers]] tables.")
]
Transport = Annotated[str, typer.Option(metavar="auto|requests|curl", help="The HTTP library.")]
OutboxFile = Annotated[
    str,
    typer.Option("--outbox", metavar="PATH", help="The outbox file; by default, your own.", show_default=False),
]
OutboxServers = Annotated[
    list[str] | None,
    typer.Option("--server", parser=server_name, metavar="NAME", help="Only results for this server; repeatable."),
]
LetterIds = Annotated[
    list[int] | None, typer.Argument(min=1, max=MAX_ID, metavar="ID", help="IDs of dead letters, from 'outbox list'.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def _say_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it with the option
    if asked:
        with refusing(), written():
            print(NAME, version_of("conductor-resilience"))  # noqa: T201 - output of a command
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: FBT002 - a switch of the command line
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """One worker, several Conductor servers."""


@app.command()
def run(  # noqa: PLR0913, PLR0917 - the options of a command
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A Python file or module with @worker functions.")],
    server: Servers = None,
    config: Config = None,
    threads: Annotated[
        int | None, typer.Option(parser=count, metavar="N", help="Threads for each worker; overrides its own number.")
    ] = None,
    poll_wait: Annotated[
        float | None, typer.Option(parser=timeout, metavar="S", help="Seconds that a poll waits for a task.")
    ] = None,
    poll_timeout: Annotated[
        float | None,
        typer.Option(
            parser=timeout,
            metavar="S",
            help="Seconds until a poll counts as failed; its connection is closed after twice as long, at least 30 s.",
        ),
    ] = None,
    transport: Transport = "auto",
    outbox: Annotated[
        str,
        typer.Option(
            metavar="PATH|none",
            help="Where undelivered results are stored, so that they survive a crash; by default, your own file.",
            show_default=False,
        ),
    ] = "",
    grace: Annotated[
        float, typer.Option(parser=grace_length, metavar="S", help="Seconds that running tasks have to finish on stop.")
    ] = 10.0,
    duration: Annotated[
        float | None, typer.Option(parser=seconds, metavar="S", help="Stop after this many seconds.")
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--log-level",
            parser=log_level,
            metavar="LEVEL",
            help="Show what task functions log at this level or above: debug, info, warning, error or critical.",
        ),
    ] = None,
    json: Json = False,  # noqa: FBT002 - a switch of the command line
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Print more, with tracebacks of failed tasks.")
    ] = 0,
    quiet: Annotated[int, typer.Option("-q", "--quiet", count=True, help="Print less.")] = 0,
) -> None:
    """Run workers until SIGTERM, SIGINT or SIGHUP; running tasks then finish, and un-started ones are given back.

    A second signal stops the process at once, unless it arrives within a second of the first.

    Servers come from --server, --config, or CONDUCTOR_SERVER_URL (several: separated by commas).

    Exit status: 0 after a clean stop; 1 when work was left undone (including after a second signal) or a result was
    refused permanently; 2 for bad usage.
    """
    options = RunOptions(
        target=target,
        servers=server or [],
        config=config,
        threads=threads,
        poll_wait=poll_wait,
        poll_timeout=poll_timeout,
        transport=transport,
        outbox=outbox,
        grace=grace,
        duration=duration,
        log_level=log,
    )
    raise typer.Exit(run_workers(options, Printer(as_json=json, level=NORMAL + verbose - quiet)))


@app.command()
def check(
    server: Servers = None,
    config: Config = None,
    task: Annotated[list[str] | None, typer.Option(metavar="TYPE", help="A task type to check; repeatable.")] = None,
    transport: Transport = "auto",
    json: Json = False,  # noqa: FBT002 - a switch of the command line
) -> None:
    """Check each server: reachability, version, latency, auth, endpoints and waiting tasks.

    Takes no task and changes none. Exit status: 1 when one of the servers is unusable, or when a task type is unknown
    to all of them.
    """
    raise typer.Exit(check_servers(server or [], config, task or [], transport, as_json=json))


@app.command()
def demo(
    real: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Use real servers instead; no faults are injected.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(parser=story_length, metavar="S", help="Length of the demo, without the final drain.")
    ] = 24.0,
    json: Json = False,  # noqa: FBT002 - a switch of the command line
) -> None:
    """Show one worker on three embedded servers: one hangs, one is killed and comes back, and no task is lost.

    Exit status: 1 when a task was lost.
    """
    with refusing():
        from conductor_adapter.cli.demo import tell  # noqa: PLC0415 - needs the extra "dev-server"
    raise typer.Exit(tell(real or [], seconds, as_json=json))


@app.command("dev-server")
def dev_server(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8080,
    state: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the server's state in FILE.")] = None,
    faults: Annotated[str, typer.Option(metavar="FAULTS", help='For example "latency=1,only=polls", "hang".')] = "",
    seed_tasks: Annotated[
        list[str] | None, typer.Option(metavar="TYPE=N", help="Start N one-task workflows; repeatable.")
    ] = None,
    payload_threshold: Annotated[
        int | None, typer.Option(min=1, metavar="BYTES", help="Store larger inputs and outputs outside the task.")
    ] = None,
) -> None:
    """Run the embedded Conductor-compatible server on its own, with faults if wanted."""
    raise typer.Exit(serve_alone(port, state, faults, seed_tasks or [], payload_threshold))


outbox = typer.Typer(no_args_is_help=True, help="Inspect and manage undelivered results and dead letters.")
app.add_typer(outbox, name="outbox")


@outbox.command("list")
def outbox_list(
    path: OutboxFile = "",
    server: OutboxServers = None,
    json: Json = False,  # noqa: FBT002 - a switch of the command line
) -> None:
    """Show how many results are waiting for each server, and which were refused permanently, and why."""
    raise typer.Exit(show(path, server or [], as_json=json))


@outbox.command("retry")
def outbox_retry(ids: LetterIds = None, path: OutboxFile = "", server: OutboxServers = None) -> None:
    """Send dead letters again: all, or those of --server, or those with these IDs (see 'outbox list').

    A running worker picks them up within seconds. Exit status: 1 when no dead letter matches.
    """
    raise typer.Exit(retry(path, server or [], ids or []))


@outbox.command("purge")
def outbox_purge(
    ids: LetterIds = None,
    path: OutboxFile = "",
    server: OutboxServers = None,
    waiting: Annotated[  # noqa: FBT002 - a switch of the command line
        bool, typer.Option("--waiting", help="Delete results waiting for --server instead; not claimed ones.")
    ] = False,
    yes: Annotated[  # noqa: FBT002 - a switch of the command line
        bool, typer.Option("--yes", help="Delete permanently; required.")
    ] = False,
) -> None:
    """Delete dead letters: all, or those of --server, or those with these IDs (see 'outbox list').

    Exit status: 1 when nothing matches.
    """
    raise typer.Exit(purge(path, server or [], ids or [], waiting=waiting, sure=yes))


def command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; bad usage is reported in one line on standard error."""
    if list(arguments[:1]) != ["run"]:  # which installs its own handlers
        interrupts_raise()
    for name in ("resilience", "conductor_adapter"):
        quiet = logging.getLogger(name)
        quiet.addHandler(logging.NullHandler())  # everything they log is also an event, and the commands print those
        quiet.propagate = False
    try:
        status = int(app(list(arguments), prog_name=NAME, standalone_mode=False) or 0)
        return status if flushed() else status or UNREAD
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        give_up(sys.stdout, error)
        return UNREAD
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        # Typer's own usage errors: the module that defines them depends on its version.
        told = getattr(error, "format_message", None)
        if told is None:
            raise
        if text := told().strip():
            whose = getattr(getattr(error, "ctx", None), "command_path", NAME)
            say_error(f"{text.rstrip('.')}; see {whose} --help")
        return BAD_USAGE
