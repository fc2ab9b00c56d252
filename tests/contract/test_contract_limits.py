"""What is too long, too large, too deep or too odd for a server: what it refuses, what it cuts and what it changes."""

import json
from typing import Any

import pytest
from client import result_of
from flow import Flow, check_refused, text_answer

MIB = 1024 * 1024
TOO_LARGE = "x" * (11 * MIB)

REFUSED = {
    "an integer of 5,000 digits": "1" * 5000,
    "an integer of 1,001 digits": "1" * 1001,
    "a fraction of 5,000 digits": "0." + "1" * 5000,
    "1,100 lists in each other": "[" * 1100 + "]" * 1100,
    "1,100 objects in each other": '{"a":' * 1100 + "1" + "}" * 1100,
    "a raw control character": '"a\x01b"',
    "no number": "NaN",
}
CHANGED: dict[str, tuple[str, Any]] = {
    "an integer of 900 digits": ("1" * 900, int("1" * 900)),
    "2,000 lists and objects in one": ("[" + "[{}]," * 2000 + "1]", [[{}]] * 2000 + [1]),
    "800 lists in each other": ("[" * 800 + "]" * 800, json.loads("[" * 800 + "]" * 800)),
    "an escaped control character": (r'"a\u0001\u001b\u007fb"', "a\x01\x1b\x7fb"),
    "a number beyond all floats": ("[1e400, -1e400, 1.5]", ["Infinity", "-Infinity", 1.5]),
    "half a character": (r'{"\ud800": ["a\udc00b", "\ud83d\ude00"]}', {"?": ["a?b", "😀"]}),
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_a_value_that_no_server_reads_is_refused(flow: Flow, value: str) -> None:
    """In an input and in an output: the default error, which says that a retry does not help, and nothing changes.

    So no task comes with such an input from a server that took it by this API.
    """
    flow.define()
    flow.start()
    (task,) = flow.take()
    report = json.dumps(result_of(task, outputData={"odd": "here"})).replace('"here"', value)

    for path in ("/tasks", "/tasks/update-v2"):
        check_refused(flow.server.call("POST", path, report), 500)
    check_refused(flow.server.call("POST", f"/workflow/{flow.name}", f'{{"number": {value}}}'), 500)

    assert flow.task(task)["status"] == "IN_PROGRESS"
    assert flow.poll().expect() == []


@pytest.mark.parametrize(("value", "read"), CHANGED.values(), ids=CHANGED)
def test_an_odd_value_is_taken_and_handed_out(flow: Flow, value: str, read: Any) -> None:
    """It comes back as it was, or as the nearest thing that JSON and UTF-8 have."""
    flow.define()
    flow.server.call("POST", f"/workflow/{flow.name}", f'{{"number": {value}}}').expect()

    (task,) = flow.take()

    assert task["inputData"] == {"number": read}


def test_a_reason_is_cut(flow: Flow) -> None:
    """A reason of any length is taken; 500 characters of it are kept, in the task, its retry and the workflow."""
    flow.define(retryCount=1)
    (workflow,) = flow.start()
    (task,) = flow.take()

    assert flow.update(task, "FAILED", reasonForIncompletion="r" * MIB) == text_answer(task["taskId"])

    (again,) = flow.take()
    assert flow.task(task)["reasonForIncompletion"] == again["reasonForIncompletion"] == "r" * 500
    flow.update(again, "FAILED", reasonForIncompletion="s" * 501).expect()
    expected = f"Task {again['taskId']} failed with status: FAILED and reason: '{'s' * 500}'"
    assert flow.server.workflow(workflow)["reasonForIncompletion"] == expected


def test_a_reason_is_kept_with_its_control_characters(flow: Flow) -> None:
    """What would steer a terminal comes back as it was: whoever shows a reason must clean it."""
    flow.define(retryCount=0)
    (workflow,) = flow.start()
    (task,) = flow.take()
    reason = "\x1b[31m\a\r\n\u202e\x7f"

    flow.update(task, "FAILED", reasonForIncompletion=reason).expect()

    assert flow.task(task)["reasonForIncompletion"] == reason
    assert flow.server.workflow(workflow)["reasonForIncompletion"].endswith(f"'{reason}'")


def test_an_output_that_is_too_large_ends_its_task(flow: Flow) -> None:
    """It is answered with 200, and the server fails task and workflow for good, with a reason of its own."""
    flow.define(retryCount=3)
    (workflow,) = flow.start()
    (task,) = flow.take()

    assert flow.update(task, outputData={"o": TOO_LARGE}) == text_answer(task["taskId"])

    shown = flow.task(task)
    reason = (
        f"The payload size: {11 * MIB + 8} of task: {task['taskId']} in workflow: {workflow}  is greater than the "
        f"permissible limit: {10 * MIB} bytes"
    )
    assert (shown["status"], shown["reasonForIncompletion"]) == ("FAILED_WITH_TERMINAL_ERROR", reason)
    assert shown["outputData"] == {}
    assert flow.server.workflow(workflow)["status"] == "FAILED"


def test_an_input_that_is_too_large_is_refused(flow: Flow) -> None:
    """A start with more than 10 MiB is the default error."""
    flow.define()
    whole = {"name": flow.name, "version": 1, "input": {"number": TOO_LARGE}}

    for path, body in ((f"/workflow/{flow.name}", whole["input"]), ("/workflow", whole)):
        answer = flow.server.call("POST", path, body)
        check_refused(answer, 500)
        assert answer.body["message"].startswith(f"The payload size: {11 * MIB + 13} of workflow: ")

    assert flow.server.running(flow.name) == []
