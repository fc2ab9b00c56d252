"""The command line. Importing this needs no extra: `main` reports a missing one in one line.

Nor does it take long: `main` starts first, and imports what it needs.
"""

import sys
from collections.abc import Sequence

from conductor_adapter.cli.signals import end_at_once

__all__ = ["main"]

LIBRARIES = {"typer", "rich", "click"}  # what the extra "cli" brings
SERVING = {"demo", "dev-server"}  # commands that need the extra "dev-server" as well


def main() -> None:
    """Run the command line; the entry point ``conductor-adapter``."""
    end_at_once(sys.argv[1:])
    from conductor_adapter.cli.streams import open_streams, say_error  # noqa: PLC0415 - after the signals

    open_streams()
    try:
        from conductor_adapter.cli.app import command  # noqa: PLC0415 - needs the extra "cli"
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in LIBRARIES:
            raise
        say_error(_advice(sys.argv[1:], error.name))
        raise SystemExit(2) from None
    raise SystemExit(command(sys.argv[1:]))


def _advice(arguments: Sequence[str], missing: str) -> str:
    """What to install for the command, with all extras that it needs."""
    name = next((word for word in arguments if not word.startswith("-")), None)
    extras = "cli,dev-server" if name in SERVING else "cli"
    what = "the command line" if name is None else f"the command {name!r}"
    advice = f"pip install '.[{extras}]' in the checkout of conductor-resilience"
    return f"{what} needs {missing}, which is not installed; install it with: {advice}"
