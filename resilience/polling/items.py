"""Items: polled values on their way through a unit."""

from collections.abc import Callable  # noqa: TC003 - annotations are read at run time
from typing import Generic, TypeVar

__all__ = ["Item"]

V = TypeVar("V")


class Item(Generic[V]):
    """One polled value, which holds a unit until `done` or `give_back`. Made by a poller.

    A context manager that is done at the end. Thread-safe: whichever of the two is called first has its effect.

    Attributes:
        value: what the source brought.
        source: the name of the source it came from.
        ended: whether its unit is free again; for the poller, under its lock.
    """

    __slots__ = ("_finish", "ended", "source", "value")

    def __init__(self, source: str, value: V, finish: "Callable[[Item[V], bool], None]") -> None:
        self.source = source
        self.value = value
        self.ended = False
        self._finish = finish

    def __repr__(self) -> str:
        return f"Item({self.source!r}, {self.value!r})"

    def done(self) -> None:
        """Free the unit."""
        self._finish(self, False)  # noqa: FBT003 - the callback's only flag

    def give_back(self) -> None:
        """Free the unit and return the value to its source, as if it had never started."""
        self._finish(self, True)  # noqa: FBT003 - the callback's only flag

    def __enter__(self) -> "Item[V]":
        return self

    def __exit__(self, *_: object) -> None:
        self.done()
