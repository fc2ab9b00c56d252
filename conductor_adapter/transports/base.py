"""What every transport has in common: the promise it makes, its limits, and how an operation runs over it."""

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

MAX_ANSWER_BYTES = 64 * 1024 * 1024  # an answer of a batch poll is far smaller; what is larger is not read on
MAX_IDLE = 15  # seconds a connection may rest; servers close theirs after 20 or more, and a call must not cross that
LIFE = (180.0, 300.0)  # seconds from which and to which a connection may live, also one that never rests
DESCRIPTOR_PAUSE = 1.0  # seconds without descriptors; others may close theirs meanwhile
USER_AGENT = "conductor-resilience"
_TARGET = re.compile(r"[!-~]*")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LONGEST = 200


class Transport(Protocol):
    """Sends calls to one server; any number of threads may use it at the same time.

    It follows no redirect, reads no netrc, keeps connections alive, and is fork-safe. It never sends a call twice, also
    where the connection broke before an answer: a poll that is repeated loses the tasks the first one was handed.

    It follows a server that moves: each connection looks its name up, and lives for `connection_life` at most.

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
            OutOfDescriptors: this process may open no more connections; nothing was sent.
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
    except ResilienceError as error:
        return operation.throw(error)
    return operation.send(answer)


def _send(transport: Transport, call: HttpCall, timeout: float) -> HttpAnswer:
    if timeout <= 0:
        raise TransportError(TransportErrorKind.TIMEOUT, "no time was left for the next call of the operation")
    return transport.send(call, timeout)


def connection_life() -> float:
    """Seconds after which a new connection takes the place of another: drawn, so that they do not all end at once."""
    return random.uniform(*LIFE)


def lacks_descriptors() -> bool:
    """Whether this process may open nothing more: what failed to connect then is no server's fault."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def out_of_descriptors(server: str) -> OutOfDescriptors:
    """The error that says so."""
    problem = "this process has no file descriptor left for a connection; raise the limit (ulimit -n) or run less in it"
    return OutOfDescriptors(DESCRIPTOR_PAUSE, f"server {server!r}: {problem}")


def target_of(call: HttpCall) -> str:
    """A call's path and query once it is sure that HTTP allows them.

    Raises:
        TransportError: it does not: whoever wrote them could write requests of his own.
    """
    target = call.target
    if not _TARGET.fullmatch(target):
        raise TransportError(TransportErrorKind.OTHER, "the call was not sent: its path or query is not quoted")
    return target


def headers_of(call: HttpCall) -> dict[str, str]:
    """A call's headers once it is sure that HTTP allows them; of two with one name the later one.

    Raises:
        TransportError: it does not, for the same reason. The value is not shown.
    """
    headers: dict[str, tuple[str, str]] = {}
    for name, value in call.headers:
        if not _NAME.fullmatch(name) or not (value.isprintable() and value.isascii()):
            problem = f"the call was not sent: HTTP does not allow the name or value of its header {name!r:.50}"
            raise TransportError(TransportErrorKind.OTHER, problem)
        headers[name.lower()] = (name, value.strip())
    return dict(headers.values())


def shown(text: str, call: HttpCall) -> str:
    """What a library says about a failed call, without what only the server or a proxy should know."""
    text = hide(one_line(text), [value for name, value in call.headers if name.lower() != "content-type"])
    if "@" in text:  # a URL with a user and password, which may hold anything
        start = re.search(r"://|['\"]", text)
        text = text[: start.end() if start else 0] + "…" + text[text.rindex("@") :]
    return text[:_LONGEST]
