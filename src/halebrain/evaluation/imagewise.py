"""Metrics of whole slices and whole scans: normal or abnormal.

The score of a scan is the mean of its highest millilitre, that of an axial slice the mean of its highest tenth of a
millilitre: one hot voxel is not enough, and a small lesion is.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from halebrain.core.types import MaskArray
from halebrain.evaluation.case import Case
from halebrain.evaluation.curve import Curve

SCAN_ML, SLICE_ML = 1.0, 0.1


def scan_score(case: Case) -> float:
    """Return the mean score of the highest millilitre."""
    return mean_of_highest_ml(case.values, SCAN_ML, case.voxel_ml)


def slice_scores(case: Case) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return score and label of each axial slice that shows brain."""
    assert case.score is not None
    region, score = (np.moveaxis(a, case.axial_axis, 0) for a in (case.region, case.score))
    truth: MaskArray = np.asarray(np.moveaxis(case.reference & case.region, case.axial_axis, 0).any(axis=(1, 2)))
    shown: MaskArray = np.asarray(region.any(axis=(1, 2)))
    voxel_ml = case.voxel_ml
    scores = [mean_of_highest_ml(s[r], SLICE_ML, voxel_ml) for s, r, k in zip(score, region, shown, strict=True) if k]
    return np.array(scores), truth[shown]


@dataclass
class ImageLevel:
    """Slices and scans of a whole set, as they come."""

    scans: list[tuple[float, bool]] = field(default_factory=list)
    slices: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Add one scan."""
        self.scans.append((scan_score(case), case.has_reference))
        self.slices.append(slice_scores(case))

    def finish(self) -> dict[str, float]:
        """Return AUROC and AUPRC of slices and of scans; those that need both kinds are left out where one lacks."""
        levels = {
            "slice": tuple(np.concatenate(parts) for parts in zip(*self.slices, strict=True)) if self.slices else None,
            "scan": tuple(np.array(part) for part in zip(*self.scans, strict=True)) if self.scans else None,
        }
        found: dict[str, float] = {}
        for level, data in levels.items():
            if data is None or not data[1].any() or data[1].all():
                continue
            curve = Curve.of(data[0], data[1])
            found |= {f"{level}_auroc": curve.auroc, f"{level}_auprc": curve.average_precision}
        return found


def mean_of_highest_ml(values: npt.NDArray[np.floating], volume_ml: float, voxel_ml: float) -> float:
    """Return the mean of the highest values that fill a volume: one voxel at least, all of them at most.

    Args:
        values: Scores of voxels, `(n,)`, n > 0.
        volume_ml: The volume to fill, in ml.
        voxel_ml: What one voxel fills.
    """
    n = int(min(max(round(volume_ml / voxel_ml), 1), len(values)))
    return float(np.partition(values, len(values) - n)[-n:].mean(dtype=np.float64))
