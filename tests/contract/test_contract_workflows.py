"""What a server tells of its workflows and queues, as a demo, a test or ``check`` asks it."""

from client import ConductorClient
from flow import JSON, OK, TEXT, Flow, check_refused, json_answer

from conductor_adapter.tasks import Task


def test_a_workflow_is_shown_with_all_its_attempts(flow: Flow) -> None:
    """With tasks: every attempt in the order of their making; without: none."""
    flow.define(retryCount=1)
    (workflow,) = flow.start()
    for _ in range(2):
        (task,) = flow.take()
        flow.update(task, "FAILED", reasonForIncompletion="boom").expect()

    answer = flow.server.call("GET", f"/workflow/{workflow}", includeTasks="true")

    assert (answer.status, answer.media_type) == (200, JSON)
    shown = answer.body
    assert (shown["workflowId"], shown["workflowName"], shown["workflowVersion"]) == (workflow, flow.name, 1)
    assert (shown["status"], shown["input"]) == ("FAILED", {"number": 0})
    assert shown["failedReferenceTaskNames"] == [f"{flow.name}_0"]
    assert [(one["retryCount"], one["pollCount"], one["status"]) for one in shown["tasks"]] == [
        (0, 1, "FAILED"),
        (1, 1, "FAILED"),
    ]
    assert flow.server.call("GET", f"/workflow/{workflow}", includeTasks="false").expect()["tasks"] == []
    assert len(flow.server.call("GET", f"/workflow/{workflow}").expect()["tasks"]) == 2


def test_a_task_is_shown_as_a_poll_would_bring_it(flow: Flow) -> None:
    """One task by its id, with every field that a worker reads."""
    flow.define()
    (workflow,) = flow.start()
    (task,) = flow.take()

    answer = flow.server.call("GET", f"/tasks/{task['taskId']}")

    assert (answer.status, answer.media_type) == (200, JSON)
    assert Task.from_wire(answer.body) == flow.task_as_read(workflow, task["taskId"])


def test_running_workflows_are_listed_until_they_end(flow: Flow) -> None:
    """Ids by name, whatever the version in the question; an unknown name has none."""
    flow.define()
    assert flow.server.call("GET", f"/workflow/running/{flow.name}", version=1) == json_answer([])
    workflows = flow.start(2)
    assert sorted(flow.server.running(flow.name)) == sorted(workflows)
    other = flow.server.call("GET", f"/workflow/running/{flow.name}", version=2).expect()
    assert sorted(other) == sorted(workflows)

    (task,) = flow.take()
    flow.update(task).expect()

    workflows.remove(task["workflowInstanceId"])
    assert flow.server.running(flow.name) == workflows


def test_many_workflows_are_shown_in_one_answer(flow: Flow) -> None:
    """A bulk search finds by id, and names what it does not find."""
    flow.define()
    workflows = flow.start(2)

    answer = flow.server.call("POST", "/workflow/bulk/search", [*workflows, "nope"], includeTasks="false")

    assert (answer.status, answer.media_type) == (200, JSON)
    found = {one["workflowId"]: one for one in answer.body["bulkSuccessfulResults"]}
    assert found.keys() == set(workflows)
    assert {one["status"] for one in found.values()} == {"RUNNING"}
    assert all(one["tasks"] == [] for one in found.values())
    assert answer.body["bulkErrorResults"] == {"nope": "No such workflow found by id: nope"}
    assert answer.body.keys() == {"bulkErrorResults", "bulkSuccessfulResults"}


def test_the_status_of_a_workflow_is_told_alone(flow: Flow) -> None:
    """Its id and how it stands, without the rest."""
    flow.define()
    workflow = flow.server.call("POST", f"/workflow/{flow.name}", {}, correlationId="c").expect()

    answer = flow.server.call("GET", f"/workflow/{workflow}/status")

    assert (answer.status, answer.media_type) == (200, JSON)
    expected = {"workflowId": workflow, "status": "RUNNING", "correlationId": "c"}
    assert answer.body.items() >= expected.items()


def test_a_decision_and_a_stop_are_answered_with_nothing(flow: Flow) -> None:
    """Both change what is to be changed, and nothing on a workflow that has ended."""
    flow.define()
    (workflow,) = flow.start()

    assert flow.server.call("PUT", f"/workflow/decide/{workflow}") == OK
    assert flow.server.workflow(workflow)["status"] == "RUNNING"
    assert flow.server.call("DELETE", f"/workflow/{workflow}") == OK
    assert flow.server.workflow(workflow)["status"] == "TERMINATED"
    assert flow.server.call("PUT", f"/workflow/decide/{workflow}") == OK
    assert flow.server.running(flow.name) == []
    assert flow.poll() == json_answer([])


def test_a_workflow_that_has_ended_can_hardly_be_stopped(flow: Flow) -> None:
    """One that was stopped takes it again and keeps its reason; one that completed refuses."""
    flow.define()
    stopped, completed = flow.start(2)
    assert flow.server.call("DELETE", f"/workflow/{stopped}", reason="enough") == OK
    (task,) = flow.take()
    flow.update(task).expect()

    assert flow.server.call("DELETE", f"/workflow/{stopped}", reason="again") == OK
    assert flow.server.workflow(stopped)["reasonForIncompletion"] == "enough"
    refused = flow.server.call("DELETE", f"/workflow/{completed}")
    check_refused(refused, 409, "Cannot terminate a COMPLETED workflow.")
    assert flow.server.workflow(completed)["status"] == "COMPLETED"


def test_queue_sizes_count_what_waits(flow: Flow) -> None:
    """By task type, by domain, or all queues at once, where a domain's queue is called ``domain:type``."""
    flow.define()
    assert flow.queue_size() == json_answer(0)
    flow.start(2)
    flow.start_in("d1")
    assert (flow.queue_size(), flow.queue_size(domain="d1")) == (json_answer(2), json_answer(1))
    sizes = flow.server.call("GET", "/tasks/queue/all")
    assert (sizes.status, sizes.media_type) == (200, JSON)
    assert sizes.body.items() >= {(flow.name, 2), (f"d1:{flow.name}", 1)}

    (task,) = flow.take()

    assert flow.queue_size() == json_answer(1)
    flow.give_back(task)
    assert flow.queue_size() == json_answer(2)


def test_who_polled_last_is_told(flow: Flow) -> None:
    """Each queue of a type, with the worker that asked it last and when."""
    flow.define()
    flow.poll()
    flow.poll(domain="d1")

    answer = flow.server.call("GET", "/tasks/queue/polldata", taskType=flow.name)

    assert (answer.status, answer.media_type) == (200, JSON)
    assert {(one["queueName"], one.get("domain"), one["workerId"]) for one in answer.body} == {
        (flow.name, None, "tests"),
        (flow.name, "d1", "tests"),
    }
    assert all(one["lastPollTime"] > 0 for one in answer.body)


def test_version_and_health_are_told(server: ConductorClient) -> None:
    """The version is text, which starts with a number; health is good as soon as the server answers at all."""
    version = server.call("GET", "/version")
    assert (version.status, version.media_type) == (200, TEXT)
    assert version.body.split(".")[0].isdigit()
    outside = ConductorClient(server.url.removesuffix("/api"))
    for health in (server.call("GET", "/health"), outside.call("GET", "/health")):
        assert (health.status, health.media_type) == (200, JSON)
        assert health.body["healthy"] is True
