"""Inputs and outputs that are too large for their task: fetched and stored where the server says, over real sockets."""

import json
import threading

import attrs
import pytest
from fault_kit import quick, until
from hearing import Heard
from http_peers import Peer

from conductor_adapter import (
    Credentials,
    ServerSettings,
    Task,
    TaskFailed,
    TaskResult,
    TaskStatus,
    WorkerRunner,
    worker,
)
from conductor_adapter.client.decoding import read_payload, read_place
from conductor_adapter.client.messages import HttpAnswer, ServerFailed
from conductor_adapter.client.protocol import give_back
from conductor_adapter.running import payloads

SECRET = "s3cr3t-value"  # noqa: S105 - what only the server may see
TOKEN = "a-token-of-ours"  # noqa: S105
SIGNED = "X-Signature=let-me-in-for-an-hour"


class Conductor(Peer):
    """A server with one task, whose input is outside, and with a storage for large payloads."""

    def __init__(self, task):
        super().__init__()
        self.task, self.given = [task], b'{"amount": 7}'
        self.updates, self.stored, self.uri = [], [], "/store/input"
        self.status = "200 OK"
        self.updated = threading.Event()

    def do_token(self, stream, _):
        """Hand out the token."""
        self.say(stream, json.dumps({"token": TOKEN}).encode())

    def do_take(self, stream, _):
        """A poll."""
        task, self.task = self.task, []
        self.say(stream, json.dumps(task).encode())

    def do_tasks(self, stream, seen):
        """An update."""
        result = json.loads(seen.body)
        self.updates.append(result)
        self.say(stream, result["taskId"].encode())

    def do_externalstoragelocation(self, stream, _):
        """Where to find or put a payload."""
        self.say(stream, json.dumps({"uri": self.uri, "path": "a/path"}).encode())

    def do_input(self, stream, seen):
        """The storage."""
        if seen.method == "PUT":
            self.stored.append(json.loads(seen.body))
        self.say(stream, self.given, status=self.status)

    @property
    def asked(self):
        """What was asked for beside polls and updates."""
        return [
            seen
            for seen in self.requests
            if "externalstoragelocation" in seen.target or seen.target.startswith("/store")
        ]

    def sent_secrets(self):
        """Which of our credentials came with requests to the storage."""
        stored = [seen for seen in self.requests if seen.target.startswith("/store")]
        names = ("x-authorization", "x-gateway")
        return {(name, seen.headers[name]) for seen in stored for name in names if name in seen.headers}


OUTSIDE = {
    "taskId": "t",
    "workflowInstanceId": "w",
    "taskType": "take",
    "inputData": {},
    "externalInputPayloadStoragePath": "in/put 1.json",
}


@worker("take", threads=2)
def take(amount: int = 0) -> dict[str, object]:
    """Returns what it was given."""
    return {"amount": amount}


def result_of(server, transport, heard=None, **options):
    """The update that the server gets for its task."""
    settings = ServerSettings("eu", server.url, auth=Credentials("k", SECRET), headers={"X-Gateway": SECRET})
    with WorkerRunner([take], [settings], config=attrs.evolve(quick(transport), **options), on_event=heard):
        until(lambda: server.updates, "no update")
    return server.updates[0]


transports = pytest.mark.parametrize("transport", ["requests", "curl"])


@transports
def test_input_that_is_outside_is_fetched_before_the_function_runs(transport):
    """It runs on what it was meant to; an address of the server itself gets its credentials."""
    with Conductor(OUTSIDE) as server:
        result = result_of(server, transport)

        assert (result["status"], result["outputData"]) == ("COMPLETED", {"amount": 7})
        assert [seen.target for seen in server.asked] == [
            "/api/tasks/externalstoragelocation?path=in%2Fput+1.json&operation=READ&payloadType=TASK_INPUT",
            "/store/input",
        ]
        assert server.sent_secrets() == {("x-authorization", TOKEN), ("x-gateway", SECRET)}


@transports
def test_credentials_go_to_no_other_host(transport):
    """The storage of somebody else hears neither token nor header, only what the server wrote into its address."""
    with Conductor(OUTSIDE) as server, Conductor(None) as storage:
        server.uri = f"http://localhost:{storage.port}/store/input?{SIGNED}"
        result = result_of(server, transport)

        assert (result["status"], result["outputData"]) == ("COMPLETED", {"amount": 7})
        (seen,) = storage.requests
        assert seen.target == f"/store/input?{SIGNED}"
        assert storage.sent_secrets() == set()
        assert SECRET not in str(seen)


def failing(**changes):
    """A server that fails in that way."""
    server = Conductor(OUTSIDE)
    for name, value in changes.items():
        setattr(server, name, value)
    return server


FAILURES = [
    ({"status": "403 Forbidden", "given": b"<Error>no</Error>"}, "HTTP 403: <Error>no</Error>"),
    ({"status": "302 Found"}, "which is not followed"),
    ({"status": "500 Oops"}, "HTTP 500"),
    ({"given": b"[1]"}, "expected a JSON object, got"),
    ({"given": b'{"amount": 7'}, "expected a JSON object, got"),
    ({"given": b'{"amount": ' + b"9" * 5000 + b"}"}, "expected a readable JSON object: Exceeds the limit"),
    ({"uri": "file:///etc/passwd"}, "a URL that is not allowed"),
    ({"uri": "ftp://localhost/x"}, "must begin with http:// or https://"),
    ({"uri": "http://me:word@localhost/x"}, "contains a user or password"),
    ({"uri": "http://[/x"}, "a URL that is not allowed"),
    ({"uri": None}, "it returned no URL"),
    ({"uri": "http://127.0.0.1:1/x"}, "server 'eu'"),
]


@pytest.mark.parametrize(("changes", "said"), FAILURES)
def test_task_whose_input_cannot_be_fetched_fails_and_does_not_run(changes, said):
    """Never on defaults: the server may try again, and reads why."""
    heard = Heard()
    with failing(**changes) as server:
        result = result_of(server, "auto", heard)

    assert result["status"] == "FAILED"
    assert result["reasonForIncompletion"].startswith(
        "what is stored outside of the task could not be fetched: server 'eu'"
    )
    assert said in result["reasonForIncompletion"]
    assert "word" not in result["reasonForIncompletion"].replace("password", "")
    assert [event.task_id for event in heard if isinstance(event, TaskFailed)] == ["t"]


@transports
def test_signature_of_an_address_is_in_no_error(transport):
    """Whoever reads the error of a storage that repeats it could read the payload."""
    with failing(status="403 No", given=f"no {SIGNED}".encode(), uri=f"/store/input?{SIGNED}") as server:
        result = result_of(server, transport)

    assert result["status"] == "FAILED"
    assert "let-me-in" not in str(result)


@transports
def test_storage_that_drips_is_left(transport, monkeypatch):
    """One that sends a byte now and then holds no thread for longer than a payload may take."""
    monkeypatch.setattr(payloads, "MOVING", 0.3)
    with failing(uri="/store/drip") as server:
        result = result_of(server, transport)

    assert result["status"] == "FAILED"


@transports
def test_output_above_the_limit_goes_to_the_storage(transport):
    """Its path goes into the update in its place; the next result, which is small, goes as always."""
    with Conductor({**OUTSIDE, "externalInputPayloadStoragePath": None, "inputData": {"amount": 5}}) as server:
        result = result_of(server, transport, max_result_bytes=11)
        server.task = [{**OUTSIDE, "externalInputPayloadStoragePath": None, "taskId": "u"}]

        assert (result["status"], result["externalOutputPayloadStoragePath"]) == ("COMPLETED", "a/path")
        assert "outputData" not in result
        assert server.stored == [{"amount": 5}]
        asked, put = server.asked
        assert asked.target == "/api/tasks/externalstoragelocation?path=&operation=WRITE&payloadType=TASK_OUTPUT"
        assert (put.method, put.headers["content-type"]) == ("PUT", "application/json")


def test_output_that_fits_stays_in_the_update():
    """At the limit nothing is stored."""
    with Conductor({**OUTSIDE, "externalInputPayloadStoragePath": None}) as server:
        result = result_of(server, "auto", max_result_bytes=12)

    assert (result["outputData"], server.asked) == ({"amount": 0}, [])


def test_output_that_cannot_be_stored_goes_in_the_update(caplog):
    """The work is done: the server may still take what it came to."""
    task = {**OUTSIDE, "externalInputPayloadStoragePath": None}
    with Conductor(task) as server:
        server.status = "500 Oops"
        result = result_of(server, "auto", max_result_bytes=5)

    assert (result["status"], result["outputData"]) == ("COMPLETED", {"amount": 0})
    assert "eu: the output of task t (12 bytes) is sent in the update, because it could not be stored" in caplog.text


def test_output_of_before_is_fetched_too():
    """What a task has come to so far may be as large; the function reads it from its task."""

    @worker("take")
    def look(task: Task) -> dict[str, object]:
        return {"before": task.output}

    task = {**OUTSIDE, "externalInputPayloadStoragePath": None, "externalOutputPayloadStoragePath": "out"}
    with Conductor(task) as server, WorkerRunner([look], [ServerSettings("eu", server.url)], config=quick()):
        until(lambda: server.updates, "no update")

    assert server.updates[0]["outputData"] == {"before": {"amount": 7}}


def test_un_started_task_keeps_its_output_outside():
    """Given back, it would lose what is there if the update had an empty one."""
    back = give_back(Task(task_id="t", output_path="out"))

    assert back.to_wire()["externalOutputPayloadStoragePath"] == "out"
    assert "outputData" not in back.to_wire()


def test_path_of_an_output_outlives_the_process():
    """It is written down with the result, in its output's place."""
    result = TaskResult(task_id="t", workflow_id="w", status=TaskStatus.COMPLETED, output={"a": 1}).stored_at("p")

    assert json.loads(result.to_json()) == result.to_wire()
    assert TaskResult.from_json(result.to_json()) == result
    assert TaskResult.from_json(result.to_json()).to_json() == result.to_json()


def test_many_addresses_are_not_all_remembered():
    """A server that names another host each time costs no more than a few connections."""
    made, numbers = [], [number // 2 for number in range(40)]  # each twice

    def make(settings):
        made.append(settings)
        return Fixed()

    class Fixed:
        """Answers all calls alike."""

        bounded = True

        def send(self, call, _):
            """Another host each time."""
            if not call.path.startswith("/tasks"):
                return HttpAnswer(200, {}, b"{}")
            uri = {"uri": f"http://host-{numbers.pop()}/x", "path": "p"}
            return HttpAnswer(200, {}, json.dumps(uri).encode())

        def close(self):
            """Nothing to close."""

    kept = payloads.Payloads(
        payloads.ConductorServer(ServerSettings("eu", "http://eu/api")), Fixed(), make, make, most=None
    )
    for _ in range(40):
        kept.fetch(Task(task_id="t", input_path="p"))

    assert len(made) == 20
    assert len(kept._transports) <= payloads.MOST_TRANSPORTS
    kept.close()


@pytest.mark.parametrize(
    ("uri", "own", "target"),
    [
        ("/api/x?a=1#f", True, "/api/x?a=1"),
        ("http://EU:80/y", True, "/y"),
        ("http://eu", True, "/"),
        ("https://eu/y", False, "/y"),
        ("http://eu:81/y", False, "/y"),
        ("//other/y", False, "/y"),
    ],
)
def test_place_is_the_servers_own_if_scheme_host_and_port_are(uri, own, target):
    """Anything else is somebody else, who gets no credentials."""
    place = read_place(HttpAnswer(200, {}, json.dumps({"uri": uri, "path": "p"}).encode()), "http://eu/api")

    assert (place.own, place.target) == (own, target)
    assert "a=1" not in repr(place)


def test_large_payload_is_larger_than_a_polled_task_may_be():
    """It is outside because it is large: only an answer's own limit holds."""
    body = json.dumps({"x": "y" * 17 * 2**20}).encode()

    assert read_payload(HttpAnswer(200, {}, body)) == json.loads(body)
    with pytest.raises(ServerFailed):
        read_payload(HttpAnswer(200, {}, b""))
