import gzip
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import trustme

from conductor_adapter.settings import ServerSettings
from conductor_adapter.transports import choose, curl
from conductor_adapter.transports.base import ca_bundle
from conductor_adapter.transports.curl import CurlTransport
from conductor_adapter.transports.requests import RequestsTransport
from conductor_adapter.wire import HttpAnswer, HttpCall, TransportError, TransportErrorKind

HANG_GUARD = 20.0
TOKEN = (("X-Authorization", "tok-1"),)


class Peer:
    """A small HTTP server over plain sockets that can also misbehave: what it does is the path it is asked for."""

    def __init__(self, tls=None):
        self.requests, self.connections, self.open = [], 0, 0
        self.elsewhere = ""
        self.stopping = threading.Event()
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/api"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        """End every connection."""
        self.stopping.set()
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._tls.wrap_socket(connection, server_side=True) if self._tls else connection as stream:
                while not self.stopping.is_set() and self._answer(stream, stream.makefile("rb")):
                    pass
        except OSError:
            pass  # the client went away: that is what many tests are about
        finally:
            self.open -= 1

    def _answer(self, stream, lines):
        """Read one request and answer it; whether the connection goes on."""
        first = lines.readline().decode()
        if not first:
            return False
        method, target, _ = first.split()
        headers = {}
        while line := lines.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = lines.read(int(headers.get("content-length", 0)))
        self.requests.append((method, target, headers, body))
        action = getattr(self, "do_" + target.partition("?")[0].rpartition("/")[2], self.do_echo)
        return action(stream, target, body) is not False

    @staticmethod
    def say(stream, body, *headers, status="200 OK"):
        """A whole answer."""
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        stream.sendall("\r\n".join(head).encode() + body)

    def do_echo(self, stream, target, body):
        """The path and body that were asked for."""
        self.say(stream, target.encode() + b" " + body, "Content-Type: text/plain")

    def do_full(self, stream, *_):
        """An answer with every header that is kept, and others; an interim answer before it."""
        stream.sendall(b"HTTP/1.1 100 Continue\r\nRetry-After: 99\r\n\r\n")
        self.say(
            stream, b"{}", "Content-Type: application/json", "RETRY-AFTER:  7 ", "Date: Tue, 24 Nov 2026 08:00:00 GMT",
            "X-Other: 1", "Set-Cookie: a=b; Path=/", status="503 Busy",
        )  # fmt: skip

    def do_interim(self, stream, *_):
        """An interim answer that asks for a pause, then one that does not."""
        stream.sendall(b"HTTP/1.1 100 Continue\r\nRetry-After: 99\r\n\r\n")
        self.say(stream, b"", status="503 Busy")

    def do_redirect(self, stream, *_):
        """A redirect to another host."""
        self.say(stream, b"", f"Location: {self.elsewhere}", status="307 Over there")

    def do_html(self, stream, *_):
        """A proxy's login page."""
        self.say(stream, b"<html>", "Content-Type: text/html")

    def do_empty(self, stream, *_):
        """No content."""
        stream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def do_gzip(self, stream, *_):
        """A compressed answer."""
        self.say(stream, gzip.compress(b"plain text"), "Content-Encoding: gzip")

    def do_chunked(self, stream, *_):
        """An answer in chunks."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")

    def do_close(self, stream, *_):
        """An answer that ends with its connection."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbye")
        return False

    def do_large(self, stream, *_):
        """A long answer of known length."""
        self.say(stream, b"x" * 100_000)

    def do_endless(self, stream, *_):
        """Chunks without an end."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not self.stopping.is_set():
            stream.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")

    def do_trickle(self, stream, *_):
        """Chunks one after another for some seconds."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            stream.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
            self.stopping.wait(0.02)
        stream.sendall(b"0\r\n\r\n")

    def do_bomb(self, stream, *_):
        """A small answer that is large once unpacked."""
        self.say(stream, gzip.compress(b"x" * 100_000), "Content-Encoding: gzip")

    def do_silent(self, *_):
        """No answer at all."""
        self.stopping.wait(HANG_GUARD)
        return False

    def do_stalled(self, stream, *_):
        """Half an answer, then nothing."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        return self.do_silent()

    def do_drip(self, stream, *_):
        """A byte at a time, for long."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while not self.stopping.wait(0.02):
            stream.sendall(b"x")
        return False

    def do_dripping_head(self, stream, *_):
        """Headers a byte at a time, for long."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not self.stopping.wait(0.02):
            stream.sendall(b"x")
        return False

    def do_reset(self, stream, *_):
        """The connection breaks instead of an answer."""
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        stream.close()
        return False

    def do_gone(self, *_):
        """The connection ends instead of an answer."""
        return False

    def do_half(self, stream, *_):
        """The connection ends in the middle of an answer."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        return False

    def do_garbage(self, stream, *_):
        """Something that is no HTTP."""
        stream.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        return False

    def do_badgzip(self, stream, *_):
        """An answer that says it is compressed and is not."""
        self.say(stream, b"not compressed", "Content-Encoding: gzip")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def peer():
    """A server without TLS."""
    server = Peer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def authority():
    """A certificate authority that nobody trusts yet."""
    return trustme.CA()


@pytest.fixture
def secure_peer(authority):
    """A server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = Peer(context)
    yield server
    server.stop()


@pytest.fixture(params=[CurlTransport, RequestsTransport], ids=["curl", "requests"])
def kind(request):
    """Every transport keeps the same promises."""
    return request.param


@pytest.fixture
def opened():
    """Closes what ``connect`` opened."""
    transports = []
    yield transports
    for transport in transports:
        transport.close()


@pytest.fixture
def connect(kind, opened):
    """Makes a transport to a server."""

    def make(peer, *, max_answer_bytes=None, **options):
        limit = {} if max_answer_bytes is None else {"max_answer_bytes": max_answer_bytes}
        opened.append(kind(ServerSettings("eu", peer.url, **options), **limit))
        return opened[-1]

    return make


def get(path, headers=TOKEN):
    """A call without a body."""
    return HttpCall("GET", f"/{path}", "a=1", headers)


def test_a_call_arrives_as_it_was_built(connect, peer):
    """Method, path, query, headers and body reach the server unchanged, and nothing makes it wait for a 100."""
    transport = connect(peer)
    headers = (("Content-Type", "application/json"), *TOKEN)
    answer = transport.send(HttpCall("POST", "/tasks/a%2Fb", "x=%20y", headers, b"\x00{}" * 1_000_000), 10.0)

    method, target, seen, body = peer.requests[0]
    assert (method, target) == ("POST", "/api/tasks/a%2Fb?x=%20y")
    assert body == b"\x00{}" * 1_000_000
    assert (seen["content-type"], seen["x-authorization"]) == ("application/json", "tok-1")
    assert "expect" not in seen
    assert answer.status == 200


def test_get_and_post_take_turns_on_one_connection(connect, peer):
    """The connection is kept, and a GET after a POST has no body."""
    transport = connect(peer)
    for _ in range(3):
        assert transport.send(HttpCall("POST", "/p", "", TOKEN, b"body"), 5.0).body == b"/api/p body"
        assert transport.send(get("g"), 5.0).body == b"/api/g?a=1 "
        assert transport.send(HttpCall("POST", "/e", "", (), b""), 5.0).body == b"/api/e "

    assert [(method, body) for method, _, _, body in peer.requests[-3:]] == [
        ("POST", b"body"), ("GET", b""), ("POST", b""),
    ]  # fmt: skip
    assert "x-authorization" not in peer.requests[-1][2]
    assert "content-type" not in peer.requests[-2][2]
    assert peer.connections == 1


def test_an_answer_has_status_body_and_the_headers_that_matter(connect, peer):
    """Names are lower-case; what an interim answer said does not count."""
    assert connect(peer).send(get("full"), 5.0) == HttpAnswer(
        503,
        {"content-type": "application/json", "date": "Tue, 24 Nov 2026 08:00:00 GMT", "retry-after": "7"},
        b"{}",
    )


def test_an_interim_answer_leaves_nothing_behind(connect, peer):
    """A pause that an interim answer or a proxy asked for is not the server's."""
    assert connect(peer).send(get("interim"), 5.0) == HttpAnswer(503)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("html", 200, b"<html>"), ("empty", 204, b""), ("gzip", 200, b"plain text"), ("chunked", 200, b"abcdef"),
     ("close", 200, b"bye")],
)  # fmt: skip
def test_every_kind_of_answer_is_read_to_its_end(connect, peer, path, status, body):
    """Compressed, chunked, empty or ended by its connection; the next call works in any case."""
    transport = connect(peer)
    answer = transport.send(get(path), 5.0)

    assert (answer.status, answer.body) == (status, body)
    assert transport.send(get("echo"), 5.0).status == 200


@pytest.mark.parametrize("path", ["large", "endless", "bomb"])
def test_an_answer_that_is_too_large_is_not_read_on(connect, peer, path):
    """The limit holds whether the length is told before, never, or hidden by compression."""
    transport = connect(peer, max_answer_bytes=50_000)
    with pytest.raises(TransportError, match=r"'eu'.*larger than 50000 bytes") as caught:
        transport.send(get(path), 10.0)

    assert caught.value.kind is TransportErrorKind.TOO_LARGE
    assert transport.send(get("echo"), 5.0).status == 200


def test_an_answer_of_just_the_limit_is_read(connect, peer):
    """The limit is the largest size that is allowed."""
    assert len(connect(peer, max_answer_bytes=100_000).send(get("large"), 10.0).body) == 100_000


@pytest.mark.parametrize("path", ["silent", "stalled"])
def test_a_server_that_stops_answering_is_a_timeout(connect, peer, path):
    """Nothing and half an answer both end with the timeout, and the next call has a fresh connection."""
    transport = connect(peer)
    with pytest.raises(TransportError, match="'eu'") as caught:
        transport.send(get(path), 0.2)

    assert caught.value.kind is TransportErrorKind.TIMEOUT
    assert transport.send(get("echo"), 5.0).body == b"/api/echo?a=1 "


@pytest.mark.parametrize("path", ["reset", "gone", "half", "garbage", "badgzip"])
def test_a_connection_that_breaks_is_told(connect, peer, path):
    """Each way of breaking is one kind of error, without the credentials of the call."""
    transport = connect(peer)
    with pytest.raises(TransportError, match="'eu'") as caught:
        transport.send(get(path), 5.0)

    assert caught.value.kind is TransportErrorKind.BROKEN
    assert "tok-1" not in str(caught.value)
    assert transport.send(get("echo"), 5.0).status == 200


def test_a_server_that_is_not_there_is_told(connect):
    """A closed port and an unknown host are connection errors: nothing was sent."""

    class Nowhere:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"

    with pytest.raises(TransportError) as caught:
        connect(Nowhere).send(get("echo"), 5.0)
    assert caught.value.kind is TransportErrorKind.CONNECT


def test_credentials_never_follow_a_redirect(connect, peer):
    """A redirect is an answer like any other; where it points to never hears of us."""
    other = Peer()
    peer.elsewhere = f"{other.url}/echo"
    try:
        assert connect(peer).send(get("redirect"), 5.0).status == 307
        assert other.connections == 0
    finally:
        other.stop()


def test_netrc_is_not_read_and_no_cookie_is_kept(connect, peer, tmp_path, monkeypatch):
    """Nothing that was not in the call or the settings reaches the server."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password private\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    transport = connect(peer)
    transport.send(get("full"), 5.0)
    transport.send(get("echo"), 5.0)

    assert not {"authorization", "cookie"} & set(peer.requests[0][2]) | {"authorization", "cookie"} & set(
        peer.requests[1][2]
    )


def test_a_proxy_from_the_environment_is_used(connect, peer, monkeypatch):
    """The usual variables work, and so does the list of hosts that go without."""

    class Behind:
        url = "http://conductor.invalid/api"

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{peer.port}")
    assert connect(Behind).send(get("echo"), 5.0).status == 200
    assert peer.requests[0][1] == "http://conductor.invalid/api/echo?a=1"

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    connect(peer).send(get("echo"), 5.0)
    assert peer.requests[1][1] == "/api/echo?a=1"


def test_a_certificate_nobody_vouches_for_is_refused(connect, secure_peer):
    """Without the right bundle there is no call, and nothing was sent."""
    with pytest.raises(TransportError, match="'eu'") as caught:
        connect(secure_peer).send(get("echo"), 5.0)
    assert caught.value.kind is TransportErrorKind.TLS
    assert secure_peer.requests == []


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
def test_the_bundle_to_trust_comes_from_the_settings_then_the_environment(
    connect, secure_peer, authority, tmp_path, monkeypatch
):
    """The order is: settings, REQUESTS_CA_BUNDLE, certifi; verify=False checks nothing."""
    good, bad = tmp_path / "good.pem", tmp_path / "bad.pem"
    authority.cert_pem.write_to_path(good)
    trustme.CA().cert_pem.write_to_path(bad)

    assert connect(secure_peer, verify=str(good)).send(get("echo"), 5.0).status == 200
    assert connect(secure_peer, verify=False).send(get("echo"), 5.0).status == 200
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(good))
    assert connect(secure_peer).send(get("echo"), 5.0).status == 200
    with pytest.raises(TransportError):
        connect(secure_peer, verify=str(bad)).send(get("echo"), 5.0)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bad))
    assert connect(secure_peer, verify=str(good)).send(get("echo"), 5.0).status == 200
    assert connect(secure_peer, verify=False).send(get("echo"), 5.0).status == 200


def test_the_order_of_bundles():
    """Settings win over the environment, the environment over certifi."""
    plain = ServerSettings("eu", "https://eu/api")

    assert ca_bundle(ServerSettings("eu", "https://eu/api", verify="/"), {"REQUESTS_CA_BUNDLE": "/env"}) == "/"
    assert ca_bundle(plain, {"REQUESTS_CA_BUNDLE": "/env"}) == "/env"
    assert ca_bundle(plain, {"REQUESTS_CA_BUNDLE": ""}).endswith("cacert.pem")


def test_a_folder_of_certificates_will_do(connect, secure_peer, authority, tmp_path):
    """OpenSSL's way of naming the files in it decides what is found; here nothing is, so nobody is trusted."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with pytest.raises(TransportError) as caught:
        connect(secure_peer, verify=str(tmp_path)).send(get("echo"), 5.0)
    assert caught.value.kind is TransportErrorKind.TLS


def test_threads_get_their_own_answers(connect, peer):
    """Many threads share a transport; nobody sees another's answer, and connections are kept."""
    transport = connect(peer)

    def ask(number):
        return transport.send(HttpCall("POST", f"/{number}", "", (), b"x"), HANG_GUARD).body

    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(ask, range(200)))
        assert bodies == [f"/api/{number} x".encode() for number in range(200)]
    assert peer.connections <= 8


def test_a_closed_transport_holds_no_connection(connect, peer):
    """Closing ends what is idle, twice does no harm, and a call afterwards simply connects again."""
    transport = connect(peer)
    transport.close()
    transport.send(get("echo"), 5.0)
    transport.close()
    transport.close()
    deadline = time.monotonic() + HANG_GUARD
    while peer.open and time.monotonic() < deadline:
        threading.Event().wait(0.005)

    assert peer.open == 0
    assert transport.send(get("echo"), 5.0).status == 200


def test_after_a_fork_the_parents_connections_are_left_alone(connect, peer, monkeypatch):
    """The child makes its own, and does not close what the parent goes on using."""
    transport = connect(peer)
    transport.send(get("echo"), 5.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        transport.send(get("echo"), 5.0)
        transport.send(get("echo"), 5.0)
        transport.close()

    assert peer.connections == 2
    assert peer.open >= 1


@pytest.mark.parametrize("name", ["curl", "requests"])
def test_parent_and_child_never_get_each_others_answers(peer, name):
    """A real fork with calls on both sides at the same time."""
    program = f"""
        import os, sys
        from conductor_adapter.settings import ServerSettings
        from conductor_adapter.transports import choose
        from conductor_adapter.wire import HttpCall
        transport = choose({name!r})(ServerSettings("eu", {peer.url!r}))
        def ask(who, times):
            for number in range(times):
                path = f"/{{who}}-{{number}}"
                if transport.send(HttpCall("GET", path), 10.0).body != f"/api{{path}} ".encode():
                    return 1
            return 0
        assert ask("before", 3) == 0
        child = os.fork()
        wrong = ask("child" if child == 0 else "parent", 100)
        if child == 0:
            os._exit(wrong)
        sys.exit(wrong or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60, check=False)  # noqa: S603 - ours

    assert done.returncode == 0
    assert len(peer.requests) == 203


# What only one of them does.


@pytest.mark.parametrize("path", ["drip", "dripping_head", "silent"])
def test_curl_keeps_to_its_timeout_whatever_the_server_does(peer, path):
    """It declares itself bounded: a dripping body or header ends with the timeout too."""
    transport = CurlTransport(ServerSettings("eu", peer.url))
    assert transport.bounded
    started = time.monotonic()
    with pytest.raises(TransportError) as caught:
        transport.send(get(path), 0.2)

    assert caught.value.kind is TransportErrorKind.TIMEOUT
    assert time.monotonic() - started < HANG_GUARD / 2
    transport.close()


def test_curl_takes_the_shortest_timeout_literally(peer):
    """Less than a millisecond is not the same as none, which libcurl would take for no limit."""
    transport = CurlTransport(ServerSettings("eu", peer.url))
    with pytest.raises(TransportError) as caught:
        transport.send(get("silent"), 0.000_001)
    assert caught.value.kind is TransportErrorKind.TIMEOUT
    transport.close()


def test_curl_has_as_many_connections_as_calls_at_once(peer):
    """A handle outlives the thread that used it: threads that come and go cost no connections."""
    transport = CurlTransport(ServerSettings("eu", peer.url))
    for _ in range(5):
        thread = threading.Thread(target=transport.send, args=(get("echo"), 5.0))
        thread.start()
        thread.join(HANG_GUARD)

    assert peer.connections == 1
    assert len(peer.requests) == 5
    transport.close()


def test_requests_says_that_it_is_not_bounded(peer):
    """Its timeout is per read: a dripping answer is told when it ends, or at the first whole piece past the time."""
    transport = RequestsTransport(ServerSettings("eu", peer.url))

    assert not transport.bounded
    with pytest.raises(TransportError) as caught:
        transport.send(get("trickle"), 0.2)
    assert caught.value.kind is TransportErrorKind.TIMEOUT


def test_a_users_own_session_is_used_as_it_is(peer, tmp_path, monkeypatch):
    """Its headers, auth and adapters work; redirects and netrc stay off, and closing it is its owner's business."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password private\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with requests.Session() as session:
        session.headers["X-Mine"] = "1"
        transport = RequestsTransport(ServerSettings("eu", peer.url), session)
        transport.send(get("echo"), 5.0)
        session.auth = ("me", "mine")
        transport.send(get("redirect"), 5.0)
        transport.close()
        transport.send(get("echo"), 5.0)

    assert peer.connections == 1
    assert peer.requests[0][2]["x-mine"] == "1"
    assert "authorization" not in peer.requests[0][2]
    assert peer.requests[1][2]["authorization"].startswith("Basic ")


class Refusing(requests.adapters.BaseAdapter):
    """An adapter that always fails the same way."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def send(self, *_args, **_options):
        """Fail."""
        raise self.error

    def close(self):
        """Nothing to close."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.exceptions.ProxyError("no proxy"), TransportErrorKind.CONNECT),
        (requests.exceptions.ConnectTimeout("late"), TransportErrorKind.TIMEOUT),
        (requests.exceptions.InvalidHeader("odd"), TransportErrorKind.OTHER),
        (requests.exceptions.ConnectionError(), TransportErrorKind.BROKEN),
        (OSError("no such bundle"), TransportErrorKind.OTHER),
    ],
)
def test_what_a_users_adapter_raises_becomes_a_transport_error(error, kind):
    """Every error of the library has a kind."""
    session = requests.Session()
    session.mount("http://", Refusing(error))
    with pytest.raises(TransportError, match="'eu'") as caught:
        RequestsTransport(ServerSettings("eu", "http://eu/api"), session).send(get("echo"), 1.0)
    assert caught.value.kind is kind


# Choosing.


def test_a_transport_is_chosen_by_name():
    """Auto takes curl where it is installed."""
    assert choose() is CurlTransport
    assert choose("curl") is CurlTransport
    assert choose("requests") is RequestsTransport
    with pytest.raises(ValueError, match="'httpx' is not known: choose auto, curl or requests"):
        choose("httpx")


def test_without_pycurl_auto_takes_requests_and_curl_says_how_to_get_it(monkeypatch):
    """An extra that is missing is named when it was asked for, and not needed otherwise."""
    monkeypatch.setitem(sys.modules, "pycurl", None)
    monkeypatch.delitem(sys.modules, curl.__name__)

    assert choose("auto") is RequestsTransport
    with pytest.raises(ImportError, match=r"pip install 'conductor-resilience\[fast\]'"):
        choose("curl")
