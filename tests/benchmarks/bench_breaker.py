"""What a breaker costs a call, as a ratio to pybreaker.call in the same run."""

import gc
import statistics
import time

import pybreaker

from resilience.breaker import BreakerConfig, CircuitBreaker
from resilience.registry import BreakerRegistry

from .table import Row

__all__ = ["rows"]

CALLS = 5_000
ROUNDS = 31


def noop():
    """The call whose guarding is measured."""


def seconds(what):
    """How long ``CALLS`` calls of ``what`` take."""
    calls = range(CALLS)
    began = time.perf_counter()
    for _ in calls:
        what()
    return time.perf_counter() - began


def compare(what, other, rounds):
    """The median microseconds of a call of ``what``, and the median ratio to ``other``, measured in alternation."""
    pairs = [(seconds(what), seconds(other)) for _ in range(rounds)]
    return statistics.median(ours for ours, _ in pairs) / CALLS * 1e6, statistics.median(a / b for a, b in pairs)


def contestants():
    """What is measured, by name; each makes one call, admits or rejects one."""
    breaker, opened, registry = CircuitBreaker("closed"), CircuitBreaker("open"), BreakerRegistry()
    opened.force_open()
    guarded = breaker(noop)
    rated = CircuitBreaker("rated", BreakerConfig(fail_max=None, failure_rate=0.5))

    def permit():
        leave = breaker.try_acquire()
        noop()
        leave.success()

    def counted():
        leave = rated.try_acquire()
        noop()
        leave.success()

    def context():
        with breaker.guard():
            noop()

    def named():
        leave = registry.get("eu").try_acquire()
        noop()
        leave.success()

    return {
        "acquire + report": permit,
        "acquire + report, by rate": counted,
        "with guard()": context,
        "decorated": guarded,
        "registry.get + acquire + report": named,
        "rejection": opened.try_acquire,
    }


def rows(*, quick=False):
    """What the design sets a limit for, and what belongs beside it."""
    theirs = pybreaker.CircuitBreaker()
    limits = {"acquire + report": (0.3, 0.2)}
    found = []
    gc.disable()
    try:
        for name, ours in contestants().items():
            cost, ratio = compare(ours, lambda: theirs.call(noop), 7 if quick else ROUNDS)
            floor, aim = limits.get(name, (None, None))
            found.append(Row(f"breaker {name} ÷ pybreaker.call", ratio, floor=floor, aim=aim))
            found.append(Row(f"… breaker {name}", cost, "µs"))
    finally:
        gc.enable()
    return found
