"""A schedule as values: what there is, what is to be done, and everything that goes wrong, and when."""

import json
from typing import Any

import attrs

FAULTS = (
    "refuse",  # no connection
    "hang",  # calls wait until it is over, then are served
    "swallow",  # calls are served, and never answered
    "drop",  # calls are neither served nor answered
    "late",  # calls are served, and answered when it is over
    "double",  # calls are served twice, and the second answer comes
    "error",  # 503
    "saved",  # served, and then 500
    "proxy",  # somebody else's 404
    "throttle",  # 429
    "broken",  # served, and then the connection breaks
    "away",  # 500 and "retryable": false, as while a database is away
    "locked",  # 423
    "garbage",  # 200 and no answer that belongs here
    "slow",  # served, and answered a second later
)

CLOCKS = ("skip", "wall")  # events that take no time


@attrs.frozen
class Event:
    """Something that goes wrong.

    Attributes:
        at: when, in virtual seconds.
        kind: one of ``FAULTS`` (of a server, for ``seconds``); ``die`` (a server, which is back after ``seconds``) and
            ``forget`` (the same, with nothing left of its memory); ``kill`` (a worker, at the ``nth`` point of kind
            ``point`` from then on; it starts again after ``seconds``); ``stop`` (a worker, politely, likewise);
            ``freeze`` (a worker's process stands still); ``skip`` (a worker's monotonic clock jumps ahead); ``wall``
            (everybody's wall clock jumps by ``seconds``, also back); ``full`` (nothing can be written to the disk);
            ``without`` (a worker is stopped and started again with a configuration that lacks the first server, and
            after ``seconds`` with the usual one); ``swap`` (likewise, with the names of all servers exchanged).
        whom: number of the server or the worker.
        calls: which calls to a server are concerned: ``all``, ``polls`` or ``updates``.
    """

    at: float
    kind: str
    whom: int = 0
    seconds: float = 0.0
    point: str = "any"
    nth: int = 0
    calls: str = "all"


@attrs.frozen
class Flow:
    """One workflow: when it starts, and how long its tasks take, one after another.

    ``how`` is what its tasks do: ``well``; ``fails`` at its first attempt; ``waits``: it says at first that it goes on
    later; ``poison``: its server does not know its task any more when the result comes; ``refused``: the server refuses
    its first result for a while, in words of its own, and then takes it.
    """

    at: float
    steps: tuple[float, ...]
    how: str = "well"


@attrs.frozen
class ServerPlan:
    """One server: the seconds its calls take one way, and after which it takes a silent worker's task for lost."""

    trip: float
    response_timeout: int
    flows: tuple[Flow, ...]
    has_v2: bool = True


@attrs.frozen
class Schedule:
    """Everything that is decided before a run; the same schedule always runs the same way.

    Attributes:
        seed: of everything that is left to chance.
        servers: what there is.
        events: what goes wrong.
        workers: processes that run at a time, on one store.
        capacity: units of each.
        bounded: whether calls keep to their timeouts.
        restless: how likely another thread goes on, wherever one may be interrupted.
        backlog: results that may wait for a server before it is not polled any more.
        durable: whether the results that wait are in an outbox, else in memory.
        on_file: whether that is a file, else SQLite's shared memory.
    """

    seed: int
    servers: tuple[ServerPlan, ...]
    events: tuple[Event, ...] = ()
    workers: int = 1
    capacity: int = 2
    bounded: bool = True
    restless: float = 0.0
    backlog: int = 50
    durable: bool = True
    on_file: bool = False

    def to_text(self) -> str:
        """As one line of JSON."""
        return json.dumps(attrs.asdict(self, value_serializer=_short), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> "Schedule":
        """Read what `to_text` wrote."""
        told: dict[str, Any] = json.loads(text)
        servers = tuple(
            ServerPlan(**{**server, "flows": tuple(Flow(**{**f, "steps": tuple(f["steps"])}) for f in server["flows"])})
            for server in told["servers"]
        )
        return cls(**{**told, "servers": servers, "events": tuple(Event(**event) for event in told["events"])})

    @property
    def calm_from(self) -> float:
        """When the last fault is over, and everything has begun."""
        ends = [event.at + (0.0 if event.kind in CLOCKS else event.seconds) for event in self.events]
        return max([*ends, *(flow.at for server in self.servers for flow in server.flows)], default=0.0)


def _short(_: object, __: object, value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
