"""What a consumer decides: the phases of its life, which endpoints may be polled, how it stops, what is left. Pure."""

import enum
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import attrs

from resilience.delivery import DestinationView
from resilience.events import (
    BacklogDrained,
    BacklogFull,
    DeliveryFailed,
    DeliveryResumed,
    Event,
    LeaseLost,
    OutboxFailed,
    OutboxResumed,
)
from resilience.polling import SourceView, Tally

__all__ = ["ConsumerEngine", "ConsumerReport", "EndpointCounts", "EndpointView", "Phase", "Stage"]

LEAST_FLUSH = 0.2  # part of the grace that is kept for answers
OFTEN = 5  # failed attempts after which it may be the answer and not the endpoint
STATES = ("backlogged", "caught up", "slow", "suspect")
DeliveryEvent = DeliveryFailed | DeliveryResumed | BacklogFull | BacklogDrained | OutboxFailed | OutboxResumed


class Phase(enum.Enum):
    """The phases of a consumer, in their order."""

    NEW = "new"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


@attrs.frozen
class Stage:
    """One stage of stopping: to stop the pollers, or else to close the relay, within ``seconds``."""

    closes_relay: bool
    seconds: float


@attrs.frozen(kw_only=True)
class EndpointView:
    """How an endpoint stands, over all kinds of work.

    Attributes:
        polls: state of the breaker of its polls.
        sends: state of the breaker of its sends.
        state: ``backlogged``, ``caught up``, ``slow`` or ``suspect``, the first that is true of any kind of work.
        executing: items of it that are handled now.
        held: items of it that have arrived and not started.
        in_flight: items that its live polls asked for.
        started: items of it that have started so far.
        waiting: answers that wait to be delivered to it.
    """

    polls: str
    sends: str
    state: str
    executing: int
    held: int
    in_flight: int
    started: int
    waiting: int


@attrs.frozen(kw_only=True)
class EndpointCounts:
    """What became of an endpoint's items and of their answers so far, exactly.

    Attributes:
        items: what became of the items, in all kinds of work.
        answers: what became of the answers.
        repeated: answers that were sent once more, because a heartbeat in flight beside them could have undone them.
        lost_leases: times that an item's lease was lost: somebody else may have been given it.
    """

    items: Tally
    answers: DestinationView
    repeated: int = 0
    lost_leases: int = 0


@attrs.frozen(kw_only=True)
class ConsumerReport:
    """How a consumer ended.

    Attributes:
        undelivered: answers that no endpoint had taken when the grace ended.
        stored: how many of those stay in the outbox, for the next process to send; 0 if stopping was cut short.
        unfinished: items that were still handled then.
        not_returned: un-started items that were not back when it had stopped.
        dead: answers that their endpoint refused for good while it ran; they are dead letters now.
        counts: what became of all items and answers of its life, by endpoint; two reports that differ in nothing else
            are equal.
    """

    undelivered: int = 0
    stored: int = 0
    unfinished: int = 0
    not_returned: int = 0
    dead: int = 0
    counts: Mapping[str, EndpointCounts] = attrs.field(factory=dict, eq=False, repr=False)

    @property
    def clean(self) -> bool:
        """Whether nothing was left anywhere, and no answer was refused for good."""
        return not (self.undelivered or self.unfinished or self.not_returned or self.dead)


class ConsumerEngine:
    """The decisions of one consumer. Not thread-safe; times are monotonic seconds."""

    def __init__(self) -> None:
        self.phase = Phase.NEW
        self._deadline = math.inf
        self._grace = 0.0
        self._stage = 0
        self._not_returned_before = 0  # its endpoint timed these out, or will
        self._repeated: Counter[str] = Counter()
        self._lost_leases: Counter[str] = Counter()
        self._often: dict[str, set[str]] = {}
        self._failing: set[str] = set()
        self._full: set[str] = set()
        self._unwritten: set[str] = set()

    # -- its life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """It begins to run.

        Raises:
            RuntimeError: it ran before, or was stopped.
        """
        if self.phase is not Phase.NEW:
            raise RuntimeError(f"it cannot be started, as it is {self.phase.value}: make a new one to run again")
        self.phase = Phase.RUNNING

    def stop(self, grace: float, counts: Mapping[str, EndpointCounts], now: float) -> bool:
        """It is to stop within ``grace`` seconds; returns whether that is news: then the stages follow."""
        if self.phase is Phase.NEW:
            self.phase = Phase.STOPPED
        if self.phase is not Phase.RUNNING:
            return False
        self.phase = Phase.STOPPING
        self._grace, self._deadline = grace, now + grace
        self._not_returned_before = sum(count.items.kept for count in counts.values())
        return True

    def next_stage(self, now: float) -> Stage | None:
        """What is to be done next to stop; None when all is done.

        The pollers stop first, and items finish; then the answers are sent, for which a part of the grace is kept; then
        what the last of them brought goes back.
        """
        left = min(max(0.0, self._deadline - now), self._grace)
        self._stage += 1
        if self._stage == 2:  # noqa: PLR2004 - the second
            return Stage(closes_relay=True, seconds=max(left, self._grace * LEAST_FLUSH))
        if self._stage in (1, 3):
            return Stage(closes_relay=False, seconds=left)
        self.phase = Phase.STOPPED
        return None

    # -- who may be polled (rule P13) ----------------------------------------------------------------------------------

    def may_poll(self, name: str) -> bool:
        """Whether the endpoint may be polled, as far as its answers are concerned.

        A failed delivery stops the polls until one succeeds. But when all that waits for an endpoint has failed often,
        it may be these answers alone that it cannot digest, and they would keep it from being polled for ever: only
        the answer to another item can show it. An endpoint whose backlog is full is not polled either (rule D5), nor
        one whose answers cannot be written down: there are enough of them that would be lost with the process.
        """
        return not any(name in reasons for reasons in (self._failing, self._full, self._unwritten))

    def note(self, event: DeliveryEvent, waiting: int) -> None:
        """A delivery event came about, while ``waiting`` answers wait for its destination."""
        match event:
            case DeliveryFailed(name, key, attempt):
                self._failed(name, key, attempt, waiting)
            case DeliveryResumed(name):  # those that it cannot digest will fail once more
                self._often.pop(name, None)
                self._failing.discard(name)
            case BacklogFull(name):
                self._full.add(name)
            case BacklogDrained(name):  # half of it is gone
                self._full.discard(name)
            case OutboxFailed(name):
                self._unwritten.add(name)
            case _:  # everything is written down again
                self._unwritten.discard(event.destination)

    def _failed(self, name: str, key: str, attempt: int, waiting: int) -> None:
        often = self._often.setdefault(name, set())
        if attempt >= OFTEN:
            often.add(key)
        if len(often) >= waiting:
            self._failing.discard(name)
        else:
            self._failing.add(name)

    # -- what it reports -----------------------------------------------------------------------------------------------

    def repeats(self, name: str) -> None:
        """An answer is sent once more, as a heartbeat was in flight beside it."""
        self._repeated[name] += 1

    def loses_lease(self, event: LeaseLost) -> None:
        """The lease of an item is lost."""
        self._lost_leases[event.source] += 1

    def counts(self, name: str, views: Sequence[SourceView], answers: DestinationView) -> EndpointCounts:
        """What became of an endpoint's items, over all kinds of work, and of their answers."""
        fields = [field.name for field in attrs.fields(Tally)]
        items = Tally(**{field: sum(getattr(view, field) for view in views) for field in fields})
        return EndpointCounts(
            items=items, answers=answers, repeated=self._repeated[name], lost_leases=self._lost_leases[name]
        )

    def report(self, counts: Mapping[str, EndpointCounts]) -> ConsumerReport:
        """What would be left undone if the process ended now."""
        items, answers = [one.items for one in counts.values()], [one.answers for one in counts.values()]
        return ConsumerReport(
            undelivered=sum(one.waiting for one in answers),
            unfinished=sum(one.executing for one in items),
            not_returned=sum(one.kept + one.giving_back + one.held for one in items) - self._not_returned_before,
            dead=sum(one.dead for one in answers),
            counts=counts,
        )


def is_of_delivery(event: Event) -> bool:
    """Whether the event says something about who may be polled."""
    return isinstance(event, DeliveryEvent)


def view_of(polls: str, sends: str, views: Sequence[SourceView], waiting: int) -> EndpointView:
    """How an endpoint stands."""
    return EndpointView(
        polls=polls,
        sends=sends,
        state=min((view.state for view in views), key=STATES.index, default="suspect"),
        executing=sum(view.executing for view in views),
        held=sum(view.held for view in views),
        in_flight=sum(view.in_flight for view in views),
        started=sum(view.started for view in views),
        waiting=waiting,
    )
