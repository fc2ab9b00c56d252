"""Texts from outside: whatever is in them, a log and a terminal get lines that only say something."""

import logging
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import conductor_adapter
import resilience
from conductor_adapter import TaskFailed, TaskStatus
from conductor_adapter.cli.streams import put, say, say_error
from conductor_adapter.running.log import Log
from resilience import BreakerChanged, BreakerState, Destination, OutboxResumed, Relay
from resilience._texts import clean_record, cut, indented, one_line, printable
from resilience.events import notify

HOSTILE = "no\x1b[2J\a\r\nFAKE eu: all is well\u202e\u2066\x9b31m"
SOURCES = [
    file for package in (resilience, conductor_adapter) for file in Path(package.__file__ or "").parent.rglob("*.py")
]
NAMES = sorted({name for file in SOURCES for name in re.findall(r'getLogger\("([\w.]+)"\)', file.read_text())})
texts = st.text() | st.text(st.sampled_from("ab \t\r\n\x0b\x1b\x07\x85\u2028\u202e\u2067\ud800"))


@given(texts)
@example(HOSTILE)
def test_a_text_is_one_line_of_letters(text: str) -> None:
    """Nothing in it steers a terminal, ends the line or turns the direction; its columns stay where they are."""
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)
    assert one_line(text).isprintable()
    assert one_line(text).split() == printable(" ".join(text.split())).split()


@given(texts)
@example(HOSTILE)
def test_a_text_of_many_lines_stays_apart_from_the_lines_of_the_log(text: str) -> None:
    """Its line breaks are kept, and no line of it begins where those of the log do."""
    shown = indented(text).split("\n") if text else []

    assert len(shown) == len(text.splitlines())
    assert all(line == "" or (line.startswith("  ") and line.isprintable()) for line in shown)


@given(st.text(max_size=400), st.integers(110, 200), st.sampled_from([0, 10]))
def test_a_long_text_is_cut_and_says_so(text: str, longest: int, tail: int) -> None:
    """Never longer than it may be; a short one stays as it is, and so does one that was cut."""
    short = cut(text, longest, tail=tail)

    assert len(short) <= longest
    assert cut(short, longest, tail=tail) == short
    assert short == text or f"… (cut; {len(text):,} characters in all)" in short
    assert short[:10] == text[:10]
    assert short.endswith(text[len(text) - tail :])


@pytest.mark.parametrize("name", NAMES)
def test_every_logger_is_guarded(name: str) -> None:
    """A new logger that somebody adds is not forgotten."""
    assert clean_record in logging.getLogger(name).filters


class Nasty:
    """Something whose repr is as hostile as can be."""

    def __repr__(self) -> str:
        return HOSTILE

    def __call__(self, _: object) -> None:
        """Raise what is as hostile."""
        raise ValueError(HOSTILE)


def hostile_listener() -> None:
    """A listener that raises."""
    notify(Nasty(), OutboxResumed(HOSTILE))


def hostile_task() -> None:
    """A task whose text is its input's."""
    Log().task_failed(TaskFailed(HOSTILE, HOSTILE, HOSTILE, TaskStatus.FAILED, HOSTILE, ValueError(HOSTILE)))


def hostile_server() -> None:
    """A server whose error is what it likes."""
    Log().breaker_changed(
        BreakerChanged(HOSTILE, BreakerState.CLOSED, BreakerState.OPEN, 1, 1.0, OSError(HOSTILE), calls="polls")
    )


def hostile_destination() -> None:
    """A destination that fails like that, as the relay tells it."""

    def send(_result: object, _timeout: float) -> None:
        raise ValueError(HOSTILE)

    with Relay([Destination("eu", send)]) as relay:
        relay.deliver("eu", HOSTILE, 1)
        relay.close(0.0)


@pytest.mark.parametrize("what", [hostile_listener, hostile_task, hostile_server, hostile_destination])
def test_hostile_text_is_clean_in_the_log(what, capsys: pytest.CaptureFixture[str]) -> None:
    """As a program with an ordinary handler shows it: message and traceback."""
    root, handler = logging.getLogger(), logging.StreamHandler()
    root.addHandler(handler)
    before = root.level
    root.setLevel(logging.DEBUG)
    try:
        what()
    finally:
        root.setLevel(before)
        root.removeHandler(handler)

    shown = capsys.readouterr().err
    assert "no?[2J" in shown or r"no\x1b[2J" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
    assert not any(line.startswith("FAKE") for line in shown.split("\n"))


def record(message: object, *arguments: object) -> logging.LogRecord:
    """A record as a logger makes it."""
    return logging.LogRecord("resilience", logging.ERROR, __file__, 1, message, arguments, None)


def test_a_record_that_is_clean_stays_as_it_is() -> None:
    """Collectors that group by the unformatted message still can."""
    clean = record("%s fails: %d", "eu", 3)

    assert clean_record(clean)
    assert (clean.msg, clean.args) == ("%s fails: %d", ("eu", 3))


def test_megabytes_are_cut_in_the_log() -> None:
    """A message and a traceback, each with its own bound."""
    long = record("no: %s", "x" * 5_000_000)
    with pytest.raises(ValueError, match="yyy") as caught:
        int("y" * 5_000_000)
    long.exc_info = caught._excinfo

    assert clean_record(long)
    assert len(long.getMessage()) == 4000
    assert long.getMessage().endswith("… (cut; 5,000,004 characters in all)")
    assert long.exc_text is not None
    assert len(long.exc_text) < 20_000
    assert "  Traceback (most recent call last):\n" in long.exc_text


def test_a_record_that_cannot_be_formatted_is_left_to_logging() -> None:
    """It says what is wrong with it, as ever; whoever logged it goes on."""
    assert clean_record(record("%d", "no number"))


@pytest.mark.parametrize(("write", "stream"), [(put, "out"), (say, "out"), (say_error, "err")])
def test_hostile_text_is_clean_on_the_command_line(write, stream: str, capsys: pytest.CaptureFixture[str]) -> None:
    """File names and usage errors pass here."""
    write(HOSTILE)

    shown = getattr(capsys.readouterr(), stream)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert not any(line.startswith("FAKE") for line in shown.split("\n"))


def test_a_traceback_on_standard_error_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the line that it belongs to."""
    say_error("importing w.py failed:\nTraceback:\n\x1b[2J")

    assert capsys.readouterr().err == "conductor-adapter: importing w.py failed:\n  Traceback:\n  ?[2J\n"
