"""The reports of a runner: the state of its servers, the reasons, task counts, and what is left undone."""

from conductor_adapter.declaring import WorkerSpec
from conductor_adapter.forks import refuse_copy
from conductor_adapter.running.books import Books, books_of
from conductor_adapter.running.counting import Counting
from conductor_adapter.running.lifecycle import ServerView, StopReport
from conductor_adapter.running.links import Link
from conductor_adapter.tasks import Task
from resilience.delivery import DestinationView, Relay
from resilience.polling import Explanation, Poller, SourceView
from resilience.registry import BreakerRegistry

__all__ = ["Reporting"]

STATES = ("backlogged", "caught up", "slow", "suspect")


class Reporting:
    """The reporting methods of a runner; a base of `WorkerRunner`, which provides the attributes.

    In a process that was forked from the one it was started in, all methods raise RuntimeError.
    """

    _links: dict[str, Link]
    _pollers: list[tuple[WorkerSpec, Poller[Task]]]
    _poll_breakers: BreakerRegistry
    _update_breakers: BreakerRegistry
    _relay: Relay
    _counting: Counting
    _kept_before: int
    _pid: int | None

    def view(self) -> dict[str, ServerView]:
        """The state of each server, by name."""
        return {name: self._view(name, views) for name, views in self._views().items()}

    def explain(self) -> dict[str, dict[str, Explanation]]:
        """What each worker asks each server for now, and why: by task type (``domain:type``), then by server."""
        refuse_copy(self._pid)
        return {_queue_name(spec): poller.explain() for spec, poller in self._pollers}

    def books(self) -> dict[str, Books]:
        """The counts of each server's tasks and results so far, by name; they balance at any moment."""
        tasks, results = self._views(), self._relay.view()
        return {name: self._books(name, views, results[name]) for name, views in tasks.items()}

    def report(self) -> StopReport:
        """What would be left undone if the process ended now."""
        books = self.books()
        total = sum(books.values(), Books())
        return StopReport(
            left=total.waiting,
            unfinished=total.unfinished,
            kept=total.kept - self._kept_before + total.giving_back + total.held,
            dead=total.dead,
            unreached=tuple(name for name, link in self._links.items() if link.asked and not link.answered),
            books=books,
        )

    def _views(self) -> dict[str, list[SourceView]]:
        refuse_copy(self._pid)
        views = [poller.view() for _, poller in self._pollers]
        return {name: [view[name] for view in views] for name in self._links}

    def _books(self, name: str, views: list[SourceView], results: DestinationView) -> Books:
        again, lost = self._counting.re_executed(name), self._counting.lost_lease(name)
        repeated = self._counting.repeated(name)
        return books_of(views, results, re_executed=again, lost_lease=lost, repeated=repeated)

    def _view(self, name: str, views: list[SourceView]) -> ServerView:
        return ServerView(
            polls=self._poll_breakers.get(name).state.value,
            updates=self._update_breakers.get(name).state.value,
            state=min((view.state for view in views), key=STATES.index),
            executing=sum(view.executing for view in views),
            held=sum(view.held for view in views),
            in_flight=sum(view.in_flight for view in views),
            started=sum(view.started for view in views),
            waiting=self._relay.pending(name),
        )


def _queue_name(spec: WorkerSpec) -> str:
    """Conductor's name for the queue of a task type in a domain."""
    return f"{spec.domain}:{spec.task_type}" if spec.domain else spec.task_type
