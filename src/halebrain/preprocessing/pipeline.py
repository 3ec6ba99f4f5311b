"""Preprocessing from a scan to the working grid and back, the same for training and detection."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator

from halebrain.core.config import GrowingConfig
from halebrain.core.errors import DataError
from halebrain.core.mask import box_of, masked
from halebrain.core.parallel import beside
from halebrain.core.progress import Stopwatch
from halebrain.core.provenance import ProcessingStep, QualityReport
from halebrain.core.types import TEMPLATE_SPACE, Affine, FloatArray, MaskArray, Volume
from halebrain.io.volume import stem_of
from halebrain.preprocessing.brain import BRAIN_EXTRACTORS, BrainMask, from_given_mask
from halebrain.preprocessing.geometry import Grid, apply_affine, resample, resample_all, working_grid
from halebrain.preprocessing.intensity import IntensityRange, curvature_flow, n4_log_bias, scale_intensity
from halebrain.preprocessing.quality.contrast import TissueLevels, is_sure, measure_levels, recognise_contrast
from halebrain.preprocessing.quality.measurements import (
    cut_off,
    measure_geometry,
    measure_intensities,
    orientation_ratio,
    smoothness,
)
from halebrain.preprocessing.quality.rules import apply_quality_rules, refuse_ct, refuse_without_structure
from halebrain.preprocessing.quality.ventricles import ventricles_ml
from halebrain.preprocessing.registration import (
    Brain,
    EngineName,
    Registration,
    check_engine,
    default_engine,
    register_to_template,
)
from halebrain.preprocessing.template import Template, find_template, template_on

_WHEN_REGISTERED = frozenset(
    {*(f"registration_{name}" for name in ("mask_dice", "nmi", "margin", "scale")), "orientation_ratio"}
)
"""Fields of a report that a scan which was not registered does not state."""


class PreprocessingConfig(GrowingConfig):
    """Settings of the path to the working grid; they travel inside the model.

    Args:
        shape: Voxels of the working grid; the paper has (96, 96, 50), which leaves out the lowest and highest slices.
        spacing_mm: Voxel size of the working grid.
        brain: Name of the brain extractor used where no mask is given.
        registration: "affine" to the template by Greedy, or by SimpleITK where Greedy is not installed; "greedy",
            "simpleitk" or "ants" (an extra) = by that engine; "none" for scans that are there already.
        bias_correction: "n4" or "none".
        denoising_iterations: Steps of curvature flow on the native grid; 0 = none, the paper takes 3.
        low_percentile: Percentile inside the brain that becomes 0.
        high_percentile: Percentile inside the brain that becomes 1.
        template: Another atlas than the MNI template: a T1 brain in any format. The working grid is centred on it, and
            positions of lesions are given in its space.
        template_mask: Brain mask of `template`; `None` = it is stripped.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"template", "template_mask"})

    shape: tuple[int, int, int] = (96, 96, 80)
    spacing_mm: float = Field(default=2.0, gt=0)
    brain: str = "stripped"
    registration: Literal["affine", "greedy", "simpleitk", "ants", "none"] = "affine"
    bias_correction: Literal["n4", "none"] = "n4"
    denoising_iterations: int = Field(default=0, ge=0, le=20)
    low_percentile: float = Field(default=1.0, ge=0, lt=50)
    high_percentile: float = Field(default=99.0, gt=50, le=100)
    template: Path | None = None
    template_mask: Path | None = None

    @property
    def space(self) -> str:
        """Name of the working grid's space as a BIDS label: the MNI template's, or that of the atlas by its file."""
        if self.template is None:
            return TEMPLATE_SPACE
        name = "".join(letter for letter in stem_of(self.template) if letter.isalnum())
        return f"own{name}" if name in ("", TEMPLATE_SPACE) else name

    @model_validator(mode="after")
    def _mask_goes_with_template(self) -> Self:
        if self.template_mask is not None and self.template is None:
            raise ValueError("template_mask goes with template")
        return self


@dataclass(frozen=True)
class WorkingScan:
    """A scan on the working grid, and what is needed to bring maps back to where it came from.

    Args:
        image: Intensities in [0, 1], 0 outside the brain, `(i, j, k)`.
        brain_mask: Bool, same shape.
        grid: The working grid.
        native: Grid of the input.
        native_brain_mask: Bool, on the native grid.
        template_to_native: World-to-world matrix, mm, RAS.
        intensity: What became 0 and 1, after bias correction.
        content: Hash of the input's voxels and affine, before anything was done to them; seeds are derived from it.
        log_bias: Logarithm of the bias field that was divided out, on the working grid; 0 where none was.
        qc: Quality-control figures and flags.
        steps: What was done, with parameters.
        seconds: How long the steps took.
    """

    image: FloatArray
    brain_mask: MaskArray
    grid: Grid
    native: Grid
    native_brain_mask: MaskArray
    template_to_native: Affine
    intensity: IntensityRange
    log_bias: FloatArray
    content: bytes
    qc: QualityReport = field(default_factory=QualityReport)
    steps: tuple[ProcessingStep, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict, compare=False)

    def to_native(self, data: npt.NDArray[np.generic], *, order: int = 1) -> FloatArray:
        """Return a working-grid map on the native grid, 0 outside the brain."""
        return self.all_to_native([data], order=order)[0]

    def all_to_native(self, maps: Sequence[npt.NDArray[np.generic]], *, order: int = 1) -> list[FloatArray]:
        """Return several working-grid maps on the native grid, 0 outside the brain, in a fraction of the time."""
        back = np.asarray(np.linalg.inv(self.template_to_native), dtype=np.float64)
        box = box_of(self.native_brain_mask)
        mapped = resample_all(maps, self.grid, self.native, target_to_source=back, order=order, box=box)
        outside = ~self.native_brain_mask[box]
        for native in mapped:
            native[box][outside] = 0
        return mapped

    def from_native(self, data: npt.NDArray[np.generic], *, order: int = 0) -> FloatArray:
        """Return a native map (a label, say) on the working grid."""
        return resample(data, self.native, self.grid, target_to_source=self.template_to_native, order=order)

    def share_outside_grid(self, mask: MaskArray) -> float:
        """Return the share of the voxels of a native mask whose centres lie outside the working grid; 0 of none."""
        voxels = np.argwhere(mask).astype(np.float64)
        if not len(voxels):
            return 0.0
        to_grid = np.linalg.inv(self.grid.affine) @ np.linalg.inv(self.template_to_native) @ self.native.affine
        places = apply_affine(to_grid, voxels)
        inside = ((places >= -0.5) & (places < np.array(self.grid.shape) - 0.5)).all(axis=1)
        return 1 - float(inside.mean())

    def mask_from_native(self, mask: MaskArray) -> MaskArray:
        """Return a native mask on the working grid: where it covers more than half a voxel."""
        covered: MaskArray = self.from_native(mask.astype(np.float32), order=1) > 0.5
        return covered

    def image_from_native(self, data: FloatArray) -> FloatArray:
        """Return another image in the units of the input as the networks would see it: in [0, 1], its bias removed.

        It is not denoised.
        """
        span = self.intensity
        inside = masked(data, self.native_brain_mask, minus=span.offset)
        image, _ = _brain_on_grid(inside, self.native_brain_mask, self.native, self.grid, self.template_to_native)
        scaled = (image * np.exp(-self.log_bias) - span.low) / (span.high - span.low)
        return np.where(self.brain_mask, np.clip(scaled, 0, 1), 0).astype(np.float32)

    def reconstruction_to_native(self, reconstruction: FloatArray) -> FloatArray:
        """Return a working-grid image on the native grid in the intensity units of the input, bias field included."""
        return self.in_brain(self.to_native(self.in_units(reconstruction)) + self.intensity.offset)

    def in_units(self, image: FloatArray) -> FloatArray:
        """Return a working-grid image in the intensity units of the input above its offset, bias field included."""
        span = self.intensity
        scaled: FloatArray = (image * (span.high - span.low) + span.low) * np.exp(self.log_bias)
        return scaled

    def in_brain(self, native: FloatArray) -> FloatArray:
        """Return a native map with 0 outside the brain."""
        return np.where(self.native_brain_mask, native, 0).astype(np.float32)


class Preprocessor:
    """Brings scans to the working grid; a configuration that cannot be met is an error at once."""

    def __init__(self, config: PreprocessingConfig) -> None:
        BRAIN_EXTRACTORS.get(config.brain)  # an unknown name fails now, not at the first scan
        self.config = config
        engine = _engine(config)
        if engine is not None:
            check_engine(engine)
        self.template: Template | None = None
        self.grid = working_grid(config.shape, config.spacing_mm)
        if config.template is not None:
            self.template = find_template(config.template, config.template_mask)
            self.grid = working_grid(config.shape, config.spacing_mm, self.template.centre_mm)

    def run(
        self,
        volume: Volume,
        *,
        brain_mask: MaskArray | BrainMask | None = None,
        space: str = "native",
        begin: Callable[[str], None] | None = None,
        placement: Registration | None = None,
    ) -> WorkingScan:
        """Preprocess one scan.

        Args:
            volume: The scan on its native grid.
            brain_mask: Bool on the same grid, or what an extractor found; `None` = find it with the configured one.
            space: The template's name where the scan lies in template space already.
            placement: Where the template lies in the scan, if that is known; `None` = register it.
            begin: Called with the name of each step when it begins.

        Raises:
            DataError: The scan is no MR, has no usable brain, or still has its skull.
        """
        refuse_ct(volume)
        watch = Stopwatch(begin=begin)
        with watch.step("brain"):
            brain = self.find_brain(volume, brain_mask)
        with beside(lambda: _look(volume, brain.mask), threads=torch.get_num_threads()) as looked:
            return self._to_working_grid(volume, brain, looked, watch, space=space, placement=placement)

    def _to_working_grid(
        self,
        volume: Volume,
        brain: BrainMask,
        looked: Callable[[], tuple[bytes, QualityReport]],
        watch: Stopwatch,
        *,
        space: str,
        placement: Registration | None,
    ) -> WorkingScan:
        """Return the scan on the working grid; `looked` waits for its content and the figures of its native grid."""
        native = Grid(volume.shape, volume.affine)
        with watch.step("registration"):
            if placement is None:
                matrix, registration = self._register(volume, brain, space)
            else:
                matrix, registration = placement.template_to_native, placement
        # Standardised scans have negative intensities; a bias field multiplies what starts at 0.
        offset = min(0.0, float(volume.data[brain.mask].min()))
        inside = masked(volume.data, brain.mask, minus=offset)
        if self.config.denoising_iterations:
            with watch.step("denoising"):
                inside = masked(curvature_flow(inside, iterations=self.config.denoising_iterations), brain.mask)
        with watch.step("resample"):
            image, mask = _brain_on_grid(inside, brain.mask, native, self.grid, matrix)
        log_bias = np.zeros_like(image)
        if self.config.bias_correction == "n4" and mask.any():
            with watch.step("bias correction"):
                log_bias = n4_log_bias(image, mask)
            image = (image * np.exp(-log_bias)).astype(np.float32)
        scaled, intensity = scale_intensity(
            image,
            _not_empty(mask, volume),
            low_percentile=self.config.low_percentile,
            high_percentile=self.config.high_percentile,
        )
        intensity = replace(intensity, offset=offset)
        with watch.step("recognition"):
            content, report = looked()
            report = self._assess(volume, brain, registration, matrix, (scaled, mask), report)
        return WorkingScan(
            *(scaled, mask, self.grid, native, brain.mask, matrix, intensity, log_bias, content),
            *(report, _steps(volume, brain, registration, self.config), watch.seconds),
        )

    def _assess(
        self,
        volume: Volume,
        brain: BrainMask,
        registration: Registration | None,
        matrix: Affine,
        working: tuple[FloatArray, MaskArray],
        report: QualityReport,
    ) -> QualityReport:
        """Return the quality of a scan, with the flags of the rules; `report` has the figures of its native grid."""
        image, mask = working
        native, (template, template_mask) = Grid(volume.shape, volume.affine), template_on(self.grid, self.template)
        smooth = smoothness(image, mask, self.grid.spacing_mm[0])
        # Where the tissues of another atlas lie is not known.
        levels = measure_levels(image, mask, self.grid) if self.template is None else None
        report = replace(
            report,
            unstated=_WHEN_REGISTERED if registration is None else frozenset(),
            brain_method=brain.method,
            brain_confidence=round(brain.confidence, 3),
            brain_volume_ml=round(brain.volume_ml, 1),
            working_grid_brain_ml=round(float(mask.sum()) * self.config.spacing_mm**3 / 1000, 1),
            flags=brain.notes,
            cut_off=round(cut_off(native, self.grid, matrix, template_mask), 4),
            smoothness=None if smooth is None else round(smooth, 3),
            contrast=None if levels is None else recognise_contrast(levels),
            contrast_sure=levels is not None and is_sure(levels),
            tissue_levels=None if levels is None else levels.rounded(),
            ventricles_ml=None if levels is None else self._ventricles_ml(image, mask, levels, registration),
        )
        if registration is not None:
            ratio = orientation_ratio(image, mask, template, template_mask)
            report = replace(
                report,
                registration_failed=registration.failed,
                registration_mask_dice=round(registration.mask_dice, 3),
                registration_nmi=round(registration.nmi, 4),
                registration_margin=round(registration.margin, 2),
                registration_scale=round(registration.scale, 3),
                orientation_ratio=None if ratio is None else round(ratio, 2),
            )
        return apply_quality_rules(report)

    def _ventricles_ml(
        self, image: FloatArray, mask: MaskArray, levels: TissueLevels, registration: Registration | None
    ) -> float:
        """Return the volume of the ventricles in the scan's own space, where its place in the template is known."""
        scale = 1.0 if registration is None else registration.scale
        return round(ventricles_ml(image, mask, self.grid, levels) * scale, 1)

    def find_brain(self, volume: Volume, brain_mask: MaskArray | BrainMask | None) -> BrainMask:
        """Return the brain of a scan: what is known of it, or what the configured extractor finds."""
        if isinstance(brain_mask, BrainMask):
            return brain_mask
        if brain_mask is not None:
            return from_given_mask(volume, brain_mask)
        return BRAIN_EXTRACTORS.get(self.config.brain)(volume)

    def is_placed(self, space: str) -> bool:
        """Return whether scans of a space are in template space already, or are not registered."""
        is_there = space == TEMPLATE_SPACE and self.template is None
        return is_there or self.config.registration == "none"

    def register(self, volume: Volume, brain: BrainMask, *, prepared: Brain | None = None) -> Registration:
        """Return where the template lies in a scan; the configuration must ask for a registration.

        `prepared` is what `prepare_brain` makes of scan and brain, where that is known.
        """
        refuse_without_structure(volume, brain.mask)  # which would register anywhere
        # What an extractor knows is where the MNI template lies, not where another atlas does.
        near = brain.template_to_native if self.template is None else None
        engine = _engine(self.config)
        atlas = self.template
        return register_to_template(volume, brain.mask, near=near, template=atlas, engine=engine, brain=prepared)

    def _register(self, volume: Volume, brain: BrainMask, space: str) -> tuple[Affine, Registration | None]:
        if self.is_placed(space):
            return np.eye(4), None
        registration = self.register(volume, brain)
        return registration.template_to_native, registration


def _look(volume: Volume, brain_mask: MaskArray) -> tuple[bytes, QualityReport]:
    """Return the hash of the content of a scan, and a report with the figures of its native grid."""
    content = hashlib.sha256(np.ascontiguousarray(volume.data).data)
    content.update(volume.affine.tobytes())
    report = measure_intensities(QualityReport(), volume, brain_mask)
    return content.digest(), measure_geometry(report, volume, brain_mask)


def _brain_on_grid(
    inside: FloatArray, brain_mask: MaskArray, native: Grid, grid: Grid, template_to_native: Affine
) -> tuple[FloatArray, MaskArray]:
    """Return a brain and its mask on the working grid; `inside` is 0 outside the native mask."""
    image, coverage = resample_all([inside, brain_mask], native, grid, target_to_source=template_to_native)
    mask = coverage > 0.5
    # Dividing by the coverage undoes the mixing with empty background at the brain's edge.
    return np.where(mask, image / np.maximum(coverage, 0.5), 0).astype(np.float32), mask


def _engine(config: PreprocessingConfig) -> EngineName | None:
    """Return the engine of a configuration; `None` = nothing is registered."""
    if config.registration == "none":
        return None
    return default_engine() if config.registration == "affine" else config.registration


def _not_empty(mask: MaskArray, volume: Volume) -> MaskArray:
    if not mask.any():
        raise DataError(
            "a scan must show brain on the working grid",
            where=volume.name,
            remedy="check its header and its mask",
        )
    return mask


def _steps(
    volume: Volume, brain: BrainMask, registration: Registration | None, config: PreprocessingConfig
) -> tuple[ProcessingStep, ...]:
    engine = "none" if registration is None else f"affine ({registration.engine})"
    return (
        ProcessingStep(step="brain", method=brain.method),
        ProcessingStep(step="registration", method=engine),
        ProcessingStep(step="denoising", method="curvature flow", iterations=config.denoising_iterations),
        ProcessingStep(
            step="resample",
            from_orientation="".join(nibabel.aff2axcodes(volume.affine)),
            from_spacing_mm=tuple(round(v, 4) for v in volume.spacing_mm),
            shape=config.shape,
            spacing_mm=config.spacing_mm,
        ),
        ProcessingStep(step="bias correction", method=config.bias_correction),
        ProcessingStep(step="intensity", percentiles=(config.low_percentile, config.high_percentile)),
    )
