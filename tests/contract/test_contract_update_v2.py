"""update-v2: it takes the result like the plain update, and brings the next task of the same type and domain."""

import pytest
from flow import JSON, NO_CONTENT, Flow, check_refused, json_answer

from conductor_adapter.tasks import Task


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "FAILED_WITH_TERMINAL_ERROR"])
def test_update_v2_takes_the_result_and_brings_the_next_task(flow: Flow, status: str) -> None:
    """200 and one task that is assigned as by a poll; the reported one is as it was reported."""
    flow.define(retryCount=0)
    workflows = flow.start(3)
    (task,) = flow.take()
    left = {*workflows} - {task["workflowInstanceId"]}

    answer = flow.update_v2(task, status, outputData={"n": 1})

    assert (answer.status, answer.media_type) == (200, JSON)
    brought = answer.body
    number = {"number": workflows.index(brought["workflowInstanceId"])}
    expected = flow.task_as_read(brought["workflowInstanceId"], brought["taskId"], input=number)
    assert Task.from_wire(brought) == expected
    assert brought["workflowInstanceId"] in left
    assert (brought["status"], brought["workerId"]) == ("IN_PROGRESS", "tests")
    assert flow.task(brought)["status"] == "IN_PROGRESS"
    assert (flow.task(task)["status"], flow.task(task)["outputData"]) == (status, {"n": 1})


def test_update_v2_is_204_when_there_is_no_other_task(flow: Flow) -> None:
    """The result is taken; no content says that nothing came."""
    flow.define()
    (workflow,) = flow.start()
    (task,) = flow.take()

    assert flow.update_v2(task) == NO_CONTENT

    assert flow.server.workflow(workflow)["status"] == "COMPLETED"


def test_update_v2_brings_the_next_step_of_the_same_workflow(flow: Flow) -> None:
    """What the result itself sets going is there already."""
    flow.define(steps=2)
    (workflow,) = flow.start()
    (task,) = flow.take()

    brought = flow.update_v2(task).expect()

    expected = flow.task_as_read(workflow, brought["taskId"], seq=2, reference_name=f"{flow.name}_1")
    assert Task.from_wire(brought) == expected


def test_update_v2_brings_the_retry_of_a_failed_task(flow: Flow) -> None:
    """An attempt that failed is followed by the next one."""
    flow.define(retryCount=1)
    (workflow,) = flow.start()
    (task,) = flow.take()

    brought = flow.update_v2(task, "FAILED").expect()

    assert Task.from_wire(brought) == flow.task_as_read(workflow, brought["taskId"], retry_count=1, seq=2)


def test_a_repeated_update_v2_hands_out_yet_another_task(flow: Flow) -> None:
    """Hence it must not be repeated after a transport error; the result itself is ignored the second time."""
    flow.define()
    flow.start(3)
    (task,) = flow.take()

    brought = [flow.update_v2(task).expect(), flow.update_v2(task, outputData={"n": 2}).expect()]

    assert len({task["taskId"], *(one["taskId"] for one in brought)}) == 3
    assert [flow.task(one)["status"] for one in brought] == ["IN_PROGRESS", "IN_PROGRESS"]
    assert flow.task(task)["outputData"] == {}
    assert flow.update_v2(task) == NO_CONTENT


@pytest.mark.parametrize("fields", [{"callbackAfterSeconds": 0}, {"extendLease": True}])
def test_update_v2_brings_nothing_for_a_task_that_goes_on(flow: Flow, fields: dict) -> None:
    """IN_PROGRESS and heartbeats are 204, and leave what waits where it is."""
    flow.define()
    flow.start(2)
    (task,) = flow.take()

    assert flow.update_v2(task, "IN_PROGRESS", **fields) == NO_CONTENT

    status, waiting = ("IN_PROGRESS", 1) if "extendLease" in fields else ("SCHEDULED", 2)
    assert flow.task(task)["status"] == status
    assert len(flow.poll(count=5).expect()) == waiting


def test_update_v2_stays_in_its_domain(flow: Flow) -> None:
    """Of a task in a domain the next one is of that domain too, and never one of another."""
    flow.define()
    flow.start_in("d1")
    (task,) = flow.take(domain="d1")
    outside, inside = flow.start(), flow.start_in("d1")

    brought = flow.update_v2(task).expect()

    assert Task.from_wire(brought) == flow.task_as_read(inside, brought["taskId"], domain="d1")
    assert flow.update_v2(brought) == NO_CONTENT
    assert [one["workflowInstanceId"] for one in flow.take()] == outside


def test_update_v2_refuses_unknown_ids_like_the_plain_update(flow: Flow) -> None:
    """A 404 in Conductor's own words is about ids, not about the endpoint, and brings no task."""
    flow.define()
    flow.start(2)
    (task,) = flow.take()

    check_refused(flow.update_v2({**task, "workflowInstanceId": "nope"}), 404, "No such workflow found by id: nope")
    check_refused(flow.update_v2({**task, "taskId": "nope"}), 404, "No such task found by id: nope")
    assert flow.queue_size() == json_answer(1)
