"""What a runner writes to Python's log, for those who listen to no events."""

import logging

import pytest
from hearing import Heard

from conductor_adapter import (
    DevServer,
    RunnerConfig,
    ServerSettings,
    TaskFailed,
    TaskLeaseLost,
    TaskStatus,
    WorkerRunner,
    worker,
)
from conductor_adapter.running.log import Log
from resilience import BreakerChanged, BreakerConfig, BreakerState

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
        ("WARNING", "eu: its polls fail, it is left alone for a while: down"),
        ("INFO", "eu: its polls work again"),
    ]


def test_failing_tasks_are_logged_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """The first is news at once; thirty thousand a day are not thirty thousand lines."""
    log = Log()
    for number in range(1, 1001):
        log.task_failed(TaskFailed("eu", "ship", f"t{number}", TaskStatus.FAILED, f"no {number}"))
    log.task_failed(TaskFailed("us", "ship", "t", TaskStatus.FAILED, "other"))

    told = lines(caplog)
    assert told[0] == ("WARNING", "eu: ship: a task failed: no 1")
    assert told[2] == ("WARNING", "eu: ship: 4 tasks have failed, the last: no 4")
    assert len(told) == 10 + 1
    assert told[-1] == ("WARNING", "us: ship: a task failed: other")


def test_lost_leases_are_logged_ever_more_rarely_too(caplog: pytest.LogCaptureFixture) -> None:
    """On their own account: a failing task is another story."""
    log = Log()
    log.task_failed(TaskFailed("eu", "ship", "t", TaskStatus.FAILED, "no"))
    for number in range(4):
        log.lease_lost(TaskLeaseLost("eu", "ship", f"t{number}", DOWN))

    assert [text for _, text in lines(caplog)][1:] == [
        "eu: ship: a task has outlived its response timeout and may be run again: no heartbeat came through: down",
        "eu: ship: 2 tasks have outlived their response timeout, the last: down",
        "eu: ship: 4 tasks have outlived their response timeout, the last: down",
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
            heard.wait_for(TaskFailed)

    text = "\n".join(line for _, line in lines(caplog))
    assert "dead: its polls fail, it is left alone for a while: " in text
    assert "eu: ship: a task failed: ValueError: nobody lives there" in text
