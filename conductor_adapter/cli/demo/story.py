"""The story of the demo: what happens when, with how much work, under which policy. Pure."""

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
MOST_BACKLOG = 800  # tasks that wait on each server as long as new ones come: more than run between two feeds
FEEDING = 0.75  # part of the story while new ones come; in the rest everything drains
DRAIN_TIMEOUT = 60.0  # seconds after the story until the demo gives up waiting for the rest
# What a killed server's last answers carried is retried after five seconds, by that server.
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
    """One event of the story.

    Attributes:
        at: seconds after the beginning.
        act: what is done: ``freeze``, ``thaw``, ``kill`` or ``restart``.
        server: to which server.
        text: what the reader is told.
    """

    at: float
    act: str
    server: str
    text: str


def chapters(seconds: float) -> list[Chapter]:
    """The story, stretched to ``seconds``."""
    parts = [
        (0.16, "freeze", "us", "us hangs: its process is stopped; it accepts connections and answers nothing"),
        (0.36, "kill", "ap", "ap is killed (SIGKILL); results for it wait here, eu has all the capacity"),
        (0.52, "restart", "ap", "ap comes back on the state it kept in its file"),
        (0.60, "thaw", "us", "us goes on: what its sockets held arrives late and is taken in"),
    ]
    return [Chapter(part * seconds, act, server, text) for part, act, server, text in parts]


def backlog(seconds: float) -> int:
    """Tasks that wait on each server while new ones come, so that a short story does not end in a long drain."""
    return min(round(seconds / 24 * MOST_BACKLOG), MOST_BACKLOG)


def top_up(backlog: int, started: int, ran: int) -> int:
    """How many new tasks a server gets, so that ``backlog`` of those ``started`` there have not run."""
    return max(backlog + ran - started, 0)


def policy_lines() -> list[str]:
    """The policy, in plain words."""
    poll, breaker, relay = POLICY.poll, POLICY.breaker, POLICY.relay
    return [
        (
            f"{THREADS} threads for all servers together; a task takes {TASK_SECONDS * 1000:g} ms and has to be"
            f" answered within {TASK_DEF['responseTimeoutSeconds']} s, or its server hands it out again"
        ),
        (
            f"a poll waits {poll.poll_wait:g} s for work; {poll.overdue_after:g} s later what it was granted works for"
            f" others, after {poll.poll_timeout:g} s it counts as failed; {breaker.fail_max} failures in a row open a"
            f" breaker for {breaker.reset_timeout:g} to {breaker.max_reset_timeout * (1 + breaker.jitter):g} s"
        ),
        (
            f"a result may hold a thread for {relay.inline_timeout:g} s, then it is sent from the background until its"
            " server takes it"
        ),
    ]


@attrs.frozen(kw_only=True)
class Account:
    """What came of the demo's tasks on one server.

    Attributes:
        server: its name.
        started: tasks it was given.
        finished: of those, completed.
        unfinished: of those, alive when the demo stopped waiting: the server will hand them out again.
        handed_out: how often the server handed out each of them, by workflow.
        executed: how often the worker ran each of them, by workflow.
        given_back: how many were returned un-started.
        problem: why the server could not be asked; the numbers that are its own are 0 then.
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
        """Tasks that ended otherwise than completed: timed out for good, or gone from the server."""
        return 0 if self.problem else self.started - self.finished - self.unfinished

    @property
    def runs(self) -> int:
        """How often the worker ran a task of this server."""
        return sum(self.executed.values())

    @property
    def retried(self) -> int:
        """How often the server handed a task out again without having got it back: an answer of its was lost."""
        again = sum(times - 1 for times in self.handed_out.values() if times > 1)
        return max(again - self.given_back, 0)

    @property
    def surplus(self) -> int:
        """Runs that no hand-out of the server explains; more than none is a fault of ours."""
        if self.problem:
            return 0
        return sum(max(runs - self.handed_out.get(workflow, 0), 0) for workflow, runs in self.executed.items())

    @property
    def good(self) -> bool:
        """Whether every task was finished, and none ran more often than its server asked for."""
        return not (self.lost or self.unfinished or self.surplus or self.problem)

    def sentence(self) -> str:
        """The account for people."""
        if self.problem is not None:
            return f"{self.started} started; what came of them is not known: {self.problem}"
        parts = [f"{self.started} started, {self.finished} finished, {self.lost} lost"]
        if self.unfinished:
            parts.append(f"{self.unfinished} not finished in time")
        parts.append(f"ran {self.runs} times, {self.given_back} given back, {self.retried} retried by its server")
        if self.surplus:
            parts.append(f"{self.surplus} runs too many")
        return "; ".join(parts)

    def facts(self) -> dict[str, Any]:
        """The account for machines."""
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
