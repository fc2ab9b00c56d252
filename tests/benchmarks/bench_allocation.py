"""What a division of capacity costs, for 3 names and for 128."""

import gc
import random
import statistics
import time

from resilience.allocation import CapacityAllocator, allocate

from .table import Row

__all__ = ["rows"]

ROUNDS = 31
LIMITS = {3: (8, 4), 128: (200, 100)}


def contestants(size):
    """What is measured, by name: capacity and caps take turns, so that shares are rounded and caps bind."""
    rng = random.Random(size)
    weights = {f"source-{number}": rng.randint(1, 10) for number in range(size)}
    allocator, units, everyone = CapacityAllocator(weights), CapacityAllocator(weights), list(weights)
    capacities = [2 * size + extra for extra in (0, 1, 3)]
    caps = [None, {name: rng.randint(0, 9) for name in weights}]
    turns = [(capacity, cap) for capacity in capacities for cap in caps]

    def rounds():
        for capacity, cap in turns:
            allocator.allocate(capacity, cap)

    def stateless():
        for capacity, cap in turns:
            allocate(capacity, weights, cap)

    def unit_by_unit():
        for _ in turns:
            units.charge(units.first(everyone)[0], 1, everyone)

    return len(turns), {
        "CapacityAllocator.allocate": rounds,
        "allocate()": stateless,
        "first + charge": unit_by_unit,
    }


def microseconds(what, calls, rounds):
    """The median cost of one of the ``calls`` that ``what`` makes."""
    repeat = max(1, 6000 // calls // ROUNDS)
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(repeat):
            what()
        found.append((time.perf_counter() - began) / repeat / calls)
    return statistics.median(found) * 1e6


def rows(*, quick=False):
    """A row for every face of the allocator."""
    found = []
    gc.disable()
    try:
        for size, (floor, aim) in LIMITS.items():
            calls, faces = contestants(size)
            for name, what in faces.items():
                cost = microseconds(what, calls, 7 if quick else ROUNDS)
                found.append(Row(f"allocator n={size}, {name}", cost, "µs", floor=floor, aim=aim))
    finally:
        gc.enable()
    return found
