"""Exact shares: against independent models in fractions, over long runs, and with inputs that change."""

from collections.abc import Mapping
from fractions import Fraction
from itertools import permutations
from math import ceil, floor, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience.allocation import CapacityAllocator, allocate

QUANTUM = Fraction(1, 2**40)  # far above what rounding credits to 2 ** -64 units adds up to in a test

names = st.sampled_from("abcdefgh")
weighings = st.dictionaries(names, st.integers(0, 12) | st.sampled_from([1, 10**9]), max_size=7)
weighted = st.dictionaries(names, st.integers(1, 12), min_size=1, max_size=7)
capacities = st.integers(0, 40)


@st.composite
def divisions(draw, weights=weighings):
    """A capacity, weights, and caps for some of the names."""
    chosen = draw(weights)
    capped = draw(st.dictionaries(st.sampled_from(sorted(chosen)), st.integers(0, 9))) if chosen else {}
    return draw(capacities), chosen, capped


def webster(capacity: int, weights: Mapping[str, int], caps: Mapping[str, int]) -> dict[str, int]:
    """The definition: unit after unit to the highest average of those below their cap."""
    grants = dict.fromkeys(weights, 0)
    for _ in range(capacity):
        able = [name for name in weights if weights[name] and grants[name] < caps.get(name, capacity)]
        if not able:
            break
        ranks = {name: (-Fraction(weights[name], 2 * grants[name] + 1), -weights[name], repr(name)) for name in able}
        grants[min(able, key=ranks.__getitem__)] += 1
    return grants


def shares(capacity: int, weights: Mapping[str, int], caps: Mapping[str, int]) -> dict[str, Fraction]:
    """Water-filling in fractions: those whose part exceeds their cap get the cap, the others divide what is left."""
    open_, result = {name for name in weights if weights[name]}, dict.fromkeys(weights, Fraction(0))
    left = Fraction(capacity)
    while open_:
        level = left / sum(weights[name] for name in open_)
        full = {name for name in open_ if level * weights[name] >= caps.get(name, capacity)}
        for name in full or open_:
            result[name] = Fraction(caps.get(name, capacity)) if full else level * weights[name]
        left -= sum(result[name] for name in full)
        open_ -= full or open_
    return result


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


def long_run(division, rounds: int = 300) -> Fraction:
    """Run the same round again and again against the model; the largest distance from the exact share."""
    capacity, weights, caps = division
    usable = sum(caps.get(name, capacity) for name in weights if weights[name])
    exact = shares(min(capacity, usable), weights, caps)
    allocator, got, worst = CapacityAllocator(weights), dict.fromkeys(weights, 0), Fraction(0)
    for turn in range(1, rounds + 1):
        grants = allocator.allocate(capacity, caps)
        assert list(grants) == list(weights)
        for name, grant in grants.items():
            assert floor(exact[name]) <= grant <= ceil(exact[name])
            got[name] += grant
            assert allocator.credit(name) == turn * exact[name] - got[name]
            worst = max(worst, abs(allocator.credit(name)))
    assert sum(got.values()) == rounds * min(capacity, usable)
    return worst


@settings(deadline=None)
@given(divisions())
def test_constant_rounds_stay_within_one_unit(division):
    """After every round everyone is less than one unit from its exact share, and each round is exact by itself."""
    assert long_run(division) < 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 24), min_size=3, max_size=12), st.integers(1, 30), st.data())
def test_constant_rounds_stay_within_one_unit_when_caps_are_tight(weights, capacity, data):
    """Caps of just the share rounded up leave no room for catching up, and still nobody drifts by a unit."""
    named, total = dict(enumerate(weights)), sum(weights)
    caps = {name: -(-capacity * weight // total) + data.draw(st.integers(0, 1)) for name, weight in named.items()}
    assert long_run((capacity, named, caps), rounds=100) < 1


@pytest.mark.parametrize(
    ("capacity", "weights", "cap"),
    [
        (7, [19, 19, 19, 19, 16, 16, 16, 16], 1),
        (6, [20, 20, 20, 20, 24, 24, 22], 1),
        (6, [39, 28, 28, 39, 39, 28, 39], 1),
        (6, [12, 12, 17, 17, 12, 9, 17, 12], 1),
        (7, [3, 3, 1, 1], 3),
        (14, [6, 9, 9, 6, 6, 9, 6], 3),
    ],
)
def test_rounds_where_the_earliest_deadline_alone_would_drift(capacity, weights, cap):
    """Found by search: rounding up by the earliest deadline alone is a unit or more off here."""
    assert long_run((capacity, dict(enumerate(weights)), dict.fromkeys(range(len(weights)), cap)), rounds=1000) < 1


def test_nobody_starves_at_capacity_one():
    """The lightest of all gets its unit in time: rotation or rounding by size would never serve it."""
    weights = {"a": 10, "b": 10, "c": 1}
    allocator = CapacityAllocator(weights)
    rounds = [allocator.allocate(1) for _ in range(210)]
    assert {name: sum(grants[name] for grants in rounds) for name in weights} == {"a": 100, "b": 100, "c": 10}
    assert all(any(grants["c"] for grants in rounds[start : start + 21]) for start in range(0, 210, 21))


@settings(deadline=None)
@given(weighted, st.data())
def test_changing_rounds_stay_close(weights, data):
    """With capacity and caps that change every round all is exact, and credits stay within the stated two units."""
    allocator, owed = CapacityAllocator(weights), dict.fromkeys(weights, Fraction(0))
    for _ in range(data.draw(st.integers(1, 40))):
        capacity = data.draw(st.integers(0, 12))
        caps = data.draw(st.dictionaries(st.sampled_from(sorted(weights)), st.integers(0, 5)))
        total = min(capacity, sum(caps.get(name, capacity) for name in weights))
        grants = allocator.allocate(capacity, caps)
        assert sum(grants.values()) == total
        for name, share in shares(total, weights, caps).items():
            assert floor(share) <= grants[name] <= ceil(share)
            owed[name] += share - grants[name]
        assert {name: allocator.credit(name) for name in weights} == owed
        assert max(abs(credit) for credit in owed.values()) < 2


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


@settings(deadline=None)
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
    allocator = CapacityAllocator({"later": 10**9, "earlier": 10**9 + 1})
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


def test_absent_names_do_not_disturb_those_present():
    """What an absent name is owed or owes shifts nobody's turn among the present."""
    allocator = CapacityAllocator({"a": 1, "b": 1, "absent": 5})
    allocator.charge("absent", 100, ["a", "b"])
    starts = []
    for _ in range(6):
        starts.append(allocator.first(["a", "b"])[0])
        allocator.charge(starts[-1], 1, ["a", "b"])
    assert starts == ["a", "b"] * 3


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


def test_credits_of_ever_new_denominators_stay_small_and_sum_to_zero():
    """Hundreds of large coprime totals would need thousands of digits: rounding keeps the sum and the precision."""
    weights = {f"n{number}": 10**15 + 7919 * number * number + number for number in range(12)}
    allocator, everyone, exact = CapacityAllocator(weights), list(weights), dict.fromkeys(weights, Fraction(0))
    for turn in range(300):
        among = everyone[turn % 11 :][: 2 + turn % 5]
        name = allocator.first(among)[0]
        allocator.charge(name, 1, among)
        for other in among:
            exact[other] += Fraction(weights[other], sum(weights[one] for one in among))
        exact[name] -= 1
        assert sum(allocator.credit(other) for other in weights) == 0
        assert allocator.credit(name).denominator < 2**256
    assert all(abs(allocator.credit(name) - exact[name]) < QUANTUM for name in weights)


class Piecewise(RuleBasedStateMachine):
    """Names join, leave, change and get units in any order, against a model that counts in fractions."""

    @initialize(weights=st.dictionaries(names, st.integers(1, 12), min_size=2, max_size=6))
    def begin(self, weights):
        """Everyone is present at first."""
        self.allocator = CapacityAllocator(weights)
        self.weights = dict(weights)
        self.credits = dict.fromkeys(weights, Fraction(0))
        self.present = list(weights)
        self.bound = Fraction(1)

    def par(self, name, among):
        """What ``name`` would be owed if all those ``among`` were equally well served."""
        return sum(self.credits[one] for one in among) * self.weights[name] / sum(self.weights[one] for one in among)

    def charged(self, name):
        """The model of charge: one unit for ``name``, the credit for those present."""
        for other in self.present:
            self.credits[other] += Fraction(self.weights[other], sum(self.weights[one] for one in self.present))
        if self.present:
            self.credits[name] -= 1

    @precondition(lambda self: self.present)
    @rule(units=st.integers(1, 20))
    def serve(self, units):
        """The first one present gets the next unit."""
        for _ in range(units):
            name = self.allocator.first(self.present)[0]
            ready = [one for one in self.present if self.due(one) < self.due(name)]
            assert not [one for one in ready if self.eligible(one)] or not self.eligible(name)
            self.allocator.charge(name, 1, self.present)
            self.charged(name)

    def due(self, name):
        """The model's deadline, a little early or late so that rounded-off ties do not matter."""
        return round((1 - self.credits[name]) / self.weights[name] * 2**30)

    def eligible(self, name):
        """Whether the next unit's part brings ``name`` above what it has had already."""
        total = sum(self.weights[one] for one in self.present)
        return self.credits[name] - self.par(name, self.present) + Fraction(self.weights[name], total) > QUANTUM

    @precondition(lambda self: len(self.present) > 1)
    @rule(data=st.data())
    def leave(self, data):
        """A name stops wanting units; its credit is kept."""
        self.present.remove(data.draw(st.sampled_from(self.present)))
        self.bound = 3

    @precondition(lambda self: len(self.present) < len(self.weights))
    @rule(data=st.data(), already=st.booleans())
    def join(self, data, already):
        """A name wants units again: its credit is levelled."""
        name = data.draw(st.sampled_from([one for one in self.weights if one not in self.present]))
        group = [*self.present, name]
        self.allocator.level(name, group if already else self.present)
        par = self.par(name, group)
        cut = max(self.credits[name] - par - 1, 0) + min(self.credits[name] - par + 1, 0)
        self.credits[name] -= cut
        for other in self.present:
            self.credits[other] += cut * self.weights[other] / sum(self.weights[one] for one in self.present)
        self.present = group
        self.bound = 3

    @precondition(lambda self: len(self.present) < len(self.weights))
    @rule(data=st.data(), units=st.integers(1, 5))
    def serve_outsider(self, data, units):
        """Units reach a name that is not present: it owes them to those who are."""
        name = data.draw(st.sampled_from([one for one in self.weights if one not in self.present]))
        self.allocator.charge(name, units, self.present)
        for _ in range(units):
            self.charged(name)

    @rule(name=st.sampled_from("xyz"), weight=st.integers(1, 12))
    def add(self, name, weight):
        """A name is registered; it is not present yet."""
        if name not in self.weights:
            self.allocator.set_weight(name, weight)
            self.weights[name], self.credits[name] = weight, Fraction(0)

    @precondition(lambda self: len(self.weights) > len(self.present))
    @rule(data=st.data())
    def remove(self, data):
        """An absent name is forgotten, its credit goes to all others by weight."""
        name = data.draw(st.sampled_from([one for one in self.weights if one not in self.present]))
        self.allocator.remove(name)
        credit, total = self.credits.pop(name), sum(self.weights.values()) - self.weights.pop(name)
        for other, weight in self.weights.items():
            self.credits[other] += credit * weight / total

    @invariant()
    def sums_to_zero(self):
        """Nothing is ever lost or made up."""
        assert sum(self.allocator.credit(name) for name in self.allocator.weights) == 0

    @invariant()
    def follows_the_model(self):
        """Every credit is the model's, but for quanta rounded off when levelled."""
        assert self.allocator.weights == self.weights
        assert all(abs(self.allocator.credit(name) - self.credits[name]) < QUANTUM for name in self.weights)

    @invariant()
    def stays_close(self):
        """Those present are within one unit of being equally well served; with joins and leaves, within the bound."""
        for name in self.present:
            assert abs(self.credits[name] - self.par(name, self.present)) < self.bound


Piecewise.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestPiecewise = Piecewise.TestCase
