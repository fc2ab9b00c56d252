"""A server's token: who may fetch a new one, and when. It makes no calls itself."""

import math
import threading
from collections.abc import Callable

import attrs

__all__ = ["Token", "TokenKeeper"]

RENEW_AGAIN = 60.0  # seconds until a renewal that failed is tried again while the old token still works
RENEWAL_LIMIT = 30.0  # seconds after which a renewal that reported nothing has died with its thread


@attrs.frozen
class Token:
    """What came of the last token call.

    Attributes:
        value: goes into X-Authorization; None when the server has no auth.
        renew_at: clock time from which a new one is fetched while this one still works.
    """

    value: str | None = attrs.field(repr=False)
    renew_at: float


class TokenKeeper:
    """A server's token: who may fetch one, and when. The lock guards assignments only, never a call."""

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self.current: Token | None = None
        self.recent: tuple[str, ...] = ()  # calls under way may still carry, and an answer quote, the one before
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._claimed_until = -math.inf

    def is_due(self, token: Token) -> bool:
        """Whether a token that still works should be renewed."""
        return self._clock() >= token.renew_at

    def claim(self, seen: Token | None) -> bool:
        """Whether the caller is the one to replace ``seen``; it must end with ``store`` or ``give_up``."""
        now = self._clock()
        with self._lock:
            if now < self._claimed_until or not self._is_current(seen):
                return False
            self._claimed_until = now + RENEWAL_LIMIT
            return True

    def replaced(self, seen: Token) -> Token | None:
        """The token that somebody else has put in the place of ``seen``, if so."""
        return None if self._is_current(seen) else self.current

    def store(self, value: str | None) -> Token:
        """The renewal succeeded."""
        token = Token(value, self._clock() + self._ttl)
        with self._lock:
            self.current, self._claimed_until = token, -math.inf
            self.recent = self.recent if value is None else (value, *self.recent[:1])
        return token

    def give_up(self) -> None:
        """The renewal failed: a token that may still work is kept, and the next renewal comes a bit later."""
        with self._lock:
            if self.current is not None:
                self.current = Token(self.current.value, self._clock() + RENEW_AGAIN)
            self._claimed_until = -math.inf

    def _is_current(self, seen: Token | None) -> bool:
        current = self.current
        return current is seen or (current is not None and seen is not None and current.value == seen.value)
