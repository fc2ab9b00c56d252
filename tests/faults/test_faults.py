"""Faults of servers, end to end: from the start, while work is in flight, when they end, and while a worker stops.

Real servers as processes, several of them ill in different ways beside one that is well; real workers over both
transports, in this process and as processes of their own; and what the servers know at the end.
"""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from fault_kit import Case, heal, nap, quick, running, until
from hearing import GUARD

from conductor_adapter.dev_server import DevServerProcess

Fleet = list[DevServerProcess]
Act = Callable[[DevServerProcess], None]


@attrs.frozen
class Fault:
    """What befalls a server, and how it ends."""

    begin: Act
    end: Act = lambda server: server.faults()


def switched(**faults: object) -> Fault:
    """A fault that the server can play by itself."""
    return Fault(lambda server: server.faults(**faults))


FAULTS = {
    "slow": switched(latency=1.0),
    "hung": switched(hang=True),
    "swallowing": switched(swallow=True),
    "refusing": switched(refuse=True),
    "unavailable": switched(error=503),
    "asking for a pause": switched(error=503, retry_after=1),
    "answering garbage": switched(garbage=True),
    "killed": Fault(DevServerProcess.kill, DevServerProcess.restart),
    "frozen": Fault(DevServerProcess.freeze, DevServerProcess.thaw),
}
GROUPS = [
    ("slow", "hung", "killed"),
    ("swallowing", "refusing", "frozen"),
    ("unavailable", "asking for a pause", "answering garbage"),
]


@pytest.fixture(scope="module")
def _fleet() -> Iterator[Fleet]:
    with running("well", "ill-1", "ill-2", "ill-3") as servers:
        yield servers


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    """Four servers as processes, the first of which stays well; whatever a test does to them is undone after it."""
    yield _fleet
    heal(_fleet)


@pytest.mark.parametrize("names", GROUPS, ids=" + ".join)
def test_faults_cost_neither_tasks_nor_the_healthy_server(fleet: Fleet, names: tuple[str, ...]) -> None:
    """The healthy server is served throughout, each sick one soon after its fault ends, and nothing is lost."""
    well, *ill = fleet
    with Case(fleet) as case:
        made = [case.worker(_config(transport, names), act=nap(0.02)) for transport in ("curl", "requests")]
        types = [task_type for task_type, _ in made]
        for server in ill:
            case.give(server, types, 12)
        case.give(well, types, 40)

        _begin(ill, names)
        for _, runner in made:
            case.start(runner)
        case.wait_done(well, types)
        _end_and_see_recovery(case, ill, names, types)

        for server in ill:
            case.give(server, types, 60)
        case.give(well, types, 30)
        for server in ill:
            case.wait_executed(server, types, 18)
        _begin(ill, names)
        case.give(well, types, 30)
        case.wait_done(well, types)
        _end_and_see_recovery(case, ill, names, types)

        for server in fleet:
            case.wait_done(server, types)
        assert [runner.stop().clean for _, runner in made] == [True, True]
        case.check()


def _config(transport, names):
    if "slow" in names:
        return quick(transport, poll={"poll_timeout": 2.5}, relay={"send_timeout": 3.0})
    return quick(transport)


def _begin(ill, names):
    for server, name in zip(ill, names, strict=True):
        FAULTS[name].begin(server)


def _end_and_see_recovery(case, ill, names, types):
    for server, name in zip(ill, names, strict=True):
        before = max(case.accounts[task_type].of(server) for task_type in types)
        FAULTS[name].end(server)
        case.wait_executed(server, types, before + 1)


# Worker processes.

PROGRAM = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from fault_kit import quick
from conductor_adapter import ServerSettings, Task, run_workers, task_context, worker

log = open(sys.argv[3], "a", buffering=1)

@worker(sys.argv[2], threads=4)
def work(task: Task) -> None:
    log.write(f"{task_context().server} {task.workflow_id} {task.reference_name}\\n")
    threading.Event().wait(0.1)

servers = [ServerSettings(name, url) for name, url in (text.split("=", 1) for text in sys.argv[5:])]
report = run_workers([work], servers, config=quick(sys.argv[4], grace=1.5))
balanced = all(books.balanced and books.polled for books in report.books.values())
print(report.unfinished, report.left, balanced, flush=True)
"""


class WorkerProcess:
    """A worker as a process; ``log`` has a line for every execution."""

    def __init__(self, case: Case, folder: Path, transport: str, task_type: str) -> None:
        self.log = folder / "log"
        self.log.touch()
        (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
        urls = [f"{server.name}={server.url}" for server in case.servers]
        self._names = [server.name for server in case.servers]
        arguments = [str(Path(__file__).parents[1] / "support"), task_type, str(self.log), transport, *urls]
        self.process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, str(folder / "program.py"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": ""},
        )
        case.stack.enter_context(self.process)
        case.stack.callback(self.process.kill)

    def executions(self) -> list[tuple[str, ...]]:
        """What it has executed so far: server, workflow, reference."""
        return [tuple(line.split()) for line in self.log.read_text().splitlines()]

    def wait_executed(self, count: int) -> None:
        """Wait until so many tasks of each server were executed."""
        until(
            lambda: all(sum(line[0] == name for line in self.executions()) >= count for name in self._names),
            lambda: f"{count} of each in {self.executions()}, exit {self.process.poll()}",
        )


@pytest.mark.parametrize(
    ("names", "transport"),
    [
        (("slow", "hung", "killed"), "curl"),
        (("swallowing", "unavailable", "frozen"), "requests"),
    ],
    ids=str,
)
def test_sigterm_during_faults_ends_in_time_and_loses_nothing(
    fleet: Fleet, tmp_path: Path, names: tuple[str, ...], transport: str
) -> None:
    """Running tasks finish, un-started ones go back at once to the healthy server, and the process ends in time."""
    well, *ill = fleet
    with Case(fleet) as case:
        task_type, successor = case.worker(quick("curl"))
        for server in ill:
            case.give(server, [task_type], 40)
        case.give(well, [task_type], 400, responseTimeoutSeconds=600)
        process = WorkerProcess(case, tmp_path, transport, task_type)
        process.wait_executed(3)
        _begin(ill, names)
        threading.Event().wait(0.3)
        process.process.send_signal(signal.SIGTERM)

        out, err = process.process.communicate(timeout=GUARD)

        assert process.process.returncode == 0, err
        assert out.split()[0] == "0", "a running task did not finish"
        assert out.split()[2] == "True", "the books do not balance"
        assert "Traceback" not in err, err
        for server, name in zip(ill, names, strict=True):
            FAULTS[name].end(server)
        case.accounts[task_type].executions.update(process.executions())
        case.start(successor)
        for server in fleet:
            case.wait_done(server, [task_type])
        case.check()


def test_tasks_of_a_killed_worker_are_run_by_another(fleet: Fleet, tmp_path: Path) -> None:
    """After SIGKILL the servers hand out again what the dead worker had, once its response timeout is over."""
    with Case(fleet) as case:
        task_type, successor = case.worker(quick("curl"))
        for server in fleet:
            case.give(server, [task_type], 40)
        process = WorkerProcess(case, tmp_path, "curl", task_type)
        process.wait_executed(3)
        case.start(successor)
        process.process.kill()
        process.process.wait(GUARD)
        case.accounts[task_type].executions.update(process.executions())
        for server in fleet:
            case.wait_done(server, [task_type])
        case.check()
