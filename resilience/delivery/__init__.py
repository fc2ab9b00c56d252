"""Results that must arrive: sent at once where that is quick, else written down and sent until they are taken.

Decided without I/O: ``schedule`` has a lane per destination, ``health`` knows how that is, ``parcel`` is what travels.
Kept: the rows of ``outbox``. Done on threads: ``threads`` is what a user sees, ``ledger`` has the accounts, ``sends``
runs attempts; ``routes`` joins destinations to lanes and tells of events, for every driver.
"""

from resilience.delivery.config import RelayConfig
from resilience.delivery.outbox import DeadLetter, MemoryStore, Row, Store
from resilience.delivery.routes import Destination
from resilience.delivery.threads import Relay

__all__ = ["DeadLetter", "Destination", "MemoryStore", "Relay", "RelayConfig", "Row", "Store"]
