"""What a breaker and its registry survive: a fork while another thread decides, an exception at any line."""

import contextlib
import itertools
import os
import signal
import threading
import time

import pytest
from interrupting import ThrownError, throwing

from resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker
from resilience.breaker import _after_fork as after_fork_of_breakers
from resilience.registry import BreakerRegistry
from resilience.registry import _after_fork as after_fork_of_registries
from resilience.testing import ManualClock

CONFIG = BreakerConfig(jitter=0, probe_timeout=5.0)


def in_child(call):
    """Fork, run ``call`` in the child, and return what it says; a child that hangs is killed, and fails the test."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        said = b"raised"
        with contextlib.suppress(BaseException):
            said = repr(call()).encode()
        os.write(writing, said)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        said = answers.read().decode()
    os.waitpid(pid, 0)
    assert said, "the child hung"
    return said


@contextlib.contextmanager
def stuck_inside(lock):
    """Another thread holds ``lock`` all the while."""
    inside, go_on = threading.Event(), threading.Event()

    def hold():
        with lock:
            inside.set()
            go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert inside.wait(30)
        yield
    finally:
        go_on.set()
        thread.join(30)


def outage(breaker):
    """Three failures, one after another, if they may be had."""
    for _ in range(3):
        permit = breaker.try_acquire()
        if permit:
            permit.failure(OSError("down"))
    return breaker.state.value


def test_r30_breaker_works_in_a_child_although_a_thread_was_inside_at_the_fork():
    """Its lock is a new one there, and the state is that of the parent."""
    clock = ManualClock(1000.0)
    breaker, opened = CircuitBreaker("eu", CONFIG, clock=clock), CircuitBreaker("us", CONFIG, clock=clock)
    outage(opened)
    with stuck_inside(breaker._lock), stuck_inside(opened._lock):
        assert in_child(lambda: (outage(breaker), outage_is_over(opened, clock))) == "('open', 'closed')"
    assert (breaker.state, opened.state) == (BreakerState.CLOSED, BreakerState.OPEN)


def outage_is_over(breaker, clock):
    """A probe of an open breaker succeeds."""
    clock.advance(30.0)
    breaker.try_acquire().success()
    return breaker.state.value


@pytest.mark.parametrize("state", ["closed", "half-open"])
def test_r30_decision_that_the_fork_cut_short_is_begun_anew_in_the_child(state):
    """Half of a decision is none: the child's breaker is closed, has counted nothing, and works."""
    clock = ManualClock(1000.0)
    breaker = CircuitBreaker("eu", CONFIG, clock=clock)
    if state == "half-open":
        outage(breaker)
        clock.advance(30.0)
    decide, deciding, go_on = breaker._circuit._enter, threading.Event(), threading.Event()

    def enter(*args, **options):
        breaker._circuit.storage.state = "half-open"  # a part of it
        deciding.set()
        go_on.wait(60)
        decide(*args, **options)

    breaker._circuit._enter = enter
    thread = threading.Thread(target=outage, args=(breaker,))
    thread.start()
    assert deciding.wait(30)

    def child():
        breaker._circuit._enter = decide
        return breaker.try_acquire().success(), breaker.failures, outage(breaker), outage_is_over(breaker, clock)

    try:
        assert in_child(child) in {"(True, 0, 'open', 'closed')", "(False, 0, 'open', 'closed')"}
    finally:
        go_on.set()
        thread.join(30)


def test_r30_listener_that_was_at_work_at_the_fork_silences_nobody_in_the_child():
    """The child has no thread that would go on telling: it begins anew, with what happens there."""
    telling, go_on, heard = threading.Event(), threading.Event(), []

    def listen(event):
        heard.append(event.after.value)
        if threading.current_thread() is not threading.main_thread():
            telling.set()
            go_on.wait(60)

    breaker = CircuitBreaker("eu", CONFIG, on_event=listen)
    thread = threading.Thread(target=breaker.force_open)
    thread.start()
    assert telling.wait(30)

    def child():
        heard.clear()
        breaker.reset()
        return heard

    try:
        assert in_child(child) == "['closed']"
    finally:
        go_on.set()
        thread.join(30)


def test_r30_registry_works_in_a_child_although_a_thread_was_inside_at_the_fork():
    """A new name is added there, and the names of the parent are known."""
    registry = BreakerRegistry(CONFIG)
    registry.get("eu")
    with stuck_inside(registry._lock):
        assert in_child(lambda: (registry.get("us").name, sorted(registry))) == "('us', ['eu', 'us'])"


def test_r30_fork_in_a_listener_leaves_both_processes_able_to_tell():
    """Whoever forks there goes on there, as parent and as child."""
    heard, said = [], []

    def listen(event):
        heard.append(event.after.value)
        if event.after is BreakerState.OPEN and not said:
            said.append(None)
            said[0] = in_child(lambda: (breaker.reset(), heard)[1])

    breaker = CircuitBreaker("eu", CONFIG, on_event=listen)
    breaker.force_open()
    breaker.reset()

    assert said == ["['open', 'closed']"]
    assert heard == ["open", "closed"]


def test_r30_breakers_in_use_by_many_threads_work_in_every_child():
    """Forks at any moment, as a worker that starts processes does them."""
    breaker, registry = CircuitBreaker("eu", CONFIG), BreakerRegistry(CONFIG, max_size=4)
    stop, numbers = threading.Event(), itertools.count()

    def work():
        while not stop.is_set():
            outage(breaker)
            breaker.reset()
            registry.get(str(next(numbers)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child():
        breaker.reset()
        return outage(breaker), registry.get("new").name

    try:
        for _ in range(20):
            time.sleep(0.002)
            assert in_child(child) == "('open', 'new')"
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def test_r30_what_a_child_does_at_first_harms_nothing():
    """Every breaker and registry gets a lock of its own there; here, with nobody inside, nothing changes."""
    clock = ManualClock(1000.0)
    breaker, registry = CircuitBreaker("eu", CONFIG, clock=clock), BreakerRegistry(CONFIG)
    outage(breaker)
    eu, locks = registry.get("eu"), (breaker._lock, registry._lock)

    after_fork_of_breakers()
    after_fork_of_registries()

    assert breaker._lock is not locks[0]
    assert registry._lock is not locks[1]
    assert registry.get("eu") is eu
    assert (breaker.state, outage_is_over(breaker, clock)) == (BreakerState.OPEN, "closed")


# ---- an exception at any line ----


def life(breaker, clock):
    """A whole episode: an outage, a failed probe, a neutral one, a recovery, and somebody's hand."""
    for _ in range(3):
        with contextlib.suppress(OSError), breaker.guard():
            raise OSError("down")
    for how in ("failure", "release", "success"):
        clock.advance(300.0)
        getattr(breaker.try_acquire(), how)()
    breaker.force_open()
    breaker.force_closed()
    breaker.reset()


def is_well(breaker, clock, heard):
    """Whether it does what a breaker does, whatever was before: a probe place that was lost is free at its expiry.

    A decision that was cut short is found out by the next one, which begins anew; its own call does not count then.
    """
    if breaker.is_forced:
        breaker.reset()
    clock.advance(600.0)
    with contextlib.suppress(OSError), breaker.guard():
        raise OSError("down")
    clock.advance(600.0)
    with breaker.guard():
        pass
    assert breaker.state is BreakerState.CLOSED
    heard.clear()
    for _ in range(3):
        with contextlib.suppress(OSError), breaker.guard():
            raise OSError("down")
    assert breaker.state is BreakerState.OPEN
    assert not breaker.try_acquire()
    clock.advance(30.0)
    with breaker.guard() as permit:
        assert permit.probe
    assert [event.after.value for event in heard] == ["open", "half-open", "closed"]
    assert breaker.is_clean


@pytest.mark.parametrize("rate", [None, 0.5])
def test_r29_breaker_survives_an_exception_at_any_line(rate):
    """A signal handler raises wherever it likes: the breaker works, and its listeners hear of it."""
    config = BreakerConfig(jitter=0, probe_timeout=5.0, failure_rate=rate, min_calls=4)
    for at in itertools.count(1):
        clock, heard = ManualClock(1000.0), []
        breaker = CircuitBreaker("eu", config, clock=clock, on_event=heard.append)
        came = throwing(lambda b=breaker, c=clock: life(b, c), at)
        is_well(breaker, clock, heard)
        if not came:
            break
    assert at > 200, "lines were thrown at"


def test_r29_registry_survives_an_exception_at_any_line():
    """It goes on giving a breaker a name, and forgets none that counts failures."""
    for at in itertools.count(1):
        registry = BreakerRegistry(CONFIG, max_size=2)
        registry.get("failing").try_acquire().failure(OSError("down"))

        def flood(registry=registry):
            for number in range(4):
                registry.get(str(number))

        came = throwing(flood, at)
        assert registry.get("failing").failures == 1
        assert registry.get("new") is registry.get("new")
        if not came:
            break
    assert at > 30, "lines were thrown at"


def test_exceptions_are_thrown_where_they_should_be():
    """The instrument itself: at a line that is run, and at none that is not."""
    with pytest.raises(ThrownError):
        raise ThrownError
    assert throwing(CircuitBreaker("eu", CONFIG).reset, 1)
    assert not throwing(CircuitBreaker("eu", CONFIG).reset, 10_000)
