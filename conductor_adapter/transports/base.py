"""What every transport has in common: the promise it makes, its limits, and how an operation runs over it."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import certifi

from conductor_adapter.server import Operation
from conductor_adapter.settings import ServerSettings
from conductor_adapter.wire import HttpAnswer, HttpCall, TransportError, TransportErrorKind

__all__ = ["MAX_ANSWER_BYTES", "USER_AGENT", "Transport", "ca_bundle", "drive"]

T = TypeVar("T")

MAX_ANSWER_BYTES = 64 * 1024 * 1024  # an answer of a batch poll is far smaller; what is larger is not read on
USER_AGENT = "conductor-resilience"


class Transport(Protocol):
    """Sends calls to one server; any number of threads may use it at the same time.

    It follows no redirect, reads no netrc, keeps connections alive, and is fork-safe.

    Attributes:
        bounded: whether ``send`` keeps to its timeout in total, whatever the other side does. If not, the timeout
            holds for each read: a dripping answer takes longer, so the call belongs onto a thread that may be left.
    """

    bounded: bool

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """Send a call and read its answer.

        Args:
            call: what to send.
            timeout: seconds.

        Raises:
            TransportError: no answer, or one that is larger than the transport reads.
        """

    def close(self) -> None:
        """Close idle connections; calls in flight end by themselves."""


def drive(
    operation: Operation[T], transport: Transport, timeout: float, *, clock: Callable[[], float] = time.monotonic
) -> T:
    """Run an operation over a transport.

    Args:
        operation: of a ``ConductorServer``.
        transport: to the same server.
        timeout: seconds for all of the operation's calls together; kept in total if the transport is bounded.
        clock: monotonic seconds.

    Returns:
        What the operation returns; what it raises is passed on.
    """
    deadline = clock() + timeout
    try:
        call = next(operation)
        while True:
            call = _step(operation, transport, call, deadline - clock())
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # a generator's return value is untyped
    finally:
        operation.close()


def _step(operation: Operation[T], transport: Transport, call: HttpCall, timeout: float) -> HttpCall:
    """One call and what the operation wants next."""
    try:
        answer = _send(transport, call, timeout)
    except TransportError as error:
        return operation.throw(error)
    return operation.send(answer)


def _send(transport: Transport, call: HttpCall, timeout: float) -> HttpAnswer:
    if timeout <= 0:
        raise TransportError(TransportErrorKind.TIMEOUT, "no time was left for the next call of the operation")
    return transport.send(call, timeout)


def ca_bundle(settings: ServerSettings, environ: Mapping[str, str] = os.environ) -> str:
    """The file or folder of certificates to trust: the settings', else ``REQUESTS_CA_BUNDLE``, else certifi's."""
    if isinstance(settings.verify, str):
        return settings.verify
    return environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
