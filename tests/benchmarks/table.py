"""The rows that every benchmark reports, and the one table they make."""

import attrs

__all__ = ["Row", "render"]

HEAD = ("what", "measured", "floor", "aim", "holds", "")
NUMBERS = (1, 2, 3)  # columns that are aligned to the right


@attrs.frozen
class Row:
    """One figure beside its limits.

    Attributes:
        what: what was measured.
        measured: the figure; None if there is none, and ``note`` says why.
        unit: ``ratio``, ``µs``, ``%`` …
        floor: the worst figure that is good enough; None if there is no limit.
        aim: what it should be. It tells the direction: below the floor where less is better.
        note: how much the figure wavered, and what else a reader must know.
        failed: whether it could not be had though it was wanted.
    """

    what: str
    measured: float | None
    unit: str = "ratio"
    floor: float | None = attrs.field(default=None, kw_only=True)
    aim: float | None = attrs.field(default=None, kw_only=True)
    note: str = attrs.field(default="", kw_only=True)
    failed: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if (self.floor is None) != (self.aim is None):
            raise ValueError(f"{self.what}: floor and aim come together, or not at all")

    @property
    def missed(self) -> bool:
        """Whether the figure is worse than its floor, or could not be had."""
        return self.failed or self._is_worse_than(self.floor)

    @property
    def holds(self) -> str:
        """What the table says about it."""
        if self.measured is None:
            return "FAILED" if self.failed else "skipped"
        if self.floor is None:
            return ""
        if self.missed:
            return "NO"
        return "yes" if self._is_worse_than(self.aim) else "yes, aim"

    def cells(self) -> tuple[str, ...]:
        """The row as text, column by column."""
        unit = "" if self.unit == "ratio" else f" {self.unit}"
        return (
            self.what,
            "-" if self.measured is None else shown(self.measured) + unit,
            "" if self.floor is None else shown(self.floor) + unit,
            "" if self.aim is None else shown(self.aim) + unit,
            self.holds,
            self.note,
        )

    def _is_worse_than(self, limit: float | None) -> bool:
        if self.measured is None or limit is None or self.floor is None or self.aim is None:
            return False
        return self.measured > limit if self.aim < self.floor else self.measured < limit


def shown(number: float) -> str:
    """Three digits, but never fewer than stand before the point."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def render(rows: list[Row]) -> str:
    """The table of ``rows``, as plain text that ends with a newline."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    rule = "  ".join("-" * width for width in widths[:-1])
    text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    return "\n".join([text[0], rule, *text[1:]]) + "\n"


def _aligned(line: tuple[str, ...], widths: list[int]) -> list[str]:
    return [
        cell.rjust(width) if column in NUMBERS else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
