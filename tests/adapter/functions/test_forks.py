"""How a process that a task function forked ends; with a real fork in ``test_running``."""

import os

import pytest

from conductor_adapter.functions import forks


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (None, 0, ""),
        (SystemExit(), 0, ""),
        (SystemExit(7), 7, ""),
        (SystemExit(-1), 255, ""),
        (SystemExit("no luck"), 1, "no luck\n"),
        (ValueError("it broke"), 1, "ValueError: it broke\n"),
    ],
)
def test_copy_ends_as_python_would(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    status: int,
    told: str,
) -> None:
    """Returning is status 0, an exception its traceback and 1, ``SystemExit`` what it says."""
    ended: list[int] = []
    monkeypatch.setattr(forks.os, "_exit", ended.append)
    forks.end_copy(os.getpid() + 1, error)

    assert ended == [status]
    assert capsys.readouterr().err == told


def test_process_itself_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task function that did not fork ends nothing."""
    monkeypatch.setattr(forks.os, "_exit", lambda _: pytest.fail("it ended"))

    forks.end_copy(os.getpid(), SystemExit(7))
