"""A figure of many scans as dots on a line, to show outliers; values to compare with are marked below."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_WIDTH, _HEIGHT, _MARGIN = 300, 36, 8
_MARKS_HEIGHT = 12
_OFFSETS = (0.0, -6.0, 6.0, -12.0, 12.0)


@dataclass(frozen=True)
class Dot:
    """One scan; `None` = it has no such figure, and is not drawn."""

    scan_id: str
    value: float | None
    flagged: bool


def dot_plot(
    name: str,
    dots: Sequence[Dot],
    *,
    limits: tuple[float, float] | None = None,
    marks: Sequence[float] = (),
    says: str = "",
) -> dict[str, Any]:
    """Return what a template draws of one figure; equal values are stacked so that none hides the others.

    `limits` are the ends of the line; `None` = the lowest and the highest value. `marks` are values to compare with,
    drawn as a second row below; `says` says what these are.
    """
    known = [(dot, dot.value) for dot in dots if dot.value is not None]
    values = [*(value for _, value in known), *marks]
    low, high = limits or ((min(values), max(values)) if values else (0.0, 0.0))
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * ((value - low) / span if high > low else 0.5)

    taken: dict[int, int] = {}
    drawn = []
    for dot, value in known:
        x = place(value)
        level = taken.get(round(x / 7), 0)
        taken[round(x / 7)] = level + 1
        y = _HEIGHT / 2 + _OFFSETS[level % len(_OFFSETS)]
        about = {"flagged": dot.flagged, "scan_id": dot.scan_id, "value": f"{value:.4g}"}
        drawn.append({"x": f"{x:.1f}", "y": y} | about)
    height = _HEIGHT + _MARKS_HEIGHT if marks else _HEIGHT
    below = {"marks": [f"{place(mark):.1f}" for mark in marks], "height": height, "says": says}
    return {"name": name.replace("_", " "), "low": f"{low:.4g}", "high": f"{high:.4g}", "dots": drawn} | below
