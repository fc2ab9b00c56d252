"""Definitions and starts: what a demo or a test sets up, and what becomes of it in the tasks."""

from typing import Any

import pytest
from client import ConductorClient
from flow import JSON, OK, TEXT, Flow, check_refused

OWNER = {"ownerEmail": "tests@example.com"}


def plan(name: str, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A workflow definition."""
    return {
        "name": name,
        "version": 1,
        "schemaVersion": 2,
        "tasks": list(steps),
        "timeoutSeconds": 0,
        **OWNER,
        **fields,
    }


def step(name: str, reference: str = "only", **inputs: Any) -> dict[str, Any]:
    """One step of a definition."""
    return {"name": name, "taskReferenceName": reference, "type": "SIMPLE", "inputParameters": inputs}


def test_task_definitions_come_as_a_list_and_replace_each_other(server: ConductorClient, name: str) -> None:
    """POST takes an array, PUT one; the last one counts, and can be read."""
    path = f"/metadata/taskdefs/{name}"
    wanted = {"name": name, "retryCount": 7, "responseTimeoutSeconds": 5, "timeoutSeconds": 60, **OWNER}

    assert server.call("POST", "/metadata/taskdefs", [wanted]) == OK
    answer = server.call("GET", path)
    assert (answer.status, answer.media_type) == (200, JSON)
    usual = {"retryDelaySeconds": 60, "retryLogic": "FIXED", "timeoutPolicy": "TIME_OUT_WF"}
    assert answer.body.items() >= {**wanted, **usual}.items()

    assert server.call("POST", "/metadata/taskdefs", [{**wanted, "retryCount": 1}]) == OK
    assert server.call("GET", path).expect()["retryCount"] == 1
    assert server.call("PUT", "/metadata/taskdefs", {**wanted, "retryCount": 2}) == OK
    assert server.call("GET", path).expect()["retryCount"] == 2
    assert name in {entry["name"] for entry in server.call("GET", "/metadata/taskdefs").expect()}


def test_one_task_definition_without_its_list_is_refused(server: ConductorClient, name: str) -> None:
    """POST takes nothing but an array."""
    check_refused(server.call("POST", "/metadata/taskdefs", {"name": name, **OWNER}), 500)
    assert server.call("GET", f"/metadata/taskdefs/{name}").status == 404


@pytest.mark.parametrize("fields", [{"responseTimeoutSeconds": 0}, {"name": ""}])
def test_a_task_definition_that_makes_no_sense_is_refused(server: ConductorClient, name: str, fields: dict) -> None:
    """A response timeout of no time, or no name: 400, and nothing is stored."""
    answer = server.call("POST", "/metadata/taskdefs", [{"name": name, **OWNER, **fields}])

    assert (answer.status, answer.media_type) == (400, JSON)
    assert answer.body["retryable"] is False
    assert server.call("GET", f"/metadata/taskdefs/{name}").status == 404


def test_a_workflow_definition_is_not_replaced_unless_told(server: ConductorClient, name: str) -> None:
    """The same name and version again is 409, with ``overwrite=true`` it is replaced."""
    server.register(name, name)
    first, second = plan(f"{name}_w", step(name)), plan(f"{name}_w", step(name, n=2))

    assert server.call("POST", "/metadata/workflow", first) == OK
    again = server.call("POST", "/metadata/workflow", second)
    assert (again.status, again.media_type) == (409, JSON)
    assert again.body["message"] == f"Workflow with {name}_w.1 already exists!"
    shown = server.call("GET", f"/metadata/workflow/{name}_w").expect()
    assert shown["tasks"][0]["inputParameters"] == {}

    assert server.call("POST", "/metadata/workflow", second, overwrite="true") == OK
    shown = server.call("GET", f"/metadata/workflow/{name}_w").expect()
    assert shown["tasks"][0]["inputParameters"] == {"n": 2}


def test_the_latest_version_of_a_workflow_is_what_is_meant(server: ConductorClient, name: str) -> None:
    """Without a version the highest one is shown and started, with a version that one."""
    server.register(name, name)
    versions = [plan(f"{name}_w", step(name, n=number), version=number) for number in (1, 2)]

    stored = server.call("PUT", "/metadata/workflow", versions)

    assert (stored.status, stored.media_type) == (200, JSON)
    assert stored.body == {"bulkErrorResults": {}, "bulkSuccessfulResults": [f"{name}_w", f"{name}_w"]}
    assert server.call("GET", f"/metadata/workflow/{name}_w").expect()["version"] == 2
    assert server.call("GET", f"/metadata/workflow/{name}_w", version=1).expect()["version"] == 1
    server.call("POST", f"/workflow/{name}_w", {}).expect()
    server.call("POST", f"/workflow/{name}_w", {}, version=1).expect()
    tasks = server.poll(name, count=2, timeout_ms=2000)
    assert [task["inputData"] for task in tasks] == [{"n": 2}, {"n": 1}]


def test_a_task_type_without_a_definition_has_the_servers_own(server: ConductorClient, name: str) -> None:
    """It runs all the same, with three retries and an hour to answer."""
    server.call("POST", "/metadata/workflow", plan(name, step(name))).expect()
    server.call("POST", f"/workflow/{name}", {}).expect()

    (task,) = server.poll(name, timeout_ms=2000)

    assert task["responseTimeoutSeconds"] == 3600
    assert task["workflowTask"]["taskDefinition"]["retryCount"] == 3


def test_a_step_may_have_its_own_number_of_retries(server: ConductorClient, name: str) -> None:
    """It goes before the one of the task's definition."""
    server.register(name, name, retryCount=3)
    server.call("POST", "/metadata/workflow", plan(f"{name}_w", {**step(name), "retryCount": 0})).expect()
    workflow = server.call("POST", f"/workflow/{name}_w", {}).expect()
    (task,) = server.poll(name, timeout_ms=2000)

    server.update(task, "FAILED").expect()

    assert server.workflow(workflow)["status"] == "FAILED"


def test_a_start_is_answered_with_the_workflow_id_as_text(flow: Flow) -> None:
    """Both ways to start a workflow say its id, and nothing else, as text."""
    flow.define()
    request = {"name": flow.name, "version": 1, "input": {"number": 3}, "correlationId": "c", "priority": 4}

    named = flow.server.call("POST", f"/workflow/{flow.name}", {"number": 5})
    asked = flow.server.call("POST", "/workflow", request)

    assert [(answer.status, answer.media_type) for answer in (named, asked)] == [(200, TEXT)] * 2
    shown = flow.server.workflow(asked.body)
    assert (shown["workflowId"], shown["correlationId"], shown["priority"]) == (asked.body, "c", 4)
    tasks = {task["workflowInstanceId"]: task for task in flow.take(2)}
    assert tasks[named.body]["inputData"] == {"number": 5}
    assert tasks[asked.body]["inputData"] == {"number": 3}
    assert (tasks[asked.body]["correlationId"], tasks[asked.body]["workflowPriority"]) == ("c", 4)


def test_a_start_may_bring_its_own_definition(server: ConductorClient, name: str) -> None:
    """An inline definition runs without being registered."""
    inline = plan(f"{name}_inline", step(name, n=1))

    workflow = server.call("POST", "/workflow", {"name": f"{name}_inline", "version": 1, "workflowDef": inline})

    assert (workflow.status, workflow.media_type) == (200, TEXT)
    (task,) = server.poll(name, timeout_ms=2000)
    assert (task["workflowInstanceId"], task["inputData"]) == (workflow.body, {"n": 1})
    assert server.call("GET", f"/metadata/workflow/{name}_inline").status == 404


def test_a_start_of_something_unknown_says_what_is_missing(server: ConductorClient, name: str) -> None:
    """A start request without its definition is 404, one without a name 400."""
    answer = server.call("POST", "/workflow", {"name": name, "input": {}})
    check_refused(answer, 404, f"No such workflow defined. name={name}, version=null")
    assert server.call("POST", "/workflow", {"input": {}}).status == 400


def test_values_are_handed_on_between_steps(server: ConductorClient, name: str) -> None:
    """Expressions take values, or texts with values in them, from inputs and earlier outputs; what is not is null."""
    server.register(name, name)
    first = step(name, "a", x="${workflow.input.x}", text="v-${workflow.input.x}", none="${workflow.input.nope}")
    second = step(name, "b", y="${a.output.y}", deep="${a.output.d.e}", whole="${a.output.d}")
    described = plan(
        f"{name}_w", first, second, outputParameters={"r": "${b.output.z}", "id": "${workflow.workflowId}"}
    )
    server.call("POST", "/metadata/workflow", described).expect()
    workflow = server.call("POST", f"/workflow/{name}_w", {"x": 7}).expect()

    (task,) = server.poll(name, timeout_ms=2000)
    assert task["inputData"] == {"x": 7, "text": "v-7", "none": None}
    server.update(task, outputData={"y": "Y", "d": {"e": 3}}).expect()
    (task,) = server.poll(name, timeout_ms=2000)
    assert task["inputData"] == {"y": "Y", "deep": 3, "whole": {"e": 3}}
    server.update(task, outputData={"z": [1]}).expect()

    shown = server.workflow(workflow)
    assert (shown["status"], shown["output"]) == ("COMPLETED", {"r": [1], "id": workflow})
