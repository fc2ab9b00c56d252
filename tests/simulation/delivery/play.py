"""Runs a schedule from its beginning until everything has come to rest."""

from collections import Counter

import attrs

from .judge import Judge
from .machine import Machine
from .network import Net
from .plan import FAULTS, Schedule
from .possession import possessed
from .server import Server
from .worker import Worker

REST = 240.0  # virtual seconds after the last fault within which everything comes to rest
STOPPING = 60.0


@attrs.frozen
class Verdict:
    """What came of a schedule: ``found`` is what was not as it must be, empty if nothing."""

    found: str
    rest: float  # seconds from the last fault until everything was at rest
    steps: int
    executions: Counter[str]


def play(schedule: Schedule) -> Verdict:
    """Run it."""
    return Play(schedule).run()


class Play:
    """A schedule that runs."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.machine = machine = Machine(schedule.seed, schedule.restless)
        self.judge = Judge(machine)
        servers = [Server(name, plan, machine, self.judge) for name, plan in zip("abc", schedule.servers, strict=False)]
        self.net = Net(machine, self.judge, servers, schedule.events)
        self.workers: list[Worker] = []

    def run(self) -> Verdict:
        """Run it to its end."""
        machine, schedule, calm = self.machine, self.schedule, self.schedule.calm_from
        with possessed(machine):
            self.workers = [Worker(number, schedule, self.net, None) for number in range(schedule.workers)]
            for event in schedule.events:
                if event.kind == "wall":
                    machine.at(event.at, lambda event=event: self._jump(event.seconds))
                elif event.kind not in (*FAULTS, "die", "forget"):
                    machine.at(event.at, lambda event=event: self.workers[event.whom].suffer(event))
            machine.run(calm, lambda: False)
            for worker in self.workers:
                worker.spare()
            at_rest = machine.run(calm + REST, self._is_at_rest)
            rest = machine.now - calm
            if not at_rest:
                machine.find(f"not at rest: {self._unrest()}")
            if not machine.found:
                self._end()
            for worker in self.workers:
                machine.kill(worker.process)
            machine.run(machine.now, lambda: True)
        return Verdict(machine.found, rest, machine.steps, self.judge.executions)

    def _jump(self, seconds: float) -> None:
        self.machine.wall += seconds

    def _is_at_rest(self) -> bool:
        return (
            all(run.state != "RUNNING" for server in self.net.servers.values() for run in server.runs)
            and all(worker.idle for worker in self.workers)
            and not self._missing()
        )

    def _missing(self) -> list[str]:
        return self.judge.missing(durable=False)

    def _unrest(self) -> str:
        running = [run.name for server in self.net.servers.values() for run in server.runs if run.state == "RUNNING"]
        busy = [worker.life.name for worker in self.workers if not worker.idle]
        return f"workflows {running}, workers {busy}, {self._missing()}"

    def _end(self) -> None:
        """Stop all workers; nothing may be left."""
        for worker in self.workers:
            worker.process.spawn(worker.stop, "stop")
        if not self.machine.run(self.machine.now + STOPPING, lambda: all(worker.report for worker in self.workers)):
            self.machine.find("the workers do not stop")
        for worker in self.workers:
            report = worker.report
            if report is not None and (report.left or report.unfinished or report.kept):
                self.machine.find(f"{worker.life.name}: something is left at the end: {report}")
        if not self.machine.found:
            self.judge.close_books()
