"""Calls over libcurl: a fraction of the CPU time of ``requests``, bounded in total. The only file that names pycurl."""

import contextlib
import math
import os
from collections import deque
from pathlib import Path

import pycurl

from conductor_adapter.settings import ServerSettings
from conductor_adapter.transports.base import MAX_ANSWER_BYTES, USER_AGENT, ca_bundle
from conductor_adapter.wire import HttpAnswer, HttpCall, TransportError, TransportErrorKind

__all__ = ["CurlTransport"]

CONNECT_TIMEOUT_MS = 10_000
_QUICK_EXIT = 322  # CURLOPT_QUICK_EXIT, which pycurl does not name: closing does not wait for a slow resolver
_KEPT_HEADERS = (b"content-type", b"date", b"retry-after")
_KINDS = {
    pycurl.E_COULDNT_CONNECT: TransportErrorKind.CONNECT,
    pycurl.E_COULDNT_RESOLVE_HOST: TransportErrorKind.CONNECT,
    pycurl.E_COULDNT_RESOLVE_PROXY: TransportErrorKind.CONNECT,
    pycurl.E_OPERATION_TIMEDOUT: TransportErrorKind.TIMEOUT,
    pycurl.E_SSL_CONNECT_ERROR: TransportErrorKind.TLS,
    pycurl.E_PEER_FAILED_VERIFICATION: TransportErrorKind.TLS,
    pycurl.E_SSL_CACERT_BADFILE: TransportErrorKind.TLS,
    pycurl.E_SSL_CERTPROBLEM: TransportErrorKind.TLS,
    pycurl.E_SSL_ISSUER_ERROR: TransportErrorKind.TLS,
    pycurl.E_GOT_NOTHING: TransportErrorKind.BROKEN,
    pycurl.E_SEND_ERROR: TransportErrorKind.BROKEN,
    pycurl.E_RECV_ERROR: TransportErrorKind.BROKEN,
    pycurl.E_PARTIAL_FILE: TransportErrorKind.BROKEN,
    pycurl.E_BAD_CONTENT_ENCODING: TransportErrorKind.BROKEN,
    pycurl.E_UNSUPPORTED_PROTOCOL: TransportErrorKind.BROKEN,  # the answer is no HTTP
    pycurl.E_FILESIZE_EXCEEDED: TransportErrorKind.TOO_LARGE,
}


class CurlTransport:
    """A ``Transport`` over libcurl; what it promises is in ``transports.base``.

    A handle, and with it a connection, serves one call at a time: there are as many as calls ever ran at once.

    Args:
        settings: the server.
        max_answer_bytes: bytes after which an answer is not read on, decompressed.
    """

    bounded = True

    def __init__(self, settings: ServerSettings, *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._settings = settings
        self._max_answer_bytes = max_answer_bytes
        self._idle: deque[_Handle] = deque()  # append and pop are atomic; the one used last is the warmest
        self._pid = os.getpid()
        self._inherited: list[deque[_Handle]] = []

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """See ``Transport.send``; the timeout is kept to the millisecond, whatever the other side does."""
        handle = self._take()
        try:
            return handle.send(call, timeout)
        finally:
            self._idle.append(handle)

    def close(self) -> None:
        """Close idle connections. Not for a thread that runs tasks: an old libcurl may wait for a slow resolver."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> "_Handle":
        if self._pid != os.getpid():
            # After a fork the parent goes on using these connections: shared, they would mix up the answers; closed,
            # they would say goodbye in the parent's name.
            self._inherited.append(self._idle)
            self._idle = deque()
            self._pid = os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return _Handle(self._settings, self._max_answer_bytes)


class _Handle:
    """One libcurl handle with what never changes set once; used by one thread at a time."""

    def __init__(self, settings: ServerSettings, max_answer_bytes: int) -> None:
        self._name = settings.name
        self._base = settings.url
        self._limit = max_answer_bytes
        self._headers: tuple[tuple[str, str], ...] | None = None
        self._url = ""
        self._timeout_ms = 0
        self._posting = False
        self._body: list[bytes] = []
        self._size = 0
        self._kept: dict[str, str] = {}
        self._curl = pycurl.Curl()
        self._set_up(settings)

    def _set_up(self, settings: ServerSettings) -> None:
        curl = self._curl
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)  # one call at a time: HTTP/2 brings only trouble
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS)
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.ACCEPT_ENCODING, "gzip")
        curl.setopt(pycurl.USERAGENT, USER_AGENT)
        curl.setopt(pycurl.WRITEFUNCTION, self._write)
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        with contextlib.suppress(pycurl.error):  # before libcurl 7.87
            curl.setopt(_QUICK_EXIT, 1)
        if settings.verify is False:
            curl.setopt(pycurl.SSL_VERIFYPEER, 0)
            curl.setopt(pycurl.SSL_VERIFYHOST, 0)
        else:
            bundle = ca_bundle(settings)
            curl.setopt(pycurl.CAPATH if Path(bundle).is_dir() else pycurl.CAINFO, bundle)

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        self._body, self._size, self._kept = [], 0, {}
        self._aim(call, timeout)
        try:
            self._curl.perform()
        except pycurl.error as error:
            raise self._failure(*error.args) from None
        body, self._body = b"".join(self._body), []  # an idle handle keeps no answer alive
        return HttpAnswer(self._curl.getinfo(pycurl.RESPONSE_CODE), self._kept, body)

    def close(self) -> None:
        self._curl.close()

    def _aim(self, call: HttpCall, timeout: float) -> None:
        """Set what differs from the call before."""
        curl = self._curl
        url = self._base + call.target
        if url != self._url:
            curl.setopt(pycurl.URL, url.encode())
            self._url = url
        timeout_ms = max(1, math.ceil(timeout * 1000))  # libcurl takes 0 for no timeout at all
        if timeout_ms != self._timeout_ms:
            curl.setopt(pycurl.TIMEOUT_MS, timeout_ms)
            self._timeout_ms = timeout_ms
        if call.headers != self._headers:
            curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in call.headers] + ["Expect:"])
            self._headers = call.headers
        if call.body is not None:
            curl.setopt(pycurl.POSTFIELDS, call.body)
            self._posting = True
        elif self._posting:
            curl.setopt(pycurl.HTTPGET, 1)
            self._posting = False

    def _write(self, chunk: bytes) -> int | None:
        self._size += len(chunk)
        if self._size > self._limit:
            return -1
        self._body.append(chunk)
        return None

    def _header(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if not colon:
            if line.startswith(b"HTTP/"):
                self._kept.clear()  # what a proxy or an interim answer said before
            return
        name = name.lower()
        if name in _KEPT_HEADERS:
            self._kept[name.decode()] = value.strip().decode("latin-1")

    def _failure(self, code: int, message: str) -> TransportError:
        kind = _KINDS.get(code, TransportErrorKind.OTHER)
        if code == pycurl.E_WRITE_ERROR and self._size > self._limit:
            kind, message = TransportErrorKind.TOO_LARGE, f"the answer is larger than {self._limit} bytes"
        return TransportError(kind, f"server {self._name!r}: {message}")
