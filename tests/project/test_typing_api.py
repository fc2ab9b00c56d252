"""What users write type-checks under ``--strict``, and what would be wrong is refused."""

import subprocess
import sys

from repository import ROOT

GUARD = 300.0  # seconds; a first run checks the libraries too


def test_public_api_type_checks_as_users_write_it() -> None:
    """The examples of the design, with what an editor shows for them, and the mistakes that it underlines."""
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "tests/project/typing_api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
