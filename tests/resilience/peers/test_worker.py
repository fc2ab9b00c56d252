"""Defects of a first draft of a worker for several servers, in ours, over sockets; docs/explanation/peers.md."""

import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_kit import quick, until
from hearing import GUARD, Heard
from http_peers import Peer

from conductor_adapter import Credentials, InProgress, ServerSettings, WorkerRunner, task_context, worker
from conductor_adapter.dev_server import DevServer
from resilience import PollFailed


class Silent(Peer):
    """A server that takes every call and answers none."""

    def _act(self, _: object) -> Callable[[object, object], bool]:
        return lambda *_: self.do_silent()


TRANSPORTS = pytest.mark.parametrize("transport", ["curl", "requests"])


@TRANSPORTS
def test_two_servers_with_the_same_task_ids_get_their_own_results(tmp_path: Path, transport: str) -> None:
    """Servers that were restored from one backup share their ids: where a result belongs is not looked up by id."""
    with DevServer(state=tmp_path / "eu.db") as server:
        runs = [server.start_task("who", {"number": number}) for number in range(8)]
    shutil.copy(tmp_path / "eu.db", tmp_path / "us.db")

    @worker("who", threads=4)
    def who(number: int) -> dict[str, object]:
        return {"server": task_context().server, "number": number}

    with DevServer(name="eu", state=tmp_path / "eu.db") as eu, DevServer(name="us", state=tmp_path / "us.db") as us:
        with WorkerRunner([who], [eu.settings, us.settings], config=quick(transport)) as runner:
            for number, run in enumerate(runs):
                for server in (eu, us):
                    assert server.wait(run, GUARD).output == {"server": server.name, "number": number}
            assert runner.stop().clean
        assert [server.counts()["updates"] for server in (eu, us)] == [8, 8]


@TRANSPORTS
def test_each_result_of_a_task_that_has_several_goes_home(transport: str) -> None:
    """A task that reports its progress, is handed out again and then completes: no report strays to another server."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    @worker("steps", threads=2)
    def steps() -> object:
        with lock:
            seen[task_context().task.task_id] += 1
            rounds = seen[task_context().task.task_id]
        return InProgress(callback_after=0, output={"rounds": rounds}) if rounds < 3 else {"rounds": rounds}

    with DevServer(name="eu") as eu, DevServer(name="us") as us:
        runs = [(server, server.start_task("steps")) for server in (eu, us) for _ in range(3)]
        with WorkerRunner([steps], [eu.settings, us.settings], config=quick(transport)):
            for server, run in runs:
                assert server.wait(run, GUARD).output == {"rounds": 3}
        assert [server.counts()["not found"] for server in (eu, us)] == [0, 0]


def test_task_that_is_handed_out_twice_is_reported_twice_to_its_own_server() -> None:
    """A server that timed a task out hands it out again while the first run goes on: both results go to that server."""
    first, release = threading.Event(), threading.Event()
    runs: Counter[str] = Counter()

    @worker("slow", threads=2, heartbeats=False)
    def slow() -> dict[str, object]:
        runs[task_context().server] += 1
        if runs["us"] == 1:
            first.set()
            assert release.wait(GUARD)
        return {"run": 1}

    with DevServer(name="eu") as eu, DevServer(name="us", sweep_every=0.05) as us:
        run = us.start_task("slow", responseTimeoutSeconds=1, retryCount=3, retryDelaySeconds=0)
        with WorkerRunner([slow], [eu.settings, us.settings], config=quick()):
            assert first.wait(GUARD)
            assert us.wait(run, GUARD).status == "COMPLETED"
            release.set()
            until(lambda: us.counts()["updates"] == 2, lambda: f"two results: {us.counts()}")
        assert (runs, eu.counts()["updates"], eu.counts()["not found"]) == ({"us": 2}, 0, 0)


def test_making_a_runner_calls_nobody() -> None:
    """Neither a token nor anything else is fetched before the start, so a dead server cannot delay the others there."""

    @worker("t")
    def function() -> None: ...

    with Peer() as peer:
        locked = ServerSettings("locked", peer.url, auth=Credentials("k", "s"))
        runner = WorkerRunner([function], [locked, ServerSettings("dead", "http://127.0.0.1:1/api")])
        runner.stop()

        assert (peer.connections, peer.requests) == (0, [])


@TRANSPORTS
def test_server_that_hangs_from_the_start_does_not_delay_the_first_task_of_another(transport: str) -> None:
    """Its token call and its first poll hang; the other server's tasks run meanwhile."""

    @worker("t")
    def function() -> dict[str, object]:
        return {"done": True}

    with Silent() as hung, DevServer(name="us") as us:
        servers = [ServerSettings("hung", hung.url, auth=Credentials("k", "s")), us.settings]
        run = us.start_task("t")
        with WorkerRunner([function], servers, config=quick(transport, grace=0.2)):
            assert us.wait(run, GUARD).output == {"done": True}
            until(lambda: hung.requests, "the other one was asked too")


def test_failure_of_the_only_server_is_told() -> None:
    """With one server as with many: a failed poll is an event that names the server and the error."""
    heard = Heard()

    @worker("t")
    def function() -> None: ...

    servers = [ServerSettings("only", "http://127.0.0.1:1/api")]
    with WorkerRunner([function], servers, config=quick(grace=0.0), on_event=heard):
        failed = heard.wait_for(PollFailed, source="only")

    assert "only" in str(failed.error)  # type: ignore[union-attr]
