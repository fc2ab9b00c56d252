"""Sampling of repeated lines: the first few of a kind, then a count every now and then. Pure."""

import attrs

__all__ = ["Sampler"]

Key = tuple[str, str]  # kind and server


@attrs.define
class _Repeated:
    """The state of one key."""

    seen_at: float
    said: int = 0
    unsaid: int = 0
    gap: float = 0.0
    next_at: float = 0.0


class Sampler:
    """Decides which lines are printed: at most a few hundred a day per key, however many there are.

    The first ``first`` lines of a key are printed. The next one is printed ``shortest`` seconds after the last one,
    then after twice as long, and so on up to ``longest``, each with the number of lines that were left out. A key
    without lines for ``longest`` seconds starts anew.
    """

    def __init__(self, *, first: int = 3, shortest: float = 10.0, longest: float = 600.0) -> None:
        self._first = first
        self._shortest = shortest
        self._longest = longest
        self._keys: dict[Key, _Repeated] = {}

    def admit(self, key: Key, now: float) -> int | None:
        """The number of lines of ``key`` left out before this one, to be printed at ``now``; None to leave it out."""
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
        """The number of lines of each key that were left out since the last printed one."""
        return {key: known.unsaid for key, known in self._keys.items() if known.unsaid}

    def _say(self, known: _Repeated, now: float) -> int:
        known.said += 1
        if known.said > self._first:
            known.gap = min(2 * known.gap, self._longest)
        known.next_at = now + known.gap
        left_out, known.unsaid = known.unsaid, 0
        return left_out
