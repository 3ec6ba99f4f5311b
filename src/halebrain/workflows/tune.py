"""Tuning: the weight of residual and segmenter, chosen on validation scans."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from halebrain.core.about import versions
from halebrain.core.device import find_device
from halebrain.core.errors import CannotWriteError, DataError, MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.files import write_text
from halebrain.core.messages import Notify
from halebrain.core.types import FloatArray, MaskArray
from halebrain.evaluation.provenance import WORKING_GRID
from halebrain.evaluation.sweep import SEEN, UNSEEN, FusionSweep, SweepPoint, best_point, sweep_tsv
from halebrain.inference.anomaly_map import fuse
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import ScoredScan, score_scan
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import Bundle, save_bundle
from halebrain.models.card import model_card
from halebrain.models.store import load_model
from halebrain.report.evaluation_figures import sweep_figure
from halebrain.report.figures import save_figure
from halebrain.workflows.selection import chosen_scans, refuse_seen, tell_flagged, tell_without_evidence
from halebrain.workflows.settings import TuneSettings


@dataclass(frozen=True)
class TuneResults:
    """Scores of every weight, one point a group and weight, with the scans that took part or failed, and the files."""

    points: list[SweepPoint]
    rows: Manifest
    files: list[Path]
    failures: Failures


def tune_model(
    manifest: Path,
    output: Path,
    settings: TuneSettings,
    *,
    scored: Callable[[list[SweepPoint]], None] = lambda _: None,
) -> TuneResults:
    """Score the annotated scans of the split "val" with every weight, and store the best one where it is asked for.

    `scored` is called with the scores, before a model is stored.
    """
    store, target = settings.store, settings.output_model
    if (store is None) != (target is None):
        raise UsageError("--store and --output-model must be used together", remedy="give both, or neither")
    if target is not None and target.exists():
        raise CannotWriteError("the output model must not exist yet", where=target, remedy="choose another")
    table = Manifest.read(manifest)
    rows = table.split("val").select(lambda r: r.is_annotated)
    rows = chosen_scans(rows, table=table, modalities=settings.modalities, pathologies=settings.pathologies)
    bundle = load_model(settings.model)
    failures = Failures(output, settings.notify)
    predictor = Predictor(bundle, device=find_device(settings.device), seed=settings.seed)
    tell_without_evidence(rows, predictor, settings.notify)
    points, rows = _run_sweep(predictor, rows, failures, settings.notify)
    files = _write(points, rows, bundle, output, settings.seed)
    scored(points)
    if store is not None and target is not None:
        chosen = best_points(points)[store]
        if chosen is None:
            raise MissingInputError(
                f'--store {store} needs validation scans of a pathology that is "{store}"',
                remedy="remove --store, or add such scans",
            )
        _store_weight(bundle, chosen, rows, target)
    return TuneResults(points, rows, files, failures)


def _run_sweep(
    predictor: Predictor, rows: Manifest, failures: Failures, notify: Notify
) -> tuple[list[SweepPoint], Manifest]:
    """Run the networks once over each scan and score every weight; return the scores and the scans that took part."""
    bundle, where = predictor.bundle, rows.where
    if len(rows) == 0:
        raise MissingInputError(
            'tuning needs annotated scans of the split "val"',
            where=where,
            remedy='write val under "split" for some patients with a mask under "lesion"',
        )
    if bundle.segmenter is None:
        raise DataError(
            "tuning needs a model with a segmenter",
            where=bundle.where,
            remedy="give a detector, which has both stages; halebrain models info MODEL shows the kind",
        )
    refuse_seen(rows, bundle.seen_subjects("train_subjects"), "tuned on")
    sweep, learned, flagged = FusionSweep(), bundle.learned_diseases(), dict[str, tuple[str, ...]]()

    def score(record: ScanRecord) -> None:
        scored = score_scan(predictor, record)
        if flags := scored.quality_flags():
            flagged[record.scan_id] = flags
        # As evaluation counts them: lesion that the brain mask missed is missed.
        lesion = scored.lesion_working()
        region = scored.scan.brain_mask | lesion
        fused = _fuser(scored, region, predictor.scored_region(scored.scan), predictor.postprocessing.fusion)
        sweep.add(SEEN if scored.record.condition in learned else UNSEEN, fused, lesion[region])

    done = failures.each(score, rows.records, name=lambda record: record.scan_id, description="Tuning")
    tell_flagged(flagged, len(done), notify)
    points = sweep.finish()
    if not points:
        raise MissingInputError(
            "tuning needs lesions on the working grid", where=where, remedy="give scans with larger lesions"
        )
    return points, replace(rows, records=tuple(done))


def _fuser(
    scored: ScoredScan, region: MaskArray, scored_region: MaskArray, fusion: str
) -> Callable[[float], FloatArray]:
    """Return β → score of the voxels of `region`, `(m,)`; the maps are fused again, without running the networks."""
    inside = scored_region[region]
    residual, probability = scored.maps.residual[region], scored.maps.probability[region]
    return lambda weight: fuse(residual, probability, inside, residual_weight=weight, fusion=fusion)


def best_points(points: list[SweepPoint]) -> dict[str, SweepPoint | None]:
    """Return the best weight for each group of pathologies; `None` where it has no scan."""
    return {group: best_point(points, group) for group in (SEEN, UNSEEN)}


def _store_weight(bundle: Bundle, chosen: SweepPoint, rows: Manifest, path: Path) -> Path:
    """Write the model with another weight, and neither thresholds nor figures.

    The subjects stay on record, so that none is evaluated on.
    """
    settings = {**bundle.config.postprocessing, "residual_weight": chosen.weight}
    before = bundle.training.get("tuning", {}).get("val_subjects", [])
    tuning = {
        "train_subjects": [],
        "val_subjects": sorted({*before, *rows.subjects()}),
        "n_subjects": len(rows.subjects()),
        "manifest_sha256": rows.fingerprint(),
        "tuned_for": chosen.group,
        "residual_weight": chosen.weight,
    }
    tuned = replace(
        bundle.with_other_scores(),
        config=bundle.config.model_copy(update={"postprocessing": settings}),
        training={**bundle.training, "tuning": tuning},
    )
    save_bundle(tuned, path, card=model_card(tuned))
    return path


def _write(points: list[SweepPoint], rows: Manifest, bundle: Bundle, output: Path, seed: int) -> list[Path]:
    """Write the table, the JSON with its provenance, and the figure; return their paths."""
    best = best_points(points)
    content = {
        "points": [asdict(point) for point in points],
        "chosen": {group: None if point is None else point.weight for group, point in best.items()},
        "provenance": {
            "model_sha256": bundle.sha256,
            "manifest_sha256": rows.fingerprint(),
            "subjects": rows.subjects(),
            "split": "val",
            "grid": WORKING_GRID,
            "seed": seed,
            "versions": versions(),
        },
    }
    paths = [output / f"sweep.{ending}" for ending in ("tsv", "json", "png")]
    write_text(paths[0], sweep_tsv(points))
    write_text(paths[1], json.dumps(content, indent=2) + "\n")
    save_figure(sweep_figure(points), paths[2])
    return paths
