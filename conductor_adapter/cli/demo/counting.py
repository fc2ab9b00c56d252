"""What the demo's worker does, counted beside what its servers say of it."""

import threading
from collections import Counter, defaultdict

import attrs

from conductor_adapter.cli.demo.story import TASK_SECONDS, Account
from conductor_adapter.events import RunnerEvent, RunnerListener
from conductor_adapter.functions.attempt import task_context
from resilience import GaveBack

__all__ = ["Counts"]


class Counts:
    """The demo's task function and listener, which counts runs and give-backs by server. Thread-safe.

    Attributes:
        tell: what events are passed on to.
    """

    tell: RunnerListener = staticmethod(lambda _: None)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._given_back: Counter[str] = Counter()

    def work(self) -> None:
        """Wait a little, as a task would that calls somebody."""
        context = task_context()
        with self._lock:
            self._runs[context.server][context.task.workflow_id] += 1
        threading.Event().wait(TASK_SECONDS)

    def hear(self, event: RunnerEvent) -> None:
        """Count it if tasks went back."""
        if isinstance(event, GaveBack):
            with self._lock:
                self._given_back[event.source] += event.count
        self.tell(event)

    def complete(self, account: Account) -> Account:
        """A server's account with what the worker did for it; a real server may have had others' tasks of this type."""
        with self._lock:
            runs, given_back = dict(self._runs[account.server]), self._given_back[account.server]
        if account.problem is None:
            runs = {workflow: times for workflow, times in runs.items() if workflow in account.handed_out}
        return attrs.evolve(account, executed=runs, given_back=given_back)
