"""What the tests of faults share: workers that account for every execution, and servers that are made sick."""

import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import attrs
from hearing import GUARD, Heard

from conductor_adapter import Books, RunnerConfig, Task, WorkerRunner, task_context
from conductor_adapter.dev_server import DevServerProcess
from conductor_adapter.functions.decorator import WorkerSpec
from resilience import BreakerConfig, PollConfig, RelayConfig

RESET = 0.3  # seconds an open breaker stays open here, times 1 to 1.5
TICK = 0.02


def quick(transport="auto", *, poll=None, relay=None, **options):
    """The configuration of a worker with short times."""
    times = {"poll_wait": 0.1, "overdue_after": 0.1, "poll_timeout": 0.4, "give_up_after": 3.0, "max_hold": 1.0}
    sends = {"inline_timeout": 0.2, "slow_after": 0.1, "send_timeout": 1.0, "retry_maximum": 0.3}
    breaker = BreakerConfig(reset_timeout=RESET, max_reset_timeout=RESET, probe_timeout=2.0)
    return RunnerConfig(
        transport=transport,
        poll=PollConfig(**{**times, **(poll or {})}),
        relay=RelayConfig(**{**sends, **(relay or {})}),
        **{"grace": GUARD, "breaker": breaker, **options},
    )


def until(condition, what, timeout=GUARD):
    """Wait until ``condition()``; returns the seconds that took."""
    began, pause = time.monotonic(), threading.Event()
    while not condition():
        took = time.monotonic() - began
        assert took < timeout, f"after {took:.1f} s still not: {what() if callable(what) else what}"
        pause.wait(TICK)
    return time.monotonic() - began


@contextmanager
def running(*names):
    """Servers as processes, started side by side."""
    with ExitStack() as stack, ThreadPoolExecutor(len(names)) as pool:
        servers = [DevServerProcess(name=name) for name in names]
        for server in servers:
            stack.callback(server.stop)
        list(pool.map(DevServerProcess.start, servers))
        yield servers


def heal(servers):
    """Undo whatever was done to servers."""
    for server in servers:
        with suppress(OSError, RuntimeError):
            server.thaw()
            server.faults()
            continue
        server.restart()


def nap(seconds):
    """A task function that takes so long."""

    def act(_):
        threading.Event().wait(seconds)

    return act


class Account:
    """A task function that notes every execution, by server and step.

    Args:
        act: what a task does, given its input.
    """

    def __init__(self, act=None):
        self.executions = Counter()
        self.here = Counter()  # those of this process, by server
        self.running = self.most = 0
        self._act = act
        self._lock = threading.Lock()

    def run(self, task):
        """Run one task; the task function of a worker."""
        with self._lock:
            self.executions[task_context().server, task.workflow_id, task.reference_name] += 1
            self.here[task_context().server] += 1
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            return self._act(task) if self._act else {"done_by": "me"}
        finally:
            with self._lock:
                self.running -= 1

    def of(self, server):
        """How many executions there were of that server's tasks."""
        with self._lock:
            return sum(count for (name, _, _), count in self.executions.items() if name == server.name)


@attrs.define
class Case:
    """Workers of some task types on some servers, and their accounts: made, driven and closed by one test."""

    servers: list
    stack: ExitStack = attrs.field(factory=ExitStack)
    accounts: dict = attrs.field(factory=dict)
    runners: list = attrs.field(factory=list)
    heard: Heard = attrs.field(factory=Heard)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.stack.__exit__(*failure)

    def worker(self, config, *, threads=4, act=None, task_type=None, heartbeats=True):
        """A worker of a new task type (or that one) on all servers; returns the type and the runner."""
        spec = self.spec(threads=threads, act=act, task_type=task_type, heartbeats=heartbeats)
        return spec.task_type, self.runner(config, [spec])

    def spec(self, *, threads=4, act=None, task_type=None, heartbeats=True):
        """What a worker of a new task type (or that one) does."""
        task_type = task_type or f"t{uuid.uuid4().hex[:8]}"
        function = _function(self.accounts.setdefault(task_type, Account(act)))
        return WorkerSpec(task_type=task_type, function=function, threads=threads, heartbeats=heartbeats)

    def runner(self, config, specs):
        """A runner of such workers on all servers."""
        runner = WorkerRunner(specs, [server.settings for server in self.servers], config=config, on_event=self.heard)
        self.runners.append(runner)
        return runner

    def start(self, runner):
        """Start a runner, which is stopped at the end of the case."""
        self.stack.enter_context(runner)

    def give(self, server, task_types, count, input=None, **fields):  # noqa: A002 - Conductor's word
        """Start runs of each task type on a server: lost ones are back soon, and may be lost often."""
        for task_type in task_types:
            wanted = {"responseTimeoutSeconds": 1, "retryCount": 50, "retryDelaySeconds": 0, **fields}
            server.start_tasks(task_type, count, input, **wanted)

    def executed(self, server, task_types):
        """Executions of each of these task types so far on that server: the least of them."""
        return min(self.accounts[task_type].of(server) for task_type in task_types)

    def wait_executed(self, server, task_types, count, timeout=GUARD):
        """Wait until so many tasks of each type were executed on that server; returns the seconds that took."""
        return until(
            lambda: self.executed(server, task_types) >= count,
            lambda: f"{count} executions on {server.name}: {[self.accounts[t].of(server) for t in task_types]}",
            timeout,
        )

    def wait_done(self, server, task_types, timeout=GUARD):
        """Wait until every run of these types has completed on that server."""
        until(
            lambda: all(_unfinished(server, task_type) == 0 for task_type in task_types),
            lambda: f"all completed on {server.name}: {[server.runs(t) for t in task_types]}",
            timeout,
        )

    def check_books(self):
        """What the workers' books say is what the task functions noted, and no more than the servers gave out."""
        for server in self.servers:
            each = [runner.books()[server.name] for runner in self.runners]
            books = sum(each, Books())
            assert all(one.balanced for one in each), f"{server.name}: {each}"
            ran = sum(account.here[server.name] for account in self.accounts.values())
            assert books.started == ran, f"{server.name}: {ran} ran: {books}"
            results = books.updated + books.waiting + books.dead - books.inherited + books.passed
            assert books.finished <= results <= books.started + books.repeated, (
                f"{server.name}: {results} results: {books}"
            )
            given_out = sum(server.handed_out().values())
            assert books.polled <= given_out, f"{server.name} gave out {given_out}: {books}"

    def check(self):
        """The invariants, against what the servers know."""
        self.check_books()
        for server in self.servers:
            counts, attempts = server.counts(), server.handed_out()
            assert not counts["not found"], f"{server.name} was sent a result of another server: {counts}"
            for account in self.accounts.values():
                for (name, flow, reference), times in account.executions.items():
                    known = attempts.get((flow, reference), 0) if name == server.name else times
                    assert times <= known, f"{reference} of {flow} ran {times} times; {name} gave it out {known} times"
        for server in self.servers:
            for task_type in self.accounts:
                runs = server.runs(task_type)
                assert set(runs) >= {"COMPLETED"}
                assert runs["COMPLETED"] == sum(runs.values()), f"{server.name} lost runs of {task_type}: {runs}"


def _function(account):
    def run(task: Task) -> object:
        return account.run(task)

    return run


def _unfinished(server, task_type):
    runs = server.runs(task_type)
    return sum(runs.values()) - runs.get("COMPLETED", 0)
