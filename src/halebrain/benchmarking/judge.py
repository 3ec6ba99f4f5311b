"""Scans of a benchmark, preprocessed once, and the evaluation of a trained model on them: threshold from validation."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from halebrain.benchmarking.on_disk import StoredReconstructions
from halebrain.core.errors import DataError
from halebrain.core.mask import Cut
from halebrain.core.progress import track
from halebrain.core.random import make_generator
from halebrain.core.slicing import slices_of, volume_of
from halebrain.core.types import FloatArray
from halebrain.data.anomalies import AnomalyGenerator
from halebrain.evaluation.baselines import AtlasModel, baseline_map
from halebrain.evaluation.case import Case
from halebrain.evaluation.curve import PooledCurve
from halebrain.evaluation.evaluate import Row, score_case
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import AnnotatedScan, open_annotated
from halebrain.io.manifest import Manifest
from halebrain.models.reconstruction.base import Level
from halebrain.preprocessing.pipeline import Preprocessor

WANTED = ("auprc", "dice", "dice_oracle_per_scan", "lesion_f1", "specificity", "false_positive_volume")
"""Metrics of a scan that the tables use."""

Maps = dict[str, FloatArray]
Scorer = Callable[[AnnotatedScan], Maps]
"""Scan → map `(i, j, k)` in [0, 1] for each row title, 0 outside the brain."""


def judged(manifest: Manifest, pathologies: tuple[str, ...]) -> Manifest:
    """Return the scans on which methods are evaluated: healthy ones, and annotated ones of the given pathologies."""
    return manifest.select(lambda r: r.is_healthy or (r.is_annotated and r.pathology in pathologies))


def prepare(manifest: Manifest, preprocessor: Preprocessor, *, description: str) -> Iterator[AnnotatedScan]:
    """Yield every scan of the manifest on the working grid, one at a time."""
    for record in track(manifest.records, description=description, total=len(manifest)):
        prepared = open_annotated(preprocessor, record)
        if prepared.scan.qc.registration_failed:
            raise DataError(
                "a scan of a benchmark must register to the template",
                where=record.image,
                remedy="remove it from the manifest, or set preprocessing.registration to none",
            )
        yield prepared


def with_anomalies(prepared: AnnotatedScan, anomaly: AnomalyGenerator, *, pathology: str) -> AnnotatedScan:
    """Return a healthy scan with synthetic anomalies in its slices, the same ones each time."""
    scan = prepared.scan
    image, brain_mask = slices_of(scan.image), slices_of(scan.brain_mask)
    generator = make_generator("synthetic column", prepared.record.scan_id)
    altered, lesion = anomaly.apply(image, brain_mask, anomaly.sample_params(len(image), generator=generator))
    record = replace(prepared.record, pathology=pathology)
    # Noise seeds depend on the content, and this is no longer the healthy scan.
    changed = replace(scan, image=volume_of(altered).astype(np.float32), content=scan.content + pathology.encode())
    return AnnotatedScan(record, changed, volume_of(lesion))


@dataclass(frozen=True)
class CellResult:
    """Result of one cell; JSON-able.

    Args:
        rows: One a test scan, row title and metric.
        pooled: Row title → column → {"auprc", "dice_oracle_set"} over all voxels of the column's scans together.
        thresholds: Row title → best Dice on the validation scans.
        provenance: Identity of the training, hash of the model.
    """

    rows: list[Row]
    pooled: dict[str, dict[str, dict[str, float]]]
    thresholds: dict[str, float]
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "CellResult":
        """Return the result of its JSON form."""
        return cls([Row(**row) for row in raw["rows"]], raw["pooled"], raw["thresholds"], raw["provenance"])


class SharingPredictor(Predictor):
    """A predictor that takes reconstructions from a store, filled by other segmenters before."""

    def __init__(self, store: StoredReconstructions, **predictor: Any) -> None:
        super().__init__(**predictor)
        self._store = store

    def reconstruct_slices(
        self, image: torch.Tensor, mask: torch.Tensor, level: Level, seeds: torch.Tensor
    ) -> torch.Tensor:
        """Return the reconstruction of slices, from the store where another segmenter has needed it."""
        # The seeds depend on scan, level, draw and slice, so they identify the reconstruction.
        key = (level, tuple(seeds.tolist()))
        if key in self._store:
            return self._store[key]
        made = super().reconstruct_slices(image, mask, level, seeds)
        self._store[key] = made
        return made


def model_scores(predictor: Predictor, titles: dict[str, str]) -> Scorer:
    """Return the maps of a model's rows; `titles` is way to score ("residual", "segmenter", "fused") → row title."""

    def score(prepared: AnnotatedScan) -> Maps:
        maps = predictor.predict_working(prepared.scan, prepared.record.contrast)
        found = {"residual": maps.residual, "segmenter": maps.probability, "fused": maps.score}
        inside = predictor.scored_region(prepared.scan)
        return {title: np.where(inside, found[way], 0).astype(np.float32) for way, title in titles.items()}

    return score


def baseline_scores(titles: dict[str, str], atlas: AtlasModel | None) -> Scorer:
    """Return the maps of the training-free rows; `titles` is baseline → row title, those in `ATLAS` need `atlas`."""

    def score(prepared: AnnotatedScan) -> Maps:
        image, inside, modality = prepared.scan.image, prepared.scan.brain_mask, prepared.record.contrast
        return {title: baseline_map(name, image, inside, modality, atlas=atlas) for name, title in titles.items()}

    return score


def score_cell(
    score: Scorer,
    val: Sequence[AnnotatedScan],
    test: Sequence[AnnotatedScan],
    *,
    name: str,
    min_lesion_mm3: float = 0.0,
    shown: Collection[int] = (),
) -> tuple[CellResult, dict[str, dict[int, FloatArray]]]:
    """Evaluate every row of one cell, with thresholds chosen on the validation scans.

    The maps of one scan at a time are in memory. Returns the result, and row title → index in `test` → map for the test
    scans at the indices `shown`.
    """
    curves: dict[str, PooledCurve] = {}
    for prepared, maps in _scored(score, val, f"{name}: validation"):
        for title, values in maps.items():
            curves.setdefault(title, PooledCurve()).add(values[prepared.region], prepared.labels)
    # Without a lesion in validation there is no threshold, and no metric on masks.
    thresholds = {t: curve.finish().best_dice[1] for t, curve in curves.items() if curve.has_lesion}
    rows: list[Row] = []
    pooled: dict[tuple[str, str], PooledCurve] = {}
    pictures: dict[str, dict[int, FloatArray]] = {}
    for number, (prepared, maps) in enumerate(_scored(score, test, f"{name}: test")):
        for title, values in maps.items():
            case = Case.of(
                prepared.record,
                reference=prepared.lesion,
                brain_mask=prepared.scan.brain_mask,
                affine=prepared.scan.grid.affine,
                score=values,
                cut=Cut(thresholds[title], min_lesion_mm3) if title in thresholds else None,
            )
            rows += score_case(case, method=title, only=WANTED)
            pooled.setdefault((title, prepared.record.condition), PooledCurve()).add(case.values, case.labels)
            if number in shown:
                pictures.setdefault(title, {})[number] = values
    return CellResult(rows, _set_values(pooled), thresholds), pictures


def _scored(score: Scorer, scans: Sequence[AnnotatedScan], description: str) -> Iterator[tuple[AnnotatedScan, Maps]]:
    for prepared in track(scans, description=description, total=len(scans)):
        yield prepared, score(prepared)


def _set_values(pooled: dict[tuple[str, str], PooledCurve]) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (title, pathology), values in pooled.items():
        if values.has_lesion:
            curve = values.finish()
            own = {"auprc": curve.average_precision, "dice_oracle_set": curve.best_dice[0]}
            found.setdefault(title, {})[pathology] = own
    return found
