"""Attempts that run apart from whoever starts them, on the threads of a fan-out session."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from resilience.delivery.attempt import Attempt
from resilience.delivery.ledger import Ledger
from resilience.fan_out import FanOutExecutor
from resilience.outcomes import Cancelled, Failed, Outcome, Rejected, TimedOut

if TYPE_CHECKING:
    from resilience.fan_out import Session

__all__ = ["Sends"]

_BACKSTOP = 10  # the relay's own hanging sends are limited by their lane, those that units left by this many times more


class Sends:
    """Runs attempts and tells the ledger what came of them, early or late. Thread-safe.

    Args:
        ledger: is told.
        max_in_flight: the relay's own attempts per destination.
        clock: monotonic seconds.
    """

    def __init__(self, ledger: Ledger, max_in_flight: int, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._executor = FanOutExecutor(max_abandoned=_BACKSTOP * max_in_flight, clock=clock)
        self._session: Session = self._executor.session()

    def start(self, attempt: Attempt, timeout: float, fails_after: float) -> None:
        """Start the send with ``timeout``; without an answer it counts as failed after ``fails_after`` seconds."""
        destination = attempt.route.destination
        call = partial(attempt.send, timeout)
        arrived, late = partial(self._arrived, attempt), partial(self._late, attempt)
        try:
            self._session.submit(destination.name, call, fails_after, on_outcome=arrived, on_late=late)
        except RuntimeError:  # closed while this result was on its way in, or there is no thread to be had
            self._ledger.bar(attempt, None)

    def expire(self) -> float | None:
        """Note every attempt that has failed by now; returns the clock time of the next one that may."""
        return self._session.expire()

    def close(self) -> None:
        """Start nothing more; what runs may still come late."""
        self._session.close()
        self._executor.close()

    def _arrived(self, attempt: Attempt, key: str, outcome: Outcome[None]) -> None:
        if isinstance(outcome, TimedOut):
            self._ledger.time_out(attempt, outcome.timeout)
        elif not (isinstance(outcome, Cancelled) and self._ledger.closed):
            self._late(attempt, key, outcome)
        elif attempt.permit is not None:  # cut off by our closing: it may still run, and then comes late
            attempt.permit.release()

    def _late(self, attempt: Attempt, _: str, outcome: Outcome[None]) -> None:
        if isinstance(outcome, (Rejected, Cancelled)):
            self._ledger.bar(attempt, outcome.retry_after if isinstance(outcome, Rejected) else None)
        else:
            self._ledger.settle(attempt, outcome.error if isinstance(outcome, Failed) else None)
