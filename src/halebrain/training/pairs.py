"""Pairs of a slice and its reconstruction, made once, as the reconstructor is frozen; and training on them.

A pair is all that stage 2 would show the segmenter: augmented intensities, synthetic anomaly, noise of one draw. What
is drawn depends on the seed, the scan's name and the draw alone, so that a cache may be made in parts, reused by
resumed runs, and by other runs with the same settings. Stage 2 and adaptation train on cached pairs.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from halebrain.core.config import with_former_keys
from halebrain.core.files import atomic_path
from halebrain.core.progress import track
from halebrain.core.random import draw_seeds, make_generator
from halebrain.data import through_plane
from halebrain.data.anomalies import AnomalyGenerator, build_anomaly
from halebrain.data.augment import PairAugmentationConfig, augment, flip, shift, warp
from halebrain.data.samplers import choose_slice
from halebrain.data.slices import SliceBatch, SliceStore
from halebrain.data.through_plane import apply_with_neighbours
from halebrain.io.checksum import json_sha256
from halebrain.models.bundle import Bundle
from halebrain.models.ensemble import AnySegmenter
from halebrain.models.reconstruction import Reconstructor
from halebrain.models.segmentation import Segmenter
from halebrain.training.loop import Stage
from halebrain.training.losses import LossConfig, segmentation_loss
from halebrain.training.prefetch import Drawn
from halebrain.training.processes import share, together
from halebrain.training.segmenter_config import PairCacheConfig, SegmenterTraining

_AT_ONCE = 16
_LESION, _BRAIN = 3, 1
_AS_THEY_ARE = PairAugmentationConfig(gamma=0, bias_field=0, blur=0, ghosting=0)
_OF_SHAPES = {"flip", "warp"}
"""Augmentation after the pair was made, drawn again at each step."""


@dataclass(frozen=True)
class PairMaker:
    """Makes pairs with a frozen reconstructor, each from a level at which it is used.

    Args:
        reconstructor: In eval mode, on its device.
        augmentation: Of intensities, before the reconstruction.
        seed: The user's seed.
        needs_reconstruction: Whether the segmenter uses it; if not, the slice replaces it.
    """

    reconstructor: Reconstructor
    augmentation: PairAugmentationConfig
    seed: int
    needs_reconstruction: bool = True

    def annotated(self, store: SliceStore, scan: int, *, draws: int) -> npt.NDArray[np.float16]:
        """Return `draws` pairs of every slice of one scan, `(draws × n, 3 + k, h, w)`.

        That is slice, reconstruction, label, and the k neighbours of the slice that the store shows.
        """
        slices = store.read([scan] * len(store.images[scan]), list(range(len(store.images[scan]))))
        name = store.records[scan].scan_id
        # The first sample is the unchanged slice, as at test time.
        return np.concatenate([self._pairs(slices, name, draw, is_augmented=draw > 0) for draw in range(draws)])

    def drawn(
        self, store: SliceStore, scan: int, *, count: int, lesion_fraction: float, copy: int = 0
    ) -> npt.NDArray[np.float16]:
        """Return `count` pairs of slices of one scan drawn at random, a share of them among those with lesion.

        Another copy has other ones.
        """
        name, found = _name(store, scan, copy), []
        total, with_lesion = len(store.images[scan]), store.lesion_slices[scan]
        for start in range(0, count, _AT_ONCE):
            size, generator = min(_AT_ONCE, count - start), make_generator(self.seed, "drawn", name, start)
            draws = torch.rand(size, 2, generator=generator).tolist()
            chosen = [choose_slice(own, with_lesion, total, lesion_fraction) for own in draws]
            # Sample 0 is that of the unchanged slices, which `annotated` makes.
            slices, draw = store.read([scan] * size, chosen), 1 + start // _AT_ONCE
            found.append(self._pairs(slices, name, draw, is_augmented=True))
        return np.concatenate(found)

    def synthetic(
        self, store: SliceStore, scan: int, anomaly: AnomalyGenerator, *, count: int, copy: int = 0
    ) -> npt.NDArray[np.float16]:
        """Return `count` pairs with synthetic anomalies, on slices of one scan without lesion.

        Where every slice has one, the anomaly joins it. Another copy has other slices and anomalies.
        """
        name = _name(store, scan, copy)
        healthy = np.setdiff1d(np.arange(len(store.images[scan])), store.lesion_slices[scan])
        candidates = healthy if len(healthy) else np.arange(len(store.images[scan]))
        found = []
        for start in range(0, count, _AT_ONCE):
            generator = make_generator(self.seed, "synthetic", name, start)
            size = min(_AT_ONCE, count - start)
            chosen = candidates[torch.randint(len(candidates), (size,), generator=generator).numpy()]
            plain = store.read([scan] * size, chosen.tolist())
            altered, drawn = apply_with_neighbours(
                anomaly, plain.image, plain.brain_mask, store.neighbours, generator=generator
            )
            batch = SliceBatch(altered, plain.brain_mask, plain.lesion | drawn)
            found.append(self._pairs(batch, f"{name} synthetic", start // _AT_ONCE, is_augmented=True))
        return np.concatenate(found)

    @torch.inference_mode()
    def _pairs(self, slices: SliceBatch, name: str, draw: int, *, is_augmented: bool) -> npt.NDArray[np.float16]:
        """Return a pair of each slice; `name` and `draw` choose the random numbers and nothing else."""
        levels, device = self.reconstructor.levels, next(self.reconstructor.parameters()).device
        generator = make_generator(self.seed, "pairs", name, draw)
        altered, brain_mask, lesion = slices.image, slices.brain_mask, slices.lesion
        if is_augmented:
            moved = shift(altered, brain_mask, lesion, config=self.augmentation, generator=generator)
            altered, brain_mask, lesion = moved
            altered = augment(altered, brain_mask, self.augmentation, generator=generator)
        seeds, healthy = draw_seeds(len(altered), generator), []
        for start in range(0, len(altered), _AT_ONCE) if self.needs_reconstruction else ():
            part = slice(start, start + _AT_ONCE)
            image = altered[part, :1].to(device, memory_format=torch.channels_last)
            made = self.reconstructor.reconstruct(image, level=levels[draw % len(levels)], seeds=seeds[part])
            healthy.append(made.float().cpu() * brain_mask[part, :1])
        label = brain_mask[:, :1] * _BRAIN + lesion * (_LESION - _BRAIN)
        reconstruction = torch.cat(healthy) if healthy else altered[:, :1]
        pairs = torch.cat([altered[:, :1], reconstruction, label, altered[:, 1:]], dim=1)
        found: npt.NDArray[np.float16] = pairs.numpy().astype(np.float16)
        return found


def _name(store: SliceStore, scan: int, copy: int) -> str:
    """Return what the draws of a scan's pairs depend on."""
    name = store.records[scan].scan_id
    return f"{name} copy {copy}" if copy else name


@dataclass(frozen=True)
class PairStore:
    """Cached pairs of several scans of one kind.

    Args:
        pairs: One array a scan, `(n, 3 + k, h, w)`, float16: slice, reconstruction, label (1 = brain, 3 = lesion), k
            neighbours.
        subjects: Whose each scan is.
        modalities: The contrast of each, a BIDS suffix; () = not known.
    """

    pairs: tuple[npt.NDArray[np.float16], ...]
    subjects: tuple[str, ...]
    modalities: tuple[str, ...] = ()

    def of(self, subjects: Sequence[str]) -> "PairStore":
        """Return the pairs of some subjects."""
        kept = [n for n, subject in enumerate(self.subjects) if subject in subjects]
        modalities = tuple(self.modalities[n] for n in kept) if self.modalities else ()
        return PairStore(tuple(self.pairs[n] for n in kept), tuple(self.subjects[n] for n in kept), modalities)

    @cached_property
    def with_lesion(self) -> list[npt.NDArray[np.int64]]:
        """For each scan, the pairs that hold lesion."""
        return [np.flatnonzero((pairs[:, 2] > _BRAIN).any(axis=(1, 2))) for pairs in self.pairs]

    def draw(
        self, count: int, generator: torch.Generator, *, lesion_fraction: float = 0.0
    ) -> tuple[torch.Tensor, list[str | None]]:
        """Return pairs of scans drawn uniformly, `(count, 3 + k, h, w)`, float32, and the contrast of each.

        A share `lesion_fraction` of the draws is restricted to pairs with lesion.
        """
        scans = torch.randint(len(self.pairs), (count,), generator=generator).tolist()
        draws = torch.rand(count, 2, generator=generator).tolist()
        found = [
            self.pairs[scan][choose_slice(own, self.with_lesion[scan], len(self.pairs[scan]), lesion_fraction)]
            for scan, own in zip(scans, draws, strict=True)
        ]
        contrasts = [self.modalities[scan] if self.modalities else None for scan in scans]
        return torch.from_numpy(np.stack(found).astype(np.float32)), contrasts


def split_pairs(pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return slice, reconstruction (both float32) and lesion (bool) of pairs `(b, 3 + k, h, w)`.

    Each is `(b, 1, h, w)`, but the slice has its k neighbours behind it.
    """
    image, reconstruction, label = pairs[:, :1], pairs[:, 1:2], pairs[:, 2:3]
    return torch.cat([image, pairs[:, 3:]], dim=1), reconstruction, label > _BRAIN


@dataclass(frozen=True)
class PairDraw:
    """What a batch takes from one store: `count` pairs, a share `lesion_fraction` of them with lesion only."""

    store: PairStore
    count: int
    lesion_fraction: float = 0.0


class PairStage(Stage):
    """Cached pairs in, segmentation loss out; shapes are augmented again at each step, intensities once before.

    `draws` is what a batch of "train" and of "val" is made of; validation always uses the same pairs. Another `purpose`
    draws other random numbers.
    """

    def __init__(
        self,
        segmenter: AnySegmenter,
        draws: Mapping[str, Sequence[PairDraw]],
        augmentation: PairAugmentationConfig,
        loss: LossConfig,
        *,
        seed: int,
        purpose: str,
    ) -> None:
        super().__init__()
        self.trained, self.draws, self.augmentation, self.loss = segmenter, draws, augmentation, loss
        self.seed, self.purpose = seed, purpose

    def forward(self, split: str, step: int, drawn: Drawn | None = None) -> torch.Tensor:
        """Return the segmentation loss of batch `step`."""
        segmenter: Any = self.trained
        generator = make_generator(self.seed if split == "train" else 0, split, self.purpose, step)
        found = [
            part.store.draw(part.count, generator, lesion_fraction=part.lesion_fraction)
            for part in self.draws[split]
            if part.count > 0
        ]
        modalities = [modality for _, names in found for modality in names]
        pairs = torch.cat([drawn for drawn, _ in found]).to(next(segmenter.parameters()).device)
        image, reconstruction, lesion = split_pairs(pairs)
        if split == "train":
            moved = flip(image, reconstruction, lesion, config=self.augmentation, generator=generator)
            image, reconstruction, lesion = warp(*moved, config=self.augmentation, generator=generator)
        return segmentation_loss(segmenter.all_logits(image, reconstruction, modalities), lesion.float(), self.loss)


def open_pairs(
    store: SliceStore,
    folder: Path,
    kind: str,
    make: Callable[[int, int], npt.NDArray[np.float16]],
    *,
    fabric: Fabric | None = None,
) -> PairStore:
    """Return the pairs of every scan of `store`, made where they are not there yet.

    `kind` is part of the files' names, as is what the slices hold. `make` gets the place of a scan in the store and
    which copy of the scan it is: 0, or more where the store holds it several times. Processes of a `fabric` share the
    scans out.
    """
    wanted = _places(store, folder, kind)
    if fabric is not None and fabric.world_size > 1:
        with together(fabric):
            _make_missing(share(wanted, fabric), kind, make)
    _make_missing(wanted, kind, make)
    modalities = tuple(record.contrast for record in store.records)
    found = tuple(np.load(path, mmap_mode="r") for _, _, path in wanted)
    return PairStore(found, tuple(record.subject for record in store.records), modalities)


def _places(store: SliceStore, folder: Path, kind: str) -> list[tuple[int, int, Path]]:
    """Return the place in the store, the copy and the file of every scan."""
    found, copies = [], Counter[str]()
    for scan, record in enumerate(store.records):
        name = f"{record.scan_id}_{kind}_{store.fingerprint(scan)[:12]}"
        copy, copies[name] = copies[name], copies[name] + 1
        found.append((scan, copy, folder / (f"{name}_{copy}.npy" if copy else f"{name}.npy")))
    return found


def _make_missing(
    wanted: Sequence[tuple[int, int, Path]], kind: str, make: Callable[[int, int], npt.NDArray[np.float16]]
) -> None:
    for scan, copy, path in track(wanted, description=f"Making {kind} pairs"):
        if not path.exists():
            pairs = make(scan, copy)
            with atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, pairs)


def cached_stage(
    segmenter: Segmenter,
    stage1: Bundle,
    stores: dict[str, dict[str, SliceStore]],
    config: SegmenterTraining,
    cache: Path,
    *,
    fabric: Fabric,
) -> PairStage:
    """Return stage 2 on pairs that are made here, once for all runs of the same reconstructor and settings.

    A run that learns from fewer scans, other diseases or another share of them finds the pairs of an earlier one.
    """
    draws: dict[str, list[PairDraw]] = {}
    for split in ("train", "val"):
        for source, count in config.counts().items():
            pairs = _cached_pairs(stores[source][split], source, split, stage1, config, cache, fabric)
            # The share of slices with lesion was settled when the pairs were drawn.
            draws.setdefault(split, []).append(PairDraw(pairs, count))
    return PairStage(segmenter, draws, config.augmentation, config.loss, seed=config.seed, purpose="stage 2 pairs")


def _cached_pairs(
    store: SliceStore,
    source: str,
    split: str,
    stage1: Bundle,
    config: SegmenterTraining,
    cache: Path,
    fabric: Fabric,
) -> PairStore:
    """Return the pairs of every scan of `store`; those of "val" are the same whatever the seed, and not augmented."""
    numbers, needed = config.pairs or PairCacheConfig(), config.segmenter.needs_reconstruction
    if split == "train":
        seed, augmentation, each = config.seed, config.augmentation, getattr(numbers, source)
    else:
        seed, augmentation, each = 0, _AS_THEY_ARE, numbers.validation
    share = config.lesion_fraction if source == "annotated" else 0.0
    # All that a pair depends on but the scan; no other scan, and not how one learns.
    made: list[Any] = [stage1.sha256, fabric.strategy.precision.precision, seed, each, needed, share]
    made += [augmentation.model_dump(mode="json", exclude=_OF_SHAPES)]
    if config.segmenter.neighbours:
        made += [list(config.segmenter.neighbours), through_plane.DRAWS]
    anomaly = lru_cache(maxsize=1)(lambda: build_anomaly(config.anomaly))
    if source == "synthetic":
        made += [config.anomaly.model_dump(mode="json")]
        if files := anomaly().files_sha256():
            made += [files]
    folder = cache / f"pairs-{json_sha256(with_former_keys(made))[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    maker = PairMaker(stage1.reconstructor, augmentation, seed, needed)

    def make(scan: int, copy: int) -> npt.NDArray[np.float16]:
        with fabric.autocast():
            if source == "synthetic":
                return maker.synthetic(store, scan, anomaly(), count=each, copy=copy)
            return maker.drawn(store, scan, count=each, lesion_fraction=share, copy=copy)

    return open_pairs(store, folder, f"{source}-{split}", make, fabric=fabric)
