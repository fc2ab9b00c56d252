"""Waiting on the event loop: long polls for their queue, callers for the end of a run."""

import asyncio

__all__ = ["Waiting"]


class Waiting:
    """Futures by key. Not thread-safe: it belongs to one event loop."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    def notify(self, key: str) -> None:
        """Wake all waiters for this key."""
        for waiter in self._waiters.pop(key, ()):
            _wake(waiter)

    async def wait(self, key: str, timeout: float) -> None:  # noqa: ASYNC109 - a timeout is not an error here
        """Return when the key is notified, or after ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.setdefault(key, []).append(waiter)
        timer = loop.call_later(timeout, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._forget(key, waiter)

    def _forget(self, key: str, waiter: "asyncio.Future[None]") -> None:
        waiters = self._waiters.get(key)
        if waiters and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[key]


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
