"""Servers and workers as processes of their own, and windows of time in which they are watched.

What a worker achieved is counted by the servers: the updates that they took. CPU is the processes' own accounting.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from conductor_adapter.dev_server import DevServerProcess

__all__ = [
    "OURS",
    "SDK",
    "TASK_TYPE",
    "Command",
    "Server",
    "SwiftServer",
    "Window",
    "WorkerProcess",
    "busy_note",
    "servers",
    "spread",
    "watch",
]

HERE = Path(__file__).parent
OURS = HERE / "worker_process.py"
SDK = HERE / "sdk_worker_process.py"
SWIFT = HERE / "swift_server.py"
TASK_TYPE = "bench"
FASTEST = 4000  # tasks a second; more than a worker can do here
WARM = 50  # tasks after which a worker runs
WARM_UP = 1.0
LONGEST_WARM_UP = 20.0
TOO_BUSY = 70.0  # % of a core; a server above that is what was measured


class Server(DevServerProcess):
    """A server that is kept backlogged."""

    _seeded = 0

    def fill(self, seconds, **fields):
        """Have more tasks wait than a worker does in ``seconds``; ``fields`` are their definition's."""
        missing = int(FASTEST * seconds) - (self._seeded - self.counts()["handed out"])
        if missing > 0:
            self.start_tasks(TASK_TYPE, missing, **fields)
            self._seeded += missing

    def cpu(self):
        """CPU seconds the process has used."""
        return cpu_of(self.pid)


class SwiftServer:
    """A server that always has tasks and costs little itself, for figures of a worker alone."""

    name = "swift"

    def __enter__(self):
        self._child = subprocess.Popen([sys.executable, str(SWIFT)], stdout=subprocess.PIPE, text=True)  # noqa: S603
        self.url = f"http://127.0.0.1:{int(self._child.stdout.readline())}/api"
        return self

    def __exit__(self, *_):
        self._child.kill()
        self._child.communicate()

    def cpu(self):
        """CPU seconds the process has used."""
        return cpu_of(self._child.pid)

    def counts(self):
        """How many ``updates`` it took."""
        with urllib.request.urlopen(f"{self.url}/counts") as answer:  # noqa: S310 - ours
            return json.load(answer)


class Command:
    """The command line at work on a server; it is killed at the end, as a `WorkerProcess` is."""

    def __init__(self, server, file, *, transport, threads=10):
        self._child = subprocess.Popen(  # noqa: S603 - our own command
            [
                *(sys.executable, "-m", "conductor_adapter", "run", str(file)),
                *("--server", f"{server.name}={server.url}", "--transport", transport),
                *("--threads", str(threads), "--outbox", "none"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._child.kill()
        self._child.wait()

    def usage(self):
        """``clock`` and ``cpu``."""
        return {"clock": time.monotonic(), "cpu": cpu_of(self._child.pid)}

    def rest(self, seconds):
        """Let it work; RuntimeError if it ended."""
        _let_run(self._child, seconds)

    def warm_up(self, server):
        """Wait until it works on ``server``, and a moment longer."""
        _warm_up(self, server)


def cpu_of(pid):
    """CPU seconds that a process has used; 0 where the system does not say (only Linux does)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _let_run(child, seconds):
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise RuntimeError(f"the worker ended with status {child.returncode}")


def _warm_up(worker, server):
    until = time.monotonic() + LONGEST_WARM_UP
    before = server.counts()["updates"]
    while server.counts()["updates"] < before + WARM:
        if time.monotonic() > until:
            raise RuntimeError(f"no task of {server.name!r} was done in {LONGEST_WARM_UP:g} s")
        worker.rest(0.05)
    worker.rest(WARM_UP)


@contextmanager
def servers(*names):
    """Servers of these names, each a process."""
    with ExitStack() as stack:
        yield [stack.enter_context(Server(name=name)) for name in names]


class WorkerProcess:
    """A worker on these servers, as a process; it is killed at the end, so that no window pays for a drain."""

    def __init__(self, chosen, *, program=OURS, **options):
        usual = {"threads": 10, "work": 0.01, "transport": "auto", "outbox": None}
        options = {"servers": {server.name: server.url for server in chosen}, **usual, **options}
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and program
            [sys.executable, str(program), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._child.kill()
        self._child.communicate()

    def usage(self):
        """What the process says of itself: ``clock``, ``cpu``, ``switches``, ``resident``, ``threads``; ours more."""
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return json.loads(self._child.stdout.readline())

    def rest(self, seconds):
        """Let it work; RuntimeError if it ended."""
        _let_run(self._child, seconds)

    def warm_up(self, server):
        """Wait until it works on ``server``, and a moment longer."""
        _warm_up(self, server)


@attrs.frozen
class Window:
    """What happened in one window of time.

    Attributes:
        rates: updates a second that each server took, by name.
        cpu: CPU seconds that the worker used in a second.
        busiest: % of a core that the busiest server used.
        usage: what the worker said of itself at the end.
    """

    rates: Mapping[str, float]
    cpu: float
    busiest: float
    usage: Mapping[str, float]

    @property
    def total(self):
        """Tasks a second from all servers."""
        return sum(self.rates.values())


def watch(worker, chosen, seconds):
    """Let ``worker`` run for ``seconds`` on the ``chosen`` servers and say what came of it."""
    before, told = [_look(server) for server in chosen], worker.usage()
    worker.rest(seconds)
    after, usage = [_look(server) for server in chosen], worker.usage()
    rates, loads = {}, []
    for server, (began, cpu, updates), (ended, cpu_then, updates_then) in zip(chosen, before, after, strict=True):
        rates[server.name] = (updates_then - updates) / (ended - began)
        loads.append(100 * (cpu_then - cpu) / (ended - began))
    used = (usage["cpu"] - told["cpu"]) / (usage["clock"] - told["clock"])
    return Window(rates, used, max(loads), usage)


def _look(server):
    """When, CPU seconds, updates; a busy server is slow to tell, so the count is from somewhere in between."""
    began = time.monotonic()
    cpu, updates = server.cpu(), server.counts()["updates"]
    return (began + time.monotonic()) / 2, cpu, updates


def spread(figures):
    """The least and the most of several figures, for a note."""
    if len(figures) == 1:
        return "one window only"
    return f"{min(figures):.3g} to {max(figures):.3g} in {len(figures)}"


def busy_note(windows):
    """How busy the servers were: above 70 % of a core they are part of what was measured."""
    busiest = statistics.median(window.busiest for window in windows)
    return f"servers {busiest:.0f} %" + (", TOO BUSY to tell" if busiest >= TOO_BUSY else "")
