"""What must be true whatever happens, checked by an account of its own: of the wire, the tasks and the store."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import attrs

from conductor_adapter import TaskResult
from conductor_adapter.client.messages import HttpAnswer
from resilience.polling import Tally

from .machine import Machine


@attrs.define(eq=False)
class Life:
    """One worker process from its start to its end."""

    name: str
    capacity: int
    hosts: dict[str, str]  # which server is meant by a name
    executing: int = 0
    delivered: Counter[str] = attrs.field(factory=Counter)  # tasks that an answer brought, by id
    started: Counter[str] = attrs.field(factory=Counter)
    returned: Counter[str] = attrs.field(factory=Counter)  # give-backs that were sent
    lost: Counter[str] = attrs.field(factory=Counter)  # tasks of which it was said that their lease was lost
    lines: dict[tuple[str, str], list[int]] = attrs.field(factory=lambda: defaultdict(list))  # results on their way
    sending: set[tuple[str, str]] = attrs.field(factory=set)
    running: Counter[str] = attrs.field(factory=Counter)
    killed: bool = False
    stopped: bool = False  # or is just stopping
    over: bool = False


class Judge:
    """Hears of everything, and says what is not as it must be.

    Args:
        machine: whose time it is.
        may_overlap: two processes may send one row at the same time: one seemed dead to the other, because it stood
            still for longer than its claim was good, or because the clock they share jumped.
    """

    def __init__(self, machine: Machine, *, may_overlap: bool = False) -> None:
        self._machine = machine
        self._may_overlap = may_overlap
        self._owner: dict[str, str] = {}
        self._refused: set[tuple[str, str]] = set()
        self._accepted: set[int] = set()
        self._results: dict[int, tuple[str, str, Life]] = {}
        self._written: set[int] = set()
        self._handed: set[int] = set()
        self._flying: set[int] = set()  # results that are being sent
        self.lives: list[Life] = []
        self.executions: Counter[str] = Counter()

    # -- servers tell ------------------------------------------------------------------------------------------------

    def belongs(self, task: str, server: str) -> None:
        """A server made a task."""
        self._owner[task] = server

    def update_arrives(self, server: str, told: dict[str, Any]) -> None:
        """Nothing is misrouted."""
        owner = self._owner.get(told["taskId"])
        if owner != server:
            self._machine.find(f"misrouted: {server} was told of {told['taskId']}, which is of {owner}")

    def accepted(self, told: dict[str, Any]) -> None:
        """A server has a result."""
        number = number_of(told)
        if number is not None:
            self._accepted.add(number)

    def refused(self, server: str, task: str) -> None:
        """A server will never take a result of this task."""
        self._refused.add((server, task))

    def timed_out(self, server: str, task: str, *, excused: bool) -> None:
        """A server takes a task for lost: not one that runs, and whose heartbeats nothing was in the way of."""
        for life in self.lives:
            if life.running[task] > 0 and not (life.killed or excused):
                self._machine.find(f"{life.name}: {task} runs, and {server} has taken it for lost without a reason")

    # -- the wire tells ----------------------------------------------------------------------------------------------

    def sends(self, life: Life, server: str, told: dict[str, Any]) -> None:
        """At most one send of a key at a time; nothing goes back that has started."""
        task = told["taskId"]
        if is_give_back(told):
            life.returned[task] += 1
            self._account(life, task, "given back")
            return
        number = number_of(told)
        if number is not None:
            if (server, task) in life.sending or (number in self._flying and not self._may_overlap):
                self._machine.find(f"{life.name}: a second send of {task} to {server} at the same time")
            line = self._line_of(number)
            if number in line[1:] and not self._may_overlap:
                self._machine.find(f"{life.name}: out of order: result {number} of {task} is sent before {line[0]}")
            life.sending.add((server, task))
            self._flying.add(number)

    def sent(self, life: Life, server: str, told: dict[str, Any], answer: HttpAnswer | None) -> None:
        """It has been answered, or given up."""
        number = number_of(told)
        if number is not None:
            life.sending.discard((server, told["taskId"]))
            self._flying.discard(number)
            if answer is not None and settles(answer) and number in self._line_of(number):
                self._lines_of(number).remove(number)

    def brought(self, life: Life, tasks: list[dict[str, Any]]) -> None:
        """An answer with tasks reached a process."""
        life.delivered.update(task["taskId"] for task in tasks)

    # -- workers tell ------------------------------------------------------------------------------------------------

    def starts(self, life: Life, server: str, task: str) -> None:
        """No more at once than the capacity, and each task once for each time it was handed out."""
        life.executing += 1
        life.running[task] += 1
        life.started[task] += 1
        self.executions[task] += 1
        if life.executing > life.capacity:
            self._machine.find(f"{life.name}: {life.executing} tasks at once, the capacity is {life.capacity}")
        if self._owner.get(task) != server:
            self._machine.find(f"{life.name}: {task} is said to be of {server}")
        self._account(life, task, "started")

    def ends(self, life: Life, server: str, task: str) -> int:
        """A task function is done; returns the number of its result."""
        life.executing -= 1
        life.running[task] -= 1
        number = len(self._results) + 1
        life.lines[server, task].append(number)
        self._results[number] = server, task, life
        return number

    def balance(self, life: Life, tally: Tally | None) -> None:
        """The poller's books balance at every moment."""
        if tally is not None and not tally.balanced:
            self._machine.find(f"{life.name}: its books do not balance: {tally}")

    def compare(self, life: Life, tally: Tally) -> None:
        """At the end the poller's books are those of the wire."""
        self.balance(life, tally)
        ours = (life.delivered.total(), life.started.total(), life.returned.total(), life.executing)
        theirs = (tally.received, tally.started, tally.given_back + tally.giving_back + tally.kept, tally.executing)
        # a unit whose function has ended may wait, when the grace is over, for a heartbeat before it sends the result
        sending = sum(maker is life and one not in self._handed for one, (_, _, maker) in self._results.items())
        if ours[:3] != theirs[:3] or not ours[3] <= theirs[3] <= ours[3] + sending:
            self._machine.find(f"{life.name}: came, started, went back, run: {ours}, its books say {theirs}")

    def dead_letter(self, server: str, task: str) -> None:
        """Only what a server refused for good may become one."""
        if (server, task) not in self._refused:
            self._machine.find(f"{task} became a dead letter, but {server} never refused it")

    def written(self, told: dict[str, Any]) -> None:
        """A store says that it has a result."""
        number = number_of(told)
        if number is None or told["status"] == "IN_PROGRESS":
            self._machine.find(f"what is stale when it comes late was written down: {told}")
        else:
            self._written.add(number)

    def handed_over(self, result: TaskResult) -> None:
        """A relay says that a result is its own from now on; only final ones outlive their process."""
        number = number_of(result.to_wire())
        if number is not None and result.is_final:
            self._handed.add(number)

    def crossed_out(self, server: str, told: dict[str, Any]) -> None:
        """A store is to forget a result, or to bury it: only what was taken, or refused for good."""
        number = number_of(told)
        if number not in self._accepted and (server, told["taskId"]) not in self._refused:
            self._machine.find(f"result {number} of {told['taskId']} is forgotten, and {server} never had it")

    # -- at rest -----------------------------------------------------------------------------------------------------

    def missing(
        self, kept: Collection[tuple[str, str]], letters: Collection[tuple[str, str]] | None, *, durable: bool
    ) -> list[str]:
        """Results that were handed over and have neither arrived nor become dead letters.

        Args:
            kept: results, as server and task, that wait for servers that nobody serves any more.
            letters: the dead letters, as server and task; None if that is not to be checked.
            durable: whether what was handed over is owed also when its process has ended; else only what was written.
        """
        found = []
        for number, (server, task, life) in self._results.items():
            owed = number in self._written or not (life.killed or life.stopped) or (durable and number in self._handed)
            if not owed or number in self._accepted or (server, task) in kept:
                continue
            buried = letters is None or (server, task) in letters or number not in self._handed  # not final, or not yet
            if (server, task) not in self._refused or not buried:
                found.append(f"result {number} of {task} on {server}, made by {life.name}")
        return found

    def unexplained(self, letters: Iterable[tuple[str, str]]) -> list[str]:
        """Dead letters of what no server refused."""
        return [f"{task} for {server}" for server, task in letters if (server, task) not in self._refused]

    def close_books(self) -> None:
        """Whatever was handed to a process that lived on was started or given back."""
        for life in self.lives:
            if life.killed:
                continue
            for task, count in life.delivered.items():
                done = life.started[task] + life.returned[task]
                if not count - life.lost[task] <= done <= count:  # what was lost before it started is dropped
                    self._machine.find(f"{life.name}: {task} came {count} times, and {done} times something was done")
            if life.executing:
                self._machine.find(f"{life.name}: {life.executing} tasks still run")

    def _lines_of(self, number: int) -> list[int]:
        server, task, maker = self._results[number]
        return maker.lines[server, task]

    def _line_of(self, number: int) -> list[int]:
        """The results of its task that whoever made it has to send, or left behind, oldest first."""
        maker = self._results[number][2]
        return [one for one in self._lines_of(number) if not maker.over or one in self._written]

    def _account(self, life: Life, task: str, what: str) -> None:
        started, returned, came = life.started[task], life.returned[task], life.delivered[task]
        if started + returned > came:
            counts = f"started {started} times, given back {returned} times, and came {came} times"
            self._machine.find(f"{life.name}: {task} was {what}: it was {counts}")


def is_give_back(told: dict[str, Any]) -> bool:
    """Whether an update returns a task that did not start."""
    return told["status"] == "IN_PROGRESS" and not told.get("extendLease") and not told.get("callbackAfterSeconds")


def settles(answer: HttpAnswer) -> bool:
    """Whether an answer to a result is the last word: it was taken, or refused by the server itself."""
    if answer.status == 404:
        return answer.body.startswith(b"{") and b"No static resource" not in answer.body
    return answer.status in (200, 204) and not answer.body.startswith(b"<")


def number_of(told: dict[str, Any]) -> int | None:
    """The number of a task function's result."""
    if is_give_back(told) or told.get("extendLease"):
        return None
    number = (told.get("outputData") or {}).get("number")
    if number is None:
        found = re.search(r"number (\d+)", told.get("reasonForIncompletion") or "")
        number = int(found.group(1)) if found else None
    return number
