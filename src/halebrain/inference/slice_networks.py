"""The networks of a model over the axial slices of a scan: reconstruction and probability, in batches."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from halebrain.core.errors import DataError
from halebrain.core.random import derive_seed
from halebrain.core.slicing import slices_of, volume_of
from halebrain.core.types import LEARNED_BRAIN_PIXELS, SLICE_AXIS, FloatArray
from halebrain.inference.anomaly_map import PostprocessingConfig
from halebrain.models.bundle import Bundle
from halebrain.models.compiling import compile_networks
from halebrain.models.ensemble import AnySegmenter
from halebrain.models.reconstruction.base import Level
from halebrain.models.segmentation import with_neighbours
from halebrain.preprocessing.pipeline import WorkingScan

_SCORED_BRAIN_PIXELS = 20
"""Slices with less brain than this (0.8 cm² at 2 mm) get no score. Slices with less than `LEARNED_BRAIN_PIXELS` get one
although the networks were not trained on such slices, so that the top and bottom of the brain are covered."""

_SLICES_ON_A_CPU = 16
_SLICES_ON_A_GPU = 1024
"""More than any scan has: one batch."""


class SliceNetworks:
    """Runs the networks of one model over slices; the noise of a slice does not depend on the other slices.

    Args:
        bundle: The model.
        postprocessing: Whether a slice is segmented mirrored and moved, too.
        device: Device of the networks.
        seed: The user's seed.
        batch_size: Slices at once; `None` = 16, on a GPU all of a scan.
        precision: "fp32" or "bf16".
        compiled: Compile the networks by `torch.compile`, where a compiler is.
    """

    def __init__(
        self,
        bundle: Bundle,
        postprocessing: PostprocessingConfig,
        *,
        device: torch.device | str,
        seed: int,
        batch_size: int | None,
        precision: Literal["fp32", "bf16"],
        compiled: bool,
    ) -> None:
        self.bundle, self.postprocessing, self.device = bundle, postprocessing, torch.device(device)
        self.seed, self.precision = seed, precision
        self.batch_size = batch_size or (_SLICES_ON_A_GPU if self.device.type == "cuda" else _SLICES_ON_A_CPU)
        for network in (bundle.reconstructor, bundle.segmenter):
            if network is not None:
                network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
                if compiled:
                    compile_networks(network, self.device)

    def slice_seeds(self, scan: WorkingScan, level: Level, draw: int, used: torch.Tensor) -> torch.Tensor:
        """Return one seed a slice: from the user's seed, the scan's content, level, draw and slice."""
        return torch.tensor([derive_seed(self.seed, scan.content, str(level), draw, int(k)) for k in used])

    def run_level(
        self, image: torch.Tensor, mask: torch.Tensor, level: Level, seeds: torch.Tensor, contrast: str | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return reconstruction and probability of all slices at one level, `(n, 1, h, w)` on the CPU."""
        reconstruction = self.reconstruct_slices(image, mask, level, seeds)
        return reconstruction, self.segment_slices(image, mask, reconstruction, contrast)

    def reconstruct_slices(
        self, image: torch.Tensor, mask: torch.Tensor, level: Level, seeds: torch.Tensor
    ) -> torch.Tensor:
        """Return the reconstruction of slices at one level, 0 outside the brain; `(n, 1, h, w)` on the CPU."""
        reconstructor = self.bundle.reconstructor

        def run(x: torch.Tensor, inside: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
            return reconstructor.reconstruct(x, level=level, seeds=own.cpu()).float() * inside

        return self.in_batches(run, image, mask, seeds)

    def own_map(
        self, image: torch.Tensor, mask: torch.Tensor, level: Level, seeds: torch.Tensor
    ) -> torch.Tensor | None:
        """Return the anomaly map of a method that gives no image; `None` for all others."""
        reconstructor = self.bundle.reconstructor
        if reconstructor.gives_image:
            return None

        def run(x: torch.Tensor, inside: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
            return reconstructor.anomaly_map(x, level=level, seeds=own.cpu()).float() * inside

        return self.in_batches(run, image, mask, seeds)

    def segment_slices(
        self, image: torch.Tensor, mask: torch.Tensor, reconstruction: torch.Tensor, contrast: str | None
    ) -> torch.Tensor:
        """Return the probability that the model's segmenter gives slices, as `segment_with`; 0 without a segmenter."""
        segmenter = self.bundle.segmenter
        if segmenter is None:
            return torch.zeros_like(reconstruction)
        return self.segment_with(segmenter, image, mask, reconstruction, contrast)

    def segment_with(
        self,
        segmenter: AnySegmenter,
        image: torch.Tensor,
        mask: torch.Tensor,
        reconstruction: torch.Tensor,
        contrast: str | None,
    ) -> torch.Tensor:
        """Return the probability that a segmenter gives slices, 0 outside the brain; all `(n, 1, h, w)` on the CPU.

        The slices are those of one scan in their order: each has the neighbours that the segmenter uses,
        as it was in training, where slices with too little brain are not used as neighbours.
        """
        half = max(config.patch for config in segmenter.configs) // 2 if self.postprocessing.overlap else 0

        def run(x: torch.Tensor, inside: torch.Tensor, healthy: torch.Tensor) -> torch.Tensor:
            def seen(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
                probability: torch.Tensor = segmenter(image, other, contrast).float().sigmoid()
                return probability

            found = [seen(x, healthy)]
            if self.postprocessing.mirror:
                found.append(seen(x.flip(2), healthy.flip(2)).flip(2))
            if half:
                found.append(_moved(seen(_moved(x, half), _moved(healthy, half)), -half))
            return torch.stack(found).mean(dim=0) * inside

        learned, neighbours = mask.sum(dim=(1, 2, 3)) >= LEARNED_BRAIN_PIXELS, segmenter.visible_neighbours
        seen = with_neighbours(image * learned[:, None, None, None], neighbours)
        seen[:, :1] = image
        # In a store of slices those between which there is none stand side by side.
        seen[learned] = with_neighbours(image[learned], neighbours)
        return self.in_batches(run, seen, mask, reconstruction)

    @torch.inference_mode()
    def in_batches(self, run: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
        """Return what `run` gives for each batch of slices on the device, together and on the CPU."""
        found = []
        for start in range(0, len(tensors[0]), self.batch_size):
            first, *others = (tensor[start : start + self.batch_size].to(self.device) for tensor in tensors)
            with self._autocast():
                found.append(run(first.contiguous(memory_format=torch.channels_last), *others).cpu())
        return torch.cat(found)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def _moved(slices: torch.Tensor, by: int) -> torch.Tensor:
    """Return slices moved along both axes, what leaves on one side entering on the other: there is no brain."""
    return slices.roll((by, by), dims=(2, 3))


def brain_slices(scan: WorkingScan) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return axial slices and their brain masks `(n, 1, h, w)`, and the indices of those that show enough brain."""
    image, mask = slices_of(scan.image), slices_of(scan.brain_mask)
    used = (mask.sum(dim=(1, 2, 3)) >= _SCORED_BRAIN_PIXELS).nonzero().flatten()
    if len(used) == 0:
        raise DataError("a scan must show brain on the working grid", remedy="check its header and its mask")
    return image, mask, used


def volume_of_slices(slices: torch.Tensor, used: torch.Tensor, shape: tuple[int, ...]) -> FloatArray:
    """Return axial slices `(n, 1, h, w)` at the indices `used` of a volume `(i, j, k)` that is 0 elsewhere."""
    every = torch.zeros(shape[SLICE_AXIS], *slices.shape[1:])
    every[used] = slices
    return volume_of(every)
