"""Runs a schedule from its beginning until everything has come to rest."""

from collections import Counter

import attrs

from .disk import Disk
from .judge import Judge
from .machine import Machine
from .network import Net
from .noted import host_of
from .plan import FAULTS, Event, Schedule
from .possession import possessed
from .server import Server
from .worker import CLAIM, Worker

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
    made = Play(schedule)
    try:
        return made.run()
    finally:
        made.disk.remove()


class Play:
    """A schedule that runs."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.machine = machine = Machine(schedule.seed, schedule.restless)
        self.disk = machine.disk = Disk(machine, real=schedule.on_file, full=self._is_full)
        self.judge = Judge(machine, may_overlap=any(map(_looks_dead, schedule.events)))
        servers = [Server(name, plan, machine, self.judge) for name, plan in zip("abc", schedule.servers, strict=False)]
        self.net = Net(machine, self.judge, servers, schedule.events)
        self.workers: list[Worker] = []
        self._full = [event for event in schedule.events if event.kind == "full"]

    def run(self) -> Verdict:
        """Run it to its end."""
        machine, schedule, calm = self.machine, self.schedule, self.schedule.calm_from
        with possessed(machine):
            disk = self.disk if schedule.durable else None
            self.workers = [Worker(number, schedule, self.net, disk) for number in range(schedule.workers)]
            for event in schedule.events:
                machine.at(event.at, lambda event=event: self._happens(event))
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
            machine.forget()
        return Verdict(machine.found, rest, machine.steps, self.judge.executions)

    def _happens(self, event: Event) -> None:
        """What happens to servers and disks, these know themselves."""
        if event.kind == "wall":
            self.machine.wall += event.seconds
        elif event.kind not in (*FAULTS, "die", "forget", "full"):
            self.workers[event.whom].suffer(event)

    def _is_full(self) -> bool:
        return any(event.at <= self.machine.now < event.at + event.seconds for event in self._full)

    def _is_at_rest(self) -> bool:
        return (
            all(run.state != "RUNNING" for server in self.net.servers.values() for run in server.runs)
            and all(worker.idle for worker in self.workers)
            and not self._left()
        )

    def _left(self) -> list[str]:
        """What has not arrived, and what waits in the store for somebody who is there."""
        durable = self.schedule.durable and not self._full  # what cannot be written may end with its process
        rows = self.disk.look() if self.schedule.durable else []
        if rows is None:
            return ["somebody writes"]
        waiting = [(name, host_of(identity), key) for name, identity, key, reason in rows if reason is None]
        letters = {(host_of(identity), key) for _, identity, key, reason in rows if reason is not None}
        kept = {(host, key) for name, host, key in waiting if name != host}  # for a name that means another server now
        for what in self.judge.unexplained(letters):
            self.machine.find(f"{what} is a dead letter, and was never refused")
        missing = self.judge.missing(kept, letters if durable else None, durable=durable)
        return missing + [f"row {key} for {host}" for name, host, key in waiting if name == host]

    def _unrest(self) -> str:
        running = [run.name for server in self.net.servers.values() for run in server.runs if run.state == "RUNNING"]
        busy = [worker.life.name for worker in self.workers if not worker.idle]
        return f"workflows {running}, workers {busy}, left {self._left()}"

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
        if not self.machine.found and (left := self._left()):
            self.machine.find(f"left after the end: {left}")


def _looks_dead(event: Event) -> bool:
    """Whether a living process may seem dead to others: claims are renewed after a third of their time."""
    return event.kind == "wall" or (event.kind == "freeze" and event.seconds > CLAIM / 2)
