"""The command line. Importing this needs no extra: what a missing one costs is said by `main`, in one line."""

import sys

__all__ = ["main"]

ADVICE = "pip install 'conductor-resilience[cli]'"


def main() -> None:
    """Run the command line; the entry point ``conductor-adapter``."""
    try:
        from conductor_adapter.cli.app import command  # noqa: PLC0415 - needs the extra "cli"
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in {"typer", "rich", "click"}:
            raise
        sys.stderr.write(f"conductor-adapter: the command line needs {error.name}: {ADVICE}\n")
        raise SystemExit(2) from None
    raise SystemExit(command(sys.argv[1:]))
