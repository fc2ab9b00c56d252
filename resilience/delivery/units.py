"""Sends for which the unit that brings the result waits: in its own thread, beside it, or as an exchange."""

import logging
import threading
from collections.abc import Callable

from resilience.delivery.attempt import Attempt, Chain
from resilience.delivery.config import RelayConfig
from resilience.delivery.keeper import Keeper
from resilience.delivery.ledger import Ledger
from resilience.delivery.routes import Exchange, Route
from resilience.delivery.sends import Sends

__all__ = ["Units"]

log = logging.getLogger("resilience.delivery")

Told = threading.Event


class Units:
    """Sends what units bring, while they wait. Thread-safe; every method returns whether the result was taken.

    Args:
        ledger: the accounts.
        keeper: takes what is the relay's from there on.
        sends: for those that run on another thread.
        config: the policy.
        drive: starts whoever looks after what takes too long.
    """

    def __init__(
        self, ledger: Ledger, keeper: Keeper, sends: Sends, config: RelayConfig, drive: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._keeper = keeper
        self._sends = sends
        self._config = config
        self._drive = drive

    def keep(self, attempt: Attempt) -> bool:
        """It is the relay's from here."""
        self._keeper.keep(attempt.route, attempt.parcel)
        self._drive()
        return False

    def send_here(self, attempt: Attempt) -> bool:
        """In this thread: the destination keeps to its timeout."""
        try:
            attempt.send(attempt.parcel.timeout)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the destination's answer
            settled = self._ledger.settle(attempt, error)
        except BaseException:  # somebody ends this thread; the result must live on
            self._ledger.bar(attempt, None)
            self.keep(attempt)
            raise
        else:
            settled = self._ledger.settle(attempt, None)
        return self.keep(attempt) if settled.kept else settled.taken

    def send_apart(self, attempt: Attempt) -> bool:
        """On another thread, which can be left."""
        attempt.told = told = Told()
        self._sends.start(attempt, self._config.send_timeout, self._config.inline_timeout)
        try:
            told.wait(attempt.route.lane.health.patience())
        except BaseException:
            self._go_on(attempt, told)
            raise
        return self._go_on(attempt, told)

    def may_exchange(self, route: Route) -> bool:
        """One that has not come back is enough; and a breaker's probe is to be a plain send."""
        healthy = route.breaker is None or route.breaker.retry_at is None
        return healthy and not route.astray

    def exchange(self, attempt: Attempt, exchange: Exchange, chain: Chain) -> bool:
        """In this thread, which goes on with what that brings; see `Watch`."""
        parcel = attempt.parcel
        self._drive()
        try:
            brought = exchange(parcel.payload, self._config.send_timeout)
            values = None if brought is None else list(brought)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the destination's answer
            settled = self._ledger.settle(attempt, error)
        except BaseException:  # somebody ends this thread; the result must live on
            self._ledger.bar(attempt, None)
            if not attempt.left:
                self.keep(attempt)
            raise
        else:
            settled = self._ledger.settle(attempt, None, parcel.grace if values == [] else 0.0)
            if values is not None:
                chain.chain(values)
        if settled.kept and not attempt.left:
            self.keep(attempt)
        return settled.taken

    def look_after(self) -> None:
        """See to exchanges that take too long: their units are to leave, and those that were left have failed."""
        leaving, failed = self._ledger.overstayed(self._config.inline_timeout)
        for attempt in leaving:
            self._leave(attempt)
        for attempt in failed:
            self._ledger.time_out(attempt, self._config.inline_timeout)

    def _leave(self, attempt: Attempt) -> None:
        """The unit of an exchange waits no longer; the relay has the result."""
        try:
            attempt.chain.leave()  # type: ignore[union-attr] # exchanges have one
        except Exception:  # somebody else's code: the relay must go on
            log.exception("a unit could not be freed")
        self._keeper.keep(attempt.route, attempt.parcel)

    def _go_on(self, attempt: Attempt, told: threading.Event) -> bool:
        """The unit waits no longer; an attempt that still runs is the relay's from here."""
        if self._ledger.detach(attempt):
            return self.keep(attempt)
        told.wait()
        settled = attempt.settled
        if settled is None or settled.kept:
            return self.keep(attempt)
        return settled.taken
