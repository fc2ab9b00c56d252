"""Credit unit by unit: who is first, what a unit costs, and what joining, changing and leaving do to it."""

from fractions import Fraction

import pytest
from divisions import QUANTUM, names
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import part

from resilience.allocation import CapacityAllocator


def test_first_and_charge_divide_one_two_five():
    """At capacity 1 the starts come in proportion, and every beginning of them is within one unit."""
    allocator = CapacityAllocator({"a": 1, "b": 2, "c": 5})
    got, everyone = {"a": 0, "b": 0, "c": 0}, ["a", "b", "c"]
    for turn in range(1, 8001):
        name = allocator.first(everyone)[0]
        allocator.charge(name, 1, everyone)
        got[name] += 1
        for other, weight in allocator.weights.items():
            assert abs(Fraction(turn * weight, 8) - got[other]) < 1
    assert got == {"a": 1000, "b": 2000, "c": 5000}
    assert allocator.credit("a") == allocator.credit("b") == allocator.credit("c") == 0


@settings(deadline=None, max_examples=part(100))
@given(st.dictionaries(names, st.integers(1, 12) | st.sampled_from([100, 10**9]), min_size=1, max_size=8))
def test_every_prefix_of_constant_unit_by_unit_division_is_within_one_unit(weights):
    """Whatever the weights, also a heavy one beside many light ones, nobody is ever a unit off."""
    allocator, total = CapacityAllocator(weights), sum(weights.values())
    got = dict.fromkeys(weights, 0)
    for turn in range(1, 200):
        name = allocator.first(weights.keys())[0]
        allocator.charge(name, 1, weights.keys())
        got[name] += 1
        for other, weight in weights.items():
            assert allocator.credit(other) == Fraction(turn * weight, total) - got[other]
            assert abs(allocator.credit(other)) < 1


def test_the_heavy_does_not_run_ahead():
    """Twenty light names beside one of their total weight: every second unit is the heavy one's, not the first ten."""
    weights = {"heavy": 20, **{f"light{number}": 1 for number in range(20)}}
    allocator, served = CapacityAllocator(weights), []
    for _ in range(40):
        served.append(allocator.first(weights.keys())[0])
        allocator.charge(served[-1], 1, weights.keys())
    assert all(served[start : start + 2].count("heavy") == 1 for start in range(0, 40, 2))


def test_first_lists_everyone_with_a_weight():
    """The eligible come first, by deadline, ties in registration order; weight 0 is never owed anything."""
    allocator = CapacityAllocator({"z": 1, "a": 1, "none": 0, "heavy": 3})
    assert allocator.first({"a", "z", "none", "heavy"}) == ["heavy", "z", "a"]
    allocator.charge("heavy", 1, ["z", "a", "heavy"])
    assert allocator.first(["heavy", "a", "z"]) == ["heavy", "z", "a"]
    allocator.charge("z", 1, ["z", "a", "heavy"])
    assert allocator.first(["z", "heavy", "a"]) == ["heavy", "a", "z"]
    assert allocator.first([]) == []
    assert allocator.first(["none"]) == []


def test_first_tells_deadlines_apart_that_a_float_would_not():
    """Deadlines that differ in the 18th digit are ordered exactly."""
    allocator = CapacityAllocator({"later": 10**18, "earlier": 10**18 + 1})
    assert allocator.first(["later", "earlier"]) == ["earlier", "later"]


def test_charge_credits_those_who_waited():
    """Those among share the credit by weight; who got the units pays for all, also from outside."""
    allocator = CapacityAllocator({"a": 1, "b": 3, "outside": 2})
    allocator.charge("b", 4, ["a", "b"])
    assert (allocator.credit("a"), allocator.credit("b"), allocator.credit("outside")) == (1, -1, 0)
    allocator.charge("outside", 2, ["a", "b"])
    assert allocator.credit("outside") == -2
    assert allocator.credit("a") == Fraction(3, 2)
    assert allocator.credit("b") == Fraction(1, 2)


def test_charge_without_anyone_waiting_is_free():
    """Nobody missed anything, so nobody is owed anything, and the sum stays zero."""
    allocator = CapacityAllocator({"a": 1, "idle": 0})
    allocator.charge("a", 7, [])
    allocator.charge("a", 7, ["idle"])
    allocator.charge("a", 7, ["a"])
    assert allocator.credit("a") == 0


@pytest.mark.parametrize("units", [0, 100])
def test_absent_names_do_not_disturb_those_present(units):
    """What an absent name owes shifts nobody's turn among the present, nor lets the heavy one run ahead."""
    allocator = CapacityAllocator({"heavy": 4, "a": 1, "b": 1, "c": 1, "d": 1, "absent": 5})
    present, starts = ["heavy", "a", "b", "c", "d"], []
    allocator.charge("absent", units, present)
    for _ in range(8):
        starts.append(allocator.first(present)[0])
        allocator.charge(starts[-1], 1, present)
    assert starts == ["heavy", "a", "heavy", "b", "heavy", "c", "heavy", "d"]


def test_level_keeps_at_most_one_unit():
    """Who comes back neither cashes in on its absence nor pays for it for more than one unit; the others take it on."""
    allocator = CapacityAllocator({"a": 1, "b": 1, "back": 2})
    allocator.charge("back", 100, ["a", "b"])
    allocator.level("back", ["a", "b"])
    assert allocator.credit("back") == -1
    assert allocator.credit("a") == allocator.credit("b") == Fraction(1, 2)
    allocator.charge("a", 100, ["back"])
    allocator.level("back", ["a", "back"])
    par = (allocator.credit("a") + allocator.credit("back")) * Fraction(2, 3)
    assert abs(allocator.credit("back") - par - 1) < QUANTUM


def test_level_alone_or_within_a_unit_changes_nothing():
    """There is nobody to be level with, or nothing to cut off."""
    allocator = CapacityAllocator({"a": 1, "b": 1, "idle": 0})
    allocator.charge("a", 1, ["a", "b"])
    before = allocator.credit("a")
    allocator.level("a", ["b"])
    allocator.charge("a", 30, ["b"])
    allocator.level("a", ["a"])
    allocator.level("a", ["a", "idle"])
    allocator.level("a", [])
    assert allocator.credit("a") == before - 30


def test_a_name_without_a_weight_can_be_levelled():
    """It is owed nothing, and what it got too much is forgiven but for one unit."""
    allocator = CapacityAllocator({"a": 1, "idle": 0})
    allocator.charge("idle", 3, ["a"])
    allocator.level("idle", ["a"])
    assert (allocator.credit("idle"), allocator.credit("a")) == (-1, 1)


def test_set_weight_keeps_the_credit():
    """A new name starts without credit; a changed one keeps what it is owed and gets the new proportion."""
    allocator = CapacityAllocator({"a": 1})
    allocator.set_weight("b", 1)
    allocator.charge("a", 1, ["a", "b"])
    allocator.set_weight("b", 3)
    assert allocator.credit("b") == Fraction(1, 2)
    assert allocator.weights == {"a": 1, "b": 3}
    starts = []
    for _ in range(400):
        starts.append(allocator.first(["a", "b"])[0])
        allocator.charge(starts[-1], 1, ["a", "b"])
    assert starts.count("b") in (300, 301)


def test_remove_leaves_the_credit_to_the_others():
    """By weight, so that their order stays; also when no weight is left, and when nobody is."""
    allocator = CapacityAllocator({"gone": 1, "a": 1, "b": 3, "x": 0})
    allocator.charge("gone", 8, ["a", "b"])
    allocator.remove("gone")
    assert (allocator.credit("a"), allocator.credit("b")) == (0, 0)
    allocator.charge("a", 1, ["b"])
    allocator.remove("b")
    allocator.remove("a")
    assert allocator.weights == {"x": 0}
    assert allocator.credit("x") == 0
    allocator.remove("x")
    assert allocator.weights == {}


def test_weights_can_only_be_read():
    """The mapping follows changes but takes none."""
    given_ = {"a": 1}
    allocator = CapacityAllocator(given_)
    given_["b"] = 1
    weights = allocator.weights
    allocator.set_weight("c", 2)
    assert weights == {"a": 1, "c": 2}
    with pytest.raises(TypeError):
        weights["d"] = 1  # type: ignore[index]


@pytest.mark.parametrize("least", [100, 10**15])
def test_credits_of_ever_new_denominators_stay_small_and_sum_to_zero(least):
    """Hundreds of coprime totals would need thousands of digits: rounding keeps the sum and the precision."""
    weights = {f"n{number}": least + 79 * number * number + number for number in range(40)}
    allocator, everyone, exact = CapacityAllocator(weights), list(weights), dict.fromkeys(weights, Fraction(0))
    for turn in range(400):
        among = everyone[turn % 38 :][: 2 + turn % 7]
        name = allocator.first(among)[0]
        allocator.charge(name, 1, among)
        for other in among:
            exact[other] += Fraction(weights[other], sum(weights[one] for one in among))
        exact[name] -= 1
        assert sum(allocator.credit(other) for other in weights) == 0
        assert allocator.credit(name).denominator < 2**256
    assert all(abs(allocator.credit(name) - exact[name]) < QUANTUM for name in weights)
