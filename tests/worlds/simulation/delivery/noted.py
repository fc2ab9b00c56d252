"""An outbox that tells the judge what it says that it did."""

from typing import Any

from resilience.delivery import Outbox
from resilience.delivery.store import Row

from .judge import Judge


class Noted:
    """An outbox; what it has is noted once it says so."""

    def __init__(self, outbox: Outbox, judge: Judge) -> None:
        self._outbox = outbox
        self._judge = judge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)

    def put(self, row: Row) -> Row:
        """Write down."""
        kept = self._outbox.put(row)
        self._judge.written(row.payload.to_wire())
        return kept

    def remove(self, row: Row) -> None:
        """Forget."""
        self._judge.crossed_out(host_of(row.identity), row.payload.to_wire())
        self._outbox.remove(row)

    def bury(self, row: Row, reason: str) -> None:
        """Make a dead letter."""
        self._judge.crossed_out(host_of(row.identity), row.payload.to_wire())
        self._outbox.bury(row, reason)


def host_of(url: str) -> str:
    """The server that a URL leads to."""
    return url.split("//")[1].split(".", maxsplit=1)[0]
