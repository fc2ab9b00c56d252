"""The breaker against an independent model: any order of calls, reports, waits and commands, in virtual time."""

import asyncio
import math

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from sizes import part

from resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker, Permit
from resilience.errors import BreakerOpenError, Throttled
from resilience.testing import ManualClock

NEUTRAL = [asyncio.CancelledError(), KeyboardInterrupt(), Throttled(9.0), BreakerOpenError("other", 1.0)]
HINTS = st.sampled_from([None, None, None, 3.0, 500.0, 0.0, math.nan, math.inf, -1.0])
ROUNDING = 1e-6
RATES = st.one_of(
    st.fixed_dictionaries({"fail_max": st.integers(1, 4)}),
    st.fixed_dictionaries(
        {
            "fail_max": st.sampled_from([None, None, 2, 4]),
            "failure_rate": st.sampled_from([0.3, 0.5, 1.0]),
            "window": st.just(5.0),
            "min_calls": st.integers(1, 4),
        }
    ),
)
CONFIGS = st.builds(
    lambda rate, **others: BreakerConfig(**rate, **others),
    rate=RATES,
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

    calls, reported = Bundle("calls"), Bundle("reported")

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
        self.failing = False
        self.ended = []  # when each call of this generation was reported, and whether it failed
        self.seen = -1
        self.open_until = 0.0
        self.early_from = None
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
        self.early_from = None
        self.ended = []
        if state == "closed":
            self.failures = self.episodes = 0
            self.failing = False

    def probe_is_out(self):
        """A probe was let out and is still good."""
        return self.probe is not None and self.clock() < self.probe.probe_until

    def may_call(self, early=False):
        """A call that begins now is let through."""
        if self.state == "closed":
            return True
        if early and self.early_from is not None:
            return self.clock() >= self.early_from
        return not self.forced and self.clock() >= self.open_until and not self.probe_is_out()

    def ask(self, early=False):
        """Ask for a permit and compare what came; None when the model says no."""
        self.steps += 1
        allowed = self.may_call(early)
        permit = self.breaker.try_acquire(early=early)
        assert bool(permit) is allowed
        if not allowed:
            until = max(self.probe.probe_until if self.probe_is_out() else 0.0, self.open_until)
            assert permit.retry_after == until - self.clock()
            return None
        if self.state == "open":
            self.enter("half-open")
        trial = self.state == "half-open"
        call = Call(permit, self.steps, self.generation, self.clock() + self.config.probe_timeout if trial else None)
        self.probe = call if trial else None
        assert (permit.generation, permit.probe, permit.expiry) == (call.generation, trial, call.probe_until)
        return call

    @rule(target=calls, early=st.booleans())
    def acquire(self, early):
        """Somebody asks to call, perhaps before the wait is over; how it goes is told later, or never."""
        call = self.ask(early)
        return multiple() if call is None else call

    @rule(count=st.integers(1, 4), hint=HINTS)
    def fail_at_once(self, count, hint):
        """Calls fail one after another."""
        for _ in range(count):
            call = self.ask()
            if call is not None:
                self.fail(call, hint)

    @rule(
        target=reported,
        how=st.sampled_from(["succeed", "fail", "end_neutrally"]),
        hint=HINTS,
        duration=st.sampled_from([0.0, 0.0, 0.5, 1.0, 30.0]),
        early=st.booleans(),
    )
    def probe_when_due(self, how, hint, duration, early):
        """Somebody waits until a call may be had, or does not, makes it, and reports, possibly after its expiry."""
        if not early:
            self.wait_until_due()
        call = self.ask(early)
        if call is None:
            return multiple()
        self.clock.advance(duration)
        if how == "fail":
            self.fail(call, hint)
        else:
            getattr(self, how)(call)
        return call

    def counts(self, call):
        """Whether a report of this call means anything now; it is its last."""
        self.steps += 1
        good = not call.reported and call.generation == self.generation
        if call.probe_until is not None:
            good = good and self.probe is call and self.probe_is_out()
        call.reported = True
        return good

    @rule(target=reported, call=consumes(calls))
    def report_success(self, call):
        """A call reports success."""
        self.succeed(call)
        return call

    @rule(target=reported, call=consumes(calls), hint=HINTS)
    def report_failure(self, call, hint):
        """A call reports failure."""
        self.fail(call, hint)
        return call

    @rule(target=reported, call=consumes(calls), error=st.sampled_from([None, *NEUTRAL]))
    def report_nothing(self, call, error):
        """A call reports that it means nothing."""
        self.end_neutrally(call, error)
        return call

    @rule(call=reported, how=st.sampled_from(["succeed", "fail", "end_neutrally"]))
    def report_again(self, call, how):
        """A call reports a second time."""
        getattr(self, how)(call)

    def succeed(self, call):
        """What a success means."""
        good = self.counts(call)
        assert call.permit.success() is good
        if not good:
            return
        if self.state == "closed" and not self.forced:
            self.ended.append((self.clock(), False))
        if self.state == "closed" and call.began < self.seen:
            return
        self.failures = 0
        self.failing = self.state != "closed"
        if self.state == "half-open":
            self.probe = None
            self.open_until = min(self.open_until, self.clock())
            self.successes += 1
            if self.successes == self.config.success_threshold:
                self.enter("closed")

    def fail(self, call, hint=None):
        """What a failure means."""
        good = self.counts(call)
        assert call.permit.failure(OSError(), retry_after=hint) is good
        if not good or self.forced:
            return
        if self.state == "closed":
            self.ended.append((self.clock(), True))
        too_many = self.too_many()
        if self.state == "half-open" or call.began >= self.seen:
            self.failures += 1
            self.seen = self.steps
        elif not too_many:
            return
        self.failing = True
        if self.is_early() and hint not in (3.0, 500.0):
            self.goes_on()
        elif too_many or self.state == "half-open" or self.failures == self.config.fail_max:
            self.enter("open")
            self.check_pause(hint)

    def too_many(self):
        """So many of the calls that ended lately have failed that the rate opens it; "lately" goes by tenths."""
        if self.config.failure_rate is None or self.state != "closed":
            return False
        tenth = self.config.window / 10
        oldest = math.floor(self.clock() / tenth) - 9
        lately = [failed for at, failed in self.ended if math.floor(at / tenth) >= oldest]
        return len(lately) >= self.config.min_calls and sum(lately) >= self.config.failure_rate * len(lately)

    def is_clean(self):
        """A new breaker would do the same."""
        if self.state != "closed" or self.failures or self.forced:
            return False
        failed = [at for at, failed in self.ended if failed]
        return self.config.failure_rate is None or all(at <= self.clock() - self.config.window for at in failed)

    def is_early(self):
        """It is half-open before its wait is over."""
        return self.state == "half-open" and self.clock() < self.open_until

    def goes_on(self):
        """The wait goes on as it was."""
        self.enter("open")
        self.early_from = self.clock()
        assert self.breaker.retry_at == self.open_until

    def check_pause(self, hint):
        """It opened: for how long?"""
        pause = self.breaker.retry_at - self.clock()
        base = min(self.config.reset_timeout * 2**self.episodes, self.config.max_reset_timeout)
        if hint in (3.0, 500.0):
            assert math.isclose(pause, hint)
        else:
            assert base - ROUNDING <= pause <= base * (1 + self.config.jitter) + ROUNDING
        self.episodes += 1
        self.open_until = self.breaker.retry_at
        self.early_from = self.open_until if hint in (3.0, 500.0) else self.clock()

    def end_neutrally(self, call, error=None):
        """What a neutral end means."""
        good = self.counts(call)
        assert (call.permit.release() if error is None else call.permit.failure(error)) is good
        if good and self.is_early():
            self.goes_on()
        elif good:
            self.probe = None

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

    @rule(command=st.sampled_from(["force_open", "force_closed", "reset", "reset", "reset"]))
    def command(self, command):
        """Somebody takes the breaker into their own hands, or lets go of it."""
        self.steps += 1
        getattr(self.breaker, command)()
        self.enter("open" if command == "force_open" else "closed")
        self.forced, self.open_until = command != "reset", math.inf

    @invariant()
    def agree(self):
        """Everything that can be read is as the model says."""
        breaker = self.breaker
        assert (breaker.state, breaker.generation) == (BreakerState(self.state), self.generation)
        assert (breaker.failures, breaker.is_forced) == (self.failures, self.forced)
        assert (breaker.retry_at is None) is (self.state == "closed")
        assert self.state == "closed" or (breaker.retry_at <= self.clock()) is self.may_call()
        assert breaker.early_at == self.early_from
        assert (breaker.last_error is not None) is self.failing
        assert breaker.is_clean is self.is_clean()
        assert [(e.before.value, e.after.value) for e in self.events] == self.expected_events


BreakerMachine.TestCase.settings = settings(max_examples=part(200), stateful_step_count=40, deadline=None)
TestBreakerModel = BreakerMachine.TestCase
