"""A figure of many scans as dots on a line: where each lies, and which stand apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_WIDTH, _HEIGHT, _MARGIN = 300, 36, 8
_OFFSETS = (0.0, -6.0, 6.0, -12.0, 12.0)


@dataclass(frozen=True)
class Dot:
    """One scan.

    Args:
        scan_id: Its name.
        value: Where it lies.
        flagged: Whether it is drawn as one to look at.
    """

    scan_id: str
    value: float
    flagged: bool


def dot_strip(name: str, dots: Sequence[Dot], *, limits: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return what a template draws of one figure; equal values are stacked so that none hides the others.

    Args:
        name: Of the figure.
        dots: The scans that have it.
        limits: Ends of the line; `None` = the lowest and the highest value.
    """
    values = [dot.value for dot in dots]
    low, high = limits or ((min(values), max(values)) if values else (0.0, 0.0))
    span = (high - low) or 1.0
    taken: dict[int, int] = {}
    drawn = []
    for dot in dots:
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * ((dot.value - low) / span if high > low else 0.5)
        level = taken.get(round(x / 7), 0)
        taken[round(x / 7)] = level + 1
        y = _HEIGHT / 2 + _OFFSETS[level % len(_OFFSETS)]
        about = {"flagged": dot.flagged, "scan_id": dot.scan_id, "value": f"{dot.value:.4g}"}
        drawn.append({"x": f"{x:.1f}", "y": y} | about)
    return {"name": name.replace("_", " "), "low": f"{low:.4g}", "high": f"{high:.4g}", "dots": drawn}
