"""``check`` and ``dev-server``: what a server is like, and one to try against."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import attrs
import certifi
import pytest
import trustme
from commands import COMMAND, GUARD, URL, command, refused
from http_peers import Peer

from conductor_adapter import Credentials, DevServer, ServerSettings
from conductor_adapter.cli import check as check_module
from conductor_adapter.cli.health import Wanted, ask_all
from conductor_adapter.client.messages import HttpAnswer, HttpCall, TransportError, TransportErrorKind
from conductor_adapter.transports import choose


@pytest.fixture
def server() -> Iterator[DevServer]:
    """An embedded server with two tasks waiting."""
    with DevServer(name="eu") as server:
        server.start_tasks("greet", 2)
        yield server


def test_check_tells_what_waits_and_takes_nothing(server: DevServer) -> None:
    """A server that works is ok, with its version, latency and queues, and no task is assigned by asking."""
    done = command("check", "--server", f"eu={server.url}", "--task", "greet")

    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"eu  http://\S+  ok  3\.32\.1  [\d.]+ ms  auth none  batch poll, update-v2, queue sizes  greet=2\n",
        done.stdout,
    )
    assert server.counts()["handed out"] == 0


def test_check_without_task_types_shows_every_queue(server: DevServer) -> None:
    """Nothing has to be named to see what waits."""
    assert "greet=2" in command("check", "--server", f"eu={server.url}").stdout


def test_check_speaks_json(server: DevServer) -> None:
    """One object per server."""
    done = command("check", "--server", f"eu={server.url}", "--task", "nope", "--json")

    (row,) = map(json.loads, done.stdout.splitlines())
    assert (row["name"], row["problem"], row["waiting"], row["unknown"]) == ("eu", None, {"nope": 0}, ["nope"])


def test_check_fails_when_no_server_knows_a_task_type(server: DevServer) -> None:
    """So it can gate a deployment: a name that is mistyped is told, on standard error, and the status is 1."""
    options = ("--server", f"eu={server.url}", "--task", "greet", "--task", "greeet", "--task", "ship")

    done = command("check", *options, "--json")

    assert done.returncode == 1
    assert done.stderr == "".join(
        f"conductor-adapter: no server knows task type {name!r}: correct the name, or register the task type first\n"
        for name in ("greeet", "ship")
    )
    assert json.loads(done.stdout)["unknown"] == ["greeet", "ship"]


def test_check_passes_when_one_server_knows_a_task_type(server: DevServer) -> None:
    """It may be meant for that one alone: the other is remarked on, and the status is 0."""
    with DevServer(name="us") as other:
        done = command("check", "--server", f"eu={server.url}", "--server", f"us={other.url}", "--task", "greet")

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^us .* task type 'greet' is unknown there$", done.stdout, re.MULTILINE)


def test_check_says_so_of_the_servers_that_answer(server: DevServer) -> None:
    """One that is away hides no mistake at the others."""
    done = command("check", "--server", f"eu={server.url}", "--server", f"dead={URL}", "--task", "greeet")

    assert done.returncode == 1
    assert "no server knows task type 'greeet'" in done.stderr


def test_check_of_servers_that_are_away_says_nothing_of_task_types() -> None:
    """Nobody knows what they know."""
    done = command("check", "--server", f"dead={URL}", "--task", "greeet")

    assert (done.returncode, done.stderr) == (1, "")


def test_check_draws_a_table_on_a_terminal(server: DevServer) -> None:
    """A person at a terminal gets columns."""
    options = ("--server", f"eu={server.url}", "--server", f"dead={URL}", "--task", "nope")
    done = command("check", *options, FORCE_COLOR="1", TTY_COMPATIBLE="1")

    assert "latency" in done.stdout
    assert "━" in done.stdout
    below = done.stdout.rpartition("┘")[2]
    assert "eu: task type 'nope' is unknown there" in below
    assert "dead: Failed to connect to " in below


def test_check_says_nothing_below_the_table_of_a_server_that_is_well(server: DevServer) -> None:
    """Where there is nothing to remark, nothing is remarked."""
    done = command("check", "--server", f"eu={server.url}", "--task", "greet", FORCE_COLOR="1", TTY_COMPATIBLE="1")

    assert done.stdout.rpartition("┘")[2].strip().removesuffix("\x1b[0m") == ""


def test_check_fails_when_one_server_does_and_names_it(server: DevServer) -> None:
    """Exit status 1, the problem in words, and the others are told all the same."""
    done = command("check", "--server", f"eu={server.url}", "--server", f"dead={URL}")

    assert done.returncode == 1
    assert re.search(r"^eu .* ok ", done.stdout, re.MULTILINE)
    assert re.search(r"^dead .*Failed to connect|^dead .*refused", done.stdout, re.MULTILINE)


def test_check_is_not_held_up_by_a_server_that_hangs(server: DevServer) -> None:
    """A hung server costs five seconds, not the answer."""
    with DevServer(name="hung") as hung:
        hung.faults.set(hang=True)
        done = command("check", "--server", f"eu={server.url}", "--server", f"hung={hung.url}")

    assert done.returncode == 1
    assert "no answer within 5 s" in done.stdout or "timed out" in done.stdout


def test_check_says_that_credentials_are_rejected() -> None:
    """Wrong credentials are a problem of their own, and never shown."""
    with DevServer(name="eu", credentials=Credentials("key", "right")) as locked:
        options = ("check", "--server", f"eu={locked.url}", "--json")
        wrong = command(*options, CONDUCTOR_AUTH_KEY_EU="key", CONDUCTOR_AUTH_SECRET_EU="wrong-one")  # noqa: S106 - made up
        right = command(*options, CONDUCTOR_AUTH_KEY_EU="key", CONDUCTOR_AUTH_SECRET_EU="right")  # noqa: S106 - made up

    assert (wrong.returncode, json.loads(wrong.stdout)["auth"]) == (1, "rejected")
    assert "wrong-one" not in wrong.stdout + wrong.stderr
    assert (right.returncode, json.loads(right.stdout)["auth"]) == (0, "ok")


def test_check_hints_at_a_missing_api(server: DevServer) -> None:
    """Where /api is missing, the way out is in the answer."""
    done = command("check", "--server", f"eu={server.url.removesuffix('/api')}")

    assert done.returncode == 1
    assert "does not end in /api" in done.stdout


def test_check_hints_at_a_missing_api_of_a_server_that_is_not_there() -> None:
    """The hint is given whatever the problem is."""
    assert "does not end in /api" in command("check", "--server", "dead=http://127.0.0.1:9").stdout


class Versionless:
    """A transport to a server that has everything but a version."""

    bounded = True

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:  # noqa: ARG002 - a transport's signature
        """Answer as Conductor does."""
        if call.path == "/version":
            return HttpAnswer(
                405, {"content-type": "application/json"}, b'{"status":405,"message":"no","retryable":false}'
            )
        body = b"{}" if "queue" in call.path else b"[]"
        return HttpAnswer(200, {"content-type": "application/json"}, body)

    def close(self) -> None:
        """Nothing is open."""


class PollsOnly(Versionless):
    """A transport through a gateway that lets polls by and nothing else."""

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """Refuse what is no poll."""
        return super().send(call, timeout) if "/poll/" in call.path else HttpAnswer(403, {}, b"no")


class TakesAnything(Versionless):
    """A transport to something that is no Conductor: it is fine with whatever it gets."""

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """Say yes."""
        return HttpAnswer(204) if call.path.endswith("update-v2") else super().send(call, timeout)


class TakesNothing(Versionless):
    """A transport to a server that is too busy for results."""

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """Refuse results."""
        return HttpAnswer(503, {}, b"busy") if call.method == "POST" else super().send(call, timeout)


class Breaking(Versionless):
    """A transport whose connection breaks at one path."""

    at = ""

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """Break, or answer."""
        if call.path.endswith(self.at):
            raise TransportError(TransportErrorKind.BROKEN, "it broke")
        return super().send(call, timeout)


def test_server_that_does_not_tell_its_version_is_still_ok() -> None:
    """A version is nice to know, and no reason to call a server broken."""
    (health,) = ask_all([ServerSettings("eu", URL)], [], Versionless, GUARD)

    assert (health.problem, health.version) == (None, None)


class Rude(Versionless):
    """A transport to a server whose version and queue names are no fit words for a terminal."""

    def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
        """Say rude things."""
        if call.path == "/version":
            return HttpAnswer(200, {}, b"\x1b]0;pwned\x07v1\n[/] :boom: " + b"A" * 3000)
        if "queue" in call.path:
            names = {"a\nb  http://eu  ok": 1, "\x1b[2J": 2, "\ud800": 10**30, "B" * 300: 3, "_DECIDER": 9}
            return HttpAnswer(200, {}, json.dumps(names).encode())
        return super().send(call, timeout)


def test_what_a_server_says_of_itself_is_shown_in_one_line_and_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither control characters nor half a letter nor an endless name get to the terminal, and no markup is read."""
    (health,) = ask_all([ServerSettings("eu", URL)], [], Rude, GUARD)
    assert health.version == "?]0;pwned?v1 [/] :boom: " + "A" * (200 - 24) + "…"
    assert health.waiting == {"a b http://eu ok": 1, "?[2J": 2, "?": 10**30, "B" * 200 + "…": 3}

    plain = attrs.evolve(health, version="[/] :boom:", waiting={})
    monkeypatch.setattr(check_module, "ask_all", lambda *_args, **_options: [plain])
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert check_module.check([f"eu={URL}"], None, [], "auto", as_json=False) == 0
    drawn = capsys.readouterr().out
    assert "━" in drawn
    assert "[/] :boom:" in drawn


def test_check_writes_what_its_output_cannot_hold_in_another_way() -> None:
    """An output in plain ASCII, or bytes of an argument that are no text, end in no stack trace."""
    done = command("check", "--server", "eu=http://127.0.0.1:9/ü", PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stderr) == (1, "")
    assert r"http://127.0.0.1:9/\xfc" in done.stdout
    for odd in (("--server", f"eu={URL}", "--task", "\udce4"), ("--server", "eu=http://h\udce4/api")):
        assert r"\udce4" in refused(command("check", *odd))


def test_gateway_that_lets_only_polls_by_is_told_as_it_is() -> None:
    """What is refused beside the polls is named as missing; the server can be worked with."""
    (health,) = ask_all([ServerSettings("eu", URL)], [Wanted("greet")], PollsOnly, GUARD, v2=True)

    assert health.problem is None
    assert health.endpoints == {"batch poll": True, "update-v2": False, "queue sizes": False}
    assert (health.version, health.waiting, health.unknown) == (None, {}, ())


def test_whoever_takes_a_result_of_no_workflow_has_no_update_v2() -> None:
    """Conductor refuses such a result."""
    (health,) = ask_all([ServerSettings("eu", URL)], [], TakesAnything, GUARD, v2=True)

    assert health.endpoints["update-v2"] is False


def test_check_fails_for_a_server_that_takes_no_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it has update-v2 does not show then, and is not denied."""
    (health,) = ask_all([ServerSettings("eu", URL)], [], TakesNothing, GUARD, v2=True)
    assert health.endpoints["update-v2"] is None
    assert health.problem == "accepts no results now: update-v2: HTTP 503: busy"

    monkeypatch.setattr(check_module, "ask_all", lambda *_args, **_options: [health])
    assert check_module.check([f"eu={URL}"], None, [], "auto", as_json=False) == 1
    assert "batch poll, perhaps update-v2, queue sizes  -  accepts no results now: " in capsys.readouterr().out


def test_table_of_check_fits_a_terminal() -> None:
    """At 80 columns neither a head nor a version is cut into pieces; what a server lacks stands below."""
    with DevServer(name="old", update_v2=False) as old:
        url = old.url
        done = command("check", "--server", f"old={url}", FORCE_COLOR="1", TTY_COMPATIBLE="1", COLUMNS="80")

    for whole in ("state", "version", "latency", "3.32.1", url):
        assert whole in done.stdout
    assert "old: no update-v2" in done.stdout.rpartition("┘")[2]


def test_look_at_a_server_sends_it_no_result() -> None:
    """A running worker's look at its servers only reads: a made-up result would stand in their logs as an error."""
    sent: list[str] = []

    class Reading(Versionless):
        """A transport that notes the methods of its calls."""

        def send(self, call: HttpCall, timeout: float) -> HttpAnswer:
            """Note and answer."""
            sent.append(call.method)
            return super().send(call, timeout)

    (health,) = ask_all([ServerSettings("eu", URL)], [Wanted("greet")], Reading, GUARD)

    assert health.endpoints == {"batch poll": True, "queue sizes": True}
    assert set(sent) == {"GET"}


@pytest.mark.parametrize("path", ["update-v2", "queue/all", "version"])
def test_connection_that_breaks_on_the_way_is_a_problem(path: str) -> None:
    """A refusal is an answer; a broken connection is none."""
    transport = type("BreakingThere", (Breaking,), {"at": path})

    (health,) = ask_all([ServerSettings("eu", URL)], [], transport, GUARD, v2=True)

    assert health.problem == "it broke"


def test_check_says_that_an_older_server_has_no_update_v2() -> None:
    """Servers before 3.21.12 have only the plain update; that is no problem."""
    with DevServer(name="old", update_v2=False) as old:
        done = command("check", "--server", f"old={old.url}")

    assert done.returncode == 0
    assert "batch poll, no update-v2, queue sizes" in done.stdout


def test_check_polls_under_its_own_name_only(server: DevServer) -> None:
    """Who looks at a server's poll data must not find a worker that is none."""
    command("check", "--server", f"eu={server.url}", "--task", "greet")

    with urllib.request.urlopen(f"{server.url}/tasks/queue/polldata?taskType=greet") as answer:  # noqa: S310 - our server
        assert json.load(answer) == []


def test_server_with_a_domain_is_asked_for_what_waits_in_it(server: DevServer) -> None:
    """The server's own domain wins over the worker's, as it does for polls."""
    server.start_tasks("greet", 3, domain="blue")
    settings = ServerSettings("eu", server.url, domain="blue")

    (health,) = ask_all([settings], [Wanted("greet", "red")], choose("auto"), GUARD, v2=True)

    assert health.waiting == {"blue:greet": 3}


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_of_check_who_goes_away_sees_no_stack_trace(server: DevServer, unbuffered: str) -> None:
    """`check | head -c 0` ends quietly, whether the output is buffered or not."""
    arguments = [COMMAND, "check", "--server", f"eu={server.url}"]
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdout=pipe, stderr=pipe, env=environ) as process:  # noqa: S603 - our own command
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        assert (process.wait(GUARD), process.stderr.read()) == (1, b"")


def test_check_without_servers_is_one_line() -> None:
    """No server is bad usage."""
    assert "no server is configured" in refused(command("check"))


def test_check_names_credentials_that_no_server_reads(server: DevServer) -> None:
    """A variable of another name is one line on standard error, without its value; what servers say is as always."""
    done = command("check", "--server", f"eu={server.url}", CONDUCTOR_AUTH_KEY_UE="s3cret")

    assert "CONDUCTOR_AUTH_KEY_UE, which no server reads: server 'eu' reads CONDUCTOR_AUTH_KEY_EU" in done.stderr
    assert (done.returncode, done.stderr.count("\n"), done.stdout.count("\n")) == (0, 1, 1)
    assert "s3cret" not in done.stdout + done.stderr


def test_dev_server_serves_until_it_is_told_to_stop() -> None:
    """The command alone is a Conductor-compatible server with work on it."""
    arguments = [COMMAND, "dev-server", "--port", "0", "--seed-tasks", "greet=3", "--payload-threshold", "1000"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
        assert process.stdout is not None
        url = re.search(r"http://\S+/api", process.stdout.readline())
        assert url is not None
        assert "greet=3" in command("check", "--server", f"eu={url[0]}").stdout
        place = f"{url[0]}/tasks/externalstoragelocation?path=x&operation=READ&payloadType=TASK_INPUT"
        with urllib.request.urlopen(place, timeout=GUARD) as answer:  # noqa: S310 - our own server
            assert json.load(answer)["uri"] == f"{url[0]}/external/x"
        process.send_signal(signal.SIGTERM)

        assert process.wait(GUARD) == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--faults", "flood"], "unknown fault 'flood'"),
        (["--faults", "latency=soon"], "neither a number"),
        (["--faults", "error=503 only=polls"], "separate faults by commas"),
        (["--faults", '{"error": 503'], "must be a JSON object"),
        (["--payload-threshold", "0"], "--payload-threshold"),
        (["--seed-tasks", "greet"], "must be TYPE=N"),
        (["--seed-tasks", "greet=many"], "must be TYPE=N"),
        (["--seed-tasks", "greet=0"], "must be TYPE=N"),
        (["--port", "eighty"], "--port"),
        (["--port", "65536"], "--port"),
        (["--port", "-1"], "--port"),
        (["--state", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_bad_options_of_the_dev_server_get_one_line(options: list[str], expected: str) -> None:
    """What is wrong is named, and nothing is served."""
    assert expected in refused(command("dev-server", "--port", "0", *options))


def test_port_in_use_gets_one_line(server: DevServer) -> None:
    """The port is named, and the way out."""
    line = refused(command("dev-server", "--port", server.port))

    assert f"port {server.port} " in line
    assert "in use" in line


def test_python_m_names_the_command() -> None:
    """The package can be run as a module as well."""
    done = subprocess.run(
        [sys.executable, "-m", "conductor_adapter", "--help"],
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )

    assert done.returncode == 0
    assert "dev-server" in done.stdout


def test_check_with_a_missing_bundle_is_one_line() -> None:
    """A certificate bundle that is not there is bad usage, not a stack trace."""
    options = ("check", "--server", "eu=https://127.0.0.1:9/api")

    assert "REQUESTS_CA_BUNDLE '/nope'" in refused(command(*options, REQUESTS_CA_BUNDLE="/nope"))


def test_check_says_how_to_trust_a_server() -> None:
    """A company's own authority is nobody's by default: the ways to name it are told."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with Peer(context) as server:
        done = command(
            "check", "--server", f"eu={server.url}", "--transport", "requests", SSL_CERT_FILE=certifi.where()
        )

    assert done.returncode == 1
    assert "with verify= in its settings, or with REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE" in done.stdout
