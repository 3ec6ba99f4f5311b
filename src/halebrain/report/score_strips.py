"""Scores of many scans on a line, a line for each contrast, with the scores of healthy scans marked below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from halebrain.report.healthy import HealthyReference
from halebrain.report.strip import Dot, dot_strip
from halebrain.report.verdict import number


@dataclass(frozen=True)
class ScoredScan:
    """A scan with a score.

    Args:
        dot: Its name, its score and whether it has a flag.
        modality: Its contrast; empty = not known.
        healthy: The healthy scans that its score is compared with.
    """

    dot: Dot
    modality: str
    healthy: HealthyReference

    @classmethod
    def of(cls, name: str, provenance: Mapping[str, Any], *, flagged: bool) -> Self | None:
        """Return it from its provenance; `None` without a score."""
        score = number(provenance.get("scan_score"))
        if score is None:
            return None
        modality = str(provenance.get("threshold", {}).get("modality") or "")
        return cls(Dot(name, score, flagged), modality, HealthyReference.of(provenance))


def score_strips(scans: Sequence[ScoredScan]) -> list[dict[str, Any]]:
    """Return the lines; scans share one where contrast and healthy scans are the same, as no other scores compare."""
    groups: dict[tuple[str, tuple[float, ...]], list[ScoredScan]] = {}
    for scan in scans:
        groups.setdefault((scan.modality, scan.healthy.scores), []).append(scan)
    strips = []
    for (modality, healthy), own in sorted(groups.items()):
        name = f"scan-level score, {modality}" if modality else "scan-level score"
        says = own[0].healthy.said if healthy else ""
        strips.append(dot_strip(name, [scan.dot for scan in own], marks=healthy, says=says))
    return strips
