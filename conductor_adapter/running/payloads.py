"""Payloads that are too large for their task: a server stores them outside and returns a URL for each."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import attrs

from conductor_adapter.client.decoding import Place
from conductor_adapter.client.messages import TransportError, TransportErrorKind
from conductor_adapter.client.operations import ConductorServer, Operation
from conductor_adapter.settings.server_settings import ServerSettings
from conductor_adapter.tasks import Task, TaskResult
from conductor_adapter.transports.base import Transport, drive
from resilience.fan_out import FanOutExecutor
from resilience.outcomes import Failed, Value

__all__ = ["Payloads"]

T = TypeVar("T")
Make = Callable[[ServerSettings], Transport]

log = logging.getLogger("conductor_adapter")

ASKING = 10.0  # seconds to get a URL
MOVING = 60.0  # seconds for a payload
MOST_TRANSPORTS = 8  # a storage has one host or a few, but a server can name any


class Payloads:
    """The payloads that a server stores outside its tasks. Thread-safe; calls are made in the caller's thread.

    Args:
        server: the server.
        transport: a transport to that server; it is not closed here.
        make_own: creates a transport to another path of the server.
        make_other: creates a transport to any other host: not a user's own, which might send credentials.
        most: maximum size in bytes of an output that is sent in the update itself; None for no limit.
    """

    def __init__(
        self, server: ConductorServer, transport: Transport, make_own: Make, make_other: Make, *, most: int | None
    ) -> None:
        self._server = server
        self._transport = transport
        self._make_own = make_own
        self._make_other = make_other
        self._most = most
        self._transports: dict[str, Transport] = {}
        self._fan_out = FanOutExecutor()

    def fetch(self, task: Task) -> Task:
        """The task with its whole input and output.

        Raises:
            ResilienceError: a part of these could not be fetched.
        """
        if task.input_path:
            task = attrs.evolve(task, input=self._fetch(task.input_path, "TASK_INPUT"))
        if task.output_path:
            task = attrs.evolve(task, output=self._fetch(task.output_path, "TASK_OUTPUT"))
        return task

    def put_away(self, result: TaskResult) -> TaskResult:
        """The result, with the path of its output if that is too large; unchanged if it cannot be stored."""
        if self._most is None or result.output_path:
            return result
        output = result.output_json().encode()
        if len(output) <= self._most:
            return result
        try:
            place = self._place("", "WRITE", "TASK_OUTPUT")
            self._move(place, self._server.put(place, output))
        except Exception as error:  # noqa: BLE001 - the result must be sent in any case
            text = "%s: the output of task %s (%d bytes) is sent in the update, because it could not be stored: %s"
            log.warning(text, self._server.name, result.task_id, len(output), error)
            return result
        return result.stored_at(place.path)

    def close(self) -> None:
        """Close idle connections."""
        for transport in list(self._transports.values()):
            transport.close()
        self._fan_out.close()

    def _fetch(self, path: str, payload: str) -> dict[str, Any]:
        place = self._place(path, "READ", payload)
        return self._move(place, self._server.fetch(place))

    def _place(self, path: str, operation: str, payload: str) -> Place:
        return self._drive(self._server.place(path, operation, payload), self._transport, ASKING)

    def _move(self, place: Place, operation: Operation[T]) -> T:
        return self._drive(operation, self._to(place), MOVING)

    def _to(self, place: Place) -> Transport:
        """A transport to a place; certificates are verified like those of the server."""
        known = self._transports.get(place.origin)
        if known is not None:
            return known
        settings = attrs.evolve(self._server.settings, url=place.origin)
        if place.own:
            made = self._make_own(settings)
        else:
            made = self._make_other(attrs.evolve(settings, auth=None, headers={}))
        if len(self._transports) >= MOST_TRANSPORTS:
            self._transports.clear()  # not closed: other threads might use them
        return self._transports.setdefault(place.origin, made)

    def _drive(self, operation: Operation[T], transport: Transport, timeout: float) -> T:
        """Run an operation; on a thread that can be abandoned if the transport does not enforce timeouts."""
        if transport.bounded:
            return drive(operation, transport, timeout)
        outcome = self._fan_out.run({self._server.name: partial(drive, operation, transport, timeout)}, timeout)
        (ended,) = outcome.values()
        if isinstance(ended, Value):
            return ended.value
        if isinstance(ended, Failed):
            raise ended.error
        text = f"server {self._server.name!r}: a payload was not transferred within {timeout:g} s: {ended}"
        raise TransportError(TransportErrorKind.TIMEOUT, text)
