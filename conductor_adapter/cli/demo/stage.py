"""What the demo needs of the servers it plays on, whichever they are."""

from collections.abc import Callable
from typing import Protocol, Self

from conductor_adapter.cli.demo.story import Account, Chapter
from conductor_adapter.settings.server_settings import ServerSettings

__all__ = ["RefusedError", "Scene", "Stage"]

Scene = tuple[Chapter, Callable[[], None]]


class RefusedError(Exception):
    """A server cannot be worked on; the text is for the user."""


class Stage(Protocol):
    """Servers with work on them. A context manager, for one thread.

    Attributes:
        settings: how a worker reaches them.
        backlog: tasks that wait on each of them as long as new ones come.
        started: tasks started so far, by server.
    """

    settings: list[ServerSettings]
    backlog: int

    @property
    def started(self) -> dict[str, int]:
        """Tasks started so far, by server."""

    def seed(self) -> None:
        """Start the first tasks.

        Raises:
            RefusedError: a server cannot be worked on.
        """

    def feed(self, counts: dict[str, int]) -> None:
        """Start so many more; servers that are down or do not answer get none."""

    def script(self, seconds: float) -> list[Scene]:
        """What is done to its servers in a story of ``seconds``; nothing, if they are not ours to break."""

    def is_drained(self) -> bool:
        """Whether none of the tasks is alive; False while a server cannot be asked."""

    def accounts(self) -> list[Account]:
        """What each server says has come of its tasks; what the worker did is left out."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
