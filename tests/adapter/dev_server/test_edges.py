"""Corners of the embedded server that only accidents of timing or of the system reach."""

import asyncio
import gc
import importlib
import json
import logging
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from types import SimpleNamespace

import attrs
import pytest

from conductor_adapter import WorkerRunner, worker
from conductor_adapter.dev_server import DevServer, DevServerProcess
from conductor_adapter.dev_server.definitions import Plan
from conductor_adapter.dev_server.listener import _drop
from conductor_adapter.dev_server.model import RunState, TaskState, Workflow
from conductor_adapter.dev_server.outcome import standing
from conductor_adapter.dev_server.waiting import Waiting
from conductor_adapter.dev_server.workflows import Rules, advance, begin, terminate


def test_dropping_a_connection_that_is_gone_is_no_error() -> None:
    """A client that left first is left alone."""
    assert _drop(SimpleNamespace(transport=None)).status == 200  # type: ignore[arg-type]


def test_waiting_for_an_unknown_run_says_so() -> None:
    """Whoever waits for a run that is not there is told that it has not ended."""
    assert "has not ended after 2 s" in standing(SimpleNamespace(run=lambda _: None), "r", 2.0)  # type: ignore[arg-type]


def test_a_server_that_stops_while_clients_connect_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was accepted at that very moment is closed like any other."""
    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)  # told of sockets that are collected while open

    for _ in range(40):
        _stop_while_clients_connect()
    gc.collect()

    assert not left


def _stop_while_clients_connect() -> None:
    came: list[socket.socket] = []
    stopped, first = threading.Event(), threading.Event()

    def connect() -> None:
        while not stopped.wait(0.0005):
            with suppress(OSError):
                came.append(socket.create_connection(("127.0.0.1", port), 0.2))
                first.set()

    with DevServer() as server:
        port = server.port
        client = threading.Thread(target=connect)
        client.start()
        assert first.wait(60)
    stopped.set()
    client.join()
    for connection in came:
        connection.close()


def test_half_a_character_in_a_log_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """JSON can carry one, and a result that does is no reason for a 500: a question mark stands for it."""
    caplog.set_level(logging.CRITICAL, "conductor_adapter")  # a report of this test must be UTF-8

    @worker("fails")
    def fails() -> None:
        raise RuntimeError("half \ud800 of it")

    with DevServer() as server, WorkerRunner([fails], servers=[server.settings]):
        run = server.start_task("fails", retryCount=0)
        assert server.wait(run, timeout=60).status == "FAILED"


def test_notified_waiter_whose_time_is_over_too_is_woken_once() -> None:
    """A notification and a timeout at the same moment are one wake-up."""

    async def both() -> None:
        waiting = Waiting()
        task = asyncio.create_task(waiting.wait("k", 0.0))
        await asyncio.sleep(0)
        waiting.notify("k")
        waiting.notify("k")
        await task
        first, second = (asyncio.create_task(waiting.wait("k", 60.0)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        waiting.notify("k")
        await second

    asyncio.run(both())


def test_ended_run_stays_as_it_is() -> None:
    """Deciding about a run that has ended changes nothing; terminating one cancels only what lives."""
    steps = [{"name": "t", "taskReferenceName": name} for name in ("one", "two")]
    plan = Plan.from_wire({"name": "w", "tasks": steps})
    rules = Rules({}, iter("abcdefgh").__next__)
    run = begin(Workflow(workflow_id="w", name="w", version=1, plan=1), plan, 0, rules)
    done = run.replace(attrs.evolve(run.tasks[-1], state=TaskState.COMPLETED, ended=1))
    second = advance(done, 1, rules)

    ended = terminate(second, "enough", 2)

    assert ended.workflow.state is RunState.TERMINATED
    assert [task.state for task in ended.tasks] == [TaskState.COMPLETED, TaskState.CANCELED]
    assert advance(ended, 3, rules) is ended


def test_status_of_a_run_leaves_out_a_correlation_that_it_has_not() -> None:
    """Like the real server's, fields without a value are not there."""
    with DevServer() as server:
        run = server.start_task("t")
        with urllib.request.urlopen(f"{server.url}/workflow/{run}/status", timeout=60) as answer:  # noqa: S310 - our own server
            status = json.load(answer)

    assert status == {"workflowId": run, "status": "RUNNING"}


def test_server_between_threads_is_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose loop is not there yet says that it is not running."""
    server = DevServer()
    monkeypatch.setattr(server, "_running", lambda: None)

    with pytest.raises(RuntimeError, match="running"):
        server.counts()


def test_input_that_goes_on_does_not_stop_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the end of standard input means that the parent has gone."""
    serve = importlib.import_module("conductor_adapter.dev_server.serve")
    monkeypatch.setattr(serve.os, "read", lambda *_: b"x")
    monkeypatch.setattr(serve.sys, "stdin", SimpleNamespace(fileno=lambda: 0))
    stop = asyncio.Event()

    serve._at_end(stop)

    assert not stop.is_set()


class Child:
    """A child process without output that does not end by itself."""

    stdout = None

    def __init__(self) -> None:
        self.killed = False

    def send_signal(self, _: int) -> None:
        """Hear a signal."""

    def terminate(self) -> None:
        """Ignore it."""

    def wait(self, timeout: float) -> int:
        """Take longer than that."""
        raise subprocess.TimeoutExpired("child", timeout)

    def kill(self) -> None:
        """End."""
        self.killed = True

    def communicate(self) -> tuple[bytes, bytes]:
        """Have said nothing."""
        return b"", b""


def test_process_that_does_not_stop_is_killed() -> None:
    """A child that ignores SIGTERM does not outlive `stop`."""
    server, child = DevServerProcess(), Child()
    server._child = child  # type: ignore[assignment]

    server.stop()

    assert child.killed


def test_process_without_output_is_refused() -> None:
    """Without its output nobody knows where the child listens."""
    server = DevServerProcess()
    with pytest.raises(RuntimeError, match="no standard output"):
        server._read_ready_line(Child())  # type: ignore[arg-type]
    server.stop()
