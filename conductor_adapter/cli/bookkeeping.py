"""The counts of a server as a sentence: what became of its tasks and of their results. Pure."""

from typing import Any

import attrs

from conductor_adapter.cli.lines import counted
from conductor_adapter.running import Books

__all__ = ["books_facts", "books_sentence"]

Part = tuple[int | None, str]


def books_sentence(books: Books, failed: int = 0) -> str:
    """For people: the parts after the colon add up to the polled tasks; ``failed`` of the finished ones failed."""
    polled = f"{counted(books.polled, 'task')} polled"
    delivered = f"{counted(books.updated, 'result')} delivered"
    places: list[Part] = [
        (books.finished, f"finished ({failed} failed)" if failed else "finished"),
        (books.given_back, "given back"),
        (books.giving_back, "being given back"),
        (books.kept, "could not be given back"),
        (books.dropped, "dropped after losing their lease"),
        (books.held, "not started"),
        (books.unfinished, "still running"),
    ]
    results: list[Part] = [
        (None, delivered),
        (books.waiting, "waiting"),
        (books.dead, "refused permanently"),
        (books.outboxed, "sent through the outbox"),
        (books.inherited, "taken over from an earlier process"),
        (books.passed, "taken over by another process"),
    ]
    notes: list[Part] = [
        (books.late, "arrived late"),
        (books.re_executed, "were retries"),
        (books.lost_lease, "lost the lease"),
        (books.repeated, "reported again after a heartbeat"),
    ]
    tasks = f"{polled}: {_parts(places)}" if books.polled else polled
    return "; ".join(part for part in (tasks, _parts(results), _parts(notes)) if part)


def books_facts(books: Books) -> dict[str, Any]:
    """For machines."""
    return {**attrs.asdict(books), "balanced": books.balanced}


def _parts(parts: list[Part]) -> str:
    """The parts whose count is not 0; a count of None means that the words contain it."""
    return ", ".join(words if count is None else f"{count} {words}" for count, words in parts if count != 0)
