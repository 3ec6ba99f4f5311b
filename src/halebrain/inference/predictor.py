"""One scan through the model: preprocess, reconstruct and segment at each level, fuse, back to the native grid."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch

from halebrain.core.about import versions
from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.core.provenance import Provenance, ScoringMethod, SecondPass
from halebrain.core.slicing import slices_of, volume_of
from halebrain.core.types import SLICE_AXIS, FloatArray, MaskArray, ScanResult, Volume
from halebrain.inference.anomaly_map import (
    NORMALISED,
    RESIDUALS,
    PostprocessingConfig,
    erode,
    filter_residual,
    fuse,
    residual_map,
    smooth_through_plane,
)
from halebrain.inference.scan_residuals import SCAN_RESIDUALS
from halebrain.inference.slice_networks import SliceNetworks, brain_slices, volume_of_slices
from halebrain.models.bundle import Bundle
from halebrain.models.healthy_map import HealthyResidual, HealthyResiduals
from halebrain.models.reconstruction.base import HoleFiller, Level
from halebrain.models.reconstruction.second_look import SecondLook
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor, WorkingScan


@dataclass(frozen=True)
class WorkingMaps:
    """Maps on the working grid, each `(i, j, k)` float32.

    Args:
        reconstruction: Pseudo-healthy scan in [0, 1], mean over levels and draws; of the second pass if there is one.
        probability: The segmenter's probability, mean over levels and draws, smoothed across slices if
            configured; 0 without a segmenter.
        residual: Median-filtered residual map in [0, 1] of the mean reconstruction (1 − SSIM by default), of the first
            pass where there are two.
        score: Fused anomaly score in [0, 1].
        uncertainty: Standard deviation over levels and draws of β·|x − x̂| + (1 − β)·probability, of the probability
            alone where the fusion is no weighted sum.
        first_reconstruction: That of the first pass, which `residual` and `probability` come from; `None` if there is
            one pass alone.
    """

    reconstruction: FloatArray
    probability: FloatArray
    residual: FloatArray
    score: FloatArray
    uncertainty: FloatArray
    first_reconstruction: FloatArray | None = None


class Predictor(SliceNetworks):
    """Runs one model over scans; the result of a scan does not depend on what ran before.

    Args:
        bundle: The model.
        device: Device of the networks.
        seed: The user's seed; noise is seeded from (seed, scan content, level, draw, slice).
        draws: Noise draws at each level.
        batch_size: Slices at once; `None` = 16, on a GPU all of a scan. On the CPU and in "fp32" it moves no score by
            more than 1e-5, which is rounding.
        levels: Noise levels; `None` = those of the model.
        precision: "fp32", or "bf16", which is faster where the device computes in it; its results depend on the batch
            size in the third decimal.
        compiled: Compile the networks by `torch.compile`, where a compiler is: a minute at the first scan.
        brain: Name of the brain extractor for scans without a mask; `None` = the model's.

    Raises:
        ConfigError: The residual is normalised, and the model has no healthy map or gives no image; or the fusion needs
            a segmenter, and there is none.
        DataError: The healthy map does not lie on the working grid.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        draws: int = 1,
        batch_size: int | None = None,
        levels: tuple[int, ...] | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
        brain: str | None = None,
        compiled: bool = False,
    ) -> None:
        where = bundle.path or "model"
        preprocessing = parse_config(PreprocessingConfig, bundle.config.preprocessing, where=where)
        if brain is not None:
            preprocessing = preprocessing.model_copy(update={"brain": brain})
        postprocessing = parse_config(PostprocessingConfig, bundle.config.postprocessing, where=where)
        super().__init__(
            bundle,
            postprocessing,
            device=device,
            seed=seed,
            batch_size=batch_size,
            precision=precision,
            compiled=compiled,
        )
        self.draws = draws
        self.levels: tuple[Level, ...] = levels or bundle.reconstructor.levels
        self.preprocessor = Preprocessor(preprocessing)
        self.healthy_map = bundle.healthy_map
        self._check_healthy_map()

    def with_healthy_map(self, healthy_map: HealthyResiduals) -> Self:
        """Return the same predictor with another healthy map."""
        other = copy.copy(self)
        other.healthy_map = healthy_map
        return other

    def _check_healthy_map(self) -> None:
        post, where = self.postprocessing, self.bundle.path or "model"
        if post.residual_is_evidence and self.bundle.segmenter is None:
            raise ConfigError(
                f"the fusion {post.fusion} needs a segmenter",
                received="a model without one",
                where=where,
                remedy="choose postprocessing.fusion: weighted_sum",
            )
        if self.healthy_map is not None:
            grid = self.preprocessor.grid
            self.healthy_map.check_grid(grid.shape, grid.affine, where=where)
        if post.needs_healthy_map and (self.healthy_map is None or not self.bundle.reconstructor.gives_image):
            gives = self.bundle.reconstructor.gives_image
            raise ConfigError(
                f"the residual {post.residual} needs a healthy map and a reconstruction",
                received="a model without a healthy map" if gives else "a reconstructor that gives no image",
                where=where,
                remedy="halebrain calibrate MODEL --healthy-map --residual KIND fits one from healthy scans"
                if gives
                else "choose another postprocessing.residual",
            )

    def provenance(self) -> Provenance:
        """Return what the provenance of every scan states of the model, its settings and the software."""
        return Provenance(
            brain=self.preprocessor.config.brain,
            model_sha256=self.bundle.sha256,
            seed=self.seed,
            draws=self.draws,
            levels=self.levels,
            precision=self.precision,
            versions=versions(),
            device=str(self.device),
            model=self.bundle.name,
            space=self.preprocessor.config.space,
            method=self.method(),
        )

    def method(self) -> ScoringMethod:
        """Return how scores are made."""
        post, segmenter, reconstructor = self.postprocessing, self.bundle.segmenter, self.bundle.reconstructor
        name, reference, second = self.bundle.config.reconstructor.name, reconstructor.reference, None
        mapped = () if self.healthy_map is None else tuple(sorted(self.healthy_map.contrasts))
        if isinstance(reconstructor, SecondLook) and reconstructor.doubter is None:
            own = reconstructor.settings
            second = SecondPass(doubt=own.doubt, grow=own.grow, reference=reconstructor.reference)
            name, reference = own.finder.name, reconstructor.finder.reference
        return ScoringMethod(
            reconstructor=name,
            reconstructor_reference=reference,
            second_pass=second,
            segmenter=segmenter is not None,
            residual=post.residual,
            residual_weight=post.residual_weight,
            fusion=post.fusion,
            evidence=mapped if post.residual_is_evidence else (),
            through_plane_mm=post.through_plane_mm,
            around_mm=post.through_plane_sigma_wide_mm,
            through_plane_by_contrast=post.through_plane_by_contrast,
            mirror=post.mirror,
            overlap=post.overlap,
            lowest_z_mm=post.lowest_z_mm,
            neighbours=() if segmenter is None else segmenter.visible_neighbours,
            neighbours_each=() if segmenter is None else tuple(config.neighbours for config in segmenter.configs),
            contrasts=() if segmenter is None else segmenter.contrasts_each,
        )

    def predict_scan(
        self,
        volume: Volume,
        scan: WorkingScan,
        contrast: str | None,
        *,
        progress: Callable[[], None] | None = None,
    ) -> tuple[ScanResult, WorkingMaps]:
        """Run both networks on a preprocessed scan; return the maps on the native grid, and on the working grid.

        `contrast` is a BIDS suffix, `None` = not known; it matters to models with a segmenter for each. `progress` is
        called after each pass of the networks.
        """
        maps = self.predict_working(scan, contrast, progress=progress)
        return self.to_native(volume, scan, maps), maps

    def to_native(self, volume: Volume, scan: WorkingScan, maps: WorkingMaps) -> ScanResult:
        """Return the maps of the working grid on the native grid of the scan."""
        difference = (scan.image - maps.reconstruction) * scan.brain_mask
        score, probability, healthy, residual, uncertainty = scan.all_to_native(
            [maps.score, maps.probability, scan.in_units(maps.reconstruction), difference, maps.uncertainty]
        )
        return ScanResult(
            score=np.clip(score, 0, 1, out=score),
            probability=np.clip(probability, 0, 1, out=probability),
            reconstruction=healthy if scan.intensity.offset == 0 else scan.in_brain(healthy + scan.intensity.offset),
            residual=residual,
            uncertainty=uncertainty,
            brain_mask=scan.native_brain_mask,
            affine=volume.affine,
            placement=volume.placement,
        )

    def predict_working(
        self, scan: WorkingScan, contrast: str | None, *, progress: Callable[[], None] | None = None
    ) -> WorkingMaps:
        """Run both networks over the slices of a preprocessed scan; `progress` is called after each level and draw."""
        image, mask, used = brain_slices(scan)
        kind = self.postprocessing.residual
        if kind in NORMALISED and self.has_evidence(contrast):
            self._healthy_residual(scan, contrast, kind)  # what is missing is said before the networks run
        sums = torch.zeros(6, len(used), 1, *image.shape[-2:])
        beta = 0.0 if self.postprocessing.residual_is_evidence else self.postprocessing.residual_weight
        samples: list[torch.Tensor] = []  # kept for the residuals that need each reconstruction alone
        for level in self.levels:
            for draw in range(self.draws):
                seeds = self.slice_seeds(scan, level, draw, used)
                reconstruction, probability = self.run_level(image[used], mask[used], level, seeds, contrast)
                own = self.own_map(image[used], mask[used], level, seeds)
                deviation = (image[used] - reconstruction).abs() if own is None else own
                spread = beta * deviation + (1 - beta) * probability
                moments = [reconstruction, probability, spread, spread.square(), reconstruction.square(), deviation]
                sums += torch.stack(moments)
                if kind in SCAN_RESIDUALS:
                    samples.append(reconstruction)
                if progress is not None:
                    progress()
        mean = sums / (len(self.levels) * self.draws)
        deviation = (mean[3] - mean[2].square()).clamp_min(0).sqrt()
        variance = (mean[4] - mean[0].square()).clamp_min(0)
        residual = mean[5]
        if self.bundle.reconstructor.gives_image and kind in RESIDUALS:
            residual = residual_map(image[used], mean[0], kind, variance=variance)
        volumes = [volume_of_slices(t, used, scan.image.shape) for t in (mean[0], mean[1], residual, deviation)]
        if kind in NORMALISED and not self.has_evidence(contrast):
            volumes[2] = np.zeros_like(volumes[2])
        elif kind in NORMALISED:
            difference = volume_of_slices(image[used] - mean[0], used, scan.image.shape)
            volumes[2] = self._normalised(scan, difference, contrast, kind)
        if self.bundle.reconstructor.gives_image and kind in SCAN_RESIDUALS:
            volumes[2] = self._of_scan(kind, image, mask, used, torch.stack(samples))
        smooth = filter_residual(volumes[2], scan.brain_mask, self.postprocessing.median_size)
        shared = self.across_slices(volumes[1], self.brain_above_cord(scan), contrast)
        inside = self.scored_region(scan)
        score = self.fused(smooth, shared, inside)
        first, second = volumes[0], self.second_pass(scan, shared)
        shown, before = (first, None) if second is None else (second, first)
        return WorkingMaps(shown, shared, smooth, score, np.where(inside, volumes[3], 0), before)

    def has_evidence(self, contrast: str | None) -> bool:
        """Return whether the residual of scans of a contrast counts in the score; `None` = not known.

        Beside a segmenter, the residual of a contrast that the healthy map lacks is no evidence, and its map is 0.
        Where the residual is part of a weighted sum, such a scan is an error.
        """
        if not self.postprocessing.residual_is_evidence or self.healthy_map is None:
            return True
        return contrast is not None and contrast in self.healthy_map.contrasts

    def fused(self, residual: FloatArray, probability: FloatArray, inside: MaskArray) -> FloatArray:
        """Return the anomaly score of a residual map and a probability as the model fuses them; arrays of one shape."""
        post = self.postprocessing
        return fuse(residual, probability, inside, residual_weight=post.residual_weight, fusion=post.fusion)

    def second_pass(self, scan: WorkingScan, probability: FloatArray) -> FloatArray | None:
        """Return the reconstruction that knows what the segmenter found, `(i, j, k)` in [0, 1].

        `None` where the model has no second pass. `probability` is that of the segmenter on the working grid, smoothed
        as the model has it.
        """
        if self.bundle.segmenter is None:
            return None
        image, mask, used = brain_slices(scan)
        found = slices_of(probability)
        reconstructor = self.bundle.reconstructor

        def run(x: torch.Tensor, inside: torch.Tensor, doubt: torch.Tensor) -> torch.Tensor:
            second = reconstructor.second_pass(x, doubt)
            return x[:0] if second is None else second.float() * inside

        slices = self.in_batches(run, image[used], mask[used], found[used])
        return volume_of_slices(slices, used, scan.image.shape) if len(slices) else None

    def residual_alone(
        self, scan: WorkingScan, reconstruction: FloatArray, contrast: str | None, kind: str
    ) -> FloatArray:
        """Return the residual map of a kind, median-filtered as the model's own.

        Args:
            scan: A preprocessed scan.
            reconstruction: Its pseudo-healthy image on the working grid, in [0, 1].
            contrast: A BIDS suffix; `None` = not known.
            kind: A name in `RESIDUALS`, `SCAN_RESIDUALS` or `NORMALISED`.

        Returns:
            A map `(i, j, k)` in [0, 1], 0 outside the brain and in slices that are not scored.

        Raises:
            DataError: The kind is normalised, and the healthy map has none of the contrast.
            ConfigError: The model has no healthy map.
        """
        image, mask, used = brain_slices(scan)
        mean = slices_of(reconstruction)
        if kind in NORMALISED:
            found = volume_of_slices((image - mean)[used], used, scan.image.shape)
            found = self._normalised(scan, found, contrast, kind)
        elif kind in SCAN_RESIDUALS:
            found = self._of_scan(kind, image, mask, used, mean[used][None])
        else:
            found = volume_of_slices(residual_map(image[used], mean[used], kind), used, scan.image.shape)
        return filter_residual(found, scan.brain_mask, self.postprocessing.median_size)

    def _of_scan(
        self, kind: str, image: torch.Tensor, mask: torch.Tensor, used: torch.Tensor, samples: torch.Tensor
    ) -> FloatArray:
        """Return a residual of the scan as a whole, `(i, j, k)`; slices that are not scored count as empty.

        `image` and `mask` are all slices `(n, 1, h, w)`, `samples` the reconstructions of the used ones.
        """
        shown = torch.zeros_like(mask)
        shown[used] = mask[used]
        whole = torch.zeros(len(samples), *image.shape)
        whole[:, used] = samples
        return volume_of(SCAN_RESIDUALS.get(kind)(image * shown, whole, shown))

    def scored(self, scan: WorkingScan) -> MaskArray:
        """Return the brain without slices that show too little of it, bool `(i, j, k)`: what has a reconstruction."""
        found = np.zeros_like(scan.brain_mask)
        used = brain_slices(scan)[2].numpy()
        found[..., used] = scan.brain_mask[..., used]
        return found

    def _normalised(self, scan: WorkingScan, difference: FloatArray, contrast: str | None, kind: str) -> FloatArray:
        """Return a normalised residual map of x − x̂ on the working grid, 0 in slices without a reconstruction."""
        healthy = self._healthy_residual(scan, contrast, kind)
        z = np.where(self.scored(scan), healthy.z(difference), 0).astype(np.float32)
        return NORMALISED.get(kind)(z, contrast or "")

    def _healthy_residual(self, scan: WorkingScan, contrast: str | None, kind: str) -> HealthyResidual:
        if self.healthy_map is None:
            raise ConfigError(
                f"the residual {kind} needs a healthy map",
                received="a model without one",
                where=self.bundle.path or "model",
                remedy="halebrain calibrate MODEL --healthy-map fits one from healthy scans",
            )
        self.healthy_map.check_grid(scan.grid.shape, scan.grid.affine)
        return self.healthy_map.of_contrast(contrast)

    def brain_above_cord(self, scan: WorkingScan) -> MaskArray:
        """Return the brain mask without what lies below `lowest_z_mm`, bool `(i, j, k)`."""
        lowest, affine = self.postprocessing.lowest_z_mm, scan.grid.affine
        if lowest is None:
            return scan.brain_mask
        height_mm = affine[2, 2] * np.arange(scan.brain_mask.shape[SLICE_AXIS]) + affine[2, 3]
        above: MaskArray = scan.brain_mask & (height_mm >= lowest)
        return above

    def scored_region(self, scan: WorkingScan) -> MaskArray:
        """Return where scores are not 0 by rule, bool `(i, j, k)`: the eroded brain mask above `lowest_z_mm`."""
        return erode(self.brain_above_cord(scan), self.postprocessing.erosion)

    def across_slices(self, probability: FloatArray, brain_mask: MaskArray, contrast: str | None) -> FloatArray:
        """Return a probability map of the working grid smoothed across slices as the model has it for the contrast.

        Outside the mask the probability counts, and is, 0.
        """
        probability = np.where(brain_mask, probability, 0)
        narrow, wide = (mm / self.preprocessor.config.spacing_mm for mm in self.postprocessing.across_mm(contrast))
        return smooth_through_plane(probability, brain_mask, sigma_voxels=narrow, around_voxels=wide)

    def reconstruct_levels(self, scan: WorkingScan) -> dict[str, FloatArray]:
        """Return the pseudo-healthy scan at each level, and their mean under "ensemble"; `(i, j, k)` in [0, 1]."""
        image, mask, used = brain_slices(scan)
        found = {}
        for level in self.levels:
            draws = [
                self.reconstruct_slices(image[used], mask[used], level, self.slice_seeds(scan, level, draw, used))
                for draw in range(self.draws)
            ]
            found[str(level)] = volume_of_slices(torch.stack(draws).mean(dim=0), used, scan.image.shape)
        return found | {"ensemble": np.mean(list(found.values()), axis=0, dtype=np.float32)}

    def fill_holes(self, scan: WorkingScan, hole: MaskArray) -> FloatArray | None:
        """Return the scan with holes of the working grid filled from their surroundings, `(i, j, k)` in [0, 1].

        `None` where the reconstructor cannot fill holes.
        """
        reconstructor = self.bundle.reconstructor
        if not isinstance(reconstructor, HoleFiller):
            return None
        image, mask, used = brain_slices(scan)
        holes = slices_of(hole)

        def run(x: torch.Tensor, inside: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
            return reconstructor.fill(x, own & inside).float() * inside

        return volume_of_slices(self.in_batches(run, image[used], mask[used], holes[used]), used, scan.image.shape)
