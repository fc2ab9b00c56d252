"""What a runner writes to Python's log, for those who listen to no events."""

import logging
import traceback

import pytest
from hearing import Heard

from conductor_adapter import (
    DevServer,
    NonRetryable,
    RunnerConfig,
    ServerSettings,
    Task,
    TaskFailed,
    TaskLeaseLost,
    TaskResult,
    TaskStatus,
    WorkerRunner,
    worker,
)
from conductor_adapter.running.log import LEASE_LOST, Log
from resilience import (
    AnswerTooLarge,
    BreakerChanged,
    BreakerConfig,
    BreakerState,
    HandlerFailed,
    MemoryStore,
    PollFailed,
)

DOWN = OSError("down")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of what was written."""
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "conductor_adapter"]


def test_server_that_is_left_alone_and_is_well_again_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Once each: not the probes between, which repeat for as long as a server is down."""
    caplog.set_level(logging.INFO)
    closed, opened, half_open = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
    log = Log()
    changes = [(closed, opened), (opened, half_open), (half_open, opened), (opened, half_open), (half_open, closed)]
    for before, after in changes:
        log.breaker_changed(BreakerChanged("eu", before, after, 1, error=DOWN, calls="polls"))

    assert lines(caplog) == [
        ("WARNING", "eu: polls are failing; the circuit breaker is open: down"),
        ("INFO", "eu: polls are working again"),
    ]


def test_failing_tasks_are_logged_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """The first is news at once; thirty thousand a day are not thirty thousand lines."""
    log = Log()
    for number in range(1, 1001):
        log.task_failed(TaskFailed("eu", "ship", f"t{number}", TaskStatus.FAILED, f"no {number}"))
    log.task_failed(TaskFailed("us", "ship", "t", TaskStatus.FAILED, "other"))

    told = lines(caplog)
    assert told[0] == ("WARNING", "eu: task t1 of type 'ship' failed: no 1")
    assert told[2] == ("WARNING", "eu: 4 tasks of type 'ship' have failed, most recently t4: no 4")
    assert len(told) == 10 + 1
    assert told[-1] == ("WARNING", "us: task t of type 'ship' failed: other")


def test_lost_leases_are_logged_ever_more_rarely_too(caplog: pytest.LogCaptureFixture) -> None:
    """On their own account: a failing task is another story."""
    log = Log()
    log.task_failed(TaskFailed("eu", "ship", "t", TaskStatus.FAILED, "no"))
    for number in range(4):
        log.lease_lost(TaskLeaseLost("eu", "ship", f"t{number}", DOWN))

    assert [text for _, text in lines(caplog)][1:] == [
        f"eu: task t0 of type 'ship' {LEASE_LOST}: down",
        "eu: 2 tasks of type 'ship' have outlived their response timeout, most recently t1: down",
        "eu: 4 tasks of type 'ship' have outlived their response timeout, most recently t3: down",
    ]


def test_answers_that_are_too_large_are_logged_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """Each of them costs tasks; the first says so at once."""
    log = Log()
    for _ in range(3):
        log.too_large(PollFailed("eu", AnswerTooLarge("67 MB")))

    assert lines(caplog) == [
        ("WARNING", "eu: an answer was too large: 67 MB"),
        ("WARNING", "eu: 2 answers were too large, the last: 67 MB"),
    ]


def test_runner_logs_what_is_wrong_with_its_servers_and_tasks(caplog: pytest.LogCaptureFixture) -> None:
    """Who only calls ``run_workers`` is not left without a word."""

    @worker("ship")
    def ship() -> None:
        raise ValueError("nobody lives there")

    heard = Heard()
    config = RunnerConfig(breaker=BreakerConfig(fail_max=1))
    with DevServer(name="eu") as eu:
        dead = ServerSettings("dead", "http://127.0.0.1:9/api")
        eu.start_task("ship", retryCount=0)
        with WorkerRunner([ship], [eu.settings, dead], config=config, on_event=heard):
            heard.wait_for(BreakerChanged, name="dead")
            failed = heard.wait_for(TaskFailed)

    text = "\n".join(line for _, line in lines(caplog))
    assert "dead: polls are failing; the circuit breaker is open: " in text
    assert f"eu: task {failed.task_id} of type 'ship' failed: ValueError: nobody lives there" in text


def test_every_failing_task_is_in_the_debug_log_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Who looks for one task finds it, and where in its code it failed; a task that only says so has no traceback."""
    caplog.set_level(logging.DEBUG, "conductor_adapter")
    log = Log()
    with pytest.raises(ValueError, match="no 3") as caught:
        fail(3)
    for number in range(3):
        log.task_failed(TaskFailed("eu", "ship", f"t{number}", TaskStatus.FAILED, "no 3", caught.value))
    log.task_failed(TaskFailed("eu", "ship", "t", TaskStatus.FAILED, "no"))

    details = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert [record.getMessage() for record in details] == [
        f"eu: task t{n} of type 'ship' failed" for n in ("0", "1", "2", "")
    ]
    assert "in fail\n" in caplog.text
    assert details[-1].exc_info is None


def fail(number: int) -> None:
    """A task function's inner part."""
    raise ValueError(f"no {number}")


@pytest.mark.parametrize("raised", [ValueError, NonRetryable, KeyboardInterrupt, SystemExit])
def test_event_of_a_failed_task_has_its_error_with_the_traceback_from_the_function_on(
    raised: type[BaseException],
) -> None:
    """What a listener needs to send it to where errors are collected; none of our frames is in it."""

    @worker("ship")
    def ship() -> None:
        raise raised("nobody lives there")

    heard = Heard()
    with DevServer(name="eu") as eu:
        eu.start_task("ship", retryCount=0)
        with WorkerRunner([ship], [eu.settings], on_event=heard):
            failed = heard.wait_for(TaskFailed)

    assert isinstance(failed.error, raised)
    assert str(failed.error) == "nobody lives there"
    assert [frame.name for frame in traceback.extract_tb(failed.error.__traceback__)] == ["ship"]


@pytest.mark.parametrize("arguments", [{}, {"address": "the moon"}])
def test_event_of_a_task_that_was_refused_has_an_error_without_our_frames(arguments: dict[str, str]) -> None:
    """Input that does not fit, and a value that is no JSON, are told as errors; a failed `TaskResult` is none."""

    @worker("ship")
    def ship(address: str) -> object:
        return {address}

    heard = Heard()
    with DevServer(name="eu") as eu:
        eu.start_task("ship", arguments, retryCount=0)
        with WorkerRunner([ship], [eu.settings], on_event=heard):
            failed = heard.wait_for(TaskFailed)

    assert failed.error is not None
    assert str(failed.error) in failed.reason
    assert failed.error.__traceback__ is None


def test_event_of_a_task_that_says_that_it_failed_has_no_error() -> None:
    """Nothing was raised."""

    @worker("ship")
    def ship() -> TaskResult:
        return TaskResult(status=TaskStatus.FAILED, reason="no")

    heard = Heard()
    with DevServer(name="eu") as eu:
        eu.start_task("ship", retryCount=0)
        with WorkerRunner([ship], [eu.settings], on_event=heard):
            failed = heard.wait_for(TaskFailed)

    assert (failed.reason, failed.error) == ("no", None)


class BrokenStore(MemoryStore):
    """A store that takes nothing."""

    def check(self, _: object) -> None:
        """Raise what has nothing to do with the payload."""
        raise ZeroDivisionError


def test_task_whose_result_could_not_be_sent_is_named() -> None:
    """The event knows nothing of tasks; which one it was stands in the error's notes."""
    seen: list[str] = []

    @worker("ship")
    def ship(task: Task) -> None:
        seen.append(task.task_id)

    heard = Heard()
    with DevServer(name="eu") as eu:
        eu.start_task("ship", retryCount=0)
        config = RunnerConfig(outbox=BrokenStore())
        with WorkerRunner([ship], [eu.settings], config=config, on_event=heard):
            failed = heard.wait_for(HandlerFailed)

    assert failed.error.__notes__ == [f"raised while the answer '{seen[0]}' was sent to 'eu'"]
