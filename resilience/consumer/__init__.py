"""Poll, handle, answer: what a worker does, for any service.

An endpoint is both a source of items and the destination of what comes of them. A consumer polls all of its endpoints,
runs a handler on each item, and sends what the handler returns to where the item came from.

* ``endpoint``: what a user describes: `Endpoint` and `Work`.
* ``engine``: the pure core: the phases of a consumer's life, who may be polled, the stages of stopping.
* ``threads``: the driver on threads, over a `Poller` for each kind of work and one `Relay`.
"""

from resilience.consumer.endpoint import ConsumerConfig, Endpoint, Work
from resilience.consumer.engine import ConsumerReport, EndpointCounts, EndpointView, Phase
from resilience.consumer.threads import Consumer

__all__ = [
    "Consumer",
    "ConsumerConfig",
    "ConsumerReport",
    "Endpoint",
    "EndpointCounts",
    "EndpointView",
    "Phase",
    "Work",
]
