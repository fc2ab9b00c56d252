"""The story of the demo: what happens when, with how much work, under which policy. Pure."""

import attrs

from conductor_adapter.running import RunnerConfig
from resilience import BreakerConfig, PollConfig, RelayConfig

__all__ = ["DRAIN_TIMEOUT", "POLICY", "TASK", "TASK_SECONDS", "THREADS", "Chapter", "Tally", "chapters", "policy_text"]

TASK = "demo_task"
TASK_SECONDS = 0.02
THREADS = 10
DRAIN_TIMEOUT = 60.0  # seconds after the last chapter until the demo gives up waiting for the rest
PER_SECOND = {"eu": 200, "us": 112, "ap": 112}  # tasks to start with, for each second of the story

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
        (0.16, "freeze", "us", "us hangs: its process is stopped, it takes connections and answers nothing"),
        (0.36, "kill", "ap", "ap is killed (SIGKILL)"),
        (0.52, "restart", "ap", "ap comes back on its own state"),
        (0.60, "thaw", "us", "us goes on: what its sockets held arrives late and is taken in"),
    ]
    return [Chapter(part * seconds, act, server, text) for part, act, server, text in parts]


def policy_text() -> str:
    """The policy, in one line."""
    poll, breaker = POLICY.poll, POLICY.breaker
    return (
        f"{THREADS} threads, {TASK_SECONDS * 1000:g} ms a task; a poll is overdue {poll.overdue_after:g} s past its"
        f" wait and counted after {poll.poll_timeout:g} s; {breaker.fail_max} failures open a breaker for"
        f" {breaker.reset_timeout:g} s and more; a result may hold a thread for {POLICY.relay.inline_timeout:g} s"
    )


@attrs.frozen(kw_only=True)
class Tally:
    """What came of a server's tasks, as the server itself says.

    Attributes:
        server: its name.
        started: tasks it was given at the beginning.
        finished: of those, completed.
        executed: how often the worker ran one of them.
        given_back: un-started tasks that went back to it.
        retried: tasks it handed out more than once, after a give-back or because an answer was lost.
    """

    server: str
    started: int
    finished: int
    executed: int
    given_back: int
    retried: int

    @property
    def lost(self) -> int:
        """Tasks that were started and never completed."""
        return self.started - self.finished
