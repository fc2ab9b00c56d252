"""Inputs and outputs that are stored outside of their tasks: what a task shows instead, and where the payload is."""

from typing import Any
from urllib.parse import urlencode

import pytest
from client import Answer, ConductorClient
from flow import Flow, check_refused, json_answer, text_answer

LARGE = {"amount": 7, "text": "ü☃" * 10_000}
SMALL = {"amount": 7, "text": "x" * 9_000}
GONE = {"Error": "Data with this ID does not exist or has been deleted from the external storage."}
INPUT, OUTPUT = "externalInputPayloadStoragePath", "externalOutputPayloadStoragePath"


def start(flow: Flow, number: Any) -> str:
    """Start the workflow with that as the input of its tasks; its id."""
    return flow.server.call("POST", f"/workflow/{flow.name}", {"number": number}).expect()


def locate(server: ConductorClient, **query: str) -> Answer:
    """Ask where a payload is; the client's own ``path`` is the path of the call."""
    return server.call("GET", f"/tasks/externalstoragelocation?{urlencode(query)}")


def fetch(flow: Flow, path: str, kind: str = "TASK_INPUT") -> Any:
    """Fetch a payload as a worker does: ask where it is, then go there."""
    location = locate(flow.server, path=path, operation="READ", payloadType=kind)
    assert location == json_answer({"uri": location.body["uri"], "path": path})
    return ConductorClient(location.body["uri"]).call("GET", "")


def test_a_large_input_is_stored_outside(storing: Flow) -> None:
    """The task has an empty input and the path of the other, which is fetched as it was given."""
    storing.define()
    workflow = start(storing, LARGE)

    (task,) = storing.take()

    assert task["inputData"] == {}
    assert OUTPUT not in task
    assert fetch(storing, task[INPUT]) == json_answer({"number": LARGE})
    (shown,) = storing.server.workflow(workflow)["tasks"]
    assert (shown["inputData"], shown[INPUT]) == ({}, task[INPUT])


def test_a_small_input_stays_with_its_task(storing: Flow) -> None:
    """Below the threshold nothing is stored outside, neither of the input nor of the output."""
    storing.define()
    start(storing, SMALL)
    (task,) = storing.take()

    storing.update(task, outputData=SMALL).expect()

    shown = storing.task(task)
    assert (shown["inputData"], shown["outputData"]) == ({"number": SMALL}, SMALL)
    assert not {INPUT, OUTPUT} & shown.keys()


def test_update_v2_brings_a_path_like_a_poll(storing: Flow) -> None:
    """The task that comes with the answer to a result has its input outside, too."""
    storing.define()
    for _ in range(2):
        start(storing, LARGE)
    (task,) = storing.take()

    brought = storing.update_v2(task).expect()

    assert brought["inputData"] == {}
    assert fetch(storing, brought[INPUT]).expect() == {"number": LARGE}


def test_a_retry_has_its_input_outside(storing: Flow) -> None:
    """Another attempt can be run as well as the first one."""
    storing.define(retryCount=1)
    start(storing, LARGE)
    (task,) = storing.take()
    storing.update(task, "FAILED", reasonForIncompletion="boom", outputData=LARGE).expect()

    (again,) = storing.take()

    assert (again["inputData"], again["outputData"], again["retryCount"]) == ({}, {}, 1)
    assert OUTPUT not in again
    assert fetch(storing, again[INPUT]).expect() == {"number": LARGE}


def test_the_server_stores_a_large_output_by_itself(storing: Flow) -> None:
    """A worker that sends it whole is answered as usual; the task has the path, the workflow the output."""
    storing.define()
    workflow = start(storing, 1)
    (task,) = storing.take()

    assert storing.update(task, outputData=LARGE) == text_answer(task["taskId"])

    shown = storing.task(task)
    assert (shown["status"], shown["inputData"], shown["outputData"]) == ("COMPLETED", {"number": 1}, {})
    assert fetch(storing, shown[OUTPUT], "TASK_OUTPUT") == json_answer(LARGE)
    ended = storing.server.workflow(workflow)
    assert (ended["status"], ended["output"]) == ("COMPLETED", LARGE)


def test_a_large_output_of_a_task_that_goes_on_comes_back_as_a_path(storing: Flow) -> None:
    """It is fetched like an input; an output that comes later does not replace it, but is added to it."""
    storing.define()
    workflow = start(storing, 1)
    (task,) = storing.take()
    storing.give_back(task, outputData=LARGE)

    (again,) = storing.take()

    assert again["outputData"] == {}
    assert fetch(storing, again[OUTPUT], "TASK_OUTPUT").expect() == LARGE
    storing.update(again, outputData={"n": 1}).expect()
    shown = storing.task(again)
    assert (shown["status"], shown["outputData"]) == ("COMPLETED", {})
    assert fetch(storing, shown[OUTPUT], "TASK_OUTPUT").expect() == {**LARGE, "n": 1}
    assert storing.server.workflow(workflow)["output"] == {**LARGE, "n": 1}


def test_a_later_step_gets_a_part_of_an_output_that_is_outside(storing: Flow) -> None:
    """Expressions look into payloads wherever they are."""
    server, name = storing.server, storing.name
    server.register(name, name)
    first = {"name": name, "taskReferenceName": "first", "type": "SIMPLE", "inputParameters": {}}
    second = {**first, "taskReferenceName": "second", "inputParameters": {"got": "${first.output.amount}"}}
    plan = {"name": f"{name}_w", "version": 1, "schemaVersion": 2, "tasks": [first, second], "timeoutSeconds": 0}
    server.call("POST", "/metadata/workflow", {**plan, "ownerEmail": "tests@example.com"}).expect()
    server.call("POST", f"/workflow/{name}_w", {}).expect()
    (task,) = storing.take()
    storing.update(task, outputData=LARGE).expect()

    (task,) = storing.take()

    assert task["inputData"] == {"got": 7}


def test_a_worker_names_the_path_of_an_output_that_it_stored(storing: Flow) -> None:
    """The output is what is stored there, whatever else the report has, and the workflow goes on with it."""
    storing.define()
    start(storing, LARGE)
    (stored,) = storing.take()
    workflow = start(storing, 1)
    (task,) = storing.take()

    reported = storing.update(task, outputData={"n": 1}, externalOutputPayloadStoragePath=stored[INPUT])

    assert reported == text_answer(task["taskId"])
    shown = storing.task(task)
    assert (shown["status"], shown["outputData"], shown[OUTPUT]) == ("COMPLETED", {}, stored[INPUT])
    ended = storing.server.workflow(workflow)
    assert (ended["status"], ended["output"]) == ("COMPLETED", {"number": LARGE})


def test_what_is_not_stored_looks_like_a_payload(storing: Flow) -> None:
    """A path that nothing is stored at is answered with 200 and an object that says so: no client may take it."""
    storing.define()
    workflow = start(storing, 1)
    (task,) = storing.take()

    assert fetch(storing, "nope.json") == json_answer(GONE)

    storing.update(task, externalOutputPayloadStoragePath="nope.json").expect()
    ended = storing.server.workflow(workflow)
    assert (ended["status"], ended["output"]) == ("COMPLETED", GONE)


def test_a_place_for_an_output_is_a_new_one_each_time(storing: Flow) -> None:
    """Without a path the server makes one up; how the operation is spelt does not matter."""
    places = [
        locate(storing.server, path="", operation=operation, payloadType="TASK_OUTPUT").expect()
        for operation in ("WRITE", "write")
    ]

    assert all(place["uri"].endswith(place["path"]) for place in places)
    assert len({place["path"] for place in places}) == 2


def test_a_server_without_a_storage_names_no_address(server: ConductorClient) -> None:
    """It answers with a path alone: a client must not take the address for granted."""
    answer = locate(server, path="x.json", operation="READ", payloadType="TASK_INPUT")

    assert answer == json_answer({"path": answer.body["path"]})
    assert answer.body["path"].startswith("x.json")


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"operation": "NOPE"}, 400, "Invalid input - Operation: NOPE, PayloadType: TASK_INPUT"),
        ({"payloadType": "NOPE"}, 400, "Invalid input - Operation: READ, PayloadType: NOPE"),
        ({"path": None}, 500, "Required request parameter 'path' for method parameter type String is not present"),
        ({"operation": None}, 500, None),
        ({"payloadType": None}, 500, None),
    ],
)
def test_a_question_for_a_place_that_makes_no_sense_is_refused(
    server: ConductorClient, query: dict, status: int, message: str | None
) -> None:
    """What is unknown is 400, what is missing the default error."""
    asked = {"path": "x.json", "operation": "READ", "payloadType": "TASK_INPUT", **query}
    check_refused(
        locate(server, **{name: value for name, value in asked.items() if value is not None}), status, message
    )
