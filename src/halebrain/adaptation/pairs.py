"""The cached pairs of an adaptation: made once a scan, and found again by a run that goes on."""

from pathlib import Path

import numpy as np

from halebrain.adaptation.config import AdaptConfig
from halebrain.core.progress import track
from halebrain.data.anomalies import build_anomaly
from halebrain.data.slices import SliceStore
from halebrain.models.bundle import Bundle
from halebrain.training.pairs import PairMaker, PairStore, save_pairs


def open_pairs(kind: str, store: SliceStore, bundle: Bundle, config: AdaptConfig, folder: Path) -> PairStore:
    """Return the pairs of every scan, made where they are not there yet.

    Args:
        kind: "annotated", or "synthetic" = with anomalies in slices that have no lesion.
        store: Slices of the scans.
        bundle: A detector, on the device where pairs are made.
        config: How many, and how.
        folder: Of the pairs of this very adaptation.
    """
    assert bundle.segmenter is not None  # only detectors are adapted
    tuning, needed = config.tuning, bundle.segmenter.config.needs_reconstruction
    maker = PairMaker(bundle.reconstructor, tuning.augmentation, config.seed, needed)
    anomaly, found = build_anomaly(tuning.anomaly), []
    each = -(-tuning.synthetic_slices // len(store))
    for scan, record in enumerate(track(store.records, description=f"Making {kind} pairs", total=len(store))):
        path = folder / f"{record.scan_id}_{kind}.npy"
        if not path.exists():
            if kind == "annotated":
                made = maker.annotated(store, scan, draws=tuning.draws)
            else:
                made = maker.synthetic(store, scan, anomaly, count=each)
            save_pairs(made, path)
        found.append(np.load(path, mmap_mode="r"))
    return PairStore(tuple(found), tuple(record.subject for record in store.records))
