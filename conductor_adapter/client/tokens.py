"""A server's token, or the headers from a function: which caller renews them, and when. It makes no calls itself."""

import math
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

__all__ = ["Token", "TokenKeeper"]

V = TypeVar("V")

RENEW_AGAIN = 60.0  # seconds until a failed renewal is tried again while the old token still works
RENEWAL_LIMIT = 30.0  # seconds after which an unreported renewal is considered dead, with its thread


@attrs.frozen
class Token(Generic[V]):
    """The result of the last request for a token.

    Attributes:
        value: sent with every call; None if the server requires none.
        renew_at: clock time from which a new one is requested while this one still works.
    """

    value: V | None = attrs.field(repr=False)
    renew_at: float


class TokenKeeper(Generic[V]):
    """A server's token: which caller fetches it, and when. The lock guards only assignments, never a call."""

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self.current: Token[V] | None = None
        self.recent: tuple[V, ...] = ()  # calls in flight might still contain, and an answer quote, the previous one
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._claimed_until = -math.inf

    def is_due(self, token: Token[V]) -> bool:
        """Whether a token that still works should be renewed."""
        return self._clock() >= token.renew_at

    def claim(self, seen: Token[V] | None) -> bool:
        """Whether the caller should replace ``seen``; it must then call ``store`` or ``give_up``."""
        now = self._clock()
        with self._lock:
            if now < self._claimed_until or not self._is_current(seen):
                return False
            self._claimed_until = now + RENEWAL_LIMIT
            return True

    def replaced(self, seen: Token[V]) -> Token[V] | None:
        """The token with which another caller has replaced ``seen``, if any."""
        return None if self._is_current(seen) else self.current

    def store(self, value: V | None) -> Token[V]:
        """The renewal succeeded."""
        token = Token(value, self._clock() + self._ttl)
        with self._lock:
            self.current, self._claimed_until = token, -math.inf
            self.recent = self.recent if value is None else (value, *self.recent[:1])
        return token

    def give_up(self) -> None:
        """The renewal failed: a token that might still work is kept, and the next renewal is delayed."""
        with self._lock:
            if self.current is not None:
                self.current = Token(self.current.value, self._clock() + RENEW_AGAIN)
            self._claimed_until = -math.inf

    def _is_current(self, seen: Token[V] | None) -> bool:
        current = self.current
        return current is seen or (current is not None and seen is not None and current.value == seen.value)
