import html
import json
import re
import sys
from urllib.parse import quote, quote_plus

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter.client import operations
from conductor_adapter.client.decoding import PollAnswer
from conductor_adapter.client.messages import (
    AuthRejected,
    HttpAnswer,
    RequestRejected,
    ServerFailed,
    TransportError,
    TransportErrorKind,
)
from conductor_adapter.client.operations import ConductorServer
from conductor_adapter.settings.server_settings import Credentials, ServerSettings
from conductor_adapter.tasks import Task, TaskResult, TaskStatus
from conductor_adapter.transports.base import drive
from resilience.errors import Refused, Throttled, Undeliverable
from resilience.testing import ManualClock

SECRET = "s3cr3t-value"  # noqa: S105 - what must never be shown
UNKNOWN = {"message": "No such workflow found by id: w"}
RESULT = TaskResult(task_id="t1", workflow_id="w1", output={"ok": True})
LOST = TransportError(TransportErrorKind.BROKEN, "connection reset")


def says(status, body=b"", **headers):
    """An answer; a mapping, list or number as body is sent as JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status, named, body if isinstance(body, bytes) else json.dumps(body).encode())


class Script:
    """A transport that answers in turn as it was told, and remembers what it was sent."""

    bounded = True

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    def send(self, call, timeout):  # noqa: ARG002 - the protocol's signature
        """Answer in turn."""
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        """Nothing to close."""

    @property
    def sent(self):
        """Path and token of each call."""
        return [(call.path, dict(call.headers).get("X-Authorization")) for call in self.calls]


def open_server(clock=None, **options):
    """A server without auth."""
    return ConductorServer(ServerSettings("eu", "http://eu/api", **options), clock=clock or ManualClock())


def locked_server(clock=None, **options):
    """A server with auth."""
    return open_server(clock, auth=Credentials("k1", SECRET), **options)


def run(operation, *answers):
    """The operation's result, and what was sent for it."""
    script = Script(*answers)
    value = drive(operation, script, 5.0)
    assert not script.answers
    return value, script


def fails(operation, *answers):
    """The operation's error, and what was sent for it."""
    script = Script(*answers)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at its type
        drive(operation, script, 5.0)
    assert not script.answers
    return caught.value, script


def poll(server, **options):
    """One poll of the server."""
    return server.poll("greet", "me", 2, 0.1, **options)


# Polling.


def test_a_poll_brings_tasks():
    """What the server hands out comes back as tasks."""
    polled, script = run(poll(open_server()), says(200, [{"taskId": "a"}]))

    assert polled == PollAnswer((Task(task_id="a"),))
    assert script.calls[0].target == "/tasks/poll/batch/greet?workerid=me&count=2&timeout=100"


def test_a_servers_own_domain_wins():
    """A server's settings may name a domain of its own for all workers."""
    _, script = run(poll(open_server(), domain="d"), says(200, []))
    assert "domain=d&" in script.calls[0].query
    _, script = run(poll(open_server(domain="own"), domain="d"), says(200, []))
    assert "domain=own&" in script.calls[0].query


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (says(500), ServerFailed), (says(404, b"<html>"), ServerFailed), (says(200, b"<html>"), ServerFailed),
        (says(200, {"a": 1}), ServerFailed), (says(200, [{}]), ServerFailed), (says(302), ServerFailed),
        (says(503), ServerFailed), (LOST, TransportError), (says(429), Throttled),
        (says(503, retry_after="7"), Throttled),
        (says(401), AuthRejected), (says(403), AuthRejected), (says(400, {"message": "bad"}), RequestRejected),
        (says(404, UNKNOWN), RequestRejected), (says(500, {"retryable": False}), ServerFailed),
    ],
)  # fmt: skip
def test_a_poll_says_whose_doing_its_failure_is(answer, kind):
    """Only what is the server's doing is ServerFailed; the text names server and task type."""
    error, _ = fails(poll(open_server()), answer)

    assert type(error) is kind
    assert answer is LOST or ("'eu'" in str(error) and "'greet'" in str(error))


def test_good_tasks_of_an_odd_answer_are_kept_with_the_problem():
    """They have been handed out, so they are run; the caller hears what was wrong."""
    polled, _ = run(poll(open_server()), says(200, [{"taskId": "a"}, {"taskId": ""}]))

    assert [task.task_id for task in polled.tasks] == ["a"]
    assert "'eu'" in polled.problem
    assert "taskId" in polled.problem


def test_errors_name_the_way_out():
    """Missing credentials, a redirect and a URL without /api are said in the error."""
    assert "requires a key and secret" in str(fails(poll(open_server()), says(401))[0])
    for status in (300, 302, 399):
        assert "set its url to the final address" in str(fails(poll(open_server()), says(status))[0])
    for status in (299, 400):
        assert "final address" not in str(fails(poll(open_server()), says(status, b"<html>"))[0])
    bare = ConductorServer(ServerSettings("eu", "http://eu"))
    for answer in (says(404), says(405), says(200, b"<html>")):
        text = str(fails(bare.version(), answer)[0])
        assert text.endswith("usually at http://eu/api")
        assert text.startswith("server 'eu': version: "), "a hint comes after the problem, not in its place"
    for status in (101, 406, 500):
        assert "usually at" not in str(fails(bare.poll("greet", "me", 1, 0), says(status))[0])


# Updates.


def test_an_update_is_taken():
    """The server answers with the task's id."""
    value, script = run(open_server().update(RESULT), says(200, b"t1"))

    assert value is None
    assert json.loads(script.calls[0].body)["taskId"] == "t1"


@pytest.mark.parametrize(
    ("answer", "kind", "counts"),
    [
        (says(404, UNKNOWN), Undeliverable, None), (says(400, {"message": "bad"}), Refused, False),
        (says(500, {"retryable": False}), Refused, True), (says(413, b"<html>"), Refused, True),
        (says(404, b"<html>"), Refused, True), (says(404), Refused, True), (says(500), Refused, True),
        (says(500, {"retryable": True}), Refused, True), (says(200, b"<html>"), ServerFailed, None),
        (says(429, retry_after="3"), Throttled, None), (says(403), AuthRejected, None), (LOST, TransportError, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("operation", ["update", "update_v2"])
def test_an_update_says_whether_to_send_it_again(operation, answer, kind, counts):
    """Final is only what Conductor says of this task; everything else may heal and is sent again."""
    gateway = [says(500)] if operation == "update_v2" and kind is Refused and answer.status == 404 else []
    error, _ = fails(getattr(open_server(), operation)(RESULT), answer, *gateway)

    assert type(error) is kind
    assert getattr(error, "counts", None) == counts
    assert answer is LOST or "t1" in str(error)


@pytest.mark.parametrize("operation", ["update", "update_v2"])
def test_a_result_that_is_too_large_is_told_as_a_small_one_at_once(operation):
    """The workflow fails with the reason and need not wait for a timeout; the result itself is given up."""
    large = attrs.evolve(RESULT, output={"text": "x" * 5000})
    error, script = fails(getattr(open_server(), operation)(large), says(413, b"<html>too large"), says(200, b"t1"))
    told = json.loads(script.calls[1].body)

    assert type(error) is Undeliverable
    assert script.sent[1][0] == "/tasks"
    assert (told["taskId"], told["status"], told["outputData"]) == ("t1", "FAILED_WITH_TERMINAL_ERROR", {})
    assert re.fullmatch(
        r"the task's result was not accepted: server 'eu': update(-v2)? of task t1: HTTP 413: <html>too large",
        told["reasonForIncompletion"],
    )


def test_a_failure_that_is_too_large_keeps_its_status_and_reason():
    """The server may retry it, and people see why it failed; only its output and log are left out."""
    large = attrs.evolve(RESULT, status=TaskStatus.FAILED, reason="database down", logs=((0.0, "x" * 5000),))
    error, script = fails(open_server().update(large), says(413), says(200, b"t1"))
    told = json.loads(script.calls[1].body)

    assert type(error) is Undeliverable
    assert (told["status"], told["reasonForIncompletion"], "logs" in told) == ("FAILED", "database down", False)


def test_413_to_what_is_not_too_large_is_no_verdict():
    """One of two proxies is sick, or the server asks for a pause in words of its own."""
    server, large = open_server(), attrs.evolve(RESULT, output={"text": "x" * 5000})
    error, script = fails(server.update(large), says(413, retry_after="5"))
    assert (type(error), len(script.calls)) == (Throttled, 1)

    run(server.update(attrs.evolve(large, output={"text": "x" * 6000})), says(200, b"t1"))
    error, script = fails(server.update(large), says(413))
    assert (type(error), len(script.calls)) == (Refused, 1)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(says(413), Refused), (says(500), Refused), (says(423), Throttled), (says(404, UNKNOWN), Undeliverable)],
)
def test_who_does_not_take_a_small_result_either_did_not_mean_the_size(answer, kind):
    """Then the answer to the small one counts, and the large one is sent again."""
    large = attrs.evolve(RESULT, output={"text": "x" * 5000})
    error, script = fails(open_server().update(large), says(413), answer)

    assert type(error) is kind
    assert len(script.calls) == 2


@pytest.mark.parametrize(
    "result", [RESULT, attrs.evolve(RESULT, status=TaskStatus.IN_PROGRESS, output={"text": "x" * 5000})]
)
def test_neither_a_small_result_nor_one_that_is_not_final_is_replaced(result):
    """The one would not get smaller, the other does not end its task."""
    error, script = fails(open_server().update(result), says(413))

    assert type(error) is Refused
    assert len(script.calls) == 1


def test_update_v2_brings_the_next_task():
    """The next task comes with the answer; none is None."""
    server = open_server()

    assert run(server.update_v2(RESULT), says(200, {"taskId": "n"}))[0] == Task(task_id="n")
    assert run(server.update_v2(RESULT), says(204))[0] is None
    assert server.has_v2


@pytest.mark.parametrize(
    "missing", [says(405), says(404, {"message": "No static resource api/tasks/update-v2."}), says(404, b"<html>")]
)
def test_a_server_without_update_v2_gets_plain_updates(missing):
    """The result is delivered in the same breath, and the server is not asked for v2 again for a while."""
    clock = ManualClock()
    server, other = open_server(clock), open_server(clock)

    value, script = run(server.update_v2(RESULT), missing, says(200, b"t1"))
    assert value is None
    assert [path for path, _ in script.sent] == ["/tasks/update-v2", "/tasks"]
    assert not server.has_v2
    assert other.has_v2

    _, script = run(server.update_v2(RESULT), says(200, b"t1"))
    assert [path for path, _ in script.sent] == ["/tasks"]

    clock.advance(3600.0)
    assert server.has_v2


def test_an_unknown_workflow_does_not_mean_that_v2_is_missing():
    """404 has two meanings here; only the message tells them apart."""
    server = open_server()
    fails(server.update_v2(RESULT), says(404, UNKNOWN))

    assert server.has_v2


def test_a_failing_proxy_does_not_switch_v2_off():
    """A 404 of somebody else proves nothing while the plain update fails too."""
    server = open_server()
    fails(server.update_v2(RESULT), says(404, b"<html>"), says(502))

    assert server.has_v2


def test_a_lost_update_v2_is_not_repeated():
    """A second update-v2 would take another task, so the operation sends it once."""
    error, script = fails(open_server().update_v2(RESULT), LOST)

    assert error is LOST
    assert len(script.calls) == 1


def test_giving_back_and_heartbeats():
    """Both are updates that keep the task alive: one queues it again at once, the other only restarts its timeout."""
    server, task = open_server(), Task(task_id="t1", workflow_id="w1", output={"so": "far"})

    _, script = run(server.give_back(task), says(200, b"t1"))
    body = json.loads(script.calls[0].body)
    assert (body["status"], body["callbackAfterSeconds"], body["outputData"]) == ("IN_PROGRESS", 0, {"so": "far"})

    _, script = run(server.extend_lease(task), says(200, b"t1"))
    assert json.loads(script.calls[0].body)["extendLease"] is True
    assert type(fails(server.extend_lease(task), says(200, b"<html>log in"))[0]) is ServerFailed
    assert type(fails(server.extend_lease(task), says(404, UNKNOWN))[0]) is Undeliverable


# Looking.


def test_a_server_can_be_looked_at():
    """Version, queues and definitions, as `check` and `run` report them."""
    server = open_server()

    assert run(server.version(), says(200, b"3.32.1"))[0] == "3.32.1"
    size, script = run(server.queue_size("a b", "d"), says(200, b"7"))
    assert (size, script.calls[0].target) == (7, "/tasks/queue/size?taskType=a+b&domain=d")
    assert run(server.queue_size("greet"), says(200, b"0"))[1].calls[0].query == "taskType=greet"
    assert run(server.queue_sizes(), says(200, {"greet": 2}))[0] == {"greet": 2}
    known, script = run(server.knows_task_type("a/b"), says(200, {}))
    assert (known, script.calls[0].path) == (True, "/metadata/taskdefs/a%2Fb")
    assert run(server.knows_task_type("x"), says(404, {"message": "No such taskType found by name: x"}))[0] is False
    assert type(fails(server.knows_task_type("x"), says(404, b"<html>"))[0]) is ServerFailed
    error, _ = fails(server.version(), says(200, b"<html>"))
    assert type(error) is ServerFailed
    assert "'eu'" in str(error)
    assert "eu" in repr(server)


LOOKS = [
    ("version", (), "/version", "version"),
    ("queue_size", ("greet",), "/tasks/queue/size", "queue size of 'greet'"),
    ("queue_sizes", (), "/tasks/queue/all", "queue sizes"),
    ("knows_task_type", ("greet",), "/metadata/taskdefs/greet", "definition of 'greet'"),
]


@pytest.mark.parametrize(("name", "facts", "path", "what"), LOOKS)
def test_a_look_at_a_server_is_one_get_and_its_failure_says_what_was_looked_at(name, facts, path, what):
    """Nothing is changed by looking; whoever reads of a failure knows which server did not tell what, and why."""
    look = getattr(open_server(), name)
    error, script = fails(look(*facts), says(502, b"Bad gateway"))

    assert [(call.method, call.path, call.body) for call in script.calls] == [("GET", path, None)]
    assert str(error) == f"server 'eu': {what}: HTTP 502: Bad gateway"


@pytest.mark.parametrize(("name", "facts", "path", "what"), LOOKS[:-1])
def test_a_look_that_finds_something_else_says_what_was_there(name, facts, path, what):  # noqa: ARG001 - one table
    """A login page in the place of a version or a number is the server's failure, and quoted."""
    error, _ = fails(getattr(open_server(), name)(*facts), says(200, b"<html> Sign in"))

    assert type(error) is ServerFailed
    assert str(error).startswith(f"server 'eu': {what}: expected ")
    assert str(error).endswith("got HTTP 200: <html> Sign in")


def test_a_heartbeat_that_fails_says_whose_it_was():
    """Server and task are named."""
    error, _ = fails(open_server().extend_lease(Task(task_id="t7", workflow_id="w")), says(502, b"Bad gateway"))

    assert str(error) == "server 'eu': heartbeat of task t7: HTTP 502: Bad gateway"


# Credentials.


TOKEN_1, TOKEN_2 = says(200, {"token": "tok-1"}), says(200, {"token": "tok-2"})
EMPTY = says(200, [])


def test_a_token_is_fetched_once_and_then_sent():
    """The first call fetches it; the secret goes to the token endpoint only."""
    server = locked_server()
    _, script = run(poll(server), TOKEN_1, EMPTY)

    assert script.sent == [("/token", None), ("/tasks/poll/batch/greet", "tok-1")]
    assert json.loads(script.calls[0].body) == {"keyId": "k1", "keySecret": SECRET}
    _, script = run(server.update(RESULT), says(200, b"t1"))
    assert script.sent == [("/tasks", "tok-1")]
    assert SECRET.encode() not in script.calls[0].body


def test_headers_of_a_gateway_go_with_every_call():
    """A gateway in front of the server sees its own credentials, on token calls too."""
    _, script = run(poll(locked_server(headers={"X-Gate": "open"})), TOKEN_1, EMPTY)

    assert [dict(call.headers)["X-Gate"] for call in script.calls] == ["open", "open"]


class Gate:
    """A function that makes headers, with a new pass each time; ``does`` stands in its place for one call."""

    def __init__(self):
        self.made = 0
        self.does = []

    def __call__(self):
        """The next pass."""
        self.made += 1
        if self.does:
            return self.does.pop(0)()
        return {"X-Gate": f"gate-pass-{self.made}"}


def passes(script):
    """The gateway's pass of each call."""
    return [dict(call.headers).get("X-Gate") for call in script.calls]


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403])
def test_headers_that_a_function_makes_are_made_again_when_a_gateway_refuses_them(status):
    """They are made for the first call, serve all others, and are made again once for a call that is refused."""
    gate = Gate()
    server = open_server(headers=gate)
    for _ in range(2):
        _, script = run(poll(server), EMPTY)
        assert (passes(script), gate.made) == (["gate-pass-1"], 1)

    _, script = run(poll(server), says(status), EMPTY)
    assert passes(script) == ["gate-pass-1", "gate-pass-2"]
    assert script.calls[0].target == script.calls[1].target

    error, script = fails(poll(server), says(status), says(status))
    assert (passes(script), gate.made) == (["gate-pass-2", "gate-pass-3"], 3)
    assert "new headers from the function did not help" in str(error)


def test_headers_that_a_function_makes_go_with_the_token_and_the_call_for_it():
    """A gateway and the server behind it each get what is theirs, and each is renewed once when it may be stale."""
    gate = Gate()
    server = locked_server(headers=gate)
    _, script = run(poll(server), says(302), TOKEN_1, EMPTY)
    assert [*zip(passes(script), script.sent, strict=True)] == [
        ("gate-pass-1", ("/token", None)),
        ("gate-pass-2", ("/token", None)),
        ("gate-pass-2", ("/tasks/poll/batch/greet", "tok-1")),
    ]

    _, script = run(poll(server), says(401), says(401), TOKEN_2, EMPTY)
    assert passes(script) == ["gate-pass-2", "gate-pass-3", "gate-pass-3", "gate-pass-3"]
    assert [token for _, token in script.sent] == ["tok-1", "tok-1", None, "tok-2"]


def test_several_calls_refused_at_once_have_headers_made_once():
    """The first one asks the function; the others wait a moment, or use what it made."""
    gate = Gate()
    server = open_server(headers=gate)

    def ask_beside():
        with pytest.raises(Throttled) as caught:
            next(poll(server))
        assert (type(caught.value), caught.value.retry_after < 1.0) == (Throttled, True)
        return {"X-Gate": "gate-pass-0"}

    gate.does = [ask_beside]
    run(poll(server), EMPTY)
    first, second = poll(server), poll(server)
    for operation in (first, second):
        next(operation)

    assert dict(first.send(says(401)).headers) == {"X-Gate": "gate-pass-2"}
    assert dict(second.send(says(401)).headers) == {"X-Gate": "gate-pass-2"}


def boom():
    """Raise, with a secret in the text."""
    raise LookupError(SECRET)


@pytest.mark.parametrize(
    "does",
    [
        boom, lambda: sys.exit(SECRET), lambda: None, lambda: SECRET, lambda: {"X": 5}, lambda: {SECRET + " ": "x"},
        lambda: {"X": SECRET + "\r\nY: z"}, lambda: [SECRET],
    ],
)  # fmt: skip
def test_a_function_that_makes_no_headers_pauses_its_server_and_is_asked_again(does):
    """It is told where it broke, without what it said; nothing was sent, nothing counts, and the next call asks it."""
    gate = Gate()
    server = open_server(headers=gate)
    gate.does = [does]
    error, script = fails(poll(server))
    assert (type(error), script.calls) == (AuthRejected, [])
    assert error.retry_after > 1.0
    assert str(error).startswith("server 'eu': the call was not sent: the function for its headers r")
    assert SECRET not in str(error) + repr(error)
    assert error.__cause__ is None
    assert error.__suppress_context__
    _, script = run(poll(server), EMPTY)
    assert passes(script) == ["gate-pass-2"]

    gate.does = [does]
    fails(poll(server), says(302))
    _, script = run(poll(server), EMPTY)
    assert passes(script) == ["gate-pass-2"]  # which may still do


def test_the_error_of_a_function_for_headers_names_its_line():
    """Who wrote it finds the place."""
    error, _ = fails(poll(open_server(headers=boom)))

    assert f"raised LookupError in line {boom.__code__.co_firstlineno + 2} of {__file__}" in str(error)


def test_an_interrupt_in_a_function_for_headers_is_nobodys_error():
    """It ends what it is meant for, and the next call asks again."""
    gate = Gate()

    def interrupt():
        raise KeyboardInterrupt

    gate.does = [interrupt]
    server = open_server(headers=gate)
    with pytest.raises(KeyboardInterrupt):
        next(poll(server))
    assert passes(run(poll(server), EMPTY)[1]) == ["gate-pass-2"]


def test_headers_that_a_function_made_do_not_get_into_errors():
    """Neither those of now nor the ones before, which a call under way may still carry."""
    server = open_server(headers=Gate())
    run(poll(server), EMPTY)
    run(poll(server), says(401), EMPTY)
    error, _ = fails(poll(server), says(500, b"you sent gate-pass-1, then gate-pass-2"))

    assert "you sent" in str(error)
    assert "gate-pass" not in str(error) + repr(server._passes.current) + repr(server.settings)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_renewed_once(status):
    """A fresh token is tried once; if that is refused too, the server pauses for this task type."""
    server = locked_server()
    run(poll(server), TOKEN_1, EMPTY)

    _, script = run(poll(server), says(status), TOKEN_2, EMPTY)
    assert [token for _, token in script.sent] == ["tok-1", None, "tok-2"]

    error, script = fails(poll(server), says(status), TOKEN_2, says(status))
    assert type(error) is AuthRejected
    assert error.retry_after > 1.0
    assert "check its key and secret" in str(error)
    assert len(script.calls) == 3


def test_several_calls_refused_at_once_renew_once():
    """The first one fetches; who was refused with the old token meanwhile waits a moment, or uses the new one."""
    server = locked_server()
    run(poll(server), TOKEN_1, EMPTY)
    first, second, third = poll(server), poll(server), poll(server)
    for operation in (first, second, third):
        next(operation)

    assert first.send(says(401)).path == "/token"
    with pytest.raises(Throttled) as caught:
        second.send(says(401))
    assert type(caught.value) is Throttled
    assert 0.0 < caught.value.retry_after < 1.0
    assert dict(first.send(TOKEN_2).headers)["X-Authorization"] == "tok-2"
    assert dict(third.send(says(401)).headers)["X-Authorization"] == "tok-2"


def test_the_first_token_is_fetched_by_one_call_for_all():
    """Ten pollers that start together make one token call."""
    server = locked_server()
    first, second = poll(server), poll(server)

    assert next(first).path == "/token"
    with pytest.raises(Throttled):
        next(second)
    first.send(TOKEN_1)
    assert next(poll(server)).path != "/token"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (LOST, TransportError), (says(500), ServerFailed), (says(200, b"<html>"), ServerFailed),
        (says(200, {"token": ""}), ServerFailed), (says(401), AuthRejected), (says(400), AuthRejected),
        (says(500, {"message": "database away", "retryable": False}), ServerFailed),
        (says(429, retry_after="3"), Throttled), (says(503, retry_after="3"), Throttled),
    ],
)  # fmt: skip
def test_a_token_call_that_fails_is_tried_again_by_the_next_operation(answer, kind):
    """A server that was down at the start is not without auth for ever."""
    server = locked_server()
    error, script = fails(poll(server), answer)

    assert type(error) is kind
    assert len(script.calls) == 1
    _, script = run(poll(server), TOKEN_1, EMPTY)
    assert script.sent[-1][1] == "tok-1"


def test_a_renewal_that_fails_is_tried_again():
    """After a refused token and a failed renewal the next operation renews."""
    server = locked_server()
    run(poll(server), TOKEN_1, EMPTY)
    fails(poll(server), says(401), LOST)

    _, script = run(poll(server), says(401), TOKEN_2, EMPTY)
    assert script.sent[-1][1] == "tok-2"


def test_a_renewal_that_was_left_behind_frees_its_place():
    """An operation that is dropped half-way, or whose thread never comes back, does not block the others for ever."""
    clock = ManualClock()
    server = locked_server(clock)
    dropped = poll(server)
    next(dropped)
    dropped.close()
    hung = poll(server)
    assert next(hung).path == "/token"
    clock.advance(60.0)

    assert next(poll(server)).path == "/token"


@pytest.mark.parametrize(
    ("answer", "kind", "pause", "words"),
    [
        (says(429, retry_after="7"), Throttled, 7.0, "asks for a pause"),
        (says(401), AuthRejected, 30.0, "check its key and secret"),
        (says(400, {"message": "no"}), AuthRejected, 30.0, "check its key and secret"),
        (says(500, {"token": "tok-of-an-error-page"}), ServerFailed, None, "without a token"),
        (says(200, {"tokens": []}), ServerFailed, None, "without a token"),
    ],
)
def test_a_token_call_that_fails_says_how(answer, kind, pause, words):
    """The server is named, its pause kept, and only a proper answer's token is taken."""
    error, script = fails(poll(locked_server()), answer)

    assert type(error) is kind
    assert [(call.method, call.path) for call in script.calls] == [("POST", "/token")]
    assert str(error).startswith(f"server 'eu': token: HTTP {answer.status}")
    assert words in str(error)
    assert getattr(error, "retry_after", None) == pause


def test_a_call_that_waits_for_the_token_of_another_says_so():
    """Whoever reads of the pause learns what is waited for."""
    server = locked_server()
    fetching = poll(server)
    next(fetching)
    error, script = fails(poll(server))
    fetching.close()

    assert script.calls == []
    assert "token is being fetched by another call" in str(error)
    assert "'eu'" in str(error)


def test_a_token_that_a_failed_renewal_kept_is_renewed_by_whoever_sent_it_before():
    """One call's renewal failed; another one, sent with the same token before that, is refused too, and renews."""
    server = locked_server()
    run(poll(server), TOKEN_1, EMPTY)
    early = poll(server)
    assert dict(next(early).headers)["X-Authorization"] == "tok-1"
    fails(poll(server), says(401), says(502))

    assert early.send(says(401)).path == "/token"
    assert dict(early.send(TOKEN_2).headers)["X-Authorization"] == "tok-2"


def test_a_renewal_that_died_is_over_after_its_time():
    """Whoever claimed it has thirty seconds; exactly then the next one may."""
    clock = ManualClock()
    server = locked_server(clock)
    lost = poll(server)
    next(lost)
    clock.advance(29.9)
    assert type(fails(poll(server))[0]) is Throttled
    clock.advance(0.1)

    assert next(poll(server)).path == "/token"
    lost.close()


def test_a_server_without_a_token_endpoint_has_no_auth_until_it_says_otherwise():
    """404 to the token call: calls go without a token; the next 401 asks again, it may have been a proxy's."""
    server = locked_server()
    _, script = run(poll(server), says(404, b"<html>"), EMPTY)
    assert script.sent[-1] == ("/tasks/poll/batch/greet", None)
    _, script = run(poll(server), EMPTY)
    assert len(script.calls) == 1

    _, script = run(poll(server), says(401), TOKEN_1, EMPTY)
    assert script.sent[-1][1] == "tok-1"


def test_a_server_without_a_token_endpoint_is_quoted_like_any_other():
    """There is no token to hide in what it says, and nothing else changes in its errors."""
    server = locked_server()
    run(poll(server), says(404, b"<html>"), EMPTY)
    error, _ = fails(poll(server), says(500, b"the queue is broken"))

    assert isinstance(error, ServerFailed)
    assert "the queue is broken" in str(error)


def test_a_token_is_renewed_before_it_expires():
    """After 45 minutes one call renews it; the others go on with the old one meanwhile."""
    clock = ManualClock()
    server = locked_server(clock)
    run(poll(server), TOKEN_1, EMPTY)
    clock.advance(44 * 60.0)
    run(poll(server), EMPTY)
    clock.advance(60.0)

    renewing, other = poll(server), poll(server)
    assert next(renewing).path == "/token"
    assert dict(next(other).headers)["X-Authorization"] == "tok-1"
    assert dict(renewing.send(TOKEN_2).headers)["X-Authorization"] == "tok-2"
    _, script = run(poll(server), EMPTY)
    assert script.sent[0][1] == "tok-2"


@pytest.mark.parametrize("answer", [LOST, says(500), says(401), says(200, b"{}")])
def test_a_failed_renewal_keeps_the_token_that_still_works(answer):
    """The call goes on with the old token, and the renewal is tried again a minute later, not with every call."""
    clock = ManualClock()
    server = locked_server(clock)
    run(poll(server), TOKEN_1, EMPTY)
    clock.advance(46 * 60.0)

    _, script = run(poll(server), answer, EMPTY)
    assert script.sent[-1][1] == "tok-1"
    _, script = run(poll(server), EMPTY)
    assert script.sent[0][1] == "tok-1"
    clock.advance(61.0)
    _, script = run(poll(server), TOKEN_2, EMPTY)
    assert script.sent[-1][1] == "tok-2"


@pytest.mark.parametrize(
    "body", [SECRET.encode(), b"you sent X-Authorization: tok-1", b'{"message": "gate-pass-1 refused"}']
)
@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_server_that_quotes_our_credentials_does_not_get_them_into_errors(status, body):
    """Debug pages repeat the request: secret, token and a gateway's password are taken out."""
    server = locked_server(headers={"X-Gate": "gate-pass-1", "X-Empty": ""})
    run(poll(server), TOKEN_1, EMPTY)
    again = [TOKEN_1, says(status, body)] if status == 401 else []
    error, _ = fails(poll(server), says(status, body), *again)

    assert not any(secret in str(error) for secret in (SECRET, "tok-1", "gate-pass-1"))
    error, _ = fails(poll(locked_server()), says(status, body))
    assert SECRET not in str(error)
    assert SECRET not in repr(server) + repr(server._tokens.current)
    assert "tok-1" not in repr(server) + repr(server._tokens.current)


def parts(secret):
    """What is left of a secret when it is cut: eight letters are no chance."""
    spellings = (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    spellings += tuple(" ".join(spelling.split()) for spelling in spellings)
    return {spelling[at : at + 8] for spelling in spellings for at in range(len(spelling) - 7)}


QUOTED = [
    str,
    lambda text: json.dumps({"message": text}),
    lambda text: json.dumps({"detail": text}),
    lambda text: json.dumps({"detail": text}, ensure_ascii=False),
    html.escape,
    quote,
    quote_plus,
    lambda text: quote(text, safe=""),
]


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=300),
    st.text(st.sampled_from("aZ09 \t\"'\\/ü&<%-"), min_size=8, max_size=40).filter(str.strip),
    st.integers(0, 250),
    st.integers(0, 300),
    st.sampled_from(QUOTED),
)
def test_no_part_of_a_secret_is_shown_wherever_it_is_cut(token, secret, before, cut, quoted):
    """A server that quotes a request and cuts it anywhere gets no eight letters of a secret into an error."""
    server = open_server(auth=Credentials("k1", secret))
    run(poll(server), says(200, {"token": token}), EMPTY)
    text = "." * before + token[cut:] + " " + secret[:cut] + secret + token
    error, _ = fails(poll(server), says(500, quoted(text).encode()[: before + cut + 400]))

    known, _ = fails(poll(server), says(500, b"{}"))
    assert {part for part in parts(token) | parts(secret) if part in str(error) and part not in str(known)} == set()
    assert token not in repr(error) + repr(server)


@pytest.mark.parametrize("quoted", QUOTED)
@pytest.mark.parametrize("secret", ["s3cr\"et/\\ü-<&>%'QWERTYUIOP", 's3crü"ü"ü"ü"ü"', "s3cr/a b/c d/e f/g h"])
@pytest.mark.parametrize("status", [200, 500])
def test_a_secret_is_found_in_every_spelling_and_at_every_cut(quoted, status, secret):
    """JSON, HTML and URLs write a secret in other letters; an error ends somewhere, and a part of it is as bad."""
    server = open_server(auth=Credentials("k1", secret))
    run(poll(server), TOKEN_1, EMPTY)
    spellings = (secret, html.escape(secret), quote(secret), quote_plus(secret), quote(secret, safe=""))
    seen = {"s3cr"}.union(*map(parts, spellings))

    for before in range(150, 205, 3):
        error, _ = fails(poll(server), says(status, quoted("." * before + secret).encode()))
        assert not [part for part in seen if part in str(error)]


def test_an_endless_task_id_does_not_make_its_errors_endless(monkeypatch):
    """Texts are cut before secrets are looked for in them, which takes its time, and once more afterwards."""
    looked_at = []
    monkeypatch.setattr(operations, "hide", lambda text, _secrets: looked_at.append(len(text)) or text)
    error, _ = fails(open_server().update(TaskResult(task_id="t" * 10_000)), says(500))

    assert max(looked_at) == 2000
    assert len(str(error)) < 500


def test_the_token_before_the_last_one_is_not_shown_either():
    """A call under way while the token is renewed still carries the old one, and its answer may quote it."""
    clock = ManualClock()
    server = locked_server(clock)
    old, new = "tok-1-of-many-letters", "tok-2-of-many-letters"
    run(poll(server), says(200, {"token": old}), EMPTY)
    clock.advance(46 * 60.0)
    run(poll(server), says(200, {"token": new}), EMPTY)
    error, _ = fails(poll(server), says(500, f"you sent {old}, not {new}".encode()))

    assert "you sent …, not …" in str(error)


# Driving.


def test_an_operation_keeps_to_one_timeout_for_all_its_calls():
    """Each call gets what is left; when nothing is left the next one is not sent."""
    clock, timeouts = ManualClock(), []

    class Slow(Script):
        def send(self, call, timeout):
            timeouts.append(timeout)
            clock.advance(0.75)
            return super().send(call, timeout)

    with pytest.raises(TransportError) as caught:
        drive(poll(locked_server()), Slow(TOKEN_1, says(401), TOKEN_2), 2.0, clock=clock)

    assert timeouts == [2.0, 1.25, 0.5]
    assert caught.value.kind is TransportErrorKind.TIMEOUT


def test_driving_closes_the_operation_whatever_happens():
    """An error that is no TransportError passes through, and the token's place is free afterwards."""
    server = locked_server()
    with pytest.raises(ZeroDivisionError):
        drive(poll(server), Script(ZeroDivisionError()), 1.0)

    assert next(poll(server)).path == "/token"
