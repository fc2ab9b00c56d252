"""One division at a time: the definition, its promises, and what is refused."""

from itertools import permutations
from math import nan

import pytest
from divisions import divisions, names, webster
from hypothesis import given
from hypothesis import strategies as st

from resilience.allocation import CapacityAllocator, allocate
from resilience.shares import water_fill


@given(divisions())
def test_allocate_is_webster_with_caps(division):
    """The grants are those of the definition, unit after unit to the highest average, ties included."""
    capacity, weights, caps = division
    assert allocate(capacity, weights, caps) == webster(capacity, weights, caps)


@given(divisions())
def test_allocate_gives_out_all_that_can_be_used(division):
    """The sum is the capacity or all caps of names with a weight; nobody is above its cap or below zero."""
    capacity, weights, caps = division
    grants = allocate(capacity, weights, caps)
    usable = [caps.get(name, capacity) for name in weights if weights[name]]
    assert sum(grants.values()) == min(capacity, sum(usable))
    assert all(0 <= grant <= caps.get(name, capacity) for name, grant in grants.items())
    assert all(type(grant) is int for grant in grants.values())
    assert list(grants) == list(weights)


@given(divisions(), names)
def test_allocate_never_takes_for_more(division, name):
    """More capacity brings nobody less; more weight or a higher cap brings that name no less."""
    capacity, weights, caps = division
    grants = allocate(capacity, weights, caps)
    larger = allocate(capacity + 1, weights, caps)
    assert all(larger[other] >= grants[other] for other in weights)
    if name in weights:
        assert allocate(capacity, {**weights, name: weights[name] + 1}, caps)[name] >= grants[name]
    if name in caps:
        assert allocate(capacity, weights, {**caps, name: caps[name] + 1})[name] >= grants[name]


@given(divisions(), st.integers(1, 10**12))
def test_allocate_depends_on_proportions_only(division, factor):
    """Weights times a factor divide the same way."""
    capacity, weights, caps = division
    scaled = {name: weight * factor for name, weight in weights.items()}
    assert allocate(capacity, scaled, caps) == allocate(capacity, weights, caps)


def test_allocate_settles_ties_whatever_the_order_of_the_mapping():
    """A tie goes to the heavier weight, then to the smaller repr of the name."""
    for order in permutations("abc"):
        assert allocate(2, dict.fromkeys(order, 7)) == {"a": 1, "b": 1, "c": 0}
    for order in permutations([("z", 3), ("a", 1), ("m", 1)]):  # the second unit of z ties with a's and m's first
        assert allocate(2, dict(order)) == {"z": 2, "a": 0, "m": 0}
        assert allocate(3, dict(order)) == {"z": 2, "a": 1, "m": 0}


def test_allocate_counts_in_integers_only():
    """Weights and capacities far beyond a float's 53 bits are divided to the unit, and at once."""
    capacity = 10**9 * (10**30 + 7)
    assert allocate(capacity, {"a": 10**9 - 1, "b": 1}) == {"a": capacity - 10**30 - 7, "b": 10**30 + 7}
    assert allocate(2**70, {"a": 1, "b": 1, "c": 1}, {"c": 3}) == {"a": 2**69 - 1, "b": 2**69 - 2, "c": 3}


def test_allocate_divides_weights_that_no_float_can_hold():
    """Weights of four hundred digits, with a unit left over for the heaviest."""
    huge = 10**400
    assert allocate(4, {"a": huge, "b": huge + 1, "c": huge}) == {"a": 1, "b": 2, "c": 1}


def test_allocate_takes_nothing_from_whoever_has_nothing():
    """Where rounding gave out too much, it is taken back from those who have a unit. Found by search."""
    weights = {"a": 3, "b": 1, "c": 2, "d": 3, "e": 2, "f": 1, "g": 3}
    grants = allocate(7, weights, {"a": 4, "d": 1, "g": 2})
    assert grants == {"a": 2, "b": 0, "c": 1, "d": 1, "e": 1, "f": 0, "g": 2}


@pytest.mark.parametrize(
    ("total", "weights", "limits", "found"),
    [
        (4, {"a": 1, "b": 1}, {"a": 2, "b": 9}, (2, 1, {"a"})),
        (6, {"a": 2, "b": 1}, {"a": 3, "b": 9}, (3, 1, {"a"})),
        (9, {"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 3, "c": 9}, (5, 1, {"a", "b"})),
        (2 * 10**18 + 1, {"b": 1, "a": 1}, {"b": 10**18 + 2, "a": 10**18}, (10**18 + 1, 1, {"a"})),
        (5, {"a": 1, "b": 1}, {"a": 3, "b": 3}, (5, 2, set())),
        (4, {"a": 1, "b": 1}, {"a": 2, "b": 2}, (0, 0, {"a", "b"})),
    ],
)
def test_water_rises_evenly_until_somebody_is_full(total, weights, limits, found):
    """Whoever is at its limit, exactly or beyond it, is full; what is left, and the weights of the others, are told."""
    assert water_fill(total, weights, limits) == found


def test_allocate_without_anything_to_give_or_anyone_to_take():
    """No capacity, no name, no weight and no cap left are all zero."""
    assert allocate(0, {"a": 1}) == {"a": 0}
    assert allocate(5, {}) == {}
    assert allocate(5, {"a": 0}) == {"a": 0}
    assert allocate(5, {"a": 1, "b": 1}, {"a": 0, "b": 0}) == {"a": 0, "b": 0}


BAD_NUMBERS = [-1, nan, 1.0, "1", None, True]


@pytest.mark.parametrize("bad", BAD_NUMBERS)
def test_bad_numbers_are_refused_by_name(bad):
    """A negative number, a float, NaN, a bool: the error says which of the numbers it was."""
    allocator = CapacityAllocator({"a": 1})
    for call, what in [
        (lambda: allocate(bad, {"a": 1}), "capacity"),
        (lambda: allocate(1, {"a": bad}), "weight of 'a'"),
        (lambda: allocate(1, {"a": 1}, {"a": bad}), "cap of 'a'"),
        (lambda: CapacityAllocator({"a": bad}), "weight of 'a'"),
        (lambda: allocator.allocate(bad), "capacity"),
        (lambda: allocator.allocate(1, {"a": bad}), "cap of 'a'"),
        (lambda: allocator.charge("a", bad, ["a"]), "units"),
        (lambda: allocator.set_weight("a", bad), "weight of 'a'"),
        (lambda: allocator.set_weight("new", bad), "weight of 'new'"),
    ]:
        with pytest.raises(ValueError, match=f"{what} is {bad!r}"):
            call()
    assert allocator.weights == {"a": 1}
    assert allocator.credit("a") == 0


def test_integers_of_a_subclass_are_integers():
    """An enum member that is an int is as good as its value."""

    class Size(int):
        pass

    assert allocate(Size(3), {"a": Size(2), "b": 1}, {"a": Size(1)}) == {"a": 1, "b": 2}


def test_unknown_names_are_refused_by_name():
    """A name nobody registered is a mistake of the caller, told by name, and changes nothing."""
    allocator = CapacityAllocator({"a": 1, "b": 1})
    for call in [
        lambda: allocate(1, {"a": 1}, {"ghost": 1}),
        lambda: allocator.allocate(1, {"ghost": 1}),
        lambda: allocator.charge("ghost", 1, ["a"]),
        lambda: allocator.charge("a", 1, ["a", "ghost"]),
        lambda: allocator.first(["a", "ghost"]),
        lambda: allocator.level("ghost", ["a"]),
        lambda: allocator.level("a", ["ghost"]),
        lambda: allocator.remove("ghost"),
        lambda: allocator.credit("ghost"),
    ]:
        with pytest.raises(ValueError, match="'ghost'"):
            call()
    assert allocator.credit("a") == allocator.credit("b") == 0
