"""``conductor-adapter dev-server``: the embedded Conductor-compatible server alone."""

from collections.abc import Sequence
from pathlib import Path

from conductor_adapter.cli.streams import say
from conductor_adapter.cli.usage import refusing

__all__ = ["dev_server"]


def dev_server(
    port: int, state: Path | None, faults: str, seed_tasks: Sequence[str], payload_threshold: int | None
) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status."""
    with refusing():
        from conductor_adapter.dev_server import serve  # noqa: PLC0415 - needs the extra "dev-server"

        seed = dict(map(_seed, seed_tasks))
    return serve(port, state=state, faults=faults, seed=seed, payload_threshold=payload_threshold, say=say)


def _seed(text: str) -> tuple[str, int]:
    task_type, equals, count = text.partition("=")
    if not equals or not task_type or not count.isdecimal() or int(count) < 1:
        raise ValueError(f"--seed-tasks {text!r} must be TYPE=N with N from 1, for example charge=100")
    return task_type, int(count)
