"""`halebrain tune`: choose the weight of residual and segmenter on validation scans."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import options
from halebrain.cli.results import Results, command_line, failed_scans
from halebrain.core.errors import CannotWriteError, DataError, MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from halebrain.core.types import FloatArray, MaskArray
    from halebrain.evaluation.sweep import SweepPoint
    from halebrain.inference.cohort import ScoredScan
    from halebrain.inference.predictor import Predictor
    from halebrain.io.manifest import Manifest, ScanRecord
    from halebrain.models.bundle import Bundle


class Group(StrEnum):
    """Pathologies that the segmenter learned from, or others."""

    seen = "seen"
    unseen = "unseen"


def tune(
    manifest: options.ManifestPath,
    output: options.Output,
    model: Annotated[
        Path | None, typer.Argument(help="Model (a folder, zip or name) with a segmenter; default: the bundled one.")
    ] = None,
    modality: options.Modalities = None,
    pathology: options.Pathologies = None,
    store: Annotated[
        Group | None, typer.Option("--store", help="Write a new model with the best weight for this group.")
    ] = None,
    output_model: Annotated[
        Path | None, typer.Option("--output-model", help="Folder of that model; MODEL is not changed.")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Score the split "val" with β·residual + (1 − β)·probability for β = 0, 0.1 … 1 (appendix D of the paper)."""
    options.set_up(threads=threads, no_progress=no_progress)
    if (store is None) != (output_model is None):
        raise UsageError("--store and --output-model must be used together", remedy="give both, or neither")
    from halebrain.evaluation.sweep import best_point
    from halebrain.inference.predictor import Predictor
    from halebrain.io.manifest import Manifest
    from halebrain.models.store import load_model

    if output_model is not None and output_model.exists():
        raise CannotWriteError("the output model must not exist yet", where=output_model, remedy="choose another")
    rows = Manifest.read(manifest).split("val").select(lambda r: r.lesion is not None and not r.is_healthy)
    rows = rows.select(lambda r: not modality or r.modality in modality)
    rows = rows.select(lambda r: not pathology or r.pathology in pathology)
    bundle = load_model(model)
    failures = Failures(output)
    predictor = Predictor(bundle, device=options.find_device(device), seed=seed)
    points, rows = run_sweep(predictor, rows, failures)
    files = _write(points, rows, bundle, output, seed)
    results = Results("tune", as_json=as_json)
    best = {group.value: best_point(points, group) for group in Group}
    for group, point in best.items():
        if point is not None:
            results.line(f"{group}\tweight={point.weight:g}\tauprc={point.auprc:.4f}\tn={point.n_scans}")
    if store is not None and output_model is not None:
        chosen = best[store.value]
        if chosen is None:
            raise MissingInputError(
                f'--store {store} needs validation scans of a pathology that is "{store}"',
                remedy="remove --store, or add such scans",
            )
        store_weight(bundle, chosen, rows, output_model)
    for path in [*files, *([] if output_model is None else [output_model])]:
        results.line(path)
    table, weights = ("--manifest", manifest), counted(len({point.weight for point in points}), "weight")
    results.finish(
        f"{counted(len(rows), 'scan')} scored with {weights} of the residual",
        wrote=[output, *([] if output_model is None else [output_model])],
        then=[] if output_model is None else [command_line("calibrate", output_model, *table)],
        document={
            "output": output,
            "files": files,
            "model": output_model,
            "best": {group: None if point is None else vars(point) for group, point in best.items()},
            "failed": failed_scans(failures.reasons),
        },
    )
    failures.refuse(
        "every scan should be scored",
        len(rows) + len(failures.reasons),
        where=manifest,
        remedy="the weights are compared without them; fix the problem in each line and tune again",
    )


def run_sweep(predictor: "Predictor", rows: "Manifest", failures: Failures) -> "tuple[list[SweepPoint], Manifest]":
    """Run the networks once over each scan and score every weight, on the working grid.

    Args:
        predictor: The model.
        rows: Annotated validation scans.
        failures: Collects scans that fail; the others are scored without them.

    Returns:
        The score of each weight, and the scans that took part.

    Raises:
        MissingInputError: There is no such scan, or no lesion in any.
        DataError: The model has no segmenter, or was trained on one of the subjects.
    """
    from halebrain.evaluation.sweep import SEEN, UNSEEN, FusionSweep
    from halebrain.inference.cohort import score_scan
    from halebrain.workflows.evaluate import refuse_seen

    bundle, where = predictor.bundle, rows.source or "manifest"
    if len(rows) == 0:
        raise MissingInputError(
            'tuning needs annotated scans of the split "val"',
            where=where,
            remedy='write val under "split" for some patients with a mask under "lesion"',
        )
    if bundle.segmenter is None:
        raise DataError(
            "tuning needs a model with a segmenter",
            where=bundle.path or "model",
            remedy="give a detector, which has both stages; halebrain models info MODEL shows the kind",
        )
    refuse_seen(rows, bundle.seen_subjects("train_subjects"), "tuned on")
    learned = {name for summary in bundle.training.values() for name in summary.get("pathologies", ())}
    sweep = FusionSweep()

    def score(record: "ScanRecord") -> None:
        scored = score_scan(predictor, record)
        # As evaluation counts them: lesion that the brain mask missed is missed.
        lesion = scored.lesion_working()
        region = scored.scan.brain_mask | lesion
        fused = _fuser(scored, region, predictor.postprocessing.erosion)
        sweep.add(SEEN if (scored.record.pathology or "unknown") in learned else UNSEEN, fused, lesion[region])

    done = failures.each(score, rows.records, name=lambda record: record.scan_id, description="Tuning")
    points = sweep.finish()
    if not points:
        raise MissingInputError(
            "tuning needs lesions on the working grid", where=where, remedy="give scans with larger lesions"
        )
    return points, replace(rows, records=tuple(done))


def _fuser(scored: "ScoredScan", region: "MaskArray", erosion: int) -> "Callable[[float], FloatArray]":
    """Return β → score of the voxels of `region`, `(m,)`; the maps are fused again, without running the networks."""
    from halebrain.inference.postprocess import erode, fuse

    inside = erode(scored.scan.brain_mask, erosion)[region]
    residual, probability = scored.maps.residual[region], scored.maps.probability[region]
    return lambda weight: fuse(residual, probability, inside, residual_weight=weight)


def store_weight(bundle: "Bundle", chosen: "SweepPoint", rows: "Manifest", path: Path) -> Path:
    """Write the model with another weight to `path`, and return it.

    Thresholds go, as they were chosen on other scores; the subjects stay on record, so that none is evaluated on.
    """
    from halebrain.models.bundle import save_bundle
    from halebrain.models.card import model_card

    settings = {**bundle.config.postprocessing, "residual_weight": chosen.weight}
    before = bundle.training.get("tuning", {}).get("val_subjects", [])
    tuning = {
        "train_subjects": [],
        "val_subjects": sorted({*before, *rows.subjects()}),
        "manifest_sha256": rows.fingerprint(),
        "tuned_for": chosen.group,
        "residual_weight": chosen.weight,
    }
    tuned = replace(
        bundle,
        config=bundle.config.model_copy(update={"postprocessing": settings}),
        training={**bundle.training, "tuning": tuning},
        calibration={},
    )
    save_bundle(tuned, path, card=model_card(tuned))
    return path


def _write(points: "list[SweepPoint]", rows: "Manifest", bundle: "Bundle", output: Path, seed: int) -> list[Path]:
    """Write the table, the JSON with its provenance, and the figure; return their paths."""
    import json
    from dataclasses import asdict

    from halebrain.core.atomic import write_text
    from halebrain.core.versions import versions
    from halebrain.evaluation.sweep import best_point, sweep_tsv
    from halebrain.report.evaluation_figures import sweep_figure
    from halebrain.report.figures import save_figure

    best = {group.value: best_point(points, group) for group in Group}
    content = {
        "points": [asdict(point) for point in points],
        "chosen": {group: None if point is None else point.weight for group, point in best.items()},
        "provenance": {
            "model_sha256": bundle.sha256,
            "manifest_sha256": rows.fingerprint(),
            "subjects": rows.subjects(),
            "split": "val",
            "grid": "working grid, resampled labels",
            "seed": seed,
            "versions": versions(),
        },
    }
    paths = [output / f"sweep.{ending}" for ending in ("tsv", "json", "png")]
    write_text(paths[0], sweep_tsv(points))
    write_text(paths[1], json.dumps(content, indent=2) + "\n")
    save_figure(sweep_figure(points), paths[2])
    return paths
