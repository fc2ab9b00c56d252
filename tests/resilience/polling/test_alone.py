"""One source alone (rule P14): whoever asks for items polls, and nobody stands between. Real threads, no waiting."""

import random
import threading
from collections.abc import Sequence

import pytest
from hearing import GUARD, Heard

from resilience import Item, ItemsArrivedLate, PollConfig, Poller, PollPlanner, PollTimedOut, Source
from resilience.polling import PollRequest

PATIENT = PollConfig(poll_wait=0.02, overdue_after=2.0, poll_timeout=10.0, give_up_after=20.0)
QUICK = PollConfig(poll_wait=0.02, overdue_after=0.02, poll_timeout=0.1, give_up_after=20.0)


class Well:
    """A source that never runs dry, and remembers the threads that polled it."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.hang_at: int | None = None
        self.thaw = threading.Event()

    def poll(self, count: int, _: float) -> Sequence[int]:
        """As many values as asked for; the poll numbered ``hang_at`` waits for the thaw first."""
        self.threads.append(threading.current_thread().name)
        if len(self.threads) == self.hang_at:
            assert self.thaw.wait(GUARD)
        return range(count)


def run(sources: Sequence[Source[int]], items: int) -> None:
    """Handle so many items with one unit."""
    enough, left = threading.Event(), [items]

    def handle(_: Item[int]) -> None:
        left[0] -= 1
        if left[0] == 0:
            enough.set()

    with Poller(sources, capacity=1, config=PATIENT) as poller:
        poller.start(handle)
        assert enough.wait(GUARD)


def test_p14_unit_polls_the_only_source_by_itself() -> None:
    """Its first answer shows that it is prompt; from then on no other thread stands between."""
    well = Well()

    run([Source("a", well.poll, bounded=True)], 50)

    assert well.threads[0].startswith("fan-out")
    assert set(well.threads[1:49]) == {"unit-1"}


@pytest.mark.parametrize("number", [1, 2])
def test_p14_units_never_wait_for_a_source_that_does_not_bound_itself_or_is_not_alone(number: int) -> None:
    """A unit that polls is lost to the others for as long as that takes."""
    wells = [Well() for _ in range(number)]

    run([Source(f"s{n}", well.poll, bounded=number > 1) for n, well in enumerate(wells)], 20)

    assert not [name for well in wells for name in well.threads if name.startswith("unit")]


def test_p14_poll_that_hangs_in_a_unit_is_timed_out_and_what_it_brings_is_late() -> None:
    """It is told at its deadline as in any other thread, the other units work meanwhile, and nothing is lost."""
    well, heard, done = Well(), Heard(), threading.Semaphore(0)
    well.hang_at = 2

    with Poller([Source("a", well.poll, bounded=True)], capacity=2, config=QUICK, on_event=heard) as poller:
        poller.start(lambda _: done.release())
        heard.wait_for(PollTimedOut, source="a")
        for _ in range(20):
            assert done.acquire(timeout=GUARD)
        assert well.threads[2].startswith("fan-out")  # suspect now: units keep away
        well.thaw.set()
        heard.wait_for(ItemsArrivedLate, source="a")


def test_p14_only_a_source_that_answers_promptly_is_polled_by_units() -> None:
    """One that has not answered yet, is slow, failed or timed out may hold a unit for as long as it likes."""
    planner, now = PollPlanner([Source("a", print, bounded=True)], 1, QUICK, random.Random(1)), 0.0

    def poll() -> PollRequest:
        nonlocal now
        now += 5.0
        (request,) = planner.plan(now)
        return request

    assert not planner.is_alone("a")
    planner.answered(poll(), [], now)
    assert planner.is_alone("a")
    planner.answered(poll(), [], now + 1.0)
    assert not planner.is_alone("a")
    planner.answered(poll(), [], now)
    planner.failed(poll(), OSError("down"), now)
    assert not planner.is_alone("a")
    planner.answered(poll(), [], now)
    planner.timed_out(poll(), now)
    assert not planner.is_alone("a")
