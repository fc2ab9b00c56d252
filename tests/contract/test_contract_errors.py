"""What is refused, and how: statuses, and the error object by which a client tells one refusal from another."""

import uuid

import pytest
from client import ConductorClient, result_of
from flow import JSON, Flow, check_refused

UPDATES = ["/tasks", "/tasks/update-v2"]


def test_an_update_for_another_server_is_404(flow: Flow) -> None:
    """The workflow is looked for first, then the task; nothing is changed."""
    flow.define()
    flow.start()
    (task,) = flow.take()
    elsewhere = str(uuid.uuid4())

    both = {"workflowInstanceId": elsewhere, "taskId": elsewhere}
    check_refused(flow.update(both), 404, f"No such workflow found by id: {elsewhere}")
    away = {**task, "workflowInstanceId": elsewhere}
    check_refused(flow.update(away), 404, f"No such workflow found by id: {elsewhere}")
    unknown = {**task, "taskId": elsewhere}
    check_refused(flow.update(unknown), 404, f"No such task found by id: {elsewhere}")
    number = {"workflowInstanceId": 7, "taskId": 7}  # read as text
    check_refused(flow.update(number), 404, "No such workflow found by id: 7")
    assert flow.task(task)["status"] == "IN_PROGRESS"


@pytest.mark.parametrize("path", UPDATES)
@pytest.mark.parametrize("body", ["{", "", "[]", '"text"'])
def test_a_body_that_is_no_result_is_a_500_that_no_retry_helps(server: ConductorClient, path: str, body: str) -> None:
    """What cannot be read at all is the server's default error, which says ``"retryable": false``."""
    check_refused(server.call("POST", path, body), 500)


@pytest.mark.parametrize("path", UPDATES)
@pytest.mark.parametrize(
    "fields",
    [
        {"status": "NO_SUCH_STATUS"},
        {"status": "TIMED_OUT"},
        {"status": "SCHEDULED"},
        {"status": None},
        {"status": "IN_PROGRESS", "callbackAfterSeconds": "soon"},
        {"status": "COMPLETED", "outputData": "text"},
        {"status": "COMPLETED", "outputData": [1]},
        {"status": "COMPLETED", "logs": "text"},
        {"status": "COMPLETED", "taskId": ["text"]},
    ],
)
def test_a_result_that_makes_no_sense_is_a_500_and_changes_nothing(flow: Flow, path: str, fields: dict) -> None:
    """A status that a worker may not set, or none, or a field of a wrong type: the task stays where it is."""
    flow.define()
    flow.start()
    (task,) = flow.take()

    check_refused(flow.server.call("POST", path, {**result_of(task), **fields}), 500)

    assert flow.task(task)["status"] == "IN_PROGRESS"


def test_a_body_that_is_not_called_json_is_refused(server: ConductorClient) -> None:
    """A client that forgets the content type is told so, with the default error."""
    answer = server.call("POST", "/tasks", "{}", headers={"Content-Type": "text/plain"})
    check_refused(answer, 500)
    assert answer.body["message"].startswith("Content-Type 'text/plain")


def test_missing_ids_are_named(server: ConductorClient) -> None:
    """The plain update checks its ids with a 400 that lists them."""
    answer = server.call("POST", "/tasks", {"workflowInstanceId": "", "status": "COMPLETED"})

    assert (answer.status, answer.media_type) == (400, JSON)
    assert answer.body["message"] == "Validation failed, check below errors for detail."
    assert answer.body["retryable"] is False
    assert sorted(answer.body["validationErrors"], key=lambda entry: entry["path"]) == [
        {"path": "updateTask.arg0.taskId", "message": "Task ID cannot be null or empty"},
        {
            "path": "updateTask.arg0.workflowInstanceId",
            "message": "Workflow Id cannot be null or empty",
            "invalidValue": "",
        },
    ]


def test_missing_ids_are_a_500_of_update_v2(server: ConductorClient) -> None:
    """The same mistake is the default error there."""
    check_refused(server.call("POST", "/tasks/update-v2", {"status": "COMPLETED"}), 500)


def test_there_are_no_tokens(server: ConductorClient) -> None:
    """The open-source server has no token endpoint, which is how a client learns that it needs none."""
    credentials = {"keyId": "k", "keySecret": "s"}
    check_refused(server.call("POST", "/token", credentials), 404, "No static resource api/token.")


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/tasks/no-such-endpoint", 405, "Request method 'POST' is not supported"),
        ("GET", "/tasks", 405, "Request method 'GET' is not supported"),
        ("PATCH", "/workflow/x", 405, "Request method 'PATCH' is not supported"),
        ("GET", "/workflow/running/", 404, None),
        ("GET", "/no-such-endpoint", 404, "No static resource api/no-such-endpoint."),
        ("GET", "/tasks/a/b/c/d", 404, "No static resource api/tasks/a/b/c/d."),
        ("GET", "/tasks/nope", 404, "Task not found for taskId: nope"),
        ("GET", "/workflow/nope", 404, "No such workflow found by id: nope"),
        ("GET", "/workflow/nope/status", 404, "No such workflow found by id: nope"),
        ("PUT", "/workflow/decide/nope", 404, "No such workflow found by id: nope"),
        ("DELETE", "/workflow/nope", 404, "No such workflow found by id: nope"),
        ("POST", "/workflow/nope", 404, "No such workflow found by name: nope, version: null"),
        ("POST", "/workflow/nope?version=9", 404, "No such workflow found by name: nope, version: 9"),
        ("GET", "/metadata/taskdefs/nope", 404, "No such taskType found by name: nope"),
        ("GET", "/metadata/workflow/nope", 404, "No such workflow found by name: nope, version: null"),
    ],
)
def test_what_is_not_there_is_named(
    server: ConductorClient, method: str, path: str, status: int, message: str | None
) -> None:
    """An unknown path is 404, a known one with another method 405, and a missing thing is called by its name."""
    check_refused(server.call(method, path, {}), status, message)


@pytest.mark.parametrize("query", [{"count": "x"}, {"timeout": "x"}])
def test_a_number_that_is_none_is_a_500(flow: Flow, query: dict) -> None:
    """A poll whose numbers are none is the default error."""
    check_refused(flow.server.call("GET", f"/tasks/poll/batch/{flow.name}", **query), 500)
