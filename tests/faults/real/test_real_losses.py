"""Servers and the worker itself die while work is in flight: nothing is lost, nothing is done twice unexplained."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import attrs
import pytest
from attempts import Attempt, attempts, nudge, unscheduled
from harness import Job, check_books, check_sent_home, wait_until
from servers import RealServer, RealServers
from worker_process import WorkerProcess

pytestmark = pytest.mark.real

HEALTHY, KILLED, FROZEN = "eu", "us", "asia"
THREADS = 40
SECONDS = 1.0  # that a task takes
WORKFLOWS = 200  # on each server
FREEZE = 20.0  # seconds
RESPONSE_TIMEOUT = 45  # seconds; longer than results wait: for the thaw, or until a dead worker's are another's
BACKLOG = {"workflows": WORKFLOWS, "responseTimeoutSeconds": RESPONSE_TIMEOUT}
BY_WORKER, BY_SERVER = "its worker was killed", "its server was killed"


@pytest.fixture
def three(real: RealServers) -> Iterator[dict[str, RealServer]]:
    """Three running servers, by name; the third for one test only."""
    real.start(3)
    yield dict(zip((HEALTHY, KILLED, FROZEN), real, strict=True))
    real.keep(2)


@attrs.frozen
class Case:
    """A job on servers, and the file of its results."""

    job: Job
    servers: Mapping[str, RealServer]
    outbox: Path
    began: float = attrs.field(factory=time.monotonic)

    def worker(self) -> WorkerProcess:
        """One more worker on the same file."""
        return WorkerProcess(self.job, self.servers, f"--outbox={self.outbox}")

    def waiting(self) -> dict[str, int]:
        """How many results wait in the file, by server; none was refused."""
        from conductor_adapter.running.outbox import open_outbox  # noqa: PLC0415 - collected without the marker too

        with open_outbox(self.outbox) as outbox:
            assert not outbox.dead_letters()
            return {stock.destination: stock.waiting for stock in outbox.stock() if stock.waiting}

    def waiting_tasks(self) -> set[str]:
        """Of which tasks they are."""
        with closing(sqlite3.connect(self.outbox)) as database:
            return {task for (task,) in database.execute("SELECT key FROM results WHERE reason IS NULL")}

    def served(self, server: str) -> int:
        """Executions of one server's tasks so far."""
        return sum(execution.server == server for execution in self.job.executions())

    def is_busy(self) -> bool:
        """Whether a task runs that began just now."""
        return self.job.executions()[-1].at > time.monotonic() - SECONDS / 2

    def all_done(self) -> bool:
        """Whether no workflow runs any more; once nothing else happens, servers are asked to look at their timeouts."""
        if self.job.left(self.servers.values()) == 0:
            return True
        if time.monotonic() - self.job.executions()[-1].at > 2:
            for server in self.servers.values():
                nudge(self.job, server)
        return False

    def tell(self, what: str) -> None:
        """One line for whoever runs the test with -s, or sees it fail."""
        print(f"{time.monotonic() - self.began:6.1f} s: {what}")  # noqa: T201 - what the test is read for


@attrs.frozen
class Dead:
    """The worker that was killed: what it left, and who it was."""

    worker: str
    ran: int
    tasks: set[str]


def test_d2_three_servers_and_the_worker_fail_and_every_workflow_completes(
    three: dict[str, RealServer], tmp_path: Path
) -> None:
    """A server frozen for 20 s, one killed, the worker killed while results wait: all is done, every repeat explained.

    The results that the killed worker left in the file are sent by the next one, and cost no second execution.
    """
    for folder in (tmp_path / "once", tmp_path / "again"):
        folder.mkdir()
        case = Case(Job.new(folder, threads=THREADS, seconds=SECONDS), three, folder / "outbox.db")
        since = {name: len(server.accesses()) for name, server in three.items()}
        with ThreadPoolExecutor(3) as pool:
            lots = pool.map(partial(case.job.backlog, **BACKLOG), three.values())
            workflows = dict(zip(three, lots, strict=True))
        case.tell(f"{WORKFLOWS} workflows wait on each of {len(three)} servers")

        dead, frozen = first_life(case)
        second, killed_at = second_life(case, frozen)
        if not (failed := [one for name in three for one in unscheduled(three[name], workflows[name])]):
            break
        case.tell(f"servers failed {failed} by themselves: this shows nothing, once more")

    known = [attempt for name in three for attempt in attempts(three[name], name, workflows[name])]
    check_executions(case, known, dead, killed_at)
    check_left(case, known, dead, second)
    for name, server in three.items():
        check_sent_home(server, since[name])


def first_life(case: Case) -> tuple[Dead, float]:
    """A worker on three servers until one is frozen, whose results wait, and it is killed; since when it is frozen."""
    with case.worker() as worker:
        wait_until(lambda: all(case.served(name) >= 10 for name in case.servers), 120, "the worker does not begin")
        case.servers[FROZEN].freeze()
        frozen = time.monotonic()
        wait_until(lambda: time.monotonic() > frozen + 3, 10, "time stands still")
        wait_until(lambda: FROZEN in case.waiting(), 60, "no result waits for the frozen server")
        wait_until(case.is_busy, 60, "the worker does nothing for the other two")
        worker.kill()
    dead = Dead(str(worker.pid), len(case.job.executions()), case.waiting_tasks())
    case.tell(f"the worker is killed after {dead.ran} executions; results in the outbox: {case.waiting()}")
    assert len(dead.tasks) == sum(case.waiting().values())
    return dead, frozen


def second_life(case: Case, frozen: float) -> tuple[WorkerProcess, float]:
    """The next worker, until all is done; a server is killed and restarted meanwhile, and since when the epoch."""
    with case.worker() as worker:
        before = case.served(KILLED)
        wait_until(lambda: case.served(KILLED) >= before + 10, 120, "the next worker does not begin")
        case.servers[KILLED].kill()
        killed_at = time.time()
        case.tell(f"a server is killed after {len(case.job.executions())} executions")
        case.servers[KILLED].launch()
        wait_until(lambda: time.monotonic() > frozen + FREEZE, FREEZE + 10, "time stands still")
        case.servers[FROZEN].thaw()
        case.tell("the frozen server thaws")
        wait_until(lambda: FROZEN not in case.waiting(), 120, "results still wait for the server that was frozen")
        case.tell("no result waits for it any more")
        case.servers[KILLED].wait_until_it_answers()
        case.tell("the killed server answers")
        wait_until(case.all_done, 300, "workflows are still running")
        wait_until(lambda: not case.waiting(), 60, "results still wait")
        case.tell("every workflow has ended, the outbox is empty")
        worker.stop()
    return worker, killed_at


def check_executions(case: Case, known: list[Attempt], dead: Dead, killed_at: float) -> None:
    """Every execution is one of an attempt that its server knows, and what was done in vain has a reason."""
    ran = Counter((execution.server, execution.task_id) for execution in case.job.executions())
    polls = {(attempt.server, attempt.task_id): attempt.polls for attempt in known}
    assert set(ran) <= set(polls)
    again = {which: times for which, times in ran.items() if times > 1}
    in_vain = [attempt for attempt in known if attempt.status != "COMPLETED"]
    vain = Counter(reason(attempt, dead, killed_at) for attempt in in_vain)
    tasks = WORKFLOWS * len(case.servers)
    case.tell(
        f"{tasks} tasks, {ran.total()} executions, {len(known)} attempts, in vain: {dict(vain)}, by server:"
        f" {dict(Counter(attempt.server for attempt in in_vain))}; attempts executed again: {len(again)}"
    )
    assert len(known) == tasks + vain.total()
    assert set(vain) <= {BY_WORKER, BY_SERVER}, vain
    # what its threads had, what results on their way would have brought back, what polls on their way had asked for
    assert max(vain.values(), default=0) <= 3 * THREADS
    for (server, task_id), times in again.items():
        assert server == KILLED, "only a server that forgets what it did hands an attempt out twice"
        assert times <= polls[server, task_id]


def check_left(case: Case, known: list[Attempt], dead: Dead, second: WorkerProcess) -> None:
    """What the killed worker left was sent by the next one, whose books balance, and nobody did it again."""
    books = second.books()
    check_books(case.job.executions()[dead.ran :], books)
    assert sum(mine["inherited"] for mine in books.values()) == len(dead.tasks)
    ran = Counter(execution.task_id for execution in case.job.executions())
    left = [attempt for attempt in known if attempt.task_id in dead.tasks]
    assert len(left) == len(dead.tasks)
    for attempt in left:
        assert ran[attempt.task_id] == 1
        assert attempt.status == "COMPLETED" or attempt.server == KILLED, attempt  # down for longer than the timeout


def reason(attempt: Attempt, dead: Dead, killed_at: float) -> str:
    """Why an attempt was in vain."""
    if attempt.status == "TIMED_OUT" and attempt.worker_id.endswith(f"-{dead.worker}"):
        return BY_WORKER
    if attempt.status == "TIMED_OUT" and attempt.server == KILLED and attempt.given_out <= killed_at:
        return BY_SERVER
    return f"unexplained: {attempt}"
