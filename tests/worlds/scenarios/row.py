"""One row of the table: what was measured, beside what it must reach."""

from collections.abc import Callable, Sequence

import attrs


@attrs.frozen(kw_only=True)
class Row:
    """A scenario, and what came of it.

    Attributes:
        scenario: what is measured, in words.
        plain: what an earlier, simpler wording of the rules gave.
        target: what the rules must reach, as the design's table has it.
        ideal: what somebody could who knows the future.
        ours: what was measured.
        floors: pairs of a measured number and the least it may be.
        ceilings: pairs of a measured number and the most it may be.
        note: why the target cannot be reached, where another rule forbids it: then the bounds are that rule's.
    """

    scenario: str
    plain: str
    target: str
    ideal: str
    ours: str
    floors: Sequence[tuple[float, float]] = ()
    ceilings: Sequence[tuple[float, float]] = ()
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether everything measured is within its bounds."""
        return all(it >= least for it, least in self.floors) and all(it <= most for it, most in self.ceilings)

    def line(self) -> str:
        """The row in Markdown; †: another rule forbids the target, ✗: missed."""
        mark = " †" if self.note else ""
        mark += "" if self.reached else " ✗"
        return f"| {self.scenario} | {self.plain} | {self.target} | {self.ours}{mark} | {self.ideal} |"


Scenario = Callable[[], Row]


def told(*figures: float, digits: int = 2) -> str:
    """Figures as the table has them."""
    return " / ".join(f"{figure:.{digits}f}" for figure in figures)
