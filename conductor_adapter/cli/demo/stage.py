"""The interface that the demo needs of its servers, real or embedded."""

from collections.abc import Callable
from typing import Protocol, Self

from conductor_adapter.cli.demo.story import Account, Chapter
from conductor_adapter.settings.server_settings import ServerSettings

__all__ = ["RefusedError", "Scene", "Stage"]

Scene = tuple[Chapter, Callable[[], None]]


class RefusedError(Exception):
    """A server is unusable; the text is for the user."""


class Stage(Protocol):
    """Servers with tasks. A context manager, for use in one thread.

    Attributes:
        settings: how a worker reaches them.
        backlog: number of tasks waiting on each of them while new ones are added.
        started: number of tasks started so far, by server.
    """

    settings: list[ServerSettings]
    backlog: int

    @property
    def started(self) -> dict[str, int]:
        """Number of tasks started so far, by server."""

    def seed(self) -> None:
        """Start the first tasks.

        Raises:
            RefusedError: a server is unusable.
        """

    def feed(self, counts: dict[str, int]) -> None:
        """Start more tasks, ``counts`` by server; servers that are down or do not answer get none."""

    def script(self, seconds: float) -> list[Scene]:
        """The faults of a demo of ``seconds``; none for real servers."""

    def is_drained(self) -> bool:
        """Whether no task is unfinished; False while a server does not answer."""

    def accounts(self) -> list[Account]:
        """What each server reports about its tasks, without the worker's own counts."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
