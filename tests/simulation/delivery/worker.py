"""A worker process: the real runner, on a virtual machine, that is killed, stopped and started again."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from conductor_adapter import (
    InProgress,
    RunnerConfig,
    ServerSettings,
    Task,
    WorkerRunner,
    task_context,
)
from conductor_adapter.declaring import WorkerSpec
from resilience.breaker import BreakerConfig
from resilience.delivery import RelayConfig
from resilience.events import DeadLettered, HandlerFailed
from resilience.polling import PollConfig

from .judge import Judge, Life
from .machine import Killed, Machine, Process
from .network import Line, Net
from .plan import Event, Schedule
from .server import TYPE

if TYPE_CHECKING:
    from conductor_adapter.running.lifecycle import StopReport

POLL = PollConfig(poll_wait=4.0, poll_timeout=6.0, give_up_after=12.0)
BREAKER = BreakerConfig(reset_timeout=2.0, max_reset_timeout=6.0, probe_timeout=10.0)
GRACE = 5.0
LATER = 1.0  # seconds after which a task that waits is handed out again
SETTINGS = {name: ServerSettings(name, f"http://{name}.example/api") for name in "abc"}


class Worker:
    """One place where a worker runs: at most one process at a time.

    Args:
        make_store: makes the relay's store, in a process that starts; None for the relay's own.
    """

    def __init__(self, number: int, schedule: Schedule, net: Net, make_store: Callable[[Life], Any] | None) -> None:
        self.number = number
        self.runner: WorkerRunner | None = None
        self.life: Life
        self.process: Process
        self.report: StopReport | None = None  # of a stop after which it does not start again
        self._schedule = schedule
        self._net = net
        self._machine: Machine = net.machine
        self._judge: Judge = net.judge
        self._make_store = make_store
        self._relay = RelayConfig(send_timeout=4.0, retry_maximum=2.0, max_backlog=schedule.backlog)
        self._waiting: dict[str, int] = {}
        self.start()

    @property
    def idle(self) -> bool:
        """Whether it has nothing left to deliver."""
        return self.runner is not None and not self.runner._relay.pending() and not self.life.executing

    def start(self) -> None:
        """Start a process."""
        lives = sum(life.name.startswith(f"w{self.number}.") for life in self._judge.lives)
        self.life = Life(f"w{self.number}.{lives}", self._schedule.capacity)
        self._judge.lives.append(self.life)
        self.process = Process(self._machine, self.life.name)
        self.process.spawn(self._main, "main")

    def suffer(self, event: Event) -> None:
        """An event happens to it."""
        if self.process.dead or self.life.stopped:
            return
        if event.kind == "kill":
            life = self.life
            self.process.doom = event.point, event.nth
            self.process.on_death.append(lambda: self._died(life, event.seconds))
        elif event.kind == "stop":
            self.process.spawn(lambda: self.stop(restart_after=event.seconds), "stop")
        elif event.kind == "freeze":
            self._machine.freeze(self.process, event.seconds)
        else:
            self._machine.skip(self.process, event.seconds)

    def spare(self) -> None:
        """No kill that was to come comes any more."""
        self.process.doom = None

    def stop(self, restart_after: float | None = None) -> None:
        """Stop politely."""
        if self.runner is None or self.life.stopped:
            return
        runner, self.runner = self.runner, None
        self.life.stopped = True
        report = runner.stop(GRACE)
        if restart_after is None:
            self.report = report
        else:
            self._machine.at(self._machine.now + restart_after, self.start)

    def _died(self, life: Life, down: float) -> None:
        life.killed = True
        self.runner = None
        self._machine.at(self._machine.now + down, self.start)

    def _main(self) -> None:
        life, schedule = self.life, self._schedule
        spec = WorkerSpec(task_type=TYPE, function=self._function(life), threads=schedule.capacity)
        config = RunnerConfig(
            worker_id=life.name,
            poll=POLL,
            breaker=BREAKER,
            relay=self._relay,
            grace=GRACE,
            transport=lambda settings: Line(self._net, life, settings.name, bounded=schedule.bounded),
        )
        servers = [SETTINGS[name] for name in self._net.servers]
        runner = WorkerRunner([spec], servers, config=config, on_event=partial(self._heard, self.process))
        runner.start()
        self.runner = runner

    def _function(self, life: Life) -> Callable[..., object]:
        def charge(task: Task) -> object:
            server, seconds, how = task_context().server, task.input["seconds"], task.input["how"]
            self._judge.starts(life, server, task.task_id)
            self._machine.park(seconds)
            number = self._judge.ends(life, server, task.task_id)
            if how == "fails" and task.retry_count == 0:
                raise ValueError(f"number {number}")
            if how == "waits" and not task.output:
                return InProgress(callback_after=LATER, output={"number": number})
            return {"number": number}

        return charge

    def _heard(self, process: Process, event: object) -> None:
        if process.dead:
            raise Killed
        if isinstance(event, DeadLettered):
            self._judge.dead_letter(event.destination, str(event.key))
        elif isinstance(event, HandlerFailed):
            self._machine.find(f"{process.name}: a unit failed: {event.error!r}")
