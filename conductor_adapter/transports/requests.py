"""Calls over ``requests``: always there, welcomes a user's own Session. The only file that names requests."""

import http.cookiejar
import os
import threading
import time

import requests
import requests.utils

from conductor_adapter.settings import ServerSettings
from conductor_adapter.transports.base import MAX_ANSWER_BYTES, USER_AGENT, ca_bundle
from conductor_adapter.wire import HttpAnswer, HttpCall, TransportError, TransportErrorKind

__all__ = ["RequestsTransport"]

CONNECT_TIMEOUT = 10.0  # seconds, if the call has that long
_CHUNK = 64 * 1024
_BROKEN = (
    requests.exceptions.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)
_KEPT_HEADERS = ("content-type", "date", "retry-after")


class RequestsTransport:
    """A ``Transport`` over ``requests``; what it promises is in ``transports.base``.

    It does not keep to its timeout in total: the timeout holds for connecting and for each read.

    Args:
        settings: the server.
        session: used as it is, with its adapters, proxies and TLS settings, by all threads; redirects and netrc stay
            off. Without it, each thread has a session of its own: proxies come from the environment, certificates are
            checked as the settings say.
        max_answer_bytes: bytes after which an answer is not read on, decompressed.
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
        self._session = session
        self._max_answer_bytes = max_answer_bytes
        self._local = threading.local()

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """See ``Transport.send``; a dripping answer may take longer than the timeout."""
        deadline = time.monotonic() + timeout
        session = self._session or self._own_session()
        try:
            with session.request(
                call.method,
                self._settings.url + call.target,
                headers=dict(call.headers),
                data=call.body,
                timeout=(min(timeout, CONNECT_TIMEOUT), timeout),
                allow_redirects=False,
                stream=True,
                auth=None if session.auth else _no_auth,
            ) as response:
                body = self._read(response, deadline)
        except OSError as error:  # every error of requests is one
            raise self._failure(error) from None
        kept = {name: response.headers[name].strip() for name in _KEPT_HEADERS if name in response.headers}
        return HttpAnswer(response.status_code, kept, body)

    def close(self) -> None:
        """Close this thread's idle connections; other threads' end with their threads, a user's session is theirs."""
        session = getattr(self._local, "session", None)
        if session is not None and self._local.pid == os.getpid():
            session.close()

    def _own_session(self) -> requests.Session:
        """This thread's session; a new one after a fork, whose parent goes on using the connections."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.inherited = getattr(self._local, "session", None)  # not closed: that would say goodbye
            self._local.session = _new_session(self._settings)
            self._local.pid = os.getpid()
        session: requests.Session = self._local.session
        return session

    def _read(self, response: requests.Response, deadline: float) -> bytes:
        """The body, as long as it is neither too large nor too slow."""
        chunks, size = [], 0
        for chunk in response.iter_content(_CHUNK):
            size += len(chunk)
            if size > self._max_answer_bytes:
                limit = f"the answer is larger than {self._max_answer_bytes} bytes"
                raise TransportError(TransportErrorKind.TOO_LARGE, self._text(limit))
            if time.monotonic() > deadline:
                raise TransportError(TransportErrorKind.TIMEOUT, self._text("the answer did not end in time"))
            chunks.append(chunk)
        return b"".join(chunks)

    def _failure(self, error: OSError) -> TransportError:
        return TransportError(_kind(error), self._text(f"{type(error).__name__}: {_reason(error)}"))

    def _text(self, problem: str) -> str:
        return f"server {self._settings.name!r}: {problem}"


def _new_session(settings: ServerSettings) -> requests.Session:
    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    session.headers["Accept-Encoding"] = "gzip"
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    session.proxies.update(requests.utils.get_environ_proxies(settings.url))
    session.trust_env = False  # what it offers has been taken: proxies; netrc must not, the bundle is chosen below
    session.verify = False if settings.verify is False else ca_bundle(settings)
    return session


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth that adds nothing: without one, requests looks into netrc."""
    return request


def _kind(error: OSError) -> TransportErrorKind:
    if isinstance(error, requests.exceptions.SSLError):
        return TransportErrorKind.TLS
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(
        error
    ):  # a body's read timeout has no class
        return TransportErrorKind.TIMEOUT
    if isinstance(error, requests.exceptions.ProxyError) or "Failed to establish" in str(error):
        return TransportErrorKind.CONNECT
    if isinstance(error, _BROKEN):
        return TransportErrorKind.BROKEN
    return TransportErrorKind.OTHER


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words; what wraps it repeats the URL."""
    for inner in (getattr(error, "reason", None), *error.args[:1]):
        if isinstance(inner, BaseException):
            return _reason(inner)
    return str(error)[:200]
