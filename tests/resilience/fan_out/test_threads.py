"""The fan-out on threads: rules F1 to F9, with gates instead of sleeping."""

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import logging
import subprocess
import sys
import textwrap
import threading
import weakref
from types import SimpleNamespace

import pytest

from resilience.breaker import BreakerConfig
from resilience.events import BreakerState
from resilience.fan_out import FanOutExecutor, pool
from resilience.fan_out.pool import KeyedThreads, PoolThread
from resilience.outcomes import Cancelled, Failed, Rejected, TimedOut, Value
from resilience.registry import BreakerRegistry
from resilience.testing import Held, ManualClock, ScriptedCall

GUARD = 60.0  # seconds after which a wrong test fails rather than hangs


class Told:
    """A callback that collects what it is told, and in which thread; raises ``then`` each time, if given."""

    def __init__(self, then=None):
        self.outcomes = []
        self.threads = []
        self._then = then
        self._news = threading.Condition()

    def __call__(self, key, outcome):
        """Take in one outcome."""
        with self._news:
            self.outcomes.append((key, outcome))
            self.threads.append(threading.current_thread())
            self._news.notify_all()
        if self._then is not None:
            raise self._then

    def wait(self, count=1):
        """Block until ``count`` outcomes were told, and return all."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.outcomes) >= count, GUARD)
        return self.outcomes


@pytest.fixture
def clock():
    """Time that stands still unless a test moves it."""
    return ManualClock()


@pytest.fixture
def executor(clock):
    """An executor on the manual clock."""
    with FanOutExecutor(clock=clock) as executor:
        yield executor


@pytest.fixture
def session(executor):
    """A session on the manual clock."""
    with executor.session() as session:
        yield session


@pytest.fixture
def hung():
    """A call that hangs until the test is over or releases it, and then brings "late"."""
    call = ScriptedCall(Held("late", GUARD))
    yield call
    call.release()


def asleep(session, found, count):
    """Threads that wait in next, for longer than the test would, and add what they are told to ``found``."""
    sleepers = [threading.Thread(target=lambda: found.append(session.next(1000.0)), daemon=True) for _ in range(count)]
    for sleeper in sleepers:
        sleeper.start()
    while session._sleepers < count:
        assert all(sleeper.is_alive() for sleeper in sleepers)
    return sleepers


def join(threads):
    """Wait for threads that are to end by themselves."""
    for thread in threads:
        thread.join(GUARD)
        assert not thread.is_alive()


def python(script):
    """Run a script in a process of its own, which must end by itself, and return what it printed."""
    done = subprocess.run(  # noqa: S603 - our own interpreter, our own script
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# -- run -----------------------------------------------------------------------------------------------------------


def test_run_gives_an_outcome_for_every_key_in_order():
    """Values, errors and whatever else a call raises come back under the keys they were given, in the same order."""
    error, leaving = KeyError("x"), SystemExit(3)
    with FanOutExecutor() as executor:
        outcomes = executor.run(
            {"z": lambda: 1, "a": ScriptedCall(error), ("t", 1): ScriptedCall(leaving), "none": lambda: None}, GUARD
        )

    assert list(outcomes.items()) == [
        ("z", Value(1)),
        ("a", Failed(error)),
        (("t", 1), Failed(leaving)),
        ("none", Value(None)),
    ]


def test_run_of_nothing_is_nothing():
    """No calls, no outcomes, no waiting."""
    with FanOutExecutor() as executor:
        assert executor.run({}, GUARD) == {}


def test_what_cannot_be_called_is_a_failure_of_its_key_alone():
    """Run never raises for a call, not even for one that is no callable."""
    with FanOutExecutor() as executor:
        outcomes = executor.run({"bad": None, "good": lambda: 1}, GUARD)

    assert isinstance(outcomes["bad"], Failed)
    assert outcomes["good"] == Value(1)


@pytest.mark.parametrize("cancelled", [asyncio.CancelledError, concurrent.futures.CancelledError])
def test_a_cancelled_call_is_cancelled(cancelled):
    """What was cancelled has neither failed nor succeeded."""
    with FanOutExecutor() as executor:
        assert executor.run({"a": ScriptedCall(cancelled())}, GUARD) == {"a": Cancelled()}


def test_outcomes_say_how_long_the_call_ran(executor, clock):
    """The duration is that of the call, by the executor's clock."""
    outcome = executor.run({"a": lambda: clock.advance(2.5)}, GUARD)["a"]

    assert outcome.duration == 2.5


def test_f1_run_returns_while_a_call_hangs(hung):
    """A call that never ends is timed out at the deadline; run does not wait for it."""
    with FanOutExecutor() as executor:
        outcomes = executor.run({"hung": hung, "fine": lambda: 1}, 0.5)

    assert outcomes == {"hung": TimedOut(0.5), "fine": Value(1)}
    assert hung.ended == 0


def test_f2_what_ends_before_its_deadline_was_looked_at_is_told(session, clock):
    """An outcome that exists when somebody looks is told, also when the clock moved past the deadline meanwhile."""
    call = ScriptedCall(Held("just", GUARD))
    told = Told()
    session.submit("a", call, 1.0, on_outcome=told)
    clock.advance(1.0)
    call.release()

    assert told.wait() == [("a", Value("just"))]
    assert session.expire() is None


def test_f2_what_ended_at_the_deadline_is_in_the_result(executor, clock):
    """A call that ends exactly at the deadline is in time."""
    assert executor.run({"a": lambda: clock.advance(5.0)}, 5.0) == {"a": Value(5.0)}


def test_f3_late_outcomes_are_handed_over_once(hung):
    """What an abandoned call brings goes to on_late with its key, once, in another thread."""
    late = Told()
    with FanOutExecutor() as executor:
        executor.run({"hung": hung}, 0.3, on_late=late)
        hung.release()

        assert late.wait() == [("hung", Value("late"))]
        assert executor.run({"hung": lambda: 1}, GUARD) == {"hung": Value(1)}
    assert late.outcomes == [("hung", Value("late"))]
    assert late.threads[0] is not threading.current_thread()


def test_f3_the_session_takes_what_is_late_without_a_callback_of_its_own(executor, clock, hung):
    """on_late of submit comes first, on_late of the session is for the rest."""
    general, own = Told(), Told()
    with executor.session(on_late=general) as session:
        session.submit("a", hung, 1.0)
        session.submit("b", hung, 1.0, on_late=own)
        hung.wait_started(2)
        clock.advance(1.0)
        session.expire()
        hung.release()

        assert general.wait() == [("a", Value("late"))]
        assert own.wait() == [("b", Value("late"))]


def test_f3_a_late_error_is_handed_over_too(session, clock):
    """Late failures are told like late values."""
    error = OSError("reset")
    call, late = ScriptedCall(Held(error, GUARD)), Told()
    session.submit("a", call, 1.0, on_late=late)
    call.wait_started()
    clock.advance(1.0)
    session.expire()
    call.release()

    assert late.wait() == [("a", Failed(error))]


def test_a_call_that_was_told_of_is_not_told_of_again_by_an_interruption(session):
    """A signal handler raises in this thread just as it is told of the call that it ran itself."""
    told = []

    def interrupted(key, outcome):
        told.append((key, outcome))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.submit("a", lambda: 1, 1.0, on_outcome=interrupted, on_late=interrupted, here=True)

    assert told == [("a", Value(1))]
    assert session.pending == 0


@pytest.mark.parametrize("end", [TimedOut, Cancelled])
def test_f3_what_comes_while_a_timeout_is_told_is_told_after_it(end, clock, session, hung):
    """Whoever is told hears of the end first, however close the answer is behind it."""
    told = []

    def ended(key, outcome):
        if key == "a":
            hung.release()
            while session.abandoned("b"):
                threading.Event().wait(0.001)
        told.append((key, outcome))

    late = Told()
    gate = ScriptedCall(Held(None, GUARD))
    session.submit("a", gate, 1.0, on_outcome=ended)
    session.submit("b", hung, 1.0, on_outcome=ended, on_late=lambda *fact: (told.append(fact), late(*fact)))
    if end is TimedOut:
        clock.advance(1.0)
        session.expire()
    else:
        session.close()

    late.wait()
    gate.release()
    assert [(key, type(outcome)) for key, outcome in told] == [("a", end), ("b", end), ("b", Value)]


def test_f3_nobody_waits_for_what_is_late_without_a_callback(session, clock, hung):
    """Without on_late the outcome is dropped, and the worker is free again."""
    session.submit("a", hung, 1.0)
    hung.wait_started()
    clock.advance(1.0)
    session.expire()
    hung.release()
    hung.wait_ended()
    session.submit("a", lambda: 1, 1.0)

    assert session.next(GUARD) == ("a", TimedOut(1.0))
    assert session.next(GUARD) == ("a", Value(1))


def test_f4_a_hung_key_is_rejected_and_others_run(hung):
    """After max_abandoned timeouts the hung key is rejected at once, with a reason; the other key always runs."""
    with FanOutExecutor(max_abandoned=2) as executor:
        rounds = [executor.run({"hung": hung, "fine": lambda: 1}, 0.4) for _ in range(3)]

        assert [type(outcomes["hung"]) for outcomes in rounds] == [TimedOut, TimedOut, Rejected]
        assert "max_abandoned=2" in rounds[2]["hung"].reason
        assert all(outcomes["fine"] == Value(1) for outcomes in rounds)
        assert hung.started == 2


def test_f4_the_place_is_free_when_the_abandoned_call_ends(hung):
    """Once the hung calls have ended, the key runs again, without anything being reset."""
    late = Told()
    with FanOutExecutor(max_abandoned=1) as executor, executor.session() as session:
        executor.run({"a": hung}, 0.3, on_late=late)
        assert session.abandoned("a") == 1
        hung.release()
        late.wait()

        assert session.abandoned("a") == 0
        assert executor.run({"a": lambda: 1}, GUARD) == {"a": Value(1)}


def test_several_calls_of_one_key_run_at_once(session):
    """Each has a thread of its own: all begin before any ends."""
    meeting = threading.Barrier(5, timeout=GUARD)
    for _ in range(5):
        session.submit("a", meeting.wait, 1.0)

    outcomes = [session.next(GUARD) for _ in range(5)]
    assert sorted(outcome.value for _, outcome in outcomes) == [0, 1, 2, 3, 4]


def test_all_calls_of_a_run_run_at_once():
    """200 keys all begin before any ends."""
    meeting = threading.Barrier(200, timeout=GUARD)
    with FanOutExecutor() as executor:
        outcomes = executor.run(dict.fromkeys(range(200), meeting.wait), GUARD)

    assert sorted(outcome.value for outcome in outcomes.values()) == list(range(200))


def test_f5_an_abandoned_call_does_not_delay_process_exit():
    """A process whose call hangs for ever ends by itself, with and without closing the executor."""
    assert python("""
        import threading
        from resilience.fan_out import FanOutExecutor

        executor = FanOutExecutor()
        print(type(executor.run({"hung": threading.Event().wait, "fine": int}, 0.05)["hung"]).__name__)
        executor.session().submit("hung", threading.Event().wait, 60.0)
    """) == ["TimedOut"]


def test_f6_context_variables_reach_the_calls():
    """Each call sees the caller's context variables, and what it sets stays its own."""
    variable = contextvars.ContextVar("variable")
    variable.set("caller's")

    def call():
        seen = variable.get()
        variable.set("call's")
        return seen

    with FanOutExecutor() as executor:
        for _ in range(2):
            assert executor.run({"a": call, "b": call}, GUARD) == {"a": Value("caller's"), "b": Value("caller's")}
    assert variable.get() == "caller's"


@pytest.mark.parametrize("calls", [[int, str], (int,), "calls", int, None])
def test_r20_calls_that_are_no_mapping_are_answered(executor, calls):
    """Outcomes have the keys of their calls: the error says how to get some."""
    with pytest.raises(TypeError, match=r"mapping of keys to functions, not a .*dict\(enumerate\(functions\)\)"):
        executor.run(calls, GUARD)


async def later(*_):
    """Nobody would await it."""


class Later:
    async def __call__(self, *_):
        """Nobody would await it."""


async def generated(*_):
    """Nobody would iterate it."""
    yield


ASYNC = [later, Later(), generated, functools.partial(later), functools.partial(functools.partial(later), 1)]


@pytest.mark.parametrize("function", ASYNC)
def test_r25_async_def_is_refused_where_it_is_given(executor, session, function):
    """As a call and as a callback: nothing runs, and the error names the way out."""
    call = ScriptedCall(1)
    with pytest.raises(TypeError, match=r"call of 'b' must be an ordinary function, not the async def .*asyncio\.run"):
        executor.run({"a": call, "b": function}, GUARD)
    with pytest.raises(TypeError, match="call of 'b'"):
        session.submit("b", function, GUARD)
    with pytest.raises(TypeError, match="on_late must be a plain function, not the async function"):
        executor.run({"a": call}, GUARD, on_late=function)
    with pytest.raises(TypeError, match="on_late"):
        executor.session(on_late=function)
    for sink in ("on_outcome", "on_late"):
        with pytest.raises(TypeError, match=sink):
            session.submit("a", call, GUARD, **{sink: function})
    assert (call.started, session.pending) == (0, 0)


@pytest.mark.parametrize("comes_back", [later, type("Future", (), {"__await__": iter})])
def test_r25_awaitable_that_comes_back_is_a_failure_that_says_so(breakers, clock, comes_back):
    """It has done nothing yet, and nobody awaits it; its breaker hears of a failure."""
    with FanOutExecutor(breakers=breakers, clock=clock) as executor, executor.session() as session:
        call = ScriptedCall(comes_back()) if isinstance(comes_back, type) else lambda: comes_back(1)
        outcome = executor.run({"a": call}, GUARD)["a"]
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, TypeError)
        assert "returned an awaitable" in str(outcome.error)
        assert breakers.get("a").failures == 1
        session.submit("a", call, GUARD, here=True)
        assert isinstance(session.next(0)[1], Failed)


def test_f8_b10_values_are_judged_by_what_counts(clock):
    """A value that counts as a failure is a value for the caller and a failure for its breaker."""
    breakers = BreakerRegistry(BreakerConfig(counts=lambda what: what == 503), clock=clock)
    with FanOutExecutor(breakers=breakers, clock=clock) as executor:
        assert executor.run({"a": lambda: 503, "b": lambda: 200}, GUARD) == {"a": Value(503), "b": Value(200)}

    assert (breakers.get("a").failures, breakers.get("b").failures) == (1, 0)


# -- as many threads as one likes ----


def started_threads(monkeypatch):
    """The workers whose threads are started from here on."""
    started, start = [], PoolThread.start

    def counting(worker):
        started.append(worker)
        start(worker)

    monkeypatch.setattr(PoolThread, "start", counting)
    return started


def test_f10_r36_fifteen_hundred_calls_are_not_fifteen_hundred_threads(monkeypatch):
    """With ``max_workers`` they take turns; all end, each under its own key."""
    started = started_threads(monkeypatch)
    with FanOutExecutor(max_workers=8) as executor:
        outcomes = executor.run({number: lambda n=number: n for number in range(1500)}, GUARD)

    assert outcomes == {number: Value(number) for number in range(1500)}
    assert len(started) <= 8


def test_f10_calls_that_wait_are_taken_in_their_order(executor_of_one):
    """First come, first served, whatever their keys and sessions."""
    gate, begun = ScriptedCall(Held(0, GUARD)), []
    with executor_of_one.session() as first, executor_of_one.session() as second:
        first.submit("gate", gate, GUARD)
        gate.wait_started()
        for number in range(6):
            (first, second)[number % 2].submit(f"key-{number}", lambda n=number: begun.append(n), GUARD)
        assert begun == []
        gate.release()
        for session, count in ((first, 4), (second, 3)):
            for _ in range(count):
                assert isinstance(session.next(GUARD)[1], Value)

    assert begun == list(range(6))


@pytest.fixture
def executor_of_one(clock):
    """An executor that runs one call at a time."""
    with FanOutExecutor(max_workers=1, clock=clock) as executor:
        yield executor


def test_f10_call_that_waits_at_its_deadline_is_timed_out_and_nobody_is_blamed(clock, hung):
    """It has not run: its breaker hears of nothing, it comes late as Cancelled, and its place is free again."""
    breakers, call, late = _Asking(), ScriptedCall(1), Told()
    with FanOutExecutor(max_workers=1, breakers=breakers, clock=clock) as executor, executor.session() as session:
        session.submit("hung", hung, 1.0)
        hung.wait_started()
        session.submit("waits", call, 1.0, on_late=late)
        clock.advance(1.0)
        session.expire()

        assert sorted(session.next(0) for _ in range(2)) == [("hung", TimedOut(1.0)), ("waits", TimedOut(1.0))]
        assert [type(report) for report in breakers.reports] == [TimeoutError, str]
        assert late.wait() == [("waits", Cancelled())]
        assert (call.started, session.abandoned("waits"), session.abandoned("hung")) == (0, 0, 1)


def test_f10_run_keeps_its_deadline_however_many_calls_wait(hung):
    """In real time: what had no turn by then is TimedOut, and run returns."""
    with FanOutExecutor(max_workers=2) as executor, executor.session() as session:
        outcomes = executor.run({"fine": lambda: 1, **dict.fromkeys(range(100), hung)}, 0.3)

        assert outcomes.pop("fine") == Value(1)
        assert outcomes == dict.fromkeys(range(100), TimedOut(0.3))
        assert hung.started == 2
        while any(session.abandoned(number) for number in range(2, 100)):
            threading.Event().wait(0.001)
        assert executor.run({"other": lambda: 2}, GUARD) == {"other": Value(2)}


def test_f10_abandoned_call_keeps_nobody_waiting(executor_of_one, clock, hung, monkeypatch):
    """Its thread is stuck and no longer counted: another takes its place, and it ends when the call does."""
    started = started_threads(monkeypatch)
    late = Told()
    with executor_of_one.session() as session:
        session.submit("hung", hung, 1.0, on_late=late)
        hung.wait_started()
        session.submit("waits", threading.current_thread, 5.0)
        clock.advance(1.0)
        session.expire()
        outcomes = dict(session.next(GUARD) for _ in range(2))
        assert (outcomes["hung"], len(started)) == (TimedOut(1.0), 2)

        hung.release()
        late.wait()
        join(late.threads)
        session.submit("hung", threading.current_thread, 1.0)
        assert session.next(GUARD) == ("hung", outcomes["waits"])
        assert len(started) == 2


def test_f10_stuck_worker_is_counted_again_where_there_is_a_place_for_it(executor_of_one, clock, hung, monkeypatch):
    """When its call ends and nobody took its place it goes on working."""
    started = started_threads(monkeypatch)
    late = Told()
    with executor_of_one.session() as session:
        session.submit("hung", hung, 1.0, on_late=late)
        hung.wait_started()
        clock.advance(1.0)
        session.close()
        hung.release()
        late.wait()
    assert executor_of_one.run({"hung": threading.current_thread}, GUARD)["hung"].value is late.threads[0]
    assert len(started) == 1


def test_f10_closing_a_session_gives_what_waits_elsewhere_its_turn(executor_of_one, hung):
    """Its calls are abandoned: they are in nobody's way."""
    with executor_of_one.session() as other:
        with executor_of_one.session() as session:
            session.submit("hung", hung, GUARD)
            hung.wait_started()
            other.submit("waits", lambda: 1, GUARD)
        assert other.next(GUARD) == ("waits", Value(1))


def test_f10_idle_thread_of_another_key_is_used_where_there_may_be_no_more(executor_of_one, monkeypatch):
    """Keys take turns with one thread."""
    started = started_threads(monkeypatch)
    for _ in range(3):
        assert executor_of_one.run({"a": int}, GUARD) == {"a": Value(0)}
        assert executor_of_one.run({"b": str}, GUARD) == {"b": Value("")}

    assert len(started) == 1


def test_f10_call_that_no_thread_could_be_had_for_takes_no_place(executor_of_one, monkeypatch):
    """The next one may have a thread."""

    def start(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(PoolThread, "start", start)
        assert isinstance(executor_of_one.run({"a": int}, GUARD)["a"], Rejected)
    assert executor_of_one.run({"a": int}, GUARD) == {"a": Value(0)}


def test_f10_closed_executor_still_runs_what_waits(hung):
    """It was taken, so it is told of; the thread ends after it."""
    executor = FanOutExecutor(max_workers=1)
    session, told = executor.session(), Told()
    session.submit("hung", hung, GUARD)
    hung.wait_started()
    session.submit("waits", lambda: 1, GUARD, on_outcome=told)
    executor.close()
    hung.release()

    assert told.wait() == [("waits", Value(1))]
    join(told.threads)


def test_f10_idle_threads_that_end_make_room(monkeypatch):
    """Those that had nothing to do for a while, too."""
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.01)
    with FanOutExecutor(max_workers=1) as executor:
        for _ in range(3):
            executor.run({"a": threading.current_thread}, GUARD)["a"].value.join(GUARD)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (True, ValueError), (1.5, TypeError)])
def test_max_workers_must_be_a_positive_whole_number(value, error):
    """The refusal names the option."""
    with pytest.raises(error, match=r"^max_workers"):
        FanOutExecutor(max_workers=value)


# -- sessions ------------------------------------------------------------------------------------------------------


def test_f7_a_session_brings_outcomes_as_they_come(session, hung):
    """A call that ends is told while others still run, without any barrier."""
    session.submit("slow", hung, 1.0)
    session.submit("fast", lambda: 1, 1.0)

    assert session.next(GUARD) == ("fast", Value(1))
    assert session.pending == 1
    hung.release()
    assert session.next(GUARD) == ("slow", Value("late"))
    assert session.pending == 0


def test_f7_next_without_anything_is_none(session):
    """Looking without waiting finds nothing."""
    assert session.next(0) is None


def test_f7_next_wakes_for_deadlines(hung):
    """In real time, next tells of a timeout although nothing ended; afterwards its own time ends."""
    with FanOutExecutor() as executor, executor.session() as session:
        session.submit("a", hung, 0.02)

        assert session.next(GUARD) == ("a", TimedOut(0.02))
        assert session.next(0.02) is None


def test_f7_next_wakes_for_a_deadline_that_was_submitted_while_it_slept(hung):
    """A sleeper learns of a deadline earlier than the one it sleeps for."""
    with FanOutExecutor() as executor, executor.session() as session:
        found = []
        sleepers = asleep(session, found, 1)
        session.submit("a", hung, 0.02)
        join(sleepers)

    assert found == [("a", TimedOut(0.02))]


def test_f7_sleepers_wake_each_other(hung):
    """Whoever leaves next with something passes on the care for the next deadline."""
    with FanOutExecutor() as executor, executor.session() as session:
        found = []
        sleepers = asleep(session, found, 3)
        for timeout in (0.06, 0.04, 0.02):
            session.submit("a", hung, timeout)
        join(sleepers)

    assert sorted(outcome.timeout for _, outcome in found) == [0.02, 0.04, 0.06]


def test_f7_a_callback_takes_the_place_of_next(session, clock, hung):
    """on_outcome is told in the worker's thread, or in the one that noticed the timeout; next is not."""
    told = Told()
    session.submit("fast", lambda: 1, 1.0, on_outcome=told)
    told.wait()
    session.submit("slow", hung, 1.0, on_outcome=told)
    clock.advance(1.0)
    session.expire()

    assert told.outcomes == [("fast", Value(1)), ("slow", TimedOut(1.0))]
    assert told.threads[0].name == "fan-out fast"
    assert told.threads[1] is threading.current_thread()
    assert session.next(0) is None


def test_expire_says_when_to_come_back(session, clock, hung):
    """The clock time of the next deadline, also after telling of the earlier ones; None when nothing is pending."""
    assert session.expire() is None
    session.submit("a", hung, 3.0)
    session.submit("b", hung, 1.0)
    assert session.expire() == 1.0
    clock.advance(1.0)
    assert session.expire() == 3.0
    assert session.pending == 1
    clock.advance(2.0)
    assert session.expire() is None


def test_expire_counts_what_its_callbacks_submitted(session, clock, hung):
    """The time to come back is that of calls that were submitted when the others timed out."""
    session.submit("a", hung, 1.0, on_outcome=lambda *_: session.submit("b", hung, 0.5))
    clock.advance(1.0)

    assert session.expire() == 1.5


def test_a_callback_may_submit_the_next_call_of_its_key(session):
    """From the worker's own thread, while it is still busy with telling."""
    told = Told()

    def again(key, _):
        session.submit(key, lambda: 2, 1.0, on_outcome=told)

    session.submit("a", lambda: 1, 1.0, on_outcome=again)

    assert told.wait() == [("a", Value(2))]


def test_a_callback_that_raises_is_logged_and_harms_nobody(executor, session, clock, hung, caplog):
    """Neither a worker nor the other calls that are told of suffer from it."""
    bad = Told(then=RuntimeError)
    with caplog.at_level(logging.ERROR, "resilience"):
        session.submit("a", lambda: 1, 1.0, on_outcome=bad)
        bad.wait(1)
        session.submit("b", hung, 1.0, on_outcome=bad, on_late=bad)
        session.submit("c", hung, 1.0)
        hung.wait_started(2)
        clock.advance(1.0)
        session.expire()
        assert session.next(0) == ("c", TimedOut(1.0))
        hung.release()
        bad.wait(3)
        for key in "abc":
            session.submit(key, lambda: 1, 1.0)
            assert session.next(GUARD) == (key, Value(1))
        executor.close()
        join({bad.threads[0], bad.threads[2]})

    assert bad.outcomes == [("a", Value(1)), ("b", TimedOut(1.0)), ("b", Value("late"))]
    assert [record.exc_info[0] for record in caplog.records] == [RuntimeError] * 3


def test_a_call_that_was_told_of_before_it_began_does_not_run(session, clock, monkeypatch):
    """Nobody waits for it any more; its late outcome says that it never started, and its place is free."""
    late, call, starting = Told(), ScriptedCall(1), []
    with monkeypatch.context() as patch:
        patch.setattr(PoolThread, "start", lambda *args: starting.extend(args))
        session.submit("a", call, 1.0, on_late=late)
    clock.advance(1.0)
    session.expire()
    assert session.next(0) == ("a", TimedOut(1.0))
    assert session.abandoned("a") == 1

    starting[0].start()

    assert late.wait() == [("a", Cancelled())]
    assert call.started == 0
    assert session.abandoned("a") == 0


def test_a_call_whose_deadline_is_over_before_it_could_start_is_rejected(clock):
    """So that a run with more calls than its timeout can start returns at its deadline all the same."""
    breakers = _Asking(lambda: clock.advance(0.6))
    with FanOutExecutor(clock=clock, breakers=breakers) as executor:
        outcomes = executor.run({"a": lambda: 1, "b": lambda: 2, "c": lambda: 3}, 1.0)

    assert isinstance(outcomes["c"], Rejected)
    assert "before it could start" in outcomes["c"].reason
    assert breakers.asked == ["a", "b"]


def test_a_call_no_thread_can_be_had_for_is_rejected(session, monkeypatch):
    """When the system has no more threads, the reason says so, and the session goes on."""

    def start(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(PoolThread, "start", start)
        session.submit("a", lambda: 1, 1.0)

    key, outcome = session.next(GUARD)
    assert key == "a"
    assert "can't start new thread" in outcome.reason
    assert session.pending == 0
    session.submit("a", lambda: 2, 1.0)
    assert session.next(GUARD) == ("a", Value(2))


def test_a_call_no_thread_can_be_had_for_may_have_timed_out_meanwhile(session, clock, monkeypatch):
    """What was told stands: the failed start changes nothing but frees the place."""

    def start(_):
        clock.advance(1.0)
        session.expire()
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(PoolThread, "start", start)
        session.submit("a", lambda: 1, 1.0)

    assert session.next(0) == ("a", TimedOut(1.0))
    assert session.next(0) is None
    assert session.abandoned("a") == 0


# -- closing -------------------------------------------------------------------------------------------------------


def test_closing_a_session_cancels_what_is_pending(executor, hung):
    """Each pending call is told Cancelled once; what it brings after all is late."""
    told, late = Told(), Told()
    with executor.session() as session:
        session.submit("a", hung, 1.0, on_outcome=told, on_late=late)
        session.submit("b", hung, 1.0)
        hung.wait_started(2)

    assert told.outcomes == [("a", Cancelled())]
    assert session.next(GUARD) == ("b", Cancelled())
    assert session.next(GUARD) is None
    hung.release()
    assert late.wait() == [("a", Value("late"))]


def test_closing_a_session_wakes_who_waits_in_next(executor):
    """Nothing can come any more, so nobody is left waiting."""
    session = executor.session()
    found = []
    sleepers = asleep(session, found, 5)
    session.close()
    join(sleepers)

    assert found == [None] * 5


def test_a_closed_session_or_executor_takes_no_calls():
    """The error says what is closed, and the permit that was taken is given back."""
    breakers = _Asking()
    with FanOutExecutor(breakers=breakers) as other:
        closed, orphan = other.session(), other.session()
    closed.close()

    for session in (closed, orphan):
        with pytest.raises(RuntimeError, match="closed"):
            session.submit("a", lambda: 1, 1.0)
    assert breakers.reports == ["released", "released"]
    with pytest.raises(RuntimeError, match="closed"):
        other.run({"a": lambda: 1}, 1.0)
    with pytest.raises(RuntimeError, match="closed"):
        other.session()


def test_a_running_call_is_told_although_the_executor_was_closed(hung):
    """Closing an executor ends threads that are idle; what runs is left to its session."""
    executor = FanOutExecutor()
    session = executor.session()
    session.submit("a", hung, GUARD)
    hung.wait_started()
    executor.close()
    hung.release()

    assert session.next(GUARD) == ("a", Value("late"))


def test_an_interrupted_run_cancels_its_calls(hung, monkeypatch):
    """Ctrl-C in run goes on to the caller; its calls are abandoned and what they bring is late."""
    late = Told()
    with FanOutExecutor() as executor, executor.session() as other:

        def interrupted(*_):
            hung.wait_started()
            raise KeyboardInterrupt

        monkeypatch.setattr("resilience.fan_out.threads._Latch.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            executor.run({"a": hung}, GUARD, on_late=late)

        assert other.abandoned("a") == 1
        hung.release()
        assert late.wait() == [("a", Value("late"))]


@pytest.mark.parametrize("timeout", [float("inf"), 1e7, float("nan"), True])
def test_a_timeout_that_bounds_nothing_is_refused(executor, session, timeout):
    """Before anything runs."""
    call = ScriptedCall(1)

    with pytest.raises(ValueError, match="timeout"):
        executor.run({"a": call}, timeout)
    with pytest.raises(ValueError, match="timeout"):
        session.submit("a", call, timeout)
    with pytest.raises(ValueError, match="timeout"):
        session.next(timeout)
    assert call.started == 0


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0, -1.7e9])
def test_r36_deadline_that_is_over_is_timed_out_for_each_call(timeout):
    """``timeout=deadline - now`` needs no care: nothing runs, and nothing is reported to a breaker."""
    breakers, call, told, late = _Asking(), ScriptedCall(1), Told(), Told()
    with FanOutExecutor(breakers=breakers) as executor, executor.session() as session:
        assert executor.run({"a": call, "b": call}, timeout, on_late=late) == {
            "a": TimedOut(timeout),
            "b": TimedOut(timeout),
        }
        session.submit("a", call, timeout, on_outcome=told, on_late=late)
        session.submit("b", call, timeout)
        assert session.next(timeout) == ("b", TimedOut(timeout))
        assert session.next(timeout) is None
        assert session.abandoned("a") == session.pending == 0

    assert told.outcomes == [("a", TimedOut(timeout))]
    assert (late.outcomes, breakers.asked, call.started) == ([], [], 0)
    with pytest.raises(RuntimeError, match="closed"):
        executor.run({"a": call}, timeout)


def test_max_abandoned_is_checked_at_once():
    """Not only when the first call is made."""
    with pytest.raises(ValueError, match="max_abandoned"):
        FanOutExecutor(max_abandoned=0)


# -- breakers ------------------------------------------------------------------------------------------------------


class _Asking:
    """Stands for a registry: notes who asked and what was reported, and does ``then`` each time it is asked."""

    def __init__(self, then=lambda: None):
        self.asked = []
        self.reports = []
        self._then = then

    def get(self, name):
        self.asked.append(name)
        self._then()
        return self

    def try_acquire(self):
        return self

    probe = False

    def report(self, outcome):
        if isinstance(outcome, Value):
            self.reports.append("succeeded")
        elif isinstance(outcome, (Failed, TimedOut)):
            self.reports.append(outcome.error if isinstance(outcome, Failed) else TimeoutError())
        else:
            self.reports.append("released")


@pytest.fixture
def breakers(clock):
    """Breakers on the manual clock, with the default policy."""
    return BreakerRegistry(clock=clock)


@pytest.fixture
def guarded(breakers, clock):
    """An executor that asks those breakers."""
    with FanOutExecutor(breakers=breakers, clock=clock) as executor:
        yield executor


def test_f8_an_open_breaker_rejects(guarded, breakers):
    """The call never runs; the outcome is the breaker's own refusal, with the time to try again."""
    call = ScriptedCall(1)
    breakers.get("a").force_open()
    outcomes = guarded.run({"a": call, "b": lambda: 1}, GUARD)

    assert outcomes["a"] == breakers.get("a").try_acquire()
    assert outcomes["b"] == Value(1)
    assert call.started == 0


def test_f8_values_and_errors_are_reported():
    """A value is a success, an error a failure, cancellation neither, and each is reported before it is told."""
    breakers, error = _Asking(), OSError()
    with FanOutExecutor(breakers=breakers) as executor, executor.session() as session:
        for reported, step in (("succeeded", 1), (error, error), ("released", asyncio.CancelledError())):
            told = Told()
            seen = []
            session.submit("a", ScriptedCall(step), GUARD, on_outcome=lambda *_, s=seen: s.extend(breakers.reports))
            session.submit("b", ScriptedCall(step), GUARD, on_outcome=told)
            told.wait()
            while not seen:
                assert session.next(0) is None
            assert seen[0] == reported
            breakers.reports.clear()


def test_f8_failures_open_the_breaker(guarded, breakers):
    """As many failing calls as the breaker allows, and it rejects the next one."""
    for _ in range(3):
        guarded.run({"a": ScriptedCall(OSError())}, GUARD)

    assert breakers.get("a").state is BreakerState.OPEN
    assert isinstance(guarded.run({"a": lambda: 1}, GUARD)["a"], Rejected)


def test_f8_a_timeout_is_reported_at_the_deadline(guarded, breakers, clock, hung):
    """It counts while the call still hangs; what comes late counts as nothing."""
    late = Told()
    with guarded.session() as session:
        session.submit("a", hung, 1.0, on_late=late)
        hung.wait_started()
        clock.advance(1.0)
        assert breakers.get("a").failures == 0
        session.expire()

        assert breakers.get("a").failures == 1
        assert isinstance(breakers.get("a").last_error, TimeoutError)
        hung.release()
        late.wait()
        assert breakers.get("a").failures == 1


def test_f8_the_breaker_hears_of_a_timeout_before_anybody_else_and_of_nothing_later(clock, hung):
    """Whoever is told of it finds the breaker informed; what is late is not reported at all."""
    breakers, seen, late = _Asking(), [], Told()
    with FanOutExecutor(breakers=breakers, clock=clock) as executor, executor.session() as session:
        session.submit("a", hung, 1.0, on_outcome=lambda *_: seen.extend(breakers.reports), on_late=late)
        hung.wait_started()
        clock.advance(1.0)
        session.expire()
        hung.release()
        late.wait()

    assert [type(report) for report in seen] == [TimeoutError]
    assert breakers.reports == seen


def test_f8_closing_a_session_is_neutral(clock, hung):
    """What we cancelled says nothing about the other side."""
    breakers = _Asking()
    with FanOutExecutor(breakers=breakers, clock=clock) as executor, executor.session() as session:
        session.submit("a", hung, 1.0)
    assert breakers.reports == ["released"]


def test_f8_the_bulkhead_asks_no_breaker(clock, hung):
    """A key without a place does not use up a probe's permit."""
    breakers = _Asking()
    with FanOutExecutor(breakers=breakers, clock=clock, max_abandoned=1) as executor, executor.session() as session:
        session.submit("a", hung, 1.0)
        clock.advance(1.0)
        session.expire()
        session.submit("a", hung, 1.0)
    assert breakers.asked == ["a"]


def test_f8_the_breaker_of_a_key_is_named_by_its_text():
    """Keys need not be text; their breakers are called what str() says."""
    breakers = _Asking()
    with FanOutExecutor(breakers=breakers) as executor:
        executor.run({("eu", 1): int, 7: int, "plain": int}, GUARD)

    assert breakers.asked == ["('eu', 1)", "7", "plain"]


def test_a_breaker_that_raises_costs_no_outcome(caplog):
    """A report that fails is logged; the outcome is told all the same."""
    breakers = _Asking()
    breakers.report = ScriptedCall(ZeroDivisionError())
    with FanOutExecutor(breakers=breakers) as executor:
        assert executor.run({"a": lambda: 1}, GUARD) == {"a": Value(1)}

    assert "ZeroDivisionError" in caplog.text


# -- threads -------------------------------------------------------------------------------------------------------


def test_f9_no_thread_is_made_before_the_first_call():
    """Making executors and sessions costs no thread."""
    before = threading.active_count()
    with FanOutExecutor() as executor, executor.session():
        assert threading.active_count() == before


@pytest.mark.parametrize("breakers", [None, _Asking()])
def test_f9_workers_persist_per_key(breakers):
    """One daemon thread, named after its key, serves all calls of a key that follow each other."""
    with FanOutExecutor(breakers=breakers) as executor:
        rounds = [executor.run(dict.fromkeys("ab", threading.current_thread), GUARD) for _ in range(20)]

    assert len({outcomes["a"].value for outcomes in rounds}) == 1
    assert all(outcomes["a"].value.daemon for outcomes in rounds)
    assert {outcomes["b"].value.name for outcomes in rounds} == {"fan-out b"}


def test_f9_the_outcomes_of_next_find_their_worker_idle(session):
    """Whoever is told by next and submits again gets the same thread."""
    threads = set()
    for _ in range(50):
        session.submit("a", threading.current_thread, 1.0)
        threads.add(session.next(GUARD)[1].value)

    assert len(threads) == 1


def test_f9_a_worker_is_idle_before_its_outcome_is_told(session, monkeypatch):
    """Not afterwards, when whoever was told may have submitted again."""
    parking, may_park, park = threading.Event(), threading.Event(), KeyedThreads.park

    def slowly(threads, thread):
        parking.set()
        assert may_park.wait(GUARD)
        return park(threads, thread)

    monkeypatch.setattr(KeyedThreads, "park", slowly)
    session.submit("a", lambda: 1, 1.0)
    assert parking.wait(GUARD)

    assert session.next(0) is None
    may_park.set()
    assert session.next(GUARD) == ("a", Value(1))


def test_f9_a_stuck_worker_is_replaced_and_used_again_when_free(session, clock, hung):
    """While one thread hangs another serves the key; when the call ends its thread is idle like any other."""
    late, threads = Told(), []
    session.submit("a", hung, 1.0, on_late=late)
    hung.wait_started()
    clock.advance(1.0)
    session.expire()
    session.next(0)
    session.submit("a", threading.current_thread, 1.0)
    threads.append(session.next(GUARD)[1].value)
    hung.release()
    late.wait()

    assert late.threads[0] is not threads[0]


def test_closing_an_executor_ends_its_threads(hung):
    """Idle ones at once, the others when their call ends."""
    executor = FanOutExecutor()
    idle = executor.run({"a": threading.current_thread}, GUARD)["a"].value
    told = Told()
    executor.session().submit("b", hung, GUARD, on_outcome=told)
    hung.wait_started()
    executor.close()
    idle.join(GUARD)
    assert not idle.is_alive()
    hung.release()
    told.wait()
    told.threads[0].join(GUARD)
    assert not told.threads[0].is_alive()


def test_idle_workers_end_by_themselves(monkeypatch):
    """A key that does not come back leaves no thread and no account behind."""
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.01)
    with FanOutExecutor() as executor:
        thread = executor.run({"a": threading.current_thread}, GUARD)["a"].value
        thread.join(GUARD)

        assert not thread.is_alive()
        assert executor._per_process().threads._idle == {}
        assert executor.run({"a": lambda: 1}, GUARD) == {"a": Value(1)}


def test_a_worker_that_is_hired_as_its_idle_time_ends_stays():
    """Whoever hired it finds it at work: the job on its way is waited for."""
    threads, orders = KeyedThreads(closed=False), []
    thread = PoolThread(threads, "a")
    threads.park(thread)
    threads.assign(SimpleNamespace(key="a"), orders)

    assert [ordered for _, ordered in orders] == [thread]
    assert not threads.dismiss(thread)


def test_a_worker_waits_for_the_job_on_its_way(monkeypatch):
    """Its inbox ran dry just as it was hired: it performs the job all the same."""
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.001)
    asked, performed = threading.Event(), threading.Event()

    class Hired(KeyedThreads):
        def dismiss(self, _):
            asked.set()
            return False

    class Ending:
        def begin(self, _):
            performed.set()

    worker = PoolThread(Hired(closed=False), "a")
    worker.start()
    assert asked.wait(GUARD)
    worker.inbox.put(Ending())

    assert performed.wait(GUARD)


def test_a_thread_that_is_started_twice_works_once(executor):
    """Whoever was interrupted as it started starts it again; one of the two does the work."""
    threads = executor._per_process().threads
    thread = PoolThread(threads, "a")
    for _ in range(2):
        thread.start()
    with executor.session() as session:
        thread.inbox.put(None)
        session.submit("a", lambda: 1, GUARD)
        assert session.next(GUARD) == ("a", Value(1))
        assert thread.started


def test_idle_threads_are_bounded(monkeypatch):
    """However many keys there are, only so many threads are kept for later."""
    monkeypatch.setattr(pool, "MAX_IDLE", 2)
    with FanOutExecutor() as executor:
        meeting = threading.Barrier(8, timeout=GUARD)
        threads = [
            o.value[1]
            for o in executor.run(
                dict.fromkeys(range(8), lambda: (meeting.wait(), threading.current_thread())), GUARD
            ).values()
        ]
        kept = [worker.key for idle in executor._per_process().threads._idle.values() for worker in idle]
        assert len(kept) == 2
        for key, thread in enumerate(threads):
            if key not in kept:
                thread.join(GUARD)
                assert not thread.is_alive()


def test_f9_after_a_fork_the_child_starts_afresh():
    """The child has neither its parent's threads nor its calls, abandoned or pending, and runs its own."""
    assert python("""
        import os, sys, threading, warnings
        from resilience.fan_out import FanOutExecutor

        warnings.simplefilter("ignore", DeprecationWarning)
        executor = FanOutExecutor(max_abandoned=1)
        session = executor.session()
        executor.run({"hung": threading.Event().wait, "fine": int}, 0.05)
        session.submit("pending", threading.Event().wait, 60.0)
        held = executor._per_process().threads.lock
        held.acquire()
        child = os.fork()
        if child:
            held.release()
            _, status = os.waitpid(child, 0)
            print(session.pending, session.abandoned("hung"))
            sys.stdout.flush()
            os._exit(os.waitstatus_to_exitcode(status))
        print(session.pending, session.abandoned("hung"))
        print(executor.run({"hung": int, "fine": int}, 30.0)["hung"].value)
        session.submit("more", lambda: os.getpid() == os.getppid(), 30.0)
        print(session.next(30.0)[1].value)
        print(session.next(0), session.expire())
        sys.stdout.flush()
        os._exit(0)
    """) == ["0", "0", "0", "False", "None", "None", "1", "1"]


def test_f9_a_session_starts_afresh_in_another_process(executor, session, monkeypatch):
    """With another process id nothing of the old one counts, and all its users agree on the new start."""
    with monkeypatch.context() as patch:
        patch.setattr(PoolThread, "start", lambda _: None)
        session.submit("a", lambda: 0, 1.0)
    for module in ("threads", "pool"):
        monkeypatch.setattr(f"resilience.fan_out.{module}.getpid", lambda: -1)

    assert session.pending == 0
    session.submit("a", lambda: 1, 1.0)
    assert session.next(GUARD) == ("a", Value(1))
    assert executor.run({"a": lambda: 2}, GUARD) == {"a": Value(2)}
    assert session._here() is executor._per_process().threads


def test_f9_threads_that_move_a_session_together_move_it_once(executor, session, monkeypatch):
    """What one thread submitted first in the new process is not lost to another that comes at the same time."""
    for module in ("threads", "pool"):
        monkeypatch.setattr(f"resilience.fan_out.{module}.getpid", lambda: -1)
    mine = executor._per_process()
    behind = threading.Thread(target=session.submit, args=("a", lambda: 1, 1.0))
    with mine.threads.lock:
        behind.start()
        session._start_afresh(mine)
        moved = session._book
    behind.join(GUARD)

    assert session._book is moved
    assert session.next(GUARD) == ("a", Value(1))


def test_an_executor_closed_before_a_fork_is_closed_in_the_child():
    """Closing holds in every process."""
    assert python("""
        import os, sys, warnings
        from resilience.fan_out import FanOutExecutor

        warnings.simplefilter("ignore", DeprecationWarning)
        executor = FanOutExecutor()
        session = executor.session()
        executor.close()
        child = os.fork()
        if child:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        try:
            session.submit("a", int, 1.0)
        except RuntimeError as error:
            print("closed" in str(error))
        sys.stdout.flush()
        os._exit(0)
    """) == ["True"]


def test_a_failed_call_is_freed_without_the_garbage_collector():
    """Neither an error's traceback nor an idle worker keeps what a call held alive."""

    class Mine:
        pass

    def call():
        mine = Mine()
        alive.append(weakref.ref(mine))
        raise OSError

    alive = []
    gc.disable()
    try:
        with FanOutExecutor() as executor:
            executor.run({"a": call}, GUARD)
            executor.run({"a": lambda: 1}, GUARD)  # its worker has left the frames of the first
            assert alive[0]() is None
    finally:
        gc.enable()


# -- under load ------------------------------------------------------------------------------------------------------


def test_every_call_is_told_once_however_ends_and_deadlines_race():
    """Hundreds of calls that end about when they time out: one outcome each, and late exactly if it was TimedOut."""
    told, late = Told(), Told()
    with FanOutExecutor(max_abandoned=1000) as executor, executor.session() as session:
        for number in range(600):
            wait = threading.Event().wait
            session.submit(
                number % 7,
                lambda w=wait: w(0.002),
                0.001 + number % 3 * 0.001,
                on_outcome=lambda _, o, n=number: told(n, o),
                on_late=lambda _, o, n=number: late(n, o),
            )
            session.expire()
        while session.expire() is not None:
            pass
        timed_out = sorted(n for n, o in told.wait(600) if isinstance(o, TimedOut))
        late.wait(len(timed_out))

        assert sorted(n for n, _ in told.outcomes) == list(range(600))
        assert sorted(n for n, _ in late.outcomes) == timed_out
        assert sum(session.abandoned(key) for key in range(7)) == 0


def test_many_threads_share_one_session():
    """Each submits and takes; together they take every outcome once."""
    taken = []
    with FanOutExecutor() as executor, executor.session() as session:

        def submit_and_take(base):
            for number in range(base, base + 100):
                session.submit(number % 5, lambda n=number: n, GUARD)
                taken.append(session.next(GUARD)[1].value)

        threads = [threading.Thread(target=submit_and_take, args=(base,)) for base in range(0, 400, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GUARD)

    assert sorted(taken) == list(range(400))
