"""The plain update of a task that goes on: given back, called back, its lease extended; and what it logs."""

import time

from flow import NO_CONTENT, OK, Flow, check_refused, json_answer, text_answer

from conductor_adapter.tasks import Task


def test_a_task_given_back_can_be_polled_again_at_once(flow: Flow) -> None:
    """IN_PROGRESS with a callback of 0: the same task, polled twice, no retry used, its output replaced."""
    flow.define()
    (workflow,) = flow.start()
    (task,) = flow.take()
    flow.give_back(task, callbackAfterSeconds=0, outputData={"k": 1})
    assert flow.task(task)["status"] == "SCHEDULED"

    (again,) = flow.take()

    assert Task.from_wire(again) == flow.task_as_read(workflow, task["taskId"], poll_count=2, output={"k": 1})
    assert again["status"] == "IN_PROGRESS"
    flow.give_back(again)
    (again,) = flow.take()
    assert Task.from_wire(again) == flow.task_as_read(workflow, task["taskId"], poll_count=3)
    flow.update(again).expect()
    assert flow.server.workflow(workflow)["status"] == "COMPLETED"


def test_giving_back_twice_queues_the_task_once(flow: Flow) -> None:
    """A give-back may be repeated after a lost answer: as long as nobody polled in between, one task is queued."""
    flow.define()
    flow.start()
    (task,) = flow.take()
    flow.give_back(task)
    flow.give_back(task)

    assert flow.queue_size() == json_answer(1)
    (again,) = flow.take()
    assert again["pollCount"] == 2
    assert flow.poll(timeout_ms=200) == json_answer([])


def test_a_stale_give_back_hands_a_running_task_out_again(flow: Flow) -> None:
    """Sent after somebody else has polled the task, it is run twice: hence give-backs are never sent again later."""
    flow.define()
    flow.start()
    (task,) = flow.take()
    flow.give_back(task)
    (again,) = flow.take()

    flow.give_back(task)

    (once_more,) = flow.take()
    assert [one["taskId"] for one in (again, once_more)] == [task["taskId"]] * 2
    assert once_more["pollCount"] == 3


def test_a_callback_keeps_the_task_away_for_its_time(flow: Flow) -> None:
    """IN_PROGRESS with a callback: the task is in its queue at once, and is brought when the seconds are over."""
    flow.define()
    (workflow,) = flow.start()
    (task,) = flow.take()
    before = time.monotonic()
    flow.give_back(task, callbackAfterSeconds=1)

    assert flow.queue_size() == json_answer(1)
    (again,) = flow.take()

    assert time.monotonic() - before >= 0.9
    assert Task.from_wire(again) == flow.task_as_read(workflow, task["taskId"], poll_count=2)


def test_extending_a_lease_touches_nothing_but_the_time(flow: Flow) -> None:
    """A heartbeat is taken; the task stays with its worker, its output as it was."""
    flow.define()
    flow.start()
    (task,) = flow.take()

    assert flow.update(task, "IN_PROGRESS", extendLease=True, outputData={"n": 1}) == text_answer(task["taskId"])

    shown = flow.task(task)
    assert (shown["status"], shown["outputData"], shown["pollCount"]) == ("IN_PROGRESS", {}, 1)
    assert flow.poll() == json_answer([])


def test_extending_the_lease_of_an_ended_task_does_nothing(flow: Flow) -> None:
    """A heartbeat that comes too late is taken; one for a task that is not there is not."""
    flow.define()
    flow.start()
    (task,) = flow.take()
    flow.update(task).expect()

    assert flow.update(task, "IN_PROGRESS", extendLease=True) == text_answer(task["taskId"])
    assert flow.task(task)["status"] == "COMPLETED"
    unknown = flow.update({**task, "taskId": "nope"}, "IN_PROGRESS", extendLease=True)
    check_refused(unknown, 404, "No such task found by id: nope")


def test_logs_of_a_report_are_kept_ten_at_most(flow: Flow) -> None:
    """The log lines of a result can be read again, with their times."""
    flow.define()
    flow.start()
    (task,) = flow.take()
    path = f"/tasks/{task['taskId']}/log"
    assert flow.server.call("GET", path) == NO_CONTENT
    lines = [{"log": f"line {n}", "createdTime": 1_700_000_000_000 + n} for n in range(12)]

    flow.update(task, logs=lines).expect()

    expected = [{**line, "taskId": task["taskId"]} for line in lines[:10]]
    assert flow.server.call("GET", path) == json_answer(expected)


def test_logs_of_a_report_that_ends_nothing_are_kept_too(flow: Flow) -> None:
    """A worker may log on its way."""
    flow.define()
    flow.start()
    (task,) = flow.take()

    flow.give_back(task, logs=[{"log": "half-way", "createdTime": 1_700_000_000_000}])

    (line,) = flow.server.call("GET", f"/tasks/{task['taskId']}/log").expect()
    assert line["log"] == "half-way"


def test_a_log_line_is_the_body_as_it_is(flow: Flow) -> None:
    """A line of its own is sent as it is, and not as JSON."""
    flow.define()
    flow.start()
    (task,) = flow.take()
    path = f"/tasks/{task['taskId']}/log"

    assert flow.server.call("POST", path, 'said "this"') == OK

    (line,) = flow.server.call("GET", path).expect()
    assert (line["log"], line["taskId"]) == ('said "this"', task["taskId"])
