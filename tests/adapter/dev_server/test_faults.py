"""What can be made to go wrong, in a server of this process."""

import gzip
import http.client
import json
import socket
import subprocess
import sys
import threading

import pytest
from dev_server_calls import fetch, result

from conductor_adapter.dev_server import DevServer, Faults
from conductor_adapter.dev_server.faults import FaultSwitch

POLL = "/api/tasks/poll/batch/t?workerid=me&count=1&timeout=0"


@pytest.fixture(scope="module")
def shared():
    """One server for all tests of this module."""
    with DevServer() as running:
        yield running


@pytest.fixture
def server(shared):
    """That server, without faults before and after."""
    yield shared
    shared.faults.clear()


def ask_in_vain(server, method="GET", path=POLL):
    """Send a call and return the connection, on which nothing comes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, "{}" if method == "POST" else None, {"Content-Type": "application/json"})
    connection.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.sock.recv(1)
    connection.sock.settimeout(20)
    return connection


def is_dropped(connection):
    """Whether the server closed the connection without a word."""
    try:
        return connection.sock.recv(1) == b""
    except ConnectionResetError:
        return True
    finally:
        connection.close()


def test_hanging_does_nothing_and_drops_the_call_afterwards(server):
    """A call that hung is never answered, not even later, and no task is assigned to it."""
    server.faults.set(hang=True)
    run = server.start_task("t")
    connection = ask_in_vain(server)
    assert server.handed_out(run) == {(run, "t_ref"): 0}
    server.faults.clear()
    assert is_dropped(connection)
    assert server.handed_out(run) == {(run, "t_ref"): 0}
    (task,) = fetch(server.port, "GET", POLL)[1]
    assert task["workflowInstanceId"] == run


def test_swallowing_assigns_the_task_and_says_nothing(server):
    """The answer is lost, so the task is with nobody until its response timeout."""
    server.faults.set(swallow=True, only="polls")
    run = server.start_task("t", {}, responseTimeoutSeconds=60)
    connection = ask_in_vain(server)
    assert server.handed_out(run) == {(run, "t_ref"): 1}
    server.faults = Faults()
    assert is_dropped(connection)
    assert fetch(server.port, "GET", POLL) == (200, [])


def test_faults_of_polls_leave_updates_alone(server):
    """With only=polls an update goes through, with only=updates a poll does; the rest is never hit by either."""
    run = server.start_task("t")
    server.faults.set(error=503, only="updates")
    (task,) = fetch(server.port, "GET", POLL)[1]
    assert fetch(server.port, "POST", "/api/tasks", result(task))[0] == 503
    server.faults.set(error=503, only="polls")
    assert fetch(server.port, "GET", POLL)[0] == 503
    assert fetch(server.port, "POST", "/api/tasks", result(task))[0] == 200
    assert server.wait(run, 5).status == "COMPLETED"
    server.faults.set(error=503, only="tasks")
    assert fetch(server.port, "GET", POLL)[0] == 503
    assert fetch(server.port, "GET", "/api/metadata/taskdefs")[0] == 200
    assert fetch(server.port, "GET", "/api/tasks/queue/all")[0] == 200
    server.faults.set(error=500)
    assert fetch(server.port, "GET", "/api/metadata/taskdefs")[1]["retryable"] is True


def test_an_error_may_ask_for_a_pause(server):
    """A 429 with Retry-After in seconds."""
    server.faults.set(error=429, retry_after=7)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", POLL)
    response = connection.getresponse()
    assert (response.status, response.getheader("Retry-After")) == (429, "7")
    connection.close()


def answer_of(server, path=POLL, **headers):
    """Make one call and return its answer and the bytes of its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


@pytest.mark.parametrize(("seconds", "header"), [(9_999_999_999, "9999999999"), (0.5, "0.5"), (30.0, "30")])
def test_a_pause_may_be_odd(server, seconds, header):
    """A Retry-After of three centuries is a number like any other."""
    server.faults.set(error=503, retry_after=seconds)
    assert answer_of(server)[0].getheader("Retry-After") == header


@pytest.mark.parametrize("status", [402, 405, 407, 409, 413, 423, 500])
def test_an_error_may_have_any_status(server, status):
    """Conductor's own object: what is not the server's fault is not retryable."""
    server.faults.set(error=status, only="updates")
    answered, body = fetch(server.port, "POST", "/api/tasks", {})
    assert (answered, body["status"], body["retryable"]) == (status, status, status == 500)


def test_an_error_may_have_a_body_of_somebody_else(server):
    """A load balancer's page with a 400, of a type of its own, for updates alone."""
    server.faults.set(error=400, body="<html>busy</html>", headers={"content-type": "text/html"}, only="updates")
    assert fetch(server.port, "POST", "/api/tasks", {}) == (400, "<html>busy</html>")
    assert fetch(server.port, "GET", POLL) == (200, [])


def test_an_error_may_be_in_conductors_own_words(server):
    """A body is called JSON unless a header says otherwise, and may be empty."""
    server.faults.set(error=404, body='{"status": 404, "message": "No static resource api/tasks."}')
    assert fetch(server.port, "POST", "/api/tasks", {})[1]["message"] == "No static resource api/tasks."
    server.faults.set(error=502, body="")
    assert answer_of(server)[1] == b""


def test_a_body_may_be_bytes_as_they_are(server):
    """Without a status it is 200: some compressed kilobytes that are megabytes of nothing."""
    page = gzip.compress(b"[" + b"[]," * 1_000_000 + b"[]]")
    server.faults.set(body=page, headers={"Content-Encoding": "gzip"}, only="polls")
    response, body = answer_of(server)
    assert (response.status, response.getheader("Content-Encoding"), body) == (200, "gzip", page)


def test_a_gateway_lets_in_who_has_its_new_token(server):
    """A redirect to a login for every call but those with the headers that are wanted."""
    wanted = {"X-Gateway": "new", "X-Tenant": "7"}
    server.faults.set(error=302, body="", headers={"Location": "https://login.example/"}, unless=wanted)
    response, _ = answer_of(server, **{"x-gateway": "old", "X-Tenant": "7"})
    assert (response.status, response.getheader("Location")) == (302, "https://login.example/")
    assert answer_of(server, **{"x-gateway": "new"})[0].status == 302
    assert answer_of(server, **{"x-gateway": "new", "X-Tenant": "7"})[0].status == 200


def test_a_database_that_is_away(server):
    """Polls are told that there is nothing, all that needs the database is a 500 not to be tried again."""
    run = server.start_task("t")
    server.faults.set(database_away=True)
    assert fetch(server.port, "GET", POLL) == (200, [])
    assert fetch(server.port, "GET", "/health")[0] == 200
    assert fetch(server.port, "GET", "/api/version")[0] == 200
    for method, path in (("POST", "/api/tasks"), ("GET", "/api/metadata/taskdefs"), ("GET", "/api/tasks/poll/t")):
        status, body = fetch(server.port, method, path, {} if method == "POST" else None)
        assert (status, body["status"], body["retryable"]) == (500, 500, False)
        assert body["message"] == "HikariPool-1 - Connection is not available, request timed out after 1000ms."
    server.faults.set(database_away=True, for_seconds=0.2)
    assert server.handed_out(run) == {(run, "t_ref"): 0}
    while server.faults.current != Faults():
        pass
    (task,) = fetch(server.port, "GET", POLL)[1]
    assert task["workflowInstanceId"] == run
    fetch(server.port, "POST", "/api/tasks", result(task))


def test_a_poll_may_bring_more_than_it_asked_for(server):
    """The surplus is assigned like the rest; a poll without any tasks has none, and other calls are as they were."""
    server.start_tasks("more", 12)
    poll = POLL.replace("/t?", "/more?")
    server.faults.set(surplus=9)
    tasks = fetch(server.port, "GET", poll)[1]
    assert len({task["taskId"] for task in tasks}) == 10
    assert all(task["status"] == "IN_PROGRESS" for task in tasks)
    assert len(fetch(server.port, "GET", poll)[1]) == 2
    assert fetch(server.port, "GET", poll) == (200, [])
    assert fetch(server.port, "GET", "/api/tasks/poll/more")[0] == 204
    assert fetch(server.port, "GET", "/api/tasks/poll/batch/more?timeout=5001")[0] == 400
    assert fetch(server.port, "POST", "/api/tasks/update-v2", result(tasks[0]))[0] == 204


def test_a_poll_may_bring_what_is_no_task(server):
    """Text of any kind behind the good entries, or alone."""
    run = server.start_task("t")
    server.faults.set(entries='null, {"taskId": 7}', only="polls")
    task, nothing, odd = fetch(server.port, "GET", POLL)[1]
    assert (task["workflowInstanceId"], nothing, odd) == (run, None, {"taskId": 7})
    fetch(server.port, "POST", "/api/tasks", result(task))
    server.faults.set(entries="[[[")
    assert answer_of(server)[1] == b"[[[[]"


def test_an_input_may_be_anything(server):
    """A text is handed out as it stands, at every attempt, though this server would not take it over its API."""
    odd = '{"n": ' + "1" * 5000 + ', "s": "a\x01b"}'
    run = server.start_task("odd", odd, retryCount=1)
    poll = POLL.replace("/t?", "/odd?")
    for attempt in range(2):
        body = answer_of(server, poll)[1].decode()
        assert f'"inputData": {odd}, ' in body
        (task,) = json.loads(body.replace(odd, "{}"))
        assert task["retryCount"] == attempt
        fetch(server.port, "POST", "/api/tasks", result(task, status="FAILED", reasonForIncompletion="odd"))
    assert "'odd'" in server.wait(run, 5).reason
    server.start_tasks("odd", 2, '"half')
    assert b'"inputData": "half, ' in answer_of(server, poll)[1]
    assert fetch(server.port, "POST", "/dev/tasks?type=odd2", {"input": "[1"})[0] == 200
    assert b'"inputData": [1, ' in answer_of(server, poll.replace("/odd?", "/odd2?"))[1]


def test_faults_of_payloads_leave_tasks_alone(server):
    """Fetching what is stored outside fails, polls and updates do not."""
    place = "/api/tasks/externalstoragelocation?path=x&operation=READ&payloadType=TASK_INPUT"
    server.faults.set(error=503, only="payloads")
    assert [fetch(server.port, "GET", path)[0] for path in (place, "/api/external/x", POLL)] == [503, 503, 200]
    server.faults.set(error=503, only="tasks")
    assert [fetch(server.port, "GET", path)[0] for path in (place, POLL)] == [200, 503]


def test_garbage_is_no_task_list(server):
    """200 and a page that somebody else wrote."""
    server.faults.set(garbage=True, only="polls")
    status, text = fetch(server.port, "GET", POLL)
    assert (status, text[:6]) == (200, "<html>")


def test_a_fault_may_hit_so_many_calls_only(server):
    """times=1: one call fails, the next one does not."""
    server.faults.set(error=500, times=1, only="polls")
    assert fetch(server.port, "GET", POLL)[0] == 500
    assert fetch(server.port, "GET", POLL)[0] == 200


def test_latency_keeps_the_call_waiting_and_then_answers(server):
    """The call is looked at only after the delay: a task that comes meanwhile is in the answer."""
    server.faults.set(latency=0.3)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(fetch(server.port, "GET", POLL)))
    caller.start()
    run = server.start_task("t")
    caller.join(60)
    assert [task["workflowInstanceId"] for task in answers[0][1]] == [run]


def test_refusing_closes_the_port_and_every_connection_until_it_is_over(server):
    """Nobody gets in, who is in is thrown out; clearing it opens the same port before it returns."""
    port = server.port
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    kept.request("GET", "/health")
    kept.getresponse().read()
    server.faults.set(refuse=True)
    assert is_dropped(kept)
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    server.faults.clear()
    assert server.port == port
    assert fetch(port, "GET", "/health")[0] == 200


def test_faults_may_end_by_themselves(server):
    """for_seconds: after that time nothing is wrong any more, unless something else was set meanwhile."""
    server.faults.set(error=500, for_seconds=60)
    server.faults.set(hang=True, for_seconds=0.3)
    assert is_dropped(ask_in_vain(server))
    assert server.faults.current == Faults()


def test_the_control_path_is_never_hit(server):
    """Faults are read and changed over HTTP while everything else hangs."""
    assert fetch(server.port, "PUT", "/dev/faults", {"hang": True})[0] == 200
    assert server.faults.current == Faults(hang=True)
    assert fetch(server.port, "GET", "/dev/faults")[1] == Faults(hang=True).to_wire()
    assert fetch(server.port, "PUT", "/dev/faults", {"hang": 1})[0] == 400
    assert fetch(server.port, "PUT", "/dev/faults", {"hung": True})[1]["message"].startswith("unknown fault 'hung'")
    assert fetch(server.port, "PUT", "/dev/faults", {})[0] == 200
    assert server.faults.current == Faults()
    assert fetch(server.port, "GET", "/dev/nope")[0] == 404


def test_bytes_and_headers_go_over_the_control_path(server):
    """Bytes are base64 there; what was set is what is read."""
    faults = Faults(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}, unless={"X-Gateway": "new"}, only="polls")
    assert fetch(server.port, "PUT", "/dev/faults", faults.to_wire())[0] == 200
    assert server.faults.current == faults
    assert fetch(server.port, "GET", "/dev/faults")[1]["body"] == {"base64": "H4s="}
    for body in ({"base64": "not base64"}, {"base64": 7}, {"hex": ""}):
        status, answer = fetch(server.port, "PUT", "/dev/faults", {"body": body})
        assert (status, answer["message"]) == (400, 'body must be a str, or bytes as {"base64": "…"}')


def test_control_seeds_counts_and_sweeps(server):
    """Thousands of runs in one call, then how they stand and how often they were handed out."""
    assert fetch(server.port, "POST", "/dev/tasks?type=many&count=1000", {"input": {"n": 1}})[0] == 200
    (task,) = fetch(server.port, "GET", POLL.replace("/t?", "/many?"))[1]
    assert task["inputData"] == {"n": 1}
    fetch(server.port, "POST", "/api/tasks", result(task))
    counts = fetch(server.port, "GET", "/dev/counts?name=many")[1]
    assert (counts["runs"]["RUNNING"], counts["runs"]["COMPLETED"]) == (999, 1)
    assert counts["calls"]["polls"] >= 1
    handed = fetch(server.port, "GET", f"/dev/handed-out?workflow={task['workflowInstanceId']}&least=1")[1]
    assert handed == [{"workflow": task["workflowInstanceId"], "reference": "many_ref", "times": 1}]
    assert fetch(server.port, "POST", "/dev/sweep") == (200, {"workflows": 0})
    assert fetch(server.port, "POST", "/dev/tasks?count=1")[0] == 400


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", Faults()),
        ("hang", Faults(hang=True)),
        ("latency=1,only=polls", Faults(latency=1, only="polls")),
        ("latency=0.25, swallow=true", Faults(latency=0.25, swallow=True)),
        ("refuse=false,error=503,times=2", Faults(error=503, times=2)),
        ("database_away,latency=1,for_seconds=5", Faults(database_away=True, latency=1, for_seconds=5)),
        ("error=400,body=busy", Faults(error=400, body="busy")),
        ("entries=null,surplus=3", Faults(entries="null", surplus=3)),
        (' {"body": "a,b=c", "unless": {"X-Gateway": "new"}}', Faults(body="a,b=c", unless={"X-Gateway": "new"})),
    ],
)
def test_faults_are_written_as_text(text, faults):
    """The command line's spelling gives the same value."""
    assert Faults.parse(text) == faults


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("hung", "hung"), ("latency=x", "latency"), ("latency=-1", "latency"), ("latency=nan", "latency"),
        ("latency", "latency"), ("error=99", "error"), ("error", "error"), ("only=all of them", "only"),
        ("times=-1", "times"), ("times=0.5", "times"), ("hang=7", "hang"), ("database_away=5.0", "database_away"),
        ("surplus=-1", "surplus"), ("surplus=x", "surplus"), ('{"body": 7}', "body"), ('{"entries": 7}', "entries"),
        ('{"body": "", "headers": 7}', "headers must be headers by"), ('{"unless": "x"}', "unless must be headers"),
        ('{"body": "", "headers": {"a b": "c"}}', "headers: 'a b' is not the name of a header"),
        ('{"body": "", "headers": {"a": 7}}', "headers: a must be a str in one line, not 7"),
        ('{"body": "", "headers": {"a": "b\\r\\nc: d"}}', "headers: a must be a str in one line"),
        ('{"body": "", "headers": {"content-Length": "7"}}', "content-Length is set by the server itself"),
        ('{"headers": {"Location": "/"}}', "headers has no effect without an answer: set error= or body="),
        ("retry_after=5", "retry_after has no effect"),
        ('{"error": ', "must be a JSON object: Expecting"),
    ],
)  # fmt: skip
def test_a_fault_that_makes_no_sense_is_named(text, named):
    """The error says which field is wrong."""
    with pytest.raises((TypeError, ValueError), match=named):
        Faults.parse(text)


def test_nothing_is_hit_without_faults():
    """The switch of a healthy server lets everything through."""
    assert FaultSwitch(Faults(only="polls")).take("poll", {}) is None
    switch = FaultSwitch(Faults(error=500, only="polls", times=1))
    assert switch.take("update", {}) is None
    assert switch.take("poll", {}) == switch.current
    assert switch.take("poll", {}) is None


def test_without_aiohttp_the_extra_is_named():
    """The import says what to install."""
    code = "import sys; sys.modules['aiohttp'] = None\nimport conductor_adapter.dev_server"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    assert "pip install '.[dev-server]' in the checkout" in done.stderr.splitlines()[-1]
