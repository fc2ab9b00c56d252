"""The plain update that ends a task: what each status does, that repeating it is safe, what a worker may leave out."""

import time

import pytest
from flow import OK, Flow, json_answer, text_answer

from conductor_adapter.tasks import Task


def test_an_update_is_answered_with_the_task_id_as_text(flow: Flow) -> None:
    """A completed task is kept as it was reported, and its workflow goes on."""
    flow.define()
    (workflow,) = flow.start()
    (task,) = flow.take()

    output = {"n": 1.5, "ü": "☃", "deep": [None, {"a": None}]}

    assert flow.update(task, outputData=output) == text_answer(task["taskId"])

    shown = flow.task(task)
    assert (shown["status"], shown["outputData"], shown["workerId"]) == ("COMPLETED", output, "tests")
    assert shown["endTime"] >= shown["startTime"]
    assert flow.server.workflow(workflow)["status"] == "COMPLETED"


@pytest.mark.parametrize(("steps", "ending"), [(1, "COMPLETED"), (2, "RUNNING")])
@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "IN_PROGRESS"])
def test_a_repeated_update_is_taken_and_ignored(flow: Flow, status: str, steps: int, ending: str) -> None:
    """What has ended stays as it is, also while its workflow goes on: the same answer, and nothing changes."""
    flow.define(steps)
    (workflow,) = flow.start()
    (task,) = flow.take()
    flow.update(task, outputData={"n": 1}).expect()

    assert flow.update(task, status, outputData={"n": 2}) == text_answer(task["taskId"])

    shown = flow.server.workflow(workflow)
    assert (shown["status"], shown["tasks"][0]["status"]) == (ending, "COMPLETED")
    assert [entry["outputData"] for entry in shown["tasks"]] == [{"n": 1}, {}][:steps]
    assert len(flow.poll(count=5).expect()) == steps - 1


def test_a_completed_step_brings_the_next_one(flow: Flow) -> None:
    """The next step is a task of its own, with the next number and its own reference name."""
    flow.define(steps=2)
    (workflow,) = flow.start()
    (first,) = flow.take()
    flow.update(first).expect()

    (second,) = flow.take()

    expected = flow.task_as_read(workflow, second["taskId"], seq=2, reference_name=f"{flow.name}_1")
    assert Task.from_wire(second) == expected
    assert second["taskId"] != first["taskId"]


def test_whoever_knows_the_id_may_report(flow: Flow) -> None:
    """Neither the worker id nor that the task was polled is checked; a task that has ended is not brought."""
    flow.define()
    (workflow,) = flow.start()
    task = flow.first_task(workflow)

    assert flow.update(task, workerId="somebody") == text_answer(task["taskId"])

    assert flow.server.workflow(workflow)["status"] == "COMPLETED"
    assert flow.poll() == json_answer([])


def test_an_update_reaches_its_task_under_a_wrong_workflow(flow: Flow) -> None:
    """Only that the named workflow exists is checked, not that the task belongs to it."""
    flow.define()
    workflows = flow.start(2)
    (task,) = flow.take()
    other = next(one for one in workflows if one != task["workflowInstanceId"])

    assert flow.update({**task, "workflowInstanceId": other}, outputData={"n": 1}) == text_answer(task["taskId"])

    assert (flow.task(task)["status"], flow.task(task)["outputData"]) == ("COMPLETED", {"n": 1})
    assert flow.server.workflow(other)["status"] == "RUNNING"


def test_a_task_of_a_workflow_that_was_stopped_takes_reports_and_ignores_them(flow: Flow) -> None:
    """Stopping a workflow cancels its task; whoever still works on it is answered with 200."""
    flow.define()
    (workflow,) = flow.start()
    (task,) = flow.take()
    assert flow.server.call("DELETE", f"/workflow/{workflow}", reason="enough") == OK

    assert flow.update(task, outputData={"n": 1}) == text_answer(task["taskId"])

    shown = flow.server.workflow(workflow)
    assert (shown["status"], shown["reasonForIncompletion"]) == ("TERMINATED", "enough")
    assert [(entry["status"], entry["outputData"]) for entry in shown["tasks"]] == [("CANCELED", {})]


def test_a_failed_task_is_tried_again_under_a_new_id(flow: Flow) -> None:
    """The next attempt has the same input, an empty output, and says which attempt of which task it is and why."""
    flow.define(retryCount=1)
    (workflow,) = flow.start()
    (task,) = flow.take()

    reported = flow.update(task, "FAILED", reasonForIncompletion="boom", outputData={"n": 1})

    assert reported == text_answer(task["taskId"])
    (again,) = flow.take()
    assert Task.from_wire(again) == flow.task_as_read(workflow, again["taskId"], retry_count=1, seq=2)
    assert (again["retriedTaskId"], again["reasonForIncompletion"]) == (task["taskId"], "boom")
    assert again["taskId"] != task["taskId"]
    assert (flow.task(task)["status"], flow.task(task)["retried"]) == ("FAILED", True)


def test_a_failed_task_waits_for_its_retry_delay(flow: Flow) -> None:
    """A retry is in the queue at once, and is brought once the delay of the definition is over."""
    flow.define(retryDelaySeconds=1)
    flow.start()
    (task,) = flow.take()
    before = time.monotonic()
    flow.update(task, "FAILED").expect()

    assert flow.queue_size() == json_answer(1)
    (again,) = flow.take()

    assert time.monotonic() - before >= 0.9
    assert again["retryCount"] == 1


@pytest.mark.parametrize(
    ("status", "reason", "ending"),
    [
        ("FAILED", "boom", "FAILED"),
        ("FAILED", None, "FAILED"),
        ("FAILED_WITH_TERMINAL_ERROR", "boom", "FAILED"),
        ("CANCELED", "boom", "TERMINATED"),
    ],
)
def test_the_last_failure_ends_the_workflow(flow: Flow, status: str, reason: str | None, ending: str) -> None:
    """Without a retry left the workflow ends, and its reason names the task and quotes the task's."""
    flow.define(retryCount=0)
    (workflow,) = flow.start()
    (task,) = flow.take()

    assert flow.update(task, status, reasonForIncompletion=reason) == text_answer(task["taskId"])

    shown = flow.server.workflow(workflow)
    quoted = "null" if reason is None else reason
    expected = f"Task {task['taskId']} failed with status: {ending} and reason: '{quoted}'"
    assert (shown["status"], shown["reasonForIncompletion"]) == (ending, expected)
    assert [(one["status"], one.get("reasonForIncompletion")) for one in shown["tasks"]] == [(status, reason)]


def test_a_terminal_error_is_not_tried_again(flow: Flow) -> None:
    """FAILED_WITH_TERMINAL_ERROR ends the workflow though there are retries."""
    flow.define(retryCount=3)
    (workflow,) = flow.start()
    (task,) = flow.take()

    flow.update(task, "FAILED_WITH_TERMINAL_ERROR", reasonForIncompletion="boom").expect()

    assert flow.server.workflow(workflow)["status"] == "FAILED"
    assert flow.poll() == json_answer([])


def test_nulls_and_unknown_fields_of_a_report_are_ignored(flow: Flow) -> None:
    """What a newer client sends, and what another one leaves empty, disturbs nobody."""
    flow.define()
    (workflow,) = flow.start()
    (task,) = flow.take()
    odd = {"logs": None, "reasonForIncompletion": None, "outputData": None, "workerId": None, "surprise": {"a": [1]}}

    assert flow.update(task, **odd) == text_answer(task["taskId"])

    assert flow.server.workflow(workflow)["status"] == "COMPLETED"


def test_an_id_is_text_whatever_the_client_would_accept(flow: Flow) -> None:
    """The Accept header changes nothing."""
    flow.define()
    flow.start()
    (task,) = flow.take()
    result = {"workflowInstanceId": task["workflowInstanceId"], "taskId": task["taskId"], "status": "COMPLETED"}
    headers = {"Content-Type": "application/json", "Accept": "application/json"}

    assert flow.server.call("POST", "/tasks", result, headers=headers) == text_answer(task["taskId"])
