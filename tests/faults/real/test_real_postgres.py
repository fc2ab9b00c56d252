"""A worker on a real server whose database goes away under it, and whose large payloads are stored outside."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from attempts import Attempt, attempts, nudge
from harness import Job, check_books, wait_until
from postgres import PAYLOAD_KB, PostgresServer

pytestmark = pytest.mark.real

NAME = "eu"
THREADS = 8
SECONDS = 0.3  # that a task takes
WORKFLOWS = 150
BEGUN = 40  # executions before the database goes away
AFTER = 20.0  # seconds beyond the outage after which the server gives up a task whose result it never got
LOST = "lost with the database"
LARGE = "x" * 50 * 1024


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A running server on a Postgres, which is back after the test."""
    yield postgres_server
    postgres_server.bring_database_back()


@contextlib.contextmanager
def running(workers: Any, server: PostgresServer) -> Iterator[Any]:
    """A worker inside this process, of a file or of functions."""
    from conductor_adapter.cli.targets import load_target  # noqa: PLC0415 - likewise
    from conductor_adapter.running import WorkerRunner  # noqa: PLC0415 - collected without the real marker too
    from conductor_adapter.settings.server_settings import ServerSettings  # noqa: PLC0415 - likewise

    functions = load_target(workers) if isinstance(workers, Path) else workers
    with WorkerRunner(functions, servers=[ServerSettings(NAME, server.url)]) as runner:
        yield runner


@pytest.mark.parametrize("away", [5.0, 20.0])
def test_results_survive_a_database_that_is_away(postgres: PostgresServer, tmp_path: Path, away: float) -> None:
    """The server answers every result with a 500 "not retryable": nothing is given up, all complete.

    Every execution is explained: a task ran again only if its attempt was lost with the database.
    """
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s: {what}")  # noqa: T201 - for whoever runs the test with -s

    job = Job.new(tmp_path, threads=THREADS, seconds=SECONDS)
    workflows = job.backlog(postgres, WORKFLOWS, responseTimeoutSeconds=round(away + AFTER), retryDelaySeconds=0)
    tell(f"{WORKFLOWS} workflows wait")

    with running(job.file, postgres) as runner:

        def books() -> dict[str, int]:
            return attrs.asdict(runner.books()[NAME])

        def all_done() -> bool:
            assert books()["dead"] == 0, f"given up: {books()}"
            if time.monotonic() - job.executions()[-1].at > 2:
                nudge(job, postgres)
            return job.left([postgres]) == 0

        wait_until(lambda: len(job.executions()) >= BEGUN, 60, "the worker does not begin")
        postgres.take_database_away()
        gone_at = time.time()
        tell(f"the database is away after {len(job.executions())} executions")
        time.sleep(away)
        tell(f"the database comes back: {len(job.executions())} executions, {books()}")
        postgres.bring_database_back()
        wait_until(all_done, away + AFTER + 60, "workflows are still running")
        tell(f"all done: {books()}")

    assert books()["dead"] == 0
    check_books(job.executions(), {NAME: books()})
    known = attempts(postgres, NAME, workflows)
    ran = Counter(execution.task_id for execution in job.executions())
    in_vain = Counter(_reason(attempt, gone_at) for attempt in known if attempt.status != "COMPLETED")
    tell(f"{ran.total()} executions, {len(known)} attempts, in vain: {dict(in_vain)}")
    assert set(in_vain) <= {LOST}, in_vain
    assert len(known) == WORKFLOWS + in_vain.total()
    assert max(ran.values()) == 1, "an attempt ran twice"
    assert set(ran) <= {attempt.task_id for attempt in known}
    assert all(attempt.task_id in ran for attempt in known if attempt.status == "COMPLETED")


def _reason(attempt: Attempt, gone_at: float) -> str:
    """Why an attempt was in vain."""
    if attempt.status == "TIMED_OUT" and attempt.given_out <= gone_at:
        return LOST
    return f"unexplained: {attempt}"


def test_large_inputs_and_outputs_are_whole(postgres: PostgresServer, tmp_path: Path) -> None:
    """50 KB beside a number: the function gets both, and the workflow gets what it returned.

    The server stores both outside, and all tasks but the first come with the answer to the result before.
    """
    from conductor_adapter import worker  # noqa: PLC0415 - collected without the real marker too

    job = Job.new(tmp_path, threads=1, seconds=0.0)

    @worker(job.name, threads=1)
    def work(number: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"number": number}

    postgres.client.register(job.name, job.name)
    given = [{"amount": amount, "text": LARGE} for amount in range(7)]
    path = f"/workflow/{job.name}"
    workflows = [postgres.client.call("POST", path, {"number": number}).expect() for number in given]

    with running([work], postgres):
        wait_until(lambda: job.left([postgres]) == 0, 60, "workflows are still running")

    shown = [postgres.client.workflow(workflow_id) for workflow_id in workflows]
    got = [(one["status"], (one["output"].get("number") or {}).get("amount")) for one in shown]
    assert got == [("COMPLETED", amount) for amount in range(7)]
    assert [one["output"] for one in shown] == [{"number": number} for number in given]
    for one in shown:
        (task,) = one["tasks"]
        assert (task["inputData"], task["outputData"]) == ({}, {}), f"over {PAYLOAD_KB} KB, and not stored outside"
        assert task["externalInputPayloadStoragePath"]
        assert task["externalOutputPayloadStoragePath"]
