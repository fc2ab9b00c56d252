"""Defects for the simulation to find: each is a line or two of the program put wrong, as it could be by mistake."""

from collections.abc import Callable
from typing import Any

import pytest

from conductor_adapter import protocol
from conductor_adapter.protocol import Meaning
from conductor_adapter.running.links import Link
from conductor_adapter.transports import drive
from resilience.delivery import Relay
from resilience.delivery.schedule import Lane
from resilience.polling import PollPlanner
from resilience.polling.units import Units

Patch = pytest.MonkeyPatch
PLANTED: dict[str, tuple[str, Callable[[Patch], None]]] = {}  # what is found, and what plants it, by name


def planted(found: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a defect and a word of what is found."""

    def register(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        PLANTED[plant.__name__] = found, plant
        return plant

    return register


@planted("times something was done")
def lost_late_answer(patch: Patch) -> None:
    """What a poll brings after it was abandoned is dropped."""
    answered = PollPlanner.answered

    def drop(self: Any, request: Any, values: Any, now: float) -> None:
        late = request.number in self._tracks[request.source].abandoned
        answered(self, request, () if late else values, now)

    patch.setattr(PollPlanner, "answered", drop)


@planted("misrouted")
def default_route(patch: Patch) -> None:
    """Results go where a table of polled tasks says; to the first server if it says nothing."""
    table: dict[str, str] = {}
    poll, deliver = Link._poll, Relay.deliver

    def note(self: Any, *asked: Any) -> Any:
        tasks = poll(self, *asked)
        table.update((task.task_id, self.name) for task in tasks)
        return tasks

    patch.setattr(Link, "_poll", note)
    patch.setattr(
        Relay, "deliver", lambda self, _, key, *more, **how: deliver(self, table.get(key, "a"), key, *more, **how)
    )


@planted("misrouted")
def route_dropped_at_the_first_update(patch: Patch) -> None:
    """A result that is sent once more goes to the server that was made last."""
    lines: list[Any] = []
    sent: set[str] = set()
    init = Link.__init__

    def made(self: Any, *how: Any) -> None:
        init(self, *how)
        lines.append(self.transport)

    def send(self: Any, result: Any, timeout: float) -> None:
        line = lines[-1] if result.task_id in sent else self.transport
        sent.add(result.task_id)
        drive(self.server.update(result), line, timeout)

    patch.setattr(Link, "__init__", made)
    patch.setattr(Link, "_send", send)


@planted("given back")
def stale_give_back(patch: Patch) -> None:
    """A give-back that failed is tried again, when the task may be another's."""
    give_back = Link._give_back

    def again(self: Any, tasks: Any) -> None:
        try:
            give_back(self, tasks)
        except Exception:  # noqa: BLE001
            give_back(self, tasks)

    patch.setattr(Link, "_give_back", again)


@planted("second send")
def sent_twice_at_once(patch: Patch) -> None:
    """A result whose attempt is past its timeout is sent again while that still runs."""
    time_out = Lane.time_out

    def line_up(self: Any, parcel: Any, error: TimeoutError, now: float) -> Any:
        settled = time_out(self, parcel, error, now)
        self._line_up(parcel)
        return settled

    patch.setattr(Lane, "time_out", line_up)


@planted("never refused it")
def dead_letter_on_a_proxys_404(patch: Patch) -> None:
    """Every 404 but those that say something else means that the server does not know the task."""
    somebodys = (404,), lambda answer: not protocol.own_message(answer), Meaning.UNKNOWN_ID
    patch.setattr(protocol, "_TABLE", (somebodys, *protocol._TABLE))


@planted("tasks at once")
def capacity_over_granted(patch: Patch) -> None:
    """One unit more than was asked for."""
    resize = Units.resize
    patch.setattr(Units, "resize", lambda self, count: resize(self, count + 1))
    patch.setattr("resilience.polling.roster.check_capacity", lambda capacity: capacity + 1)


@planted("not at rest")
def a_timeout_taken_for_success(patch: Patch) -> None:
    """An update without an answer is not repeated."""
    settle = Lane.settle

    def forgive(self: Any, parcel: Any, error: Any, now: float, waited: float = 0.0) -> Any:
        silent = error is not None and "no answer in time" in str(error)
        return settle(self, parcel, None if silent else error, now, waited)

    patch.setattr(Lane, "settle", forgive)


@planted("not at rest")
def unit_not_freed(patch: Patch) -> None:
    """A unit that is left by a late exchange is not freed."""
    patch.setattr(Units, "leave", lambda _, item: item.end())


class Apart(str):
    """A key that is equal to no other."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@planted("second send")
def order_broken(patch: Patch) -> None:
    """Every result has a line of its own."""
    admit = Lane.admit
    patch.setattr(Lane, "admit", lambda self, key, *more, **how: admit(self, Apart(key), *more, **how))
