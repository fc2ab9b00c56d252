"""The documentation's examples are executed: every fenced Python block whose first line is ``# runnable``."""

import subprocess
import sys
from pathlib import Path

import pytest
from repository import PAGES, ROOT, blocks_of

TIMEOUT = 60.0  # seconds; a hang guard


EXAMPLES = [
    pytest.param(page, line, code, id=f"{page.relative_to(ROOT)}:{line}")
    for page in PAGES
    if "_build" not in page.parts
    for line, code in blocks_of(page.read_text())
]


@pytest.mark.parametrize(("page", "line", "code"), EXAMPLES)
def test_example_runs(page: Path, line: int, code: str, tmp_path: Path) -> None:
    """A reader can copy the block as it stands: it runs in a fresh interpreter, warnings are errors."""
    program = "\n" * (line - 1) + code  # so that a traceback shows the page's own line
    script = tmp_path / page.with_suffix(".py").name
    script.write_text(program)

    done = subprocess.run(  # noqa: S603 - our own documentation
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )

    assert done.returncode == 0, f"{page}:{line}\n{done.stdout}{done.stderr}"


def test_only_marked_python_blocks_are_examples() -> None:
    """Other languages and unmarked fragments are not run."""
    text = "a\n```python\n# runnable\nx = 1\n```\n```python\ny = 2\n```\n```bash\n# runnable\n```\n"

    assert blocks_of(text) == [(3, "# runnable\nx = 1\n")]
