"""DevServer: a server in a thread of this process."""

import http.client
import socket
import threading
from typing import Any

import pytest
from dev_server_calls import JSON, fetch, result

from conductor_adapter.dev_server import DevServer
from conductor_adapter.settings.server_settings import Credentials

POLL = "/api/tasks/poll/batch/t?workerid=me&count=1&timeout=0"


def finish_one(server, **fields):
    """Poll one task and report it."""
    (task,) = fetch(server.port, "GET", POLL)[1]
    assert fetch(server.port, "POST", "/api/tasks", result(task, **fields)) == (200, task["taskId"])


def test_a_task_goes_to_a_worker_and_its_result_comes_back():
    """The shortest test of a worker: start, work, wait."""
    with DevServer() as server:
        run = server.start_task("t", {"order_id": "7", "odd.key}": None})
        waiting = []
        waiter = threading.Thread(target=lambda: waiting.append(server.wait(run, 20)))
        waiter.start()
        (task,) = fetch(server.port, "GET", POLL)[1]
        assert task["inputData"] == {"order_id": "7", "odd.key}": None}
        fetch(server.port, "POST", "/api/tasks", result(task, outputData={"ok": True}))
        waiter.join(60)
        assert waiting[0] == server.wait(run, 0)
        assert (waiting[0].run_id, waiting[0].status, waiting[0].output) == (run, "COMPLETED", {"ok": True})
        assert server.handed_out() == {(run, "t_ref"): 1}
        assert server.handed_out(least=2) == {}
        assert server.runs()["COMPLETED"] == 1
        counts = server.counts()
        assert (counts["polls"], counts["updates"], counts["handed out"], counts["not found"]) == (1, 1, 1, 0)


def test_waiting_in_vain_says_where_the_run_stands():
    """The timeout names the task, its state and its queue; an unknown run is a KeyError."""
    with DevServer() as server:
        run = server.start_task("t", domain="d")
        with pytest.raises(TimeoutError, match=r"'t_ref' is SCHEDULED and was polled 0 times \(queue 'd:t'\)"):
            server.wait(run, 0.01)
        with pytest.raises(KeyError, match="nope"):
            server.wait("nope", 0)


def test_starting_a_task_keeps_a_definition_that_is_there():
    """Only what is missing is defined: a task type that was registered stays as it was."""
    with DevServer() as server:
        fetch(server.port, "POST", "/api/metadata/taskdefs", [{"name": "t", "responseTimeoutSeconds": 7}])
        server.start_task("t")
        (task,) = fetch(server.port, "GET", POLL)[1]
        assert task["responseTimeoutSeconds"] == 7


def test_settings_lead_a_worker_to_it():
    """Name, URL and credentials are what a worker needs."""
    key = Credentials("k", "s")
    with DevServer(name="eu", credentials=key) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/api"
        assert (server.settings.name, server.settings.url, server.settings.auth) == ("eu", server.url, key)
        assert server.control_url == f"http://127.0.0.1:{server.port}/dev"


def test_with_credentials_every_call_needs_a_token():
    """A wrong key, no token and an expired token are 401 with the commercial server's words."""
    with DevServer(credentials=Credentials("k", "s")) as server:
        server.start_task("t")
        assert fetch(server.port, "GET", "/health")[0] == 200
        assert fetch(server.port, "POST", "/api/token", {"keyId": "k", "keySecret": "x"})[0] == 401
        status, body = fetch(server.port, "GET", POLL)
        assert (status, body["error"]) == (401, "INVALID_TOKEN")
        token = fetch(server.port, "POST", "/api/token", {"keyId": "k", "keySecret": "s"})[1]["token"]
        headers = {**JSON, "X-Authorization": token}
        assert len(fetch(server.port, "GET", POLL, headers=headers)[1]) == 1
        server.expire_tokens()
        status, body = fetch(server.port, "GET", POLL, headers=headers)
        assert (status, body["error"]) == (401, "EXPIRED_TOKEN")


def test_only_a_server_with_credentials_has_tokens_to_expire():
    """The error says how to start one that has."""
    with DevServer() as server, pytest.raises(RuntimeError, match="credentials="):
        server.expire_tokens()


def test_timeouts_are_evaluated_by_themselves():
    """The sweeper ends a silent worker's run without anybody's call."""
    with DevServer(sweep_every=0.05) as server:
        run = server.start_task("t", retryCount=0, responseTimeoutSeconds=1)
        fetch(server.port, "GET", POLL)
        assert server.wait(run, 20).status == "TIMED_OUT"


def test_deciding_a_run_evaluates_its_timeouts():
    """Before its time is over nothing changes."""
    with DevServer() as server:
        run = server.start_task("t")
        server.decide(run)
        finish_one(server)
        assert server.wait(run, 5).status == "COMPLETED"


def test_many_tasks_are_started_at_once():
    """A whole backlog, with the definition it wants."""
    with DevServer() as server:
        server.start_tasks("t", 500, {"n": 1}, responseTimeoutSeconds=7)
        assert server.runs("t")["RUNNING"] == 500
        (task,) = fetch(server.port, "GET", POLL)[1]
        assert (task["inputData"], task["responseTimeoutSeconds"]) == ({"n": 1}, 7)
        with pytest.raises(ValueError, match="retryCount"):
            server.start_tasks("t", 1, retryCount=-1)


def test_a_definition_may_change_while_tasks_run():
    """What a worker is shown is the definition in force."""
    with DevServer() as server:
        server.start_task("t", responseTimeoutSeconds=5)
        server.start_task("t", responseTimeoutSeconds=6)
        (first,), (second,) = (fetch(server.port, "GET", POLL)[1] for _ in range(2))
        assert [first["responseTimeoutSeconds"], second["responseTimeoutSeconds"]] == [5, 6]
        assert second["taskDefinition"]["responseTimeoutSeconds"] == 6


def test_the_state_file_survives_a_stop(tmp_path):
    """Another server on the same file goes on where the first one stopped."""
    with DevServer(state=tmp_path / "state.db") as server:
        run = server.start_task("t")
    with DevServer(state=str(tmp_path / "state.db")) as server:
        finish_one(server, outputData={"n": 1})
        assert server.wait(run, 5).output == {"n": 1}


def test_a_long_poll_in_flight_is_dropped_by_a_stop_and_its_task_kept(tmp_path):
    """Stopping does not wait for a poll of five seconds; what it held is in the queue again."""
    with DevServer(state=tmp_path / "state.db") as server:
        run = server.start_task("t")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", POLL.replace("count=1&timeout=0", "count=2&timeout=5000"))
        while fetch(server.port, "GET", "/api/tasks/queue/size?taskType=t")[1]:
            pass
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        connection.getresponse()
    connection.close()
    with DevServer(state=tmp_path / "state.db") as server:
        (task,) = fetch(server.port, "GET", POLL)[1]
        assert (task["workflowInstanceId"], task["pollCount"]) == (run, 1)


def test_a_client_that_goes_away_costs_the_task():
    """As with a real server, a poll whose client is gone goes on and assigns the task to nobody."""
    with DevServer() as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(f"GET {POLL.replace('timeout=0', 'timeout=5000')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            while not server.counts()["polls"]:
                pass
        run = server.start_task("t")
        while server.handed_out(run) != {(run, "t_ref"): 1}:
            pass
        assert fetch(server.port, "GET", POLL) == (200, [])


def test_a_port_in_use_is_an_error_of_start():
    """The error comes from start, and the server can be started elsewhere."""
    with DevServer() as first:
        second = DevServer(first.port)
        with pytest.raises(OSError, match="address already in use"):
            second.start()
        second.stop()


def test_what_does_not_run_says_so():
    """Before start and after stop there is nothing to ask; stopping twice is fine, starting twice is not."""
    server = DevServer()
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.url
    server.start()
    with pytest.raises(RuntimeError, match="already running"):
        server.start()
    server.stop()
    server.stop()
    with pytest.raises(RuntimeError, match="not running"):
        server.start_task("t")


@pytest.mark.parametrize("port", [-1, 65536, True, "8080"])
def test_port_that_cannot_be_is_refused(port: Any) -> None:
    """The error names it and the range, before anything is started."""
    with pytest.raises(ValueError, match=f"port is {port!r}; it must be from 0"):
        DevServer(port)
