"""Counts of what the demo's worker does, to be compared with what its servers report."""

import threading
from collections import Counter, defaultdict

import attrs

from conductor_adapter.cli.demo.story import TASK_SECONDS, Account
from conductor_adapter.events import RunnerEvent, RunnerListener
from conductor_adapter.functions.attempt import task_context
from resilience import GaveBack

__all__ = ["Counts"]


class Counts:
    """The demo's task function and listener, which count runs and returned tasks by server. Thread-safe.

    Attributes:
        tell: the listener that events are passed on to.
    """

    tell: RunnerListener = staticmethod(lambda _: None)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._given_back: Counter[str] = Counter()

    def work(self) -> None:
        """Wait a little, like a task that calls another service."""
        context = task_context()
        with self._lock:
            self._runs[context.server][context.task.workflow_id] += 1
        threading.Event().wait(TASK_SECONDS)

    def hear(self, event: RunnerEvent) -> None:
        """Count tasks that were given back."""
        if isinstance(event, GaveBack):
            with self._lock:
                self._given_back[event.source] += event.count
        self.tell(event)

    def complete(self, account: Account) -> Account:
        """A server's account with the worker's counts; a real server can have other tasks of this type, not counted."""
        with self._lock:
            runs, given_back = dict(self._runs[account.server]), self._given_back[account.server]
        if account.problem is None:
            runs = {workflow: times for workflow, times in runs.items() if workflow in account.handed_out}
        return attrs.evolve(account, executed=runs, given_back=given_back)
