"""Repeated lines, sampled: the first few of a kind, then a count every now and then. Pure."""

import attrs

__all__ = ["Sampler"]

Key = tuple[str, str]  # kind and server


@attrs.define
class _Repeated:
    """What is known of one key."""

    seen_at: float
    said: int = 0
    unsaid: int = 0
    gap: float = 0.0
    next_at: float = 0.0


class Sampler:
    """Decides for each line whether it is said: at most a few hundred a day of one key, however often it comes.

    The first ``first`` lines of a key are said. After that one is said when ``shortest`` seconds have gone by since
    the last one, then twice as many, up to ``longest``, each with the number of those that were left out. A key that
    has been silent for ``longest`` seconds is news again.
    """

    def __init__(self, *, first: int = 3, shortest: float = 10.0, longest: float = 600.0) -> None:
        self._first = first
        self._shortest = shortest
        self._longest = longest
        self._keys: dict[Key, _Repeated] = {}

    def admit(self, key: Key, now: float) -> int | None:
        """Whether a line of ``key`` is said at ``now``: how many were left out before it, or None to leave it out."""
        known = self._keys.get(key)
        if known is None or now - known.seen_at >= self._longest:
            unsaid = 0 if known is None else known.unsaid
            self._keys[key] = _Repeated(seen_at=now, said=1, gap=self._shortest, next_at=now + self._shortest)
            return unsaid
        known.seen_at = now
        if known.said >= self._first and now < known.next_at:
            known.unsaid += 1
            return None
        return self._say(known, now)

    def unsaid(self) -> dict[Key, int]:
        """How many lines of each key were left out and not counted in a later one."""
        return {key: known.unsaid for key, known in self._keys.items() if known.unsaid}

    def _say(self, known: _Repeated, now: float) -> int:
        known.said += 1
        if known.said > self._first:
            known.gap = min(2 * known.gap, self._longest)
        known.next_at = now + known.gap
        left_out, known.unsaid = known.unsaid, 0
        return left_out
