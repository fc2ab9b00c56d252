"""What the embedded server's storage for large payloads has beyond the contract (tests/contract)."""

import http.client
import json
from urllib.parse import urlencode, urlsplit

import pytest
from dev_server_calls import JSON, fetch, result

from conductor_adapter import DevServer, WorkerRunner, worker
from conductor_adapter.dev_server import Credentials

POLL = "/api/tasks/poll/batch/t?workerid=me&count=1&timeout=0"
LARGE = {"amount": 7, "text": "x" * 50 * 1024}
INPUT, OUTPUT = "externalInputPayloadStoragePath", "externalOutputPayloadStoragePath"


@pytest.fixture
def server():
    """A server that stores payloads over 10 KiB outside."""
    with DevServer(payload_threshold=10 * 1024) as running:
        yield running


def place_of(server, path, operation="READ", kind="TASK_INPUT", **options):
    """Where a payload is, as the server says it: path and query without the host."""
    query = urlencode({"path": path, "operation": operation, "payloadType": kind})
    status, place = fetch(server.port, "GET", f"/api/tasks/externalstoragelocation?{query}", **options)
    assert status == 200
    assert place["uri"].startswith(f"{server.url}/external/")
    return urlsplit(place["uri"]).path, place["path"]


def test_a_worker_stores_an_output_and_names_its_path(server):
    """The place is asked for, the output is put there, the result has the path: the run has the output."""
    run = server.start_task("t")
    (task,) = fetch(server.port, "GET", POLL)[1]
    target, path = place_of(server, "", "WRITE", "TASK_OUTPUT")
    assert fetch(server.port, "PUT", target, LARGE) == (200, "")
    assert fetch(server.port, "POST", "/api/tasks", result(task, externalOutputPayloadStoragePath=path))[0] == 200
    assert server.wait(run, 5).output == LARGE
    shown = fetch(server.port, "GET", f"/api/tasks/{task['taskId']}")[1]
    assert (shown["outputData"], shown[OUTPUT]) == ({}, path)


@pytest.mark.parametrize("stored", ["[]", "{", '{"a": ' + "[" * 5000])
def test_an_output_that_is_no_object_is_refused(server, stored):
    """The update is an error in the server's words, and changes nothing."""
    server.start_task("t")
    (task,) = fetch(server.port, "GET", POLL)[1]
    target, path = place_of(server, "a b/ü.json", "WRITE", "TASK_OUTPUT")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("PUT", target, stored, JSON)
    assert connection.getresponse().status == 200
    connection.close()
    status, body = fetch(server.port, "POST", "/api/tasks", result(task, externalOutputPayloadStoragePath=path))
    assert (status, body["message"]) == (500, f"Unable to download payload from external storage path: {path}")
    assert fetch(server.port, "GET", f"/api/tasks/{task['taskId']}")[1]["status"] == "IN_PROGRESS"


def test_an_odd_input_is_stored_outside_as_it_stands(server):
    """A text that no JSON reader takes is fetched like any other payload."""
    odd = '{"n": ' + "1" * 20_000 + "}"
    server.start_task("t", odd)
    (task,) = fetch(server.port, "GET", POLL)[1]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", place_of(server, task[INPUT])[0])
    assert connection.getresponse().read().decode() == odd
    connection.close()


def test_the_state_file_has_what_is_outside(tmp_path):
    """A server that is started again, also one without the option, knows what was stored."""
    with DevServer(state=tmp_path / "state.db", payload_threshold=1) as server:
        run = server.start_task("t", LARGE)
        (task,) = fetch(server.port, "GET", POLL)[1]
        given = result(task, status="IN_PROGRESS", externalOutputPayloadStoragePath=task[INPUT])
        fetch(server.port, "POST", "/api/tasks", given)
    with DevServer(state=tmp_path / "state.db") as server:
        (task,) = fetch(server.port, "GET", POLL)[1]
        assert (task["inputData"], task["outputData"], INPUT in task) == (LARGE, {}, False)
        fetch(server.port, "POST", "/api/tasks", result(task, externalOutputPayloadStoragePath=task[OUTPUT]))
        assert server.wait(run, 5).output == LARGE
        assert fetch(server.port, "GET", f"/api/external/{task[OUTPUT]}")[0] == 404


def test_payloads_need_a_token_like_every_call():
    """On a server with credentials the address is its own, and so is the check."""
    with DevServer(credentials=Credentials("k", "s"), payload_threshold=1) as server:
        token = fetch(server.port, "POST", "/api/token", {"keyId": "k", "keySecret": "s"})[1]["token"]
        headers = {**JSON, "X-Authorization": token}
        target, _ = place_of(server, "x", headers=headers)
        assert fetch(server.port, "GET", target)[0] == 401
        assert fetch(server.port, "GET", target, headers=headers)[0] == 200


@pytest.mark.parametrize("threshold", [0, -1, True, 1.5, "10KB"])
def test_a_threshold_that_cannot_be_is_refused(threshold):
    """The error names it and what it must be."""
    with pytest.raises(ValueError, match=r"payload_threshold is .*; it must be a number of bytes, 1 or more, or None"):
        DevServer(payload_threshold=threshold)


def test_a_worker_whose_output_is_large_sends_it_as_it_is(server):
    """The server stores it; the run has it whole."""

    @worker("large")
    def large() -> dict:
        return LARGE

    with WorkerRunner([large], servers=[server.settings]):
        assert server.wait(server.start_task("large"), 20).output == LARGE


def test_a_worker_whose_input_is_large_gets_it_whole(server):
    """50 KB beside a number: the function runs on both, also when the task comes with the answer to a result."""

    @worker("opt", threads=1)
    def opt(amount: int = 0, text: str = "") -> dict:
        return {"amount": amount, "length": len(text)}

    runs = [server.start_task("opt", {**LARGE, "amount": amount}) for amount in range(1, 6)]
    with WorkerRunner([opt], servers=[server.settings]):
        outputs = [server.wait(run, 20).output for run in runs]
    assert outputs == [{"amount": amount, "length": 50 * 1024} for amount in range(1, 6)], json.dumps(outputs)
