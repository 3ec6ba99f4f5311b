"""Quality of a reconstruction: whether it removes the lesion and keeps the rest."""

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from halebrain.core.similarity import ssim_map
from halebrain.core.slicing import slices_of, volume_of
from halebrain.core.types import FloatArray, MaskArray
from halebrain.evaluation.statistics import SHARE, UNBOUNDED, Interval, bootstrap_mean

_NOT_KNOWN = math.nan
_BOUNDS = {
    "error_inside": SHARE,
    "error_outside": SHARE,
    "lesion_removed": (-math.inf, 1.0),
    "psnr_inside": UNBOUNDED,
    "psnr_outside": UNBOUNDED,
    "ssim_inside": (-1.0, 1.0),
    "ssim_outside": (-1.0, 1.0),
    "residual_contrast": (0.0, math.inf),
}
"""The range of each measure."""


@dataclass(frozen=True)
class ReconstructionQuality:
    """One reconstruction of one scan, intensities in [0, 1]; NaN where the true healthy image is not known.

    Args:
        error_inside: Mean |reconstruction − true healthy| in the lesion; lower = the lesion is gone.
        error_outside: Mean |reconstruction − image| in the rest of the brain; lower = the rest is kept.
        lesion_removed: 1 − error_inside ÷ mean |image − true healthy| in the lesion; 1 = gone, 0 = as it was.
        psnr_inside: Peak signal-to-noise ratio against the true healthy image in the lesion, dB.
        psnr_outside: The same against the image in the rest of the brain, dB.
        ssim_inside: Mean structural similarity to the true healthy image in the lesion.
        ssim_outside: The same to the image in the rest of the brain.
        residual_contrast: Mean |image − reconstruction| in the lesion over its 95th percentile outside; above 1 the
            lesion stands out.
    """

    error_inside: float
    error_outside: float
    lesion_removed: float
    psnr_inside: float
    psnr_outside: float
    ssim_inside: float
    ssim_outside: float
    residual_contrast: float


@dataclass(frozen=True)
class LevelQuality:
    """The quality of one scan's reconstruction at one noise level, or of their mean ("ensemble")."""

    scan_id: str
    subject: str
    level: str
    quality: ReconstructionQuality


def reconstruction_quality(
    image: FloatArray,
    reconstruction: FloatArray,
    lesion: MaskArray,
    brain_mask: MaskArray,
    *,
    healthy: FloatArray | None = None,
) -> ReconstructionQuality:
    """Measure one scan; all arrays `(i, j, k)` on the working grid, intensities in [0, 1]."""
    inside, outside = lesion & brain_mask, brain_mask & ~lesion
    if not inside.any():
        raise ValueError("reconstruction quality needs a lesion inside the brain")
    residual = np.abs(image - reconstruction)
    error_inside = removed = psnr_inside = ssim_inside = _NOT_KNOWN
    if healthy is not None:
        error_inside = float(np.abs(reconstruction - healthy)[inside].mean())
        removed = 1 - error_inside / max(float(np.abs(image - healthy)[inside].mean()), 1e-6)
        psnr_inside = _psnr((reconstruction - healthy)[inside])
        ssim_inside = float(_ssim(reconstruction, healthy)[inside].mean())
    return ReconstructionQuality(
        error_inside=error_inside,
        error_outside=float(residual[outside].mean()),
        lesion_removed=removed,
        psnr_inside=psnr_inside,
        psnr_outside=_psnr((reconstruction - image)[outside]),
        ssim_inside=ssim_inside,
        ssim_outside=float(_ssim(reconstruction, image)[outside].mean()),
        residual_contrast=float(residual[inside].mean() / max(np.percentile(residual[outside], 95), 1e-6)),
    )


def summarise_levels(entries: list[LevelQuality], *, seed: int) -> dict[tuple[str, str], Interval]:
    """Return the mean over scans with its interval for each (level, measure)."""
    levels = list(dict.fromkeys(entry.level for entry in entries))
    found = {}
    for level in levels:
        own = [entry for entry in entries if entry.level == level]
        for measure in (f.name for f in fields(ReconstructionQuality)):
            values = [getattr(entry.quality, measure) for entry in own]
            finite = [value if math.isfinite(value) else math.nan for value in values]
            subjects = [entry.subject for entry in own]
            found[level, measure] = bootstrap_mean(finite, subjects, seed=seed, bounds=_BOUNDS[measure])
    return found


def _psnr(difference: npt.NDArray[np.floating]) -> float:
    mean_square = float(np.square(difference, dtype=np.float64).mean())
    return math.inf if mean_square == 0 else -10 * math.log10(mean_square)


def _ssim(one: FloatArray, other: FloatArray) -> FloatArray:
    return volume_of(ssim_map(slices_of(one), slices_of(other)))
