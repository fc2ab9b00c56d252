"""Results that must arrive: sent at once where that is quick, else written down and sent until they are taken.

Decided without I/O: ``schedule`` has a lane per destination, ``health`` knows how that is, ``parcel`` is what travels,
``unwritten`` what should be on the disk and is not. Kept: the rows of a ``store``, in memory or in the file of an
``outbox``. Done on threads: ``threads`` is what a user sees, ``ledger`` has the accounts, ``units`` and ``sends`` run
attempts, ``keeper`` keeps hold of the rows; ``routes`` joins destinations to lanes and tells of events.
"""

from resilience.delivery.config import RelayConfig
from resilience.delivery.outbox import Outbox
from resilience.delivery.routes import Destination
from resilience.delivery.store import Claimed, DeadLetter, MemoryStore, Row, Stock, Store
from resilience.delivery.tally import DestinationView
from resilience.delivery.threads import Relay

__all__ = [
    "Claimed",
    "DeadLetter",
    "Destination",
    "DestinationView",
    "MemoryStore",
    "Outbox",
    "Relay",
    "RelayConfig",
    "Row",
    "Stock",
    "Store",
]
