"""What a result says of itself: the quality of its scan, and its provenance."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from halebrain.core.document import Document, read_object
from halebrain.core.errors import DataError
from halebrain.core.mask import Cut
from halebrain.core.types import Affine

ENDING = "_desc-anomaly_provenance.json"
"""How the name of the provenance of a scan ends."""
UNKNOWN = "unknown"
"""Contrast of a scan whose intensities are unlike T1w, T2w and FLAIR."""
FIXED = "fixed"
"""Key of a threshold that was given as a number."""
FILLING = frozenset({"fill_margin_mm", "fill_mask_sha256", "filled_ml"})
"""Fields that the provenance of a scan that was not filled does not state."""
IN_MEMORY = frozenset({"input_sha256", "brain_mask_sha256", "dicom_seg", "input_in_dataset", "input_space"}) | FILLING
"""Fields that the provenance of an image in memory does not state."""
_AGAIN = "run halebrain detect --overwrite, or remove it"
_LEAST_DETERMINANT = 1e-9
"""Of the matrix from template to scan; registration keeps sizes within a factor of three."""
_Row = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class QualityReport(Document):
    """Quality-control figures and flags of one scan; a rule skips a figure that is `None`.

    Args:
        brain_method: How the brain was found.
        brain_confidence: Confidence of the brain mask, 0 to 1.
        brain_volume_ml: Volume of the brain mask.
        working_grid_brain_ml: Its volume on the working grid.
        registration_failed: Whether the registration to the template failed.
        registration_mask_dice: Overlap with the template at which the registration ended; `None` = not registered.
        registration_nmi: Normalised mutual information with the template.
        registration_margin: Fit relative to the best rotated placement.
        registration_scale: Size relative to the template.
        flags: What a user should check, one line each.
        distinct_values: Distinct intensities in the brain; 65536 = that many or more.
        grey_levels: Equal steps from 0 to the highest intensity; `None` = no such steps.
        lowest_intensity: Of the scan.
        highest_intensity: Of the scan.
        saturated_share: Share of the brain's voxels at its highest intensity.
        distance_to_uniform: Kolmogorov–Smirnov distance of its intensities to a uniform distribution.
        normalised: "to [0, 1]" or "standardised".
        spacing_max_mm: Largest voxel size.
        brain_voxels_across: Fewest voxels of the brain along an axis.
        cut_face: Largest area of brain on a face of the field of view, over its largest cross-section there.
        placements_apart_mm: How far apart sform and qform put a corner of the field of view.
        cut_off: Share of the template's brain outside the field of view.
        smoothness: Correlation of high-passed neighbours on the working grid.
        contrast: Inferred contrast: T1w, T2w, FLAIR or "unknown"; `None` = not measured.
        contrast_sure: Whether T1 with contrast agent and FLAIR can be told apart.
        tissue_levels: Brightness of the tissues by name.
        ventricles_ml: About the volume of lateral and third ventricles; `None` = not measured.
        orientation_ratio: Fit upright, relative to inverted.
        out_of_distribution: Whether the maps should not be used.
        out_of_distribution_reasons: The flags that say why.
    """

    brain_method: str | None = None
    brain_confidence: float | None = None
    brain_volume_ml: float | None = None
    working_grid_brain_ml: float | None = None
    registration_failed: bool = False
    registration_mask_dice: float | None = None
    registration_nmi: float | None = None
    registration_margin: float | None = None
    registration_scale: float | None = None
    flags: tuple[str, ...] = ()
    distinct_values: int | None = None
    grey_levels: int | None = None
    lowest_intensity: float | None = None
    highest_intensity: float | None = None
    saturated_share: float | None = None
    distance_to_uniform: float | None = None
    normalised: str | None = None
    spacing_max_mm: float | None = None
    brain_voxels_across: int | None = None
    cut_face: float | None = None
    placements_apart_mm: float | None = None
    cut_off: float | None = None
    smoothness: float | None = None
    contrast: str | None = None
    contrast_sure: bool = False
    tissue_levels: Mapping[str, float] | None = None
    ventricles_ml: float | None = None
    orientation_ratio: float | None = None
    out_of_distribution: bool = False
    out_of_distribution_reasons: tuple[str, ...] = ()

    @property
    def inferred_contrast(self) -> str | None:
        """The contrast inferred from the image; `None` if unknown."""
        return None if self.contrast == UNKNOWN else self.contrast

    def noting(self, notes: Iterable[str]) -> Self:
        """Return the report with notes before its flags."""
        return replace(self, flags=(*notes, *self.flags))

    def flagged(self, line: str | None, *, withholds: bool = False) -> Self:
        """Return the report with one more flag, which may withhold the maps; unchanged if it is `None` or there."""
        if line is None or line in self.flags:
            return self
        report = replace(self, flags=(*self.flags, line))
        if not withholds:
            return report
        reasons = (*self.out_of_distribution_reasons, line)
        return replace(report, out_of_distribution=True, out_of_distribution_reasons=reasons)


@dataclass(frozen=True, kw_only=True)
class ChosenThreshold(Document):
    """The threshold of one scan.

    Args:
        value: A voxel is marked as anomalous where its score ≥ this.
        name: Key, data set and source in short: "ml:1@ours", "ml:1 (of T1w)".
        key: "fixed" for a number, else the name of the stored one without its data set ("ml:1", "dice").
        data_set: Name of the data set that it was chosen on; `None` where it has none.
        source_contrasts: Contrasts that it was chosen on where these are not just the scan's own.
        min_lesion_mm3: Smaller connected components are removed; 0 = none.
        grow_to: Findings grow into connected voxels whose score is at least this; `None` = they do not.
        method: How it was chosen.
        n_scans: Scans that it was chosen on; `None` for a number.
        healthy_share: Share of healthy people who keep the limit of an "ml:" threshold; `None` where that is not known.
        modality: Contrast of the scan; `None` where it is not known.
        modality_known_from: "option", "manifest", "file name", "image" or "nothing".
    """

    unstated: frozenset[str] = frozenset({"grow_to"})
    value: float
    name: str
    key: str | None = None
    data_set: str | None = None
    source_contrasts: tuple[str, ...] = ()
    min_lesion_mm3: float = 0.0
    grow_to: float | None = None
    method: str | None = None
    n_scans: int | None = None
    healthy_share: float | None = None
    modality: str | None = None
    modality_known_from: str | None = None

    @property
    def cut(self) -> Cut:
        """What makes the mask of a score."""
        return Cut(self.value, self.min_lesion_mm3, self.grow_to)

    def fixed_at(self, value: float, *, grow_to: float | None = None) -> Self:
        """Return the threshold with a value that was set by hand; growth and method of the earlier value are dropped.

        `grow_to` is the lower threshold of the new one.
        """
        dropped = {"method": None, "n_scans": None, "healthy_share": None, "data_set": None, "source_contrasts": ()}
        stated = (self.unstated | {"grow_to"}) - {"key", "data_set", "source_contrasts"}
        return replace(self, value=value, grow_to=grow_to, name=FIXED, key=FIXED, unstated=stated, **dropped)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class VolumeEstimate(Document):
    """The true volume of all lesions of a scan, as validation patients let expect it from the volume of the mask.

    Args:
        value_ml: The estimate.
        low_ml: Lower end of its 90 % prediction interval.
        high_ml: Upper end.
        n_patients: Validation patients that it comes from.
        method: "constant ratio", or "Theil–Sen line".
    """

    value_ml: float
    low_ml: float
    high_ml: float
    n_patients: int
    method: str


@dataclass(frozen=True, kw_only=True)
class ProcessingStep(Document):
    """One step of the preprocessing; what does not concern it is unstated.

    Args:
        step: Its name.
        method: How it was done; "none" = it was left out.
        iterations: Steps of curvature flow.
        from_orientation: Orientation of the scan's voxels ("RAS").
        from_spacing_mm: Voxel size of the scan.
        shape: Voxels of the working grid.
        spacing_mm: Voxel size of the working grid.
        percentiles: Percentiles in the brain that became 0 and 1.
    """

    unstated: frozenset[str] = frozenset(
        {"method", "iterations", "from_orientation", "from_spacing_mm", "shape", "spacing_mm", "percentiles"}
    )
    step: str
    method: str | None = None
    iterations: int | None = None
    from_orientation: str | None = None
    from_spacing_mm: tuple[float, ...] | None = None
    shape: tuple[int, ...] | None = None
    spacing_mm: float | None = None
    percentiles: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class SecondPass(Document):
    """How a second pass filled what the segmenter doubted.

    Args:
        doubt: Probability from which a voxel was doubted.
        grow: Pixels by which the doubted region was grown.
        reference: Citation of the method.
    """

    doubt: float
    grow: int
    reference: str = ""


@dataclass(frozen=True, kw_only=True)
class ScoringMethod(Document):
    """How a model makes its scores.

    Args:
        reconstructor: Name of the reconstructor.
        reconstructor_reference: Its citation.
        second_pass: How doubted regions were filled in a second pass; `None` = there was none.
        segmenter: Whether there is a segmenter.
        residual: Name of the residual map.
        residual_weight: Weight of the residual in the score.
        fusion: How residual and probability become the score.
        evidence: Contrasts whose residual is evidence beside the segmenter; the score of others is the probability.
        through_plane_mm: Standard deviation of the smoothing across slices.
        around_mm: That of the wider Gaussian.
        through_plane_by_contrast: Both by contrast, where they differ.
        mirror: Whether scans are segmented mirrored, too.
        overlap: Whether they are segmented moved by half a block of folded pixels, too.
        lowest_z_mm: Height in template space below which nothing is scored; `None` = the whole brain mask is scored.
        neighbours: Slices beside its own that a segmenter sees.
        neighbours_each: Those of each network.
        contrasts: Contrasts that each network is used for.
    """

    reconstructor: str | None = None
    reconstructor_reference: str | None = None
    second_pass: SecondPass | None = None
    segmenter: bool = True
    residual: str | None = None
    residual_weight: float | None = None
    fusion: str = "weighted_sum"
    evidence: tuple[str, ...] = ()
    through_plane_mm: float = 0.0
    around_mm: float = 0.0
    through_plane_by_contrast: Mapping[str, tuple[float, ...]] | None = None
    mirror: bool = False
    overlap: bool = False
    lowest_z_mm: float | None = None
    neighbours: tuple[int, ...] = ()
    neighbours_each: tuple[tuple[int, ...], ...] = ()
    contrasts: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Provenance(Document):
    """How a result was made; what an earlier version did not write is `None` or empty.

    Args:
        input: File name of the scan.
        input_sha256: Hash of its file.
        content_sha256: Hash of the voxels and the affine of an image in memory.
        brain_mask_sha256: Hash of the file of its brain mask; `None` = none was given.
        brain: Brain extraction.
        model_sha256: Hash of the model.
        seed: Random seed.
        draws: Noise samples per level.
        levels: Noise levels.
        precision: Precision of the networks.
        dicom_seg: Whether the mask was also written as DICOM-SEG.
        fill_margin_mm: How far the mask was grown for the lesion-filled scan; `None` = that was not written.
        fill_mask_sha256: Hash of the file of the mask that was filled; `None` = what was found.
        filled_ml: Volume that was filled.
        threshold: The threshold.
        scan_score: Score of the whole scan: mean of its highest millilitre.
        scan_score_percentile: Percentage of healthy scans that score lower; `None` = not known.
        scan_score_n_healthy: Number of those healthy scans.
        scan_score_note: Why there is no percentile.
        scan_score_healthy: Their scores, or quantiles of them, ascending.
        scan: Name of the scan.
        input_notes: What was assumed or done on reading.
        versions: Package → version.
        device: Device of the networks.
        model: Name of the model.
        input_in_dataset: Path of the scan in its BIDS data set.
        input_space: Space of the scan as the input states it: "native", or the template's.
        space: Name of the template space.
        method: How scores are made.
        steps: Steps of the preprocessing.
        qc: Quality-control figures and flags.
        template_to_native: World-to-world matrix, mm, RAS.
        n_lesions: Connected components of the mask.
        lesion_volume_ml: Their volume.
        volume_estimate: The true volume that it speaks for; `None` where the model is not calibrated for that.
        notice: Research use only.
        seconds: Duration.
    """

    unstated: frozenset[str] = frozenset({"content_sha256", "dicom_seg", "volume_estimate", "input_space"}) | FILLING
    input: str | None = None
    input_sha256: str | None = None
    content_sha256: str | None = None
    brain_mask_sha256: str | None = None
    brain: str | None = None
    model_sha256: str | None = None
    seed: int | None = None
    draws: int | None = None
    levels: tuple[int | None, ...] = ()
    precision: str | None = None
    dicom_seg: bool = False
    fill_margin_mm: float | None = None
    fill_mask_sha256: str | None = None
    filled_ml: float | None = None
    threshold: ChosenThreshold | None = None
    scan_score: float | None = None
    scan_score_percentile: float | None = None
    scan_score_n_healthy: int | None = None
    scan_score_note: str | None = None
    scan_score_healthy: tuple[float, ...] = ()
    scan: str | None = None
    input_notes: tuple[str, ...] = ()
    versions: Mapping[str, str] | None = None
    device: str | None = None
    model: str | None = None
    input_in_dataset: str | None = None
    input_space: str | None = None
    space: str | None = None
    method: ScoringMethod | None = None
    steps: tuple[ProcessingStep, ...] = ()
    qc: QualityReport = QualityReport()
    template_to_native: tuple[_Row, _Row, _Row, _Row] | None = None
    n_lesions: int | None = None
    lesion_volume_ml: float | None = None
    volume_estimate: VolumeEstimate | None = None
    notice: str | None = None
    seconds: float | None = None


def read_provenance(path: Path, *, remedy: str = _AGAIN) -> Provenance:
    """Return the provenance in a file; `remedy` is what the user can do about a damaged one."""
    rule = "a provenance file must be as halebrain detect wrote it"
    made = Provenance.from_json(read_object(path, "a provenance file", remedy), rule=rule, where=path, remedy=remedy)
    stated = made.threshold
    if stated is not None and stated.grow_to is not None and not 0 < stated.grow_to < stated.value:
        found = f"{stated.grow_to:g} at 'threshold.grow_to', which must lie below {stated.value:g}"
        raise DataError(rule, received=found, where=path, remedy=remedy)
    if made.template_to_native is not None and not _has_inverse(np.array(made.template_to_native, dtype=np.float64)):
        found = "a matrix without an inverse at 'template_to_native'"
        raise DataError(rule, received=found, where=path, remedy=remedy)
    return made


def _has_inverse(matrix: Affine) -> bool:
    return bool(np.isfinite(matrix).all()) and abs(float(np.linalg.det(matrix))) > _LEAST_DETERMINANT
