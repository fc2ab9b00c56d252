"""What only one transport does, how one is chosen, and what the environment says; the rest is the conformance suite."""

import contextlib
import logging
import os
import resource
import subprocess
import sys
import textwrap
import threading
import types
import warnings
from pathlib import Path
from unittest.mock import Mock

import pycurl
import pytest
import requests
import urllib3
from http_peers import HANG_GUARD, Peer

from conductor_adapter.client.messages import HttpCall, OutOfDescriptors, TransportError, TransportErrorKind
from conductor_adapter.settings.server_settings import ServerSettings
from conductor_adapter.transports import choose, curl
from conductor_adapter.transports import requests as transports_requests
from conductor_adapter.transports.base import drive, out_of_descriptors
from conductor_adapter.transports.curl import CurlTransport
from conductor_adapter.transports.environment import ca_bundle, proxy_of, trust_advice
from conductor_adapter.transports.requests import RequestsTransport
from resilience.testing import ManualClock

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in ("http_proxy", "all_proxy", "no_proxy", *BUNDLES, "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def peer():
    """A server."""
    with Peer() as server:
        yield server


def get(path="echo"):
    """A call without a body."""
    return HttpCall("GET", f"/{path}", "a=1", (("X-Authorization", "tok-1"),))


# Descriptors.


@pytest.fixture
def no_files():
    """A function after which this process may open nothing more, but for as many files as it is told."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []

    def take_all(but=0):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (max(int(one.name) for one in Path("/proc/self/fd").iterdir()) + 20, hard)
        )
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(but):
            os.close(held.pop())

    yield take_all
    for one in held:
        os.close(one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("left", [0, 1, 2])
@pytest.mark.parametrize("transport", ["curl", "requests"])
def test_lack_of_descriptors_is_ours_and_says_how_to_get_more(peer, no_files, transport, left):
    """A connection that this process may not open counts against no server, and costs none of what is left."""
    connection = choose(transport)(ServerSettings("eu", peer.url))
    no_files(left if transport == "curl" else 0)

    for _ in range(3):
        with pytest.raises(OutOfDescriptors, match=r"server 'eu': .* no file descriptor left .* \(ulimit -n\)") as told:
            connection.send(get(), 5.0)

    assert told.value.retry_after > 0
    assert peer.requests == []


def test_connections_that_rest_make_room_for_one_that_is_needed(peer, no_files):
    """When descriptors run out, idle connections to any server are closed, and the call goes through."""
    rests, needs = (CurlTransport(ServerSettings(name, peer.url)) for name in ("eu", "us"))
    rests.send(get(), 5.0)
    no_files(1)

    assert needs.send(get(), 5.0).status == 200


def test_connection_that_rested_for_too_long_is_closed(peer, monkeypatch):
    """What a burst of calls opened does not stay open: libcurl would use none of it again."""
    clock = ManualClock()
    monkeypatch.setattr(curl.time, "monotonic", clock)
    transport = CurlTransport(ServerSettings("eu", peer.url))
    first, second = transport._take(), transport._take()
    transport._rest(first)
    clock.advance(curl.MAX_IDLE)
    transport._rest(second)
    assert list(transport._idle) == [first, second]
    clock.advance(0.5)
    transport._rest(transport._take())

    assert list(transport._idle) == [second]


def test_operation_hears_that_no_descriptor_was_left():
    """It may clean up: a token that was to be fetched is not thought to be under way."""

    def operation():
        try:
            yield get()
        except OutOfDescriptors:
            return "heard"

    short = types.SimpleNamespace(bounded=True, send=Mock(side_effect=out_of_descriptors("eu")))

    assert drive(operation(), short, 1.0) == "heard"


# libcurl.


def test_curl_has_as_many_connections_as_calls_at_once(peer):
    """A handle outlives the thread that used it: threads that come and go cost no connections."""
    transport = CurlTransport(ServerSettings("eu", peer.url))
    assert transport.bounded
    for _ in range(5):
        thread = threading.Thread(target=transport.send, args=(get(), 5.0))
        thread.start()
        thread.join(HANG_GUARD)

    assert len(peer.requests) == 5
    assert peer.connections == 1
    transport.close()


def test_a_handle_that_a_child_inherits_is_never_cleaned_up(peer):
    """Somebody always refers to it, so that it says no goodbye; the real fork is in the conformance suite."""
    transport = CurlTransport(ServerSettings("eu", peer.url))
    transport.send(get(), 5.0)
    inherited = transport._idle[0]._curl
    before = sys.getrefcount(inherited)
    curl._keep_handles()
    assert sys.getrefcount(inherited) == before + 1
    transport.close()


@pytest.mark.parametrize("make", [CurlTransport, RequestsTransport])
def test_in_another_process_nothing_is_shared(peer, monkeypatch, make):
    """A new process id means new connections, and closing them closes none of the parent's."""
    transport = make(ServerSettings("eu", peer.url))
    transport.send(get(), 5.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        transport.close()
        transport.send(get(), 5.0)
        transport.close()
    assert peer.connections == 2


# requests.


def test_the_last_piece_of_an_answer_is_welcome_however_late(peer, monkeypatch):
    """What is here already is not thrown away: a late batch of tasks is real work. So it declares itself unbounded."""
    clock = ManualClock()
    monkeypatch.setattr(transports_requests, "time", types.SimpleNamespace(monotonic=clock))
    peer.do_one = lambda stream, seen: (clock.advance(6.0), peer.do_gzip(stream, seen))
    peer.do_two = lambda stream, seen: (clock.advance(6.0), peer.do_chunked(stream, seen))
    transport = RequestsTransport(ServerSettings("eu", peer.url))

    assert not transport.bounded
    assert transport.send(get("one"), 5.0).body == b"plain text"
    with pytest.raises(TransportError, match="did not end in time") as caught:
        transport.send(get("two"), 5.0)
    assert caught.value.kind is TransportErrorKind.TIMEOUT
    transport.close()


def test_a_users_own_session_is_used_as_it_is(peer, tmp_path, monkeypatch):
    """Its headers, auth, hooks and adapters work; redirects and netrc stay off, closing it is its owner's business."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password private\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    peer.elsewhere = f"{peer.url}/elsewhere"
    heard = []
    with requests.Session() as session:
        session.headers["X-Mine"] = "1"
        transport = RequestsTransport(ServerSettings("eu", peer.url), session)
        transport.send(get(), 5.0)
        session.auth = ("me", "mine")
        session.hooks["response"] = lambda response, **_: heard.append(response.headers["location"])
        assert transport.send(get("302"), 5.0).status == 302
        session.hooks["response"] = [lambda response, **_: heard.append(response.status_code)]
        transport.close()
        transport.send(get(), 5.0)

    assert peer.connections == 1
    assert [seen.headers["x-mine"] for seen in peer.requests] == ["1", "1", "1"]
    assert "authorization" not in peer.requests[0].headers
    assert peer.requests[1].headers["authorization"].startswith("Basic ")
    assert heard == [peer.elsewhere, 200]


def test_an_interim_answer_to_a_users_session_ends_its_connection(peer):
    """Their connections take it for the answer; were they kept, the real answer would be the next call's."""
    peer.do_interim = lambda stream, _: stream.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    with requests.Session() as session:
        transport = RequestsTransport(ServerSettings("eu", peer.url), session)
        with pytest.raises(TransportError, match="HTTP 103 is not a final answer") as caught:
            transport.send(get("interim"), 5.0)
        assert caught.value.kind is TransportErrorKind.BROKEN
        assert transport.send(get(), 5.0).status == 200
    assert peer.connections == 2


def test_a_users_session_is_not_shared_with_a_child(peer):
    """After a fork it connects anew; the parent's connection goes on."""
    program = f"""
        import os, requests
        from conductor_adapter.settings.server_settings import ServerSettings
        from conductor_adapter.transports.requests import RequestsTransport
        from conductor_adapter.client.messages import HttpCall
        transport = RequestsTransport(ServerSettings("eu", {peer.url!r}), requests.Session())
        def ask(who):
            for number in range(50):
                path = f"/{{who}}-{{number}}"
                assert transport.send(HttpCall("GET", path), 10.0).body == f"/api{{path}} ".encode()
        ask("before")
        child = os.fork()
        ask("parent" if child else "child")
        if child:
            assert os.waitpid(child, 0)[1] == 0
            ask("after")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60, check=True)  # noqa: S603 - ours
    assert len(peer.requests) == 200
    assert peer.connections == 2


class Lenient(requests.adapters.HTTPAdapter):
    """As an old urllib3 is by default."""

    def send(self, *args, **options):
        """Let the body end wherever it does."""
        response = super().send(*args, **options)
        response.raw.enforce_content_length = False
        return response


def test_half_an_answer_is_none_whatever_the_library_says(peer):
    """A batch that was cut off must not pass for a batch."""
    with requests.Session() as session:
        session.mount("http://", Lenient())
        transport = RequestsTransport(ServerSettings("eu", peer.url), session)
        with pytest.raises(TransportError, match=r"the connection ended before the answer$") as caught:
            transport.send(get("half"), 5.0)
    assert caught.value.kind is TransportErrorKind.BROKEN


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
        (requests.exceptions.InvalidHeader("pass is odd"), TransportErrorKind.OTHER),
        (requests.exceptions.ConnectionError(), TransportErrorKind.BROKEN),
        (urllib3.exceptions.LocationParseError("tok-1 is no host"), TransportErrorKind.OTHER),
        (UnicodeError("tok-1 is too long a label"), TransportErrorKind.OTHER),
        (OSError("http://me:pass@proxy and such"), TransportErrorKind.OTHER),
        (OSError("me:pass@proxy and such"), TransportErrorKind.OTHER),
    ],
)
def test_what_a_users_adapter_raises_becomes_a_transport_error(error, kind):
    """Every error of the libraries has a kind, and shows no secret."""
    session = requests.Session()
    session.mount("http://", Refusing(error))
    with pytest.raises(TransportError, match="'eu'") as caught:
        RequestsTransport(ServerSettings("eu", "http://eu/api"), session).send(get(), 1.0)
    assert caught.value.kind is kind
    assert "tok-1" not in str(caught.value)
    assert "pass" not in str(caught.value)


def test_threads_that_end_leave_no_warning(peer, caplog):
    """Each thread's connection ends with it, quietly."""
    caplog.set_level(logging.WARNING)
    transport = RequestsTransport(ServerSettings("eu", peer.url))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=transport.send, args=(get(), 5.0))
        thread.start()
        thread.join(HANG_GUARD)
        peer.wait_for(lambda: peer.open == 0)
    assert [str(one.message) for one in caught] == []
    assert caplog.text == ""


def test_a_socks_proxy_is_made_by_the_library_for_it(monkeypatch):
    """Its connections are of their own kind; without PySocks the error says what is missing."""
    settings = ServerSettings("eu", "http://127.0.0.1/api")
    monkeypatch.setenv("all_proxy", "socks5h://me:pass@127.0.0.1:9")
    with pytest.raises(TransportError, match="Missing dependencies for SOCKS support") as caught:
        RequestsTransport(settings).send(get(), 1.0)
    assert "pass" not in str(caught.value)

    def refuse(*_args, **_options):
        raise OSError("it was asked")

    made = types.SimpleNamespace(pool_classes_by_scheme=0, connection_from_host=refuse, connection_from_url=refuse)
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "proxy_manager_for", lambda *_args, **_options: made)
    with pytest.raises(TransportError, match="it was asked"):
        RequestsTransport(settings).send(get(), 1.0)
    assert made.pool_classes_by_scheme == 0


# Choosing.


def test_a_transport_is_chosen_by_name():
    """Auto takes curl where it is installed."""
    assert choose() is CurlTransport
    assert choose("curl") is CurlTransport
    assert choose("requests") is RequestsTransport
    with pytest.raises(ValueError, match="unknown transport 'httpx': choose auto, curl or requests"):
        choose("httpx")


def test_a_pycurl_that_would_repeat_polls_is_not_used(monkeypatch):
    """An old one cannot be kept from sending a call again: as if it were not installed, with the version it takes."""
    monkeypatch.delattr(pycurl, "PREREQFUNCTION")
    monkeypatch.delitem(sys.modules, curl.__name__)

    assert choose("auto") is RequestsTransport
    with pytest.raises(ImportError, match=r"needs pycurl 7\.45\.7 or newer.*PREREQFUNCTION"):
        choose("curl")


def test_without_pycurl_auto_takes_requests_and_curl_says_how_to_get_it(monkeypatch):
    """An extra that is missing is named when it was asked for, and not needed otherwise."""
    monkeypatch.setitem(sys.modules, "pycurl", None)
    monkeypatch.delitem(sys.modules, curl.__name__)

    assert choose("auto") is RequestsTransport
    with pytest.raises(ImportError, match=r"pip install '\.\[fast\]' in the checkout"):
        choose("curl")


# What the environment says.


def test_the_order_of_bundles():
    """Settings win over the environment, the environment over certifi."""
    plain = ServerSettings("eu", "https://eu/api")

    folders = dict(zip(BUNDLES, ("/usr", "/etc", "/tmp"), strict=True))  # noqa: S108 - any that is there

    assert ca_bundle(ServerSettings("eu", "https://eu/api", verify="/"), folders) == "/"
    assert ca_bundle(ServerSettings("eu", "https://eu/api", verify=False), folders) is None
    for variable in BUNDLES:
        assert ca_bundle(plain, folders) == folders[variable]
        folders[variable] = ""
    assert ca_bundle(plain, folders).endswith("cacert.pem")


def test_nothing_is_advised_where_nothing_is_checked():
    """Or where a user's own session says what is trusted."""
    problem = "unable to get local issuer certificate"

    assert trust_advice(problem, None) == ""
    assert "SSL_CERT_FILE" in trust_advice(problem, "/ca.pem")


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"http_proxy": "http://p:1"}, "http://p:1"),
        ({"http_proxy": "p:1"}, "http://p:1"),
        ({"http_proxy": " p:1 "}, "http://p:1"),
        ({"http_proxy": "http://me:pa%20ss@p:1/"}, "http://me:pa%20ss@p:1/"),
        ({"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http://p:1"),
        ({"http_proxy": "http://p:1", "HTTP_PROXY": "http://q:1"}, "http://p:1"),
        ({"http_proxy": "", "HTTP_PROXY": "http://q:1"}, None),
        ({"https_proxy": "http://p:1"}, None),
        ({"all_proxy": "socks5h://p:1"}, "socks5h://p:1"),
        ({"http_proxy": "http://p:1", "all_proxy": "http://q:1"}, "http://p:1"),
    ],
)
def test_which_proxy_leads_to_a_server(environ, proxy):
    """The scheme's own goes before the one for all, lower case before upper case."""
    assert proxy_of(ServerSettings("eu", "http://eu.example:8080/api"), environ) == proxy


@pytest.mark.parametrize(
    ("url", "no_proxy", "without"),
    [
        ("http://eu.example/api", "*", True),
        ("http://eu.example/api", "", False),
        ("http://eu.example/api", "other, EU.example", True),
        ("http://eu.example/api", "other .example", True),
        ("http://eu.example/api", "example", True),
        ("http://eu.example/api", "u.example", False),
        ("http://eu.example/api", "eu.example:80", True),
        ("http://eu.example/api", "eu.example:81", False),
        ("https://eu.example/api", "eu.example:443", True),
        ("http://10.1.2.3:8080/api", "10.0.0.0/8", True),
        ("http://10.1.2.3:8080/api", "10.1.2.3", True),
        ("http://10.1.2.3:8080/api", "10.1.2.3:8080", True),
        ("http://10.1.2.3:8080/api", "2.3", False),
        ("http://11.1.2.3:8080/api", "10.0.0.0/8", False),
        ("http://[::1]:8080/api", "::1", True),
        ("http://[::1]:8080/api", "[::1]", True),
        ("http://[::1]:8080/api", "[::1]:8080", True),
        ("http://[::1]:8080/api", "[::1]:8081", False),
        ("http://[fd00::7]/api", "fd00::/8", True),
        ("http://[fd00::7]/api", "eu.example:80", False),
    ],
)
def test_which_servers_go_without_a_proxy(url, no_proxy, without):
    """Hosts with their subdomains, addresses, networks and ports."""
    environ = {"all_proxy": "http://p:1", "no_proxy": no_proxy}
    assert proxy_of(ServerSettings("eu", url), environ) == (None if without else "http://p:1")
