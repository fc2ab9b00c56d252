"""Defects of other ways to bound many calls by one deadline; docs/explanation/peers.md has them all."""

import subprocess
import sys
import textwrap
import threading

from hearing import GUARD

from resilience import BreakerConfig, BreakerRegistry, BreakerState, FanOutExecutor, TimedOut, Value
from resilience.testing import Held, ScriptedCall


def test_leaving_the_with_block_does_not_wait_for_a_call_that_hangs() -> None:
    """The block ends while the abandoned call still hangs; a pool's block would wait for it."""
    release, ended = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(GUARD)
        ended.set()

    with FanOutExecutor() as executor:
        outcomes = executor.run({"hung": hang, "ready": lambda: "now"}, 0.2)

    assert not ended.is_set()
    assert (type(outcomes["hung"]), outcomes["ready"]) == (TimedOut, Value("now"))
    release.set()


def test_as_many_hung_keys_as_one_likes_poison_no_other_key() -> None:
    """Forty hung keys hold forty threads of their own: a healthy key beside them is served in every round."""
    release = threading.Event()

    def hang() -> bool:
        return release.wait(GUARD)

    calls = {f"hung-{number}": hang for number in range(40)}
    try:
        with FanOutExecutor() as executor:
            for round_ in range(3):
                outcomes = executor.run({**calls, "healthy": lambda round_=round_: round_}, 0.5)
                assert outcomes["healthy"] == Value(round_)
    finally:
        release.set()


def test_call_that_catches_everything_cannot_overstay_the_deadline() -> None:
    """A callee that would resist any cancellation is not cancelled but left: its caller has the others in time."""
    release, resisted = threading.Event(), threading.Event()

    def resist() -> str:
        while not release.wait(GUARD):
            pass  # pragma: no cover - only if the test hangs
        resisted.set()
        return "stubborn"

    with FanOutExecutor() as executor:
        outcomes = executor.run({"stubborn": resist, "ready": lambda: "now"}, 0.2)
        assert not resisted.is_set()
        assert (type(outcomes["stubborn"]), outcomes["ready"]) == (TimedOut, Value("now"))
        release.set()
        assert resisted.wait(GUARD)


def test_hung_calls_are_seen_by_the_breaker_without_ever_ending() -> None:
    """A source that never answers opens its breaker, though none of its calls has failed yet."""
    breakers, release = BreakerRegistry(BreakerConfig(fail_max=2)), threading.Event()
    try:
        with FanOutExecutor(breakers=breakers) as executor:
            for _ in range(2):
                executor.run({"hung": lambda: release.wait(GUARD)}, 0.1)

            assert breakers.get("hung").state is BreakerState.OPEN
    finally:
        release.set()


def test_non_daemon_thread_can_fan_out_after_the_main_thread_has_ended() -> None:
    """A thread that outlives the main thread still gets its outcomes, also those that need new threads."""
    script = """
        import threading
        from resilience import FanOutExecutor

        def work():
            threading.main_thread().join()
            with FanOutExecutor() as executor:
                outcomes = executor.run({n: (lambda n=n: n) for n in range(5)}, 20.0)
            print([outcome.value for outcome in outcomes.values()])

        threading.Thread(target=work).start()
    """
    done = subprocess.run(  # noqa: S603 - our own interpreter, our own script
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[0, 1, 2, 3, 4]\n")


def test_outcome_that_was_told_is_not_changed_by_what_comes_late() -> None:
    """What run returned stays as it is: a late call writes into nobody's result."""
    hung, late = ScriptedCall(Held("late", GUARD)), threading.Event()
    with FanOutExecutor() as executor:
        outcomes = executor.run({"hung": hung}, 0.1, on_late=lambda *_: late.set())
        told = dict(outcomes)
        hung.release()
        assert late.wait(GUARD)

        assert outcomes == told
        assert isinstance(outcomes["hung"], TimedOut)
