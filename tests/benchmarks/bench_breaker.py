"""What a breaker costs a call, as a ratio to pybreaker.call in the same run; run this file with python."""

import gc
import statistics
import sys
import time

import pybreaker

from resilience.breaker import CircuitBreaker
from resilience.registry import BreakerRegistry

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


def compare(what, other):
    """The median microseconds of a call of ``what``, and the median ratio to ``other``, measured in alternation."""
    pairs = [(seconds(what), seconds(other)) for _ in range(ROUNDS)]
    return statistics.median(ours for ours, _ in pairs) / CALLS * 1e6, statistics.median(a / b for a, b in pairs)


def contestants():
    """What is measured, by name; each makes one call, admits or rejects one."""
    breaker, opened, registry = CircuitBreaker("closed"), CircuitBreaker("open"), BreakerRegistry()
    opened.force_open()
    guarded = breaker(noop)

    def permit():
        leave = breaker.try_acquire()
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
        "with guard()": context,
        "decorated": guarded,
        "registry.get + acquire + report": named,
        "rejection": opened.try_acquire,
    }


def rows():
    """(what, measured, unit, floor, aim) of everything the design sets a limit for, and of what belongs beside it."""
    theirs = pybreaker.CircuitBreaker()
    limits = {"acquire + report": (0.5, 0.25)}
    found = []
    gc.disable()
    try:
        for name, ours in contestants().items():
            cost, ratio = compare(ours, lambda: theirs.call(noop))
            floor, aim = limits.get(name, (None, None))
            found.append((f"breaker {name} ÷ pybreaker.call", round(ratio, 3), "ratio", floor, aim))
            found.append((f"breaker {name}", round(cost, 3), "µs", None, None))
    finally:
        gc.enable()
    return found


if __name__ == "__main__":
    missed = False
    for what, measured, unit, floor, aim in rows():
        missed = missed or (floor is not None and measured > floor)
        sys.stdout.write(f"{what:60} {measured:8} {unit:6} floor {floor} aim {aim}\n")
    sys.exit(missed)
