"""BreakerRegistry: one breaker per name, created on first use, with a bound that never loses relevant state."""

import itertools
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Never

from resilience._checks import check_plain, check_whole
from resilience.breaker import BreakerConfig, CircuitBreaker
from resilience.events import BreakerChanged

__all__ = ["BreakerRegistry"]

LOOKED_AT = 8
"""Number of breakers examined for eviction per new name: constant, so that many names do not cost more each."""

log = logging.getLogger("resilience")


class BreakerRegistry:
    """A circuit breaker for each name; thread-safe, and without a lock for a known name.

    When there are more than ``max_size`` names, it evicts, oldest first, breakers that are closed, have no failures,
    are not forced, and are not referenced, not even by a call in flight. If there are none, it grows rather than forget
    a failing dependency, and logs a warning.

    Args:
        config: the policy for every name that is not in ``configs``.
        configs: policies by exact name or, with a ``*`` at the end, by prefix. The exact name wins, then the longest
            prefix.
        max_size: number of breakers to keep, at least 1.
        clock: returns monotonic seconds, for all breakers.
        rng: the source of the jitter, for all breakers.
        on_event: called with the events of all breakers.

    Raises:
        ValueError: ``max_size`` is below 1.
        TypeError: ``max_size`` is not an integer, or a configuration is not a ``BreakerConfig``.
    """

    def __init__(  # noqa: PLR0913 - the options of all breakers, by keyword
        self,
        config: BreakerConfig = BreakerConfig(),  # noqa: B008 - frozen
        *,
        configs: Mapping[str, BreakerConfig] = MappingProxyType({}),
        max_size: int = 1024,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_event: Callable[[BreakerChanged], None] | None = None,
        **misplaced: Never,
    ) -> None:
        if misplaced:
            raise TypeError(
                f"BreakerRegistry() has no option {next(iter(misplaced))!r}: options of breakers belong in a "
                "configuration; write BreakerRegistry(BreakerConfig(...)), or configs={name: BreakerConfig(...)}"
            )
        check_whole("max_size", max_size, least=1)
        for policy in (config, *configs.values()):
            if not isinstance(policy, BreakerConfig):
                raise TypeError(f"a breaker's configuration must be a BreakerConfig, not {policy!r}: create one")
        self._config = config
        self._exact = {name: policy for name, policy in configs.items() if not name.endswith("*")}
        prefixes = [(name[:-1], policy) for name, policy in configs.items() if name.endswith("*")]
        self._prefixes = sorted(prefixes, key=lambda entry: len(entry[0]), reverse=True)
        self._max_size = max_size
        self._clock = clock
        self._rng = rng
        if on_event is not None:
            check_plain("on_event", on_event)
        self._on_event = on_event
        self._breakers: dict[str, CircuitBreaker] = {}
        self._lock = threading.Lock()
        self._grown = False
        _registries.add(self)

    def get(self, name: str) -> CircuitBreaker:
        """The breaker named ``name``; always the same one while it is referenced or has state."""
        return self._breakers.get(name) or self._add(name)

    def config_for(self, name: str) -> BreakerConfig:
        """The policy that applies to ``name``."""
        if name in self._exact:
            return self._exact[name]
        return next((policy for prefix, policy in self._prefixes if name.startswith(prefix)), self._config)

    def __len__(self) -> int:
        with self._lock:
            return len(self._breakers)

    def __iter__(self) -> Iterator[str]:
        """The names, oldest first, as they are now."""
        with self._lock:
            return iter(tuple(self._breakers))

    def __contains__(self, name: object) -> bool:
        with self._lock:
            return name in self._breakers

    def _add(self, name: str) -> CircuitBreaker:
        with self._lock:
            known = self._breakers.get(name)
            if known is not None:
                return known
            if len(self._breakers) >= self._max_size:
                self._evict()
            made = CircuitBreaker(
                name, self.config_for(name), clock=self._clock, rng=self._rng, on_event=self._on_event
            )
            self._breakers[name] = made
            outgrown = len(self._breakers) > self._max_size and not self._grown
            self._grown = self._grown or outgrown
        if outgrown:
            log.warning(
                "more than max_size=%d circuit breakers are in use or have failures (latest: %r); none is evicted: "
                "raise max_size, or find out where so many names come from",
                self._max_size,
                name,
            )
        return made

    def _evict(self) -> None:
        for name in tuple(itertools.islice(self._breakers, LOOKED_AT)):
            if self._breakers[name].is_clean:
                # Idle means that nothing else references it, neither a caller nor the permit of a call in flight: then
                # it is gone with our own reference. This needs no counter that every call would have to update.
                held = weakref.ref(self._breakers.pop(name))
                breaker = held()
                if breaker is not None:
                    self._breakers[name] = breaker
                elif len(self._breakers) < self._max_size:
                    return
            else:  # move it to the end, so that others are examined next time
                self._breakers[name] = self._breakers.pop(name)

    def _after_fork(self) -> None:
        """In a child process: the parent's threads, one of which might have held the lock, do not exist here."""
        self._lock = threading.Lock()


_registries: "weakref.WeakSet[BreakerRegistry]" = weakref.WeakSet()


def _after_fork() -> None:
    for registry in list(_registries):
        registry._after_fork()  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_after_fork)
