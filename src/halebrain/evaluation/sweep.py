"""Sweep over the weight of the residual: exact pooled curves at each β, separately for seen and unseen pathologies.

Source: Behrendt et al. 2024 (MIDL), appendix D: β ≤ 0.6 for a seen pathology, 0.7 to 0.9 for an unseen one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from halebrain.evaluation.curve import Labels, PooledCurve, Scores
from halebrain.io.tables import number_cell, tsv_text

WEIGHTS = tuple(step / 10 for step in range(11))
"""β from 0 (segmenter alone) to 1 (residual alone)."""
SEEN, UNSEEN = "seen", "unseen"


@dataclass(frozen=True)
class SweepPoint:
    """How well one weight does on one group of scans.

    Args:
        group: "seen" or "unseen": whether the segmenter learned from annotations of the pathology.
        weight: β of the residual, in the fusion of the model: β·residual + (1 − β)·probability, or log-odds.
        auprc: Average precision over the voxels of all scans together, in (0, 1]; higher = better.
        best_dice: Dice over the same voxels at the threshold that is best for them.
        n_scans: Scans in the group.
    """

    group: str
    weight: float
    auprc: float
    best_dice: float
    n_scans: int


class FusionSweep:
    """Collects scans one at a time, each fused with every weight."""

    def __init__(self, weights: Sequence[float] = WEIGHTS) -> None:
        self.weights = tuple(weights)
        self._curves: dict[str, list[PooledCurve]] = {}
        self._scans: dict[str, int] = {}

    def add(self, group: str, fused: Callable[[float], Scores], reference: Labels) -> None:
        """Add one scan: β → scores `(m,)` of the voxels that count, and which of them are lesion, `(m,)`."""
        curves = self._curves.setdefault(group, [PooledCurve() for _ in self.weights])
        for weight, curve in zip(self.weights, curves, strict=True):
            curve.add(fused(weight), reference)
        self._scans[group] = self._scans.get(group, 0) + 1

    def finish(self) -> list[SweepPoint]:
        """Return one point a group and weight; groups without a lesion voxel are left out."""
        points = []
        for group in sorted(self._curves):
            for weight, pooled in zip(self.weights, self._curves[group], strict=True):
                if pooled.has_lesion:
                    curve = pooled.finish()
                    dice = curve.best_dice[0]
                    points.append(SweepPoint(group, weight, curve.average_precision, dice, self._scans[group]))
        return points


def best_point(points: Sequence[SweepPoint], group: str) -> SweepPoint | None:
    """Return the point of a group with the highest AUPRC, the one nearest to β = 0.5 among equals; `None` = no scan."""
    own = [point for point in points if point.group == group]
    return max(own, key=lambda point: (round(point.auprc, 9), -abs(point.weight - 0.5)), default=None)


def sweep_tsv(points: Sequence[SweepPoint]) -> str:
    """Return the sweep as a table, one row a group and weight."""
    cells = [[number_cell(v) if isinstance(v, float) else v for v in vars(point).values()] for point in points]
    return tsv_text([[field.name for field in fields(SweepPoint)], *cells])
