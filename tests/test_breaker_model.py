"""The breaker against an independent model: any order of calls, reports, waits and commands, in virtual time."""

import asyncio
import math

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker, Permit
from resilience.errors import BreakerOpenError, Throttled
from resilience.testing import ManualClock

NEUTRAL = [asyncio.CancelledError(), KeyboardInterrupt(), Throttled(9.0), BreakerOpenError("other", 1.0)]
CONFIGS = st.builds(
    BreakerConfig,
    fail_max=st.integers(1, 4),
    success_threshold=st.integers(1, 3),
    probe_timeout=st.sampled_from([1.0, 30.0]),
    jitter=st.sampled_from([0.0, 0.5]),
    reset_timeout=st.just(10.0),
    max_reset_timeout=st.sampled_from([10.0, 35.0]),
)


@attrs.define(eq=False)
class Call:
    """One call as the model knows it: when it began, on a count of everything that happened."""

    permit: Permit
    began: int
    generation: int
    probe_until: float | None
    reported: bool = False


class BreakerMachine(RuleBasedStateMachine):
    """Rules B1 to B5, B7 and B8, told a second time in the plainest words."""

    calls = Bundle("calls")

    @initialize(config=CONFIGS)
    def begin(self, config):
        """A fresh breaker and what the model knows of it."""
        self.config = config
        self.clock = ManualClock(1000.0)
        self.events = []
        self.breaker = CircuitBreaker("b", config, clock=self.clock, on_event=self.events.append)
        self.steps = 0
        self.state, self.generation, self.forced = "closed", 0, False
        self.failures = self.successes = self.episodes = 0
        self.seen = -1
        self.open_until = 0.0
        self.probe = None
        self.expected_events = []

    def enter(self, state):
        """The state changes, or is set."""
        if state != self.state:
            self.expected_events.append((self.state, state))
        self.state = state
        self.generation += 1
        self.successes = 0
        self.probe = None
        if state == "closed":
            self.failures = self.episodes = 0

    def probe_is_out(self):
        """A probe was let out and is still good."""
        return self.probe is not None and self.clock() < self.probe.probe_until

    def may_call(self):
        """A call that begins now is let through."""
        if self.state == "closed":
            return True
        return not self.forced and self.clock() >= self.open_until and not self.probe_is_out()

    @rule(target=calls)
    def acquire(self):
        """Somebody asks to call."""
        self.steps += 1
        allowed = self.may_call()
        permit = self.breaker.try_acquire()
        assert bool(permit) is allowed
        if not allowed:
            until = self.probe.probe_until if self.probe_is_out() else self.open_until
            assert permit.retry_after == until - self.clock()
            return multiple()
        if self.state == "open":
            self.enter("half-open")
        trial = self.state == "half-open"
        call = Call(permit, self.steps, self.generation, self.clock() + self.config.probe_timeout if trial else None)
        self.probe = call if trial else None
        assert (permit.generation, permit.probe, permit.expiry) == (call.generation, trial, call.probe_until)
        return call

    def counts(self, call):
        """Whether a report of this call means anything now; it is its last."""
        self.steps += 1
        good = not call.reported and call.generation == self.generation
        if call.probe_until is not None:
            good = good and self.probe is call and self.probe_is_out()
        call.reported = True
        return good

    @rule(call=calls)
    def succeed(self, call):
        """A call reports success."""
        good = self.counts(call)
        assert call.permit.success() is good
        if not good:
            return
        self.failures = 0
        if self.state == "half-open":
            self.probe = None
            self.successes += 1
            if self.successes == self.config.success_threshold:
                self.enter("closed")

    @rule(call=calls, hint=st.sampled_from([None, None, None, 3.0, 500.0, 0.0, math.nan, math.inf, -1.0]))
    def fail(self, call, hint):
        """A call reports failure."""
        good = self.counts(call)
        assert call.permit.failure(OSError(), retry_after=hint) is good
        if not good or self.forced or (self.state == "closed" and call.began < self.seen):
            return
        self.failures += 1
        self.seen = self.steps
        if self.state == "half-open" or self.failures == self.config.fail_max:
            self.enter("open")
            self.check_pause(hint)

    def check_pause(self, hint):
        """It opened: for how long?"""
        pause = self.breaker.retry_at - self.clock()
        base = min(self.config.reset_timeout * 2**self.episodes, self.config.max_reset_timeout)
        if hint in (3.0, 500.0):
            assert pause == hint
        else:
            assert base <= pause <= base * (1 + self.config.jitter)
        self.episodes += 1
        self.open_until = self.breaker.retry_at

    @rule(call=calls, error=st.sampled_from([None, *NEUTRAL]))
    def end_neutrally(self, call, error):
        """A call reports that it means nothing."""
        good = self.counts(call)
        assert (call.permit.release() if error is None else call.permit.failure(error)) is good
        if good:
            self.probe = None

    @rule(call=consumes(calls))
    def lose(self, call):
        """Its caller never reports."""

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 10.0, 15.0, 30.0, 600.0]))
    def wait(self, seconds):
        """Time passes."""
        self.clock.advance(seconds)

    @rule()
    def wait_until_due(self):
        """Time passes, exactly to the moment the breaker named."""
        due = self.breaker.retry_at
        if due is not None and math.isfinite(due) and due > self.clock():
            self.clock.advance(due - self.clock())

    @rule()
    def force_open(self):
        """Somebody forces it open."""
        self.steps += 1
        self.breaker.force_open()
        self.enter("open")
        self.forced, self.open_until = True, math.inf

    @rule()
    def force_closed(self):
        """Somebody forces it closed."""
        self.steps += 1
        self.breaker.force_closed()
        self.enter("closed")
        self.forced = True

    @rule()
    def reset(self):
        """Somebody resets it."""
        self.steps += 1
        self.breaker.reset()
        self.enter("closed")
        self.forced = False

    @invariant()
    def agree(self):
        """Everything that can be read is as the model says."""
        breaker = self.breaker
        assert (breaker.state, breaker.generation) == (BreakerState(self.state), self.generation)
        assert (breaker.failures, breaker.is_forced) == (self.failures, self.forced)
        assert (breaker.retry_at is None) is (self.state == "closed")
        assert self.state == "closed" or (breaker.retry_at <= self.clock()) is self.may_call()
        assert breaker.is_clean is (self.state == "closed" and not self.failures and not self.forced)
        assert [(e.before.value, e.after.value) for e in self.events] == self.expected_events


BreakerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestBreakerModel = BreakerMachine.TestCase
