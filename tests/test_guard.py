"""One guarded call: the with statement and the decorator."""

import asyncio
import concurrent.futures
import threading

import pytest

from resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker
from resilience.errors import BreakerOpenError
from resilience.testing import ManualClock

PLAIN = BreakerConfig(jitter=0)


@pytest.fixture
def clock():
    """Virtual time that does not start at zero."""
    return ManualClock(1000.0)


def make(clock, config=PLAIN):
    """A breaker on virtual time, without jitter."""
    return CircuitBreaker("billing", config, clock=clock)


def test_calls_run_at_the_same_time(clock):
    """No lock is held during a call: two are inside the guard together."""
    breaker = make(clock)
    inside = threading.Barrier(2)

    @breaker
    def meet():
        return inside.wait(30)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(lambda _: meet(), range(2))) == [0, 1]


def test_guard_reports_and_passes_errors_through(clock):
    """The error of the call reaches the caller unchanged, also the one that opens the breaker."""
    breaker = make(clock)
    error = OSError("down")
    for _ in range(3):
        with pytest.raises(OSError, match="down") as caught, breaker.guard():
            raise error
        assert caught.value is error

    with pytest.raises(BreakerOpenError) as rejected, breaker.guard():
        pytest.fail("the body must not run")

    assert (rejected.value.name, rejected.value.retry_after) == ("billing", 30.0)
    clock.advance(30.0)
    with breaker.guard() as permit:
        assert permit.probe
    assert breaker.state is BreakerState.CLOSED


def test_decorated_function_is_guarded_and_keeps_its_name(clock):
    """Arguments, value, name and docstring are the function's own."""
    breaker = make(clock)

    @breaker
    def divide(a, b):
        """Divide."""
        return a / b

    assert divide(6, b=3) == 2
    assert (divide.__name__, divide.__doc__) == ("divide", "Divide.")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            divide(1, 0)
    with pytest.raises(BreakerOpenError):
        divide(6, 3)


def test_decorated_coroutine_function_is_guarded_until_it_ends(clock):
    """Coroutines run at the same time, a cancelled one is neutral, failures count."""
    breaker = make(clock, BreakerConfig(fail_max=1, jitter=0))

    @breaker
    async def call(error):
        await asyncio.sleep(0)
        if error:
            raise error
        return 1

    async def main():
        task = asyncio.ensure_future(call(None))
        await asyncio.sleep(0)
        task.cancel()
        assert await asyncio.gather(task, call(None), call(None), return_exceptions=True) != []
        assert (task.cancelled(), breaker.is_clean) == (True, True)
        with pytest.raises(OSError, match="down"):
            await call(OSError("down"))
        with pytest.raises(BreakerOpenError):
            await call(None)

    asyncio.run(main())

    assert asyncio.iscoroutinefunction(call)


def test_object_with_a_coroutine_call_is_guarded_as_one(clock):
    """What must be awaited is guarded until its end, also when it is an object."""

    class Call:
        async def __call__(self):
            raise OSError("down")

    breaker = make(clock)
    with pytest.raises(OSError, match="down"):
        asyncio.run(breaker(Call())())

    assert breaker.failures == 1


def test_generator_functions_cannot_be_decorated(clock):
    """Their call returns before their body runs: the error names the way out."""

    def numbers():
        yield 1

    async def awaited():
        yield 1

    for function in (numbers, awaited):
        with pytest.raises(TypeError, match=r"guard\(\) inside"):
            make(clock)(function)
