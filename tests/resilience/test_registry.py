"""BreakerRegistry: one breaker per name, bounded, forgetting nothing that matters."""

import concurrent.futures
import logging
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker
from resilience.registry import BreakerRegistry
from resilience.testing import ManualClock


def trip(breaker):
    """Let calls fail until it opens."""
    for _ in range(breaker.config.fail_max):
        breaker.try_acquire().failure()
    assert breaker.state is BreakerState.OPEN


def flood(registry, count, prefix="hostile"):
    """Ask for many names that are never used again."""
    for number in range(count):
        registry.get(f"{prefix}-{number}")


def test_one_breaker_per_name():
    """The same name gives the same breaker; names are listed oldest first."""
    registry = BreakerRegistry()
    eu, us = registry.get("eu"), registry.get("us")

    assert registry.get("eu") is eu is not us
    assert (list(registry), len(registry)) == (["eu", "us"], 2)
    assert "eu" in registry
    assert "ap" not in registry
    assert (eu.name, eu.config) == ("eu", BreakerConfig())


def test_racing_threads_get_one_breaker():
    """Eight threads that ask for a new name at once get the same breaker."""
    for _ in range(20):
        registry = BreakerRegistry()
        start = threading.Barrier(8)

        def ask(_, registry=registry, start=start):
            start.wait(30)
            return registry.get("eu")

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(ask, range(8)))) == 1

    first = registry.get("eu")
    assert registry._add("eu") is first


def test_policies_by_name_and_prefix():
    """The exact name wins, then the longest prefix, then the default."""
    policies = {
        "eu": BreakerConfig(fail_max=1),
        "eu*": BreakerConfig(fail_max=2),
        "eu-west*": BreakerConfig(fail_max=4),
        "*": BreakerConfig(fail_max=5),
    }
    registry = BreakerRegistry(BreakerConfig(fail_max=9), configs=policies)
    names = ["eu", "eu-north", "eu-wes", "eu-west", "eu-west-1", "us", "e"]

    assert [registry.get(name).config.fail_max for name in names] == [1, 2, 2, 4, 4, 5, 5]
    assert BreakerRegistry(BreakerConfig(fail_max=9), configs={"eu*": policies["eu"]}).get("us").config.fail_max == 9


def test_clock_jitter_and_events_are_shared():
    """Every breaker gets the registry's clock, random generator and listener."""
    clock, events = ManualClock(50.0), []
    registry = BreakerRegistry(clock=clock, rng=random.Random(1), on_event=events.append)
    trip(registry.get("eu"))

    assert registry.get("eu").retry_at == 50.0 + 30.0 * (1 + 0.5 * random.Random(1).random())
    assert [event.name for event in events] == ["eu"]


def test_known_name_is_found_without_the_lock():
    """While one thread adds a name nobody who asks for another, known one has to wait."""
    registry = BreakerRegistry()
    eu = registry.get("eu")
    with concurrent.futures.ThreadPoolExecutor(1) as pool, registry._lock:
        assert pool.submit(registry.get, "eu").result(30) is eu


def test_thousand_names_are_kept_unless_told_otherwise():
    """By default 1024 of them, of which the oldest go first."""
    registry = BreakerRegistry()
    flood(registry, 1500)

    assert len(registry) == 1024
    assert next(iter(registry)) == f"hostile-{1500 - 1024}"


def test_new_name_costs_the_same_however_many_are_known(monkeypatch):
    """Where nothing may be forgotten, a few breakers are looked at for a new name and not all of them."""
    registry, looks = BreakerRegistry(max_size=1), []
    for number in range(200):
        trip(registry.get(f"down-{number}"))
    clean = CircuitBreaker.is_clean.fget
    monkeypatch.setattr(CircuitBreaker, "is_clean", property(lambda breaker: looks.append(None) or clean(breaker)))

    registry.get("new")

    assert 0 < len(looks) < 10


def test_hostile_names_do_not_exhaust_memory():
    """However many names come, at most max_size healthy, unused breakers are kept."""
    registry = BreakerRegistry(max_size=20)
    flood(registry, 5_000)

    assert len(registry) == 20


def test_hostile_names_do_not_erase_what_is_known():
    """Open, half-open, forced and counting breakers outlive any flood."""
    clock = ManualClock()
    registry = BreakerRegistry(max_size=20, clock=clock)
    trip(registry.get("half-open"))
    clock.advance(60.0)
    registry.get("half-open").try_acquire()
    trip(registry.get("open"))
    registry.get("counting").try_acquire().failure()
    registry.get("forced").force_closed()
    for number in range(10):
        trip(registry.get(f"down-{number}"))
    flood(registry, 5_000)

    assert len(registry) == 20
    assert {"half-open", "open", "counting", "forced"} <= set(registry)
    assert registry.get("open").state is BreakerState.OPEN
    assert registry.get("counting").failures == 1


def test_breakers_in_use_are_not_dropped():
    """A call in flight, and anyone who keeps a breaker, keeps it in the registry: its failure is not lost."""
    registry = BreakerRegistry(BreakerConfig(fail_max=1), max_size=5)
    in_flight = registry.get("in-flight").try_acquire()
    kept = registry.get("kept")
    flood(registry, 500)

    assert registry.get("kept") is kept
    in_flight.failure()
    flood(registry, 500, "more")
    assert registry.get("in-flight").state is BreakerState.OPEN


def test_a_recovered_breaker_can_go():
    """What is healthy again and unused makes room."""
    registry = BreakerRegistry(max_size=3, clock=(clock := ManualClock()))
    for name in "abcdef":
        trip(registry.get(name))
    assert len(registry) == 6

    clock.advance(60.0)
    for name in "abcdef":
        registry.get(name).try_acquire().success()
    registry.get("new")

    assert (len(registry), list(registry)[-1]) == (3, "new")


def test_r20_options_of_breakers_are_answered_by_name():
    """They belong into a configuration, and nothing else is one."""
    with pytest.raises(TypeError, match=r"no option 'fail_max'.*BreakerRegistry\(BreakerConfig"):
        BreakerRegistry(fail_max=3)
    with pytest.raises(TypeError, match=r"must be a BreakerConfig, not 3"):
        BreakerRegistry(3)
    with pytest.raises(TypeError, match=r"must be a BreakerConfig, not {'fail_max': 3}"):
        BreakerRegistry(configs={"eu": {"fail_max": 3}})


def test_growing_past_the_bound_is_said_once(caplog):
    """When nothing may be forgotten it grows, and the log says why, once."""
    registry = BreakerRegistry(max_size=2)
    with caplog.at_level(logging.WARNING, "resilience"):
        for number in range(2):
            trip(registry.get(f"down-{number}"))
        assert caplog.records == [], "what fits is no news"
        for number in range(2, 10):
            trip(registry.get(f"down-{number}"))

    assert len(registry) == 10
    (record,) = caplog.records
    assert "max_size=2" in record.getMessage()
    assert "'down-2'" in record.getMessage(), "the name that did not fit"


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (True, ValueError), (1.5, TypeError)])
def test_bad_max_size_is_refused(size, error):
    """The message names the option."""
    with pytest.raises(error, match=r"^max_size"):
        BreakerRegistry(max_size=size)


@given(
    max_size=st.integers(1, 6),
    steps=st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["use", "fail", "recover", "hold", "let go"]))),
)
def test_only_what_nobody_could_notice_is_forgotten(max_size, steps):
    """Whatever is done in whatever order: failures, held breakers and the bound are kept."""
    registry = BreakerRegistry(BreakerConfig(fail_max=100), max_size=max_size)
    failures, held = {}, {}
    for number, what in steps:
        breaker = registry.get(str(number))
        assert breaker is held.get(number, breaker)
        assert breaker.failures == failures.get(number, 0)
        if what == "fail":
            breaker.try_acquire().failure()
            failures[number] = failures.get(number, 0) + 1
        elif what == "recover":
            breaker.try_acquire().success()
            failures.pop(number, None)
        elif what == "hold":
            held[number] = breaker
        elif what == "let go":
            held.pop(number, None)
        del breaker
    kept = set(failures) | set(held)

    assert {str(number) for number in kept} <= set(registry)
