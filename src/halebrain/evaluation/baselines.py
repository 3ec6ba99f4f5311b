"""Baselines: anomaly scores without a network.

Sources: intensity after histogram equalisation: Meissen et al. 2021, "Challenging current semi-supervised anomaly
segmentation methods for brain MRI". Atlas of healthy scans: the voxel-wise z-score of morphometry.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from halebrain.core.modality import lesions_are_dark
from halebrain.core.moments import squash, sums_of
from halebrain.core.registry import Registry
from halebrain.core.types import FloatArray, MaskArray

Baseline = Callable[[FloatArray, str], FloatArray]
"""(intensities of the voxels that count `(m,)`, in any unit; modality) → score `(m,)` in [0, 1], higher = anomalous."""

BASELINES: Registry[Baseline] = Registry("baseline")
DEFAULT = "intensity rank"
"""The default baseline of every evaluation."""
ATLAS = {"atlas z-score": False, "atlas z-score signed": True}
"""Baselines that are fitted on healthy training scans first, and whether they count only the direction of lesions."""
_BINS = 256
_LEAST_STD = 0.02
"""Floor of the atlas's standard deviation, in units of the normalised intensity."""


@BASELINES.register("intensity rank bright")
def intensity_rank_bright(values: FloatArray, _modality: str) -> FloatArray:
    """Return the rank of each voxel's intensity in its brain, in (0, 1], ties in the middle."""
    return np.asarray(stats.rankdata(values, method="average") / values.size, dtype=np.float32)


@BASELINES.register("intensity rank dark")
def intensity_rank_dark(values: FloatArray, modality: str) -> FloatArray:
    """Return the inverted rank, in [0, 1)."""
    turned: FloatArray = np.float32(1) - intensity_rank_bright(values, modality)
    return turned


@BASELINES.register(DEFAULT)
def intensity_rank(values: FloatArray, modality: str) -> FloatArray:
    """Return the rank of each voxel's intensity in its brain, in [0, 1].

    Lesions are bright on T2 and FLAIR and dark on T1, where the rank is inverted.
    """
    return (intensity_rank_dark if lesions_are_dark(modality) else intensity_rank_bright)(values, modality)


@BASELINES.register("histogram-equalised intensity")
def equalised_intensity(values: FloatArray, modality: str) -> FloatArray:
    """Return the cumulative histogram (256 bins between the extremes) at each intensity, in [0, 1]; inverted for T1.

    Coarser than the rank: where a few voxels are very bright, most tissue shares few bins. Differs from paper: inverted
    on T1 (the paper has FLAIR only).
    """
    counts, edges = np.histogram(values, bins=_BINS)
    share = np.cumsum(counts) / values.size
    equalised = np.interp(values, (edges[:-1] + edges[1:]) / 2, share).astype(np.float32)
    turned: FloatArray = np.float32(1) - equalised
    return turned if lesions_are_dark(modality) else equalised


@dataclass(frozen=True)
class AtlasModel:
    """Mean and spread of healthy intensities at each voxel of the working grid, for one modality.

    Args:
        mean: Mean intensity in [0, 1], `(i, j, k)`; 0 where no scan shows brain.
        std: Standard deviation (population), same shape; infinite where fewer than two scans show brain.
        n_scans: How many scans it was fitted on.
    """

    mean: FloatArray
    std: FloatArray
    n_scans: int

    @classmethod
    def fit(cls, scans: Iterable[tuple[FloatArray, MaskArray]], *, smoothing_voxels: float = 1.0) -> "AtlasModel":
        """Return the atlas of healthy scans in [0, 1] with their brains, which stream through one at a time.

        `smoothing_voxels` is the standard deviation of the Gaussian neighbourhood over which the moments are pooled,
        since no registration is exact; 0 = each voxel for itself.
        """
        sums, n_scans = sums_of(scans)
        if sums is None:
            raise ValueError("an atlas needs at least one scan")
        return cls(*sums.pooled(smoothing_voxels), n_scans)

    def z(self, image: FloatArray) -> FloatArray:
        """Return how many standard deviations an image lies above the mean, `(i, j, k)`; 0 where none is known."""
        return np.asarray((image - self.mean) / np.maximum(self.std, _LEAST_STD), dtype=np.float32)

    def score(self, image: FloatArray, *, signed: bool = False, modality: str = "") -> FloatArray:
        """Return z / (1 + z) in [0, 1), with z the absolute deviation of an image in [0, 1] on the working grid.

        With `signed`, only what is brighter than healthy counts, or darker on T1.
        """
        z = self.z(image)
        z = np.maximum(-z if lesions_are_dark(modality) else z, 0) if signed else np.abs(z)
        return squash(z)


def baseline_map(
    name: str, image: FloatArray, region: MaskArray, modality: str, *, atlas: AtlasModel | None = None
) -> FloatArray:
    """Return the score of a scan by a baseline, `(i, j, k)`, in [0, 1]; 0 outside `region`.

    `name` is one of `BASELINES`, or of `ATLAS`, which need the atlas of that contrast and intensities in [0, 1] on the
    working grid.
    """
    if name in ATLAS:
        assert atlas is not None, "a score by an atlas needs the atlas"
        return atlas.score(image, signed=ATLAS[name], modality=modality) * region
    score = np.zeros(region.shape, dtype=np.float32)
    score[region] = BASELINES.get(name)(image[region], modality)
    return score
