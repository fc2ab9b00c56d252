"""What is known of a destination, and how fast it may be tried: without clock, lock, thread or I/O.

A destination is **failing** (its last attempt failed), **slow** (its last answer took too long) or **overdue** (there
are attempts in flight, and no answer for longer than is usual here), or it is prompt. Any answer proves it alive and
says how fast it is: that is how a slow destination becomes prompt again, by the relay's attempts.
"""

import math
import random
from collections.abc import Sequence

from resilience.backoff import Backoff
from resilience.delivery.config import RelayConfig

__all__ = ["Health"]

_FEW = 3  # with fewer attempts in flight a stall costs too little to be hasty about
_LONE_TOLERANCE = 0.05  # seconds; a pause of the garbage collector or of the interpreter is no stall
_TOLERANCE = 0.005  # seconds; below this a thread's turn is all that is measured
_PATIENCE = 0.1  # seconds a unit waits at least for an attempt that is not the first to find out
_UNTRIED_AFTER = 0.5  # seconds after a failure until a result that was never tried may be, whatever the pause


class Health:
    """One destination's condition and pace. Not thread-safe.

    Args:
        config: the policy.
        rng: where jitter is drawn from.
    """

    def __init__(self, config: RelayConfig, rng: random.Random) -> None:
        self.failing = False
        self.slow = False
        self._config = config
        self._rng = rng
        self._backoff = Backoff(
            initial=config.retry_initial, maximum=config.retry_maximum, max_retry_after=config.max_retry_after
        )
        self._struck: set[int] = set()  # results whose failure was news, since the last sign of life
        self._struck_at = -math.inf
        self._strikes = 0  # since then, of all of them
        self._throttles = 0
        self._retry_at = -math.inf
        self._barred_until = -math.inf
        self._failed_at = -math.inf  # or was throttled
        self._guessed_until = -math.inf  # a pause was asked for, and its length left to us
        self._quiet_until = -math.inf  # asked for by the destination: no sign of life shortens it
        self._heard_at = -math.inf
        self._usual: float | None = None
        self._deviation = 0.0

    def well(self, now: float) -> bool:
        """Neither failing nor slow nor in a pause."""
        return not (self.failing or self.slow or now < max(self._retry_at, self._barred_until, self._paused_until()))

    def overdue(self, started: float, in_flight: int, now: float) -> bool:
        """Whether the silence is longer than usual; ``started`` is when the oldest of ``in_flight`` attempts did.

        Usual are the mean time and four mean deviations, as for TCP's retransmission timer (RFC 6298): it sees a stall
        long before anything fails, so that few units find out by hanging. One straggler among answers is no stall.
        """
        usual = 0.0 if self._usual is None else self._usual + 4 * self._deviation
        hasty = in_flight >= _FEW and self._usual is not None
        tolerance = max(usual, _TOLERANCE if hasty else _LONE_TOLERANCE)
        return now - max(started, self._heard_at) > min(tolerance, self._config.slow_after)

    def patience(self) -> float:
        """Seconds a unit should wait for an attempt that others can make in its place."""
        if self._usual is None:
            return self._config.inline_timeout
        return min(self._config.inline_timeout, max(_PATIENCE, 10 * self._usual))

    def answered(self, took: float, now: float) -> bool:
        """An answer came, of any kind; returns whether that ended the failing.

        It does not while the destination is in a pause it asked for: that answer was under way before.
        """
        self._heard_at = now
        self.slow = took > self._config.slow_after
        self._measure(min(took, self._config.slow_after))
        self._struck.clear()
        self._strikes = 0
        self._retry_at = self._barred_until = -math.inf
        if not self.failing or now < self._paused_until():
            return False
        self.failing = False
        self._throttles = 0
        return True

    def failed(self, number: int, started: float, now: float) -> None:
        """An attempt to send result ``number`` failed.

        Begun before the last failure was seen, it is part of the same stall. The pauses grow with the number of
        *different* results that failed, and then with each time that all of them did: one that always fails is no
        reason to keep the others waiting, and a destination that is gone is left in peace.
        """
        self.failing = True
        self._failed_at = now
        if started < self._struck_at:
            return
        self._struck.add(number)
        self._struck_at = now
        self._strikes += 1
        different = len(self._struck)
        rounds = self._strikes // different if different > 1 else 1  # one alone has its own pauses
        self._retry_at = now + self.pause(different + rounds - 1)

    def known_culprit(self, number: int) -> bool:
        """Whether result ``number`` failed before and is the only one that did."""
        return len(self._struck) == 1 and number in self._struck

    def throttled(self, retry_after: float, now: float) -> None:
        """The destination asked to be left alone for ``retry_after`` seconds (0: as long as we like)."""
        self.failing = True
        self._failed_at = now
        self._throttles += 1
        pause = self._backoff.delay(self._throttles, rng=self._rng, hint=retry_after)
        if retry_after > 0:
            self._quiet_until = max(self._quiet_until, now + pause)
        else:
            self._guessed_until = max(self._guessed_until, now + pause)

    def barred(self, pause: float | None, now: float) -> None:
        """An attempt was not let through, for ``pause`` seconds (None: unknown); look again after a short while."""
        if pause is None or not pause >= self._config.retry_initial:
            pause = self._config.retry_initial
        self._barred_until = max(self._barred_until, now + min(pause, self._config.retry_maximum))

    def hurry(self) -> None:
        """Forget the pauses; one whose length was asked for stands."""
        self._retry_at = self._barred_until = self._guessed_until = -math.inf

    def open_at(self, relayed: Sequence[float], *, overdue: bool, untried: bool = False) -> float:
        """From when on another attempt may be started, beside those of the relay that started at ``relayed``.

        The pause grows with the results that failed, and says nothing of one that is still ``untried``: those that
        always fail must not keep it waiting (rule D3).

        A failing or overdue destination gets one at a time. One that hangs must not keep the others from finding out
        that only their neighbour is ill: the second may start after ``slow_after``, each further one after twice as
        long, up to ``retry_maximum``.
        """
        at = max(self._retry_at, self._guessed_until)
        if untried:
            at = min(at, self._failed_at + _UNTRIED_AFTER)
        at = max(at, self._barred_until, self._quiet_until)
        if not (relayed and (self.failing or overdue)):
            return at
        pause = min(self._config.slow_after * 2.0 ** (len(relayed) - 1), self._config.retry_maximum)
        return max(at, max(relayed) + max(pause, self._config.slow_after))

    def pause(self, attempts: int) -> float:
        """Seconds to wait after failed attempt ``attempts``, counted from 1."""
        return self._backoff.delay(attempts, rng=self._rng)

    def _paused_until(self) -> float:
        return max(self._guessed_until, self._quiet_until)

    def _measure(self, took: float) -> None:
        if self._usual is None:
            self._usual, self._deviation = took, took / 2
            return
        self._deviation += (abs(took - self._usual) - self._deviation) / 4
        self._usual += (took - self._usual) / 8
