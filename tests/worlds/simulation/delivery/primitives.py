"""What Python's threads are made of, on a machine in virtual time."""

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from greenlet import getcurrent

from .machine import Machine, Strand


class Lock:
    """A lock that a strand may have to wait for; taking it is a point."""

    __slots__ = ("_held", "_waiting")

    def __init__(self) -> None:
        self._held = False
        self._waiting: list[Strand] = []

    def __enter__(self) -> bool:
        strand = getcurrent()
        if type(strand) is not Strand:  # the hub, which prepares something: nobody else runs
            self._held = True
            return True
        process = strand.process
        machine: Machine = process.machine
        if process.dead or process.doom is not None or machine.restless:
            machine.point("lock")
        else:
            machine.steps += 1  # the same, in short: there are many
        while self._held:
            self._waiting.append(strand)
            machine.park()
        self._held = True
        return True

    def __exit__(self, *_: object) -> None:
        self._held = False
        while self._waiting:
            strand = self._waiting.pop(0)
            if strand.process.machine.wake(strand):
                return

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: ARG002 - none is used with one
        """Take it."""
        if not blocking and self._held:
            return False
        return self.__enter__()

    def release(self) -> None:
        """Give it back."""
        self.__exit__()

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._held


class Condition:
    """A condition over a lock."""

    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = lock or Lock()
        self._waiting: deque[Strand] = deque()

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait to be notified, without the lock."""
        strand: Strand = getcurrent()  # type: ignore[assignment]
        self._waiting.append(strand)
        self._lock.__exit__()
        try:
            return strand.process.machine.park(timeout)
        finally:
            if strand in self._waiting:
                self._waiting.remove(strand)
            if not strand.process.dead:
                self._lock.__enter__()

    def wait_for(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Wait until it holds, without the lock while it does not; whether it does."""
        machine = getcurrent().process.machine
        until = machine.now + timeout
        while not (held := holds()) and (left := until - machine.now) > 0:
            self.wait(left)
        return held

    def notify(self, n: int = 1) -> None:
        """Wake some."""
        while n > 0 and self._waiting:
            strand = self._waiting.popleft()
            n -= strand.process.machine.wake(strand)

    def notify_all(self) -> None:
        """Wake all."""
        self.notify(len(self._waiting))


class Event:
    """A flag to wait for."""

    def __init__(self) -> None:
        self._set = False
        self._changed = Condition()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def set(self) -> None:
        """Set it."""
        with self._changed:
            self._set = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Take it back."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""
        with self._changed:
            if not self._set:
                self._changed.wait(timeout)
            return self._set


class SimpleQueue:
    """A queue between strands."""

    def __init__(self) -> None:
        self._entries: deque[Any] = deque()
        self._changed = Condition()

    def __class_getitem__(cls, _: object) -> type["SimpleQueue"]:
        return cls

    def put(self, entry: object) -> None:
        """Add an entry."""
        with self._changed:
            self._entries.append(entry)
            self._changed.notify()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ARG002 - like the real one
        """Take the oldest entry."""
        with self._changed:
            if not self._entries:
                self._changed.wait(timeout)
            if not self._entries:
                raise queue.Empty
            return self._entries.popleft()


class Thread:
    """A thread of the process that makes it."""

    def __init__(  # noqa: PLR0913 - like the real one
        self,
        group: None = None,  # noqa: ARG002
        target: Callable[..., object] = print,
        name: str = "thread",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name = name
        self.daemon = bool(daemon)
        self._target, self._args, self._kwargs = target, args, kwargs or {}
        self._strand: Strand | None = None

    def start(self) -> None:
        """Let it run."""
        here: Strand = getcurrent()  # type: ignore[assignment]
        self._strand = here.process.spawn(lambda: self._target(*self._args, **self._kwargs), self.name)

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._strand is not None and not self._strand.ended

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        here: Strand = getcurrent()  # type: ignore[assignment]
        if self._strand is not None and not self._strand.ended:
            self._strand.joiners.append(here)
            try:
                here.process.machine.park(timeout)
            finally:
                self._strand.joiners.remove(here)


class Local:
    """What each strand has of its own."""

    def __init__(self) -> None:
        object.__setattr__(self, "_of", weakref.WeakKeyDictionary())

    def __getattr__(self, name: str) -> Any:
        try:
            return self._of[getcurrent()][name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        self._of.setdefault(getcurrent(), {})[name] = value


class Threading:
    """Stands in the place of the module ``threading``."""

    Lock, Condition, Event, Thread, local = Lock, Condition, Event, Thread, Local

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)
