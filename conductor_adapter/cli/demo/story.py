"""The plan of the demo: what happens when, with how much work, under which policy. Pure."""

from collections.abc import Mapping
from typing import Any

import attrs

from conductor_adapter.running import RunnerConfig
from resilience import BreakerConfig, PollConfig, RelayConfig

__all__ = [
    "DRAIN_TIMEOUT",
    "FEEDING",
    "POLICY",
    "TASK",
    "TASK_DEF",
    "TASK_SECONDS",
    "THREADS",
    "Account",
    "Chapter",
    "backlog",
    "chapters",
    "policy_lines",
    "top_up",
]

TASK = "demo_task"
TASK_SECONDS = 0.02
THREADS = 10
MOST_BACKLOG = 800  # tasks waiting on each server while new ones are added: more than run between two additions
FEEDING = 0.75  # part of the demo in which new tasks are added; in the rest the backlog drains
DRAIN_TIMEOUT = 60.0  # seconds after the end until the demo stops waiting for unfinished tasks
# A server that was killed retries the tasks in its last, lost answers after five seconds.
TASK_DEF: Mapping[str, object] = {
    "retryCount": 5,
    "retryDelaySeconds": 0,
    "responseTimeoutSeconds": 5,
    "timeoutSeconds": 600,
}

# Shorter times than the defaults, so that a hang, its breaker and its recovery fit into half a minute.
POLICY = RunnerConfig(
    threads=THREADS,
    poll=PollConfig(poll_wait=0.5, overdue_after=0.3, poll_timeout=1.5, give_up_after=20.0, max_hold=2.0),
    breaker=BreakerConfig(fail_max=2, reset_timeout=2.0, max_reset_timeout=4.0),
    relay=RelayConfig(inline_timeout=0.5, slow_after=0.3, send_timeout=1.5, retry_maximum=1.0),
)


@attrs.frozen
class Chapter:
    """One step of the demo.

    Attributes:
        at: seconds after the start.
        act: what is done: ``freeze``, ``thaw``, ``kill`` or ``restart``.
        server: the server it is done to.
        text: the line for the reader.
    """

    at: float
    act: str
    server: str
    text: str


def chapters(seconds: float) -> list[Chapter]:
    """The steps of the demo, spread over ``seconds``."""
    parts = [
        (0.16, "freeze", "us", "us hangs: its process is stopped; it accepts connections and answers nothing"),
        (0.36, "kill", "ap", "ap is killed (SIGKILL); its results wait here, and eu has all the capacity"),
        (0.52, "restart", "ap", "ap comes back with the state it saved in its file"),
        (0.60, "thaw", "us", "us wakes up: answers buffered in its sockets arrive late and are used"),
    ]
    return [Chapter(part * seconds, act, server, text) for part, act, server, text in parts]


def backlog(seconds: float) -> int:
    """Tasks waiting on each server while new ones are added; fewer if the demo is short, so that the drain is too."""
    return min(round(seconds / 24 * MOST_BACKLOG), MOST_BACKLOG)


def top_up(backlog: int, started: int, ran: int) -> int:
    """The number of new tasks for a server, so that ``backlog`` of those ``started`` there have not run."""
    return max(backlog + ran - started, 0)


def policy_lines() -> list[str]:
    """The policy, in plain words."""
    poll, breaker, relay = POLICY.poll, POLICY.breaker, POLICY.relay
    return [
        (
            f"{THREADS} threads for all servers together; a task takes {TASK_SECONDS * 1000:g} ms and has to be"
            f" answered within {TASK_DEF['responseTimeoutSeconds']} s, or the server reassigns it"
        ),
        (
            f"a poll waits {poll.poll_wait:g} s for work; {poll.overdue_after:g} s later its threads are lent to the"
            f" other servers, and after {poll.poll_timeout:g} s it counts as failed; {breaker.fail_max} failures in a"
            f" row trip a breaker, for {breaker.reset_timeout:g} to"
            f" {breaker.max_reset_timeout * (1 + breaker.jitter):g} s"
        ),
        (
            f"sending a result occupies a thread for up to {relay.inline_timeout:g} s; then it is retried in the"
            " background until its server accepts it"
        ),
    ]


@attrs.frozen(kw_only=True)
class Account:
    """What became of the demo's tasks on one server.

    Attributes:
        server: its name.
        started: number of tasks started there.
        finished: number of those that completed.
        unfinished: number of those still running when the demo stopped waiting; the server will hand them out again.
        handed_out: how often the server handed out each of them, by workflow.
        executed: how often the worker ran each of them, by workflow.
        given_back: number of tasks returned un-started.
        problem: why the server could not be asked; the counts that only it knows are 0 then.
    """

    server: str
    started: int
    finished: int = 0
    unfinished: int = 0
    handed_out: Mapping[str, int] = attrs.field(factory=dict)
    executed: Mapping[str, int] = attrs.field(factory=dict)
    given_back: int = 0
    problem: str | None = None

    @property
    def lost(self) -> int:
        """Number of tasks that did not complete: timed out with no retry left, or gone from the server."""
        return 0 if self.problem else self.started - self.finished - self.unfinished

    @property
    def runs(self) -> int:
        """Number of times the worker ran a task of this server."""
        return sum(self.executed.values())

    @property
    def retried(self) -> int:
        """Number of times the server handed out a task again that was not given back, because an answer was lost."""
        again = sum(times - 1 for times in self.handed_out.values() if times > 1)
        return max(again - self.given_back, 0)

    @property
    def surplus(self) -> int:
        """Number of runs that the server did not ask for; any is a bug of this package."""
        if self.problem:
            return 0
        return sum(max(runs - self.handed_out.get(workflow, 0), 0) for workflow, runs in self.executed.items())

    @property
    def good(self) -> bool:
        """Whether every task was finished, and none ran more often than its server asked for."""
        return not (self.lost or self.unfinished or self.surplus or self.problem)

    def sentence(self) -> str:
        """The account as a sentence for people."""
        if self.problem is not None:
            return f"{self.started} started; what became of them is unknown: {self.problem}"
        parts = [f"{self.started} started, {self.finished} finished, {self.lost} lost"]
        if self.unfinished:
            parts.append(f"{self.unfinished} not finished in time")
        parts.append(f"ran {self.runs} times, {self.given_back} given back, {self.retried} retried by its server")
        if self.surplus:
            parts.append(f"{self.surplus} runs too many")
        return "; ".join(parts)

    def facts(self) -> dict[str, Any]:
        """The account as facts for machines."""
        return {
            "started": self.started,
            "finished": self.finished,
            "lost": self.lost,
            "unfinished": self.unfinished,
            "executed": self.runs,
            "given_back": self.given_back,
            "retried": self.retried,
            "surplus": self.surplus,
            "problem": self.problem,
        }
