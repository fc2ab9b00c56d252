"""Changes to a poller while it runs (rule P7): the part of its driver that takes them from others."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from resilience.polling.planner import PollPlanner
from resilience.polling.source import Source

__all__ = ["Changing"]

V = TypeVar("V")


class Changing(Generic[V]):
    """What a poller lets others change while it runs; a base of `Poller`, which brings the planner and its lock."""

    _sources: dict[str, Source[Any]]
    _capacity: int
    _step: Callable[[Callable[[PollPlanner, float], None], int], object]
    _resized: Callable[[], None]

    def add(self, source: Source[V]) -> None:
        """Poll one more source from now on; the name of one that was removed may come again.

        Raises:
            ValueError: there is a source of this name, or the reserves leave no unit for everybody (TypeError: it is
                no source).
        """

        def tell(planner: PollPlanner, _: float) -> None:
            planner.add(source)
            self._sources[source.name] = source

        self._step(tell, 0)

    def remove(self, name: str) -> None:
        """Poll the source called ``name`` no more.

        Its un-started items go back to it, and so does what its polls in flight bring, however late; running ones
        finish, and `view` tells of them until then.

        Raises:
            ValueError: there is none of this name.
        """

        def tell(planner: PollPlanner, _: float) -> None:
            planner.remove(name)
            del self._sources[name]

        self._step(tell, 0)

    def pause(self, name: str) -> None:
        """Send no polls to the source called ``name`` until `resume`; what it brought before runs.

        Raises:
            ValueError: there is none of this name.
        """
        self._step(lambda planner, _: planner.pause(name), 0)

    def resume(self, name: str) -> None:
        """Poll the source called ``name`` again.

        Raises:
            ValueError: there is none of this name.
        """
        self._step(lambda planner, _: planner.resume(name), 0)

    def set_weight(self, name: str, weight: int) -> None:
        """Change the claim of the source called ``name`` to the capacity.

        Raises:
            ValueError: there is none of this name, or a weight below 1 (TypeError: no whole number).
        """
        self._step(lambda planner, _: planner.set_weight(name, weight), 0)

    def set_capacity(self, capacity: int) -> None:
        """Change how many items may execute at once, and the number of threads that `start` made.

        With fewer, running items finish, and nothing starts until there is room.

        Raises:
            ValueError: below 1, or the reserves leave none for everybody (TypeError: no whole number).
            RuntimeError: the system has no threads for so many units; the capacity is what it was then.
        """
        before = self._capacity

        def tell(planner: PollPlanner, _: float, units: int = capacity) -> None:
            planner.set_capacity(units)
            self._capacity = units

        self._step(tell, 0)
        try:
            self._resized()
        except RuntimeError as error:
            self._step(lambda planner, now: tell(planner, now, before), 0)
            self._resized()
            raise RuntimeError(f"there are no threads for {capacity} units, it stays at {before}: {error}") from error
