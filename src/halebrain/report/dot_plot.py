"""A figure of many scans as dots on a line, to show outliers; scores of healthy scans are marked below."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from halebrain.core.provenance import Provenance
from halebrain.report.verdict import HealthyReference

_WIDTH, _HEIGHT, _MARGIN = 300, 36, 8
_MARKS_HEIGHT = 12
_OFFSETS = (0.0, -6.0, 6.0, -12.0, 12.0)


@dataclass(frozen=True)
class Dot:
    """One scan."""

    scan_id: str
    value: float
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

    Args:
        name: Of the figure.
        dots: The scans that have it.
        limits: Ends of the line; `None` = the lowest and the highest value.
        marks: Values to compare with, drawn as a second row below.
        says: What these are.
    """
    values = [*(dot.value for dot in dots), *marks]
    low, high = limits or ((min(values), max(values)) if values else (0.0, 0.0))
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * ((value - low) / span if high > low else 0.5)

    taken: dict[int, int] = {}
    drawn = []
    for dot in dots:
        x = place(dot.value)
        level = taken.get(round(x / 7), 0)
        taken[round(x / 7)] = level + 1
        y = _HEIGHT / 2 + _OFFSETS[level % len(_OFFSETS)]
        about = {"flagged": dot.flagged, "scan_id": dot.scan_id, "value": f"{dot.value:.4g}"}
        drawn.append({"x": f"{x:.1f}", "y": y} | about)
    height = _HEIGHT + _MARKS_HEIGHT if marks else _HEIGHT
    below = {"marks": [f"{place(mark):.1f}" for mark in marks], "height": height, "says": says}
    return {"name": name.replace("_", " "), "low": f"{low:.4g}", "high": f"{high:.4g}", "dots": drawn} | below


@dataclass(frozen=True)
class ScanDot:
    """A scan with a score, its contrast (may be empty), and the healthy scans that its score is compared with."""

    dot: Dot
    modality: str
    healthy: HealthyReference

    @classmethod
    def of(cls, name: str, provenance: Provenance, *, flagged: bool) -> Self | None:
        """Return it from its provenance; `None` without a score."""
        if provenance.scan_score is None:
            return None
        modality = provenance.threshold.modality if provenance.threshold else None
        return cls(Dot(name, provenance.scan_score, flagged), modality or "", HealthyReference.of(provenance))


def score_plots(scans: Sequence[ScanDot]) -> list[dict[str, Any]]:
    """Return the lines; scans share one where contrast and healthy scans are the same, as no other scores compare."""
    groups: dict[tuple[str, tuple[float, ...]], list[ScanDot]] = {}
    for scan in scans:
        groups.setdefault((scan.modality, scan.healthy.scores), []).append(scan)
    strips = []
    for (modality, healthy), own in sorted(groups.items()):
        name = f"scan-level score, {modality}" if modality else "scan-level score"
        says = own[0].healthy.said if healthy else ""
        strips.append(dot_plot(name, [scan.dot for scan in own], marks=healthy, says=says))
    return strips
