"""From reconstruction and probability to one anomaly score: residual maps, fusion and smoothing, as pure functions.

Residual maps lie in [0, 1], higher = more anomalous.
Sources: 1 − SSIM: Behrendt et al. 2024 (MIDL). Several kernel sizes: Behrendt et al. 2024, arXiv 2403.14262.
Mahalanobis distance over several reconstructions: Behrendt et al. 2024, arXiv 2407.12474.
"""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, field_validator, model_validator
from scipy import ndimage
from scipy.special import expit, logit

from halebrain.core.config import GrowingConfig
from halebrain.core.errors import ConfigError
from halebrain.core.modality import lesions_are_dark
from halebrain.core.moments import squash, unsquash
from halebrain.core.registry import Registry, suggestion
from halebrain.core.similarity import multi_ssim_map, ssim_map
from halebrain.core.types import SLICE_AXIS, FloatArray, MaskArray
from halebrain.inference.scan_residuals import SCAN_RESIDUALS

Residual = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(image, mean reconstruction, variance of the reconstructions over levels and draws) → map.

All `(b, 1, h, w)`; intensities in [0, 1], variance ≥ 0 and 0 where there is one reconstruction only; map in [0, 1].
"""

RESIDUALS: Registry[Residual] = Registry("residual")
Normalised = Callable[[FloatArray, str], FloatArray]
"""(z, contrast as a BIDS suffix) → map, arrays `(i, j, k)`; map in [0, 1), 0 where z is 0.

z is the residual x − x̂ in standard deviations of healthy scans, by the healthy map of the model.
"""

NORMALISED: Registry[Normalised] = Registry("normalised residual")
_FLOOR = 0.05**2
"""Variance added to the observed one, as few samples can agree by chance (5 % of the range)."""


def residual_map(
    image: torch.Tensor, reconstruction: torch.Tensor, kind: str, *, variance: torch.Tensor | None = None
) -> torch.Tensor:
    """Return how much the reconstruction deviates, in [0, 1], higher = more, shape `(b, 1, h, w)` as the inputs.

    Args:
        image: Intensities in [0, 1].
        reconstruction: Mean of the reconstructions, in [0, 1].
        kind: A name in `RESIDUALS`.
        variance: Variance of the reconstructions; `None` = there is one only.

    Raises:
        ConfigError: The name is unknown.
    """
    spread = torch.zeros_like(image) if variance is None else variance
    return RESIDUALS.get(kind)(image, reconstruction, spread)


@RESIDUALS.register("ssim")
def ssim(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return 1 − SSIM, anticorrelation counting as 1 (the paper)."""
    return (1 - ssim_map(image, mean)).clamp(0, 1)


@RESIDUALS.register("ssim_multi")
def ssim_multi(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return 1 − SSIM averaged over several kernel sizes: small and large lesions both find theirs."""
    return (1 - multi_ssim_map(image, mean)).clamp(0, 1)


@RESIDUALS.register("absolute")
def absolute(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return |x − x̂|."""
    return (image - mean).abs()


@RESIDUALS.register("squared")
def squared(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return (x − x̂)²."""
    return (image - mean).square()


@RESIDUALS.register("positive")
def positive(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return max(x − x̂, 0): brighter than healthy, as lesions are on FLAIR and T2."""
    return (image - mean).clamp_min(0)


@RESIDUALS.register("negative")
def negative(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return max(x̂ − x, 0): darker than healthy, as lesions are on T1."""
    return (mean - image).clamp_min(0)


@RESIDUALS.register("mahalanobis")
def mahalanobis(image: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return d² / (1 + d²) with d² = (x − mean)² / (variance + ε): a deviation where draws agree counts for more.

    Differs from paper: the variance of each voxel alone, without covariances, and mapped into [0, 1) so that it can be
    fused with a probability; the order of voxels is that of d².
    """
    squares = (image - mean).square()
    return squares / (squares + variance + _FLOOR)


@NORMALISED.register("normalised")
def normalised(z: FloatArray, _contrast: str) -> FloatArray:
    """Return |z| / (1 + |z|)."""
    return squash(np.abs(z))


@NORMALISED.register("normalised_bright")
def normalised_bright(z: FloatArray, _contrast: str) -> FloatArray:
    """Return z / (1 + z) where z > 0, else 0: brighter than the residual of healthy scans."""
    return squash(np.maximum(z, 0))


@NORMALISED.register("normalised_dark")
def normalised_dark(z: FloatArray, _contrast: str) -> FloatArray:
    """Return −z / (1 − z) where z < 0, else 0: darker than the residual of healthy scans."""
    return squash(np.maximum(-z, 0))


@NORMALISED.register("normalised_signed")
def normalised_signed(z: FloatArray, contrast: str) -> FloatArray:
    """Return the dark map on T1, where lesions are dark, and the bright map on other contrasts."""
    return (normalised_dark if lesions_are_dark(contrast) else normalised_bright)(z, contrast)


@NORMALISED.register("normalised_leaning")
def normalised_leaning(z: FloatArray, contrast: str) -> FloatArray:
    """Return z' / (1 + z'), z' = |z|, of the sign that lesions seldom have half of it: cavities are dark on FLAIR."""
    usual = -z if lesions_are_dark(contrast) else z
    return squash(np.where(usual > 0, usual, -usual / 2))


ScoreFusion = Callable[[FloatArray, FloatArray, float], FloatArray]
"""(residual map, probability, `residual_weight`) → anomaly score; arrays of one shape, in [0, 1]."""

SCORE_FUSIONS: Registry[ScoreFusion] = Registry("fusion of the score")
_LEAST = 1e-5
"""Probabilities are kept this far from 0 and 1, where odds have no logarithm."""
_MOST_Z = 6.0
"""More standard deviations than this are no more evidence: the tails of healthy residuals are not Gaussian."""


@SCORE_FUSIONS.register("weighted_sum")
def weighted_sum(residual: FloatArray, probability: FloatArray, weight: float) -> FloatArray:
    """Return β·residual + (1 − β)·probability (the paper, equations 3 and 4)."""
    return weight * residual + (1 - weight) * probability


@SCORE_FUSIONS.register("log_odds")
def log_odds(residual: FloatArray, probability: FloatArray, weight: float) -> FloatArray:
    """Return σ(logit(probability) + β·min(z, 6)), z = the normalised residual in standard deviations of healthy scans.

    Differs from paper: the residual is evidence beside the segmenter, of the same strength at each probability. In a
    weighted sum it moves voxels that the segmenter is sure of, and hardly those it doubts.
    """
    z = np.minimum(unsquash(residual), _MOST_Z)
    score: FloatArray = expit(logit(np.clip(probability, _LEAST, 1 - _LEAST)) + weight * z)
    return score


class PostprocessingConfig(GrowingConfig):
    """Settings of the anomaly map.

    Args:
        residual: Name of a map in `RESIDUALS`: "ssim" = 1 − SSIM (the paper), "ssim_multi" = over several kernel sizes,
            "absolute" = |x − x̂|, "squared" = (x − x̂)², "positive" = max(x − x̂, 0): brighter than healthy only, as
            lesions are on FLAIR and T2, "negative" = darker, as on T1, "mahalanobis" = in units of the spread over
            levels and draws. Of the scan as a whole, those in `SCAN_RESIDUALS`: "ssim_3d" = (1 − SSIM) / 2 in three
            dimensions (the paper's code; `residual_weight` 2/3 then orders voxels as its unweighted sum),
            "mahalanobis_full" = with the covariance between pixels, "ssim_mahalanobis" = the product of both (arXiv
            2407.12474). With a healthy map in the model (halebrain calibrate --healthy-map) also those in
            `NORMALISED`, with z = (x − x̂ − mean) / (standard deviation + 0.02) of healthy scans: "normalised" =
            |z| / (1 + |z|), "normalised_bright" and "normalised_dark" = that of one sign, "normalised_signed" = dark on
            T1, bright elsewhere, "normalised_leaning" = both, of the other sign half.
        fusion: Name in `SCORE_FUSIONS` of how residual and probability become a score: "weighted_sum" =
            β·residual + (1 − β)·probability (the paper), "log_odds" = σ(logit(probability) + β·z) with a normalised
            residual, z its number of standard deviations (6 at most). There, the score of a contrast that the healthy
            map lacks is the probability, and a quality flag says so.
        residual_weight: β (appendix D, equation 4). In a weighted sum 0.5 orders voxels as the paper's unweighted sum
            does, 1 is reconstruction alone. In both fusions 0 is the segmenter alone.
        median_size: Side in voxels of the median filter on the residual map; 1 = none.
        erosion: In-plane erosion of the brain mask in voxels before scoring (0 in the paper).
        min_lesion_mm3: Smallest lesion kept in the mask, where the user names none; 0 = all (the paper).
        through_plane_mm: Standard deviation of a Gaussian over the probability across slices: the network segments
            each slice separately, and anomalies in a single slice are rarely lesions (0 in the paper).
        through_plane_sigma_wide_mm: Standard deviation of a second, wider Gaussian; the probability is then the
            geometric mean of the two. The narrow one keeps the slices in which a small lesion begins and ends, the
            wide one what lies around it; 0 = none.
        through_plane_by_contrast: Both widths, narrow and wide, of scans of a contrast (BIDS suffix) that has its own:
            where lesions have high contrast, less smoothing delineates small ones better.
        mirror: Show the segmenter each pair mirrored left to right too, and take the mean (not in the paper).
        overlap: Show the segmenter each pair moved by half a block of folded pixels (`segmenter.patch`) too, and take
            the mean: without it the borders of the blocks may show in the probability (not in the paper).
        lowest_z_mm: Height in template space, in mm, below which nothing is scored. In MNI space the spinal cord begins
            near −62; the end of a brain mask in it is easily taken for an anomaly. `None` = the whole brain mask is
            scored (the paper).
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {
            "through_plane_mm",
            "through_plane_sigma_wide_mm",
            "through_plane_by_contrast",
            "mirror",
            "overlap",
            "lowest_z_mm",
            "fusion",
        }
    )

    residual: str = "ssim"
    fusion: str = "weighted_sum"
    residual_weight: float = Field(default=0.5, ge=0, le=1)
    median_size: int = Field(default=5, ge=1)
    erosion: int = Field(default=0, ge=0)
    min_lesion_mm3: float = Field(default=0.0, ge=0)
    through_plane_mm: float = Field(default=0.0, ge=0)
    through_plane_sigma_wide_mm: float = Field(default=0.0, ge=0)
    through_plane_by_contrast: dict[str, tuple[NonNegativeFloat, NonNegativeFloat]] = Field(default_factory=dict)
    mirror: bool = False
    overlap: bool = False
    lowest_z_mm: float | None = None

    @field_validator("residual")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in (known := [*RESIDUALS, *SCAN_RESIDUALS, *NORMALISED]):
            raise ConfigError("a residual must be a known one", received=repr(value), remedy=suggestion(value, known))
        return value

    @field_validator("fusion")
    @classmethod
    def _is_fusion(cls, value: str) -> str:
        SCORE_FUSIONS.get(value)
        return value

    @model_validator(mode="after")
    def _is_evidence(self) -> "PostprocessingConfig":
        if self.residual_is_evidence and self.residual not in NORMALISED:
            raise ValueError(f"the fusion {self.fusion} needs a normalised residual ({', '.join(NORMALISED)})")
        return self

    @property
    def residual_is_evidence(self) -> bool:
        """Whether the residual adds to the log-odds of the segmenter, instead of being part of a weighted sum."""
        return self.fusion == "log_odds"

    @property
    def needs_healthy_map(self) -> bool:
        """Whether the residual is normalised by the healthy map of the model."""
        return self.residual in NORMALISED

    @model_validator(mode="after")
    def _is_wider(self) -> "PostprocessingConfig":
        for narrow, wide in (self.across_mm(None), *self.through_plane_by_contrast.values()):
            if 0 < wide <= narrow:
                raise ValueError(f"through_plane_sigma_wide_mm must exceed through_plane_mm {narrow:g}, not {wide:g}")
        return self

    def across_mm(self, contrast: str | None) -> tuple[float, float]:
        """Return narrow and wide standard deviation of scans of a contrast, a BIDS suffix; `None` = not known."""
        shared = (self.through_plane_mm, self.through_plane_sigma_wide_mm)
        return self.through_plane_by_contrast.get(contrast or "", shared)


def fuse(
    residual: FloatArray,
    probability: FloatArray,
    inside: MaskArray,
    *,
    residual_weight: float,
    fusion: str = "weighted_sum",
) -> FloatArray:
    """Return the anomaly score in [0, 1], 0 outside; arrays `(i, j, k)`.

    Args:
        residual: Residual map in [0, 1]; for "log_odds" a normalised one.
        probability: Of the segmenter, in [0, 1].
        inside: Where there is a score.
        residual_weight: β.
        fusion: A name in `SCORE_FUSIONS`.
    """
    score = SCORE_FUSIONS.get(fusion)(residual, probability, residual_weight)
    return np.where(inside, score, 0).astype(np.float32)


def smooth_through_plane(
    probability: FloatArray, brain_mask: MaskArray, *, sigma_voxels: float, around_voxels: float = 0.0
) -> FloatArray:
    """Return the probability `(i, j, k)` smoothed across slices; outside the brain it counts, and is, 0.

    Args:
        probability: In [0, 1].
        brain_mask: Same shape.
        sigma_voxels: Standard deviation of the Gaussian; 0 = none.
        around_voxels: Of a second one, whose geometric mean with the first is returned; 0 = the first alone.
    """
    if sigma_voxels == around_voxels == 0:
        return probability
    # Differs from paper: there each slice stands alone.
    smooth = _across_slices(probability, sigma_voxels)
    if around_voxels > 0:
        smooth = np.sqrt(smooth * _across_slices(probability, around_voxels))
    return np.where(brain_mask, smooth, 0).astype(np.float32)


def _across_slices(probability: FloatArray, sigma_voxels: float) -> FloatArray:
    smooth: FloatArray = probability
    if sigma_voxels > 0:
        smooth = ndimage.gaussian_filter1d(probability, sigma_voxels, axis=SLICE_AXIS, mode="constant")
    return smooth


def filter_residual(residual: FloatArray, brain_mask: MaskArray, size: int) -> FloatArray:
    """Return the residual map inside the brain, median-filtered over `size`³ voxels."""
    masked: FloatArray = np.where(brain_mask, residual, 0).astype(np.float32)
    if size == 1 or not brain_mask.any():
        return masked
    box = ndimage.find_objects(brain_mask.astype(np.uint8))[0]
    filtered = np.zeros_like(masked)
    filtered[box] = ndimage.median_filter(masked[box], size=size, mode="nearest")
    return np.where(brain_mask, filtered, 0).astype(np.float32)


def erode(brain_mask: MaskArray, steps: int) -> MaskArray:
    """Return the mask shrunk in each axial plane by `steps` voxels."""
    if steps == 0:
        return brain_mask
    cross = np.zeros((3, 3, 3), dtype=bool)
    cross[1, :, 1] = cross[:, 1, 1] = True
    eroded: MaskArray = ndimage.binary_erosion(brain_mask, cross, iterations=steps)
    return eroded
