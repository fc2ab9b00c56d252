"""The outbox of task results: the same file for every worker of a user, whatever servers it serves."""

import os

from conductor_adapter.tasks import TaskResult
from resilience.delivery import Outbox

__all__ = ["open_outbox"]


def open_outbox(path: str | os.PathLike[str]) -> Outbox:
    """The outbox in a file, which is made if it is not there; several processes may share it.

    Raises:
        OutboxError: the file cannot be used; the text says why and what to do.
    """
    return Outbox(path, dump=TaskResult.to_json, load=TaskResult.from_json)
