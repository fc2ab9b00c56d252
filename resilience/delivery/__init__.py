"""Results that must arrive: sent at once where that is quick, else written down and sent until they are taken.

The way of a result: ``threads`` asks ``schedule`` whether the unit that brought it may send it; if not, it goes into
the store of ``outbox`` and waits in its lane. ``health`` knows how its destination is.
"""

from resilience.delivery.config import RelayConfig
from resilience.delivery.outbox import DeadLetter, MemoryStore, Row, Store
from resilience.delivery.routes import Destination
from resilience.delivery.threads import Relay

__all__ = ["DeadLetter", "Destination", "MemoryStore", "Relay", "RelayConfig", "Row", "Store"]
