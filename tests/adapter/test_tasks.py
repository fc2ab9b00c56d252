import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter.client.protocol import build_update
from conductor_adapter.functions.attempt import execute
from conductor_adapter.tasks import Task, TaskResult, TaskStatus

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(st.characters())  # halves of characters too
KEYS = [
    "taskId", "workflowInstanceId", "taskType", "taskDefName", "referenceTaskName", "inputData", "outputData",
    "retryCount", "pollCount", "domain", "responseTimeoutSeconds", "seq", "iteration", "workflowType",
]  # fmt: skip
WIRE = {
    "taskType": "greet", "status": "IN_PROGRESS", "inputData": {"name": "x"}, "referenceTaskName": "greet_ref",
    "retryCount": 1, "seq": 2, "pollCount": 3, "taskDefName": "greet_def", "responseTimeoutSeconds": 10,
    "workflowInstanceId": "w", "workflowType": "wf", "taskId": "t", "outputData": {"so": "far"}, "domain": "d1",
    "iteration": 4,
}  # fmt: skip


def test_reads_every_field_of_a_polled_task():
    """A task as a server sends it arrives with all that a worker needs."""
    task = Task.from_wire(WIRE)

    assert task == Task(
        task_id="t", workflow_id="w", task_type="greet", reference_name="greet_ref", input={"name": "x"},
        output={"so": "far"}, retry_count=1, poll_count=3, domain="d1", response_timeout=10.0, seq=2, iteration=4,
        workflow_type="wf",
    )  # fmt: skip
    assert task.raw is WIRE


def test_what_a_server_leaves_out_has_a_default():
    """Servers leave out what is null: only the task id must be there."""
    assert Task.from_wire({"taskId": "t"}) == Task(task_id="t")
    assert Task.from_wire({"taskId": "t", "taskDefName": "greet"}).task_type == "greet"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (None, "NoneType"), ("t", "str"), ([], "list"), ({}, "taskId"), ({"taskId": ""}, "taskId"),
        ({"taskId": 7}, "taskId"), ({"taskId": "t", "inputData": [1]}, "task t: its inputData"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused(entry, says):
    """An entry without a task id, or whose input is no object, is no task, and the error says why."""
    with pytest.raises(ValueError, match=says):
        Task.from_wire(entry)


@pytest.mark.parametrize("key", ["taskId", "workflowInstanceId", "taskType"])
def test_a_task_that_could_not_be_sent_back_is_refused(key):
    """Half a character in an id: JSON can write it, but no answer to the task's result could be understood."""
    with pytest.raises(ValueError, match=r"task '\w+(\\ud800)?': its ids or type contain a lone surrogate") as caught:
        Task.from_wire({"taskId": "t", key: "x\ud800"})

    str(caught.value).encode()
    assert Task.from_wire({"taskId": "t-ü-\U0001f600"}).task_id == "t-ü-\U0001f600"


@given(TEXT, TEXT, TEXT)
def test_an_update_can_always_be_encoded(output, reason, log):
    """Half a character in what a task function says is written as JSON's own escape, which any encoding can hold."""
    result = execute(lambda: TaskResult(output={output: output}, reason=reason, logs=((1.0, log),), worker_id=log))
    body = build_update(result).body

    assert body.isascii()
    assert json.loads(body)["outputData"] == {output: output}


@given(JSON | st.dictionaries(st.sampled_from(KEYS), JSON | st.just(10**400)))
def test_any_json_is_a_task_or_a_value_error(entry):
    """Whatever a server sends, reading it ends in a usable task or a ValueError."""
    try:
        task = Task.from_wire(entry)
    except ValueError:
        return
    assert isinstance(task.task_id, str)
    assert task.task_id
    assert isinstance(task.input, dict)
    assert task.retry_count >= 0
    assert task.response_timeout >= 0.0


@pytest.mark.parametrize("odd", [pytest.param(10**400, id="huge"), 2**53, -1, True, 1.5, "7", None, [], {}])
def test_a_nonsensical_number_costs_no_task(odd):
    """The task has been handed out: a count that makes no sense, or fits no float, is taken for zero."""
    numbers = dict.fromkeys(("retryCount", "pollCount", "responseTimeoutSeconds", "seq", "iteration"), odd)

    assert Task.from_wire({"taskId": "t", **numbers}) == Task(task_id="t")


def test_repr_shows_ids_but_no_data():
    """Logs may hold a task's or result's repr: what a workflow was given stays out of it."""
    task = Task.from_wire({**WIRE, "inputData": {"iban": "DE-private"}, "outputData": {"iban": "DE-private"}})
    result = TaskResult(task_id="t", output={"iban": "DE-private"}, logs=((0.0, "DE-private"),))

    assert "DE-private" not in repr(task) + repr(result)
    assert "'t'" in repr(task)
    assert "'t'" in repr(result)


def test_an_update_leaves_out_what_is_not_set():
    """Older servers answer 500 to null logs: nothing null is sent, except what the output itself holds."""
    wire = TaskResult(task_id="t", workflow_id="w", output={"nothing": None}).to_wire()

    assert wire == {
        "workflowInstanceId": "w", "taskId": "t", "status": "COMPLETED", "outputData": {"nothing": None},
    }  # fmt: skip


def test_an_update_says_all_that_is_set():
    """Reason, worker and log lines reach the server in its own words; log times are milliseconds."""
    wire = TaskResult(
        task_id="t", workflow_id="w", status=TaskStatus.FAILED, reason="no luck", worker_id="me", logs=((1.5, "tried"),)
    ).to_wire()

    assert wire["reasonForIncompletion"] == "no luck"
    assert wire["workerId"] == "me"
    assert wire["logs"] == [{"log": "tried", "createdTime": 1500}]
    assert "callbackAfterSeconds" not in wire
    json.dumps(wire)


@pytest.mark.parametrize(("asked", "sent"), [(0.0, 0), (0.2, 1), (3.0, 3), (3.1, 4)])
def test_a_callback_comes_never_sooner_than_asked_for(asked, sent):
    """Conductor counts whole seconds, and 0 means at once: a fraction is rounded up."""
    wire = TaskResult(task_id="t", status=TaskStatus.IN_PROGRESS, callback_after=asked).to_wire()

    assert wire["callbackAfterSeconds"] == sent


SENDABLE = JSON.filter(lambda value: "Infinity" not in json.dumps(value))  # a server takes no other number
RESULTS = st.builds(
    TaskResult,
    task_id=TEXT,
    workflow_id=TEXT,
    status=st.sampled_from(TaskStatus),
    output=st.dictionaries(TEXT, SENDABLE, max_size=3),
    reason=st.none() | TEXT,
    callback_after=st.integers(0, 10**6).map(float) | st.floats(0, 1e6),
    logs=st.lists(st.tuples(st.floats(0, 4e9), TEXT), max_size=3).map(tuple),
    worker_id=st.none() | TEXT,
)


@given(RESULTS)
def test_d2_a_result_that_was_written_down_is_the_same_when_it_is_read(result):
    """What the server is sent after a restart is, byte for byte, what it would have been sent before."""
    assert TaskResult.from_json(result.to_json()).to_json() == result.to_json()


NEW = {"taskId": "t", "workflowInstanceId": "w", "status": "NEW", "outputData": {}}


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", "{}", "[" * 100_000, json.dumps(NEW)])
def test_what_is_no_written_result_is_refused(text):
    """A damaged row says what it is not, and is never taken for a result."""
    with pytest.raises(ValueError, match=r"not a stored task result|Expecting|TaskStatus"):
        TaskResult.from_json(text)


def test_only_what_is_in_progress_is_not_final():
    """A heartbeat or a callback is stale when it comes late; every other result ends its task."""
    assert [status for status in TaskStatus if not TaskResult(status=status).is_final] == [TaskStatus.IN_PROGRESS]
