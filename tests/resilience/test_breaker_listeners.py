"""B6: who hears of a breaker, on_event and pybreaker's listeners, and what they can do to it."""

import logging
import threading

import pybreaker
import pytest

from resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker
from resilience.errors import ResilienceError
from resilience.events import BreakerChanged
from resilience.testing import ManualClock

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


class Recorder(pybreaker.CircuitBreakerListener):
    """A user's pybreaker listener: writes down what it hears and what it sees on the breaker it is given."""

    def __init__(self):
        self.heard = []

    def state_change(self, cb, old_state, new_state):
        """The states, and what can be read meanwhile."""
        self.heard.append((old_state.name, new_state.name, cb.name, cb.current_state, cb.state.name))

    def failure(self, cb, exc):
        """A failed call."""
        self.heard.append(("failure", exc, cb.fail_counter))

    def success(self, cb):
        """A successful call."""
        self.heard.append(("success", cb.success_counter))


def make(**options):
    """A breaker that two failures open, and its clock."""
    clock = ManualClock(1000.0)
    return CircuitBreaker("billing", BreakerConfig(jitter=0, fail_max=2), clock=clock, **options), clock


def test_b6_transitions_are_events():
    """Each change of state is told once, with what led to it."""
    events = []
    breaker, clock = make(on_event=events.append)
    error = OSError("down")
    breaker.try_acquire().failure(OSError("first"))
    breaker.try_acquire().failure(error)
    clock.advance(30.0)
    breaker.try_acquire().success()
    breaker.force_open()
    breaker.force_open()
    breaker.reset()

    assert events == [
        BreakerChanged("billing", CLOSED, OPEN, 1, 30.0, error),
        BreakerChanged("billing", OPEN, HALF_OPEN, 2),
        BreakerChanged("billing", HALF_OPEN, CLOSED, 3),
        BreakerChanged("billing", CLOSED, OPEN, 4, float("inf")),
        BreakerChanged("billing", OPEN, CLOSED, 6),
    ]


@pytest.mark.parametrize("report", ["failure", "release"])
def test_b6_early_probe_that_fails_is_told_with_what_is_left_of_the_wait(report):
    """It is open again for the seconds that were left, for the error that opened it or the probe's own."""
    events, opened = [], OSError("down")
    breaker, clock = make(on_event=events.append)
    for _ in range(2):
        breaker.try_acquire().failure(opened)
    clock.advance(10.0)
    probe, failed = breaker.try_acquire(early=True), OSError("still down")
    clock.advance(1.0)
    probe.failure(failed) if report == "failure" else probe.release()

    assert events[1:] == [
        BreakerChanged("billing", OPEN, HALF_OPEN, 2),
        BreakerChanged("billing", HALF_OPEN, OPEN, 3, 19.0, failed if report == "failure" else opened),
    ]


def test_b6_listeners_are_called_without_a_lock():
    """A listener may use the breaker from another thread and wait for that."""
    seen = []

    def listen(event):
        thread = threading.Thread(target=lambda: seen.append((event.after, breaker.force_closed())))
        thread.start()
        thread.join(30)
        assert not thread.is_alive()

    breaker, _ = make(on_event=listen)
    breaker.force_open()

    assert [after for after, _ in seen] == [OPEN, CLOSED]


def test_b6_events_keep_their_order_when_a_listener_drives_the_breaker():
    """What a listener causes is told after what it was told."""
    events = []

    def listen(event):
        if event.after is OPEN:
            breaker.reset()
        events.append(event.after)

    breaker, _ = make(on_event=listen)
    breaker.force_open()

    assert events == [OPEN, CLOSED]


def test_b6_a_listener_that_raises_harms_nobody(caplog):
    """It is logged; the caller, the state and the other listeners do not notice."""

    class Bad(pybreaker.CircuitBreakerListener):
        def state_change(self, *_):
            raise RuntimeError("pybreaker listener")

    def bad(_):
        raise RuntimeError("on_event")

    good = Recorder()
    breaker, _ = make(on_event=bad, listeners=[Bad(), good])
    with caplog.at_level(logging.ERROR, "resilience"):
        breaker.force_open()

    assert breaker.state is OPEN
    assert good.heard == [("closed", "open", "billing", "open", "open")]
    said = " ".join(record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2
    assert "Bad object" in said, "which listener it was"
    assert "state_change" in said, "and what it was told"


def test_b6_an_interrupted_listener_does_not_silence_the_next_event():
    """Ctrl-C inside a listener reaches the caller; later events are still told."""
    events = []

    def listen(event):
        events.append(event.after)
        if event.after is OPEN:
            raise KeyboardInterrupt

    breaker, _ = make(on_event=listen)
    with pytest.raises(KeyboardInterrupt):
        breaker.force_open()
    breaker.reset()

    assert events == [OPEN, CLOSED]


def test_b6_pybreaker_listeners_hear_everything():
    """State changes, failures and successes, with a breaker they can read."""
    listener = Recorder()
    breaker, clock = make(listeners=[listener])
    error = OSError("down")
    breaker.try_acquire().success()
    breaker.try_acquire().failure(error)
    breaker.try_acquire().failure(error)
    clock.advance(30.0)
    breaker.try_acquire().success()

    assert listener.heard == [
        ("success", 0),
        ("failure", error, 1),
        ("failure", error, 2),
        ("closed", "open", "billing", "open", "open"),
        ("open", "half-open", "billing", "half-open", "half-open"),
        ("success", 0),
        ("half-open", "closed", "billing", "closed", "closed"),
    ]


def test_b6_pybreaker_listeners_hear_nothing_of_reports_that_came_too_late():
    """A stale report changes nothing, so there is nothing to hear; a failure without an error gets one."""
    listener = Recorder()
    breaker, _ = make(listeners=[listener])
    old = breaker.try_acquire()
    breaker.reset()

    assert (old.success(), old.failure()) == (False, False)
    assert listener.heard == []

    breaker.try_acquire().failure()
    error = listener.heard[0][1]
    assert isinstance(error, ResilienceError)
    assert "without an error" in str(error)


def test_b6_pybreaker_listeners_can_read_the_policy():
    """What they are given shows the breaker's own options under pybreaker's names."""
    faces = []

    class Keen(pybreaker.CircuitBreakerListener):
        def state_change(self, cb, *_):
            faces.append(cb)

    config = BreakerConfig(fail_max=4, reset_timeout=7.0, success_threshold=2, excluded=(KeyError,))
    CircuitBreaker("billing", config, listeners=[Keen()]).force_open()

    (face,) = faces
    assert (face.fail_max, face.reset_timeout, face.success_threshold) == (4, 7.0, 2)
    assert face.excluded_exceptions == (KeyError,)


def test_b6_pybreaker_listeners_cannot_drive_the_breaker_past_its_rules():
    """What they are given can be read; driving it is refused, with the way out."""
    faces = []

    class Keen(pybreaker.CircuitBreakerListener):
        def state_change(self, cb, *_):
            faces.append(cb)

    breaker, _ = make(listeners=[Keen()])
    breaker.force_open()
    face = faces[0]

    for drive in (face.close, face.half_open, face.open, lambda: face.call(print)):
        with pytest.raises(ResilienceError, match="read-only"):
            drive()
    with pytest.raises(ResilienceError, match="read-only"):
        face.state = "closed"
    assert (face.current_state, face.fail_max, face.reset_timeout) == ("open", 2, 30.0)
    assert breaker.state is OPEN


def test_b6_refused_commands_leave_no_trace():
    """Not even the counter of successful probes is touched."""
    faces = []

    class Keen(pybreaker.CircuitBreakerListener):
        def success(self, cb):
            faces.append(cb)

    clock = ManualClock(1000.0)
    config = BreakerConfig(fail_max=1, success_threshold=3, jitter=0)
    breaker = CircuitBreaker("billing", config, clock=clock, listeners=[Keen()])
    breaker.try_acquire().failure()
    clock.advance(30.0)
    breaker.try_acquire().success()
    with pytest.raises(ResilienceError, match="read-only"):
        faces[0].close()

    assert faces[0].success_counter == 1
