"""What the fan-out survives: an exception at any line, a call that forks."""

import itertools
import os
import signal
import threading
import time

import pytest
from interrupting import throwing

from resilience.breaker import BreakerConfig
from resilience.fan_out import FanOutExecutor
from resilience.fan_out.pool import KeyedThreads, PoolThread
from resilience.fan_out.threads import SessionCall
from resilience.outcomes import Cancelled, Rejected, Value
from resilience.registry import BreakerRegistry
from resilience.testing import Held, ManualClock, ScriptedCall

GUARD = 60.0
KEYS = "abcd"


class HurriedClock:
    """Real time, so that `run` comes to an end, and what is added to it."""

    def __init__(self):
        self._ahead = 0.0

    def __call__(self):
        """The time in seconds."""
        return time.monotonic() + self._ahead

    def advance(self, seconds):
        """Let time pass."""
        self._ahead += seconds


def life(executor, session, clock, hung):
    """A run, calls that end here and elsewhere, one that is abandoned, and a close."""
    executor.run(dict.fromkeys("ab", int), GUARD)
    session.submit("a", int, GUARD)
    session.submit("b", int, GUARD, here=True)
    session.submit("c", hung, 1.0)
    for _ in range(2):
        session.next(0)
    clock.advance(1.0)
    session.expire()
    session.submit("d", hung, GUARD)
    session.close()


def call_of(session, key, deadline, told=lambda *_: None, on_late=None):
    """A call of one second that was not submitted yet."""
    return SessionCall(key, int, 1.0, deadline, told, on_late, session=session, ours=True)


def until(true):
    """Wait for what other threads are about to bring about."""
    end = time.monotonic() + GUARD
    while not true():
        assert time.monotonic() < end
        time.sleep(0.0005)


@pytest.mark.parametrize("max_workers", [None, 2, 1])
def test_r29_fan_out_survives_an_exception_at_any_line(max_workers):
    """No key is rejected for good, and nothing stays pending: whatever was interrupted, every key can be called."""
    for at in itertools.count(1):
        clock = HurriedClock()
        breakers = BreakerRegistry(BreakerConfig(fail_max=100, probe_timeout=1.0), clock=clock)
        hung = ScriptedCall(Held("late", GUARD))
        with FanOutExecutor(clock=clock, max_abandoned=1, max_workers=max_workers, breakers=breakers) as executor:
            session = executor.session()
            came = throwing(lambda e=executor, s=session, c=clock, h=hung: life(e, s, c, h), at)
            clock.advance(60.0)
            session.expire()
            session.close()
            hung.release()
            until(lambda s=session: s.pending == 0 and not any(map(s.abandoned, KEYS)))
            for _ in range(3):
                outcomes = executor.run(dict.fromkeys(KEYS, int), 3.0)
                assert outcomes == dict.fromkeys(KEYS, Value(0)), f"thrown at {at}"
        if not came:
            break
    assert at > 150, "lines were thrown at"


@pytest.mark.parametrize("end", ["expire", "close"])
def test_r29_a_call_that_waits_for_a_thread_gets_one_wherever_a_signal_comes(end):
    """The thread of the call before it is stuck, and the thread that notices is interrupted: it runs in the end."""
    for at in itertools.count(1):
        clock, hung, ran = ManualClock(1000.0), ScriptedCall(Held("late", GUARD)), threading.Event()
        with FanOutExecutor(clock=clock, max_abandoned=1, max_workers=1) as executor:
            first, second = executor.session(), executor.session()
            first.submit("a", hung, 1.0)
            until(lambda h=hung: h.started == 1)
            second.submit("b", ran.set, GUARD)
            clock.advance(1.0)
            came = throwing(getattr(first, end), at)
            first.expire()
            first.close()
            hung.release()
            assert ran.wait(GUARD), f"thrown at {at}"
        if not came:
            break
    assert at > 15, "lines were thrown at"


def test_r29_threads_that_were_assigned_get_their_calls_also_if_expire_is_interrupted(monkeypatch):
    """The call that waited for the stuck thread runs, though its new thread was not given it at first."""
    clock, hung, ran, orders = ManualClock(1000.0), ScriptedCall(Held("late", GUARD)), threading.Event(), []
    hand_over = KeyedThreads.hand_over

    def interrupted(*order):
        orders.append(order)
        if len(orders) == 1:
            raise KeyboardInterrupt
        hand_over(*order)

    with FanOutExecutor(clock=clock, max_workers=1) as executor:
        first, second = executor.session(), executor.session()
        first.submit("a", hung, 1.0)
        until(lambda: hung.started == 1)
        second.submit("b", ran.set, GUARD)
        clock.advance(1.0)
        monkeypatch.setattr(KeyedThreads, "hand_over", interrupted)
        with pytest.raises(KeyboardInterrupt):
            first.expire()
        assert ran.wait(GUARD)
        hung.release()


def test_r29_submit_that_is_interrupted_tells_that_its_call_never_ran(monkeypatch):
    """Whoever submitted it keeps accounts, too: it is told of once, as cancelled."""
    told = []

    def interrupted(*_):
        raise KeyboardInterrupt

    with FanOutExecutor() as executor, executor.session() as session:
        with monkeypatch.context() as patch:
            patch.setattr(KeyedThreads, "hand_over", interrupted)
            with pytest.raises(KeyboardInterrupt):
                session.submit("a", int, GUARD, on_outcome=lambda *what: told.append(what))
        assert [type(outcome).__name__ for _, outcome in told] == ["Cancelled"]
        assert (session.pending, session.abandoned("a")) == (0, 0)
        assert executor.run({"a": int}, GUARD) == {"a": Value(0)}


def test_r29_call_that_is_cut_short_after_its_timeout_was_told_comes_late():
    """Nobody will ever run it: its place is free again, and whoever waits for what is late is told."""
    clock, late = ManualClock(1000.0), []
    with FanOutExecutor(clock=clock, max_abandoned=1) as executor, executor.session() as session:
        call = call_of(session, "a", 1001.0, on_late=lambda *what: late.append(what))
        unheard = call_of(session, "b", 1001.0)
        for one in (call, unheard):
            session._book.begin(one)
        clock.advance(1.0)
        session.expire()
        assert session.abandoned("a") == 1

        session.take_back([call, unheard])

        assert late == [("a", Cancelled())]
        assert session.abandoned("a") == session.abandoned("b") == 0


def test_r29_call_that_was_taken_back_is_not_told_of_again(monkeypatch):
    """Neither by the thread that finds it, nor when there is no thread."""
    told = []

    def start(_):
        raise RuntimeError("no thread")

    with FanOutExecutor() as executor, executor.session() as session:
        call = call_of(session, "a", time.monotonic() + 1.0, told=lambda *what: told.append(what))
        session.take_back([call])
        monkeypatch.setattr(PoolThread, "start", start)
        session._hand_over(session._threads, call, PoolThread(session._threads, "a"))
        assert call.begin(None) is None

    assert told == [("a", Cancelled())]


def test_r29_worker_that_was_hired_is_idle_again_although_its_call_was_taken_back(monkeypatch):
    """Also where other calls of the same kind run in the thread that submits them."""
    with FanOutExecutor() as executor, executor.session() as session:
        session.submit("a", threading.current_thread, GUARD)
        thread = session.next(GUARD)[1].value
        with monkeypatch.context() as patch:
            patch.setattr(SessionCall, "begin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                session.submit("a", int, GUARD, here=True)
        assert session.next(0) == ("a", Cancelled())
        session.submit("a", threading.current_thread, GUARD)
        assert session.next(GUARD) == ("a", Value(thread))


def test_r30_end_of_a_call_in_another_process_is_the_parents_to_tell(monkeypatch):
    """A worker whose call forked ends in the child, and tells nothing."""
    executor = FanOutExecutor()
    session = executor.session()
    monkeypatch.setattr("resilience.fan_out.threads.getpid", lambda: -1)
    call = call_of(session, "a", time.monotonic() + 1.0)

    assert session.settle(call, Value(1), None) is False


def test_r30_call_that_forks_ends_in_the_child_without_the_parents_accounts():
    """The child's copy of the call returns, too; it tells nobody, and waits for no lock that a thread held."""
    with FanOutExecutor() as executor, executor.session() as session:
        children = []

        def fork():
            with executor._per_process().threads.lock:
                pid = os.fork()
            if pid:
                children.append(pid)
            else:
                executor._processes[os.getppid()].threads.lock = None  # nobody may use it here
                signal.alarm(20)
            return pid

        parent, status = os.getpid(), 1
        try:
            session.submit("a", fork, GUARD, here=True)
            status = 0 if children or session.next(0) is None else 1
        finally:
            if os.getpid() != parent:
                os._exit(status)
        assert os.waitpid(children[0], 0)[1] == 0
        assert session.next(0) == ("a", Value(children[0]))


def test_r31_callback_that_ends_its_thread_is_contained(caplog):
    """``sys.exit`` in a callback would end a worker, silently: it is logged like any error, and the worker goes on."""

    def leave(*_):
        raise SystemExit(3)

    with FanOutExecutor(max_workers=1) as executor, executor.session() as session:
        session.submit("a", int, GUARD, on_outcome=leave)
        session.submit("a", int, GUARD)
        assert session.next(GUARD) == ("a", Value(0))
    assert "SystemExit" in caplog.text


def test_callback_that_is_interrupted_in_the_main_thread_lets_that_through():
    """Ctrl-C is for whoever waits there."""

    def interrupted(*_):
        raise KeyboardInterrupt

    breakers = BreakerRegistry()
    breakers.get("a").force_open()
    with FanOutExecutor(breakers=breakers) as executor, executor.session() as session:
        with pytest.raises(KeyboardInterrupt):
            session.submit("a", int, GUARD, on_outcome=interrupted)
        assert isinstance(executor.run({"a": int}, GUARD)["a"], Rejected)
