"""Primitives for programs that call or poll several unreliable services at once.

The layers, from the bottom up; each imports only those below it:

* values: `errors`, `outcomes`, `events`
* decisions: `allocation` (exact shares), `backoff`, `leases`, `breaker`, `registry`
* `fan_out`: many calls, one deadline
* `polling`: many sources, one capacity; `delivery`: results that must arrive
* `consumer`: poll, handle, answer

Each folder has a pure engine that makes the decisions and thin drivers that carry them out. Import from here.
"""

from resilience._texts import guard_loggers
from resilience.allocation import CapacityAllocator, allocate
from resilience.backoff import Backoff
from resilience.breaker import BreakerConfig, CircuitBreaker, Permit
from resilience.consumer import (
    Consumer,
    ConsumerConfig,
    ConsumerReport,
    Endpoint,
    EndpointCounts,
    EndpointView,
    Phase,
    Work,
)
from resilience.delivery import (
    Claimed,
    DeadLetter,
    Destination,
    DestinationView,
    MemoryStore,
    Outbox,
    Relay,
    RelayConfig,
    Row,
    Stock,
    Store,
)
from resilience.errors import (
    AnswerTooLarge,
    BreakerOpenError,
    Incomplete,
    OutboxError,
    Refused,
    ResilienceError,
    Throttled,
    Undeliverable,
)
from resilience.events import (
    BacklogDrained,
    BacklogFull,
    BreakerChanged,
    BreakerState,
    DeadLettered,
    DeliveryFailed,
    DeliveryRefused,
    DeliveryResumed,
    Event,
    GaveBack,
    GiveBackFailed,
    HandlerFailed,
    ItemsArrived,
    ItemsArrivedLate,
    LeaseGivenUp,
    LeaseLost,
    Listener,
    OutboxFailed,
    OutboxResumed,
    PollFailed,
    PollOverdue,
    PollTimedOut,
    RowsKept,
    SurplusArrived,
    ThreadUnavailable,
    Undelivered,
)
from resilience.fan_out import FanOutExecutor, Session
from resilience.outcomes import Cancelled, Failed, Outcome, Rejected, TimedOut, Value
from resilience.polling import (
    Explanation,
    Item,
    PollConfig,
    Poller,
    PollPlanner,
    PollRequest,
    Source,
    SourceView,
    Tally,
    Why,
)
from resilience.registry import BreakerRegistry

__all__ = [
    "AnswerTooLarge",
    "BacklogDrained",
    "BacklogFull",
    "Backoff",
    "BreakerChanged",
    "BreakerConfig",
    "BreakerOpenError",
    "BreakerRegistry",
    "BreakerState",
    "Cancelled",
    "CapacityAllocator",
    "CircuitBreaker",
    "Claimed",
    "Consumer",
    "ConsumerConfig",
    "ConsumerReport",
    "DeadLetter",
    "DeadLettered",
    "DeliveryFailed",
    "DeliveryRefused",
    "DeliveryResumed",
    "Destination",
    "DestinationView",
    "Endpoint",
    "EndpointCounts",
    "EndpointView",
    "Event",
    "Explanation",
    "Failed",
    "FanOutExecutor",
    "GaveBack",
    "GiveBackFailed",
    "HandlerFailed",
    "Incomplete",
    "Item",
    "ItemsArrived",
    "ItemsArrivedLate",
    "LeaseGivenUp",
    "LeaseLost",
    "Listener",
    "MemoryStore",
    "Outbox",
    "OutboxError",
    "OutboxFailed",
    "OutboxResumed",
    "Outcome",
    "Permit",
    "Phase",
    "PollConfig",
    "PollFailed",
    "PollOverdue",
    "PollPlanner",
    "PollRequest",
    "PollTimedOut",
    "Poller",
    "Refused",
    "Rejected",
    "Relay",
    "RelayConfig",
    "ResilienceError",
    "Row",
    "RowsKept",
    "Session",
    "Source",
    "SourceView",
    "Stock",
    "Store",
    "SurplusArrived",
    "Tally",
    "ThreadUnavailable",
    "Throttled",
    "TimedOut",
    "Undeliverable",
    "Undelivered",
    "Value",
    "Why",
    "Work",
    "allocate",
]

guard_loggers("resilience", "resilience.delivery")  # their messages can quote untrusted text
