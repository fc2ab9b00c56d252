"""One guarded call: the with statement and the decorator."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import threading

import pytest

from resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker
from resilience.delivery import Destination, Relay
from resilience.errors import BreakerOpenError, Throttled
from resilience.fan_out import FanOutExecutor
from resilience.guard import held
from resilience.outcomes import Value
from resilience.polling import Poller, Source
from resilience.registry import BreakerRegistry
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


def numbers():
    """A generator function."""
    yield 1


async def awaited_numbers():
    """An asynchronous one."""
    yield 1


class Numbers:
    def __call__(self):
        """A generator function, too."""
        yield 1


LAZY = [
    numbers,
    awaited_numbers,
    Numbers(),
    functools.partial(numbers),
    contextlib.contextmanager(numbers),
    contextlib.asynccontextmanager(awaited_numbers),
]


@pytest.mark.parametrize("function", LAZY)
def test_r33_what_runs_after_its_call_cannot_be_decorated(clock, function):
    """Generator functions and context managers made of them return before their body runs: the error says what to do.

    So for objects and partials, too.
    """
    with pytest.raises(TypeError, match=r"guard\(\) inside.*decorate the function that does the work"):
        make(clock)(function)


async def answer():
    """A coroutine function."""
    return 1


class Later:
    def __await__(self):
        yield


@pytest.mark.parametrize(
    ("function", "what"),
    [(function, "generator") for function in LAZY] + [(answer, "an awaitable"), (Later, "an awaitable")],
)
def test_r33_r25_what_comes_back_and_has_yet_to_run_is_refused(clock, function, what):
    """A plain function that returns a generator or an awaitable has done nothing yet: neither success nor failure."""
    breaker = make(clock)

    @breaker
    def call():
        return function()

    @breaker
    async def call_later():
        return function()

    with pytest.raises(TypeError, match=f"returned .*{what}.*has not run yet"):
        call()
    with pytest.raises(TypeError, match=f"returned .*{what}.*has not run yet"):
        asyncio.run(call_later())
    assert breaker.is_clean


def test_decorated_function_may_return_anything_else(clock):
    """Also what can be iterated, or is a context manager with work already done."""
    lock = threading.Lock()
    breaker = make(clock)

    assert breaker(lambda: lock)() is lock
    assert list(breaker(lambda: iter([1, 2]))()) == [1, 2]


def test_b10_r33_decorated_functions_values_are_judged(clock):
    """An answer that counts as a failure reaches the caller, and the breaker."""
    breaker = make(clock, BreakerConfig(jitter=0, fail_max=2, counts=lambda what: what == 503))

    @breaker
    def fetch(status):
        return status

    @breaker
    async def fetch_later(status):
        return status

    assert fetch(503) == 503
    assert breaker.failures == 1
    assert fetch(200) == 200
    assert breaker.failures == 0
    assert fetch(503) == asyncio.run(fetch_later(503)) == 503

    assert breaker.state is BreakerState.OPEN


def test_r36_error_of_a_half_open_breaker_says_so(clock):
    """It is not open any more: its probe is in flight."""
    breaker = opened(clock)
    with (
        breaker.guard(),
        pytest.raises(BreakerOpenError, match=r"is half-open and its probe is in flight; try again in 30 s$"),
    ):
        elsewhere(breaker.guard().__enter__)
    breaker.force_open()
    with pytest.raises(BreakerOpenError, match=r"forced open$"), breaker.guard():
        pass


# ---- B9: a call within a call ----


def opened(clock, config=PLAIN):
    """A breaker whose probe is due."""
    breaker = make(clock, config)
    for _ in range(3):
        breaker.try_acquire().failure(OSError("down"))
    clock.advance(30.0)
    return breaker


def elsewhere(call):
    """What comes of ``call`` in a context that knows nothing of this one."""
    return contextvars.Context().run(call)


def test_b9_r23_two_functions_with_one_breaker_may_call_each_other(clock):
    """Half-open, the inner call runs on the outer call's probe: the breaker closes, and nobody is shut out for ever."""
    breaker = opened(clock)

    @breaker
    def inner():
        return "well"

    @breaker
    def outer():
        return inner() + inner()

    assert outer() == "wellwell"
    assert breaker.state is BreakerState.CLOSED


def test_b9_inner_success_is_not_the_end(clock):
    """The probe's own end decides: here it fails after all."""
    breaker = opened(clock)

    @breaker
    def call():
        with breaker.guard() as inner:
            assert (inner.probe, inner.generation) == (True, breaker.generation)
        assert inner.success() is False, "reported already"
        assert breaker.state is BreakerState.HALF_OPEN
        raise OSError("later")

    with pytest.raises(OSError, match="later"):
        call()

    assert breaker.state is BreakerState.OPEN


def test_b9_inner_failure_is_the_probes(clock):
    """Also if the outer call makes the best of it: the other side is down; more calls are let out no more."""
    breaker = opened(clock)
    with breaker.guard() as outer:
        with contextlib.suppress(OSError), breaker.guard():
            raise OSError("still down")
        assert breaker.state is BreakerState.OPEN
        with pytest.raises(BreakerOpenError), breaker.guard():
            pass
        assert outer.success() is False


def test_b9_inner_neutral_end_leaves_the_probe_at_work(clock):
    """A cancelled or excluded call within the probe's gives nobody else leave."""
    breaker = opened(clock)
    with breaker.guard():
        with contextlib.suppress(Throttled), breaker.guard():
            raise Throttled(1.0)
        assert not elsewhere(breaker.try_acquire)
    assert breaker.state is BreakerState.CLOSED


def test_b9_inner_permit_reports_once_and_not_after_the_outer(clock):
    """A report from a call that outlives the probe's changes nothing."""
    breaker = opened(clock, BreakerConfig(jitter=0, success_threshold=2))
    with breaker.guard():
        early, late, failed = (breaker.try_acquire() for _ in range(3))
        assert early.release() is True
        assert early.release() is early.success() is early.failure() is False

    assert late.success() is False
    assert failed.failure(OSError()) is False
    assert breaker.state is BreakerState.HALF_OPEN


def test_b9_only_the_breaker_itself_and_only_within(clock):
    """Another breaker's probe helps nobody, and after the call it is over."""
    first, second = opened(clock), opened(clock)
    with first.guard():
        assert not elsewhere(first.try_acquire)
        with second.guard():
            assert first.try_acquire()
            assert second.try_acquire()
            first.force_open()
            assert not first.try_acquire(), "its generation is over"
    assert not first.try_acquire()


def test_b9_expired_probe_lets_nothing_through(clock):
    """Its place may be somebody else's by then: what it calls must ask like everybody."""
    breaker = opened(clock)
    with breaker.guard():
        clock.advance(30.0)
        fresh = elsewhere(breaker.try_acquire)
        assert fresh.probe
        assert not breaker.try_acquire()
        assert fresh.success()


def test_b9_tasks_of_the_call_run_on_its_probe_until_it_ends(clock):
    """A task that outlives the call has a copy of its context; the permit in it is of no use any more."""
    breaker = opened(clock, BreakerConfig(jitter=0, success_threshold=2))

    async def main():
        go_on = asyncio.Event()

        async def child():
            first = breaker.try_acquire()
            await go_on.wait()
            return bool(first), breaker.try_acquire()

        with breaker.guard():
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
        other = breaker.try_acquire()  # the second probe
        go_on.set()
        assert await task == (True, elsewhere(breaker.try_acquire))
        assert other.success()

    asyncio.run(main())
    assert breaker.state is BreakerState.CLOSED


def test_b9_guard_may_end_in_another_context_than_it_began(clock):
    """Fixtures and asynchronous generators do that: nothing is raised, and nothing is left behind that matters."""
    breaker = opened(clock, BreakerConfig(jitter=0, success_threshold=3))
    context = contextvars.copy_context()
    guard = breaker.guard()
    context.run(guard.__enter__)
    guard.__exit__(None, None, None)

    probe = breaker.try_acquire()
    assert not context.run(breaker.try_acquire)
    assert probe.success()
    with breaker.guard():
        pass
    assert breaker.state is BreakerState.CLOSED
    assert context.run(breaker.try_acquire)


def test_b9_context_does_not_collect_probes(clock):
    """A context that lives long keeps no more than the probe it has, wherever its guards ended."""
    context = contextvars.copy_context()
    for _ in range(50):
        guard = opened(clock).guard()
        context.run(guard.__enter__)
        guard.__exit__(None, None, None)

    assert len(context.run(held)) == 1


def test_b9_run_lets_a_call_have_a_permit_that_was_taken_by_hand(clock):
    """For drivers: what ``call`` calls runs on the permit, whose report stays theirs."""
    breaker = opened(clock)
    permit = breaker.try_acquire()
    assert not breaker.try_acquire()

    assert permit.run(lambda early: bool(breaker.try_acquire(early=early)), early=False)

    assert not breaker.try_acquire()
    assert permit.success()
    assert breaker.try_acquire().run(divmod, 7, 2) == (3, 1)


def fan_out_in(breakers, clock, calls, timeout=30.0):
    """What a fan-out comes to within a guarded call of the breaker called ``eu``."""
    with FanOutExecutor(breakers=breakers, clock=clock) as fan_out, breakers.get("eu").guard():
        return fan_out.run(calls, timeout)


def half_open_registry(clock):
    """Breakers of which ``eu`` is about to be probed."""
    breakers = BreakerRegistry(BreakerConfig(jitter=0), clock=clock)
    for _ in range(3):
        breakers.get("eu").try_acquire().failure(OSError("down"))
    clock.advance(30.0)
    return breakers


def test_b9_fan_out_within_the_call_runs_on_its_probe(clock):
    """Calls of a fan-out run in copies of the context, and so do their own guards."""
    breakers = half_open_registry(clock)

    def call():
        with breakers.get("eu").guard():
            return 1

    assert fan_out_in(breakers, clock, {"eu": call, "us": lambda: 2}) == {"eu": Value(1), "us": Value(2)}
    assert breakers.get("eu").state is BreakerState.CLOSED


def test_b9_fan_out_within_the_call_that_fails_fails_the_probe(clock):
    """Its outcomes are values, so the call itself goes well: the breaker knows better."""
    breakers = half_open_registry(clock)

    def call():
        raise OSError("still down")

    fan_out_in(breakers, clock, {"eu": call})

    assert breakers.get("eu").state is BreakerState.OPEN


def test_b9_r23_call_of_a_fan_out_may_use_its_own_breaker(clock):
    """The fan-out has the probe; the call guards itself with the same breaker."""
    breakers = half_open_registry(clock)

    def call():
        with breakers.get("eu").guard():
            return 1

    with FanOutExecutor(breakers=breakers, clock=clock) as fan_out:
        assert fan_out.run({"eu": call}, 30.0) == {"eu": Value(1)}
    assert breakers.get("eu").state is BreakerState.CLOSED


def test_b9_r23_poll_may_use_the_breaker_that_its_poller_has():
    """A healthy source is polled again after an outage, although its poll guards itself, too."""
    breakers = BreakerRegistry(BreakerConfig(fail_max=1, jitter=0, reset_timeout=0.01))
    down = [True]

    def poll(_, __):
        with breakers.get("eu").guard():
            if down:
                down.pop()
                raise OSError("down")
            return [1]

    with Poller([Source("eu", poll)], capacity=1, breakers=breakers) as poller:
        taken = next(iter(poller))
        with taken:
            assert taken.value == 1
    assert breakers.get("eu").state is BreakerState.CLOSED


@pytest.mark.parametrize("bounded", [True, False])
def test_b9_r23_send_may_use_the_breaker_that_its_relay_has(bounded):
    """A healthy destination gets its results after an outage, although its send guards itself, too."""
    breakers = BreakerRegistry(BreakerConfig(fail_max=1, jitter=0, reset_timeout=0.01))
    sent = threading.Event()

    def send(_, __):
        with breakers.get("eu").guard():
            sent.set()

    breakers.get("eu").try_acquire().failure(OSError("down"))
    with Relay([Destination("eu", send, bounded=bounded)], breakers=breakers) as relay:
        relay.deliver("eu", "key", "payload")
        assert sent.wait(30)
        while relay.pending():
            threading.Event().wait(0.001)
    assert breakers.get("eu").state is BreakerState.CLOSED
