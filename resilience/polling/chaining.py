"""Chaining: whether a unit may go on with the next item of its source, without a poll (rules P2, P4, P5 and P11).

A source may hand out its next item with the answer to a result. That saves a poll, but the unit stays with the source:
it may only while nobody else has a better claim to the unit, that is, while the planner would give it back anyway.
"""

import enum
from collections.abc import Sequence

from resilience.polling.pausing import Pausing
from resilience.polling.sharing import Sharing, share_of
from resilience.polling.track import Track

__all__ = ["Turn", "may_go_on", "note_answer"]


class Turn(enum.Enum):
    """Whose turn it is when an item ends."""

    NOBODY_ELSES = "nobody else's"  # and so it stays until something happens
    ITS = "its own"
    OVER = "somebody else's"


def may_go_on(track: Track, sharers: Sequence[Track], takers: Sequence[Track], sharing: Sharing, capacity: int) -> Turn:
    """Whether ``track`` may go on with a unit of its own while ``takers``, who are due, divide the capacity as well.

    Not if it has more than its share, or one of the others less. Shares are rounded up: who misses no more than the
    last unit of its share may have all that it should, and the credit says when that has gone on for long enough.
    """
    if track.slow or track not in sharers or track.units > share_of(sharers, track, capacity):
        return Turn.OVER
    missing = {t: share_of(sharers, t, capacity) - t.units for t in takers if t is not track}
    short = [taker for taker, units in missing.items() if units > 0]
    if not short:
        return Turn.NOBODY_ELSES
    if max(missing.values()) > 1 or any(taker.is_owed for taker in short):
        return Turn.OVER
    empty = [taker for taker in short if not taker.units]
    if empty:
        return Turn.ITS if sharing.in_turn([track, *empty], capacity)[0] is track else Turn.OVER
    own = sharing.credit(track.name)
    return Turn.ITS if all(sharing.credit(taker.name) < own + 1 for taker in short) else Turn.OVER


def note_answer(track: Track, count: int, pausing: Pausing, now: float) -> None:
    """Note what came with the answer to a result: one item was asked for, so that one is a full answer.

    Only what changes the source's state is news: an empty answer beside others that are on their way grows no pause,
    and of a source whose polls fail it says nothing.
    """
    if track.suspect or track.full == (count > 0):
        return
    track.full = count > 0
    pausing.after_answer(track, count, 0.0, 0.0, now)
    if not count:
        track.debt = track.owed = 0
