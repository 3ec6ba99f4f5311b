"""Scan-level score, and its percentile among healthy scans of the same contrast.

The number is the mean score of the highest millilitre of the brain on the working grid, as in the scan-level AUROC of
an evaluation. It increases monotonically with the score of every voxel. It needs no threshold, so it stays the
same when a model is calibrated again. Single voxels have little influence, while a lesion of 1 ml fills it.
On the working grid it does not depend on the resolution of the scan. What counts as high differs from contrast to
contrast: hence the percentile.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from halebrain.core.provenance import Provenance
from halebrain.core.types import FloatArray, MaskArray
from halebrain.core.wording import counted
from halebrain.evaluation.set_level import SCAN_ML, mean_of_highest_ml
from halebrain.thresholds.calibration import MIN_HEALTHY_SCANS, Calibration, with_data_set

_MOST_KEPT = 49
"""Healthy scores that a result states; odd, so that the middle one is their median."""


def working_scan_score(score: FloatArray, brain_mask: MaskArray, spacing_mm: tuple[float, float, float]) -> float:
    """Return the score of a scan: the mean of its highest millilitre, rounded to six decimals; no empty masks."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return round(mean_of_highest_ml(score[brain_mask], SCAN_ML, voxel_ml), 6)


def place_among_healthy(
    made: Provenance,
    score: float,
    calibration: Calibration | None,
    *,
    modality: str | None,
    data_set: str | None = None,
) -> Provenance:
    """Return a provenance with a scan's score and its percentile among the healthy validation scans of its modality.

    The percentile is the percentage that score lower, ties counted half. `data_set` names that of the healthy scans;
    `None` = those without a name.
    """
    known = {} if calibration is None else calibration.healthy_scores
    healthy = np.array(() if modality is None else known.get(with_data_set(modality, data_set), ()))
    percentile, note, spread = None, None, tuple[float, ...]()
    if modality is None:
        note = "the contrast of the scan is not known"
    elif len(healthy) < MIN_HEALTHY_SCANS:
        whose = f" of {data_set}" if data_set else ""
        scans, are = counted(len(healthy), "healthy validation scan"), "is" if len(healthy) == 1 else "are"
        note = f"{scans}{whose} {are} {modality}, {MIN_HEALTHY_SCANS} are needed"
    else:
        lower, ties = int((healthy < score).sum()), int((healthy == score).sum())
        percentile, spread = round(100 * (lower + ties / 2) / len(healthy), 1), _spread(healthy)
    return replace(
        made,
        scan_score=score,
        scan_score_percentile=percentile,
        scan_score_n_healthy=len(healthy),
        scan_score_note=note,
        scan_score_healthy=spread,
    )


def _spread(scores: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Return scores in order, or evenly spaced quantiles from the lowest to the highest where they are many."""
    shares = np.linspace(0, 1, min(len(scores), _MOST_KEPT))
    return tuple(round(float(score), 4) for score in np.quantile(scores, shares))
