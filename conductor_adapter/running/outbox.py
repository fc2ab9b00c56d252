"""The outbox for task results: one file for all workers of a user, whatever servers they serve."""

import os

import attrs

from conductor_adapter.tasks import TaskResult
from resilience.delivery import Outbox, Store

__all__ = ["Opened", "open_outbox", "opened"]


def open_outbox(path: str | os.PathLike[str]) -> Outbox:
    """The outbox in a file, which is created if it does not exist; several processes can share it.

    Raises:
        OutboxError: the file cannot be used; the text says why and what to do.
    """
    return Outbox(path, dump=TaskResult.to_json, load=TaskResult.from_json)


@attrs.frozen
class Opened:
    """The store of a runner, and the outbox in it that the runner has opened itself."""

    store: Store | None
    own: Outbox | None = None

    def close(self) -> None:
        """Close our own outbox."""
        if self.own is not None:
            self.own.close()


def opened(given: str | os.PathLike[str] | Store | None) -> Opened:
    """A path's outbox, or the given store.

    Raises:
        OutboxError: the file cannot be used; the text says why and what to do.
    """
    if isinstance(given, (str, os.PathLike)):
        own = open_outbox(given)
        return Opened(own, own)
    return Opened(given)
