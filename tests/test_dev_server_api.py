"""The API's statuses and bodies, as a real server 3.32.1 was seen to answer."""

import asyncio

import pytest
from dev_server_calls import TimedApi, result, split

from conductor_adapter.dev_server.answers import Call


@pytest.fixture
def api():
    """An API on virtual time."""
    timed = TimedApi()
    yield timed
    timed.close()


def error(status, message):
    """A real server's error object."""
    return status, {"status": status, "message": message, "instance": "dev-server", "retryable": False}


def test_health_and_version_are_those_of_a_real_server(api):
    """Health is always good, and the version is text."""
    assert api.ask("GET", "/health") == api.ask("GET", "/api/health")
    assert api.ask("GET", "/health")[1]["healthy"] is True
    answer = api.call("GET", "/api/version")
    assert (answer.body, answer.media_type) == (b"3.32.1", "text/plain;charset=UTF-8")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/api/token", error(404, "No static resource api/token.")),
        ("GET", "/api/nope", error(404, "No static resource api/nope.")),
        ("GET", "/nope", error(404, "No static resource nope.")),
        ("GET", "/api/tasks/a/b/c/d", error(404, "No static resource api/tasks/a/b/c/d.")),
        ("GET", "/api/workflow/running/", error(404, "No static resource api/workflow/running/.")),
        ("POST", "/api/tasks/update-v9", error(405, "Request method 'POST' is not supported")),
        ("GET", "/api/tasks", error(405, "Request method 'GET' is not supported")),
        ("PATCH", "/api/workflow/x", error(405, "Request method 'PATCH' is not supported")),
        ("GET", "/api/tasks/nope", error(404, "Task not found for taskId: nope")),
        ("GET", "/api/workflow/nope", error(404, "No such workflow found by id: nope")),
        ("GET", "/api/workflow/nope/status", error(404, "No such workflow found by id: nope")),
        ("PUT", "/api/workflow/decide/nope", error(404, "No such workflow found by id: nope")),
        ("DELETE", "/api/workflow/nope", error(404, "No such workflow found by id: nope")),
        ("GET", "/api/metadata/taskdefs/nope", error(404, "No such taskType found by name: nope")),
        ("GET", "/api/metadata/workflow/nope", error(404, "No such workflow found by name: nope, version: null")),
        ("POST", "/api/workflow/nope", error(404, "No such workflow found by name: nope, version: null")),
        ("POST", "/api/workflow/nope?version=9", error(404, "No such workflow found by name: nope, version: 9")),
    ],
)
def test_what_is_not_there_is_refused_in_the_servers_words(api, method, path, expected):
    """An unknown path is 404, a known one with another method 405, and a missing thing is named."""
    assert api.ask(method, path, {}) == expected


def test_a_server_without_update_v2_answers_405_there():
    """An older server takes the path for a task id, whose method is GET alone."""
    api = TimedApi(update_v2=False)
    assert api.ask("POST", "/api/tasks/update-v2", {})[0] == 405
    api.close()


def test_a_long_poll_of_more_than_five_seconds_is_refused(api):
    """5001 ms is a 400 with the server's sentence."""
    refused = api.ask("GET", "/api/tasks/poll/batch/t?count=1&timeout=5001")
    assert refused == error(400, "Long Poll Timeout value cannot be more than 5 seconds")


@pytest.mark.parametrize("query", ["count=x", "timeout=x"])
def test_a_number_that_is_none_is_a_500(api, query):
    """The real server does not map this error: it is a 500 that is not retryable."""
    status, body = api.ask("GET", f"/api/tasks/poll/batch/t?{query}")
    assert (status, body["retryable"]) == (500, False)


def test_an_empty_poll_is_an_empty_list_and_a_single_one_nothing(api):
    """A batch poll answers [] (never 204), a single poll and only it 204; a count of 0 gets nothing."""
    api.define("a")
    assert api.poll() == []
    assert api.call("GET", "/api/tasks/poll/t").status == 204
    api.start()
    assert api.poll(0) == []
    assert len(api.poll(-1)) == 1


def test_a_polled_task_has_the_fields_of_a_real_one(api):
    """What a worker reads is there, with a real server's names; what is null is absent."""
    api.define("a", task_def={"responseTimeoutSeconds": 2})
    run = api.start({"x": 1})
    (task,) = api.poll()
    assert task["taskType"] == task["taskDefName"] == "t"
    assert (task["status"], task["pollCount"], task["workerId"]) == ("IN_PROGRESS", 1, "me")
    assert (task["workflowInstanceId"], task["workflowType"], task["referenceTaskName"]) == (run, "w", "a")
    assert (task["retryCount"], task["seq"], task["responseTimeoutSeconds"]) == (0, 1, 2)
    assert task["workflowTask"]["taskDefinition"]["retryDelaySeconds"] == 0
    assert task["taskDefinition"]["timeoutPolicy"] == "TIME_OUT_WF"
    assert "domain" not in task
    assert "reasonForIncompletion" not in task


def test_an_update_answers_the_task_id_as_text_also_when_repeated(api):
    """200 and the id as text/plain; a finished task ignores what comes later."""
    api.define("a")
    run = api.start()
    (task,) = api.poll()
    for output in ({"n": 1}, {"n": 2}):
        answer = api.call("POST", "/api/tasks", result(task, outputData=output))
        assert (answer.status, answer.media_type) == (200, "text/plain;charset=UTF-8")
        assert answer.body.decode() == task["taskId"]
    assert (api.run(run)["status"], api.run(run)["output"]) == ("COMPLETED", {"n": 1})


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/update-v2"])
def test_an_update_of_something_unknown_is_404_and_counted(api, path):
    """The workflow is looked for first, then the task; tests can count such misdirected updates."""
    api.define("a")
    run = api.start()
    nowhere = {"workflowInstanceId": "nope", "taskId": "x"}
    assert api.update(nowhere, path) == error(404, "No such workflow found by id: nope")
    known = {"workflowInstanceId": run, "taskId": "nope"}
    assert api.update(known, path) == error(404, "No such task found by id: nope")
    assert api.api.counts["not found"] == 2


def test_an_update_reaches_its_task_under_the_wrong_workflow(api):
    """A real server does not check that the task belongs to the workflow it is reported for."""
    api.define("a")
    first, second = api.start(), api.start()
    task = api.poll(2)[1]
    assert api.update({**task, "workflowInstanceId": first})[0] == 200
    assert [api.run(run)["status"] for run in (first, second)] == ["RUNNING", "COMPLETED"]


@pytest.mark.parametrize(
    "body",
    [b"{nope", b"", b"[]", b'{"workflowInstanceId": "a", "taskId": "b", "status": "TIMED_OUT"}',
     b'{"workflowInstanceId": "a", "taskId": "b"}', b'{"workflowInstanceId": 1, "taskId": "b", "status": "FAILED"}',
     b'{"workflowInstanceId": "a", "taskId": "b", "status": "IN_PROGRESS", "callbackAfterSeconds": "x"}'],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/update-v2"])
def test_a_body_that_is_no_task_result_is_a_500_that_is_not_retryable(api, path, body):
    """Bad JSON, an unknown status, none at all: all of them 500 with retryable false."""
    status, answer = api.ask("POST", path, body)
    assert (status, answer["retryable"]) == (500, False)


def test_a_body_that_is_not_called_json_is_a_500(api):
    """A worker that forgets the content type learns it here and not in production."""
    status, answer = split(api.call("POST", "/api/tasks", b"{}", headers={"Content-Type": "text/plain"}))
    assert (status, answer["message"]) == (500, "Content-Type 'text/plain' is not supported")


def test_missing_ids_are_400_with_the_fields_or_500_for_update_v2(api):
    """POST /tasks validates with 400 and names the fields; update-v2 has the same as a 500."""
    status, body = api.ask("POST", "/api/tasks", {"workflowInstanceId": "", "status": "COMPLETED"})
    assert (status, body["message"]) == (400, "Validation failed, check below errors for detail.")
    assert body["validationErrors"] == [
        {"path": "updateTask.arg0.workflowInstanceId", "message": "Workflow Id cannot be null or empty",
         "invalidValue": ""},
        {"path": "updateTask.arg0.taskId", "message": "Task ID cannot be null or empty"},
    ]  # fmt: skip
    assert api.ask("POST", "/api/tasks/update-v2", {"status": "COMPLETED"})[0] == 500


def test_giving_back_makes_the_same_task_pollable_at_once(api):
    """IN_PROGRESS without a callback: same id, pollCount 2, no retry used, the output overwritten."""
    api.define("a")
    api.start()
    (task,) = api.poll()
    assert api.update(task, status="IN_PROGRESS", outputData={"k": 1})[0] == 200
    (again,) = api.poll()
    assert (again["taskId"], again["pollCount"], again["retryCount"]) == (task["taskId"], 2, 0)
    assert again["outputData"] == {"k": 1}


def test_a_callback_keeps_the_task_away_for_its_time(api):
    """callbackAfterSeconds: the task is counted in the queue, but nobody gets it before."""
    api.define("a")
    api.start()
    (task,) = api.poll()
    api.update(task, status="IN_PROGRESS", callbackAfterSeconds=3)
    assert api.ask("GET", "/api/tasks/queue/size?taskType=t") == (200, 1)
    api.now += 2_999
    assert api.poll() == []
    api.now += 1
    assert [again["taskId"] for again in api.poll()] == [task["taskId"]]


def test_extending_the_lease_starts_the_response_timeout_again(api):
    """Its ``extendLease`` touches the time and nothing else; update-v2 answers it with 204."""
    api.define("a", task_def={"responseTimeoutSeconds": 2})
    run = api.start()
    (task,) = api.poll()
    for _ in range(3):
        api.now += 1_900
        assert api.update(task, status="IN_PROGRESS", extendLease=True, outputData={"lost": 1})[0] == 200
    assert api.update(task, "/api/tasks/update-v2", status="IN_PROGRESS", extendLease=True)[0] == 204
    api.ask("PUT", f"/api/workflow/decide/{run}")
    assert api.ask("GET", f"/api/tasks/{task['taskId']}")[1]["status"] == "IN_PROGRESS"
    assert api.ask("GET", f"/api/tasks/{task['taskId']}")[1]["outputData"] == {}
    assert api.poll() == []


def test_a_silent_worker_loses_its_task_and_its_late_result(api):
    """After the response timeout there is a new task with retryCount 1; the old one's result is 200 and ignored."""
    api.define("a", task_def={"responseTimeoutSeconds": 2, "retryCount": 1})
    run = api.start()
    (task,) = api.poll()
    api.now += 1_999
    api.ask("PUT", f"/api/workflow/decide/{run}")
    assert api.poll() == []
    api.now += 1
    assert api.call("PUT", f"/api/workflow/decide/{run}").status == 200
    (again,) = api.poll()
    assert again["taskId"] != task["taskId"]
    assert (again["retryCount"], again["retriedTaskId"], again["seq"]) == (1, task["taskId"], 2)
    assert again["reasonForIncompletion"].startswith("responseTimeout: 2 exceeded for the taskId: ")
    assert api.update(task, outputData={"late": 1}) == (200, task["taskId"])
    assert api.run(run)["status"] == "RUNNING"
    api.update(again, outputData={"n": 2})
    shown = api.run(run)
    assert (shown["status"], shown["output"], shown["failedReferenceTaskNames"]) == ("COMPLETED", {"n": 2}, ["a"])
    assert [entry["status"] for entry in shown["tasks"]] == ["TIMED_OUT", "COMPLETED"]


def test_without_retries_a_silent_worker_ends_the_run_as_timed_out(api):
    """The last attempt's timeout is the run's."""
    api.define("a", task_def={"responseTimeoutSeconds": 1, "retryCount": 0})
    run = api.start()
    api.poll()
    api.now += 1_000
    assert api.engine.sweep(api.now) == 1
    assert api.engine.sweep(api.now) == 0
    assert api.run(run)["status"] == "TIMED_OUT"


def test_update_v2_brings_the_next_task_and_204_when_there_is_none(api):
    """The next of the same type; 204 when none comes; repeated for a finished task it hands out another."""
    api.define("a")
    for _ in range(3):
        api.start()
    (task,) = api.poll()
    status, second = api.update(task, "/api/tasks/update-v2")
    assert (status, second["status"], second["pollCount"]) == (200, "IN_PROGRESS", 1)
    api.now += 1_000
    status, third = api.update(task, "/api/tasks/update-v2")
    assert status == 200
    assert len({task["taskId"], second["taskId"], third["taskId"]}) == 3
    assert api.update(second, "/api/tasks/update-v2") == (204, "")
    assert api.update(third, "/api/tasks/update-v2", status="IN_PROGRESS") == (204, "")


def test_a_domain_is_a_queue_of_its_own(api):
    """A task started in a domain is not seen without it, nor the other way round."""
    api.define("a")
    request = {"name": "w", "taskToDomain": {"t": "d1"}, "input": {}, "correlationId": "c", "priority": 3}
    status, run = api.ask("POST", "/api/workflow", request)
    assert status == 200
    assert api.poll() == []
    assert api.ask("GET", "/api/tasks/queue/all")[1] == {"d1:t": 1}
    assert api.ask("GET", "/api/tasks/queue/size?taskType=t&domain=d1")[1] == 1
    (task,) = api.poll(domain="d1")
    assert (task["domain"], task["correlationId"], task["workflowPriority"]) == ("d1", "c", 3)
    status = {"workflowId": run, "status": "RUNNING", "correlationId": "c"}
    assert api.ask("GET", f"/api/workflow/{run}/status") == (200, status)
    polled = api.ask("GET", "/api/tasks/queue/polldata?taskType=t")[1]
    assert [entry.get("domain") for entry in polled] == [None, "d1"]
    assert api.ask("GET", "/api/tasks/queue/polldata?taskType=u") == (200, [])


def test_logs_come_back_and_are_204_without_any(api):
    """The body of a log call is the line; result logs are kept too, the first ten of them."""
    api.define("a")
    api.start()
    (task,) = api.poll()
    path = f"/api/tasks/{task['taskId']}/log"
    assert api.call("GET", path).status == 204
    assert api.call("POST", path, b'"as it is"').status == 200
    api.update(task, logs=[{"log": f"line {n}", "createdTime": n} for n in range(12)])
    logs = api.ask("GET", path)[1]
    assert [entry["log"] for entry in logs] == ['"as it is"', *(f"line {n}" for n in range(10))]


def test_definitions_are_kept_and_listed(api):
    """Task definitions come as an array or one by one, workflows with 409 for one that exists."""
    assert api.call("POST", "/api/metadata/taskdefs", [{"name": "u", "retryCount": 7}]).status == 200
    assert api.call("PUT", "/api/metadata/taskdefs", {"name": "v"}).status == 200
    assert api.ask("POST", "/api/metadata/taskdefs", {"name": "u"})[0] == 500
    assert [entry["name"] for entry in api.ask("GET", "/api/metadata/taskdefs")[1]] == ["u", "v"]
    assert api.ask("GET", "/api/metadata/taskdefs/u")[1]["retryCount"] == 7
    plan = {"name": "w", "version": 1, "tasks": [{"name": "u", "taskReferenceName": "r"}]}
    assert api.call("POST", "/api/metadata/workflow", plan).status == 200
    assert api.ask("POST", "/api/metadata/workflow", plan) == error(409, "Workflow with w.1 already exists!")
    assert api.call("POST", "/api/metadata/workflow?overwrite=true", plan).status == 200
    put = api.ask("PUT", "/api/metadata/workflow", [{**plan, "version": 2}])
    assert put == (200, {"bulkErrorResults": {}, "bulkSuccessfulResults": ["w"]})
    assert api.ask("GET", "/api/metadata/workflow/w")[1]["version"] == 2
    assert api.ask("GET", "/api/metadata/workflow/w?version=1")[1]["tasks"][0]["name"] == "u"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/metadata/taskdefs", [{"name": "t", "responseTimeoutSeconds": 0}]),
        ("/api/metadata/taskdefs", [{"name": ""}]),
        ("/api/metadata/workflow", {"name": "w", "tasks": [{"name": "t", "taskReferenceName": "a", "type": "HTTP"}]}),
        ("/api/workflow", {"input": {}}),
        ("/api/workflow", {"name": "w", "workflowDef": {"name": "w", "tasks": 7}}),
    ],
)
def test_what_cannot_be_run_is_400(api, path, body):
    """A definition or a request that makes no sense is refused, not stored."""
    assert api.ask("POST", path, body)[0] == 400


def test_a_run_may_bring_its_own_definition(api):
    """An inline definition starts without being registered; its unknown task type has the server's defaults."""
    plan = {"name": "inline", "version": 4, "tasks": [{"name": "unknown", "taskReferenceName": "r"}]}
    assert api.ask("POST", "/api/workflow", {"name": "inline", "version": 4, "workflowDef": plan})[0] == 200
    (task,) = api.poll(task_type="unknown")
    assert task["responseTimeoutSeconds"] == 3600
    assert task["taskDefinition"]["retryCount"] == 3
    assert api.ask("GET", "/api/metadata/workflow/inline")[0] == 404
    refused = api.ask("POST", "/api/workflow", {"name": "inline"})
    assert refused == error(404, "No such workflow defined. name=inline, version=null")


def test_runs_are_listed_searched_and_stopped(api):
    """Running ids by name, a bulk search with its misses, and an end from outside that cancels the task."""
    api.define("a")
    first, second = api.start(), api.start()
    (task,) = api.poll()
    assert api.ask("GET", "/api/workflow/running/w?version=1") == (200, [first, second])
    assert api.call("DELETE", f"/api/workflow/{first}?reason=because").status == 200
    assert api.call("DELETE", f"/api/workflow/{first}").status == 200
    assert api.ask("GET", "/api/workflow/running/w") == (200, [second])
    assert api.ask("GET", "/api/workflow/running/w?version=2") == (200, [])
    assert api.update(task)[0] == 200
    found = api.ask("POST", "/api/workflow/bulk/search?includeTasks=false", [first, "nope"])[1]
    assert found["bulkErrorResults"] == {"nope": "No such workflow found by id: nope"}
    (run,) = found["bulkSuccessfulResults"]
    assert (run["status"], run["reasonForIncompletion"], run["tasks"]) == ("TERMINATED", "because", [])
    assert api.run(first)["tasks"][0]["status"] == "CANCELED"


def gather(api, *calls):
    """Make several calls at once and return their answers in order."""

    async def together():
        # The bound is below the five seconds of a long poll that nobody wakes.
        return await asyncio.wait_for(asyncio.gather(*(api.api.answer(Call(*call)) for call in calls)), 3)

    return [split(answer)[1] for answer in asyncio.run(together())]


def test_a_batch_that_is_not_full_waits_and_returns_when_it_is(api):
    """A long poll holds what it has, and goes as soon as its count is reached: long before its time is over."""
    api.define("a")
    api.start()
    body = b"{}"
    start = ("POST", "/api/workflow/w", "", {"Content-Type": "application/json"}, body)
    tasks, *_ = gather(api, ("GET", "/api/tasks/poll/batch/t", "count=3&timeout=5000"), start, start)
    assert len(tasks) == 3


def test_a_long_poll_that_is_not_filled_returns_what_it_held(api):
    """At the end of its time it assigns what came, in the order it came."""
    api.define("a")
    run = api.start()
    assert [task["workflowInstanceId"] for task in api.poll(5, timeout=30)] == [run]


def test_two_long_polls_get_different_tasks(api):
    """What one poll holds no other one gets."""
    api.define("a")
    runs = {api.start() for _ in range(4)}
    poll = ("GET", "/api/tasks/poll/batch/t", "count=3&timeout=50")
    first, second = gather(api, poll, poll)
    assert {task["workflowInstanceId"] for task in first + second} == runs
    assert len(first) + len(second) == 4


def test_a_task_that_ends_while_it_is_held_is_not_handed_out(api):
    """A run stopped during somebody's long poll gives nobody its task."""
    api.define("a")
    run = api.start()
    poll = ("GET", "/api/tasks/poll/batch/t", "count=2&timeout=50")
    tasks, _ = gather(api, poll, ("DELETE", f"/api/workflow/{run}"))
    assert tasks == []


def test_a_long_poll_sees_a_retry_become_due(api):
    """A poll that waits wakes for a task whose delay ends meanwhile."""
    api.define("a")
    api.start()
    (task,) = api.poll()
    api.update(task, status="IN_PROGRESS", callbackAfterSeconds=1)

    async def poll_while_time_passes():
        poll = Call("GET", "/api/tasks/poll/batch/t", "count=1&timeout=5000")
        waiting = asyncio.ensure_future(api.api.answer(poll))
        await asyncio.sleep(0)
        api.now += 1_000
        api.waiting.notify("t")
        return await asyncio.wait_for(waiting, 3)

    assert len(split(asyncio.run(poll_while_time_passes()))[1]) == 1
