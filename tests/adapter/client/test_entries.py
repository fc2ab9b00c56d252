"""Reading the answers of polls entry by entry: the same as Python's reader says, in pieces, and whatever is damaged."""

import functools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sizes import part

from conductor_adapter.client import decoding, entries
from conductor_adapter.client.decoding import UnreadableTask, read_next_task, read_poll
from conductor_adapter.client.entries import Unreadable, read_entries, read_object
from conductor_adapter.client.messages import HttpAnswer, ServerFailed
from conductor_adapter.tasks import Task

MIB = 2**20
IDS = {"taskId": "t", "workflowInstanceId": "w"}
DIGITS = "9" * 5000  # more than Python turns into a number
HUGE_SIZE = min(63, part(80)) * MIB  # more than one entry may have, less than an answer may have
DEEP = "[" * 20_000 + "]" * 20_000
texts = st.text(max_size=6) | st.sampled_from(["\\", '"', '\\"', "a[b", "{", "}],", "ü", "\ud800", "", "taskId"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=4)


def as_bytes(value, draw):
    """JSON in one of the ways in which it can be written."""
    indent, ascii_only = draw(st.sampled_from([None, 0, 2])), draw(st.booleans())
    return json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module", autouse=True)
def _tiny_windows():
    """Everything is large here: pieces of a few bytes, and two levels of nesting more than a match takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "_WINDOW", 24)
        yield


@given(st.lists(objects, max_size=3), st.data())
def test_objects_are_read_as_pythons_reader_reads_them(found, data):
    """Whatever a list of objects holds, and however it is cut into pieces, nothing of it changes."""
    body = as_bytes(found, data.draw)

    assert list(read_entries(body)) == found


@given(objects, st.data())
def test_object_is_read_as_pythons_reader_reads_it(value, data):
    """The same for a single object."""
    assert read_object(as_bytes(value, data.draw)) == value


@given(st.lists(objects, min_size=1, max_size=2), st.data())
def test_damaged_list_is_never_read_as_something_else(found, data):
    """What Python's reader refuses has an entry that cannot be read, or an end that raises; nothing else is raised."""
    body = bytearray(as_bytes(found, data.draw))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b",", b"]", b"}", b'"', b"[", b"\x01"])
    )
    try:
        read = list(read_entries(bytes(body)))
    except ValueError:
        read = [Unreadable("")]
    try:
        expected = json.loads(bytes(body).decode("utf-8", "surrogatepass"))
    except ValueError:
        expected = None
    if not isinstance(expected, list) or not all(isinstance(entry, dict) for entry in expected):
        assert any(isinstance(entry, Unreadable) for entry in read)
    else:
        assert read == expected


@given(st.binary(max_size=40) | st.text('[]{},:"\\ 1a', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(body):
    """No bytes bring about anything but a value, a value that cannot be read, or ValueError."""
    for read in (lambda: list(read_entries(body)), lambda: read_object(body)):
        try:
            read()
        except ValueError as error:
            assert str(error)  # noqa: PT017 - one of two allowed endings


def odd(name="t", extra='"inputData": {"x": 1}', **ids):
    """A task as JSON text, with a member that need not be JSON."""
    shown = json.dumps({"taskId": name, "workflowInstanceId": "w", "taskType": "greet", **ids})
    return f'{{"status": "IN_PROGRESS", {extra}, {shown[1:]}'


def answer(*shown):
    """The answer to a poll."""
    return HttpAnswer(200, {}, f"[{','.join(shown)}]".encode())


ODD = [
    ('"inputData": {"x": ' + DIGITS + "}", "4300"),
    ('"inputData": {"x": ' + DEEP + "}", "nested too deeply"),
    ('"inputData": {"x": "a\tb"}', "control character"),
    ('"inputData": {"x": nope}', "Expecting value"),
    ('"inputData": {"x": 1 2}', "delimiter"),
    ('"inputData": 7', "not a JSON object"),
    ('"x" "y"', "delimiter"),
]


@pytest.mark.parametrize(("extra", "said"), ODD)
def test_odd_entry_costs_no_other_and_has_its_ids(extra, said):
    """The tasks around it are read, and of it what must be known to tell its server; the answer has no problem."""
    polled = read_poll(answer(odd("a"), odd("b", extra), odd("c")), 3)

    assert [task.task_id for task in polled.tasks] == ["a", "c"]
    assert polled.problem is None or '"x" "y"' in extra
    (unreadable,) = polled.unreadable or (UnreadableTask("b", "w", said, "greet"),)
    assert attrs_of(unreadable) == ("b", "w", "greet")
    assert said in unreadable.reason


def attrs_of(task):
    """What a server must be told."""
    return task.task_id, task.workflow_id, task.task_type


@pytest.mark.parametrize(
    "damaged",
    [
        '{"x": [12345678901234567890, ,1]}',
        '{"x": [ ,1234567890123456789012345]}',
        '{"x": [1234567890, 1234567890, ,12345678901234567890]}',
        '{"x": [12345678901234567890123456789,]}',
        '{"x": {"a key of many letters": 1234567890 "b": 1}}',
        '{"x": {"a key of many letters" 12345678901234}}',
        '{"x": {"a key of many letters": 123456789, 1: 1234567890}}',
        '{"x": ["a text of very many letters, ]}',
        '{"x": [12345678901234567890123456}]}',
    ],
)
def test_what_python_refuses_is_refused_in_pieces_too(damaged):
    """A comma, colon, key, value or end that is missing, wherever a piece ends."""
    try:
        (read,) = read_entries(f"[{damaged}]".encode())
    except ValueError:
        return
    assert isinstance(read, Unreadable)


@pytest.mark.parametrize(
    "body", ["[{}", "[{},", "[{}]]", "[{}] {}", "{}", "[", "", '[{}, "x', "[{} {}]", "[,]", "[{},]", "[{}, [1}"]
)
def test_what_is_no_list_raises(body):
    """As far as it is a list its objects are read before that."""
    with pytest.raises(ValueError, match=r"\w"):
        assert list(read_entries(body.encode())) != [{}, Unreadable("it is not an object")]


@pytest.mark.parametrize("body", ["{", "{}{}", "[]", "", "7", '{"x": ', '{"x": "y'])
def test_what_is_no_object_raises(body):
    """A single value is an object or nothing."""
    with pytest.raises(ValueError, match=r"\w"):
        read_object(body.encode())


def test_byte_order_mark_is_passed_over():
    """Python's reader does so too."""
    assert list(read_entries(b"\xef\xbb\xbf [{}, {}]")) == [{}, {}]
    assert list(read_entries(b" [ ] ")) == []


def test_ids_inside_an_input_are_not_those_of_the_task():
    """Only the members of the entry itself count, wherever they stand."""
    extra = '"inputData": {"taskId": "other", "workflowInstanceId": "other", "x": ' + DIGITS + "}"
    (unreadable,) = read_poll(answer(odd("b", extra)), 1).unreadable

    assert attrs_of(unreadable) == ("b", "w", "greet")


@pytest.mark.parametrize("name", ["", 7, "\ud800", "x" * 2000])
def test_odd_entry_without_usable_ids_is_a_problem_of_its_server(name):
    """Nobody can be told of it, so it counts, as it always has."""
    polled = read_poll(answer(odd("a"), odd(name, '"inputData": {"x": ' + DIGITS + "}")), 2)

    assert [task.task_id for task in polled.tasks] == ["a"]
    assert "1 of its 2 entries are unusable; the first: " in polled.problem
    assert not polled.unreadable


def test_answer_that_is_cut_off_keeps_what_came_before():
    """The tasks before the cut have been handed out: they run, and the cut counts."""
    body = answer(odd("a"), odd("b")).body
    polled = read_poll(HttpAnswer(200, {}, body[:-10]), 2)

    assert [task.task_id for task in polled.tasks] == ["a"]
    assert polled.problem == "after 1 entries it does not end"


def test_next_task_that_is_odd_has_its_ids_too():
    """What comes with the answer to a result is read in the same way."""
    read = read_next_task(HttpAnswer(200, {}, odd("n", '"inputData": {"x": ' + DIGITS + "}").encode()))

    assert attrs_of(read) == ("n", "w", "greet")
    with pytest.raises(ServerFailed, match="expected the next task: Exceeds the limit"):
        read_next_task(HttpAnswer(200, {}, b'{"x": ' + DIGITS.encode() + b"}"))


# What is large.


@pytest.fixture
def pieces(monkeypatch):
    """The sizes of what Python's reader is given: it lets no other thread run meanwhile."""
    monkeypatch.setattr(entries, "_WINDOW", 64 * 1024)
    sizes, loads = [], json.loads

    def noting(text):
        sizes.append(0 if text[:1] == '"' else len(text))  # a text is but copied
        return loads(text)

    monkeypatch.setattr(json, "loads", noting)
    return sizes


def filled(unit, size=HUGE_SIZE, around=b"[]"):
    """A list of very many units."""
    return around[:1] + b",".join([unit] * (size // (len(unit) + 1))) + around[1:]


def keys(count=HUGE_SIZE // 33):
    """One object of very many keys."""
    return b"{" + b",".join(b'"a key with the number %07d":1' % number for number in range(count)) + b"}"


HUGE = [
    lambda: filled(b"[]"), lambda: filled(b"{}"), lambda: filled(b"9" * 4000), lambda: b"[" + keys() + b"]", keys,
    lambda: b"[" * (HUGE_SIZE // 8), lambda: b'["' + b'\\"' * (HUGE_SIZE // 16),
    lambda: filled(b"[" * 20 + b"]" * 20, HUGE_SIZE // 8),
    lambda: b"[" + filled(b"[" * 20 + b"]" * 20, HUGE_SIZE // 8, b"{}"),
]  # fmt: skip


@pytest.mark.many
@pytest.mark.parametrize("make", HUGE)
@pytest.mark.parametrize("read", [lambda found: read_poll(found, 10), read_next_task])
def test_huge_nonsense_is_not_parsed(make, read, pieces):
    """Megabytes that a gzip of 64 kB makes: read in pieces as far as need be, in little more memory than they have."""
    found = HttpAnswer(200, {}, make())
    tracemalloc.start()
    try:
        read(found)
    except ServerFailed:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert max(pieces, default=0) <= entries.SMALL
    assert peak < 4 * len(found.body)


def test_large_task_is_read_in_pieces(pieces):
    """Some megabytes are a task like any other: nothing is missing, and no other thread waits for all of it."""
    rows = [
        {"id": number, "name": "a name", "text": 'with "quotes"', "tags": ["a", [number]]} for number in range(50_000)
    ]
    task = {**IDS, "inputData": {"rows": rows, "text": "x" * MIB}, "outputData": {}}
    polled = read_poll(HttpAnswer(200, {}, json.dumps([task, {**IDS, "taskId": "u"}]).encode()), 2)

    assert polled.tasks == (Task.from_wire(task), Task.from_wire({**IDS, "taskId": "u"}))
    assert polled.problem is None
    assert 0 < max(pieces) <= entries.SMALL


@pytest.mark.parametrize(
    ("large", "said"),
    [
        (lambda: b'{"x": "' + b"x" * (17 * MIB) + b'"}', "larger than the 16777216 bytes"),
        (lambda: b'{"x": ' + filled(b"1", 17 * MIB) + b"}", "larger than the 16777216 bytes"),
        (lambda: b'{"x": ' + filled(b"[]", 4 * MIB) + b"}", "more than the 1000000 lists and objects"),
    ],
)
def test_entry_that_is_too_large_costs_no_other(large, said, pieces):
    """The tasks before and behind it run; it is told of by its ids, which stand behind what is too large."""
    task = b'{"inputData": ' + large() + b', "taskId": "b", "workflowInstanceId": "w", "taskType": "greet"}'
    around = [json.dumps({**IDS, "taskId": name}).encode() for name in "ac"]
    polled = read_poll(HttpAnswer(200, {}, b"[" + b",".join([around[0], task, around[1]]) + b"]"), 3)

    assert [found.task_id for found in polled.tasks] == ["a", "c"]
    (unreadable,) = polled.unreadable
    assert attrs_of(unreadable) == ("b", "w", "greet")
    assert said in unreadable.reason
    assert max(pieces) <= entries.SMALL


def test_object_of_too_many_members_is_no_task(pieces):
    """Where it is small nothing else suffers; where it is large the rest of the answer is not looked at."""
    many = {f"key {number}": number for number in range(1_000)}
    polled = read_poll(answer(odd("a"), odd("b", json.dumps(many)[1:-1] + ', "x": nope'), odd("c")), 3)
    assert [task.task_id for task in polled.tasks] == ["a", "c"]
    assert "Expecting value" in polled.problem

    polled = read_poll(HttpAnswer(200, {}, b"[" + odd("a").encode() + b"," + keys(50_000) + b"]"), 3)
    assert [task.task_id for task in polled.tasks] == ["a"]
    problem = "after 1 entries an object with more than 500 members is not a task, and the rest is not read"
    assert polled.problem == problem
    assert sum(pieces) < 100_000


def test_text_full_of_brackets_is_no_list(pieces):
    """JSON inside of a text, as people do it, counts as the text that it is."""
    task = {**IDS, "inputData": {"json": json.dumps([{"a": []}] * 40_000), "b": [json.dumps([[]] * 500)] * 900}}
    polled = read_poll(HttpAnswer(200, {}, json.dumps([task]).encode()), 1)

    assert polled.tasks == (Task.from_wire(task),)
    assert pieces


def test_some_tasks_more_than_were_asked_for_are_read_and_the_rest_is_not():
    """A thousand more have been handed out and can go back; of a million nobody could."""
    shown = [json.dumps({**IDS, "taskId": f"t{number}"}) for number in range(1100)]

    assert read_poll(answer(*shown[:1005]), 10).problem is None
    polled = read_poll(answer(*shown), 10)
    assert len(polled.tasks) == 10 + decoding.SURPLUS
    assert polled.problem == "after 1010 entries the rest is not read, because there are too many"


def test_answer_that_is_far_too_large_is_no_count():
    """Other answers are short; what is not is refused unread."""
    with pytest.raises(ServerFailed, match="expected at most 4194304 bytes, got 5242880"):
        decoding.read_count(HttpAnswer(200, {}, b" " * 5 * MIB))


def test_task_is_not_failed_for_what_its_neighbours_hold(monkeypatch):
    """Where an answer as a whole holds too much its rest is a problem of the answer, and no verdict on a task."""
    monkeypatch.setattr(entries, "MAX_CONTAINERS", 100)
    monkeypatch.setattr(entries, "MAX_ANSWER_CONTAINERS", 250)
    monkeypatch.setattr(decoding, "SMALL", 10)
    body = [{"taskId": f"t{n}", "workflowInstanceId": "w", "inputData": {"p": [[1]] * 80}} for n in range(5)]

    answer = read_poll(HttpAnswer(200, {}, json.dumps(body).encode()), 5)

    assert [task.task_id for task in answer.tasks] == ["t0", "t1", "t2"]
    assert answer.unreadable == ()
    assert "the entries before it have more than the 250 lists and objects" in answer.problem


@pytest.mark.usefixtures("pieces")
def test_ordinary_nesting_costs_no_task():
    """Ten levels in thousands of documents are no reason to leave a task unread."""
    document = functools.reduce(lambda inner, level: {"n": level, "child": inner}, range(10), {"v": "x"})
    body = [{"taskId": f"t{n}", "workflowInstanceId": "w", "inputData": {"docs": [document] * 1200}} for n in range(10)]

    answer = read_poll(HttpAnswer(200, {}, json.dumps(body).encode()), 10)

    assert (len(answer.tasks), answer.problem) == (10, None)
