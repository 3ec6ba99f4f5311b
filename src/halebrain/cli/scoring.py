"""Scoring of every annotated scan of a manifest with one model and the baselines."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from halebrain.cli import options
from halebrain.core.errors import MissingInputError, UsageError
from halebrain.core.failures import Failures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from halebrain.evaluation.baselines import AtlasModel
    from halebrain.evaluation.case import Case
    from halebrain.evaluation.evaluate import Evaluation
    from halebrain.evaluation.reconstruction_quality import LevelQuality
    from halebrain.inference.cohort import ScoredScan
    from halebrain.inference.predictor import Predictor
    from halebrain.io.manifest import Manifest, ScanRecord
    from halebrain.thresholds.choose import ThresholdSelector


def run_evaluation(
    predictor: "Predictor",
    rows: "Manifest",
    *,
    point: "ThresholdSelector",
    failures: "Failures",
    working: bool = False,
    reconstruction: bool = False,
    min_lesion_mm3: float | None = None,
    atlases: "dict[str, AtlasModel] | None" = None,
) -> "Evaluation":
    """Score every scan of `rows` that is annotated or declared healthy.

    Args:
        predictor: The model.
        rows: The scans.
        point: The frozen threshold, by modality if available.
        failures: Collects scans that fail; the others are scored without them.
        working: On the model's working grid with resampled labels, instead of the scan's own with the original ones.
        reconstruction: Measure the quality of the reconstruction at each level too.
        min_lesion_mm3: Smallest lesion kept in the model's mask; `None` = as the model's configuration says.
        atlases: Modality → atlas of healthy scans; `{}` = the other baselines without it, `None` = the default one.

    Raises:
        MissingInputError: There is no such scan.
        DataError: A subject took part in training or in the choice of the threshold.
        UsageError: The model has no reconstruction to measure.
    """
    from halebrain.core.modality import standard_modality
    from halebrain.evaluation.evaluate import Evaluator
    from halebrain.inference.cohort import score_scan

    if reconstruction and not predictor.bundle.reconstructor.gives_image:
        raise UsageError(
            "--reconstruction needs a model that gives a pseudo-healthy image",
            received=predictor.bundle.config.reconstructor.name,
            remedy="remove the option",
        )
    rows = _unseen(rows, predictor)
    smallest = predictor.postprocessing.min_lesion_mm3 if min_lesion_mm3 is None else min_lesion_mm3
    evaluator, levels = Evaluator(seed=predictor.seed), list["LevelQuality"]()

    def score(record: "ScanRecord") -> None:
        scored = score_scan(predictor, record)
        threshold = point.at(standard_modality(record.modality)).value
        methods = _methods(scored, threshold, smallest, working=working, atlases=atlases)
        found = _levels(predictor, scored) if reconstruction else []
        evaluator.add_scan(methods, image=scored.scan.image if working else scored.volume.data, shown="model")
        levels.extend(found)

    done = failures.each(score, rows.records, name=lambda record: record.scan_id, description="Evaluating")
    rows = replace(rows, records=tuple(done))
    provenance = _about(predictor, rows, point) | {
        "min_lesion_mm3": smallest,
        "grid": "working grid, resampled labels" if working else "native, original labels",
        "atlas_scans": {modality: atlas.n_scans for modality, atlas in (atlases or {}).items()},
        "failed": dict(failures.reasons),
    }
    return replace(evaluator.finish(provenance), reconstruction=levels)


def _unseen(rows: "Manifest", predictor: "Predictor") -> "Manifest":
    """Return the scans that can be evaluated: annotated or healthy, of subjects outside its training data."""
    rows = rows.select(lambda r: r.lesion is not None or r.is_healthy)
    if len(rows) == 0:
        raise MissingInputError(
            "evaluation needs annotated or healthy scans",
            where=rows.source or "manifest",
            remedy='check --split, --modality, --pathology, and the columns "pathology" and "lesion" of the manifest',
        )
    seen = predictor.bundle.seen_subjects("train_subjects", "val_subjects") | predictor.bundle.calibration_subjects()
    options.refuse_seen(rows, seen, "evaluated")
    return rows


def _about(predictor: "Predictor", rows: "Manifest", point: "ThresholdSelector") -> dict[str, Any]:
    """Return what the figures come from: model, scans, threshold, seed, levels, versions."""
    from halebrain.core.about import versions
    from halebrain.core.modality import standard_modality
    from halebrain.evaluation.statistics import INTERVAL

    return {
        "model_sha256": predictor.bundle.sha256,
        "manifest_sha256": rows.fingerprint(),
        "threshold": _stated(point, {standard_modality(row.modality) for row in rows}),
        "seed": predictor.seed,
        "levels": list(predictor.levels),
        "interval": INTERVAL,
        "versions": versions(),
    }


def _stated(point: "ThresholdSelector", modalities: set[str]) -> dict[str, Any]:
    """Return value and name of the threshold; by modality, where they are not the same for all."""
    by_modality = {}
    for modality in sorted(modalities):
        chosen = point.at(modality)
        by_modality[modality] = {"value": chosen.value, "name": chosen.name}
    first = next(iter(by_modality.values()))
    return first if all(one == first for one in by_modality.values()) else {"by_modality": by_modality}


def _levels(predictor: "Predictor", scored: "ScoredScan") -> "list[LevelQuality]":
    """Return the quality of one scan's reconstruction at each level; nothing where it has no lesion."""
    from halebrain.evaluation.reconstruction_quality import LevelQuality, reconstruction_quality

    scan, lesion = scored.scan, scored.lesion_working()
    if not (lesion & scan.brain_mask).any():
        return []
    healthy = scored.healthy_working()
    return [
        LevelQuality(
            scored.record.scan_id,
            scored.record.subject,
            level,
            reconstruction_quality(scan.image, found, lesion, scan.brain_mask, healthy=healthy),
        )
        for level, found in predictor.reconstruct_levels(scan).items()
    ]


def _methods(
    scored: "ScoredScan",
    threshold: float,
    min_lesion_mm3: float,
    *,
    working: bool,
    atlases: "dict[str, AtlasModel] | None",
) -> "Iterator[tuple[str, Case]]":
    """Yield the scan as each method scores it, over its brain; lesion that the brain mask missed counts as missed."""
    import numpy as np

    from halebrain.cli.baselines import baseline_scores
    from halebrain.core.mask import Cut
    from halebrain.evaluation.case import Case

    result, record, scan, maps = scored.result, scored.record, scored.scan, scored.maps
    lesion = np.zeros(scored.volume.shape, dtype=bool) if scored.lesion is None else scored.lesion
    if working:
        lesion = scored.lesion_working()
        image, brain_mask, affine = scan.image, scan.brain_mask, scan.grid.affine
        found = {"model": maps.score, "segmenter alone": maps.probability, "reconstruction alone": maps.residual}
    else:
        image, brain_mask, affine = scored.volume.data, result.brain_mask, scored.volume.affine
        found = {
            "model": result.score,
            "segmenter alone": result.probability,
            "reconstruction alone": result.residual_map,
        }
    found |= baseline_scores(scored, image, brain_mask | lesion, working=working, atlases=atlases)
    for method, score in found.items():
        cut = Cut(threshold, min_lesion_mm3) if method == "model" else None
        yield method, Case.of(record, reference=lesion, brain_mask=brain_mask, affine=affine, score=score, cut=cut)
