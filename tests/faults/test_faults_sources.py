"""Many scripted sources on one poller, most of them ill: each value is done, and no healthy source waits for long."""

import collections
import random
import threading
from collections.abc import Iterator

import pytest
from fault_kit import until
from fault_sources import TIMES, Done, Queue, check
from hearing import GUARD, Heard

from resilience import BreakerConfig, BreakerRegistry, GiveBackFailed, PollConfig, Poller, PollTimedOut


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.long)])
def test_many_sources_most_of_them_ill(count: int) -> None:
    """A quarter hangs, one fails and one is idle; the rest is served meanwhile, and all when they are well."""
    values = 1600 // count
    queues = [Queue(f"q{number}", 0 if number % 4 == 3 else values) for number in range(count)]
    for number, queue in enumerate(queues):
        queue.ill = {0: "hung", 1: "down"}.get(number % 4)
    healthy, idle = queues[2::4], queues[3::4]
    heard, done = Heard(), Done()
    breakers = BreakerRegistry(BreakerConfig(reset_timeout=0.3, max_reset_timeout=0.3))
    sources = [queue.source() for queue in queues]
    with Poller(sources, capacity=10, config=TIMES, breakers=breakers, on_event=heard) as poller:
        poller.start(done)
        check(healthy, done, values)
        until(lambda: _most_timeouts(heard) >= TIMES.max_abandoned, "one is not asked any more", 3 * GUARD)
        idle[0].values.append((idle[0].name, 0))
        check(idle[:1], done, 1)
        for queue in queues:
            queue.heal()
        check(queues[0::4] + queues[1::4] + healthy, done, values)

    assert done.most <= 10
    assert max(queue.most for queue in queues) <= 1 + TIMES.max_abandoned
    assert not [event for event in heard if isinstance(event, GiveBackFailed)]


def _most_timeouts(heard: Heard) -> int:
    return max(
        collections.Counter(event.source for event in heard if isinstance(event, PollTimedOut)).values(), default=0
    )


def test_thirty_nine_hung_sources_do_not_starve_an_idle_one() -> None:
    """Also without breakers, a healthy source that has little to do is asked often enough."""
    queues = [Queue(f"q{number}", 0) for number in range(40)]
    for queue in queues[1:]:
        queue.ill = "hung"
    done = Done()
    with Poller([queue.source() for queue in queues], capacity=10, config=TIMES) as poller:
        poller.start(done)
        for number in range(10):
            queues[0].values.append(("q0", number))
            check(queues[:1], done, number + 1)
        for queue in queues:
            queue.heal()


def test_eight_sources_at_capacity_one() -> None:
    """One unit is enough for eight sources of which two are ill: the others take turns."""
    queues = [Queue(f"q{number}", 60) for number in range(8)]
    queues[0].ill, queues[1].ill = "hung", "down"
    done = Done()
    with Poller([queue.source() for queue in queues], capacity=1, config=TIMES) as poller:
        poller.start(done)
        until(lambda: min(done.of(queue.name) for queue in queues[2:]) >= 20, "20 of each healthy source")
        assert max(done.of(queue.name) for queue in queues[2:]) <= 60
        for queue in queues:
            queue.heal()
        check(queues, done, 60)

    assert done.most == 1


def test_very_long_tasks_leave_short_ones_their_share() -> None:
    """Tasks without end of one source take its share and no more while the other source is busy."""
    short, long_ = Queue("short", 500), Queue("long", 0)
    gate, done = threading.Event(), Done()

    def handle(item) -> None:
        done(item)
        if item.source == "long":
            assert gate.wait(GUARD)

    with Poller([short.source(), long_.source()], capacity=4, config=TIMES) as poller:
        poller.start(handle)
        until(lambda: done.of("short") >= 20, "the short ones are under way")
        long_.values.extend(("long", number) for number in range(8))
        check([short], done, 500)
        gate.set()
        check([long_], done, 8)


@pytest.mark.parametrize("seed", range(2))
def test_random_illnesses_lose_nothing(seed: int) -> None:
    """Six sources fall ill and recover at random, some for as long as their values are late; each value is done."""
    rng = random.Random(seed)
    queues = [Queue(f"q{number}", 150) for number in range(6)]
    heard, done = Heard(), Done()
    breakers = BreakerRegistry(BreakerConfig(reset_timeout=0.1, max_reset_timeout=0.1))
    with Poller([q.source() for q in queues], capacity=4, config=TIMES, breakers=breakers, on_event=heard) as poller:
        poller.start(done)
        for _ in range(30):
            queue = rng.choice(queues)
            if queue.ill:
                queue.heal()
            else:
                queue.well = threading.Event()
                queue.ill = rng.choice(["hung", "down"])
            threading.Event().wait(0.03)
        for queue in queues:
            queue.heal()
        check(queues, done, 150)

    assert done.most <= 4
    assert not [event for event in heard if isinstance(event, GiveBackFailed)]


def test_units_granted_to_a_hung_poll_are_lent() -> None:
    """A source that hangs with half of the units granted to it does not keep them from the other."""
    queues = [Queue(name, 2000) for name in "ab"]
    together, gate, done = threading.Barrier(4), threading.Event(), Done()

    def handle(item) -> None:
        done(item)
        if queues[0].ill and item.source == "b" and not gate.is_set():
            together.wait(GUARD)
            gate.set()

    patient = PollConfig(poll_wait=0.05, overdue_after=0.05, poll_timeout=GUARD, give_up_after=2 * GUARD)
    with Poller([queue.source() for queue in queues], capacity=4, config=patient) as poller:
        poller.start(handle)
        until(lambda: done.of("a") >= 20, "both are backlogged")
        queues[0].ill = "hung"
        assert gate.wait(GUARD), "four of the healthy source's at once"
        queues[0].heal()
        check(queues, done, 2000)


@pytest.fixture
def failures() -> Iterator[list[object]]:
    """What threads die of."""
    seen: list[object] = []
    hook, threading.excepthook = threading.excepthook, seen.append
    yield seen
    threading.excepthook = hook


def test_stops_at_any_moment_lose_nothing(failures: list[object]) -> None:
    """However little time a stop gives, every value was done, went back, or is still in its queue."""
    for number in range(60):
        queues = [Queue(name, 1000) for name in "abc"]
        for place, queue in enumerate(queues):
            queue.latency = place * 0.002
        done = Done()
        poller = Poller([queue.source() for queue in queues], capacity=4, config=TIMES)
        poller.start(done)
        threading.Event().wait(number * 0.0002)
        poller.stop((0.0, 0.001, 0.01)[number % 3])
        until(lambda p=poller: not any(v.executing or v.held for v in p.view().values()), "all ended")
        for queue in queues:
            until(lambda q=queue, d=done: len(q.values) + d.of(q.name) == 1000, "all accounted for")
    assert not failures


def test_poll_that_comes_too_late_for_a_closed_poller_harms_nobody(failures: list[object]) -> None:
    """Between the decision to poll and the poll the poller may be closed: that ends no thread."""
    queue = Queue("q", 5)
    poller = Poller([queue.source()], capacity=2, config=TIMES)
    poller._polls.close()
    poller.start(Done())
    until(lambda: poller.view()["q"].in_flight == 0, "the poll is given up")
    poller.stop(0.0)
    assert (queue.asked, failures) == (0, [])
