"""The documentation's examples are executed: every fenced Python block whose first line is ``# runnable``."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import MEASURED
from forking import Forking
from repository import PAGES, ROOT, blocks_of

TIMEOUT = 60.0  # seconds; a hang guard
WARNINGS = ("-W", "error")
forking = functools.cache(Forking)

EXAMPLES = [
    pytest.param(page, line, code, id=f"{page.relative_to(ROOT)}:{line}")
    for page in PAGES
    if "_build" not in page.parts
    for line, code in blocks_of(page.read_text())
]


@pytest.mark.parametrize(("page", "line", "code"), EXAMPLES)
def test_example_runs(page: Path, line: int, code: str, tmp_path: Path) -> None:
    """A reader can copy the block as it stands: it runs in a process of its own, warnings are errors."""
    program = "\n" * (line - 1) + code  # so that a traceback shows the page's own line
    script = tmp_path / page.with_suffix(".py").name
    script.write_text(program)

    start = started if MEASURED else forking(*WARNINGS).start
    with (tmp_path / "told").open("w+b") as told:
        process = start([str(script)], cwd=tmp_path, env=dict(os.environ), stdout=told, stderr=told)
        try:
            code = process.wait(TIMEOUT)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(TIMEOUT)

    assert code == 0, f"{page}:{line}\n{(tmp_path / 'told').read_text()}"


def started(arguments: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """A fresh interpreter, whose coverage is measured."""
    return subprocess.Popen([sys.executable, *WARNINGS, *arguments], **options)  # noqa: S603 - our own documentation


def test_only_marked_python_blocks_are_examples() -> None:
    """Other languages and unmarked fragments are not run."""
    text = "a\n```python\n# runnable\nx = 1\n```\n```python\ny = 2\n```\n```bash\n# runnable\n```\n"

    assert blocks_of(text) == [(3, "# runnable\nx = 1\n")]
