"""Pairs on disk: made once a scan, and found again by a run that goes on."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lightning.fabric import Fabric

from halebrain.core.progress import track
from halebrain.data.anomalies import build_anomaly
from halebrain.data.slices import SliceStore
from halebrain.data.warp import PairAugmentationConfig
from halebrain.models.bundle import Bundle
from halebrain.models.segmentation import Segmenter
from halebrain.training.pair_stage import PairDraw, PairStage
from halebrain.training.pairs import PairMaker, PairStore, save_pairs
from halebrain.training.segmenter_config import PairCacheConfig, SegmenterTraining

_AS_THEY_ARE = PairAugmentationConfig(gamma=0, bias_field=0, blur=0, ghosting=0)


def open_pairs(store: SliceStore, folder: Path, kind: str, make: Callable[[int], npt.NDArray[np.float16]]) -> PairStore:
    """Return the pairs of every scan of `store`, made where they are not there yet.

    Args:
        store: Slices of the scans.
        folder: Of the pairs.
        kind: What they are; it is part of the files' names and of the progress bar.
        make: The pairs of one scan by its place in the store.
    """
    found = []
    for scan, record in enumerate(track(store.records, description=f"Making {kind} pairs", total=len(store))):
        path = folder / f"{record.scan_id}_{kind}.npy"
        if not path.exists():
            save_pairs(make(scan), path)
        found.append(np.load(path, mmap_mode="r"))
    return PairStore(tuple(found), tuple(record.subject for record in store.records))


def cached_stage(
    segmenter: Segmenter,
    stage1: Bundle,
    stores: dict[str, dict[str, SliceStore]],
    config: SegmenterTraining,
    cache: Path,
    *,
    fabric: Fabric,
) -> PairStage:
    """Return stage 2 on pairs that are made here, once for all runs of the same data, reconstructor and settings.

    Args:
        segmenter: It learns.
        stage1: The frozen reconstructor, on the device where pairs are made.
        stores: Slices by source ("synthetic", "annotated") and split.
        config: The run; `config.pairs` says how many.
        cache: Folder of folders of pairs.
        fabric: Launched; pairs are made in its precision.
    """
    pairs = config.pairs or PairCacheConfig()
    folder = cache / f"pairs-{_key(stage1, stores, config, fabric)}"
    folder.mkdir(parents=True, exist_ok=True)
    anomaly, needed = build_anomaly(config.anomaly), config.segmenter.needs_reconstruction
    draws: dict[str, list[PairDraw]] = {}
    for split, augmentation in (("train", config.augmentation), ("val", _AS_THEY_ARE)):
        maker = PairMaker(stage1.reconstructor, augmentation, config.seed if split == "train" else 0, needed)
        for source, count in config.counts().items():
            store, share = stores[source][split], config.lesion_fraction if source == "annotated" else 0.0
            each = pairs.validation if split == "val" else getattr(pairs, source)

            def make(
                scan: int,
                maker: PairMaker = maker,
                store: SliceStore = store,
                each: int = each,
                source: str = source,
                share: float = share,
            ) -> npt.NDArray[np.float16]:
                with fabric.autocast():
                    if source == "synthetic":
                        return maker.synthetic(store, scan, anomaly, count=each)
                    return maker.drawn(store, scan, count=each, lesion_fraction=share)

            # The share of slices with lesion was settled when the pairs were drawn.
            draws.setdefault(split, []).append(PairDraw(open_pairs(store, folder, f"{source}-{split}", make), count))
    return PairStage(segmenter, draws, config.augmentation, config.loss, seed=config.seed, purpose="stage 2 pairs")


def _key(stage1: Bundle, stores: dict[str, dict[str, SliceStore]], config: SegmenterTraining, fabric: Fabric) -> str:
    """Return a hash of all that pairs depend on; not of the segmenter, its loss, or how long it learns."""
    settings = config.model_dump(mode="json", include={"anomaly", "augmentation", "pairs", "lesion_fraction", "seed"})
    scans = {source: {split: store.fingerprint() for split, store in parts.items()} for source, parts in stores.items()}
    made = [stage1.sha256, fabric.strategy.precision.precision, config.segmenter.needs_reconstruction]
    return hashlib.sha256(json.dumps([settings, scans, made], sort_keys=True).encode()).hexdigest()[:16]
