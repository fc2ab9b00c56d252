"""What is decided about deliveries: health of a destination, its lane, and the rows in memory."""

import heapq
import itertools
import math
import random
import re

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sizes import part

from resilience.delivery.config import RelayConfig
from resilience.delivery.health import Health
from resilience.delivery.parcel import Parcel, Report, Settled
from resilience.delivery.schedule import Lane
from resilience.delivery.store import DeadLetter, MemoryStore, Row, Stock
from resilience.delivery.unwritten import Unwritten
from resilience.errors import Refused, Throttled, Undeliverable
from resilience.events import (
    BacklogDrained,
    BacklogFull,
    DeadLettered,
    DeliveryFailed,
    DeliveryRefused,
    DeliveryResumed,
    Event,
    OutboxFailed,
    OutboxResumed,
)

BOOM = ConnectionError("boom")
ENDS = [None, None, BOOM, Throttled(0.2), Refused("no"), Refused("odd", counts=False), Undeliverable("no")]


def lane(**options) -> Lane:
    """A lane whose pauses are predictable up to their jitter."""
    return Lane("eu", RelayConfig(**options), random.Random(7))


def waiting(in_lane: Lane, key: str, now: float) -> Parcel:
    """A result that the relay has."""
    parcel = in_lane.admit(key, key, now, inline=False)
    in_lane.release(parcel)
    return parcel


def take(in_lane: Lane, key: str = "warm", took: float = 0.001, now: float = 0.0) -> None:
    """A unit delivers a result by itself."""
    parcel = in_lane.admit(key, key, now)
    assert parcel.inline
    in_lane.settle(parcel, None, now + took)


def fail(in_lane: Lane, key: str, now: float = 0.0, error: Exception = BOOM) -> Parcel:
    """A unit fails to deliver a result by itself, and hands it over."""
    parcel = in_lane.admit(key, key, now)
    assert parcel.inline
    in_lane.settle(parcel, error, now)
    in_lane.release(parcel)
    return parcel


def started(in_lane: Lane, now: float) -> list[Parcel]:
    """All that the relay may send now."""
    return list(iter(lambda: in_lane.start(now), None))


def others(every: float, end: float) -> dict[float, str]:
    """Results that arrive one after another, each with a key of its own."""
    return {every * number: f"other {number}" for number in range(1, int(end / every))}


@attrs.frozen
class End:
    """An attempt ended."""

    at: float
    key: str
    settled: Settled


def play(in_lane: Lane, arrivals: dict[float, str], send, end: float, now: float = 0.0) -> list[End]:
    """Units and the relay in virtual time: ``send(key)`` says how an attempt ends, and after how many seconds."""
    due, flying, came = sorted(arrivals.items(), reverse=True), [], []
    while True:
        while (parcel := in_lane.start(now)) is not None:
            error, took = send(parcel.key)
            heapq.heappush(flying, (now + took, parcel.number, parcel, error))
        at = min(due[-1][0] if due else math.inf, flying[0][0] if flying else math.inf, in_lane.wake_at(now))
        if at > end:
            return came
        now = max(now, at)
        if due and due[-1][0] <= now:
            parcel = in_lane.admit(due[-1][1], due[-1][1], now)
            due.pop()
            if parcel.inline:
                error, took = send(parcel.key)
                heapq.heappush(flying, (now + took, parcel.number, parcel, error))
            else:
                in_lane.release(parcel)
        while flying and flying[0][0] <= now:
            _, _, parcel, error = heapq.heappop(flying)
            came.append(End(now, parcel.key, in_lane.settle(parcel, error, now)))
            if came[-1].settled.kept and not parcel.released:
                in_lane.release(parcel)


def test_a_prompt_destination_takes_results_from_their_units():
    """The usual case: the unit sends, the destination takes, nothing is left behind."""
    eu = lane()
    assert not eu.silent(0.0)

    for now in range(100):
        take(eu, "k", now=float(now))

    assert (eu.pending, eu.idle, eu.waits, eu.wake_at(99.0)) == (0, True, False, math.inf)


def test_results_are_numbered_over_all_destinations_of_a_process():
    """Their rows keep the order in which they were brought, also if one lane follows another."""
    numbers = iter((5, 6))
    lanes = [Lane(name, RelayConfig(), random.Random(7), numbers=numbers) for name in ("eu", "us")]
    parcels = [one.admit("k", {"of": one.name}, 0.0) for one in lanes]

    assert [parcel.number for parcel in parcels] == [5, 6]
    assert [parcel.payload for parcel in parcels] == [{"of": "eu"}, {"of": "us"}]
    assert lane().admit("k", None, 0.0).number == 1


def test_what_is_written_down_is_known():
    """If its file is gone it has to be written down again."""
    eu = lane()
    first, second, _ = (waiting(eu, key, 0.0) for key in "aab")
    first.row = second.row = row(1)

    assert eu.written() == [first, second]


def test_d3_a_second_result_of_a_key_waits_behind_the_first():
    """While the first result of a key is not settled, the next one is not sent, by nobody."""
    eu = lane()
    first = eu.admit("k", 1, 0.0)
    second = eu.admit("k", 2, 0.0)
    eu.release(second)

    assert first.inline
    assert not second.inline
    assert eu.start(100.0) is None

    eu.settle(first, BOOM, 100.0)
    eu.release(first)
    assert started(eu, 110.0) == [first]

    eu.settle(first, None, 110.0)
    assert started(eu, 110.0) == [second]


def test_d3_a_result_that_was_refused_for_good_lets_the_next_of_its_key_go():
    """A dead letter does not block its line."""
    eu = lane()
    first, second = waiting(eu, "k", 0.0), waiting(eu, "k", 0.0)
    assert eu.start(0.0) is first

    settled = eu.settle(first, Undeliverable("never"), 0.0)

    assert (settled.kept, settled.dead) == (False, "never")
    (dead,) = settled.events
    assert (dead.destination, dead.key, dead.reason, dead.payload) == ("eu", "k", "never", first.payload)
    assert type(dead.error) is Undeliverable
    assert eu.start(0.0) is second


def test_d3_a_result_that_always_fails_delays_others_by_one_short_pause():
    """However often a poison result has failed, a new one goes out within the first pause after that."""
    eu = lane()
    poison = fail(eu, "poison")
    now = 0.0
    for _ in range(12):
        now = eu.wake_at(now)
        assert eu.start(now) is poison
        eu.settle(poison, BOOM, now)

    other = waiting(eu, "other", now)

    assert eu.wake_at(now) <= now + 0.05
    assert eu.start(now + 0.05) is other
    eu.settle(other, None, now + 0.06)
    assert eu.prompt(now + 0.06)
    assert poison.due > now + 2


def test_d3_a_result_that_hangs_lets_others_pass_after_slow_after():
    """A failing destination gets single attempts, but one that hangs stops counting."""
    eu = lane()
    poison = fail(eu, "poison")
    assert eu.start(10.0) is poison
    other = waiting(eu, "other", 10.0)

    assert eu.start(10.4) is None
    assert eu.start(10.5) is other


def test_d3_a_result_that_fails_alone_is_no_news_to_a_breaker():
    """A poison result must not open the breaker for everyone; a second failing result does count."""
    eu = lane()
    poison = eu.admit("poison", 0, 0.0)
    assert eu.judge(poison, BOOM, 0.0) is Report.FAILURE
    eu.settle(poison, BOOM, 0.0)
    eu.release(poison)
    assert eu.start(10.0) is poison
    assert eu.judge(poison, BOOM, 10.0) is Report.REPEAT
    eu.settle(poison, BOOM, 10.0)

    other = waiting(eu, "other", 10.0)
    assert eu.start(10.1) is other
    assert eu.judge(other, BOOM, 10.1) is Report.FAILURE
    eu.settle(other, BOOM, 10.1)
    assert eu.start(20.0) is not None
    assert eu.judge(poison, BOOM, 20.0) is Report.FAILURE


def test_d4_after_a_failure_everything_goes_to_the_relay():
    """A destination whose last attempt failed holds no unit."""
    eu = lane()
    parcel = fail(eu, "k")

    assert not eu.prompt(1000.0)
    assert not eu.admit("other", 0, 1000.0).inline
    assert eu.start(1000.0) is parcel
    assert eu.settle(parcel, None, 1000.1).events == (DeliveryResumed("eu"),)
    assert eu.prompt(1000.1)


def test_d4_while_a_destination_fails_it_gets_one_attempt_at_a_time():
    """Results that wait for a failing destination are its probes, one after the other."""
    eu = lane()
    fail(eu, "k")
    for n in range(5):
        waiting(eu, f"k{n}", 0.0)

    probes = started(eu, 10.0)
    assert len(probes) == 1

    eu.settle(probes[0], None, 10.1)
    assert len(started(eu, 10.1)) == 5


def test_d4_at_most_max_in_flight_attempts_of_the_relay():
    """A healthy destination gets up to max_in_flight at a time, whatever waits."""
    eu = lane(max_in_flight=10)
    for n in range(25):
        waiting(eu, f"k{n}", 0.0)

    batch = started(eu, 0.0)
    assert len(batch) == 10
    assert eu.wake_at(0.0) == math.inf

    eu.settle(batch[0], None, 0.1)
    assert len(started(eu, 0.1)) == 1


def test_d4_a_long_backlog_drains_at_a_pace():
    """However fast a destination answers, the relay begins max_in_flight attempts in fifteen milliseconds at most."""
    eu = lane(max_in_flight=10)
    for n in range(200):
        waiting(eu, f"k{n}", 0.0)

    begun = []
    while eu.pending:
        now = max(begun[-1] if begun else 0.0, eu.wake_at(begun[-1] if begun else 0.0))
        eu.settle(eu.start(now), None, now)
        begun.append(now)

    assert all(later - earlier >= 0.015 - 1e-9 for earlier, later in zip(begun, begun[10:], strict=False))
    assert begun[-1] <= 0.015 * 200 / 10


def test_d7_the_end_of_a_relay_knows_no_pace():
    """Closing gives every waiting result its try as soon as there is a place for it."""
    eu = lane(max_in_flight=10)
    for n in range(50):
        waiting(eu, f"k{n}", 0.0)
    eu.hurry(0.0)

    while eu.pending:
        eu.settle(eu.start(0.0), None, 0.0)


def test_d4_pauses_grow_with_the_number_of_results_that_failed():
    """A dead destination is tried ever more rarely, down to once in retry_maximum when it has refused everything."""
    eu = lane()
    fail(eu, "first")
    for n in range(40):
        waiting(eu, f"k{n}", 0.0)
    now, gaps = 0.0, []
    for _ in range(160):
        at = eu.wake_at(now)
        gaps.append(at - now)
        now = at
        eu.settle(eu.start(now), BOOM, now)

    assert 0.025 <= gaps[0] <= 0.05
    assert all(gap <= 0.51 for gap in gaps[:40])
    assert all(2.5 <= gap <= 5.0 for gap in gaps[80:])


def test_d4_one_stall_with_many_attempts_in_flight_is_one_failure():
    """Ten units whose calls all fail in the same stall: the next attempt is due after the first, short pause."""
    eu = lane()
    stalled = [eu.admit(f"k{n}", n, 0.0) for n in range(10)]
    for parcel in stalled:
        eu.settle(parcel, BOOM, 1.0)
        eu.release(parcel)

    assert eu.wake_at(1.0) <= 1.05


def test_d4_a_slow_answer_sends_results_to_the_relay_and_a_fast_one_brings_them_back():
    """A slow destination becomes prompt again by what the relay measures."""
    eu = lane(slow_after=0.5)
    take(eu, took=0.6)
    assert not eu.prompt(1.0)

    slow, fast = waiting(eu, "a", 1.0), waiting(eu, "b", 1.0)
    assert started(eu, 1.0) == [slow, fast]
    assert eu.settle(slow, None, 1.6).events == ()
    assert not eu.prompt(1.6)
    eu.settle(fast, None, 1.61)
    third = waiting(eu, "c", 1.7)
    assert eu.start(1.7) is third
    eu.settle(third, None, 1.8)
    assert eu.prompt(1.8)


@pytest.mark.parametrize(("in_flight", "tolerance"), [(1, 0.05), (2, 0.05), (3, 0.005), (9, 0.005)])
def test_d4_a_stall_is_seen_before_many_units_hang(in_flight, tolerance):
    """Beside a lone straggler units wait 50 ms to believe in a stall, beside three only as long as is unusual."""
    eu = lane()
    for _ in range(100):
        take(eu, took=0.001)
    for n in range(in_flight):
        assert eu.admit(f"k{n}", n, 10.0).inline

    assert eu.prompt(10.0 + tolerance - 0.001)
    assert not eu.prompt(10.0 + tolerance + 0.001)


def test_d4_what_is_unusual_depends_on_the_destination():
    """A destination that usually takes 100 ms is not overdue after 60 ms; at slow_after every one is."""
    eu = lane(slow_after=0.5)
    for n in range(100):
        take(eu, took=0.1 if n % 2 else 0.15)
    for n in range(5):
        eu.admit(f"k{n}", n, 10.0)

    assert eu.prompt(10.14)
    assert not eu.prompt(10.501)


def test_d4_an_unknown_destination_is_overdue_after_50_ms():
    """Nothing was measured yet: be patient, but not for a whole inline timeout."""
    eu = lane()
    for n in range(5):
        assert eu.admit(f"k{n}", n, 0.0).inline

    assert eu.prompt(0.049)
    assert not eu.prompt(0.051)


def test_d4_units_wait_for_an_attempt_they_may_leave_as_long_as_is_usual():
    """Ten times the usual, at least 0.1 s, at most inline_timeout; all of it while nothing is known."""
    health = Health(RelayConfig(inline_timeout=1.0), random.Random(0))
    assert health.patience() == 1.0
    health.answered(0.001, 0.0)
    assert health.patience() == 0.1
    for _ in range(60):
        health.answered(0.03, 0.0)
    assert health.patience() == pytest.approx(0.3, rel=0.02)
    for _ in range(60):
        health.answered(0.3, 0.0)
    assert health.patience() == 1.0


def test_d4_what_is_usual_is_reckoned_as_tcp_does():
    """Mean and deviation of the times so far, weighted as in RFC 6298; overdue is what takes four deviations longer."""
    health = Health(RelayConfig(slow_after=20.0, inline_timeout=10.0, send_timeout=60.0), random.Random(0))
    mean = deviation = None
    for took in (0.8, 0.4, 1.2, 1.0, 0.2, 2.0):
        health.answered(took, 0.0)
        if mean is None:
            mean, deviation = took, took / 2
        else:
            deviation = 0.75 * deviation + 0.25 * abs(mean - took)
            mean = 0.875 * mean + 0.125 * took
        overdue = mean + 4 * deviation

        assert not health.overdue(0.0, 9, overdue - 1e-9)
        assert health.overdue(0.0, 9, overdue + 1e-9)


def test_d4_time_that_a_destination_was_asked_to_wait_is_not_its_slowness():
    """An answer after a second of which it had been asked to wait 0.97 took 30 ms."""
    eu = lane()
    parcel = eu.admit("k", 1, 0.0)
    assert eu.settle(parcel, None, 1.0, 0.97).kept is False

    assert eu.health.patience() == pytest.approx(0.3)
    assert eu.settle(eu.admit("k", 2, 1.0), None, 1.03).kept is False
    assert eu.health.patience() == pytest.approx(0.3)


def test_d4_destination_that_waits_because_it_was_asked_to_is_not_silent():
    """Nothing was measured yet, so that 50 ms are too long; with 0.4 s of waiting on top 450 ms are."""
    eu = lane()
    eu.admit("k", 1, 0.0).grace = 0.4

    assert eu.prompt(0.449)
    assert not eu.prompt(0.451)


def test_d4_one_straggler_among_answers_is_no_stall():
    """A result that hangs while others are answered keeps no unit from sending."""
    eu = lane()
    eu.admit("hangs", 0, 0.0)
    for n in range(100):
        take(eu, now=n * 0.04)

    assert eu.prompt(4.0)
    assert not eu.prompt(4.1)


def test_d4_one_unit_finds_out_and_the_others_leave_that_to_it():
    """The first of several sends may use the whole inline_timeout, the others only what is usual many times over."""
    eu = lane(inline_timeout=1.0)
    take(eu)

    timeouts = [eu.admit(f"k{n}", n, 10.0).timeout for n in range(3)]

    assert timeouts == [1.0, 0.1, 0.1]


def test_d4_a_send_that_was_cut_short_says_nothing():
    """A unit's send that was given little time and used it up is no failure; one that failed before is."""
    eu = lane(inline_timeout=2.0)
    take(eu)
    first, second, third = (eu.admit(f"k{n}", n, 10.0) for n in range(3))

    assert eu.judge(second, BOOM, 10.1) is eu.judge(second, BOOM, 11.7) is Report.NEUTRAL
    settled = eu.settle(second, BOOM, 10.1)
    assert (settled.kept, settled.events, second.attempts) == (True, (), 0)
    assert not eu.health.failing

    assert eu.judge(third, BOOM, 10.05) is Report.FAILURE
    assert eu.settle(third, BOOM, 10.05).events == (DeliveryFailed("eu", "k2", 1, BOOM),)
    assert eu.judge(first, BOOM, 12.0) is Report.FAILURE
    assert eu.settle(first, BOOM, 12.0).events == (DeliveryFailed("eu", "k0", 1, BOOM),)


def test_d4_an_overdue_destination_gets_single_attempts_too():
    """A stall seen early does not fill all the relay's places with sends that hang."""
    eu = lane()
    take(eu)
    eu.admit("hangs", 0, 10.0)
    for n in range(5):
        waiting(eu, f"k{n}", 10.2)

    [probe] = started(eu, 10.2)
    assert eu.wake_at(10.2) == pytest.approx(10.7)

    eu.settle(probe, None, 10.21)
    assert len(started(eu, 10.21)) == 4


def test_a_unit_that_leaves_hands_its_attempt_to_the_relay():
    """The attempt goes on; the result stays in flight and is not sent a second time."""
    eu = lane()
    parcel = eu.admit("k", 1, 0.0)
    assert eu.pending == 0

    assert eu.detach(parcel)
    eu.release(parcel)

    assert (eu.pending, eu.start(100.0)) == (1, None)
    eu.settle(parcel, None, 100.0)
    assert eu.idle
    assert not eu.detach(parcel)


def test_an_attempt_past_its_timeout_keeps_its_result_until_it_ends():
    """A timeout is a failure at once, but the result is not sent again while the first send may still arrive."""
    eu = lane()
    parcel = waiting(eu, "k", 0.0)
    eu.start(0.0)
    error = TimeoutError()

    settled = eu.time_out(parcel, error, 30.0)
    assert settled.events == (DeliveryFailed("eu", "k", 1, error),)
    assert eu.health.failing
    assert eu.start(1000.0) is None

    assert eu.settle(parcel, BOOM, 1000.0).events == ()
    assert eu.start(1000.0) is parcel
    assert eu.settle(parcel, BOOM, 1000.0).events == (DeliveryFailed("eu", "k", 2, BOOM),)


def test_an_attempt_past_its_timeout_may_succeed_late():
    """A late success settles the result, and says that the destination lives."""
    eu = lane()
    parcel = waiting(eu, "k", 0.0)
    eu.start(0.0)
    eu.time_out(parcel, TimeoutError(), 30.0)

    assert eu.settle(parcel, None, 40.0).events == (DeliveryResumed("eu"),)
    assert eu.idle


def test_abandoned_attempts_count_as_in_flight():
    """The relay's attempts that never end are bounded like all others, and make no destination overdue for ever."""
    eu = lane(max_in_flight=2)
    hung = [waiting(eu, f"k{n}", 0.0) for n in range(2)]
    assert started(eu, 0.0) == hung
    for parcel in hung:
        eu.time_out(parcel, TimeoutError(), 30.0)
    other = waiting(eu, "other", 30.0)
    assert eu.start(1000.0) is None

    eu.settle(hung[0], None, 1000.0)
    assert eu.start(1000.0) is other
    eu.settle(other, None, 1000.1)
    assert eu.prompt(1000.1)


def test_hanging_probes_of_a_failing_destination_are_started_ever_more_rarely():
    """The second after slow_after, each further one after twice as long, at most retry_maximum."""
    eu = lane(slow_after=0.5, retry_maximum=5.0)
    fail(eu, "k")
    for n in range(8):
        waiting(eu, f"k{n}", 0.0)
    now, gaps = 1.0, []
    for _ in range(6):
        assert eu.start(now) is not None
        gaps.append(eu.wake_at(now) - now)
        now = eu.wake_at(now)

    assert gaps == pytest.approx([0.5, 1.0, 2.0, 4.0, 5.0, 5.0])


@given(st.integers(1, 9), st.lists(st.booleans(), max_size=60))
def test_d5_a_full_backlog_is_told_once_and_again_when_half_of_it_is_gone(most, steps):
    """Full, drained, full, …: told when it comes about and only then, so that a listener can stop and start work."""
    eu = lane(max_backlog=most, max_in_flight=100)
    told: list[Event] = []
    expected: list[Event] = []
    for number, brought in enumerate(steps):
        if brought:
            waiting(eu, str(number), 0.0)
        elif (parcel := eu.start(0.0)) is not None:
            eu.settle(parcel, None, 0.0)
        told += eu.backlog()
        full = bool(expected) and isinstance(expected[-1], BacklogFull)
        if not full and eu.pending >= most:
            expected.append(BacklogFull("eu", eu.pending))
        elif full and eu.pending <= most // 2:
            expected.append(BacklogDrained("eu"))

    assert told == expected


def test_a_throttled_result_waits_and_counts_nothing():
    """The destination is left alone for as long as it asked; no attempt is counted, no breaker told."""
    eu = lane()
    parcel = eu.admit("k", 1, 0.0)
    error = Throttled(7.0)
    assert eu.judge(parcel, error, 0.0) is Report.NEUTRAL

    assert eu.settle(parcel, error, 0.0).events == (DeliveryFailed("eu", "k", 1, error),)
    eu.release(parcel)

    assert parcel.attempts == 0
    assert not eu.prompt(6.9)
    assert eu.wake_at(6.9) == 7.0
    assert eu.start(7.0) is parcel
    assert eu.settle(parcel, None, 7.1).events == (DeliveryResumed("eu"),)


def test_each_attempt_that_did_not_deliver_has_its_number():
    """Who listens can tell how often a result was tried, whatever the destination said; pauses grow with failures."""
    eu = lane(retry_initial=1.0)
    parcel = eu.admit("k", 1, 0.0)
    eu.release(parcel)
    numbers = []
    for now, error in ((0.0, Throttled(1.0)), (1.0, Throttled(2.0)), (3.0, OSError())):
        if not parcel.away:
            assert eu.start(now) is parcel
        (event,) = eu.settle(parcel, error, now).events
        numbers.append(event.attempt)

    assert numbers == [1, 2, 3]
    assert parcel.due <= 3.0 + 1.0


def test_a_throttling_destination_that_names_no_time_is_paused_ever_longer():
    """Retry-After 0, or nonsense, leaves the length of the pause to the backoff."""
    eu = lane()
    parcel = fail(eu, "k", error=Throttled(math.nan))
    now, pauses = 0.0, []
    for _ in range(10):
        at = eu.wake_at(now)
        pauses.append(at - now)
        now = at
        assert eu.start(now) is parcel
        eu.settle(parcel, Throttled(0.0), now)

    assert 0.025 <= pauses[0] <= 0.05
    assert 2.5 <= pauses[-1] <= 5.0


def test_after_a_recovery_a_throttling_destination_is_paused_shortly_again():
    """What it asked for before it was well does not count any more."""
    health = Health(RelayConfig(), random.Random(0))
    for _ in range(5):
        health.throttled(0.0, 0.0)
    assert health.answered(0.001, 100.0)
    health.throttled(0.0, 100.0)

    assert 100.025 <= health.open_at((), overdue=False) <= 100.05


def test_an_answer_under_way_does_not_end_a_pause_that_was_asked_for():
    """Of two attempts in flight one is throttled: the other's success does not cut the pause short."""
    eu = lane()
    first, second = eu.admit("a", 1, 0.0), eu.admit("b", 2, 0.0)
    eu.settle(first, Throttled(5.0), 0.1)
    eu.release(first)

    assert eu.settle(second, None, 0.2).events == ()
    assert not eu.prompt(4.0)
    eu.hurry(1.0)
    assert eu.start(5.0) is None
    assert eu.start(5.1) is first


@pytest.mark.parametrize("asked", [3601.0, 9_999_999_999.0])
def test_r32_a_pause_that_was_asked_for_is_an_hour_at_most(asked):
    """A destination with an odd header is not given up for three hundred years."""
    eu = lane(max_retry_after=3600.0)
    fail(eu, "k", error=Throttled(asked))

    assert eu.wake_at(0.0) == 3600.0


def test_undeliverable_proves_the_destination_alive():
    """A refusal ends the failing of its destination and is a success for its breaker."""
    eu = lane()
    parcel = fail(eu, "k")
    assert eu.start(1.0) is parcel
    assert eu.judge(parcel, Undeliverable("no"), 1.0) is Report.SUCCESS

    settled = eu.settle(parcel, Undeliverable("no"), 1.0)

    resumed, dead = settled.events
    assert (resumed, type(dead)) == (DeliveryResumed("eu"), DeadLettered)
    assert eu.prompt(1.0)


@pytest.mark.parametrize("counts", [True, False])
def test_d6_a_result_is_given_up_once_others_were_taken_for_as_long_as_it_was_refused(counts):
    """Not a second sooner, and the dead letter says how often and for how long."""
    eu, refused = lane(refused_for=60.0), Refused("odd", counts=counts)
    came = play(eu, {0.0: "odd", **others(1.0, 100.0)}, lambda key: (refused if key == "odd" else None, 0.01), 100.0)

    assert [end.key for end in came if end.settled.dead] == ["odd"]
    (given_up,) = (end for end in came if end.settled.dead)
    assert 60.0 <= given_up.at < 75.0
    assert re.fullmatch(r"odd \(refused \d+ times in 6\d s, while others were taken\)", given_up.settled.dead)
    assert type(given_up.settled.events[-1]) is DeadLettered
    assert given_up.settled.events[-1].error is refused


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("well", [(), (1000.0,), (100.0, 3500.0)])
def test_d6_nothing_is_given_up_while_everything_is_refused(counts, well):
    """An hour of refusals is the destination's fault, also if now and then it takes another result."""
    eu, refused = lane(refused_for=60.0), Refused("database away", counts=counts)
    arrivals = {0.0: "mine", **dict.fromkeys(well, "lucky")}
    came = play(eu, arrivals, lambda key: (None if key == "lucky" else refused, 0.01), 3600.0)
    assert not [end for end in came if end.settled.dead]

    came = play(eu, {3700.0: "mine too"}, lambda _: (None, 0.01), 3800.0, now=3600.0)

    assert sorted(end.key for end in came if end.settled.taken) == ["mine", "mine too"]
    assert eu.idle


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_d8_a_destination_that_is_gone_is_tried_every_few_seconds(count):
    """However few results wait for it: a minute later there is one attempt in 2.5 to 5 s, and never none."""
    eu = lane()
    arrivals = {number / 1000: f"k{number}" for number in range(count)}
    ends = [end.at for end in play(eu, arrivals, lambda _: (BOOM, 0.01), 180.0) if end.at >= 60.0]

    assert 120 / 5.5 <= len(ends) <= 120 / 2.5
    assert all(later - earlier <= 5.1 for earlier, later in itertools.pairwise(ends))


@pytest.mark.parametrize("count", [1, 5, 10, 20])
@pytest.mark.parametrize("how", ["fails", "refused", "throttles"])
def test_d3_results_that_always_fail_delay_others_by_a_second_at_most(count, how):
    """However many they are, in whatever way they fail, and though they stand first after a restart."""
    error = {"fails": BOOM, "refused": Refused("no"), "throttles": Throttled()}[how]

    assert max(lateness_beside(count, (error, 0.01))) <= 1.0


def test_d3_results_that_hang_again_leave_half_of_the_places_to_others():
    """Ten of them would keep a destination from everybody for as long as an attempt may take."""
    eu = lane(max_in_flight=4)
    odd = [waiting(eu, f"odd {number}", 0.0) for number in range(8)]
    now = 0.0
    while not all(parcel.attempts for parcel in odd):
        now = eu.wake_at(now)
        eu.settle(eu.start(now), BOOM, now)
    well = waiting(eu, "well", now)
    while eu.start(now := eu.wake_at(now)) is not well:
        pass
    eu.settle(well, None, now)

    assert len(started(eu, now + 10.0)) == 2
    others = [waiting(eu, f"other {number}", now + 10.0) for number in range(2)]
    assert started(eu, now + 10.02) == others[:1]


def lateness_beside(count: int, end: tuple[Exception, float]) -> list[float]:
    """How late others are, in seconds, beside so many results whose attempts all end like that."""
    eu = lane()
    for number in range(count):
        waiting(eu, f"odd {number}", 0.0)
    arrivals = {key: at for at, key in others(0.1, 60.0).items() if not 20.0 < at < 30.0}
    came = play(
        eu,
        {at: key for key, at in arrivals.items()},
        lambda key: end if key.startswith("odd") else (None, 0.01),
        120.0,
    )
    late = [end.at - arrivals[end.key] for end in came if end.settled.taken]
    assert len(late) == len(arrivals)
    return late


@pytest.mark.parametrize("chance", [0.3, 0.5])
def test_d6_nothing_is_given_up_after_a_long_outage_by_bad_luck(chance):
    """Minutes of refusals of everything prove nothing, and a server that is half well again refuses at random."""
    eu, rng, refused = lane(), random.Random(5), Refused("database away")
    waiting_ones = {0.01 * number: f"old {number}" for number in range(1, 100)}
    play(eu, waiting_ones, lambda _: (refused, 0.01), 660.0)

    new = {660.0 + at: key for at, key in others(0.1, 60.0).items()}
    came = play(eu, new, lambda _: (refused if rng.random() < chance else None, 0.01), 720.0, now=660.0)

    assert not [end for end in came if end.settled.dead]


@pytest.mark.parametrize("hint", [0.0, 30.0])
def test_d3_a_pause_that_is_asked_for_one_result_alone_is_its_own(hint):
    """A gateway answers 403 or 409 to one result for ever: the others wait once at most."""
    eu, tries = lane(), []

    def send(key):
        if key == "odd":
            tries.append(key)
        return Throttled(hint) if key == "odd" else None, 0.01

    arrivals = {0.0: "odd", **others(0.1, 600.0)}
    came = play(eu, arrivals, send, 700.0)

    late = {end.key: end.at for end in came if end.settled.taken}
    assert max(late[key] - at for at, key in arrivals.items() if key != "odd" and at > hint + 1.0) <= 1.0
    assert len(tries) < 600
    assert not [end for end in came if end.settled.dead]


def test_d6_a_result_that_is_refused_alone_hurts_nobody():
    """Its destination stays prompt, a breaker hears nothing, and the result waits for its own time."""
    eu = lane()
    parcel, error = waiting(eu, "k", 0.0), Refused("odd", counts=False)
    eu.start(0.0)

    assert eu.judge(parcel, error, 0.0) is Report.NEUTRAL
    assert eu.settle(parcel, error, 0.0).events == (DeliveryRefused("eu", "k", 1, error),)
    assert eu.prompt(0.0)
    assert 0.0 < eu.wake_at(0.0) <= 0.05


def test_d5_results_that_are_refused_often_do_not_make_a_backlog_full():
    """Else nothing would be polled any more, and no other result could show that the fault is theirs."""
    eu = lane(max_backlog=4, refused_for=0.0)
    stuck, now = [waiting(eu, f"k{number}", 0.0) for number in range(4)], 0.0
    assert eu.backlog() == (BacklogFull("eu", 4),)
    while any(parcel.refusals < 5 for parcel in stuck):
        if (parcel := eu.start(now)) is None:
            now = eu.wake_at(now)
            continue
        assert eu.settle(parcel, Refused("odd"), now).kept

    assert eu.backlog() == (BacklogDrained("eu"),)
    assert eu.has_room
    others = [waiting(eu, f"other {number}", now) for number in range(3)]
    assert eu.backlog() == ()
    waiting(eu, "one more", now)
    assert eu.backlog() == (BacklogFull("eu", 8),)
    assert not eu.has_room
    assert others


@pytest.mark.parametrize(("asked", "pause"), [(None, 0.05), (0.0, 0.05), (math.nan, 0.05), (1.0, 1.0), (math.inf, 5.0)])
def test_a_barred_attempt_looks_again_within_retry_maximum(asked, pause):
    """A breaker that says no, for ever or for no time at all, is asked again after a while, not at once."""
    eu = lane()
    parcel = waiting(eu, "k", 0.0)
    eu.start(0.0)
    eu.health.barred(asked, 0.0)
    eu.postpone(parcel, 0.0)

    assert parcel.attempts == 0
    assert not eu.health.failing
    assert not eu.prompt(pause - 0.001)
    assert eu.wake_at(0.0) == pause


def test_hurry_gives_every_waiting_result_a_try():
    """At the end no pause but one that was asked for keeps a result from its last try."""
    eu = lane()
    parcel = fail(eu, "k")
    for now in (10.0, 20.0, 30.0):
        eu.start(now)
        eu.settle(parcel, BOOM, now)
    assert eu.wake_at(30.0) > 30.0

    eu.hurry(30.0)

    assert eu.start(30.0) is parcel


def test_leftovers_are_all_that_no_unit_is_sending():
    """What is left names every result that the relay has, in each line's order."""
    eu = lane()
    eu.admit("unit", 0, 0.0)
    first, second = waiting(eu, "k", 0.0), waiting(eu, "k", 0.0)
    eu.start(0.0)

    assert eu.leftovers() == [first, second]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"inline_timeout": 0}, "inline_timeout"),
        ({"slow_after": math.nan}, "slow_after"),
        ({"max_in_flight": True}, "max_in_flight"),
        ({"max_backlog": 0}, "max_backlog"),
        ({"inline_timeout": 31.0}, "send_timeout"),
        ({"retry_initial": 6.0}, "retry_maximum"),
        ({"close_timeout": -1}, "close_timeout"),
    ],
)
def test_bad_options_are_named(options, named):
    """A wrong option is refused with its name."""
    with pytest.raises(ValueError, match=named):
        RelayConfig(**options)


def row(number: int, destination: str = "eu", one: int = 0) -> Row:
    """A row that says little."""
    return Row(destination, "http://eu", "k", number, {"secret": 1}, one)


def test_the_memory_store_keeps_rows_until_they_are_taken():
    """Put and removed; removing what is not there is no error."""
    store = MemoryStore()
    first, second = store.put(row(1)), store.put(row(2))
    store.remove(first)
    store.remove(first)

    assert second.id != first.id
    assert len(store) == 1


def test_d6_dead_letters_are_visible_and_can_be_revived():
    """A dead letter has its reason, and becomes a row again, of one destination or of all."""
    store = MemoryStore(clock=lambda: 7.0)
    first = store.put(row(1))
    store.bury(first, "no")
    store.bury(row(1, "us"), "never")
    (letter,), (other,) = store.dead_letters("eu"), [letter.row for letter in store.dead_letters("us")]
    assert letter == DeadLetter(first, "no", 7.0)

    assert store.revive("us") == 1
    assert store.claim({"us": "http://eu", "eu": "http://other"}).rows == (other,)
    assert store.revive() == 1
    assert store.stock() == (Stock("eu", "http://eu", 1, 0, 1), Stock("us", "http://eu", 1, 0, 0))
    assert store.claim({"eu": "http://eu"}).rows == (first,)
    assert (store.dead_letters(), len(store)) == ((), 2)


def test_the_memory_store_forgets_the_oldest_of_too_many_dead_letters_loudly(caplog):
    """Memory stays bounded, and what is lost is in the log, without its payload."""
    store = MemoryStore(max_dead_letters=2)
    for number in range(3):
        store.bury(row(number), "no")

    assert [d.row.number for d in store.dead_letters()] == [1, 2]
    assert "too many dead letters" in caplog.text
    assert "secret" not in caplog.text
    with pytest.raises(ValueError, match="max_dead_letters"):
        MemoryStore(max_dead_letters=0)


def test_d7_what_another_process_has_leaves_the_line():
    """It is not sent, whoever stood behind it is; what is being sent is taken or gone, and its row is not touched."""
    in_lane = lane()
    sent, waits, ours = (waiting(in_lane, key, 0.0) for key in ("a", "b", "b"))
    sent.row, waits.row = row(1, one=1), row(2, one=2)
    assert in_lane.start(0.0) is sent

    assert in_lane.lose({1, 2, 3}) == 2
    assert (waits.gone, waits.row, sent.gone) == (True, None, False)
    assert in_lane.resting() == [ours]
    assert in_lane.resting("a") == in_lane.resting("c") == []

    settled = in_lane.settle(sent, BOOM, 1.0)
    assert (settled.kept, settled.passed, settled.taken, sent.row) == (False, True, False, None)
    assert settled.events == (DeliveryFailed("eu", "a", 1, BOOM),)
    assert in_lane.start(60.0) is ours
    assert in_lane.pending == 1


def test_d7_what_another_process_has_leaves_the_line_wherever_it_stood():
    """Behind others; or when its attempt did not come about."""
    in_lane = lane()
    first, second = waiting(in_lane, "a", 0.0), waiting(in_lane, "a", 0.0)
    first.row, second.row = row(1, one=1), row(2, one=2)
    assert in_lane.start(0.0) is first
    assert in_lane.lose({1, 2}) == 2
    assert (first.gone, second.gone) == (False, True)

    in_lane.postpone(first, 1.0)
    assert first.gone
    assert in_lane.idle
    assert in_lane.start(60.0) is None


def test_an_attempt_that_waited_for_the_disk_begins_when_it_was_written():
    """The time that writing took is not the destination's; one that has been settled meanwhile does not begin again."""
    in_lane = lane()
    parcel = in_lane.admit("a", "a", 0.0)
    in_lane.begin(parcel, 5.0)
    in_lane.settle(parcel, None, 5.1)
    in_lane.begin(parcel, 6.0)

    assert in_lane.prompt(6.0)
    assert in_lane.idle


def test_d5_a_destination_whose_results_are_unwritten_is_told_of_once_and_again_when_none_is():
    """However many there are; and writing is tried again after a while, not at once."""
    unwritten, parcels = Unwritten(), [Parcel(number, "k", None, 0.0) for number in range(3)]
    error = OSError("full")
    assert unwritten.retry_at == math.inf

    assert unwritten.add("eu", parcels[0], error, 1.0) == (OutboxFailed("eu", error),)
    assert unwritten.add("eu", parcels[1], error, 2.0) == unwritten.add("eu", parcels[1], error, 2.0) == ()
    assert unwritten.add("us", parcels[2], error, 2.0) == (OutboxFailed("us", error),)
    assert (unwritten.count("eu"), unwritten.count("us"), unwritten.count("asia")) == (2, 1, 0)

    assert (unwritten.retry_at, unwritten.due(2.9)) == (3.0, [])
    assert unwritten.due(3.0) == [("eu", parcels[0]), ("eu", parcels[1]), ("us", parcels[2])]
    assert unwritten.retry_at == 5.0

    assert unwritten.remove("eu", parcels[0]) == unwritten.remove("eu", parcels[0]) == ()
    assert unwritten.remove("eu", parcels[1]) == (OutboxResumed("eu"),)
    assert unwritten.remove("us", parcels[2]) == (OutboxResumed("us"),)
    assert (unwritten.retry_at, unwritten.remove("us", parcels[2])) == (math.inf, ())


class DeliveryMachine(RuleBasedStateMachine):
    """Two lanes against a model that knows only what was brought, what is away, and what is settled."""

    def __init__(self):
        super().__init__()
        config = RelayConfig(max_in_flight=3)
        self.lanes = {name: Lane(name, config, random.Random(1)) for name in ("eu", "us")}
        self.now = 0.0
        self.queues = {name: {} for name in self.lanes}  # what is owed, per key, in order
        self.away = {name: {} for name in self.lanes}  # number -> (parcel, detached or relayed)
        self.taken = []
        self.failing = dict.fromkeys(self.lanes, False)

    names = st.sampled_from(["eu", "us"])
    keys = st.sampled_from(["a", "b", "c", "d"])

    def sent(self, name, parcel):
        """An attempt begins: it must be the only one of its result, and its result the first of its key."""
        assert parcel.number not in self.away[name]
        assert self.queues[name][parcel.key][0] is parcel
        self.away[name][parcel.number] = parcel

    @rule(name=names, key=keys, inline=st.booleans())
    def bring(self, name, key, inline):
        """A unit brings a result."""
        parcel = self.lanes[name].admit(key, object(), self.now, inline=inline)
        self.queues[name].setdefault(key, []).append(parcel)
        if parcel.inline:
            assert inline
            assert not self.failing[name]
            self.sent(name, parcel)
        else:
            self.lanes[name].release(parcel)

    @rule(name=names)
    def relay(self, name):
        """The relay looks whether it may send."""
        parcel = self.lanes[name].start(self.now)
        if parcel is not None:
            self.sent(name, parcel)
        relayed = [p for p in self.away[name].values() if p.relayed]  # what units left is not counted
        assert parcel is None or len(relayed) <= 3

    @precondition(lambda self: any(self.away.values()))
    @rule(data=st.data())
    def leave(self, data):
        """A unit stops waiting for its attempt."""
        name, parcel = self.pick(data)
        if parcel.inline and self.lanes[name].detach(parcel):
            self.lanes[name].release(parcel)

    @precondition(lambda self: any(self.away.values()))
    @rule(data=st.data())
    def time_out(self, data):
        """An attempt of the relay passes its timeout and runs on."""
        name, parcel = self.pick(data)
        if parcel.abandoned or parcel.inline:
            return
        before = self.condition(name)
        self.lanes[name].time_out(parcel, TimeoutError(), self.now)
        self.failing[name] = True
        assert self.condition(name) == before

    @precondition(lambda self: any(self.away.values()))
    @rule(data=st.data(), error=st.sampled_from(ENDS))
    def end(self, data, error):
        """An attempt ends, in one way or another."""
        name, parcel = self.pick(data)
        del self.away[name][parcel.number]
        inline, before = parcel.inline, self.condition(name)
        settled = self.lanes[name].settle(parcel, error, self.now)
        for event in settled.events:
            if isinstance(event, (DeliveryFailed, DeliveryResumed)):
                self.failing[name] = isinstance(event, DeliveryFailed)
        if settled.kept and inline:
            self.lanes[name].release(parcel)
        if not settled.kept:
            assert parcel.gone
            assert settled.passed == (parcel.passed and error is not None and settled.dead is None)
            assert settled.taken == (error is None)
            self.taken.append(parcel)
            self.queues[name][parcel.key].remove(parcel)
        else:
            assert not parcel.passed
        assert self.condition(name) == before

    @rule(name=names, data=st.data())
    def write(self, name, data):
        """Some of what waits has rows."""
        owed = [parcel for line in self.queues[name].values() for parcel in line]
        for parcel in data.draw(st.sets(st.sampled_from(owed))) if owed else ():
            parcel.row = parcel.row or row(parcel.number, name, parcel.number)

    @rule(name=names, data=st.data())
    def lose(self, name, data):
        """Another process has taken some rows over: they leave, or do so when what is being sent has failed."""
        written = [parcel for line in self.queues[name].values() for parcel in line if parcel.row is not None]
        lost = data.draw(st.sets(st.sampled_from(written))) if written else set()
        assert self.lanes[name].lose({parcel.row.id for parcel in lost} | {-1}) == len(lost)
        for parcel in lost - set(self.away[name].values()):
            assert parcel.gone
            self.queues[name][parcel.key].remove(parcel)

    @precondition(lambda self: any(self.away.values()))
    @rule(data=st.data())
    def bar(self, data):
        """An attempt did not come about."""
        name, parcel = self.pick(data)
        inline = parcel.inline
        del self.away[name][parcel.number]
        self.lanes[name].postpone(parcel, self.now)
        if parcel.passed:
            self.queues[name][parcel.key].remove(parcel)
        elif inline:
            self.lanes[name].release(parcel)

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.1, 1.0, 10.0]))
    def wait(self, seconds):
        """Time passes."""
        self.now += seconds

    @rule(name=names)
    def hurry(self, name):
        """The end is near, or so the lane is told."""
        self.lanes[name].hurry(self.now)

    def pick(self, data):
        """Any attempt that runs."""
        flying = [(name, parcel) for name, away in self.away.items() for parcel in away.values()]
        return data.draw(st.sampled_from(flying))

    def condition(self, name):
        """Everything observable of the other lane."""
        other = self.lanes["us" if name == "eu" else "eu"]
        return other.prompt(self.now), other.wake_at(self.now), other.pending, other.idle

    @invariant()
    def accounts_agree(self):
        """Nothing is lost, nothing comes twice, and events say truly whether a destination fails."""
        for name, in_lane in self.lanes.items():
            owed = [parcel for line in self.queues[name].values() for parcel in line]
            assert in_lane.idle == (not owed)
            assert in_lane.pending == sum(not parcel.inline for parcel in owed)
            assert in_lane.health.failing == self.failing[name]
            assert {id(p) for p in in_lane.leftovers()} == {id(p) for p in owed if not p.inline}
            for key, line in self.queues[name].items():
                assert in_lane.resting(key) == (line if line and not line[0].away else [])
            assert {id(p) for p in in_lane.resting()} == {id(p) for key in "abcd" for p in in_lane.resting(key)}
        assert len(set(map(id, self.taken))) == len(self.taken)

    def teardown(self):
        """When every destination takes everything, everything arrives."""
        for name, in_lane in self.lanes.items():
            for _ in range(1000):
                if in_lane.idle:
                    break
                for parcel in list(self.away[name].values()):
                    del self.away[name][parcel.number]
                    in_lane.settle(parcel, None, self.now)
                    self.queues[name][parcel.key].pop(0)
                self.now = max(self.now, min(in_lane.wake_at(self.now), self.now + 60.0))
                while (parcel := in_lane.start(self.now)) is not None:
                    self.sent(name, parcel)
            assert in_lane.idle


DeliveryMachine.TestCase.settings = settings(max_examples=part(150), stateful_step_count=40, deadline=None)
TestDeliveries = DeliveryMachine.TestCase
