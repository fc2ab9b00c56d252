"""The books of a server in words: what became of its tasks, place by place, and of their results. Pure."""

from typing import Any

import attrs

from conductor_adapter.cli.lines import counted
from conductor_adapter.running import Books

__all__ = ["books_facts", "books_sentence"]

Part = tuple[int | None, str]


def books_sentence(books: Books, failed: int = 0) -> str:
    """For people: what was polled is the sum of the parts behind the colon; of those that finished ``failed`` did."""
    polled = f"{counted(books.polled, 'task')} polled"
    delivered = f"{counted(books.updated, 'result')} delivered"
    places: list[Part] = [
        (books.finished, f"finished ({failed} failed)" if failed else "finished"),
        (books.given_back, "given back"),
        (books.giving_back, "not back yet"),
        (books.kept, "not taken back"),
        (books.dropped, "dropped with a lost lease"),
        (books.held, "not started"),
        (books.unfinished, "still running"),
    ]
    results: list[Part] = [
        (None, delivered),
        (books.waiting, "waiting"),
        (books.dead, "refused for good"),
        (books.outboxed, "by way of the outbox"),
        (books.inherited, "of a former process"),
        (books.passed, "left to another process"),
    ]
    notes: list[Part] = [
        (books.late, "came late"),
        (books.re_executed, "had been tried before"),
        (books.lost_lease, "lost the lease"),
        (books.repeated, "reported once more after a heartbeat"),
    ]
    tasks = f"{polled}: {_parts(places)}" if books.polled else polled
    return "; ".join(part for part in (tasks, _parts(results), _parts(notes)) if part)


def books_facts(books: Books) -> dict[str, Any]:
    """For machines."""
    return {**attrs.asdict(books), "balanced": books.balanced}


def _parts(parts: list[Part]) -> str:
    """Those of which there is any; None stands for a part that counts for itself."""
    return ", ".join(words if count is None else f"{count} {words}" for count, words in parts if count != 0)
