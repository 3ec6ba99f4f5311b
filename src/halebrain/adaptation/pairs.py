"""Cached pairs of an adaptation: made once per scan, and reused by resumed runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halebrain.adaptation.config import AdaptConfig
from halebrain.data.anomalies import build_anomaly
from halebrain.data.slices import SliceStore
from halebrain.models.bundle import Bundle
from halebrain.training import pair_cache
from halebrain.training.pairs import PairMaker, PairStore


def open_pairs(kind: str, store: SliceStore, bundle: Bundle, config: AdaptConfig, folder: Path) -> PairStore:
    """Return the pairs of every scan, made where they are not there yet.

    Args:
        kind: "annotated", "synthetic" = with anomalies in slices that have no lesion, or "rehearsed" = some slices of
            virtual people.
        store: Slices of the scans.
        bundle: A detector, on the device where pairs are made.
        config: How many, and how.
        folder: Of the pairs of this adaptation.
    """
    assert bundle.segmenter is not None  # only detectors are adapted
    store = replace(store, neighbours=bundle.segmenter.config.shown)
    tuning, needed = config.tuning, bundle.segmenter.config.needs_reconstruction
    maker = PairMaker(bundle.reconstructor, tuning.augmentation, config.seed, needed)
    anomaly, each = build_anomaly(tuning.anomaly), -(-tuning.synthetic_slices // len(store))
    shown = -(-config.rehearsal.slices // len(store))

    def make(scan: int, copy: int) -> npt.NDArray[np.float16]:
        if kind == "annotated":
            return maker.annotated(store, scan, draws=tuning.draws)
        if kind == "rehearsed":
            return maker.drawn(store, scan, count=shown, lesion_fraction=tuning.lesion_fraction, copy=copy)
        return maker.synthetic(store, scan, anomaly, count=each, copy=copy)

    return pair_cache.open_pairs(store, folder, kind, make)
