"""The batch poll: what it brings, how long it waits, and that what it brings is assigned whoever reads it."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from client import ConductorClient
from flow import JSON, NO_CONTENT, Flow, check_refused, json_answer, soon

from conductor_adapter.tasks import Task

# Of a task that somebody has polled, without domain, correlation id and reason.
FIELDS = (
    "callbackAfterSeconds callbackFromWorker endTime executed executionMetadata firstStartTime inputData iteration"
    " loopOverTask outputData pollCount queueWaitTime rateLimitFrequencyInSeconds rateLimitPerFrequency"
    " referenceTaskName responseTimeoutSeconds retried retryCount scheduledTime seq startDelayInSeconds startTime"
    " status subworkflowChanged taskDefName taskDefinition taskId taskType updateTime workerId workflowInstanceId"
    " workflowPriority workflowTask workflowType"
)


def test_an_empty_poll_waits_as_long_as_it_was_told_and_is_an_empty_list(flow: Flow) -> None:
    """Without tasks: 200 and ``[]``, never 204, and not before ``timeout`` milliseconds are over."""
    assert flow.poll() == json_answer([])

    began = time.monotonic()
    assert flow.poll(timeout_ms=400) == json_answer([])
    assert time.monotonic() - began >= 0.4


def test_a_poll_for_no_tasks_takes_none(flow: Flow) -> None:
    """``count=0`` is answered with ``[]``, and what waits goes on waiting."""
    flow.define()
    (workflow,) = flow.start()

    assert flow.poll(count=0) == json_answer([])

    (task,) = flow.take()
    assert Task.from_wire(task) == flow.task_as_read(workflow, task["taskId"])


def test_a_wait_of_five_seconds_is_the_longest(flow: Flow) -> None:
    """5000 ms are taken, 5001 are refused with a 400 that says so."""
    flow.define()
    flow.start()
    assert len(flow.poll(timeout_ms=5000).expect()) == 1

    check_refused(flow.poll(timeout_ms=5001), 400, "Long Poll Timeout value cannot be more than 5 seconds")


def test_a_polled_task_has_every_field_that_a_worker_reads(flow: Flow) -> None:
    """The task is in progress with this worker, for the first time, with these fields: what is null is absent."""
    flow.define()
    (workflow,) = flow.start()

    answer = flow.poll()

    assert (answer.status, answer.media_type) == (200, JSON)
    (task,) = answer.body
    assert Task.from_wire(task) == flow.task_as_read(workflow, task["taskId"])
    assert (task["status"], task["workerId"], task["taskDefName"]) == ("IN_PROGRESS", "tests", flow.name)
    assert 0 < task["scheduledTime"] <= task["startTime"] <= task["updateTime"]
    assert (task["endTime"], task["callbackAfterSeconds"]) == (0, 0)
    assert sorted(task) == FIELDS.split()
    definition = task["taskDefinition"]
    assert (definition["name"], definition["retryDelaySeconds"], definition["createdBy"]) == (flow.name, 0, "")
    assert definition == task["workflowTask"]["taskDefinition"]
    assert task["workflowTask"]["taskReferenceName"] == f"{flow.name}_0"


def test_a_poll_brings_at_most_its_count(flow: Flow) -> None:
    """What is beyond the count stays for the next poll; every task is brought once."""
    flow.define()
    workflows = flow.start(3)

    first, rest = flow.take(2), flow.take(1)

    assert {task["workflowInstanceId"] for task in first + rest} == set(workflows)
    assert flow.poll() == json_answer([])


def test_a_full_batch_does_not_wait(flow: Flow) -> None:
    """As many tasks as were asked for are brought at once, whatever the poll's timeout."""
    flow.define()

    def take_two() -> None:
        flow.start(2)
        flow.take(2, timeout_ms=5000)

    assert soon(take_two)


def test_a_batch_that_is_not_full_waits_its_whole_time(flow: Flow) -> None:
    """Fewer tasks than were asked for are held back until the time is over: hence the adapter asks with wait 0."""
    flow.define()
    flow.start(2)

    began = time.monotonic()
    assert len(flow.poll(count=3, timeout_ms=400).expect()) == 2
    assert time.monotonic() - began >= 0.4


def test_a_task_that_comes_ends_a_long_poll(flow: Flow) -> None:
    """A poll for one task that waits returns with the task when there is one, long before its time is over."""
    flow.define()
    flow.start()  # whatever a server does at its first start only is done
    flow.take()

    def take_one() -> None:
        with ThreadPoolExecutor(1) as pool:
            polling = pool.submit(flow.take, 1, 5000)
            (workflow,) = flow.start()
            (task,) = polling.result()
        assert Task.from_wire(task) == flow.task_as_read(workflow, task["taskId"])

    assert soon(take_one)


def test_polls_at_the_same_time_get_different_tasks(flow: Flow) -> None:
    """No task is brought to two pollers."""
    flow.define()
    workflows = flow.start(6)

    with ThreadPoolExecutor(5) as pool:
        batches = list(pool.map(lambda _: flow.poll(count=2, timeout_ms=300).expect(), range(5)))

    brought = [task["workflowInstanceId"] for batch in batches for task in batch]
    assert sorted(brought) == sorted(workflows)


def test_a_task_is_assigned_before_the_answer_is_sent(flow: Flow) -> None:
    """An answer that nobody reads costs the task: it is in progress, and no other poll brings it."""
    flow.define()
    (workflow,) = flow.start()
    task = flow.first_task(workflow)
    assert (task["status"], task["pollCount"]) == ("SCHEDULED", 0)

    with closing(flow.poll_and_leave()):
        deadline = time.monotonic() + 30
        while flow.task(task)["status"] != "IN_PROGRESS":
            assert time.monotonic() < deadline, "the poll was never carried out"

    shown = flow.task(task)
    assert (shown["status"], shown["pollCount"], shown["workerId"]) == ("IN_PROGRESS", 1, "gone")
    assert flow.poll(timeout_ms=200) == json_answer([])


def test_a_server_does_not_notice_that_a_poller_has_gone(flow: Flow) -> None:
    """A long poll whose connection was closed meanwhile takes the next task all the same: hence ``give_up_after``."""
    flow.define()
    flow.poll_and_leave(timeout_ms=3000).close()
    flow.let_pass(0.2)
    (workflow,) = flow.start()
    task = flow.first_task(workflow)

    deadline = time.monotonic() + 30
    while flow.task(task)["status"] != "IN_PROGRESS":
        assert time.monotonic() < deadline, "the abandoned poll took nothing"
    assert flow.task(task)["workerId"] == "gone"


def test_a_domain_is_a_queue_of_its_own(flow: Flow) -> None:
    """A task in a domain is brought to polls with that domain alone, and one without to polls without."""
    flow.define()
    (outside,) = flow.start()
    inside = flow.start_in("d1")

    assert flow.poll(domain="d2") == json_answer([])
    (task,) = flow.take(domain="d1")
    assert Task.from_wire(task) == flow.task_as_read(inside, task["taskId"], domain="d1")
    assert flow.poll(domain="d1") == json_answer([])
    (task,) = flow.take()
    assert Task.from_wire(task) == flow.task_as_read(outside, task["taskId"])


def test_a_task_type_may_have_any_letters(server: ConductorClient, name: str) -> None:
    """A type's name reaches the server as it is, quoted in the path."""
    flow = Flow(server, f"{name} ä+%&=?")
    flow.define()
    (workflow,) = flow.start()

    (task,) = flow.take()

    assert Task.from_wire(task) == flow.task_as_read(workflow, task["taskId"])


def test_a_single_poll_is_204_when_there_is_nothing(flow: Flow) -> None:
    """The poll for one task alone says 204 without a task, and is the task itself otherwise."""
    flow.define()
    path = f"/tasks/poll/{flow.name}"
    assert flow.server.call("GET", path, workerid="tests") == NO_CONTENT
    (workflow,) = flow.start()

    answer = flow.server.call("GET", path, workerid="tests")

    assert (answer.status, answer.media_type) == (200, JSON)
    assert Task.from_wire(answer.body) == flow.task_as_read(workflow, answer.body["taskId"])
