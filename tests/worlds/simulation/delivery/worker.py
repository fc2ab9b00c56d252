"""A worker process: the real runner, on a virtual machine, that is killed, stopped and started again."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from conductor_adapter import (
    InProgress,
    RunnerConfig,
    ServerSettings,
    Task,
    TaskLeaseLost,
    TaskResult,
    WorkerRunner,
    task_context,
)
from conductor_adapter.functions.decorator import WorkerSpec
from resilience.breaker import BreakerConfig
from resilience.delivery import Outbox, Relay, RelayConfig
from resilience.events import DeadLettered, HandlerFailed
from resilience.polling import PollConfig, Tally

from .disk import Disk
from .judge import Judge, Life
from .machine import Killed, Machine, Process
from .network import Line, Net
from .noted import Noted, host_of
from .plan import Event, Schedule
from .server import TYPE

if TYPE_CHECKING:
    from conductor_adapter.running.lifecycle import StopReport

POLL = PollConfig(poll_wait=4.0, poll_timeout=6.0, give_up_after=12.0)
BREAKER = BreakerConfig(reset_timeout=2.0, max_reset_timeout=6.0, probe_timeout=10.0)
GRACE = 5.0
CLAIM = 6.0  # seconds
LATER = 1.0  # seconds after which a task that waits is handed out again
SETTINGS = {(name, host): ServerSettings(name, f"http://{host}.example/api") for name in "abc" for host in "abc"}
AGAIN = 0.1  # seconds between a stop for the sake of another configuration and the next start


class Worker:
    """One place where a worker runs: at most one process at a time.

    Args:
        disk: where the results that wait are written down; None keeps them in memory.
    """

    def __init__(self, number: int, schedule: Schedule, net: Net, disk: Disk | None) -> None:
        self.number = number
        self.runner: WorkerRunner | None = None
        self.life: Life
        self.process: Process
        self.report: StopReport | None = None  # of a stop after which it does not start again
        self._schedule = schedule
        self._net = net
        self._machine: Machine = net.machine
        self._judge: Judge = net.judge
        self._disk = disk
        self._relay = RelayConfig(send_timeout=4.0, retry_maximum=2.0, max_backlog=schedule.backlog)
        self._down = 0.0  # seconds from its death to its next start
        self._usual = {name: name for name in net.servers}  # which servers its configuration names how
        self._hosts = self._usual
        self.start()

    @property
    def idle(self) -> bool:
        """Whether it has nothing left to deliver."""
        return self.runner is not None and not self.runner.consumer.relay.pending() and not self.life.executing

    def start(self) -> None:
        """Start a process."""
        lives = sum(life.name.startswith(f"w{self.number}.") for life in self._judge.lives)
        self.life = Life(f"w{self.number}.{lives}", self._schedule.capacity, self._hosts)
        self._judge.lives.append(self.life)
        self.process = Process(self._machine, self.life.name)
        self.process.on_death.append(partial(self._died, self.life))
        self.process.spawn(self._main, "main")

    def suffer(self, event: Event) -> None:
        """An event happens to it."""
        if self.process.dead or self.life.stopped:
            return
        if event.kind == "kill":
            self.process.doom = event.point, event.nth
            self._down = event.seconds
        elif event.kind == "stop":
            self.process.spawn(lambda: self.stop(restart_after=event.seconds), "stop")
        elif event.kind in ("without", "swap"):
            self._machine.at(self._machine.now + event.seconds, lambda: self._configure(self._usual))
            self._configure(self._others(event.kind))
        elif event.kind == "freeze":
            self._machine.freeze(self.process, event.seconds)
        else:
            self._machine.skip(self.process, event.seconds)

    def _others(self, kind: str) -> dict[str, str]:
        """A configuration that lacks the first server, or in which all have changed places."""
        names = list(self._usual)
        if kind == "without":
            return {name: name for name in names[1:]} or self._usual
        return dict(zip(names, names[1:] + names[:1], strict=True))

    def _configure(self, hosts: dict[str, str]) -> None:
        """Use these from the next start on, which is soon if others are in use."""
        self._hosts = hosts
        if not (self.process.dead or self.life.stopped) and self.life.hosts != hosts:
            self.process.spawn(lambda: self.stop(restart_after=AGAIN), "stop")

    def spare(self) -> None:
        """No kill that was to come comes any more."""
        self.process.doom = None

    def stop(self, restart_after: float | None = None) -> None:
        """Stop politely."""
        if self.runner is None or self.life.stopped:
            return  # it has not begun, or somebody else stops it
        runner, self.runner = self.runner, None
        life, process = self.life, self.process
        life.stopped = True
        report = runner.stop(GRACE)
        if runner.config.outbox is not None:
            runner.config.outbox.close()
        self._judge.compare(life, self._total(runner))
        life.over = True
        self._machine.kill(process)  # its main thread ends, and the others with it
        if restart_after is None:
            self.report = report
        else:
            self._machine.at(self._machine.now + restart_after, self.start)

    def _died(self, life: Life) -> None:
        if life.over:
            return
        life.killed = life.over = True
        self.runner = None
        self._machine.at(self._machine.now + self._down, self.start)

    def _main(self) -> None:
        life, schedule = self.life, self._schedule
        spec = WorkerSpec(task_type=TYPE, function=self._function(life), threads=schedule.capacity)
        config = RunnerConfig(
            worker_id=life.name,
            poll=POLL,
            breaker=BREAKER,
            relay=self._relay,
            grace=GRACE,
            outbox=self._outbox(),
            transport=lambda settings: Line(self._net, life, host_of(settings.url), bounded=schedule.bounded),
        )
        servers = [SETTINGS[place] for place in life.hosts.items()]
        runner = WorkerRunner([spec], servers, config=config, on_event=partial(self._heard, self.process, life))
        self._listen(runner.consumer.relay)
        runner.start()
        self.runner = runner

    def _tally(self) -> Tally | None:
        return None if self.runner is None else self._total(self.runner)

    @staticmethod
    def _total(runner: WorkerRunner) -> Tally:
        items = [counts.items for counts in runner.consumer.counts().values()]
        names = [field.name for field in attrs.fields(Tally)]
        return Tally(**{name: sum(getattr(one, name) for one in items) for name in names})

    def _outbox(self) -> Any:
        if self._disk is None:
            return None
        outbox = Outbox(self._disk.path, dump=TaskResult.to_json, load=TaskResult.from_json, claim_for=CLAIM)
        return Noted(outbox, self._judge)

    def _listen(self, relay: Relay) -> None:
        """Note what the relay has taken."""
        deliver, process = relay.deliver, self.process

        def told(destination: str, key: str, payload: TaskResult, **how: Any) -> bool:
            taken = deliver(destination, key, payload, **how)
            if not process.dead:
                self._judge.handed_over(payload)
            return taken

        relay.deliver = told  # type: ignore[method-assign]

    def _function(self, life: Life) -> Callable[..., object]:
        def charge(task: Task) -> object:
            server, seconds, how = life.hosts[task_context().server], task.input["seconds"], task.input["how"]
            self._judge.starts(life, server, task.task_id)
            self._judge.balance(life, self._tally())
            self._machine.park(seconds)
            number = self._judge.ends(life, server, task.task_id)
            if how == "fails" and task.retry_count == 0:
                raise ValueError(f"number {number}")
            if how == "waits" and not task.output:
                return InProgress(callback_after=LATER, output={"number": number})
            return {"number": number}

        return charge

    def _heard(self, process: Process, life: Life, event: object) -> None:
        if process.dead:
            raise Killed
        if isinstance(event, DeadLettered):
            self._judge.dead_letter(life.hosts[event.destination], str(event.key))
        elif isinstance(event, TaskLeaseLost):
            life.lost[event.task_id] += 1
        elif isinstance(event, HandlerFailed):
            self._machine.find(f"{process.name}: a unit failed: {event.error!r}")
