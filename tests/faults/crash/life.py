"""One life of a worker: it works on a server until it is killed, by itself at a given line or by the clock."""

import contextlib
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

import attrs

import resilience.delivery
from conductor_adapter import RunnerConfig, ServerSettings, Task, TaskResult, WorkerRunner
from conductor_adapter.functions.decorator import WorkerSpec
from conductor_adapter.running import links
from resilience import BreakerConfig, Outbox, PollConfig, RelayConfig

DELIVERY = Path(resilience.delivery.__file__).parent
TRACED = frozenset({*map(str, DELIVERY.rglob("*.py")), links.__file__})
NEVER = 10**9


@attrs.frozen(kw_only=True)
class Orders:
    """What a life is told.

    Attributes:
        url: its server's.
        task_type: what it polls for.
        outbox: the file of results that wait.
        notes: the file in which it notes what it started and what it handed over; it survives the process.
        line: it kills itself at this line of the delivery path, counted over all threads.
        opening: the lines are counted from before the outbox is opened.
        seconds: it kills itself after this time at the latest; 0: it goes on until SIGTERM, and stops cleanly.
    """

    url: str
    task_type: str
    outbox: str
    notes: str
    line: int = NEVER
    opening: bool = False
    seconds: float = 0.0


class Notes:
    """Lines that outlive the process: one write each, so that no kill can tear them."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words):
        """Note one line."""
        os.write(self._file, (" ".join(words) + "\n").encode())


def live(orders):
    """Work until killed."""
    notes = Notes(orders.notes)
    if orders.opening:
        _die_at_line(orders.line, notes)
    outbox = _NotingOutbox(orders.outbox, notes)
    config = _config(outbox)
    runner = WorkerRunner([_worker(orders, notes)], [ServerSettings("eu", orders.url)], config=config)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if orders.line < NEVER and not orders.opening:
        _die_at_line(orders.line, notes)
    with outbox, runner:
        notes.write("began", str(os.getpid()), "-")
        ended = stop.wait(orders.seconds or None)
        if not ended:
            _die()


def _worker(orders, notes):
    def work(task: Task) -> dict:
        nonce = uuid.uuid4().hex
        notes.write("started", task.task_id, nonce)
        return {"nonce": nonce}

    return WorkerSpec(task_type=orders.task_type, function=work, threads=3)


def _config(outbox):
    times = {"poll_wait": 0.05, "overdue_after": 0.1, "poll_timeout": 0.5, "give_up_after": 2.0}
    sends = {"inline_timeout": 0.1, "slow_after": 0.05, "send_timeout": 0.5, "retry_maximum": 0.1}
    return RunnerConfig(
        poll=PollConfig(**times),
        relay=RelayConfig(**sends),
        breaker=BreakerConfig(reset_timeout=0.1, max_reset_timeout=0.1),
        outbox=outbox,
    )


class _NotingOutbox(Outbox):
    """Notes every result once it answers for it: from then on nothing may lose it."""

    def __init__(self, path, notes):
        super().__init__(path, dump=TaskResult.to_json, load=TaskResult.from_json, claim_for=0.3)
        self._notes = notes

    def put(self, row):
        """See `Outbox`."""
        kept = super().put(row)
        self._notes.write("handed_over", row.key, row.payload.output["nonce"])
        return kept


def _die_at_line(line, notes):
    """Kill this process when its threads have run so many lines of the delivery path, and note where that was."""
    left = [line]

    def count(frame, event, _):
        if event == "line":
            left[0] -= 1
            if left[0] <= 0:
                notes.write("died", frame.f_code.co_filename, str(frame.f_lineno))
                _die()
        return count

    def trace(frame, _event, _argument):
        return count if frame.f_code.co_filename in TRACED else None

    threading.settrace(trace)
    sys.settrace(trace)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)
    with contextlib.suppress(InterruptedError):
        time.sleep(60)  # the signal is on its way
