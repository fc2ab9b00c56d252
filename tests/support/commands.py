"""The command line as a user has it, in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["COMMAND", "GUARD", "URL", "WORKER", "command", "refused"]

COMMAND = Path(sys.executable).with_name("conductor-adapter")
GUARD = 60.0  # seconds until a wrong test fails instead of hanging
URL = "http://127.0.0.1:9/api"  # nobody is there, and nobody needs to be
WORKER = """
from conductor_adapter import worker

@worker("greet", threads=2)
def greet(name: str = "you") -> str:
    return f"hello {name}"
"""


def command(*arguments: object, folder: Path | None = None, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end, without any Conductor variable of this process's environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONDUCTOR_")}
    return subprocess.run(  # noqa: S603 - our own command
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
        cwd=folder,
        env={**clean, "COLUMNS": "200", **environ},
    )


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line on standard error, after checking that it is all there is."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr
