import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter.client.decoding import (
    PollAnswer,
    read_count,
    read_counts,
    read_next_task,
    read_poll,
    read_taken,
    read_text,
    read_token,
)
from conductor_adapter.client.messages import (
    AuthRejected,
    HttpAnswer,
    HttpCall,
    RequestRejected,
    ServerFailed,
    TransportError,
    TransportErrorKind,
)
from conductor_adapter.client.protocol import (
    Meaning,
    Reply,
    build_lease,
    build_poll,
    build_token,
    build_update,
    give_back,
    judge,
    refusal,
    retry_after,
    update_refusal,
)
from conductor_adapter.client.redaction import shorten
from conductor_adapter.tasks import Task, TaskResult
from resilience.errors import Refused, Throttled, Undeliverable

HTML = b"<html><body>Sign in</body></html>"
UNKNOWN_WORKFLOW = {"status": 404, "message": "No such workflow found by id: w", "retryable": False}
UNKNOWN_TASK = {"status": 404, "message": "No such task found by id: t", "retryable": False}
NO_RESOURCE = {"status": 404, "message": "No static resource api/tasks/update-v2.", "retryable": False}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["taskId", "inputData", "message"]), inner, max_size=3)
    ),
    max_leaves=8,
)
bodies = st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode())
answers = st.builds(
    HttpAnswer,
    st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 405, 408, 409, 418, 429, 500, 502, 503, 599, 700, 0]),
    st.dictionaries(st.sampled_from(["retry-after", "date", "content-type"]), st.text(max_size=30), max_size=3),
    bodies,
)


def says(status, body=b"", **headers):
    """An answer; a mapping or list as body is sent as JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status, named, body if isinstance(body, bytes) else json.dumps(body).encode())


# Calls.


def test_a_poll_names_everything_a_server_wants():
    """The wait goes out in milliseconds; a domain only if there is one."""
    call = build_poll("greet", "me", 3, 0.1)

    assert (call.method, call.target) == ("GET", "/tasks/poll/batch/greet?workerid=me&count=3&timeout=100")
    assert call.body is None
    assert build_poll("greet", "me", 1, 1, "eu").query == "workerid=me&domain=eu&count=1&timeout=1000"


def test_a_poll_quotes_what_would_change_the_request():
    """A task type, worker or domain cannot leave its place in the URL."""
    target = build_poll("a/../b?c#d", "w&count=99", 1, 0.0, "x y&").target

    assert target == "/tasks/poll/batch/a%2F..%2Fb%3Fc%23d?workerid=w%26count%3D99&domain=x%20y%26&count=1&timeout=0"


def test_a_poll_waits_no_longer_than_servers_allow():
    """A server answers 400 to a wait above five seconds, so no more is asked for."""
    assert build_poll("greet", "me", 1, 60.0).query.endswith("timeout=5000")


def test_an_update_goes_to_the_endpoint_of_its_version():
    """Plain and v2 differ in their path only."""
    result = TaskResult(task_id="t", workflow_id="w", output={"ok": True})
    plain, v2 = build_update(result), build_update(result, v2=True)

    assert (plain.path, v2.path) == ("/tasks", "/tasks/update-v2")
    assert plain.body == v2.body
    assert json.loads(plain.body) == result.to_wire()
    assert plain.headers == (("Content-Type", "application/json"),)


@pytest.mark.parametrize("output", [{"x": object()}, {"x": math.nan}, {"x": {1, 2}}])
def test_a_result_that_is_no_json_is_undeliverable(output):
    """No server would ever take it: it must not be sent again and again."""
    with pytest.raises(Undeliverable, match="task t: its result is not JSON-serializable"):
        build_update(TaskResult(task_id="t", output=output))


def test_a_result_that_contains_itself_is_undeliverable():
    """Neither a circle nor endless depth takes the worker down."""
    circle = {}
    circle["again"] = circle
    deep = {}
    for _ in range(100_000):
        deep = {"d": deep}

    for output in (circle, deep):
        with pytest.raises(Undeliverable):
            build_update(TaskResult(task_id="t", output=output))
    while deep:  # taken apart by hand: the interpreter would do it recursively
        deep = deep.pop("d")


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (lambda: build_update(TaskResult(task_id="t")), "/tasks"),
        (lambda: build_update(TaskResult(task_id="t"), v2=True), "/tasks/update-v2"),
        (lambda: build_lease(Task(task_id="t")), "/tasks"),
        (lambda: build_token("k", "s"), "/token"),
    ],
)
def test_what_has_a_body_is_posted_as_json(build, path):
    """Conductor refuses a body that is not called JSON, and has one path for each."""
    call = build()

    assert (call.method, call.target) == ("POST", path)
    assert call.headers == (("Content-Type", "application/json"),)
    assert isinstance(json.loads(call.body), dict)


def test_giving_back_keeps_the_tasks_own_output():
    """An update replaces the output, so the task's own goes back with it; 0 s is at once."""
    body = json.loads(build_update(give_back(Task(task_id="t", workflow_id="w", output={"so": "far"}))).body)

    assert body == {
        "taskId": "t", "workflowInstanceId": "w", "status": "IN_PROGRESS", "outputData": {"so": "far"},
        "callbackAfterSeconds": 0,
    }  # fmt: skip


def test_a_heartbeat_extends_the_lease():
    """It says so in the one field that keeps a server from queueing the task again, and nothing else."""
    body = json.loads(build_lease(Task(task_id="t", workflow_id="w", output={"so": "far"})).body)

    assert body == {"taskId": "t", "workflowInstanceId": "w", "status": "IN_PROGRESS", "extendLease": True}


def test_repr_of_a_call_holds_no_credentials():
    """Neither the token call's body nor a token in a header shows."""
    call = build_token("my-key", "my-secret")

    assert json.loads(call.body) == {"keyId": "my-key", "keySecret": "my-secret"}
    assert "my-" not in repr(call)
    assert "tok" not in repr(HttpCall("GET", "/x", headers=(("X-Authorization", "tok"),)))
    assert "my-" not in repr(HttpAnswer(200, body=b"my-secret"))


# What an answer means.

TABLE = [
    (says(200), Meaning.OK), (says(204), Meaning.OK), (says(401), Meaning.AUTH), (says(403, HTML), Meaning.AUTH),
    (says(404, UNKNOWN_WORKFLOW), Meaning.UNKNOWN_ID), (says(404, UNKNOWN_TASK), Meaning.UNKNOWN_ID),
    (says(404, NO_RESOURCE), Meaning.NO_ENDPOINT), (says(405), Meaning.NO_ENDPOINT), (says(404, HTML), Meaning.SERVER),
    (says(404), Meaning.SERVER), (says(404, {"message": "no such route"}), Meaning.SERVER),
    (says(404, {"message": 7}), Meaning.SERVER), (says(404, ["No such task found"]), Meaning.SERVER),
    (says(404, {"error": "No such task found"}), Meaning.SERVER), (says(408), Meaning.SERVER),
    (says(421), Meaning.SERVER), (says(425), Meaning.SERVER), (says(429), Meaning.PAUSE),
    (says(503, retry_after="7"), Meaning.PAUSE), (says(503), Meaning.SERVER), (says(400), Meaning.SERVER),
    (says(400, HTML), Meaning.SERVER), (says(400, {"message": "no"}), Meaning.OURS), (says(402), Meaning.PAUSE),
    (says(407, HTML), Meaning.PAUSE), (says(409, {"message": "locked"}), Meaning.PAUSE), (says(423), Meaning.PAUSE),
    (says(400, {"message": "no"}, retry_after="7"), Meaning.PAUSE), (says(404, retry_after="7"), Meaning.PAUSE),
    (says(404, UNKNOWN_TASK, retry_after="7"), Meaning.UNKNOWN_ID), (says(200, retry_after="7"), Meaning.OK),
    (says(413), Meaning.SERVER), (says(499), Meaning.SERVER), (says(500), Meaning.SERVER),
    (says(500, {"retryable": True}), Meaning.SERVER), (says(500, {"retryable": False}), Meaning.SERVER),
    (says(500, {"retryable": 0}), Meaning.SERVER), (says(502), Meaning.SERVER), (says(504), Meaning.SERVER),
    (says(502, {"retryable": False}), Meaning.SERVER), (says(302), Meaning.SERVER), (says(101), Meaning.SERVER),
    (says(0), Meaning.SERVER), (says(999), Meaning.SERVER), (says(500, retry_after="7"), Meaning.PAUSE),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "meaning"), TABLE)
def test_the_table_of_what_counts(answer, meaning):
    """Each kind of answer has one meaning, and only a server's own failures count."""
    assert judge(answer).meaning is meaning


@pytest.mark.parametrize(
    ("answer", "of_poll", "of_update", "counts"),
    [
        (says(429), Throttled, Throttled, None),
        (says(401), AuthRejected, AuthRejected, None),
        (says(502), ServerFailed, Refused, True),
        (says(404, HTML), ServerFailed, Refused, True),
        (says(302), ServerFailed, Refused, True),
        (says(500, {"retryable": False}), ServerFailed, Refused, True),
        (says(404, UNKNOWN_WORKFLOW), RequestRejected, Undeliverable, None),
        (says(404, UNKNOWN_TASK), RequestRejected, Undeliverable, None),
        (says(400, {"message": "no"}), RequestRejected, Refused, False),
        (says(400, HTML), ServerFailed, Refused, True),
        (says(405, {"message": "no"}), RequestRejected, Refused, True),
    ],
)
def test_what_follows_from_a_meaning(answer, of_poll, of_update, counts):
    """A result is given up at once only when Conductor itself says that it knows no such task or workflow."""
    reply = judge(answer)
    assert type(refusal(reply, "text")) is of_poll
    error = update_refusal(reply, "text")
    assert type(error) is of_update
    assert str(error) == "text"
    assert getattr(error, "counts", None) == counts


def test_refused_credentials_and_wrong_requests_rest_for_seconds():
    """Neither heals by itself within the milliseconds of a poller's backoff."""
    assert refusal(judge(says(401)), "").retry_after >= 10.0
    assert refusal(judge(says(400, {"message": "no"})), "").retry_after >= 1.0
    assert refusal(judge(says(429, retry_after="7")), "").retry_after == 7.0


DATE = "Tue, 24 Nov 2026 08:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0), ({"retry_after": "7"}, 7.0), ({"retry_after": " 7 "}, 7.0), ({"retry_after": "0"}, 0.0),
        ({"retry_after": "99999999999999999999"}, 300.0), ({"retry_after": "301"}, 300.0), ({"retry_after": "-5"}, 0.0),
        ({"retry_after": "nan"}, 0.0), ({"retry_after": "1e3"}, 0.0), ({"retry_after": "٣"}, 0.0),
        ({"retry_after": "soon"}, 0.0), ({"retry_after": "Tue, 24 Nov 2026 08:00:30 GMT", "date": DATE}, 30.0),
        ({"retry_after": "Tue, 24 Nov 2026 07:00:00 GMT", "date": DATE}, 0.0),
        ({"retry_after": "Tue, 24 Nov 2026 09:00:00 GMT", "date": DATE}, 300.0),
        ({"retry_after": "Tue, 24 Nov 2026 08:00:30 GMT"}, 0.0),
        ({"retry_after": "Tue, 24 Nov 2026 08:00:30 -0000", "date": DATE}, 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(headers, seconds):
    """A date counts from the answer's own date; nonsense is no time; nothing exceeds five minutes."""
    assert retry_after(says(503, **headers)) == seconds


@given(answers)
def test_any_answer_has_a_meaning_and_an_error(answer):
    """Whatever a server sends back, it is classified, and every error has a text that fits a line."""
    reply = judge(answer)
    seconds = retry_after(answer)
    assert 0.0 <= seconds <= 300.0
    text = shorten(reply.excerpt)
    assert len(text) < 250
    assert text.isprintable()
    for error in (refusal(reply, text), update_refusal(reply, text)):
        counts = not isinstance(error, (Throttled, Undeliverable)) and getattr(error, "counts", True)
        assert not counts or reply.meaning in (Meaning.SERVER, Meaning.NO_ENDPOINT, Meaning.OK)


# Reading answers.


def test_a_poll_brings_tasks():
    """A list of tasks is read as it is; nothing to do is an empty list, for some servers no content."""
    assert read_poll(says(200, [{"taskId": "a"}, {"taskId": "b"}]), 9) == PollAnswer(
        (Task(task_id="a"), Task(task_id="b")), None
    )
    for empty in (says(200, b"[]"), says(200, b" [ ] "), says(204)):
        assert read_poll(empty, 9) == PollAnswer((), None)


@pytest.mark.parametrize("body", [HTML, b"", b"{}", b"null", b"7", b'"tasks"', b"[", b"\xff\xfe", b"[" * 200_000])
def test_a_poll_answer_that_is_no_task_list_is_a_problem(body):
    """A login page with status 200, or anything else that is no list, is not an empty answer."""
    polled = read_poll(says(200, body), 9)

    assert polled.tasks == ()
    assert "expected" in polled.problem


def test_good_entries_of_an_odd_answer_are_kept():
    """Tasks beside nonsense have been handed out: they are kept, and the problem is told."""
    polled = read_poll(says(200, [{"taskId": "a"}, {}, 7, {"taskId": "b"}]), 9)

    assert [task.task_id for task in polled.tasks] == ["a", "b"]
    assert "taskId" in polled.problem


def test_a_task_that_comes_twice_in_one_answer_is_run_once():
    """The first of them is kept, and the server's mistake is told."""
    polled = read_poll(says(200, [{"taskId": "a"}, {"taskId": "b"}, {"taskId": "a"}]), 9)

    assert [task.task_id for task in polled.tasks] == ["a", "b"]
    assert polled.problem == "1 of its 3 entries are unusable; the first: task a is in it more than once"


def test_an_answer_full_of_nonsense_is_counted_and_not_described(monkeypatch):
    """After ten bad entries only what has a task id is looked at; the tasks among them are kept all the same."""
    looked_at = []
    read = Task.from_wire

    def from_wire(entry):
        looked_at.append(entry)
        return read(entry)

    monkeypatch.setattr(Task, "from_wire", from_wire)
    nonsense = [0, None, "a task", {}, {"taskId": ""}] * 1000
    polled = read_poll(says(200, [{"taskId": "a"}, *nonsense, {"taskId": "b"}, {"taskId": "c", "inputData": 1}]), 9)

    assert [task.task_id for task in polled.tasks] == ["a", "b"]
    assert polled.problem == "5001 of its 5003 entries are unusable; the first: a task must be a JSON object, not int"
    assert len(looked_at) == 13


@given(bodies)
def test_any_poll_body_is_read(body):
    """No body makes reading a poll raise; what is not a clean list of tasks has a problem."""
    polled = read_poll(says(200, body), 9)
    try:
        entries = json.loads(body.decode("utf-8-sig", "surrogatepass"))
    except (ValueError, RecursionError):
        entries = None
    clean = isinstance(entries, list) and len(polled.tasks) == len(entries)
    assert (polled.problem is None) is clean


@pytest.mark.parametrize(
    ("read", "kinds"),
    [
        (read_next_task, (Task, type(None))), (read_count, int), (read_counts, dict), (read_text, str),
        (read_token, (str, type(None))),
    ],
)  # fmt: skip
@given(body=bodies)
def test_any_other_body_is_read_or_a_server_failure(read, kinds, body):
    """Every reader ends in a value of its type or in ServerFailed."""
    try:
        assert isinstance(read(says(200, body)), kinds)
    except ServerFailed as error:
        assert str(error)  # noqa: PT017 - one of two allowed endings


def test_update_v2_brings_the_next_task_or_none():
    """No content, nothing, null and an empty object all mean that there is none."""
    assert read_next_task(says(200, {"taskId": "n"})) == Task(task_id="n")
    for none in (says(204), says(200, b" "), says(200, b"null"), says(200, b"{}")):
        assert read_next_task(none) is None
    for odd in (HTML, b"[]", b"0", b'""', b'{"taskType": "x"}'):
        with pytest.raises(ServerFailed):
            read_next_task(says(200, odd))


@pytest.mark.parametrize(
    ("body", "taken"), [(b"t1", True), (b'"t1"', True), (b"", True), (HTML, False), (b"{}", False), (b"ok", False)]
)
def test_an_update_is_taken_when_the_answer_names_the_task(body, taken):
    """A proxy's page with status 200 is no receipt: the result must be sent again."""
    if taken:
        read_taken(says(200, body), "t1")
        return
    with pytest.raises(ServerFailed, match="expected the id of the updated task"):
        read_taken(says(200, body), "t1")


def test_small_answers_are_read():
    """Versions, counts and tokens, and what is none of them."""
    assert read_text(says(200, b' "3.32.1"\n')) == "3.32.1"
    assert read_count(says(200, b"7")) == 7
    assert read_counts(says(200, {"a": 1})) == {"a": 1}
    assert read_token(says(200, {"token": "abc"})) == "abc"
    for bad in ({"token": ""}, {"token": "a\r\nEvil: 1"}, {"token": 7}, {}, []):
        assert read_token(says(200, bad)) is None
    for read, bad in ((read_text, HTML), (read_text, b""), (read_count, b"true"), (read_counts, b'{"a": true}')):
        with pytest.raises(ServerFailed):
            read(says(200, bad))


@pytest.mark.parametrize(
    ("read", "body", "said"),
    [
        (read_next_task, {"x": 1}, "^expected the next task: .*task"),
        (read_next_task, [7], "^expected the next task: "),
        (read_count, "seven", '^expected a number, got HTTP 200: "seven"'),
        (read_counts, ["a"], '^expected numbers by name, got HTTP 200: ."a"'),
        (read_text, b"", "^expected a short text, got HTTP 200 with an empty body"),
    ],
)
def test_what_was_expected_and_what_came_is_said(read, body, said):
    """JSON of another kind is the server's failure too, and quoted."""
    with pytest.raises(ServerFailed, match=said):
        read(says(200, body))


def test_a_text_in_quotes_is_read_without_them():
    """Some servers send a text as JSON, some as it is; nothing else is taken off."""
    assert [read_text(says(200, body)) for body in (b"3.1", b'"3.1"', b" XX\n")] == ["3.1", "3.1", "XX"]


def test_an_excerpt_is_conductors_message_or_how_the_body_begins():
    """Error texts are one short line; the cut is made by who has taken the secrets out."""
    assert judge(says(404, UNKNOWN_TASK)).excerpt == "HTTP 404: No such task found by id: t"
    assert judge(says(502, b"<html>\n  Bad   gateway")).excerpt == "HTTP 502: <html> Bad gateway"
    assert judge(says(500)).excerpt == "HTTP 500 with an empty body"
    assert len(judge(says(500, b"x" * 10_000)).excerpt) < 1000
    assert shorten("x" * 200) == "x" * 200, "as much as is shown is shown as it is"
    assert shorten("x" * 201) == "x" * 200 + "…"
    assert judge(says(500, b"\x1b[2Jgone\x00")).excerpt == "HTTP 500: ?[2Jgone?"


def test_a_huge_body_is_read_for_no_message(monkeypatch):
    """An error of many megabytes is not parsed each time that somebody looks for its message."""
    huge = says(500, {"message": "x" * 2**20, "retryable": False})
    monkeypatch.setattr(json, "loads", None)

    assert (judge(huge), read_token(huge)) == (Reply(huge, Meaning.SERVER, ""), None)
    assert judge(huge).excerpt.startswith('HTTP 500: {"message": "xxx')


def test_an_answer_is_parsed_once_and_a_success_only_by_its_reader(monkeypatch):
    """An error of a server is looked at again and again on its way to an error message; its body is not."""
    parsed = []
    monkeypatch.setattr(HttpAnswer, "json", lambda answer: parsed.append(answer.status) or {"message": "no"})
    reply = judge(says(500, {"message": "no"}))
    judge(says(200, {}))

    assert (reply.meaning, reply.excerpt, str(update_refusal(reply, "text"))) == (
        Meaning.SERVER,
        "HTTP 500: no",
        "text",
    )
    assert parsed == [500]


@pytest.mark.parametrize("body", ['{"a": "ä"}'.encode("utf-16"), '{"a": "ä"}'.encode("utf-32-le"), b'{"a": "\xe4"}'])
def test_an_answer_in_another_encoding_than_utf_8_is_not_guessed_at(body):
    """JSON is UTF-8; a byte order mark of UTF-8 is passed over, and half a character is left as it is."""
    with pytest.raises(ValueError):  # noqa: PT011 - of the decoder or of the reader
        says(200, body).json()
    assert says(200, b'\xef\xbb\xbf{"a": "\xc3\xa4\xed\xa0\x80"}').json() == {"a": "ä\ud800"}


def test_a_transport_error_is_the_servers_failure_and_can_be_pickled():
    """It keeps its kind on the way between processes."""
    error = pickle.loads(pickle.dumps(TransportError(TransportErrorKind.TIMEOUT, "late")))  # noqa: S301 - our own

    assert isinstance(error, ServerFailed)
    assert (error.kind, str(error)) == (TransportErrorKind.TIMEOUT, "late")
