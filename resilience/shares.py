"""One division of a whole number of units by weight and cap: exact, stateless, in integers.

:func:`allocate` is the public face; :class:`resilience.allocation.CapacityAllocator` builds on the rest.
"""

import heapq
from collections.abc import Hashable, Mapping
from typing import TypeVar

__all__ = ["allocate", "check", "check_all", "limits_of", "water_fill"]

K = TypeVar("K", bound=Hashable)


def allocate(capacity: int, weights: Mapping[K, int], caps: Mapping[K, int] | None = None) -> dict[K, int]:
    """Divide ``capacity`` units by weight, none above its cap, without keeping state.

    Units that one name cannot use go to the others (water-filling); fractions are settled by highest averages (Webster/
    Sainte-Lague with caps): the next unit goes to the largest ``weight / (2 * units + 1)``. More capacity, weight or
    cap therefore never results in fewer units for a name. Ties: the heavier weight first, then the smaller ``repr`` of
    the name, whatever the order of the mappings.

    Args:
        capacity: units to give out.
        weights: name to weight; a name with weight 0 gets nothing.
        caps: name to the most units it can use; a name without an entry has no cap.

    Returns:
        Name to units, in the order of ``weights``. The units sum to the capacity, or to the caps of all names with a
        weight if that is less (0 if there are none).

    Raises:
        ValueError: a number is negative or not an integer (nor may it be a bool), or a cap is for a name without a
            weight.

    Thread-safe: it has no state.
    """
    check("capacity", capacity)
    check_all("weight", weights)
    limits = limits_of(capacity, weights, caps)
    grants = dict.fromkeys(weights, 0)
    total = min(capacity, sum(limits.values()))
    if not total:
        return grants
    left, weight, _ = water_fill(total, weights, limits)
    for name, limit in limits.items():
        # With the water level as the divisor, rounding gives a Webster division of nearly the right size.
        grants[name] = min(limit, (2 * weights[name] * left + weight) // (2 * weight)) if weight else limit
    missing = total - sum(grants.values())
    if missing:
        _settle(missing, grants, weights, limits)
    return grants


def check(what: str, value: int) -> None:
    """Raise unless ``value`` is an integer of at least 0; ``what`` names it in the ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{what} is {value!r}: it must be an integer of at least 0")


def check_all(what: str, values: Mapping[K, int]) -> None:
    """Raise unless each of ``values`` is an integer of at least 0."""
    for name, value in values.items():
        if type(value) is not int or value < 0:
            check(f"{what} of {name!r}", value)


def limits_of(capacity: int, weights: Mapping[K, int], caps: Mapping[K, int] | None) -> dict[K, int]:
    """The most units each name with a weight can get."""
    limits = {name: capacity for name, weight in weights.items() if weight}
    if not caps:
        return limits
    check_all("cap", caps)
    for name, cap in caps.items():
        if name not in weights:
            raise ValueError(f"cap for {name!r}, which has no weight: add it to the weights or omit its cap")
        if name in limits and cap < capacity:
            limits[name] = cap
    return limits


def water_fill(total: int, weights: Mapping[K, int], limits: Mapping[K, int]) -> tuple[int, int, set[K]]:
    """Raise all shares evenly by weight until ``total`` is given out, stopping each at its limit.

    Returns:
        The units left for the names below their limit, the sum of their weights, and the names at their limit.
    """
    left, weight = total, sum([weights[name] for name in limits])
    full: set[K] = set()
    if all(left * weights[name] < limit * weight for name, limit in limits.items()):
        return left, weight, full
    shift = 2 * max(weights.values()).bit_length()
    for name in sorted(limits, key=lambda name: (limits[name] << shift) // weights[name]):
        if left * weights[name] < limits[name] * weight:
            break
        full.add(name)
        left -= limits[name]
        weight -= weights[name]
    return left, weight, full


def _settle(missing: int, grants: dict[K, int], weights: Mapping[K, int], limits: Mapping[K, int]) -> None:
    """Give out ``missing`` more units, or take back the excess, in the order of highest averages."""
    step = 1 if missing > 0 else -1
    shift = 2 * (max(grants.values()) + abs(missing)).bit_length() + 4
    names = sorted(limits, key=lambda name: (-weights[name], repr(name)), reverse=step < 0)

    def bid(rank: int) -> tuple[int, int]:
        """Exact rank of the unit that ``names[rank]`` would get, or give back, next."""
        name = names[rank]
        return -step * ((weights[name] << shift) // (2 * grants[name] + step)), rank

    ready = [rank for rank, name in enumerate(names) if (grants[name] < limits[name] if step > 0 else grants[name])]
    heap = [bid(rank) for rank in ready]
    heapq.heapify(heap)
    for _ in range(abs(missing)):
        _, rank = heap[0]
        name = names[rank]
        grants[name] += step
        if grants[name] < limits[name] if step > 0 else grants[name]:
            heapq.heapreplace(heap, bid(rank))
        else:
            heapq.heappop(heap)
