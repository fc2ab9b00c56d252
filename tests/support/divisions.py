"""Independent models of a division, counted in fractions, and strategies that draw one."""

from collections.abc import Mapping
from fractions import Fraction

from hypothesis import strategies as st

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
