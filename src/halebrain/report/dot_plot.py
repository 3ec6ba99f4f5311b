"""A figure of many scans on a line, to show outliers: dots, or bars of very many; values to compare with lie below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WIDTH, _HEIGHT, _MARGIN = 300, 36, 8
_MARKS_HEIGHT = 12
_OFFSETS = (0.0, -6.0, 6.0, -12.0, 12.0)
_MOST_DOTS = 1000
"""Above that, dots hide each other and make a page of many megabytes."""
_BARS = 71
_BASE, _HIGHEST = 18.0, 16.0


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

    More than 1000 scans become bars: their height is the square root of the number of scans, so that few are seen too.

    `limits` are the ends of the line; `None` = the lowest and the highest value. `marks` are values to compare with,
    drawn as a second row below; `says` says what these are.
    """
    known = [(dot, dot.value) for dot in dots if dot.value is not None]
    values = [*(value for _, value in known), *marks]
    low, high = limits or ((min(values), max(values)) if values else (0.0, 0.0))
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * ((value - low) / span if high > low else 0.5)

    drawn, bars = list[dict[str, Any]](), list[dict[str, Any]]()
    if len(known) > _MOST_DOTS:
        bars = _bars([(place(value), dot.flagged) for dot, value in known])
    else:
        taken: dict[int, int] = {}
        for dot, value in known:
            x = place(value)
            level = taken.get(round(x / 7), 0)
            taken[round(x / 7)] = level + 1
            y = _HEIGHT / 2 + _OFFSETS[level % len(_OFFSETS)]
            about = {"flagged": dot.flagged, "scan_id": dot.scan_id, "value": f"{value:.4g}"}
            drawn.append({"x": f"{x:.1f}", "y": y} | about)
    height = _HEIGHT + _MARKS_HEIGHT if marks else _HEIGHT
    below = {"marks": [f"{place(mark):.1f}" for mark in marks], "height": height, "says": says}
    return {
        "name": name.replace("_", " "),
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "dots": drawn,
        "bars": bars,
    } | below


def how_drawn(strips: Sequence[Mapping[str, object]], kind: str = "scan") -> str:
    """Return what the dots and bars of some figures stand for, as drawn; `kind` is "scan" or "exam"."""
    bars = f"bars: the square root of the number of {kind}s"
    if not any(strip["bars"] for strip in strips):
        drawn = f"One dot per {kind}"
    elif not any(strip["dots"] for strip in strips):
        drawn = bars.capitalize()
    else:
        drawn = f"One dot per {kind}; where there are more than {_MOST_DOTS}, {bars}"
    return f"{drawn}; flagged ones in red."


def _bars(places: Sequence[tuple[float, bool]]) -> list[dict[str, Any]]:
    """Return the bars of scans at places on the line: all of a bin, and the flagged ones of it."""
    width = (_WIDTH - 2 * _MARGIN) / _BARS
    counts, flagged = [0] * _BARS, [0] * _BARS
    for x, is_flagged in places:
        bar = min(int((x - _MARGIN) / width), _BARS - 1)
        counts[bar] += 1
        flagged[bar] += is_flagged
    scale = _HIGHEST / max(counts) ** 0.5
    found = []
    for bar in range(_BARS):
        for number, is_flagged in ((counts[bar], False), (flagged[bar], True)):
            if number:
                height = max(scale * number**0.5, 1.0)
                at = {"x": f"{_MARGIN + bar * width:.1f}", "y": f"{_BASE - height:.1f}", "height": f"{height:.1f}"}
                found.append(at | {"width": f"{width - 0.5:.1f}", "count": number, "flagged": is_flagged})
    return found
