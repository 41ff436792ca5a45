"""Figures: targets, statistics and formatting."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured value. `target`: None if the value is for information only.

    `less`: lower is better. `note`: additional information.
    """

    what: str
    value: float
    unit: str = ""
    target: float | None = None
    less: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        """`pass`, `short`, or empty without a target."""
        if self.target is None:
            return ""
        return (
            "pass"
            if (self.value <= self.target if self.less else self.value >= self.target)
            else "short"
        )

    @property
    def row(self) -> str:
        """The figure as a Markdown table row."""
        wanted = "" if self.target is None else f"{'≤' if self.less else '≥'} {number(self.target)}"
        value = f"{number(self.value)} {self.unit}".rstrip()
        return f"| {self.what} | {value} | {wanted} | {self.verdict} | {self.note} |"


HEAD = "| | measured | target | | |\n| --- | --- | --- | --- | --- |"


def number(value: float) -> str:
    """Format a number with three significant digits."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percentile(values: Sequence[float], percent: int) -> float:
    """The percentile of the values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def waits(what: str, seconds: Sequence[float], target: tuple[float, float]) -> list[Figure]:
    """The 50th and 99th percentile; targets in milliseconds."""
    return [
        Figure(f"{what}, p{p}", 1000 * percentile(seconds, p), "ms", most, less=True)
        for p, most in zip((50, 99), target, strict=True)
    ]
