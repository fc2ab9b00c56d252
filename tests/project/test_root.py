"""The repository's root: what belongs there, and nothing that a test or a trial left."""

import subprocess

import pytest
from repository import ROOT, strange

from conductor_adapter import RunnerConfig


def tracked() -> set[str]:
    """What git has in the root; where there is no git, what is there."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own
    except (OSError, subprocess.CalledProcessError):
        return {path.name for path in ROOT.iterdir()}
    return {name.partition("/")[0] for name in found.split("\0") if name}


def test_the_root_has_only_what_belongs_there() -> None:
    """A file named with a single blank was there for a week."""
    assert strange(tracked()) == set()


@pytest.mark.parametrize("name", [" ", "o.db", "outbox.db-wal", "core", "=0.1"])
def test_what_does_not_belong_is_noticed(name: str) -> None:
    """Ignored names alone are let through."""
    assert strange({name, "README.md", ".venv", ".venv-3.13", ".coverage.host.1"}) == {name}


@pytest.mark.parametrize("given", ["", " ", "\t"])
def test_an_outbox_without_a_name_is_refused(given: str) -> None:
    """It would be a file called like that, wherever the worker was started."""
    with pytest.raises(ValueError, match=r"outbox is '.*'; name a file, or None"):
        RunnerConfig(outbox=given)
