"""Names join, leave, change and get units in any order, against a model that counts in fractions."""

from fractions import Fraction

from divisions import QUANTUM, names
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sizes import part

from resilience.allocation import CapacityAllocator


class Piecewise(RuleBasedStateMachine):
    """Those present divide units one by one, while names come, go, and are served from outside."""

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
            able = [one for one in self.present if self.margin(one) > QUANTUM]
            assert self.margin(name) > -QUANTUM
            assert all(self.due(name) <= self.due(one) + QUANTUM for one in able)
            self.allocator.charge(name, 1, self.present)
            self.charged(name)

    def due(self, name):
        """The model's deadline, in units of a weight."""
        return (1 - self.credits[name]) / self.weights[name]

    def margin(self, name):
        """How far the next unit's part brings ``name`` above what it has had already; the eligible are above zero."""
        total = sum(self.weights[one] for one in self.present)
        return self.credits[name] - self.par(name, self.present) + Fraction(self.weights[name], total)

    @precondition(lambda self: len(self.present) > 1)
    @rule(data=st.data())
    def leave(self, data):
        """A name stops wanting units; its credit is kept."""
        self.present.remove(data.draw(st.sampled_from(self.present)))
        self.bound = max(self.bound, len(self.weights))

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
        self.bound = max(self.bound, len(self.weights))

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
        """Those present are within a unit of being equally well served; once some left, within one for each name."""
        for name in self.present:
            assert abs(self.credits[name] - self.par(name, self.present)) < self.bound


Piecewise.TestCase.settings = settings(deadline=None, max_examples=part(60), stateful_step_count=40)
TestPiecewise = Piecewise.TestCase
