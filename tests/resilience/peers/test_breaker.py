"""Defects of other circuit breakers that no rule test shows by itself; docs/explanation/peers.md has them all."""

import asyncio
import concurrent.futures
import inspect
import threading
import time

import pytest
from hearing import GUARD

from resilience import BreakerConfig, BreakerRegistry, BreakerState, CircuitBreaker, FanOutExecutor, Poller, Relay
from resilience.testing import ManualClock

PLAIN = BreakerConfig(jitter=0)


@pytest.fixture
def clock() -> ManualClock:
    """Virtual time that does not start at zero."""
    return ManualClock(1000.0)


def tripped(clock: ManualClock, config: BreakerConfig = PLAIN) -> CircuitBreaker:
    """A breaker that has just opened."""
    breaker = CircuitBreaker("billing", config, clock=clock)
    for _ in range(config.fail_max):
        breaker.try_acquire().failure()
    assert breaker.state is BreakerState.OPEN
    return breaker


@pytest.mark.parametrize("command", ["force_open", "force_closed", "reset"])
def test_operator_in_another_thread_does_not_wait_for_a_call_that_hangs(command: str) -> None:
    """Whoever forces or resets a breaker is obeyed while somebody else's guarded call is still inside."""
    breaker, inside, release = CircuitBreaker("billing"), threading.Event(), threading.Event()

    @breaker
    def hang() -> bool:
        inside.set()
        return release.wait(GUARD)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        call = pool.submit(hang)
        assert inside.wait(GUARD)
        pool.submit(getattr(breaker, command)).result(GUARD)

        assert breaker.generation == 1
        assert not call.done()
        release.set()
        assert call.result(GUARD)


def test_call_that_hangs_keeps_nobody_from_asking() -> None:
    """While one guarded call hangs another thread is let through, and after a trip is refused, at once."""
    breaker = CircuitBreaker("billing", BreakerConfig(fail_max=1))
    inside, release = threading.Event(), threading.Event()

    @breaker
    def hang() -> bool:
        inside.set()
        return release.wait(GUARD)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        call = pool.submit(hang)
        assert inside.wait(GUARD)
        assert pool.submit(breaker.try_acquire).result(GUARD).failure()
        assert not pool.submit(breaker.try_acquire).result(GUARD)
        release.set()
        assert call.result(GUARD)


def test_late_failure_does_not_prolong_the_wait(clock: ManualClock) -> None:
    """A call that began before the trip and fails while the breaker is open moves nothing."""
    breaker = CircuitBreaker("billing", PLAIN, clock=clock)
    old = breaker.try_acquire()
    for _ in range(3):
        breaker.try_acquire().failure()
    due = breaker.retry_at
    clock.advance(20.0)

    assert old.failure(retry_after=500.0) is False

    assert (breaker.state, breaker.retry_at, breaker.failures) == (BreakerState.OPEN, due, 3)


def test_probe_of_an_earlier_half_open_time_has_no_say_in_this_one(clock: ManualClock) -> None:
    """It neither counts as this time's success or failure, nor frees the place of this time's probe."""
    breaker = tripped(clock, BreakerConfig(jitter=0, success_threshold=2, probe_timeout=1000.0))
    clock.advance(30.0)
    stale = [breaker.try_acquire()]
    breaker.force_open()
    breaker.reset()
    for _ in range(3):
        breaker.try_acquire().failure()
    clock.advance(30.0)
    fresh = breaker.try_acquire()
    assert fresh.probe

    assert [permit.success() for permit in stale] == [False]

    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.try_acquire(), "the place is the fresh probe's"
    assert fresh.success()
    assert breaker.state is BreakerState.HALF_OPEN, "one success of two"
    assert breaker.try_acquire().success()
    assert breaker.state is BreakerState.CLOSED


def test_dead_dependency_gets_one_probe_an_episode(clock: ManualClock) -> None:
    """However many successes close it, the first failed probe ends the half-open time: no further call goes out."""
    breaker = tripped(clock, BreakerConfig(jitter=0, success_threshold=10))
    calls = 0
    for _ in range(300):
        clock.advance(1.0)
        permit = breaker.try_acquire()
        if permit:
            calls += 1
            permit.failure()

    assert calls == 3  # 30, 60 and 120 seconds apart; the next one is due after 240


def test_success_of_one_probe_does_not_let_the_crowd_through(clock: ManualClock) -> None:
    """With a threshold of two, a hundred callers that ask after the first success get one permit."""
    breaker = tripped(clock, BreakerConfig(jitter=0, success_threshold=2))
    clock.advance(30.0)
    breaker.try_acquire().success()

    assert sum(bool(breaker.try_acquire()) for _ in range(100)) == 1


@pytest.mark.parametrize("probing", [False, True])
def test_cancelled_with_block_of_a_coroutine_is_neutral(clock: ManualClock, *, probing: bool) -> None:
    """A task that is cancelled inside the guard is neither its dependency's success nor its failure."""
    breaker = tripped(clock) if probing else CircuitBreaker("billing", PLAIN, clock=clock)
    if probing:
        clock.advance(30.0)
    else:
        breaker.try_acquire().failure()
        breaker.try_acquire().failure()

    async def call() -> None:
        with breaker.guard():
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    if probing:
        assert breaker.state is BreakerState.HALF_OPEN
        assert breaker.try_acquire().probe, "the cancelled probe's place is free"
    else:
        assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 2)


def test_fractions_of_a_second_are_kept(clock: ManualClock) -> None:
    """A wait of a quarter of a second is no whole second, neither for the probe nor for whoever is refused."""
    breaker = tripped(clock, BreakerConfig(reset_timeout=0.25, jitter=0))

    assert breaker.try_acquire().retry_after == 0.25
    clock.advance(0.125)
    assert breaker.try_acquire().retry_after == 0.125
    clock.advance(0.125)
    assert breaker.try_acquire().probe


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_time_zone_of_the_machine_changes_nothing(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """Thirty seconds are thirty seconds east and west of Greenwich, and at a breaker's first look too."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        breaker = CircuitBreaker("billing", BreakerConfig(fail_max=1, jitter=0))
        breaker.try_acquire().failure()

        assert 0 < breaker.try_acquire().retry_after <= 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("made", [CircuitBreaker, BreakerRegistry, FanOutExecutor, Poller, Relay])
def test_time_is_monotonic_unless_told_otherwise(made: type) -> None:
    """Nothing that waits or expires looks at the time of day, which may be set, and is different in other places."""
    assert inspect.signature(made).parameters["clock"].default is time.monotonic


def test_two_breakers_of_one_name_are_two() -> None:
    """There is no list of names behind the scenes: what one breaker counts another of its name does not know."""
    first, second = CircuitBreaker("billing", PLAIN), CircuitBreaker("billing", PLAIN)
    registries = BreakerRegistry(), BreakerRegistry()
    first.force_open()
    registries[0].get("billing").force_open()

    assert (second.state, registries[1].get("billing").state) == (BreakerState.CLOSED, BreakerState.CLOSED)
