"""A worker's life as values: how it is to run, which phase it is in, how it ended. Pure."""

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from conductor_adapter.running.books import Books
from conductor_adapter.tasks import can_be_sent
from resilience._checks import number, teaches_options, whole
from resilience.breaker import BreakerConfig
from resilience.consumer import EndpointView
from resilience.delivery import RelayConfig
from resilience.delivery.store import check_store
from resilience.polling import PollConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from conductor_adapter.settings.server_settings import ServerSettings
    from conductor_adapter.transports.base import Transport
    from resilience.delivery import Store

__all__ = [
    "RunnerConfig",
    "ServerView",
    "StopReport",
    "is_another_signal",
]

CONDUCTOR_MAX_WAIT = 5.0  # seconds; a server refuses to wait longer for a poll
SAME_SIGNAL = 1.0  # seconds in which the first signal may come again: coreutils' timeout sends it to us and our group


def is_another_signal(asked: float, came: float, before: float = -math.inf) -> bool:
    """Whether a signal that ``came`` after stopping was ``asked`` for is one of its own, all on one clock.

    Whoever sends one every few milliseconds wants nothing else than whoever sent the first: one that comes close upon
    the one ``before`` is that once more.
    """
    return came - asked > SAME_SIGNAL and came - before > SAME_SIGNAL / 10


def _is_name(_instance: object, attribute: "attrs.Attribute[str]", value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be text or None, not {type(value).__name__}")
    if not value.strip() or not can_be_sent(value):
        raise ValueError(f"{attribute.name} is {value!r}; give a name that a URL can carry, or leave it out")


def _is_config(_instance: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:  # noqa: ANN401 - whatever was given
    wanted = {"poll": PollConfig, "breaker": BreakerConfig, "relay": RelayConfig}[attribute.name]
    if not isinstance(value, wanted):
        raise TypeError(f"{attribute.name} must be a {wanted.__name__}, not {value!r} of type {type(value).__name__}")


def _is_outbox(_instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"{attribute.name} is {value!r}; name a file, or None to keep results in memory")
    if value is not None and not isinstance(value, (str, os.PathLike)):
        check_store(f"{attribute.name}, if it is no path,", value)


@teaches_options(poll=PollConfig, breaker=BreakerConfig, relay=RelayConfig)
@attrs.frozen(kw_only=True)
class RunnerConfig:
    """How workers run. All times are seconds.

    Attributes:
        threads: how many tasks of each worker may run at once, whatever the worker says; None leaves that to it.
        worker_id: how the workers call themselves; None for host name and process id.
        transport: ``requests``; ``curl``; ``auto``, which is curl where it is installed; or a function that makes a
            ``Transport`` for a server's settings, such as one over your own ``requests.Session``.
        grace: how long stopping may take.
        poll: the timing of polls.
        breaker: when a server is left alone, for polls and for updates.
        relay: how results are delivered.
        outbox: the file for results that have to wait (it may be shared by several processes), so that they outlive
            this process; or a `Store` of your own, which is not closed with the runner. None keeps them in memory.
        max_result_bytes: bytes of JSON above which an output goes to the server's storage of large payloads (external
            payload storage) and only its path into the update; None sends all in the update, which a server that has
            such a storage puts there by itself.

    Raises:
        ValueError: a number out of range, or a ``poll_wait`` that is longer than a Conductor server waits.
        TypeError: a value of the wrong type.
    """

    threads: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    worker_id: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_name))
    transport: "str | Callable[[ServerSettings], Transport]" = "auto"
    grace: float = attrs.field(default=10.0, validator=number(0.0))
    poll: PollConfig = attrs.field(factory=PollConfig, validator=_is_config)
    breaker: BreakerConfig = attrs.field(factory=BreakerConfig, validator=_is_config)
    relay: RelayConfig = attrs.field(factory=RelayConfig, validator=_is_config)
    outbox: "str | os.PathLike[str] | Store | None" = attrs.field(default=None, validator=_is_outbox)

    max_result_bytes: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))

    def __attrs_post_init__(self) -> None:
        if self.poll.poll_wait > CONDUCTOR_MAX_WAIT:
            raise ValueError(
                f"poll_wait is {self.poll.poll_wait!r} s, and a Conductor server waits for {CONDUCTOR_MAX_WAIT:g} s"
                " at most: choose a shorter one"
            )


@attrs.frozen(kw_only=True)
class ServerView:
    """How a server stands, over all workers.

    Attributes:
        polls: state of the breaker of its polls.
        updates: state of the breaker of its updates.
        state: ``backlogged``, ``caught up``, ``slow`` or ``suspect``, the first that is true of any worker.
        executing: tasks of it that run.
        held: tasks of it that have arrived and not started.
        in_flight: tasks its live polls asked for.
        started: tasks of it that have started so far.
        waiting: results that wait to be delivered to it.
    """

    polls: str
    updates: str
    state: str
    executing: int
    held: int
    in_flight: int
    started: int
    waiting: int

    @classmethod
    def of(cls, view: EndpointView) -> "ServerView":
        """The same in the words of Conductor."""
        fields = attrs.asdict(view)
        return cls(updates=fields.pop("sends"), **fields)


@attrs.frozen(kw_only=True)
class StopReport:
    """How a runner ended.

    Attributes:
        left: results that no server had taken when the grace ended.
        saved: how many of those stay in the outbox, for the next worker to send; 0 if stopping was cut short.
        unfinished: tasks that were still running then.
        kept: un-started tasks that were not back when it had stopped; their server times them out.
        dead: results that their server refused for good while it ran; they are dead letters now.
        unreached: the servers that were polled and of which no poll ever succeeded, by name.
        books: what became of all tasks and results of its life, by server; two reports that differ in nothing else are
            equal.
    """

    left: int = 0
    saved: int = 0
    unfinished: int = 0
    kept: int = 0
    dead: int = 0
    unreached: tuple[str, ...] = ()
    books: Mapping[str, Books] = attrs.field(factory=dict, eq=False, repr=False)

    @property
    def clean(self) -> bool:
        """Whether nothing was left anywhere, and no result was refused for good."""
        return not (self.left or self.unfinished or self.kept or self.dead)
