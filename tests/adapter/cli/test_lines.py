"""What a running worker says: one sentence for each thing worth knowing, repeated ones sampled."""

import io
import json

import attrs
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter import RunnerEvent, Task, TaskFailed, TaskLeaseLost, TaskStatus
from conductor_adapter.cli import app
from conductor_adapter.cli.lines import line_of
from conductor_adapter.cli.printing import Printer
from conductor_adapter.cli.sampling import Sampler
from resilience import (
    BacklogDrained,
    BacklogFull,
    BreakerChanged,
    BreakerState,
    DeadLettered,
    DeliveryFailed,
    DeliveryRefused,
    DeliveryResumed,
    Event,
    GaveBack,
    GiveBackFailed,
    HandlerFailed,
    ItemsArrived,
    ItemsArrivedLate,
    LeaseGivenUp,
    OutboxFailed,
    OutboxResumed,
    PollFailed,
    PollOverdue,
    PollTimedOut,
    RowsKept,
    SurplusArrived,
    ThreadUnavailable,
    Undelivered,
)

DOWN = OSError("down")
SENTENCES: list[tuple[RunnerEvent, str]] = [
    (BreakerChanged("eu", BreakerState.CLOSED, BreakerState.OPEN, 1, 2.5), "closed -> open, next probe in 2.5 s"),
    (BreakerChanged("eu", BreakerState.OPEN, BreakerState.CLOSED, 2), "breaker open -> closed"),
    (BreakerChanged("eu", BreakerState.CLOSED, BreakerState.OPEN, 1, 2.5, DOWN), "in 2.5 s: down"),
    (PollFailed("eu", DOWN), "poll failed: down"),
    (PollFailed("eu", ValueError()), "poll failed: ValueError"),
    (PollTimedOut("eu", 5.0), "poll timed out after 5 s; a late answer will still be used"),
    (SurplusArrived("eu", 10, 1), "returned more tasks than requested (10 instead of 1); the surplus is given back"),
    (PollOverdue("eu", 3), "its 3 units are lent to other servers"),
    (PollOverdue("eu", 1), "its unit is lent to other servers"),
    (ItemsArrivedLate("eu", 1), "1 task arrived late"),
    (ItemsArrivedLate("eu", 2), "2 tasks arrived late"),
    (DeliveryFailed("eu", "t1", 2, DOWN), "result of task t1 could not be delivered (attempt 2; will retry): down"),
    (DeliveryRefused("eu", "t1", 2, DOWN), "result of task t1 was refused (attempt 2; will retry): down"),
    (DeliveryResumed("eu"), "accepts results again"),
    (BacklogFull("eu", 50), "accepts results too slowly: 50 waiting"),
    (BacklogDrained("eu"), "polling resumed"),
    (OutboxFailed("eu", DOWN), "cannot be stored; polling is paused until they are delivered or stored: down"),
    (OutboxResumed("eu"), "all results are delivered or stored"),
    (RowsKept("eu", "http://old", 1), "1 result of an earlier worker is waiting for http://old, not configured here"),
    (RowsKept("eu", "http://old", 2), "2 results of an earlier worker are waiting for http://old"),
    (DeadLettered("eu", "t1", "No such task"), "refused permanently: No such task"),
    (Undelivered("eu", "t1"), "task t1 was lost: it could be neither delivered nor stored"),
    (GaveBack("eu", 2, "stopping"), "2 tasks given back un-started (stopping)"),
    (
        LeaseGivenUp("eu", Task(task_id="t1", task_type="greet"), 3600.0),
        "task t1 of type 'greet' has been running for more than 3600 s (max_lease): its heartbeats end",
    ),
    (
        ThreadUnavailable("eu", "a poll", "can't start new thread"),
        "a poll is waiting for a thread: can't start",
    ),
    (GiveBackFailed("eu", 1, DOWN), "1 task could not be given back; the server waits for the response timeout: down"),
    (HandlerFailed("eu", DOWN), "a task could not be handled: down"),
    (TaskFailed("eu", "greet", "t1", TaskStatus.FAILED, "down"), "task t1 of type 'greet' failed: down"),
    (
        TaskLeaseLost("eu", "greet", "t1", DOWN),
        "task t1 of type 'greet' has outlived its response timeout; it might be run again: down",
    ),
    (
        TaskFailed("eu", "greet", "t1", TaskStatus.FAILED_WITH_TERMINAL_ERROR, None),
        "task t1 of type 'greet' failed permanently: no reason given",
    ),
    (
        BreakerChanged("eu", BreakerState.CLOSED, BreakerState.OPEN, 1, 37.3, calls="updates"),
        "breaker of updates closed -> open, results are tried every few seconds",
    ),
    (
        BreakerChanged("eu", BreakerState.OPEN, BreakerState.CLOSED, 2, calls="updates"),
        "breaker of updates open -> closed",
    ),
]


@pytest.mark.parametrize(("event", "sentence"), SENTENCES)
def test_event_is_told_in_a_sentence_about_its_server(event: RunnerEvent, sentence: str) -> None:
    """Everything that goes wrong, and every recovery, can be read."""
    line = line_of(event)

    assert line is not None
    assert (line.server, sentence in line.text) == ("eu", True)


@pytest.mark.parametrize(
    "event",
    [
        PollFailed("eu", OSError("server 'eu': down")),
        DeliveryFailed("eu", "t1", 1, OSError("server 'eu': update of task t1: down")),
        DeadLettered("eu", "t1", "server 'eu': update of task t1: down"),
        GiveBackFailed("eu", 1, OSError("server 'eu': down")),
        TaskLeaseLost("eu", "greet", "t1", OSError("server 'eu': down")),
        BreakerChanged("eu", BreakerState.CLOSED, BreakerState.OPEN, 1, 2.5, OSError("server 'eu': down")),
    ],
)
def test_server_and_task_are_named_once(event: RunnerEvent) -> None:
    """The line is about a server already, and says which task: what went wrong does not repeat either."""
    line = line_of(event)

    assert line is not None
    assert line.text.endswith(": down")
    assert "'eu'" not in line.text
    assert line.text.count("t1") <= 1


@pytest.mark.parametrize("event", [ItemsArrived("eu", 1, 1, 0.1), ItemsArrivedLate("eu", 0)])
def test_what_happens_all_the_time_is_not_told(event: Event) -> None:
    """A working worker is silent."""
    assert line_of(event) is None


DAY = 86_400.0
KEY = ("poll failed", "eu")
gaps = st.lists(st.one_of(st.floats(0, 20), st.floats(0, 2000)), max_size=300)


@pytest.mark.parametrize("every", [0.5, 3.0, 30.0, 599.0, 601.0])
def test_error_that_repeats_all_day_is_a_few_hundred_lines_at_most(every: float) -> None:
    """However often a server fails in a day, its log can be read, and an hour never goes by without a word."""
    sampler = Sampler()
    times = [number * every for number in range(int(DAY / every))]

    told = [at for at in times if sampler.admit(KEY, at) is not None]

    assert told[:3] == times[:3]
    assert len(told) <= 160
    assert max(b - a for a, b in zip(told, [*told[1:], DAY], strict=True)) < 3600


@given(gaps)
def test_every_line_is_said_or_counted(waits: list[float]) -> None:
    """What is left out is counted in the next line of its kind, or at the end."""
    sampler, now, counted = Sampler(), 0.0, 0

    for wait in waits:
        now += wait
        left_out = sampler.admit(KEY, now)
        counted += 0 if left_out is None else 1 + left_out

    assert counted + sampler.unsaid().get(KEY, 0) == len(waits)


@given(gaps)
def test_what_is_said_is_never_closer_than_the_shortest_gap_after_the_first_few(waits: list[float]) -> None:
    """Four lines of one key take ten seconds at least, at whatever rhythm its failures come."""
    sampler, now, told = Sampler(), 0.0, []

    for wait in waits:
        now += wait
        if sampler.admit(KEY, now) is not None:
            told.append(now)

    assert all(fourth - first >= 10 - 1e-6 for first, fourth in zip(told, told[3:], strict=False))


def test_key_that_was_silent_for_long_is_news_again() -> None:
    """After ten quiet minutes the first few are said, with what had been left out."""
    sampler = Sampler(first=1)
    assert [sampler.admit(KEY, at) for at in (0.0, 1.0, 2.0)] == [0, None, None]

    assert sampler.admit(KEY, 700.0) == 2


def test_keys_are_sampled_apart() -> None:
    """One server's failures do not hide another's, nor another kind."""
    sampler = Sampler(first=1)

    assert [sampler.admit(key, 0.0) for key in (KEY, KEY, ("poll failed", "us"), ("late", "eu"))] == [0, None, 0, 0]


def test_trips_and_recoveries_are_not_sampled_away_by_probes() -> None:
    """A day of failed probes hides neither the recovery nor the next trip."""
    opened, half, closed = BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED
    stream = io.StringIO()
    printer = Printer(stream=stream, timer=lambda: 0.0)

    printer.hear(BreakerChanged("eu", closed, opened, 1))
    for _ in range(500):
        printer.hear(BreakerChanged("eu", opened, half, 2))
        printer.hear(BreakerChanged("eu", half, opened, 3))
    printer.hear(BreakerChanged("eu", half, closed, 4))

    lines = stream.getvalue().splitlines()
    assert len(lines) == 1 + 3 + 1
    assert "half-open -> closed" in lines[-1]


def test_lines_that_were_left_out_are_counted_in_the_next_and_at_the_end() -> None:
    """Nothing is hidden without its number."""
    stream, now = io.StringIO(), [0.0]
    printer = Printer(stream=stream, timer=lambda: now[0])
    for _ in range(10):
        printer.hear(PollFailed("eu", DOWN))
    now[0] = 11.0
    printer.hear(PollFailed("eu", DOWN))
    for _ in range(5):
        printer.hear(PollFailed("eu", DOWN))
    printer.say_left_out()

    *_, counted, end = stream.getvalue().splitlines()
    assert counted == "eu: poll failed: down (7 more like it since the last such line)"
    assert end == "not shown: 5 more of 'eu: poll failed'"


@pytest.mark.parametrize(
    ("event", "facts"),
    [
        (TaskFailed("eu", "greet", "t1", TaskStatus.FAILED, "down"), {"task": "t1", "task_type": "greet"}),
        (TaskLeaseLost("eu", "greet", "t1", DOWN), {"task": "t1", "task_type": "greet"}),
        (DeliveryFailed("eu", "t1", 2, DOWN), {"task": "t1"}),
        (DeadLettered("eu", "t1", "No such task"), {"task": "t1"}),
        (Undelivered("eu", "t1"), {"task": "t1"}),
    ],
)
def test_machines_get_the_task_by_itself(event: RunnerEvent, facts: dict[str, str]) -> None:
    """No one has to take a sentence apart."""
    stream = io.StringIO()
    Printer(as_json=True, stream=stream).hear(event)

    assert {"server": "eu", **facts}.items() <= json.loads(stream.getvalue()).items()


def test_task_that_could_not_be_handled_is_named_if_it_is_known() -> None:
    """The runner notes it in the error."""
    noted = OSError("down")
    noted.add_note("task t1 of type 'greet'")

    line = line_of(HandlerFailed("eu", noted))

    assert line is not None
    assert line.text == "task t1 of type 'greet' could not be handled: down"


def failed(text: str) -> TaskFailed:
    """The event of a task whose function raised."""

    def inner() -> None:
        raise ValueError(text)

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - any text
        inner()
    return TaskFailed("eu", "greet", "t1", TaskStatus.FAILED, f"ValueError: {text}", caught.value)


@pytest.mark.parametrize(("level", "shown"), [(1, False), (2, True), (3, True)])
def test_traceback_is_shown_to_those_who_want_to_see_everything(level: int, shown: bool) -> None:
    """Below the line, set in from it; for machines beside the sentence."""
    plain, machine = io.StringIO(), io.StringIO()
    Printer(stream=plain, level=level).hear(failed("no"))
    Printer(stream=machine, level=level, as_json=True).hear(failed("no"))

    first, *below = plain.getvalue().splitlines()
    assert first == "eu: task t1 of type 'greet' failed: ValueError: no"
    assert bool(below) is shown
    assert all(line.startswith("  ") for line in below)
    detail = json.loads(machine.getvalue()).get("detail", "")
    assert (detail.startswith("Traceback"), detail.endswith("ValueError: no")) == (shown, shown)
    assert ("in inner" in "".join(below), "in inner" in detail) == (shown, shown)


def test_error_without_a_traceback_has_nothing_below_it() -> None:
    """What was refused before the function ran has no place in its code."""
    stream = io.StringIO()
    Printer(stream=stream, level=2).hear(TaskFailed("eu", "greet", "t1", TaskStatus.FAILED, "no", OSError("no")))

    assert stream.getvalue() == "eu: task t1 of type 'greet' failed: no\n"


def test_hostile_texts_neither_steer_the_terminal_nor_forge_a_line() -> None:
    """Whatever a function raises: its message, and its traceback with -v."""
    stream = io.StringIO()
    Printer(stream=stream, level=2).hear(failed("no\x1b[2J\a\r\neu: all is well\u202e"))

    lines = stream.getvalue().splitlines()
    assert all(line.isprintable() for line in lines)
    assert [line for line in lines if line.startswith("eu: all")] == []
    assert lines[0] == "eu: task t1 of type 'greet' failed: ValueError: no?[2J?  eu: all is well?"


def test_megabytes_are_cut_and_said_to_be() -> None:
    """In the line, in its traceback and in what machines get."""
    plain, machine = io.StringIO(), io.StringIO()
    event = attrs.evolve(failed("x" * 5_000_000), task_id="i" * 5_000_000)
    for _ in range(3):
        Printer(stream=plain, level=2).hear(event)
        Printer(stream=machine, level=2, as_json=True).hear(event)

    assert len(plain.getvalue()) < 3 * 20_000
    assert len(machine.getvalue()) < 3 * 30_000
    assert "characters in all)" in plain.getvalue().splitlines()[0]
    assert "… (cut; 5,0" in json.loads(machine.getvalue().splitlines()[0])["detail"]


def test_failing_tasks_of_one_type_do_not_hide_those_of_another() -> None:
    """Each type is sampled by itself."""
    stream = io.StringIO()
    printer = Printer(stream=stream, timer=lambda: 0.0)
    for _ in range(500):
        printer.hear(TaskFailed("eu", "greet", "t1", TaskStatus.FAILED, "no"))
    printer.hear(TaskFailed("eu", "ship", "t2", TaskStatus.FAILED, "no"))
    printer.say_left_out()

    *_, ship, left_out = stream.getvalue().splitlines()
    assert ship == "eu: task t2 of type 'ship' failed: no"
    assert left_out == "not shown: 497 more of 'eu: task failed (greet)'"


@pytest.mark.parametrize(("level", "kinds"), [(0, 1), (1, 2), (2, 3)])
def test_level_decides_how_much_is_said(level: int, kinds: int) -> None:
    """Quiet says what matters, verbose says everything."""
    stream = io.StringIO()
    printer = Printer(level=level, stream=stream)

    printer.hear(HandlerFailed("eu", DOWN))
    printer.hear(PollFailed("eu", DOWN))
    printer.hear(PollOverdue("eu", 1))

    assert len(stream.getvalue().splitlines()) == kinds


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    """Reasons are the words of task functions, ids those of servers: neither steers the terminal or ends the line."""
    stream = io.StringIO()
    Printer(stream=stream).say("task failed", "no:\n\x1b[2Jnot \ud800", server="eu")

    assert stream.getvalue() == "eu: no: ?[2Jnot ?\n"


def test_columns_stay_where_they_are() -> None:
    """What is aligned stays aligned."""
    stream = io.StringIO()
    Printer(stream=stream).say("rates", "  1.0 s  eu  33%   9/s")

    assert stream.getvalue() == "  1.0 s  eu  33%   9/s\n"


def test_json_has_facts_and_no_empty_fields() -> None:
    """Machines get a time, a kind and the facts."""
    stream = io.StringIO()

    Printer(as_json=True, stream=stream, clock=lambda: 12.3456).say("stopped", "done", left=0)

    assert json.loads(stream.getvalue()) == {"at": 12.346, "kind": "stopped", "text": "done", "left": 0}


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, typer.Abort])
def test_interrupted_command_exits_as_shells_expect(
    monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    """Ctrl-C outside of `run` is exit status 130, without a stack trace, whatever typer makes of it."""

    def interrupted(*_: object, **__: object) -> int:
        raise interrupt

    monkeypatch.setattr(app, "check_servers", interrupted)

    assert app.command(["check"]) == 130


def test_bug_of_ours_is_not_hidden_as_bad_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no user's mistake keeps its stack trace."""

    def buggy(*_: object, **__: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(app, "check_servers", buggy)

    with pytest.raises(ZeroDivisionError):
        app.command(["check"])
