"""Defects of other pollers, and of a first draft for several servers, in our poller; docs/explanation/peers.md."""

import asyncio
import concurrent.futures
import random
import threading

import pytest
from hearing import GUARD, Heard

from resilience import (
    BreakerConfig,
    BreakerRegistry,
    BreakerState,
    Item,
    PollConfig,
    Poller,
    PollFailed,
    PollPlanner,
    Source,
)

PATIENT = PollConfig(poll_wait=0.02, overdue_after=2.0, poll_timeout=10.0, give_up_after=20.0)


class Scripted:
    """A source whose polls raise or return each of these in turn, and bring nothing afterwards."""

    def __init__(self, *steps: BaseException | list[str]) -> None:
        self.steps = list(steps)
        self.told = threading.Event()

    def poll(self, _: int, wait: float) -> list[str]:
        """The next step."""
        if not self.steps:
            self.told.set()
            threading.Event().wait(wait)
            return []
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step


def values(poller: Poller[str], count: int) -> list[str]:
    """The values of the next items, which are done at once."""
    found: list[str] = []
    while len(found) < count:
        items: list[Item[str]] = poller.take(GUARD)
        assert items, f"only {found} came"
        for item in items:
            found.append(item.value)
            item.done()
    return found


@pytest.mark.parametrize("kind", [TimeoutError, concurrent.futures.TimeoutError, asyncio.TimeoutError])
def test_timeout_of_any_library_costs_no_other_source_its_items(kind: type[Exception]) -> None:
    """Before Python 3.11 these are three classes: each is a failure of its own source and of nothing else."""
    events, slow, ready = Heard(), Scripted(kind("slow"), ["late"]), Scripted(["first"], ["second"])
    sources = [Source("slow", slow.poll), Source("ready", ready.poll)]
    with Poller(sources, capacity=4, config=PATIENT, on_event=events) as poller:
        assert sorted(values(poller, 3)) == ["first", "late", "second"]

    assert [(event.source, type(event.error)) for event in events if isinstance(event, PollFailed)] == [("slow", kind)]


def test_empty_answers_between_failures_keep_the_breaker_closed() -> None:
    """An answer without items is an answer: failures on either side of it are not failures in a row."""
    breakers = BreakerRegistry(BreakerConfig(fail_max=2))
    source = Scripted(*[step for _ in range(4) for step in (OSError("blip"), [])], ["up"])
    with Poller([Source("a", source.poll)], capacity=1, config=PATIENT, breakers=breakers) as poller:
        assert values(poller, 1) == ["up"]

    assert breakers.get("a").state is BreakerState.CLOSED
    assert breakers.get("a").generation == 0


def test_empty_answer_of_a_probe_closes_the_breaker_for_good() -> None:
    """After a recovery that brought nothing a single new failure does not open it again."""
    breakers = BreakerRegistry(BreakerConfig(fail_max=2, reset_timeout=0.05, jitter=0))
    source = Scripted(OSError("down"), OSError("down"), [], OSError("blip"), ["up"])
    with Poller([Source("a", source.poll)], capacity=1, config=PATIENT, breakers=breakers) as poller:
        assert values(poller, 1) == ["up"]

    assert breakers.get("a").state is BreakerState.CLOSED
    assert breakers.get("a").generation == 3, "open, half-open, closed, and nothing since"


def test_share_of_an_open_source_goes_to_the_others() -> None:
    """Capacity is divided among those that may be polled: half of it does not lie idle beside an open source."""
    planner = PollPlanner([Source("open", print), Source("busy", print)], 10, PollConfig(), random.Random(1))
    for request in planner.plan(0.0):
        planner.answered(request, ["item"] * request.count, 0.01)
    for held in planner.start(10):
        planner.finished(held.track.name)

    (request,) = planner.plan(0.02, {"open": 1000.0})

    assert (request.source, request.count) == ("busy", 10)


def test_failing_source_delays_no_other_source_by_its_pauses() -> None:
    """A source that fails all day does not put the poller to sleep: the other's items come meanwhile."""
    bad = Scripted(*[OSError("down")] * 10_000)
    good = Scripted(*[[str(number)] for number in range(50)])
    with Poller([Source("bad", bad.poll), Source("good", good.poll)], capacity=1, config=PATIENT) as poller:
        found = values(poller, 50)

    assert found == [str(number) for number in range(50)]
    assert len(bad.steps) > 9_900, "and it is not asked in a loop either"
