"""The common part of all transports: their interface, their limits, and how an operation runs over one."""

import errno
import os
import random
import re
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from conductor_adapter.client.messages import HttpAnswer, HttpCall, OutOfDescriptors, TransportError, TransportErrorKind
from conductor_adapter.client.operations import Operation
from conductor_adapter.client.redaction import hide
from resilience._texts import one_line
from resilience.errors import ResilienceError

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_IDLE",
    "USER_AGENT",
    "Transport",
    "connection_life",
    "drive",
    "headers_of",
    "lacks_descriptors",
    "out_of_descriptors",
    "shown",
    "target_of",
]

T = TypeVar("T")

MAX_ANSWER_BYTES = 64 * 1024 * 1024  # an answer to a batch poll is far smaller; a larger one is not read
MAX_IDLE = 15  # seconds that a connection can be idle; servers close theirs after 20 or more, so no call races that
LIFE = (180.0, 300.0)  # the range of a connection's lifetime in seconds, even if it is never idle
DESCRIPTOR_PAUSE = 1.0  # seconds without descriptors; meanwhile others might be closed
USER_AGENT = "conductor-resilience"
_TARGET = re.compile(r"[!-~]*")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LONGEST = 200


class Transport(Protocol):
    """Sends calls to one server; any number of threads can use it at the same time.

    It follows no redirects, reads no netrc, keeps connections alive, and is fork-safe. It never sends a call twice,
    even if the connection broke before an answer: repeating a poll loses the tasks handed to the first one.

    It follows a server that moves: each connection looks up the name, and lives for at most `connection_life`.

    Attributes:
        bounded: whether ``send`` enforces its timeout in total, whatever the other side does. If not, the timeout
            applies to each read: a dripping answer takes longer, so the call should run on a thread that can be
            abandoned.
    """

    bounded: bool

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """Send a call and read its answer.

        Args:
            call: the call.
            timeout: seconds.

        Raises:
            TransportError: there was no answer, or it exceeds the size limit of the transport.
            OutOfDescriptors: this process cannot open another connection; nothing was sent.
        """

    def close(self) -> None:
        """Close idle connections; calls in flight end by themselves."""


def drive(
    operation: Operation[T], transport: Transport, timeout: float, *, clock: Callable[[], float] = time.monotonic
) -> T:
    """Run an operation over a transport.

    Args:
        operation: an operation of a ``ConductorServer``.
        transport: a transport to the same server.
        timeout: seconds for all calls of the operation together; enforced in total if the transport is bounded.
        clock: returns monotonic seconds.

    Returns:
        The result of the operation; its exceptions propagate.
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
    """Make one call and return the operation's next one."""
    try:
        answer = _send(transport, call, timeout)
    except ResilienceError as error:
        return operation.throw(error)
    return operation.send(answer)


def _send(transport: Transport, call: HttpCall, timeout: float) -> HttpAnswer:
    if timeout <= 0:
        raise TransportError(TransportErrorKind.TIMEOUT, "no time was left for the next call of the operation")
    return transport.send(call, timeout)


def connection_life() -> float:
    """Seconds after which a connection is replaced: random, so that they do not all end at once."""
    return random.uniform(*LIFE)


def lacks_descriptors() -> bool:
    """Whether this process cannot open any more files: a failure to connect is then not the server's fault."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def out_of_descriptors(server: str) -> OutOfDescriptors:
    """The error in that case."""
    problem = "this process has no file descriptor left for a connection; raise the limit (ulimit -n) or run less in it"
    return OutOfDescriptors(DESCRIPTOR_PAUSE, f"server {server!r}: {problem}")


def target_of(call: HttpCall) -> str:
    """A call's path and query, after validation.

    Raises:
        TransportError: HTTP does not allow them: their author could inject requests.
    """
    target = call.target
    if not _TARGET.fullmatch(target):
        raise TransportError(TransportErrorKind.OTHER, "the call was not sent: its path or query is not quoted")
    return target


def headers_of(call: HttpCall) -> dict[str, str]:
    """A call's headers, after validation; of two with the same name, the later one.

    Raises:
        TransportError: HTTP does not allow them, as above. The value is not shown.
    """
    headers: dict[str, tuple[str, str]] = {}
    for name, value in call.headers:
        if not _NAME.fullmatch(name) or not (value.isprintable() and value.isascii()):
            problem = f"the call was not sent: HTTP does not allow the name or value of its header {name!r:.50}"
            raise TransportError(TransportErrorKind.OTHER, problem)
        headers[name.lower()] = (name, value.strip())
    return dict(headers.values())


def shown(text: str, call: HttpCall) -> str:
    """A library's message about a failed call, without secrets of the server or a proxy."""
    text = hide(one_line(text), [value for name, value in call.headers if name.lower() != "content-type"])
    if "@" in text:  # a URL with a user and password, which can contain any characters
        start = re.search(r"://|['\"]", text)
        text = text[: start.end() if start else 0] + "…" + text[text.rindex("@") :]
    return text[:_LONGEST]
