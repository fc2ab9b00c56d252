"""One worker on two real servers: both drained, a frozen one costs nobody anything, results go home only."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import attrs
import pytest
from attempts import attempts
from harness import (
    NAMES,
    Job,
    check_books,
    check_nothing_lost,
    check_sent_home,
    check_work,
    drained,
    wait_until,
)
from servers import RealServers
from worker_process import WorkerProcess

pytestmark = pytest.mark.real

Running = Callable[[Job, RealServers], AbstractContextManager[None]]


@contextlib.contextmanager
def in_process(job: Job, servers: RealServers) -> Iterator[None]:
    """The worker inside this process."""
    from conductor_adapter.cli.targets import load_target  # noqa: PLC0415 - likewise
    from conductor_adapter.running import WorkerRunner  # noqa: PLC0415 - collected without the real marker too
    from conductor_adapter.settings.server_settings import ServerSettings  # noqa: PLC0415 - likewise

    settings = [ServerSettings(name, server.url) for name, server in zip(NAMES, servers, strict=True)]
    with WorkerRunner(load_target(job.file), servers=settings) as runner:
        yield
    check_books(job.executions(), {name: attrs.asdict(books) for name, books in runner.books().items()})


@contextlib.contextmanager
def by_command(job: Job, servers: RealServers) -> Iterator[None]:
    """The worker as a user runs it; SIGTERM ends it and it must end cleanly."""
    with WorkerProcess(job, dict(zip(NAMES, servers, strict=True))) as worker:
        yield
        worker.stop()
    check_books(job.executions(), worker.books())


@pytest.fixture(params=[in_process, by_command])
def running(request: pytest.FixtureRequest) -> Running:
    """Both ways to run a worker."""
    return request.param


def test_both_backlogs_are_drained_and_results_go_home(real: RealServers, tmp_path: Path, running: Running) -> None:
    """Every task of both servers is completed by its own server's result, and no update is ever answered with 404."""
    warm_up(real, tmp_path / "before", running)
    job = Job.new(tmp_path, threads=4, seconds=0.01, steps=2)
    before = [len(server.accesses()) for server in real]
    started = [job.backlog(server, 60) for server in real]

    with running(job, real):
        drained(job, real)

    for server, name, workflows, since in zip(real, NAMES, started, before, strict=True):
        check_work(job, server, name, workflows)
        check_nothing_lost(server, workflows)
        check_sent_home(server, since)
    early = [e.server for e in job.executions()][: 2 * 60]
    assert min(early.count(name) for name in NAMES) > 0.1 * len(early), "one server was served before the other"


def test_frozen_server_costs_the_other_nothing_and_no_task(real: RealServers, tmp_path: Path, running: Running) -> None:
    """20 s of SIGSTOP: the other server is served as fast as both were before, and the frozen one loses no task.

    What its sockets held is taken in after it thaws: no task waits for its response timeout, which is far away.
    """
    job = Job.new(tmp_path, threads=4, seconds=0.1, steps=5)
    before = [len(server.accesses()) for server in real]
    started = [job.backlog(real[0], 220), job.backlog(real[1], 80)]

    with running(job, real):
        wait_until(lambda: len(job.executions()) > 40, 60, "the worker does not begin")
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() > begin + 5, 10, "time stands still")
        real.freeze(1)
        frozen = time.monotonic()
        wait_until(lambda: time.monotonic() > frozen + 20, 30, "time stands still")
        real.thaw(1)
        thawed = time.monotonic()
        drained(job, real)

    rate_before = rate(job, begin, frozen)
    rate_frozen = rate(job, frozen + 1, thawed, NAMES[0])
    assert rate_frozen > 0.7 * rate_before, (rate_frozen, rate_before)
    for server, name, workflows, since in zip(real, NAMES, started, before, strict=True):
        check_work(job, server, name, workflows)
        check_nothing_lost(server, workflows)
        check_sent_home(server, since)


def test_killed_server_comes_back_and_is_drained(real: RealServers, tmp_path: Path, running: Running) -> None:
    """SIGKILL and a restart, twice: the other one is drained meanwhile, what was in flight is delivered or retried."""
    job = Job.new(tmp_path, threads=4, seconds=0.05, steps=2)
    started = [job.backlog(server, 80, responseTimeoutSeconds=5) for server in real]

    with running(job, real):
        wait_until(lambda: {e.server for e in job.executions()} == set(NAMES), 60, "the worker does not begin")
        real.kill(1)
        drained(job, [real[0]])
        real.restart(1)
        before = served(job, NAMES[1])
        wait_until(lambda: served(job, NAMES[1]) > before, 150, "the server that is back is not served")
        real.kill(1)
        real.restart(1)
        drained(job, real)

    for server, name, workflows in zip(real, NAMES, started, strict=True):
        check_work(job, server, name, workflows, crashed=server is real[1])
    check_nothing_lost(real[0], started[0])


def test_long_tasks_are_run_once_beside_a_frozen_server(
    real: RealServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 s of work with a response timeout of 2 s, looked at all the time: heartbeats keep what runs on the other one.

    Those of the frozen one hang: its workflows end by the late results or other attempts, each of which ran once.
    """
    monkeypatch.setattr("resilience.leases.FIRST_AT", 0.2)  # of 2 s: a server on a busy machine may need a second
    job = Job.new(tmp_path, threads=8, seconds=8.0)
    before = len(real[0].accesses())
    kept, frozen = (job.backlog(server, 4, responseTimeoutSeconds=2, retryDelaySeconds=0) for server in real)

    with in_process(job, real):
        wait_until(lambda: len(job.executions()) == 8, 60, "the worker does not begin")
        real.freeze(1)

        def ended(index: int, workflows: list[str]) -> bool:
            for workflow_id in workflows:
                real[index].client.decide(workflow_id)
            return job.left([real[index]]) == 0

        wait_until(lambda: ended(0, kept), 60, "the long tasks do not end")
        real.thaw(1)
        wait_until(lambda: ended(1, frozen), 120, "the frozen server's tasks do not end")

    check_work(job, real[0], NAMES[0], kept)
    check_nothing_lost(real[0], kept)
    check_sent_home(real[0], before)
    assert len([e for e in job.executions() if e.server == NAMES[0]]) == 4
    # This server writes a task back as the heartbeat found it: one that it handles beside the result undoes that one.
    known = {attempt.task_id for attempt in attempts(real[1], NAMES[1], frozen)}
    ran = [execution.task_id for execution in job.executions() if execution.server == NAMES[1]]
    assert len(ran) == len(set(ran))
    assert set(ran) <= known


def test_without_heartbeats_a_long_task_runs_again(real: RealServers, tmp_path: Path) -> None:
    """So it was the heartbeats that kept the others."""
    job = Job.new(tmp_path, threads=2, seconds=8.0)
    job.file.write_text(job.file.read_text().replace("threads=2", "threads=2, heartbeats=False"))
    (workflow_id,) = job.backlog(real[0], 1, responseTimeoutSeconds=2, retryDelaySeconds=0)

    def ran_again() -> bool:
        real[0].client.decide(workflow_id)
        return len(job.executions()) == 2

    with in_process(job, real):
        wait_until(ran_again, 60, "the server still waits for the first attempt")


def warm_up(servers: RealServers, folder: Path, running: Running) -> None:
    """Let them do such work before it counts: one that just started needs seconds for its first answers."""
    folder.mkdir()
    job = Job.new(folder, threads=4, seconds=0.01, steps=2)
    for server in servers:
        job.backlog(server, 20)
    with running(job, servers):
        drained(job, servers)


def served(job: Job, server: str) -> int:
    """Executions of one server's tasks so far."""
    return sum(execution.server == server for execution in job.executions())


def rate(job: Job, begin: float, end: float, server: str | None = None) -> float:
    """Executions per second that began in this time, of one server or of all."""
    there = [e for e in job.executions() if begin <= e.at < end and server in {None, e.server}]
    return len(there) / (end - begin)
