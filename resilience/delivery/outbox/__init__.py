"""Results in a file: they outlive the process, and the next one sends them.

``claims`` decides, without I/O, whose a row is. ``outbox`` is what a user sees, ``desk`` one process at the file;
``commits`` brings the work of many threads into few transactions, ``statements`` has the SQL, ``database`` opens the
file and says what is wrong with it.
"""

from resilience.delivery.outbox.outbox import Outbox

__all__ = ["Outbox"]
