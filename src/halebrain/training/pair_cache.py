"""Pairs on disk: made once per scan, and reused by resumed runs and by other runs with the same settings."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from lightning_fabric import Fabric

from halebrain.core.config import with_former_keys
from halebrain.core.modality import standard_modality
from halebrain.core.progress import track
from halebrain.data import through_plane
from halebrain.data.anomalies import AnomalyGenerator, build_anomaly
from halebrain.data.slices import SliceStore
from halebrain.data.warp import PairAugmentationConfig
from halebrain.io.checksum import json_sha256
from halebrain.models.bundle import Bundle
from halebrain.models.segmentation import Segmenter
from halebrain.training.pairs import PairDraw, PairMaker, PairStage, PairStore, save_pairs
from halebrain.training.segmenter_config import PairCacheConfig, SegmenterTraining

_AS_THEY_ARE = PairAugmentationConfig(gamma=0, bias_field=0, blur=0, ghosting=0)
_SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")
_OF_SHAPES = {"flip", "warp"}
"""Augmentation after the pair was made, drawn again at each step."""


def open_pairs(
    store: SliceStore, folder: Path, kind: str, make: Callable[[int, int], npt.NDArray[np.float16]]
) -> PairStore:
    """Return the pairs of every scan of `store`, made where they are not there yet.

    Args:
        store: Slices of the scans.
        folder: Of the pairs.
        kind: What they are; it is part of the files' names, as is what the slices hold, and of the progress bar.
        make: The pairs of one scan, by its place in the store and which copy of the scan it is: 0, or more where the
            store holds it several times.
    """
    found, copies = [], Counter[str]()
    for scan, record in enumerate(track(store.records, description=f"Making {kind} pairs", total=len(store))):
        name = f"{record.scan_id}_{kind}_{store.fingerprint(scan)[:12]}"
        copy, copies[name] = copies[name], copies[name] + 1
        path = folder / (f"{name}_{copy}.npy" if copy else f"{name}.npy")
        if not path.exists():
            save_pairs(make(scan, copy), path)
        found.append(np.load(path, mmap_mode="r"))
    modalities = tuple(standard_modality(record.modality) for record in store.records)
    return PairStore(tuple(found), tuple(record.subject for record in store.records), modalities)


@dataclass(frozen=True)
class _Recipe:
    """How pairs of one kind are made.

    Args:
        source: "synthetic" or "annotated".
        split: "train" or "val"; pairs of "val" are the same whatever the seed, and not augmented.
        stage1: The frozen reconstructor, on the device where pairs are made.
        config: The run.
        fabric: Pairs are made in its precision.
    """

    source: str
    split: Literal["train", "val"]
    stage1: Bundle
    config: SegmenterTraining
    fabric: Fabric

    @property
    def augmentation(self) -> PairAugmentationConfig:
        return self.config.augmentation if self.split == "train" else _AS_THEY_ARE

    @property
    def each(self) -> int:
        """How many pairs of a scan there are."""
        pairs = self.config.pairs or PairCacheConfig()
        return pairs.validation if self.split == "val" else int(getattr(pairs, self.source))

    @property
    def seed(self) -> int:
        return self.config.seed if self.split == "train" else 0

    @property
    def lesion_fraction(self) -> float:
        return self.config.lesion_fraction if self.source == "annotated" else 0.0

    @cached_property
    def anomaly(self) -> AnomalyGenerator:
        return build_anomaly(self.config.anomaly)

    def key(self) -> str:
        """Return a hash of all that a pair depends on but the scan; of no other scan, and not of how one learns."""
        made: list[Any] = [self.stage1.sha256, self.fabric.strategy.precision.precision, self.seed, self.each]
        made += [self.config.segmenter.needs_reconstruction, self.lesion_fraction]
        made += [self.augmentation.model_dump(mode="json", exclude=_OF_SHAPES)]
        if self.config.segmenter.neighbours:
            made += [list(self.config.segmenter.neighbours), through_plane.DRAWS]
        if self.source == "synthetic":
            made += [self.config.anomaly.model_dump(mode="json")]
        return json_sha256(with_former_keys(made))[:16]

    def open(self, store: SliceStore, cache: Path) -> PairStore:
        """Return the pairs of every scan of `store`."""
        folder = cache / f"pairs-{self.key()}"
        folder.mkdir(parents=True, exist_ok=True)
        return open_pairs(store, folder, f"{self.source}-{self.split}", partial(self._make, store))

    def _make(self, store: SliceStore, scan: int, copy: int) -> npt.NDArray[np.float16]:
        needed = self.config.segmenter.needs_reconstruction
        maker = PairMaker(self.stage1.reconstructor, self.augmentation, self.seed, needed)
        with self.fabric.autocast():
            if self.source == "synthetic":
                return maker.synthetic(store, scan, self.anomaly, count=self.each, copy=copy)
            return maker.drawn(store, scan, count=self.each, lesion_fraction=self.lesion_fraction, copy=copy)


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

    Args:
        segmenter: It learns.
        stage1: The frozen reconstructor, on the device where pairs are made.
        stores: Slices by source ("synthetic", "annotated") and split.
        config: The run; `config.pairs` says how many.
        cache: Folder of folders of pairs.
        fabric: Launched; pairs are made in its precision.
    """
    draws: dict[str, list[PairDraw]] = {split: [] for split in _SPLITS}
    for split in _SPLITS:
        for source, count in config.counts().items():
            pairs = _Recipe(source, split, stage1, config, fabric).open(stores[source][split], cache)
            # The share of slices with lesion was settled when the pairs were drawn.
            draws[split].append(PairDraw(pairs, count))
    return PairStage(segmenter, draws, config.augmentation, config.loss, seed=config.seed, purpose="stage 2 pairs")
