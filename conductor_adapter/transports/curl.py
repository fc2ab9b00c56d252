"""Calls over libcurl: a fraction of the CPU time of ``requests``, with a total timeout. Only this file names pycurl."""

import contextlib
import ctypes
import math
import os
import select
import time
import weakref
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import pycurl
from pycurl import PREREQFUNCTION  # without it, before pycurl 7.45.7 and libcurl 7.80, a poll might be sent twice

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

__all__ = ["CurlTransport"]

CONNECT_TIMEOUT_MS = 10_000
UPLOAD_BUFFER = 16_384  # bytes; libcurl's default of 64 kB would be half of a handle's memory, and few results need it
_QUICK_EXIT = 322  # CURLOPT_QUICK_EXIT, which pycurl does not name: closing does not wait for a slow resolver
_REDIRECTS = 300  # statuses from here on are not a success
_KEPT_HEADERS = ("content-type", "date", "retry-after")
_BEGINNINGS = (b"cont", b"date", b"retr")  # of those: most lines need not be parsed
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
    pycurl.E_UNSUPPORTED_PROTOCOL: TransportErrorKind.BROKEN,  # the answer is not HTTP
    pycurl.E_FTP_WEIRD_SERVER_REPLY: TransportErrorKind.BROKEN,  # the same: the name is historical
}
_UNTRUSTED = (pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE)
_BEFORE_SENDING = (TransportErrorKind.CONNECT, TransportErrorKind.TLS)


class _PollFd(ctypes.Structure):
    """``struct pollfd``."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


# Python's own select.poll releases the GIL and gets it back only when another thread releases it, although this poll
# does not wait.
_poll = ctypes.PyDLL(None).poll


class CurlTransport:
    """A ``Transport`` over libcurl; its guarantees are in ``transports.base``.

    A handle, with its connection, serves one call at a time: there are as many handles as concurrent calls recently.
    Each needs `descriptors` file descriptors: libcurl opens two to wake it up, which no option avoids.

    Proxies are those of the environment when it is created.

    Args:
        settings: the server.
        max_answer_bytes: the maximum size of an answer in bytes, decompressed.

    Raises:
        ValueError: the environment names a bundle that does not exist, or a proxy that is not a URL.
    """

    bounded = True
    descriptors = 3

    def __init__(self, settings: ServerSettings, *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._settings = settings
        self._bundle = ca_bundle(settings)
        self._proxy = proxy_of(settings)
        self._max_answer_bytes = max_answer_bytes
        self._idle: deque[_Handle] = deque()  # append and pop are atomic; the last one was used most recently
        self._pid = os.getpid()
        _transports.add(self)

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """See ``Transport.send``; the timeout is enforced to the millisecond, whatever the other side does."""
        try:
            return self._send(call, timeout)
        except OutOfDescriptors:  # nothing was sent, and idle connections hold some
            for transport in list(_transports):
                transport.close()
            return self._send(call, timeout)

    def close(self) -> None:
        """Close idle connections. Not for a thread that runs tasks: an old libcurl might wait for a slow resolver."""
        self._leave_to_parent()
        with contextlib.suppress(IndexError):  # other threads take from it at the same time
            while True:
                self._idle.pop().close()

    def _send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        handle = self._take()
        try:
            return handle.send(call, timeout)
        finally:
            if handle.failed_here:
                handle.close()  # it holds descriptors even without a connection
            else:
                self._rest(handle)

    def _rest(self, handle: "_Handle") -> None:
        """Keep a handle for the next call; close one whose connection has been idle for too long to be used again."""
        handle.used = time.monotonic()
        self._idle.append(handle)
        with contextlib.suppress(IndexError):  # another thread took it
            if handle.used - self._idle[0].used > MAX_IDLE:
                self._idle.popleft().close()

    def _take(self) -> "_Handle":
        self._leave_to_parent()
        try:
            return self._idle.pop()
        except IndexError:
            return _Handle(self._settings, self._bundle, self._proxy, self._max_answer_bytes)

    def _leave_to_parent(self) -> None:
        """After a fork the parent keeps using these connections: if shared, they would mix up the answers."""
        if self._pid != os.getpid():
            self._idle = deque()
            self._pid = os.getpid()


class _Handle:
    """One libcurl handle, with constant options set once; used by one thread at a time."""

    def __init__(self, settings: ServerSettings, bundle: str | None, proxy: str | None, max_answer_bytes: int) -> None:
        self._name = settings.name
        self._base = settings.url
        self._limit = max_answer_bytes
        self._bundle = bundle
        self._headers: tuple[tuple[str, str], ...] | None = None
        self._target: str | None = None
        self._timeout_ms = 0
        self._posting = False
        self._putting = False
        self._stale = False
        self._body: list[bytes] = []
        self._size = 0
        self._lines: list[bytes] = []  # of headers; libcurl, which also keeps them, stops at 300 kB
        self._tries = 0
        self._watched = _PollFd(events=select.POLLIN)
        self.used = 0.0  # monotonic time of its last call
        self.failed_here = False
        self._curl = pycurl.Curl()
        self._set_up()
        self._set_trust(bundle)
        self._curl.setopt(pycurl.PROXY, proxy or "")  # empty: libcurl itself does not read the environment
        self._curl.setopt(pycurl.NOPROXY, "")
        _handles.add(self)

    def _set_up(self) -> None:
        curl = self._curl
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)  # one call at a time: HTTP/2 has no advantage
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS)
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.MAXCONNECTS, 1)
        curl.setopt(pycurl.MAXAGE_CONN, MAX_IDLE)
        curl.setopt(pycurl.MAXLIFETIME_CONN, math.ceil(connection_life()))
        curl.setopt(pycurl.DNS_CACHE_TIMEOUT, 0)  # otherwise it would use an outdated address for a minute
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, UPLOAD_BUFFER)
        curl.setopt(pycurl.ACCEPT_ENCODING, "gzip")
        curl.setopt(pycurl.USERAGENT, USER_AGENT)
        curl.setopt(pycurl.WRITEFUNCTION, self._write)
        curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)  # not a method of ours: it is called for every line
        curl.setopt(PREREQFUNCTION, self._send_once)
        with contextlib.suppress(pycurl.error):  # before libcurl 7.87
            curl.setopt(_QUICK_EXIT, 1)

    def _set_trust(self, bundle: str | None) -> None:
        if bundle is None:
            self._curl.setopt(pycurl.SSL_VERIFYPEER, 0)
            self._curl.setopt(pycurl.SSL_VERIFYHOST, 0)
            return
        chosen, other = (pycurl.CAINFO, pycurl.CAPATH)[:: -1 if Path(bundle).is_dir() else 1]
        self._curl.setopt(chosen, bundle)
        self._curl.unsetopt(other)  # pycurl presets a bundle of the machine, which would be trusted as well

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        self._body, self._size, self._tries = [], 0, 0
        try:
            self._aim(call, timeout)
            self._curl.perform()
            status = self._curl.getinfo(pycurl.RESPONSE_CODE)
            headers = _kept(self._lines) if status >= _REDIRECTS else {}  # those of a success are not needed
            return HttpAnswer(status, headers, b"".join(self._body))
        except pycurl.error as error:
            if self._is_ours(*error.args):
                self.failed_here = True
                raise out_of_descriptors(self._name) from None
            raise self._failure(call, *error.args) from None
        finally:
            self._body = []  # an idle handle keeps no answer alive
            self._lines.clear()

    def close(self) -> None:
        self._curl.close()

    def live_for_ever(self) -> None:
        """After a fork: cleaning up a handle would send TLS's close notification over the parent's connection."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._curl))

    def _aim(self, call: HttpCall, timeout: float) -> None:
        """Set the options that differ from the previous call."""
        curl = self._curl
        stale = self._is_readable(curl.getinfo(pycurl.LASTSOCKET))  # libcurl checks only connections idle for 1 s
        if stale != self._stale:
            curl.setopt(pycurl.FRESH_CONNECT, stale)
            self._stale = stale
        if call.target != self._target:
            curl.setopt(pycurl.URL, (self._base + target_of(call)).encode())
            self._target = call.target
        timeout_ms = max(1, math.ceil(timeout * 1000))  # libcurl treats 0 as no timeout
        if timeout_ms != self._timeout_ms:
            curl.setopt(pycurl.TIMEOUT_MS, timeout_ms)
            self._timeout_ms = timeout_ms
        if call.headers != self._headers:
            curl.setopt(pycurl.HTTPHEADER, self._sent(call))
            self._headers = call.headers
        if (call.method == "PUT") != self._putting:
            self._putting = not self._putting
            curl.setopt(pycurl.CUSTOMREQUEST, "PUT") if self._putting else curl.unsetopt(pycurl.CUSTOMREQUEST)
        if call.body is not None:
            curl.setopt(pycurl.POSTFIELDS, call.body)
            self._posting = True
        elif self._posting:
            curl.setopt(pycurl.HTTPGET, 1)
            self._posting = False

    def _sent(self, call: HttpCall) -> list[str]:
        """The headers in libcurl's form: one that ends in ';' is empty, one that ends in ':' is not sent."""
        sent = headers_of(call)
        own = {"expect"} if any(name.lower() == "content-type" for name in sent) else {"expect", "content-type"}
        return [f"{name}: {value}" if value else f"{name};" for name, value in sent.items()] + [f"{n}:" for n in own]

    def _send_once(self, *_addresses: object) -> int:
        """Called before each send: libcurl would repeat a call if a reused connection ends without an answer."""
        self._tries += 1
        return pycurl.PREREQFUNC_OK if self._tries == 1 else pycurl.PREREQFUNC_ABORT

    def _is_readable(self, socket: int) -> bool:
        """Whether a connection that rests has ended or brings what nobody asked for; -1 is none."""
        self._watched.fd = socket  # poll passes over a negative one
        ready: int = _poll(ctypes.byref(self._watched), 1, 0)
        return ready > 0

    def _write(self, chunk: bytes) -> int | None:
        self._size += len(chunk)
        if self._size > self._limit:
            return -1
        self._body.append(chunk)
        return None

    def _is_ours(self, code: int, _message: str) -> bool:
        """Whether the call was not sent because this process cannot open any more files, which libcurl hides."""
        if self._tries:
            return False
        return code == pycurl.E_OUT_OF_MEMORY or (_KINDS.get(code) in _BEFORE_SENDING and lacks_descriptors())

    def _failure(self, call: HttpCall, code: int, message: str) -> TransportError:
        kind = _KINDS.get(code, TransportErrorKind.OTHER)
        if code == pycurl.E_WRITE_ERROR and self._size > self._limit:
            kind, message = TransportErrorKind.TOO_LARGE, f"the answer is larger than {self._limit} bytes"
        elif code == pycurl.E_ABORTED_BY_CALLBACK:
            kind, message = TransportErrorKind.BROKEN, "the connection ended before the answer"
        elif self._curl.getinfo(pycurl.HTTP_CONNECTCODE) >= _REDIRECTS:
            kind = TransportErrorKind.CONNECT  # a proxy refused to open a tunnel
        advice = trust_advice(message, self._bundle) if code in _UNTRUSTED else ""
        return TransportError(kind, f"server {self._name!r}: {shown(message, call)}{advice}")


def _kept(lines: Iterable[bytes]) -> dict[str, str]:
    """The relevant headers of the last answer: the lines include those of a proxy and of interim answers."""
    kept: dict[str, str] = {}
    in_head = False
    for line in lines:
        if line.startswith(b"HTTP/"):
            kept, in_head = {}, True
        elif not line.strip():
            in_head = False  # a trailer follows
        elif in_head and line[:4].lower() in _BEGINNINGS:
            name, colon, value = line.partition(b":")
            key = name.lower().decode("latin-1")
            if colon and key in _KEPT_HEADERS:
                text = value.strip().decode("latin-1")
                kept[key] = f"{kept[key]}, {text}" if key in kept else text
    return kept


_transports: "weakref.WeakSet[CurlTransport]" = weakref.WeakSet()
_handles: "weakref.WeakSet[_Handle]" = weakref.WeakSet()


def _keep_handles() -> None:
    for handle in _handles:
        handle.live_for_ever()


os.register_at_fork(after_in_child=_keep_handles)
