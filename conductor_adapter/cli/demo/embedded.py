"""Three embedded servers, each in its own process and with its state in a file, so that they can be killed."""

import subprocess
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from conductor_adapter.cli.demo.stage import Scene
from conductor_adapter.cli.demo.story import TASK, TASK_DEF, Account, Chapter, backlog, chapters
from conductor_adapter.dev_server import DevServerProcess

if TYPE_CHECKING:
    from conductor_adapter.settings.server_settings import ServerSettings

__all__ = ["Embedded"]

NAMES = ("eu", "us", "ap")
GOES_DOWN, COMES_BACK = {"freeze", "kill"}, {"thaw", "restart"}


class Waker:
    """Resumes a stopped process when this process ends, in whatever way; otherwise it would stay stopped forever."""

    def __init__(self, pid: int) -> None:
        command = ["/bin/sh", "-c", 'read _; kill -CONT "$1"', "sh", str(pid)]
        self._shell = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def close(self) -> None:
        """Resume the process now."""
        self._shell.communicate()


class Embedded:
    """See `Stage`; faults are injected.

    Args:
        seconds: the length of the demo.
    """

    def __init__(self, seconds: float) -> None:
        self.backlog = backlog(seconds)
        self._stack = ExitStack()
        self._servers: dict[str, DevServerProcess] = {}
        self._down: set[str] = set()
        self._wakers: dict[str, Waker] = {}
        self._started: Counter[str] = Counter()
        self.settings: list[ServerSettings] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name in NAMES:
                self._servers[name] = stack.enter_context(DevServerProcess(name=name))
            self._stack = stack.pop_all()
        self.settings = [server.settings for server in self._servers.values()]
        return self

    def __exit__(self, *_: object) -> None:
        while self._wakers:
            self._wakers.popitem()[1].close()
        self._stack.close()

    @property
    def started(self) -> dict[str, int]:
        """See `Stage`."""
        return dict(self._started)

    def seed(self) -> None:
        """See `Stage`."""
        self.feed(dict.fromkeys(NAMES, self.backlog))

    def feed(self, counts: dict[str, int]) -> None:
        """See `Stage`."""
        fields: dict[str, Any] = dict(TASK_DEF)
        for name, count in counts.items():
            if count and name not in self._down:
                self._servers[name].start_tasks(TASK, count, **fields)
                self._started[name] += count

    def script(self, seconds: float) -> list[Scene]:
        """See `Stage`."""
        return [(chapter, lambda chapter=chapter: self._act(chapter)) for chapter in chapters(seconds)]  # type: ignore[misc]

    def is_drained(self) -> bool:
        """See `Stage`."""
        return not self._down and not any(server.runs(TASK).get("RUNNING") for server in self._servers.values())

    def accounts(self) -> list[Account]:
        """See `Stage`."""
        return [self._account(name) for name in self._servers]

    def _account(self, server: str) -> Account:
        process = self._servers[server]
        runs = process.runs(TASK)
        return Account(
            server=server,
            started=self._started[server],
            finished=runs.get("COMPLETED", 0),
            unfinished=runs.get("RUNNING", 0),
            handed_out={workflow: times for (workflow, _), times in process.handed_out(least=1).items()},
        )

    def _act(self, chapter: Chapter) -> None:
        server = self._servers[chapter.server]
        if chapter.act in GOES_DOWN:
            self._down.add(chapter.server)
        if chapter.act == "freeze":
            self._wakers[chapter.server] = Waker(server.pid)
        getattr(server, chapter.act)()
        if chapter.act == "thaw":
            self._wakers.pop(chapter.server).close()
        if chapter.act in COMES_BACK:
            self._down.discard(chapter.server)
