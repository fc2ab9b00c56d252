"""What the tests with a worker share: the worker's file, what it did, backlogs, and what the servers say of it."""

import collections
import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
from servers import RealServer

NAMES = ("eu", "us")  # of server 0 and 1, as the worker knows them
WORKER = '''\
"""Notes every execution as one line of a file, then works for a while."""
import json, os, time
from conductor_adapter.tasks import Task
from conductor_adapter import task_context, worker

LOG = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@worker({task_type!r}, threads={threads})
def work(task: Task, number: int):
    row = [task_context().server, task.workflow_id, task.reference_name, task.task_id, time.monotonic()]
    os.write(LOG, (json.dumps(row) + "\\n").encode())
    time.sleep({seconds})
    return {{"number": number, "server": task_context().server}}
'''


@attrs.frozen
class Execution:
    """One run of the task function."""

    server: str
    workflow_id: str
    reference: str
    task_id: str
    at: float


@attrs.frozen
class Job:
    """A task type with a worker's file and a workflow of ``steps`` such tasks, all of one name."""

    name: str
    steps: int
    folder: Path

    @classmethod
    def new(cls, folder: Path, *, threads: int, seconds: float, steps: int = 1) -> "Job":
        """Write the worker's file; the task takes ``seconds`` of waiting."""
        job = cls(f"job_{uuid.uuid4().hex[:8]}", steps, folder)
        log = str(folder / "executions")
        job.file.write_text(WORKER.format(log=log, task_type=job.name, threads=threads, seconds=seconds))
        return job

    @property
    def file(self) -> Path:
        """The worker's file, for ``conductor-adapter run`` or ``load_target``."""
        return self.folder / f"{self.name}.py"

    def backlog(self, server: RealServer, workflows: int, **definition: object) -> list[str]:
        """Define the workflow on ``server`` and start ``workflows`` of it; their ids."""
        server.client.register(self.name, *[self.name] * self.steps, **definition)
        with ThreadPoolExecutor(4) as pool:
            batches = pool.map(lambda _: server.client.start(self.name), range(workflows))
            return [workflow_id for batch in batches for workflow_id in batch]

    def executions(self) -> list[Execution]:
        """What the worker ran so far, in order."""
        log = self.folder / "executions"
        return [Execution(*json.loads(row)) for row in log.read_text().splitlines()] if log.exists() else []

    def left(self, servers: Iterable[RealServer]) -> int:
        """Workflows that have not ended."""
        return sum(len(server.client.running(self.name)) for server in servers)


def wait_until(holds: Callable[[], object], timeout: float, what: str) -> None:
    """Look four times a second until it holds; ``timeout`` is a hang guard, not a promise."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"after {timeout} s: {what}"
        time.sleep(0.25)


def drained(job: Job, servers: Iterable[RealServer], timeout: float = 180.0) -> None:
    """Wait until no workflow of the job runs any more."""
    servers = list(servers)
    wait_until(lambda: job.left(servers) == 0, timeout, "workflows are still running")


def check_work(job: Job, server: RealServer, name: str, workflows: Iterable[str], *, crashed: bool = False) -> None:
    """Every workflow is completed by executions from its own server, none beyond the attempts that the server shows.

    A server that crashed may have handed one attempt out twice, between its writes: then its count of polls is shown.
    """
    ran = collections.Counter((e.workflow_id, e.reference) for e in job.executions() if e.server == name)
    for workflow_id in workflows:
        shown = server.client.workflow(workflow_id)
        assert shown["status"] == "COMPLETED", (workflow_id, shown["status"], shown.get("reasonForIncompletion"))
        attempts: collections.Counter[str] = collections.Counter()
        for task in shown["tasks"]:
            attempts[task["referenceTaskName"]] += max(1, task["pollCount"]) if crashed else 1
        assert len(attempts) == job.steps
        for reference, count in attempts.items():
            assert 1 <= ran.pop((workflow_id, reference), 0) <= count
        assert {task["outputData"]["server"] for task in shown["tasks"] if task["status"] == "COMPLETED"} == {name}
    assert not ran, f"{name}: executed what is not its own: {ran}"


def check_nothing_lost(server: RealServer, workflows: Iterable[str]) -> None:
    """No task had to be given up by the server and tried again."""
    for workflow_id in workflows:
        for task in server.client.workflow(workflow_id)["tasks"]:
            assert (task["status"], task["retryCount"]) == ("COMPLETED", 0), task


def check_books(executions: Iterable[Execution], books: Mapping[str, Mapping[str, int]]) -> None:
    """What a worker's books say, by server: what was polled is accounted for, and started as often as it ran.

    Nothing waits any more: every result, also of those before it, was taken or refused.
    """
    ran = collections.Counter(execution.server for execution in executions)
    for name, mine in books.items():
        places = ("finished", "given_back", "giving_back", "kept", "held", "unfinished")
        assert mine["polled"] == sum(mine[place] for place in places), (name, mine)
        assert mine["started"] == mine["finished"] == ran.pop(name, 0), (name, mine)
        assert mine["finished"] + mine["inherited"] == mine["updated"] + mine["dead"], (name, mine)
    assert not ran, f"executed, and not in the books: {ran}"


def check_sent_home(server: RealServer, since: int) -> None:
    """The server's own log, from entry ``since`` on, has results, and none that it answered with 404."""
    mine = server.accesses()[since:]
    updates = [a for a in mine if a.method == "POST" and a.path.startswith("/api/tasks")]
    assert updates
    astray = [a for a in mine if a.status == 404]
    assert astray == [], f"{len(astray)} of {len(mine)} answered with 404, e.g. {astray[:3]}"
