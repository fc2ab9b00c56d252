"""The books of a worker: what became of the tasks it polled and of their results, exactly. Pure."""

import attrs

from resilience.consumer import EndpointCounts

__all__ = ["Books", "books_of"]


@attrs.frozen(kw_only=True)
class Books:
    """What became of a server's tasks so far; those of several servers can be added.

    Attributes:
        polled: tasks that the server handed out to this worker, also those that came with the answer to a result.
        started: those that started.
        finished: those that ran to their end, well or not.
        given_back: those that went back to their server, mostly un-started.
        giving_back: those that are on their way back.
        kept: those that could not be given back: their server times them out.
        dropped: those whose lease was lost before they started: their server may have given them to somebody else.
        held: those that have not started.
        unfinished: those that run.
        late: tasks that came after nobody waited for them any more; they are in the other numbers too.
        re_executed: tasks that started and were not the first attempt of their server.
        lost_lease: times that a task's lease was lost: its server may have given it to somebody else.
        updated: results that the server took.
        repeated: results that were sent once more, because a heartbeat in flight beside them could have undone them.
        waiting: results that wait for the server, or are being sent.
        outboxed: results that were put into the outbox, because they could not be delivered at once.
        dead: results that the server refused for good.
        inherited: results of a former process, or formerly refused ones, that were taken over from the outbox.
        passed: results that another process took over, because this one seemed dead.
    """

    polled: int = 0
    started: int = 0
    finished: int = 0
    given_back: int = 0
    giving_back: int = 0
    kept: int = 0
    dropped: int = 0
    held: int = 0
    unfinished: int = 0
    late: int = 0
    re_executed: int = 0
    lost_lease: int = 0
    updated: int = 0
    repeated: int = 0
    waiting: int = 0
    outboxed: int = 0
    dead: int = 0
    inherited: int = 0
    passed: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every task that was polled is accounted for once; it always is, or there is a defect here."""
        gone = self.finished + self.given_back + self.giving_back + self.kept + self.dropped
        return self.polled == gone + self.held + self.unfinished

    def __add__(self, other: "Books") -> "Books":
        """Both together; ``sum(books, Books())`` adds up any number."""
        mine, theirs = attrs.asdict(self), attrs.asdict(other)
        return Books(**{name: mine[name] + theirs[name] for name in mine})


def books_of(counts: EndpointCounts, *, re_executed: int) -> Books:
    """The books of one server."""
    tasks, results = counts.items, counts.answers
    return Books(
        polled=tasks.received,
        started=tasks.started,
        finished=tasks.finished,
        given_back=tasks.given_back,
        giving_back=tasks.giving_back,
        kept=tasks.kept,
        dropped=tasks.dropped,
        held=tasks.held,
        unfinished=tasks.executing,
        late=tasks.late,
        re_executed=re_executed,
        lost_lease=counts.lost_leases,
        updated=results.delivered,
        repeated=counts.repeated,
        waiting=results.waiting,
        outboxed=results.written,
        dead=results.dead,
        inherited=results.inherited,
        passed=results.passed,
    )
