"""One suite for every transport, over real sockets; only what ``bounded`` declares makes a difference."""

import gc
import json
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from commands import program as run_program
from http_peers import HANG_GUARD, Peer, Proxy, bomb

from conductor_adapter.client.messages import HttpAnswer, HttpCall, ServerFailed, TransportError, TransportErrorKind
from conductor_adapter.client.operations import ConductorServer
from conductor_adapter.settings.server_settings import ServerSettings
from conductor_adapter.tasks import TaskResult, TaskStatus
from conductor_adapter.transports import base, choose
from conductor_adapter.transports.base import drive

TOKEN = (("X-Authorization", "tok-1"),)
DONE = TaskResult(task_id="t1", workflow_id="w1", status=TaskStatus.COMPLETED)
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")


@pytest.fixture(params=["curl", "requests"])
def name(request):
    """Every transport keeps the same promises."""
    return request.param


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for variable in (*VARIABLES, *map(str.upper, VARIABLES), *BUNDLES, "NETRC"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def connect(name):
    """Makes transports to a server, and closes them in the end."""
    opened = []

    def make(peer, *, max_answer_bytes=None, **options):
        limit = {} if max_answer_bytes is None else {"max_answer_bytes": max_answer_bytes}
        settings = ServerSettings("eu", peer if isinstance(peer, str) else peer.url, **options)
        opened.append(choose(name)(settings, **limit))
        return opened[-1]

    yield make
    for transport in opened:
        transport.close()


@pytest.fixture
def peer():
    """A server without TLS."""
    with Peer() as server:
        yield server


@pytest.fixture(scope="module")
def authority():
    """A certificate authority that nobody trusts yet."""
    return trustme.CA()


@pytest.fixture
def bundle(authority, tmp_path):
    """The authority's certificate as a file."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def secure_peer(authority):
    """A server with TLS."""
    with Peer(tls_of(authority.issue_cert("127.0.0.1"))) as server:
        yield server


def tls_of(certificate):
    """What a server needs to show a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def get(path="echo", headers=TOKEN):
    """A call without a body."""
    return HttpCall("GET", f"/{path}", "a=1", headers)


def post(path="echo", body=b"body", headers=TOKEN):
    """A call with a body."""
    return HttpCall("POST", f"/{path}", "", headers, body)


def failure(transport, call, timeout=HANG_GUARD):
    """The error that a call ends with."""
    with pytest.raises(TransportError, match=r"'eu'|not sent") as caught:
        transport.send(call, timeout)
    return caught.value


def poll(peer, transport):
    """A poll as the adapter makes it."""
    return drive(ConductorServer(ServerSettings("eu", peer.url)).poll("payload", "me", 5, 0.0), transport, HANG_GUARD)


def run(text, *arguments, before=()):
    """A program in a process of its own, what it printed as lines."""
    text = textwrap.dedent(text)
    if before:
        command = [*before, sys.executable, "-c", text, *arguments]
        done = subprocess.run(command, timeout=HANG_GUARD, check=False, capture_output=True, text=True)  # noqa: S603 - ours
    else:
        done = run_program(text, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


# What arrives.


def test_a_call_arrives_as_it_was_built(connect, peer):
    """Method, path, query, headers and body reach the server unchanged, and nothing makes it wait for a 100."""
    headers = (("Content-Type", "application/json"), ("X-Empty", ""), ("X-Spaced", " a b "), *TOKEN)
    call = HttpCall("POST", "/tasks/a%2Fb", "x=%20y&z=~", headers, b"\x00{}" * 1_000_000)
    answer = connect(peer).send(call, HANG_GUARD)

    seen = peer.requests[0]
    assert (seen.method, seen.target) == ("POST", "/api/tasks/a%2Fb?x=%20y&z=~")
    assert seen.body == b"\x00{}" * 1_000_000
    assert {"content-type": "application/json", "x-empty": "", "x-spaced": "a b"}.items() <= seen.headers.items()
    assert seen.headers["x-authorization"] == "tok-1"
    assert not {"expect", "cookie", "transfer-encoding"} & set(seen.headers)
    assert answer.status == 200


def test_many_calls_take_turns_on_one_connection(connect, peer):
    """It is kept through GET, POST, empty bodies and failures; nothing of one call is left in the next, no HEAD."""
    transport = connect(peer)
    for _ in range(10):
        assert (
            transport.send(post("p", headers=(("Content-Type", "text/x"), *TOKEN)), HANG_GUARD).body == b"/api/p body"
        )
        assert transport.send(get("g"), HANG_GUARD).body == b"/api/g?a=1 "
        assert transport.send(post("e", b"", ()), HANG_GUARD).body == b"/api/e "
        assert transport.send(get("twice", ()), HANG_GUARD).status == 503

    assert peer.connections == 1
    assert [(seen.method, seen.body) for seen in peer.requests[-4:]] == [
        ("POST", b"body"), ("GET", b""), ("POST", b""), ("GET", b""),
    ]  # fmt: skip
    assert not any({"content-type"} & set(seen.headers) for seen in peer.requests[-3:])
    assert not any({"x-authorization"} & set(seen.headers) for seen in peer.requests[-2:])
    assert {seen.method for seen in peer.requests} == {"GET", "POST"}


def test_payload_is_put_and_nothing_of_it_is_left_in_the_next_call(connect, peer):
    """Large outputs go out with PUT; the polls and updates after it are what they always were."""
    transport = connect(peer)
    put = HttpCall("PUT", "/p", "", (("Content-Type", "application/json"),), b"{}")
    for call in (get("g"), put, put, post("p"), put, get("g")):
        assert transport.send(call, HANG_GUARD).status == 200

    sent = [(seen.method, seen.body) for seen in peer.requests]
    get_, put_, post_ = ("GET", b""), ("PUT", b"{}"), ("POST", b"body")
    assert sent == [get_, put_, put_, post_, put_, get_]
    assert peer.connections == 1


def test_of_two_headers_with_one_name_the_later_counts(connect, peer):
    """A gateway's own header replaces the usual one, whatever its spelling; none arrives twice."""
    connect(peer).send(post(headers=(("Content-Type", "application/json"), ("content-type", "text/x"))), HANG_GUARD)

    assert peer.requests[0].headers["content-type"] == "text/x"


@pytest.mark.parametrize(
    "call",
    [
        get(headers=(("X-Authorization", "secret-1\r\nX-Evil: 1"),)),
        get(headers=(("X-Authorization", "secret-1\nX-Evil: 1"),)),
        get(headers=(("X-Authorization", "secret-1\x00"),)),
        get(headers=(("X-Authorization", "secret-1é"),)),
        get(headers=(("X-Evil: 1\r\nX-Authorization", "secret-1"),)),
        get(headers=(("", "secret-1"),)),
        HttpCall("GET", "/a HTTP/1.1\r\nX-Evil: 1\r\n", "", TOKEN),
        HttpCall("GET", "/a", "b= c", TOKEN),
        HttpCall("GET", "/é", "", TOKEN),
    ],
)
def test_nobody_writes_requests_of_his_own(connect, peer, call):
    """A token or path with a line's end in it is refused before anything is sent, and not shown."""
    transport = connect(peer)
    transport.send(get(), HANG_GUARD)
    error = failure(transport, call)

    assert error.kind is TransportErrorKind.OTHER
    assert "secret-1" not in str(error)
    assert [seen.target for seen in peer.requests] == ["/api/echo?a=1"]
    assert transport.send(get(), HANG_GUARD).status == 200


def test_netrc_is_not_read_and_no_cookie_is_kept(connect, peer, tmp_path, monkeypatch):
    """Nothing that was not in the call or the settings reaches the server."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password private\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    transport = connect(peer)
    transport.send(get("full"), HANG_GUARD)
    transport.send(get(), HANG_GUARD)

    assert len(peer.requests) == 2
    assert not any({"authorization", "cookie"} & set(seen.headers) for seen in peer.requests)


def test_a_server_may_listen_at_an_ipv6_address(connect):
    """An address in brackets is a host like any other."""
    try:
        server = Peer(host="::1")
    except OSError as error:
        pytest.skip(f"this machine has no ::1 ({error})")
    with server:
        assert connect(server).send(get(), HANG_GUARD).body == b"/api/echo?a=1 "
    assert server.requests[0].headers["host"] == f"[::1]:{server.port}"


# What is made of an answer.


def test_an_answer_has_status_body_and_the_headers_that_matter(connect, peer):
    """Names are lower-case."""
    assert connect(peer).send(get("full"), HANG_GUARD) == HttpAnswer(
        503,
        {"content-type": "application/json", "date": "Tue, 24 Nov 2026 08:00:00 GMT", "retry-after": "7"},
        b"{}",
    )


def test_a_header_that_comes_twice_is_a_list(connect, peer):
    """As HTTP has it: no value is lost, none counts more."""
    assert connect(peer).send(get("twice"), HANG_GUARD) == HttpAnswer(503, {"retry-after": "5, 7"})


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("html", 200, b"<html>"), ("empty", 204, b""), ("nothing", 200, b""), ("gzip", 200, b"plain text"),
     ("deflate", 200, b"plain text"), ("rawdeflate", 200, b"plain text"), ("chunked", 200, b"abcdef"),
     ("gzipchunked", 200, b"plain text"), ("close", 200, b"bye"), ("old", 200, b"old"), ("interim", 200, b"final"),
     ("interim_busy", 503, b"final"), ("chunked_busy", 503, b"abc")],
)  # fmt: skip
def test_every_kind_of_answer_is_read_to_its_end(connect, peer, path, status, body):
    """Neither an interim answer nor a trailer can ask for a pause, and the next call works in any case."""
    transport = connect(peer)
    answer = transport.send(get(path), HANG_GUARD)

    assert (answer.status, answer.body) == (status, body)
    assert "retry-after" not in answer.headers
    assert transport.send(get(), HANG_GUARD).body == b"/api/echo?a=1 "


def test_an_answer_to_half_an_upload_is_read(connect, peer):
    """A server that refuses a large body need not read it first."""
    transport = connect(peer)
    answer = transport.send(post("refused_upload", b"x" * 5_000_000), HANG_GUARD)

    assert (answer.status, answer.body) == (413, b"too much")
    assert transport.send(get(), HANG_GUARD).status == 200


def test_ten_megabytes_of_tasks_are_a_batch_like_any_other(connect, peer):
    """Every one of them arrives."""
    tasks = [{"taskId": f"t{n}", "workflowInstanceId": "w", "inputData": {"text": "x" * 10_000}} for n in range(1_000)]
    peer.payload = json.dumps(tasks).encode()
    answer = poll(peer, connect(peer))

    assert len(peer.payload) > 10_000_000
    assert [task.task_id for task in answer.tasks] == [f"t{n}" for n in range(1_000)]
    assert answer.problem is None


def test_a_login_page_is_the_servers_failure(connect, peer):
    """HTML with status 200 is no answer to a poll; when the URL looks odd, the error says so."""
    peer.payload = b"<html>please log in</html>"
    url = peer.url.removesuffix("/api")
    server = ConductorServer(ServerSettings("eu", url))
    with pytest.raises(ServerFailed, match=r"'eu'.*<html>.*does not end in /api"):
        drive(server.poll("payload", "me", 1, 0.0), connect(url), HANG_GUARD)


# Limits.


@pytest.mark.parametrize(
    "path", ["large", "endless", "endless_failure", "endless_redirect", "bomb", "deflate_bomb"]
)  # fmt: skip
def test_an_answer_that_is_too_large_is_not_read_on(connect, peer, path):
    """The limit holds whatever the status, whether the length is told before, never, or hidden by compression."""
    transport = connect(peer, max_answer_bytes=50_000)
    transport.send(get(), HANG_GUARD)
    bomb()  # packed now, not while memory is watched
    tracemalloc.start()
    try:
        error = failure(transport, get(path), 10.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert error.kind is TransportErrorKind.TOO_LARGE
    assert "larger than 50000 bytes" in str(error)
    assert peak < 60_000_000  # an urllib3 before 2.6 unpacks 16 KiB at once, whatever comes of it
    assert transport.send(get(), HANG_GUARD).status == 200


def test_answers_leave_nothing_behind(connect, peer):
    """What a connection holds does not grow with the calls that it had."""
    transport = connect(peer)

    def held_after(calls):
        for _ in range(calls):
            transport.send(get("full"), HANG_GUARD)
        peer.requests.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early, late = held_after(50), held_after(300)
    finally:
        tracemalloc.stop()

    assert late - early < 50_000  # less than the lines of its headers for each


def test_an_answer_of_just_the_limit_is_read(connect, peer):
    """The limit is the largest size that is allowed."""
    assert len(connect(peer, max_answer_bytes=100_000).send(get("large"), HANG_GUARD).body) == 100_000


# Timeouts.


@pytest.mark.parametrize("path", ["silent", "stalled"])
def test_a_server_that_stops_answering_is_a_timeout(connect, peer, path):
    """Nothing and half an answer both end with the timeout, and the next call has a fresh connection."""
    transport = connect(peer)
    assert failure(transport, get(path), 0.2).kind is TransportErrorKind.TIMEOUT
    assert transport.send(get(), HANG_GUARD).body == b"/api/echo?a=1 "
    assert peer.connections == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_only_lets_us_in_is_a_timeout(connect, scheme):
    """A connection that nobody takes up ends with the timeout, also in the middle of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = connect(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
        assert failure(transport, get(), 0.2).kind is TransportErrorKind.TIMEOUT


def test_a_server_that_does_not_let_us_in_is_a_timeout(connect):
    """A host that drops packets: the queue of the listener is full, so that nothing answers our first packet."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        error = failure(connect(f"http://127.0.0.1:{listener.getsockname()[1]}"), get(), 0.3)
        for one in waiting:
            one.close()
    assert error.kind is TransportErrorKind.TIMEOUT


def test_the_shortest_timeout_is_not_none_at_all(connect, peer):
    """Less than a millisecond is taken for a short time."""
    assert failure(connect(peer), get("silent"), 0.000_001).kind is TransportErrorKind.TIMEOUT


@pytest.mark.parametrize("path", ["drip", "drip_head", "drip_heads", "drip_chunks", "drip_size"])
def test_a_dripping_answer_ends_with_the_timeout_if_the_transport_is_bounded(connect, peer, path):
    """Bounded means in total. If it is not, the timeout is one for each read: the call ends when the drip does."""
    transport = connect(peer)
    if transport.bounded:
        assert failure(transport, get(path), 0.2).kind is TransportErrorKind.TIMEOUT
        assert transport.send(get(), HANG_GUARD).status == 200
        return
    peer.drips = 25
    try:
        assert transport.send(get(path), 0.2).status in (200, 204)
    except TransportError as error:
        assert error.kind is TransportErrorKind.TIMEOUT  # noqa: PT017 - both are right
    assert transport.send(get(), HANG_GUARD).status == 200


# Connections that break.


@pytest.mark.parametrize(
    "path",
    ["reset", "reset_body", "gone", "half", "half_head", "half_chunk", "bad_chunk", "garbage", "badgzip", "switch"],
)
def test_a_connection_that_breaks_is_told(connect, peer, path):
    """Each way of breaking is one kind of error, also on a connection that was kept, and nothing is sent twice."""
    transport = connect(peer)
    assert failure(transport, get(path)).kind is TransportErrorKind.BROKEN
    assert transport.send(get(), HANG_GUARD).status == 200
    assert failure(transport, get(path)).kind is TransportErrorKind.BROKEN
    assert transport.send(get(), HANG_GUARD).status == 200
    assert len(peer.requests) == 4


def test_what_is_over_is_never_the_next_calls_answer(connect, peer):
    """An answer longer than it says ends its connection."""
    transport = connect(peer)
    for _ in range(5):
        assert transport.send(get("excess"), HANG_GUARD).body == b"ok"
        assert transport.send(get(), HANG_GUARD).body == b"/api/echo?a=1 "


def test_a_server_that_is_not_there_is_told(connect):
    """A closed port: nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    assert failure(connect(url), get()).kind is TransportErrorKind.CONNECT


def test_a_kept_connection_that_the_server_closed_meanwhile_is_replaced(connect, peer):
    """Neither a GET nor a POST notices, and the dead one is never tried again."""
    transport = connect(peer)
    for call in (get(), post(), get()):
        for _ in range(3):
            assert transport.send(call, HANG_GUARD).status == 200
        peer.hang_up()

    assert len(peer.requests) == 9
    assert peer.connections == 3


@pytest.mark.parametrize("conduct", ["do_gone", "do_reset"])
def test_a_poll_is_never_repeated(connect, peer, conduct):
    """A server that ends the connection after it has read a poll may have handed out tasks: asking again loses them."""
    peer.payload = b"[]"
    transport = connect(peer)
    assert poll(peer, transport).tasks == ()
    peer.do_payload = getattr(peer, conduct)
    with pytest.raises(TransportError) as caught:
        poll(peer, transport)

    assert caught.value.kind is TransportErrorKind.BROKEN
    assert len(peer.requests) == 2


def test_an_update_is_repeated_by_who_knows_that_it_may_be(connect, peer):
    """The transport sends a POST once; a second update of the same result is the caller's, and safe."""
    peer.do_tasks = peer.do_empty
    transport = connect(peer)
    server = ConductorServer(ServerSettings("eu", peer.url))
    drive(server.update(DONE), transport, HANG_GUARD)
    peer.do_tasks = peer.do_gone
    with pytest.raises(TransportError):
        drive(server.update(DONE), transport, HANG_GUARD)
    assert len(peer.requests) == 2

    peer.do_tasks = peer.do_empty
    drive(server.update(DONE), transport, HANG_GUARD)
    assert peer.requests[1].body == peer.requests[2].body


def test_a_connection_that_rested_for_long_is_not_used_again(connect, peer, monkeypatch):
    """The server is about to close it, and a call that crosses the close is lost."""
    transport = connect(peer)
    monkeypatch.setattr(sys.modules[type(transport).__module__], "MAX_IDLE", 1)
    transport.send(get(), HANG_GUARD)
    before = peer.connections
    threading.Event().wait(1.3)
    transport.send(get(), HANG_GUARD)

    assert peer.connections == before + 1


def test_a_connection_that_never_rests_is_left_all_the_same(connect, peer, monkeypatch):
    """It would lead to a server's old address for as long as that answers."""
    monkeypatch.setattr(base, "LIFE", (1.0, 1.0))
    transport = connect(peer)
    transport.send(get(), HANG_GUARD)

    deadline = time.monotonic() + HANG_GUARD
    while peer.connections == 1 and time.monotonic() < deadline:
        transport.send(get(), HANG_GUARD)
        threading.Event().wait(0.05)

    assert peer.connections == 2


def test_connections_do_not_all_end_at_once():
    """Their lives differ, and are some minutes at most."""
    lives = [base.connection_life() for _ in range(100)]

    assert all(180 <= life <= 300 for life in lives)
    assert max(lives) - min(lives) > 30


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("elsewhere", ["other", "same"])
@pytest.mark.parametrize("call", [get, post])
def test_no_redirect_is_followed(connect, peer, status, elsewhere, call):
    """It is an answer like any other; where it points to never hears of us, not even on the same host."""
    transport = connect(peer)
    with Peer() as other:
        peer.elsewhere = f"{(other if elsewhere == 'other' else peer).url}/echo"
        answer = transport.send(call(str(status)), HANG_GUARD)
        assert other.connections == 0

    assert (answer.status, answer.body) == (status, b"moved")
    assert len(peer.requests) == 1


@pytest.mark.parametrize("elsewhere", ["http://[", "http://:x@", "//", "\x7f", "http://127.0.0.1:99999/"])
def test_a_redirect_to_nowhere_is_an_answer_too(connect, peer, elsewhere):
    """Nobody reads where it points to; to whom it matters, the error says what to do."""
    peer.do_payload = lambda stream, _: peer.say(stream, b"", f"Location: {elsewhere}", status="302 Found")
    with pytest.raises(ServerFailed, match="credentials are never sent along: set its url"):
        poll(peer, connect(peer))


# Trust.


def self_signed(_authority, tmp_path):
    """An authority that stands up for itself."""
    certificate = trustme.CA()
    certificate.cert_pem.write_to_path(tmp_path / "self.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "self.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "self.pem", tmp_path / "self.key")
    return context


def unknown(_authority, _tmp_path):
    """A certificate of an authority that is not trusted."""
    return tls_of(trustme.CA().issue_cert("127.0.0.1"))


def other_host(authority, _tmp_path):
    """A certificate for somebody else."""
    return tls_of(authority.issue_cert("127.0.0.2", "elsewhere.example"))


def expired(authority, _tmp_path):
    """A certificate of last year's."""
    past = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    return tls_of(authority.issue_cert("127.0.0.1", not_before=past[0], not_after=past[1]))


@pytest.mark.parametrize("wrong", [self_signed, unknown, other_host, expired])
def test_a_wrong_certificate_is_refused(connect, authority, bundle, tmp_path, wrong):
    """There is no call, and nothing was sent; whoever says verify=False takes the server as it is, unwarned."""
    with Peer(wrong(authority, tmp_path)) as server:
        assert failure(connect(server, verify=bundle), get()).kind is TransportErrorKind.TLS
        assert server.requests == []
        assert connect(server, verify=False).send(get(), HANG_GUARD).status == 200


def test_a_server_that_speaks_no_tls_is_told(connect, peer, bundle):
    """An https URL that leads to a plain server."""
    url = peer.url.replace("http:", "https:")
    assert failure(connect(url, verify=bundle), get()).kind is TransportErrorKind.TLS


def test_the_bundle_to_trust_comes_from_the_settings_then_the_environment(
    connect, secure_peer, bundle, tmp_path, monkeypatch
):
    """The order is: settings, three variables, certifi; verify=False checks nothing."""
    bad = tmp_path / "bad.pem"
    trustme.CA().cert_pem.write_to_path(bad)

    def trusts(**options):
        try:
            return connect(secure_peer, **options).send(get(), HANG_GUARD).status == 200
        except TransportError:
            return False

    assert not trusts()
    assert trusts(verify=bundle)
    for variable in reversed(BUNDLES):
        monkeypatch.setenv(variable, bundle)
        assert trusts()
        assert not trusts(verify=str(bad))
        monkeypatch.setenv(variable, str(bad))
        assert not trusts()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bad))
    assert not trusts()
    assert trusts(verify=bundle)
    assert trusts(verify=False)


@pytest.mark.parametrize("variable", BUNDLES)
def test_a_bundle_of_the_environment_that_is_not_there_is_told_at_once(connect, tmp_path, monkeypatch, variable):
    """A typing error is not the server's failure; for a server without TLS it does not matter."""
    monkeypatch.setenv(variable, str(tmp_path / "absent.pem"))
    with pytest.raises(ValueError, match=rf"{variable} .*absent.pem.*there is no such file"):
        connect("https://127.0.0.1/api")
    connect("http://127.0.0.1/api")


@pytest.mark.parametrize(("wrong", "told"), [(unknown, True), (other_host, False), (expired, False)])
def test_who_is_not_trusted_and_how_to_trust_them_is_told(connect, authority, bundle, wrong, told):
    """What is trusted now, and each way to name something else; not where that would not help."""
    with Peer(wrong(authority, None)) as server:
        problem = str(failure(connect(server, verify=bundle), get()))

    assert [words in problem for words in (bundle, "verify=", *BUNDLES)] == [told] * 5


def test_a_bundle_without_a_certificate_is_told(connect, authority, tmp_path):
    """It is the bundle that is wrong, and the error says which it is and how to name another."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    with Peer(unknown(authority, tmp_path)) as server:
        problem = str(failure(connect(server, verify=str(empty)), get()))

    assert f"the trusted certificates are those in {empty}" in problem


def test_a_folder_of_certificates_will_do(connect, secure_peer, bundle, tmp_path):
    """Its files are found by the names that OpenSSL gives them; without those nobody is trusted."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to name the file in the folder")
    folder = tmp_path / "trusted"
    folder.mkdir()
    assert failure(connect(secure_peer, verify=str(folder)), get()).kind is TransportErrorKind.TLS

    hashed = subprocess.check_output([openssl, "x509", "-hash", "-noout", "-in", bundle], text=True)  # noqa: S603 - ours
    shutil.copy(bundle, folder / f"{hashed.strip()}.0")
    assert connect(secure_peer, verify=str(folder)).send(get(), HANG_GUARD).status == 200


# Proxies.


def test_a_proxy_from_the_environment_is_used(connect, peer, monkeypatch):
    """In either spelling; a list of hosts goes without."""
    with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        through = connect(peer)
        assert through.send(post(), HANG_GUARD).body == b"/api/echo body"
        assert proxy.requests[0].target == f"{peer.url}/echo"

        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.0/8")
        assert connect(peer).send(get(), HANG_GUARD).status == 200
        proxy.wait_for(lambda: proxy.open == 0)
        assert through.send(get(), HANG_GUARD).status == 200
    assert [seen.target.endswith("/api/echo?a=1") for seen in proxy.requests] == [False, True]
    assert len(peer.requests) == 3


def test_a_proxys_tunnel_hides_the_call(connect, secure_peer, bundle, monkeypatch):
    """With TLS the proxy sees neither path nor token, the server not the proxy's password."""
    with Proxy("me:pa:ss") as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:pa%3Ass@127.0.0.1:{proxy.port}")
        transport = connect(secure_peer, verify=bundle)
        answers = [transport.send(get(), HANG_GUARD) for _ in range(3)]

    assert [answer.body for answer in answers] == [b"/api/echo?a=1 "] * 3
    assert "retry-after" not in answers[0].headers
    assert [(seen.method, seen.target) for seen in proxy.requests] == [("CONNECT", f"127.0.0.1:{secure_peer.port}")]
    assert "x-authorization" not in proxy.requests[0].headers
    assert "proxy-authorization" not in secure_peer.requests[0].headers
    assert secure_peer.connections == 1


def test_a_tunnel_changes_nothing_about_trust(connect, secure_peer, monkeypatch):
    """The server's certificate is checked behind a proxy too, and verify=False is as quiet there."""
    with Proxy() as proxy:
        monkeypatch.setenv("all_proxy", proxy.url)
        assert failure(connect(secure_peer), get()).kind is TransportErrorKind.TLS
        assert connect(secure_peer, verify=False).send(get(), HANG_GUARD).status == 200
        assert len(proxy.requests) == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_told(connect, scheme, monkeypatch):
    """As a connection that could not be made, without its password."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret-2@127.0.0.1:{port}")
    error = failure(connect(f"{scheme}://127.0.0.1/api"), get())

    assert error.kind is TransportErrorKind.CONNECT
    assert "secret-2" not in str(error)


def test_a_proxy_that_refuses_a_tunnel_is_told(connect, secure_peer, bundle, monkeypatch):
    """It is no answer of the server's: there was no connection to it."""
    with Proxy("me:right") as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:secret-2@127.0.0.1:{proxy.port}")
        error = failure(connect(secure_peer, verify=bundle), get())

    assert error.kind is TransportErrorKind.CONNECT
    assert "407" in str(error)
    assert "secret-2" not in str(error)
    assert secure_peer.connections == 0


@pytest.mark.parametrize(
    "proxy", ["http://me:secret-2@:3128", "http://me:secret-2/x@proxy:3128", "gopher://me:secret-2@proxy", "http://p:x"]
)
def test_a_proxy_that_is_no_url_is_told_at_once(connect, proxy, monkeypatch):
    """The variable is named, its value is not shown."""
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ValueError, match="http_proxy is not the URL of a proxy") as caught:
        connect("http://127.0.0.1/api")
    assert "secret-2" not in str(caught.value)


# Secrets.


@pytest.mark.parametrize("path", ["echo", "302", "silent", "stalled", "reset", "half", "garbage", "badgzip", "bomb"])
def test_no_secret_is_written_anywhere(connect, peer, path, monkeypatch, caplog):
    """Neither in errors nor in logs, at any level: not the token, not a gateway's header, not the proxy's password."""
    caplog.set_level(logging.DEBUG)
    peer.elsewhere = "http://127.0.0.1:9/"
    headers = (("X-Authorization", "secret-1"), ("Authorization", "Basic secret-3"))
    with Proxy("me:secret-2") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        transport = connect(peer, max_answer_bytes=1000)
        told = [repr(transport), caplog.text]
        try:
            told.append(repr(transport.send(get(path, headers), 0.5 if path in ("silent", "stalled") else 10.0)))
        except TransportError as error:
            told += [str(error), repr(error)]
    assert peer.requests[0].headers["x-authorization"] == "secret-1"
    assert "secret" not in "".join([*told, caplog.text])


def test_what_a_server_echoes_is_not_told_on(connect, peer):
    """A line that is no HTTP may repeat what was sent; an error that quotes it leaves that out."""
    peer.do_echo = lambda stream, seen: stream.sendall(f"{seen.headers['x-authorization']}\r\n\r\n".encode()) or False
    assert "secret-1" not in str(failure(connect(peer), get(headers=(("X-Authorization", "secret-1"),))))


# Threads, processes, names.


def test_threads_get_their_own_answers(connect, peer):
    """32 threads share a transport; nobody sees another's answer, and there are no more connections than threads."""
    transport = connect(peer)
    barrier = threading.Barrier(32)

    def ask(thread):
        barrier.wait(HANG_GUARD)
        return [transport.send(post(f"{thread}-{n}", b"%d" % n), HANG_GUARD).body for n in range(50)]

    with ThreadPoolExecutor(32) as pool:
        bodies = list(pool.map(ask, range(32)))
    assert bodies == [[f"/api/{thread}-{n} {n}".encode() for n in range(50)] for thread in range(32)]
    assert peer.connections <= 32


def test_a_closed_transport_holds_no_connection(connect, peer):
    """Closing ends what is idle, of every thread; twice does no harm, and a call afterwards simply connects again."""
    transport = connect(peer)
    transport.close()
    asked, closed, together = threading.Event(), threading.Event(), threading.Barrier(4)

    def ask():
        together.wait(HANG_GUARD)
        transport.send(get(), HANG_GUARD)
        if together.wait(HANG_GUARD) == 0:
            asked.set()
        closed.wait(HANG_GUARD)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask)
        assert asked.wait(HANG_GUARD)
        transport.close()
        transport.close()
        peer.wait_for(lambda: peer.open == 0)
        closed.set()
    assert transport.send(get(), HANG_GUARD).status == 200


def test_threads_that_end_leave_nothing_behind(connect, peer):
    """As many connections stay as calls ran at once, however many threads there were, and nobody warns of the rest."""
    transport = connect(peer)
    for _ in range(5):
        thread = threading.Thread(target=transport.send, args=(get(), HANG_GUARD))
        thread.start()
        thread.join(HANG_GUARD)

    assert len(peer.requests) == 5
    peer.wait_for(lambda: peer.open <= 1)


@pytest.fixture
def servers(peer, secure_peer):
    """One without TLS and one with it."""
    return peer, secure_peer


FORKING = """
    import os, sys
    from conductor_adapter.settings.server_settings import ServerSettings
    from conductor_adapter.transports import choose
    from conductor_adapter.client.messages import HttpCall

    name, url, verify, child_calls, parent_calls = sys.argv[1:]
    transport = choose(name)(ServerSettings("eu", url, verify=verify or True))

    def ask(who, times):
        for number in range(times):
            path = f"/{who}-{number}"
            assert transport.send(HttpCall("GET", path), 60.0).body == f"/api{path} ".encode()

    ask("before", 3)
    child = os.fork()
    if child == 0:
        ask("child", int(child_calls))
        transport.close()
        sys.exit()
    ask("during", int(parent_calls))
    assert os.waitpid(child, 0)[1] == 0
    ask("after", 3)
"""


@pytest.mark.parametrize("child_calls", [100, 0])
@pytest.mark.parametrize("encrypted", [False, True])
def test_parent_and_child_never_get_each_others_answers(servers, bundle, name, encrypted, child_calls):
    """Both use the same transport after a fork; a child's end, used it or not, leaves the parent's connection alone."""
    server = servers[encrypted]
    run(FORKING, name, server.url, bundle if encrypted else "", str(child_calls), str(child_calls))

    assert len(server.requests) == 6 + 2 * child_calls
    assert server.connections == (2 if child_calls else 1)
    parents = {seen.connection for seen in server.requests if "child" not in seen.target}
    assert len(parents) == 1


NAMESPACE = """
    import fcntl, os, socket, struct, subprocess, sys, tempfile, threading

    # The loopback device of a new network is down; the files of a new mount namespace can be replaced.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1))

    def replace(path, text):
        with tempfile.NamedTemporaryFile("w", delete=False) as file:
            file.write(text)
        subprocess.run(["mount", "--bind", file.name, path], check=True)

    def ask(name, url, timeout, verify=True):
        from conductor_adapter.settings.server_settings import ServerSettings
        from conductor_adapter.transports import choose
        from conductor_adapter.client.messages import HttpCall, TransportError
        transport = choose(name)(ServerSettings("eu", url, verify=verify))
        try:
            print(transport.send(HttpCall("GET", "/echo"), timeout).status, flush=True)
        except TransportError as error:
            print(error.kind.name, flush=True)
        transport.close()

    def answer(query):
        # The question as it came, and 127.0.0.1 if an IPv4 address was asked for.
        head, asked = query[:2], query[12:].partition(b"\\0")
        question = asked[0] + asked[1] + asked[2][:4]
        found = [b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\0\\0\\4\\x7f\\0\\0\\1"] if asked[2][:2] == b"\\0\\1" else []
        return head + b"\\x81\\x80\\0\\1" + struct.pack(">H", len(found)) + b"\\0\\0\\0\\0" + question + b"".join(found)

    def name_server(delay):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 53))
            started.set()
            while True:
                query, client = server.recvfrom(512)
                if delay is not None:
                    threading.Event().wait(delay)
                    server.sendto(answer(query), client)

    started = threading.Event()
"""


@pytest.fixture(scope="module")
def apart():
    """What runs a program where names and trusted certificates are the test's."""
    unshare = shutil.which("unshare")
    for rights in ([], ["--map-root-user"]):
        command = [str(unshare), *rights, "--net", "--mount"]
        if unshare and subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0:  # noqa: S603 - ours
            return command
    pytest.skip("this machine does not let us make a network and mount namespace (unshare --net --mount)")


def test_a_name_that_is_found_slowly_is_found(apart, name):
    """A slow name server costs time, nothing else."""
    program = f"""
        {textwrap.indent(textwrap.dedent(NAMESPACE), " " * 8)}
        sys.path.insert(0, {str(Path(__file__).parents[2] / "support")!r})
        from http_peers import Peer
        replace("/etc/resolv.conf", "nameserver 127.0.0.1")
        threading.Thread(target=name_server, args=(0.1,), daemon=True).start()
        started.wait()
        with Peer() as peer:
            ask({name!r}, peer.url.replace("127.0.0.1", "slow.example"), 60.0)
    """
    assert run(program, before=apart) == ["200"]


@pytest.mark.parametrize("old", ["dies", "lives"])
def test_a_server_whose_name_moves_is_followed(apart, name, old):
    """After an error at once, else when the connection has lived for long enough; no cache of names keeps it."""
    program = f"""
        {textwrap.indent(textwrap.dedent(NAMESPACE), " " * 8)}
        sys.path.insert(0, {str(Path(__file__).parents[2] / "support")!r})
        from conductor_adapter.settings.server_settings import ServerSettings
        from conductor_adapter.transports import base, choose
        from conductor_adapter.client.messages import HttpCall, TransportError
        from http_peers import HANG_GUARD, Peer

        base.LIFE = (1.0, 1.0) if {old!r} == "lives" else base.LIFE
        new = Peer(host="127.0.0.2")
        old = Peer(host="127.0.0.1", port=new.port)
        replace("/etc/hosts", "127.0.0.1 moves.example")
        transport = choose({name!r})(ServerSettings("eu", f"http://moves.example:{{new.port}}/api"))
        transport.send(HttpCall("GET", "/echo"), HANG_GUARD)
        replace("/etc/hosts", "127.0.0.2 moves.example")
        if {old!r} == "dies":
            old.stop()
        failed = 0
        while not new.requests and failed < 3:
            try:
                transport.send(HttpCall("GET", "/echo"), HANG_GUARD)
            except TransportError:
                failed += 1
        print(failed < 3, len(old.requests) > 1)
    """
    assert run(program, before=apart) == [f"True {old == 'lives'}"]


def test_a_name_server_that_is_silent_holds_nobody(apart, name):
    """A bounded call ends with its timeout, and neither closing nor the process's end waits for the resolver.

    If it is not bounded, the call ends with the resolver's patience, here a second instead of the bounded's 30.
    """
    bounded = choose(name).bounded
    program = f"""
        {textwrap.indent(textwrap.dedent(NAMESPACE), " " * 8)}
        replace("/etc/resolv.conf", "nameserver 127.0.0.1\\noptions timeout:{30 if bounded else 1} attempts:1")
        threading.Thread(target=name_server, args=(None,), daemon=True).start()
        started.wait()
        ask({name!r}, "http://slow.example/api", 0.2)
    """
    assert run(program, before=apart) == ["TIMEOUT" if bounded else "CONNECT"]


def test_only_the_chosen_certificates_are_trusted(apart, name, authority, bundle, tmp_path):
    """Not those that the machine trusts besides: a private bundle, or folder, is all there is."""
    machine = "/etc/ssl/certs/ca-certificates.crt"
    if not Path(machine).exists():
        pytest.skip(f"this machine has no {machine} to be replaced")
    folder, other = tmp_path / "none", tmp_path / "other.pem"
    folder.mkdir()
    trustme.CA().cert_pem.write_to_path(other)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    program = f"""
        {textwrap.indent(textwrap.dedent(NAMESPACE), " " * 8)}
        import ssl
        sys.path.insert(0, {str(Path(__file__).parents[2] / "support")!r})
        from http_peers import Peer
        replace({machine!r}, open({bundle!r}).read())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain({str(tmp_path / "server.pem")!r})
        with Peer(context) as peer:
            for verify in ({machine!r}, {str(folder)!r}, {str(other)!r}):
                ask({name!r}, peer.url, 60.0, verify)
    """
    assert run(program, before=apart) == ["200", "TLS", "TLS"]
