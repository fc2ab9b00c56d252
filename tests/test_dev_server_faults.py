"""What can be made to go wrong, in a server of this process."""

import http.client
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
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
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
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", POLL)
    response = connection.getresponse()
    assert (response.status, response.getheader("Retry-After")) == (429, "7")
    connection.close()


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
    caller.join(20)
    assert [task["workflowInstanceId"] for task in answers[0][1]] == [run]


def test_refusing_closes_the_port_and_every_connection_until_it_is_over(server):
    """Nobody gets in, who is in is thrown out; clearing it opens the same port before it returns."""
    port = server.port
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
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
    assert fetch(server.port, "PUT", "/dev/faults", {"hung": True})[1]["message"].startswith("there is no fault 'hung'")
    assert fetch(server.port, "PUT", "/dev/faults", {})[0] == 200
    assert server.faults.current == Faults()
    assert fetch(server.port, "GET", "/dev/nope")[0] == 404


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
        ("times=-1", "times"), ("times=0.5", "times"), ("hang=7", "hang"),
    ],
)  # fmt: skip
def test_a_fault_that_makes_no_sense_is_named(text, named):
    """The error says which field is wrong."""
    with pytest.raises((TypeError, ValueError), match=named):
        Faults.parse(text)


def test_nothing_is_hit_without_faults():
    """The switch of a healthy server lets everything through."""
    assert FaultSwitch(Faults(only="polls")).take("poll") is None
    switch = FaultSwitch(Faults(error=500, only="polls", times=1))
    assert switch.take("update") is None
    assert switch.take("poll") == switch.current
    assert switch.take("poll") is None


def test_without_aiohttp_the_extra_is_named():
    """The import says what to install."""
    code = "import sys; sys.modules['aiohttp'] = None\nimport conductor_adapter.dev_server"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    assert "pip install '.[dev-server]' in the checkout" in done.stderr.splitlines()[-1]
