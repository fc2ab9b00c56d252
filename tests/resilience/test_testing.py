"""ManualClock and ScriptedCall: time and calls that do as told."""

import threading

import pytest

from resilience.testing import Held, ManualClock, ScriptedCall


def test_clock_only_moves_by_hand():
    """The clock shows what it was started with and what it was advanced by."""
    clock = ManualClock(5.0)

    assert clock() == clock() == 5.0
    assert clock.advance(2.5) == clock() == 7.5
    assert repr(clock) == "ManualClock(7.5)"


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), True])
def test_clock_refuses_what_monotonic_time_never_does(seconds):
    """Monotonic time neither goes back nor jumps to infinity."""
    with pytest.raises(ValueError, match="seconds"):
        ManualClock().advance(seconds)


def test_call_takes_one_step_at_a_time_and_repeats_the_last():
    """Values are returned, exceptions raised, and the last step goes on for ever."""
    call = ScriptedCall(1, ValueError("two"), KeyError, 4)

    assert call("a", b=2) == 1
    with pytest.raises(ValueError, match="two"):
        call()
    with pytest.raises(KeyError):
        call()
    assert [call(), call()] == [4, 4]
    assert call.calls[0] == (("a",), {"b": 2})
    assert call.started == call.ended == 5


def test_held_call_waits_for_its_release():
    """A held step begins, waits, and returns once it is released; later calls do not wait for it."""
    call = ScriptedCall(Held("late"), "prompt")
    got = []
    thread = threading.Thread(target=lambda: got.append(call()))
    thread.start()
    call.wait_started()

    assert call() == "prompt"
    assert got == []
    assert call.ended == 1

    call.release()
    call.wait_ended(2)
    thread.join(30)

    assert got == ["late"]


def test_held_exception_is_raised_after_its_release():
    """What is held may be an exception."""
    call = ScriptedCall(Held(OSError("gone")))
    call.release()

    with pytest.raises(OSError, match="gone"):
        call()


def test_wrong_tests_fail_instead_of_hanging():
    """Every wait ends with a TimeoutError that says what it waited for."""
    with pytest.raises(TimeoutError, match="was not released"):
        ScriptedCall(Held(1, hang_guard=0.01))()
    with pytest.raises(TimeoutError, match="2 calls to begin"):
        ScriptedCall(1).wait_started(2, hang_guard=0.01)


def test_empty_script_is_refused():
    """A call must be told at least one thing to do."""
    with pytest.raises(ValueError, match="script is empty"):
        ScriptedCall()
