"""What an adaptation learns from: cached pairs of its scans, and virtual patients for rehearsal.

A few scans, seen hundreds of times, teach the segmenter that everything else in them is normal. The cohort generator is
part of the package, so virtual patients can be made again wherever a model is adapted.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halebrain.adaptation.config import STAGES, AdaptConfig
from halebrain.core.random import derive_seed
from halebrain.data.anomalies import build_anomaly
from halebrain.data.slices import SliceStore
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import Bundle
from halebrain.models.joining import stage_of
from halebrain.simulation.config import CohortConfig
from halebrain.simulation.contrast_params import MODALITIES
from halebrain.simulation.generate import generate_cohort
from halebrain.simulation.pathology import PATHOLOGIES
from halebrain.training import pairs
from halebrain.training.pairs import PairMaker, PairStore


def open_pairs(kind: str, store: SliceStore, bundle: Bundle, config: AdaptConfig, folder: Path) -> PairStore:
    """Return the pairs of every scan, made where they are not there yet.

    `kind` is "annotated", "synthetic" = with anomalies in slices that have no lesion, or "rehearsed" = some slices of
    virtual people.
    """
    assert bundle.segmenter is not None  # only detectors are adapted
    store = replace(store, neighbours=bundle.segmenter.visible_neighbours)
    tuning, needed = config.tuning, bundle.segmenter.needs_reconstruction
    maker = PairMaker(bundle.reconstructor, tuning.augmentation, config.seed, needed)
    anomaly, each = build_anomaly(tuning.anomaly), -(-tuning.synthetic_slices // len(store))
    per_scan = -(-config.rehearsal.slices // len(store))

    def make(scan: int, copy: int) -> npt.NDArray[np.float16]:
        if kind == "annotated":
            return maker.annotated(store, scan, draws=tuning.draws)
        if kind == "rehearsed":
            return maker.drawn(store, scan, count=per_scan, lesion_fraction=tuning.lesion_fraction, copy=copy)
        return maker.synthetic(store, scan, anomaly, count=each, copy=copy)

    return pairs.open_pairs(store, folder, kind, make)


def rehearsed_diseases(bundle: Bundle) -> tuple[str, ...]:
    """Return the diseases in the model's training data that have virtual patients, sorted."""
    learned = bundle.learned_diseases(stage for stage in bundle.training if stage_of(stage)[0] in STAGES)
    return tuple(sorted(learned & set(PATHOLOGIES.names())))


def virtual_patients(bundle: Bundle, annotated: Manifest, config: AdaptConfig, folder: Path) -> Manifest | None:
    """Return virtual people of the model's diseases in the contrasts of the annotated scans; made where absent.

    `None` if no patients are requested, or the model did not learn from any such disease, or the contrasts have no
    virtual scans. The same seed gives the same people.
    """
    contrasts = {record.contrast for record in annotated}
    modalities, diseases = tuple(name for name in MODALITIES if name in contrasts), rehearsed_diseases(bundle)
    if not (config.rehearses and modalities and diseases):
        return None
    cohort = CohortConfig(
        healthy=config.rehearsal.healthy,
        patients=config.rehearsal.patients,
        modalities=modalities,
        pathologies=diseases,
        seed=derive_seed(config.seed, "rehearsal") % 2**31,
        variety="wide",
    )
    return generate_cohort(folder, cohort)
