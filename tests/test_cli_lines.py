"""What a running worker says: one sentence for each thing worth knowing, repeated ones sampled."""

import io
import json

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from conductor_adapter.cli import app
from conductor_adapter.cli.lines import Line, Printer, Sampler, line_of
from resilience import (
    BreakerChanged,
    BreakerState,
    DeadLettered,
    DeliveryFailed,
    DeliveryResumed,
    Event,
    GaveBack,
    GiveBackFailed,
    HandlerFailed,
    ItemsArrived,
    ItemsArrivedLate,
    PollFailed,
    PollOverdue,
    PollTimedOut,
    Undelivered,
)

DOWN = OSError("down")
SENTENCES: list[tuple[Event, str]] = [
    (BreakerChanged("eu", BreakerState.CLOSED, BreakerState.OPEN, 1, 2.5), "closed -> open, next probe in 2.5 s"),
    (BreakerChanged("eu", BreakerState.OPEN, BreakerState.CLOSED, 2), "breaker open -> closed"),
    (PollFailed("eu", DOWN), "poll failed: down"),
    (PollFailed("eu", ValueError()), "poll failed: ValueError"),
    (PollTimedOut("eu", 5.0), "no answer to a poll within 5 s"),
    (PollOverdue("eu", 3), "its 3 units work for others"),
    (ItemsArrivedLate("eu", 1), "1 task arrived late"),
    (ItemsArrivedLate("eu", 2), "2 tasks arrived late"),
    (DeliveryFailed("eu", "t1", 2, DOWN), "result of task t1 not taken (attempt 2), it is sent again: down"),
    (DeliveryResumed("eu"), "takes results again"),
    (DeadLettered("eu", "t1", "No such task"), "refused for good: No such task"),
    (Undelivered("eu", "t1"), "task t1 was left undelivered"),
    (GaveBack("eu", 2, "stopping"), "2 tasks given back un-started (stopping)"),
    (GiveBackFailed("eu", 1, DOWN), "1 task could not be given back, the server times them out: down"),
    (HandlerFailed("eu", DOWN), "a task could not be handled: down"),
]


@pytest.mark.parametrize(("event", "sentence"), SENTENCES)
def test_event_is_told_in_a_sentence_about_its_server(event: Event, sentence: str) -> None:
    """Everything that goes wrong, and every recovery, can be read."""
    line = line_of(event)

    assert line is not None
    assert (line.server, sentence in line.text) == ("eu", True)


@pytest.mark.parametrize("event", [ItemsArrived("eu", 1, 1, 0.1), ItemsArrivedLate("eu", 0)])
def test_what_happens_all_the_time_is_not_told(event: Event) -> None:
    """A working worker is silent."""
    assert line_of(event) is None


@given(st.integers(1, 100_000))
def test_repeated_errors_are_sampled(times: int) -> None:
    """Thirty thousand failures are a dozen lines, and the last ones say how many there were."""
    sampler, line = Sampler(), Line("poll failed", "eu", "down")

    told = [text for text in (sampler.admit(line) for _ in range(min(times, 3000))) if text is not None]

    assert len(told) <= 3 + 9
    assert told[:3] == ["down"] * min(times, 3)
    assert all("times by now" in text for text in told[3:])


def test_change_of_a_breaker_starts_the_sampling_anew_for_its_server() -> None:
    """After a recovery the next failure is news again, and other servers are counted apart."""
    sampler, eu, us = Sampler(first=1), Line("poll failed", "eu", "down"), Line("poll failed", "us", "down")
    assert [sampler.admit(eu), sampler.admit(eu), sampler.admit(us), sampler.admit(us)] == ["down", None, "down", None]

    assert sampler.admit(Line("breaker", "eu", "closed")) == "closed"

    assert [sampler.admit(eu), sampler.admit(us)] == ["down", None]


@pytest.mark.parametrize(("level", "kinds"), [(0, 1), (1, 2), (2, 3)])
def test_level_decides_how_much_is_said(level: int, kinds: int) -> None:
    """Quiet says what matters, verbose says everything."""
    stream = io.StringIO()
    printer = Printer(level=level, stream=stream)

    printer.hear(HandlerFailed("eu", DOWN))
    printer.hear(PollFailed("eu", DOWN))
    printer.hear(PollOverdue("eu", 1))

    assert len(stream.getvalue().splitlines()) == kinds


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
