"""Calls over ``requests``: always available, supports a user's own Session. The only file that names requests."""

import http.client
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from conductor_adapter.client.messages import HttpAnswer, HttpCall, OutOfDescriptors, TransportError, TransportErrorKind
from conductor_adapter.settings.server_settings import ServerSettings
from conductor_adapter.transports.base import (
    MAX_ANSWER_BYTES,
    MAX_IDLE,
    USER_AGENT,
    connection_life,
    headers_of,
    lacks_descriptors,
    out_of_descriptors,
    shown,
    target_of,
)
from conductor_adapter.transports.environment import ca_bundle, proxy_of, trust_advice

__all__ = ["RequestsTransport"]

CONNECT_TIMEOUT = 10.0  # seconds, unless the call's timeout is shorter
_CHUNK = 16 * 1024  # an urllib3 before 2.6 decompresses each at once: up to a thousand times as much
_FIRST_FINAL = 200
_OWN_HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", "Accept": "*/*"}
_KEPT_HEADERS = ("content-type", "date", "retry-after")
# Every error of requests is an OSError; some of the libraries below propagate. An invalid URL is a ValueError.
_ERRORS = (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError)


class RequestsTransport:
    """A ``Transport`` over ``requests``; its guarantees are in ``transports.base``.

    It does not enforce its timeout in total: the timeout applies to connecting and to each read.

    Args:
        settings: the server.
        session: used unchanged, with its adapters, proxies, headers, auth and TLS settings, by all threads; redirects
            and netrc remain disabled. Its adapters must not retry: repeating a poll loses tasks. Its connections live
            as long as they are in use, even to a server that has moved and still answers. Without it, each thread has
            its own connections: proxies are those of the environment when the transport is created, and certificates
            are verified according to the settings.
        max_answer_bytes: the maximum size of an answer in bytes, decompressed.

    Raises:
        ValueError: the environment names a bundle that does not exist, or a proxy that is not a URL.
    """

    bounded = False

    def __init__(
        self,
        settings: ServerSettings,
        session: requests.Session | None = None,
        *,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._settings = settings
        self._max_answer_bytes = max_answer_bytes
        self._way = _Pools(settings) if session is None else _UsersSession(settings, session)

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """See ``Transport.send``; a dripping answer can take longer than the timeout."""
        deadline = time.monotonic() + timeout
        target, headers = target_of(call), headers_of(call)
        try:
            with self._way.open(call, target, headers, timeout) as response:
                return self._answer(response, deadline)
        except _ERRORS as error:
            raise self._failure(error, call) from None

    def close(self) -> None:
        """Close the idle connections of all threads; a user's session is not closed."""
        self._way.close()

    def _answer(self, response: "_Arriving", deadline: float) -> HttpAnswer:
        if response.status < _FIRST_FINAL:
            raise TransportError(TransportErrorKind.BROKEN, self._text(f"HTTP {response.status} is not a final answer"))
        found = response.headers
        kept = {name: found[name].strip() for name in _KEPT_HEADERS if name in found}
        return HttpAnswer(response.status, kept, self._read(response, deadline))

    def _read(self, response: "_Arriving", deadline: float) -> bytes:
        """The body, unless it is too large or too slow; its last piece is accepted however late."""
        chunks: list[bytes] = []
        size, late = 0, False
        for chunk in response.chunks:
            if late:
                raise TransportError(TransportErrorKind.TIMEOUT, self._text("the answer did not end in time"))
            size += len(chunk)
            if size > self._max_answer_bytes:
                limit = f"the answer is larger than {self._max_answer_bytes} bytes"
                raise TransportError(TransportErrorKind.TOO_LARGE, self._text(limit))
            chunks.append(chunk)
            late = time.monotonic() > deadline
        if getattr(response.raw, "length_remaining", None):  # an urllib3 before 2 does not report it
            raise TransportError(TransportErrorKind.BROKEN, self._text("the connection ended before the answer"))
        return b"".join(chunks)

    def _failure(self, error: Exception, call: HttpCall) -> TransportError | OutOfDescriptors:
        if _kind(error) is TransportErrorKind.CONNECT and lacks_descriptors():
            return out_of_descriptors(self._settings.name)
        reason = "" if isinstance(error, requests.exceptions.InvalidHeader) else _reason(error)  # shows a header
        kind = _kind(error)
        advice = trust_advice(reason, self._way.bundle) if kind is TransportErrorKind.TLS else ""
        return TransportError(kind, self._text(f"{type(error).__name__}: {shown(reason, call)}{advice}"))

    def _text(self, problem: str) -> str:
        return f"server {self._settings.name!r}: {problem}"


@attrs.frozen
class _Arriving:
    """An answer whose body is still to be read."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterable[bytes]
    raw: Any


# The two ways of a call: over a user's session, and straight to the pool of connections below requests.


class _UsersSession:
    """A user's own session, for all threads: with all that it does to a request and to its answer."""

    bundle: str | None = None  # the user's own setting

    def __init__(self, settings: ServerSettings, session: requests.Session) -> None:
        self._base = settings.url
        self._session = session
        self._pid = os.getpid()

    @contextmanager
    def open(self, call: HttpCall, target: str, headers: dict[str, str], timeout: float) -> Iterator[_Arriving]:
        """Send a call; the answer is still to be read."""
        session = self._mine()
        with session.request(
            call.method,
            self._base + target,
            headers=headers,
            data=call.body,
            timeout=(min(timeout, CONNECT_TIMEOUT), timeout),
            allow_redirects=False,
            stream=True,
            auth=None if session.auth else _no_auth,
            hooks={"response": [*_as_list(session.hooks.get("response")), _forget_location]},
        ) as response:
            yield _Arriving(response.status_code, response.headers, response.iter_content(_CHUNK), response.raw)

    def close(self) -> None:
        """Does nothing: it is the user's."""

    def _mine(self) -> requests.Session:
        """The session; after a fork without the connections, which the parent keeps using."""
        if self._pid != os.getpid():
            self._session.close()  # drops them; Python sends no close notification over TLS
            self._pid = os.getpid()
        return self._session


class _Pools:
    """A pool of connections for each thread and process.

    What a session does for each call, preparing and merging and keeping cookies, is most of what a call costs; a call
    of ours needs none of it.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.bundle = ca_bundle(settings)
        self._url = settings.url
        self._proxies = {"all": proxy} if (proxy := proxy_of(settings)) else {}
        self._start()

    def _start(self) -> None:
        self._local = threading.local()
        self._all: weakref.WeakSet[_Adapter] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @contextmanager
    def open(self, call: HttpCall, target: str, headers: dict[str, str], timeout: float) -> Iterator[_Arriving]:
        """Send a call; the answer is still to be read."""
        pool, prefix = self._mine().way()
        named = {name.lower() for name in headers}
        own = {name: value for name, value in _OWN_HEADERS.items() if name.lower() not in named}
        response: Any = pool.urlopen(
            call.method,
            prefix + target,
            body=call.body,
            headers=own | headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=urllib3.Timeout(connect=min(timeout, CONNECT_TIMEOUT), read=timeout),
            preload_content=False,
        )
        try:
            chunks = response.stream(_CHUNK, decode_content=True)
            yield _Arriving(response.status, response.headers, chunks, response)
        except BaseException:
            response.close()  # what is left of the answer would be the next call's
            raise
        finally:
            response.release_conn()

    def close(self) -> None:
        """Close the idle connections of all threads."""
        self._leave_to_parent()
        with self._lock:
            adapters = list(self._all)
        for adapter in adapters:
            adapter.close()

    def _mine(self) -> "_Adapter":
        """This thread's adapter, without a connection that rested or lived for too long."""
        self._leave_to_parent()
        now, local = time.monotonic(), self._local
        adapter: _Adapter | None = getattr(local, "adapter", None)
        if adapter is None:
            adapter = local.adapter = self._new()
            local.until = now + connection_life()
        elif now - local.used > MAX_IDLE or now > local.until:
            adapter.close()
            local.until = now + connection_life()
        local.used = now
        return adapter

    def _leave_to_parent(self) -> None:
        """After a fork the parent goes on using the pools, and their locks may be held for ever: not cleaned up."""
        if self._pid != os.getpid():
            self._inherited = self._local
            self._start()

    def _new(self) -> "_Adapter":
        adapter = _Adapter(self._url, self.bundle, self._proxies)
        with self._lock:
            self._all.add(adapter)
        return adapter


# Differences between the libraries below and the requirements of a transport.


class _Response(http.client.HTTPResponse):
    """Skips interim answers: the standard library treats all but 100 as the answer itself."""

    def begin(self) -> None:
        super().begin()
        while http.client.CONTINUE < self.status < _FIRST_FINAL and self.status != http.client.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment]  # as it was before the first one
            super().begin()


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _UncheckedConnection(_SecureConnection):
    """Appears verified: with verify=False there must be no warning at each call, least of all as an error."""

    is_verified = property(lambda _: True, lambda *_: None)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _UncheckedPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _UncheckedConnection


class _Adapter(HTTPAdapter):
    """Makes pools of connections of our kind, and knows the way to one server."""

    def __init__(self, url: str, bundle: str | None, proxies: dict[str, str]) -> None:
        self._url, self._verify, self._proxies = url, bundle or False, proxies
        self._way: tuple[Any, str] | None = None
        self._pools: dict[str, type] = {"http": _Pool, "https": _SecurePool if bundle else _UncheckedPool}
        super().__init__()

    def way(self) -> tuple[Any, str]:
        """The pool of connections to the server or its proxy, and what a target begins with there."""
        if self._way is None:
            server = requests.Request("GET", self._url).prepare()
            pool = self.get_connection_with_tls_context(server, self._verify, self._proxies)
            self.cert_verify(pool, self._url, self._verify, None)  # type: ignore[no-untyped-call]
            self._way = pool, self.request_url(server, self._proxies).rstrip("/")
        return self._way

    def close(self) -> None:
        """Close the idle connections; the next call opens one."""
        self._way = None
        super().close()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - passed on
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> urllib3.ProxyManager:  # noqa: ANN401 - passed on
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **options)
        if not proxy.startswith("socks"):  # has its own
            manager.pool_classes_by_scheme = self._pools
        return manager


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth that adds nothing: without one, requests reads netrc."""
    return request


def _as_list(hooks: Any) -> list[Any]:  # noqa: ANN401 - one function or several
    return [hooks] if callable(hooks) else list(hooks or ())


def _forget_location(response: requests.Response, *_args: object, **_options: object) -> None:
    """Prevents requests from preparing a redirect that is not followed: it would read the body without a limit."""
    response.headers.pop("location", None)


def _kind(error: BaseException) -> TransportErrorKind:
    causes = _causes(error)
    for classes, kind in _KINDS:
        if any(isinstance(cause, classes) for cause in causes):
            return kind
    return TransportErrorKind.OTHER


# The first matching row wins, for the error or any of its causes.
_KINDS: tuple[tuple[tuple[type[BaseException], ...], TransportErrorKind], ...] = (
    ((requests.exceptions.SSLError, urllib3.exceptions.SSLError), TransportErrorKind.TLS),
    ((urllib3.exceptions.NewConnectionError,), TransportErrorKind.CONNECT),  # a child of TimeoutError, oddly
    ((requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError), TransportErrorKind.TIMEOUT),
    ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError), TransportErrorKind.CONNECT),
    (
        (
            requests.exceptions.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
            urllib3.exceptions.ProtocolError,
            urllib3.exceptions.DecodeError,
        ),
        TransportErrorKind.BROKEN,
    ),
)


def _causes(error: BaseException) -> list[BaseException]:
    """An error and its causes, outermost first."""
    for inner in (getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            return [error, *_causes(inner)]
    return [error]


def _reason(error: BaseException) -> str:
    """The text of the innermost cause; the outer ones repeat the URL."""
    return str(_causes(error)[-1])
