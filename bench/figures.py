"""How figures are worked out and printed."""

from collections.abc import Sequence


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def told(seconds: Sequence[float]) -> str:
    """Tell the median and the slowest hundredth, in milliseconds."""
    return ", ".join(f"p{p} {1000 * percentile(seconds, p):.1f} ms" for p in (50, 99))
