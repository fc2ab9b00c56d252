"""The response timeout: when a silent worker loses its task, what keeps it, and what becomes of its late result."""

from flow import Flow, json_answer, text_answer

from conductor_adapter.tasks import Task


def decide(flow: Flow, workflow: str) -> None:
    """Let the server look at the workflow's timeouts."""
    flow.server.call("PUT", f"/workflow/decide/{workflow}").expect()


def test_a_silent_worker_loses_its_task_and_its_late_result_is_ignored(flow: Flow) -> None:
    """Past the response timeout a decision makes a new attempt; the old id's result is 200 and changes nothing."""
    flow.define(responseTimeoutSeconds=1)
    (workflow,) = flow.start()
    (first,) = flow.take()
    decide(flow, workflow)
    assert flow.poll() == json_answer([])

    flow.let_pass(1.1)
    decide(flow, workflow)

    (again,) = flow.take()
    expected = flow.task_as_read(workflow, again["taskId"], retry_count=1, seq=2, response_timeout=1.0)
    assert Task.from_wire(again) == expected
    assert (again["retriedTaskId"], again["taskId"] == first["taskId"]) == (first["taskId"], False)
    assert again["reasonForIncompletion"] == flow.task(first)["reasonForIncompletion"]
    assert flow.task(first)["status"] == "TIMED_OUT"
    assert flow.update(first, outputData={"late": 1}) == text_answer(first["taskId"])
    assert (flow.task(first)["status"], flow.task(first)["outputData"]) == ("TIMED_OUT", {})
    assert flow.server.workflow(workflow)["status"] == "RUNNING"
    flow.update(again, outputData={"n": 2}).expect()
    shown = flow.server.workflow(workflow)
    assert (shown["status"], shown["output"]) == ("COMPLETED", {"n": 2})


def test_the_last_attempt_that_times_out_ends_the_workflow(flow: Flow) -> None:
    """Without a retry left the workflow is TIMED_OUT, whatever the definition's timeout policy."""
    flow.define(responseTimeoutSeconds=1, retryCount=0, timeoutPolicy="RETRY")
    (workflow,) = flow.start()
    (task,) = flow.take()

    flow.let_pass(1.1)
    decide(flow, workflow)

    shown = flow.server.workflow(workflow)
    assert (shown["status"], [one["status"] for one in shown["tasks"]]) == ("TIMED_OUT", ["TIMED_OUT"])
    reason = flow.task(task)["reasonForIncompletion"]
    assert reason.startswith(f"responseTimeout: 1 exceeded for the taskId: {task['taskId']} ")
    expected = f"Task {task['taskId']} failed with status: TIMED_OUT and reason: '{reason}'"
    assert shown["reasonForIncompletion"] == expected


def test_a_task_that_nobody_has_does_not_time_out(flow: Flow) -> None:
    """Neither waiting for a first poll nor waiting after it was given back counts."""
    flow.define(responseTimeoutSeconds=1)
    workflows = flow.start(2)
    (task,) = flow.take()
    flow.give_back(task)

    flow.let_pass(1.1)
    for workflow in workflows:
        decide(flow, workflow)

    tasks = flow.take(2)
    assert sorted((one["retryCount"], one["pollCount"]) for one in tasks) == [(0, 1), (0, 2)]


def test_a_heartbeat_starts_the_response_timeout_again(flow: Flow) -> None:
    """A worker that extends its lease keeps its task beyond the timeout, until it has been silent for that long."""
    flow.define(responseTimeoutSeconds=2)
    (workflow,) = flow.start()
    (task,) = flow.take()
    flow.let_pass(1.2)

    flow.update(task, "IN_PROGRESS", extendLease=True).expect()
    flow.let_pass(1.0)
    decide(flow, workflow)

    assert flow.task(task)["status"] == "IN_PROGRESS"
    flow.let_pass(1.1)
    decide(flow, workflow)
    assert flow.task(task)["status"] == "TIMED_OUT"
