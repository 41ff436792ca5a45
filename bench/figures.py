"""How figures are worked out and printed."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One thing measured. `reach`: what it is to come to; None where that is only to be known.

    `less`: less is better. `note`: what else a reader of the figure wants to know.
    """

    what: str
    value: float
    unit: str = ""
    reach: float | None = None
    less: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        """`pass`, `short`, or nothing where there is no reach."""
        if self.reach is None:
            return ""
        return (
            "pass"
            if (self.value <= self.reach if self.less else self.value >= self.reach)
            else "short"
        )

    @property
    def row(self) -> str:
        """It as a row of a table in Markdown."""
        wanted = "" if self.reach is None else f"{'≤' if self.less else '≥'} {number(self.reach)}"
        value = f"{number(self.value)} {self.unit}".rstrip()
        return f"| {self.what} | {value} | {wanted} | {self.verdict} | {self.note} |"


HEAD = "| | measured | reach | | |\n| --- | --- | --- | --- | --- |"


def number(value: float) -> str:
    """Write a number with three digits that count."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def waits(what: str, seconds: Sequence[float], reach: tuple[float, float]) -> list[Figure]:
    """The median and the slowest hundredth, in milliseconds as their reaches are."""
    return [
        Figure(f"{what}, p{p}", 1000 * percentile(seconds, p), "ms", most, less=True)
        for p, most in zip((50, 99), reach, strict=True)
    ]
