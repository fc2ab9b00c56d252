"""The server as a process of its own: killed, frozen, started again; and the command that is that process."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress

import pytest
from dev_server_calls import fetch, result

from conductor_adapter.dev_server import DevServerProcess, Faults, serve
from conductor_adapter.dev_server.__main__ import main

POLL = "/api/tasks/poll/batch/t?workerid=me&count=10&timeout=0"


def test_everything_answered_survives_a_kill():
    """Whatever the server answered before SIGKILL is so afterwards: same port, same tasks, nothing twice."""
    with DevServerProcess() as server:
        server.start_tasks("t", 100, {"n": 1}, responseTimeoutSeconds=60)
        tasks = fetch(server.port, "GET", POLL)[1]
        for task in tasks[:5]:
            assert fetch(server.port, "POST", "/api/tasks", result(task))[0] == 200
        port, pid = server.port, server.pid
        server.kill()
        with pytest.raises(RuntimeError, match="not running"):
            server.runs()
        server.restart()
        assert (server.port, server.pid != pid) == (port, True)
        assert server.runs("t") == {"RUNNING": 95, "COMPLETED": 5, "FAILED": 0, "TIMED_OUT": 0, "TERMINATED": 0}
        for task in tasks[5:]:
            assert fetch(server.port, "POST", "/api/tasks", result(task))[0] == 200
        again = fetch(server.port, "GET", POLL)[1]
        assert not {task["taskId"] for task in again} & {task["taskId"] for task in tasks}
        assert set(server.handed_out(least=1).values()) == {1}
        assert server.counts()["updates"] == 5
        assert server.sweep() == 0


def test_a_kill_in_the_middle_of_calls_leaves_a_whole_state():
    """Killed while it answers a stream of updates: each run is either running or completed, none is lost."""
    with DevServerProcess() as server:
        server.start_tasks("t", 300)
        done = []
        timer = threading.Timer(0.15, os.kill, (server.pid, signal.SIGKILL))
        timer.start()
        with suppress(OSError, http.client.HTTPException):
            while True:
                for task in fetch(server.port, "GET", POLL)[1]:
                    fetch(server.port, "POST", "/api/tasks", result(task))
                    done.append(task["workflowInstanceId"])
        timer.join()
        server.restart()
        runs = server.runs("t")
        assert runs["RUNNING"] + runs["COMPLETED"] == 300
        assert len(done) <= runs["COMPLETED"] <= len(done) + 1


def test_a_frozen_server_accepts_and_answers_once_it_is_thawed():
    """SIGSTOP: the connection is made, nothing comes; SIGCONT: the answer comes."""
    with DevServerProcess() as server:
        server.freeze()
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(1)
            server.thaw()
            client.settimeout(20)
            assert client.recv(8) == b"HTTP/1.1"
        server.freeze()  # leaving the block stops a frozen process too


def test_a_refusing_process_is_reached_over_its_control_port(tmp_path):
    """The control path has a port of its own, so that refusing can be ended."""
    with DevServerProcess(state=tmp_path / "s.db", faults=Faults(refuse=True), seed={"t": 3}, name="eu") as server:
        assert server.runs("t")["RUNNING"] == 3
        with pytest.raises(ConnectionRefusedError):
            fetch(server.port, "GET", "/health")
        server.faults()
        assert fetch(server.port, "GET", "/health")[0] == 200
        server.faults(error=503)
        assert fetch(server.port, "GET", "/health")[0] == 503
        server.restart()
        assert fetch(server.port, "GET", "/health")[0] == 200
        assert server.runs("t")["RUNNING"] == 3
        assert (server.settings.name, server.settings.url) == ("eu", server.url)
        with pytest.raises(RuntimeError, match="responseTimeoutSeconds"):
            server.start_tasks("t", 1, responseTimeoutSeconds=0)
        with pytest.raises(RuntimeError, match="already running"):
            server.start()
    assert (tmp_path / "s.db").exists()


def test_a_process_that_does_not_start_says_why():
    """The error is the line of the process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = DevServerProcess(port=taken.getsockname()[1])
        with pytest.raises(RuntimeError, match="is in use"):
            server.start()
        server.stop()


def test_the_process_ends_with_its_parent():
    """Standard input ends when the parent does, however it does."""
    command = [sys.executable, "-m", "conductor_adapter.dev_server", "--with-parent", "--port", "0"]
    with subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline().startswith(b"dev-server ready: http://127.0.0.1:")
        child.stdin.close()
        try:
            assert child.wait(60) == 0
        finally:
            child.kill()


def stop_when_ready(lines):
    """A ``say`` that sends this process the signal a service manager would."""

    def say(line):
        lines.append(line)
        os.kill(os.getpid(), signal.SIGTERM)

    return say


def test_serving_ends_cleanly_on_sigterm(tmp_path):
    """One line when ready, exit 0; types that the state knows already are not seeded again."""
    lines = []
    for _ in range(2):
        status = serve(0, state=tmp_path / "s.db", seed={"t": 4}, faults="latency=0.1", say=stop_when_ready(lines))
        assert status == 0
    assert all(line.startswith("dev-server ready: http://127.0.0.1:") for line in lines)
    with DevServerProcess(state=tmp_path / "s.db") as server:
        assert server.runs("t")["RUNNING"] == 4


def test_a_port_in_use_is_one_line_and_exit_2(capsys):
    """The line says what to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert told == f"dev-server: port {port} on 127.0.0.1 is in use; choose another with --port, or --port 0 for any\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [({"faults": "hung"}, "unknown fault 'hung'"), ({"state": "/nowhere/at/all"}, "/nowhere/at/all")],
)
def test_what_cannot_be_served_is_one_line_and_exit_2(options, told, capsys):
    """No stack trace for a user's mistake."""
    assert serve(0, **options) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_seeds_are_written_type_and_number(capsys):
    """The command line explains itself."""
    with pytest.raises(SystemExit):
        main(["--seed-tasks", "t"])
    assert "greet=100" in capsys.readouterr().err


def test_a_state_file_belongs_to_one_server(tmp_path, capsys):
    """A second server on the same file does not start: the two would hand out each other's tasks."""
    with DevServerProcess(state=tmp_path / "s.db"):
        assert serve(0, state=tmp_path / "s.db") == 2
    assert "s.db: database is locked" in capsys.readouterr().err


def test_a_process_takes_every_fault_and_input() -> None:
    """Bytes, headers and text that is no JSON reach the child, at its start and later."""
    faults = Faults(body=b"\x1f\x8b", headers={"X-Odd": "a,b=c"}, only="polls")
    with DevServerProcess(faults=faults, payload_threshold=10) as server:
        with urllib.request.urlopen(f"{server.url}/tasks/poll/batch/t", timeout=60) as answer:  # noqa: S310 - our own
            assert (answer.read(), answer.headers["X-Odd"]) == (b"\x1f\x8b", "a,b=c")
        server.faults()
        server.start_tasks("t", 1, "[1")
        server.start_tasks("t", 1, {"n": 1_000_000_000})
        with urllib.request.urlopen(f"{server.url}/tasks/poll/batch/t?count=2", timeout=60) as answer:  # noqa: S310 - our own
            body = answer.read()
        assert b'"inputData": [1, ' in body
        assert body.count(b"externalInputPayloadStoragePath") == 1
