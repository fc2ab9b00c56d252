"""The repository: where it is, what belongs into its root, and the examples of its pages."""

import re
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["PAGES", "ROOT", "blocks_of", "strange"]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?:\{code-block\} )?python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
MARK = "# runnable"
BELONGS = {
    ".ci",
    ".git",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "conductor_adapter",
    "docs",
    "pyproject.toml",
    "resilience",
    "tests",
}
IGNORE_FILE = ROOT / ".gitignore"  # not there where only the tests were copied to
IGNORED = [line.rstrip("/") for line in (IGNORE_FILE.read_text().split() if IGNORE_FILE.exists() else ())]


def blocks_of(text: str) -> list[tuple[int, str]]:
    """Line and code of every runnable block."""
    return [
        (text.count("\n", 0, block.start("code")) + 1, block["code"])
        for block in BLOCK.finditer(text)
        if block["code"].startswith(MARK)
    ]


def strange(names: set[str]) -> set[str]:
    """Those that do not belong into the root and are not ignored either."""
    return {name for name in names - BELONGS if not any(fnmatch(name, pattern) for pattern in IGNORED)}
