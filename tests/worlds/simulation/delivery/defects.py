"""Defects for the simulation to find: each is a line or two of the program put wrong, as it could be by mistake."""

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import attrs
import pytest

from conductor_adapter import TaskResult
from conductor_adapter.client import protocol
from conductor_adapter.client.operations import ConductorServer
from conductor_adapter.client.protocol import Meaning
from conductor_adapter.running.links import Link
from conductor_adapter.transports.base import drive
from resilience.delivery import Outbox, Relay, archive, ledger
from resilience.delivery.archive import Archive
from resilience.delivery.outbox.claims import Claim
from resilience.delivery.outbox.desk import Desk
from resilience.delivery.schedule import Lane
from resilience.delivery.store import Claimed
from resilience.polling import PollPlanner
from resilience.polling.units import Units

Patch = pytest.MonkeyPatch
PLANTED: dict[str, tuple[str, Callable[[Patch], None]]] = {}  # a pattern of what is found, and what plants it


def planted(found: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a defect and a pattern of what is found."""

    def register(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        PLANTED[plant.__name__] = found, plant
        return plant

    return register


@planted("something was done|not at rest")
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


@planted("never refused it|is forgotten")
def dead_letter_on_a_proxys_404(patch: Patch) -> None:
    """Every 404 but those that say something else means that the server does not know the task."""
    somebodys = (404,), lambda _answer, message: not message, Meaning.UNKNOWN_ID
    patch.setattr(protocol, "_TABLE", (somebodys, *protocol._TABLE))


@planted("never refused it|is forgotten")
def dead_letter_after_five_refusals(patch: Patch) -> None:
    """A result is given up once it has been refused a few times, in whatever time."""

    def refused(_: Any, parcel: Any, __: float) -> bool:
        parcel.refusals += 1
        return bool(parcel.refusals == 5)

    patch.setattr(Lane, "_is_refused_for_good", refused)


@planted("tasks at once")
def capacity_over_granted(patch: Patch) -> None:
    """One unit more than was asked for."""
    resize = Units.resize
    patch.setattr(Units, "resize", lambda self, count: resize(self, count + 1))
    patch.setattr("resilience.polling.roster.check_capacity", lambda capacity: capacity + 1)


@planted("not at rest|is forgotten")
def a_timeout_taken_for_success(patch: Patch) -> None:
    """An update without an answer is not repeated."""
    settle = Lane.settle

    def forgive(self: Any, parcel: Any, error: Any, now: float, waited: float = 0.0) -> Any:
        silent = error is not None and "no answer in time" in str(error)
        return settle(self, parcel, None if silent else error, now, waited)

    patch.setattr(Lane, "settle", forgive)


@planted("not at rest|its books say")
def unit_not_freed(patch: Patch) -> None:
    """A unit that is left by a late exchange is not freed."""
    patch.setattr(Units, "leave", lambda _, item: item.end())


class Apart(str):
    """A key that is equal to no other."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@planted("out of order|second send")
def order_broken(patch: Patch) -> None:
    """Every result has a line of its own."""
    admit = Lane.admit
    patch.setattr(Lane, "admit", lambda self, key, *more, **how: admit(self, Apart(key), *more, **how))


@planted("second send")
def double_claim(patch: Patch) -> None:
    """Rows of a process that lives are taken over."""
    patch.setattr(Claim, "good", lambda *_: False)


@planted("is forgotten")
def removed_before_sent(patch: Patch) -> None:
    """A row is deleted when its attempt begins."""
    relay = Relay._relay

    def forget(self: Any, route: Any, parcel: Any) -> None:
        if parcel.row is not None:
            self._store.remove(parcel.row)
        relay(self, route, parcel)

    patch.setattr(Relay, "_relay", forget)


@planted("not at rest")
def put_after_send(patch: Patch) -> None:
    """What waits is written down in the background, while the relay has it already."""
    put = Archive.put

    def later(self: Any, row: Any) -> Any:
        archive.threading.Thread(target=put, args=(self, row)).start()
        return row

    patch.setattr(archive, "threading", ledger.threading, raising=False)
    patch.setattr(Archive, "put", later)


@planted("not at rest")
def backlog_forgotten_after_a_restart(patch: Patch) -> None:
    """Nobody takes over what a former process left."""
    patch.setattr(Archive, "claim", lambda *_: Claimed())


@planted("not at rest")
def crossed_out_by_its_number(patch: Patch) -> None:
    """A row is deleted by its number in its process, and not by its id."""
    remove = Outbox.remove
    patch.setattr(Outbox, "remove", lambda self, row: remove(self, attrs.evolve(row, id=row.number)))


@planted("not at rest")
def dead_letter_thrown_away(patch: Patch) -> None:
    """What was refused for good is deleted."""
    patch.setattr(Archive, "cross_out", lambda self, row, _: self._store.remove(row))


@planted("stale")
def stale_result_written_down(patch: Patch) -> None:
    """What only says how a task goes on is written down, too."""
    patch.setattr(TaskResult, "is_final", property(lambda _: True))


@planted("not at rest")
def commit_forgotten(patch: Patch) -> None:
    """What is to be committed is rolled back."""
    transact = Desk._transact

    def forget(self: Any, jobs: Any) -> None:
        db = self._db
        self._db = Forgetful(db)
        transact(self, jobs)
        self._db = db

    patch.setattr(Desk, "_transact", forget)


class Forgetful:
    """A connection that never commits."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: str, *values: Any) -> Any:
        """Execute a statement, or another one."""
        return self._db.execute("ROLLBACK" if statement == "COMMIT" else statement, *values)


@planted("without a reason")
def heartbeats_forgotten(patch: Patch) -> None:
    """A running task is not kept alive."""

    def nothing(*_: object) -> Any:
        return
        yield

    patch.setattr(ConductorServer, "extend_lease", nothing)


@planted("misrouted")
def sent_by_name_alone(patch: Patch) -> None:
    """A row goes to whoever has the name of its destination now."""
    look = Desk._look

    class Anything(dict[str, Any]):
        def get(self, name: str, _: Any = None) -> Any:
            return ANY if name in self else None

    patch.setattr(Desk, "_look", lambda self, destinations, db: look(self, Anything(destinations), db))
