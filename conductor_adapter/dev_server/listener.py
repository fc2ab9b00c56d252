"""The only file that names aiohttp: sockets and HTTP around a function from call to answer."""

import asyncio
from collections.abc import Awaitable, Callable

from .answers import Answer, Call

try:
    from aiohttp import web
except ImportError as error:
    raise ImportError(
        "the dev server needs aiohttp, which is not installed; "
        "install it with: pip install '.[dev-server]' in the checkout of conductor-resilience"
    ) from error

__all__ = ["Listener"]

_TURNS = 5


class Listener:
    """One port. Not thread-safe: it belongs to one event loop.

    Args:
        answer: answers a call; None drops it, that is, closes its connection without an answer. It is not cancelled
            if the client goes away: a real server does not notice that either.
        host: the address it listens on.
        port: 0 picks a free one, which is used again when it listens again.
    """

    def __init__(self, answer: Callable[[Call], Awaitable[Answer | None]], host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._answer = answer
        self._http = web.Server(self._handle, access_log=None, keepalive_timeout=3600)
        self._socket: asyncio.Server | None = None
        self._in_flight: set[asyncio.Task[object] | None] = set()

    async def open(self) -> None:
        """Listen, if it does not already; OSError if the port is in use."""
        if self._socket is not None:
            return
        loop = asyncio.get_running_loop()
        self._socket = await loop.create_server(self._http, self.host, self.port, backlog=1024)
        self.port = self._socket.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Stop listening and close every connection, including those with a call in flight."""
        if self._socket is not None:
            await self._let_nobody_in(self._socket)
            self._socket.close()
            self._socket = None
        for connection in self._http.connections:
            connection.force_close()

    async def close(self) -> None:
        """Stop listening, and drop calls in flight at once."""
        await self.refuse()
        calls = [task for task in self._in_flight if task is not None]
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        # Not 0: aiohttp takes that as "no timeout".
        await self._http.shutdown(timeout=0.01)
        await _turns()

    @staticmethod
    async def _let_nobody_in(server: asyncio.Server) -> None:
        """Stop accepting, and finish accepted connections: asyncio leaks one that is made for a closed server."""
        for socket in server.sockets:
            asyncio.get_running_loop().remove_reader(socket.fileno())
        await _turns()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        self._in_flight.add(task)
        try:
            return await self._respond(request)
        finally:
            self._in_flight.discard(task)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        body = await request.content.read() if request.body_exists else b""  # request.read() accepts at most 1 MiB
        answer = await self._answer(Call(request.method, path, query, request.headers, body))
        if answer is None:
            return _drop(request)
        response = web.Response(status=answer.status, body=answer.body, headers=answer.headers or None)
        if answer.media_type:
            response.headers["Content-Type"] = answer.media_type
        return response


async def _turns() -> None:
    """Let the loop run: an accepted connection is known after three iterations, a closed one is gone after one."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _drop(request: web.BaseRequest) -> web.StreamResponse:
    """Close the connection; the answer that aiohttp requires anyway is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
