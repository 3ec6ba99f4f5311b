"""`halebrain evaluate`: how well a model does on annotated scans."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import options
from halebrain.core.errors import DataError, MissingInputError

if TYPE_CHECKING:
    from halebrain.evaluation.evaluate import Evaluation, ScanScores
    from halebrain.inference.cohort import ScoredScan
    from halebrain.inference.predictor import Predictor
    from halebrain.io.manifest import Manifest
    from halebrain.models.bundle import Bundle


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model bundle.")],
    manifest: options.ManifestPath,
    output: options.Output,
    split: Annotated[str, typer.Option("--split", help="train, val, test, or all.")] = "test",
    modality: Annotated[list[str] | None, typer.Option("--modality", help="Only these modalities.")] = None,
    pathology: Annotated[list[str] | None, typer.Option("--pathology", help="Only these diseases.")] = None,
    threshold: Annotated[str, typer.Option("--threshold", help="auto, a number, or a stored name.")] = "auto",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    no_progress: options.NoProgress = False,
) -> None:
    """Score MODEL on annotated scans, on their own grids, beside reconstruction alone and plain intensity."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.evaluation.evaluate import markdown_table, write_evaluation
    from halebrain.evaluation.threshold import select_threshold
    from halebrain.inference.predictor import Predictor
    from halebrain.io.manifest import Manifest
    from halebrain.models.bundle import load_bundle

    rows = Manifest.read(manifest).select(lambda r: split in ("all", r.split))
    rows = rows.select(
        lambda r: (not modality or r.modality in modality) and (not pathology or r.pathology in pathology)
    )
    bundle = load_bundle(model)
    value, name = select_threshold(options.read_calibration(bundle), threshold)
    predictor = Predictor(bundle, device=options.find_device(device), seed=seed)
    evaluation = run_evaluation(predictor, rows, threshold=value, threshold_name=name)
    paths = write_evaluation(evaluation, output)
    typer.echo(markdown_table(evaluation), nl=False)
    for path in paths:
        typer.echo(path)


def run_evaluation(predictor: "Predictor", rows: "Manifest", *, threshold: float, threshold_name: str) -> "Evaluation":
    """Score every scan of `rows` that is annotated or declared healthy.

    Raises:
        MissingInputError: There is no such scan.
        DataError: A subject took part in training or in the choice of the threshold.
    """
    from halebrain.evaluation.evaluate import Evaluation, pooled_values, score_scan, summarise
    from halebrain.inference.cohort import score_manifest
    from halebrain.inference.outputs import versions

    rows = rows.select(lambda r: r.lesion is not None or r.is_healthy)
    if len(rows) == 0:
        raise MissingInputError("evaluation needs annotated or healthy scans", where=rows.source or "manifest")
    _refuse_seen(rows, predictor.bundle)
    table = []
    kept: dict[str, list[ScanScores]] = {}
    for scored in score_manifest(predictor, rows, description="Evaluating"):
        for method, scores in _methods(scored).items():
            table += score_scan(scores, threshold=threshold if method == "model" else None, method=method)
            kept.setdefault(method, []).append(scores)
    pooled = {
        method: pooled_values(scans, threshold=threshold if method == "model" else None)
        for method, scans in kept.items()
    }
    provenance: dict[str, Any] = {
        "model_sha256": predictor.bundle.sha256,
        "manifest_sha256": rows.fingerprint(),
        "threshold": {"value": threshold, "name": threshold_name},
        "seed": predictor.seed,
        "levels": list(predictor.levels),
        "grid": "native",
        "interval": "95 % BCa bootstrap of the mean over scans, subjects drawn whole",
        "versions": versions(),
    }
    return Evaluation(table, summarise(table, seed=predictor.seed, pooled=pooled), provenance)


def _methods(scored: "ScoredScan") -> dict[str, "ScanScores"]:
    """Return the scan as each method scores it, over its brain; lesion that the brain mask missed counts as missed."""
    import numpy as np

    from halebrain.evaluation.evaluate import ScanScores, intensity_rank

    brain_mask = scored.result.brain_mask
    lesion = np.zeros(brain_mask.shape, dtype=bool) if scored.lesion is None else scored.lesion
    inside = brain_mask | lesion
    record = scored.record
    maps = {
        "model": scored.result.score[inside],
        "reconstruction alone": scored.result.residual_map[inside],
        "segmenter alone": scored.result.probability[inside],
        "intensity rank": intensity_rank(scored.volume.data[inside], record.modality),
    }
    about = (record.scan_id, record.subject, record.modality, record.pathology)
    return {
        method: ScanScores(*about, score, lesion[inside], scored.volume.spacing_mm) for method, score in maps.items()
    }


def _refuse_seen(rows: "Manifest", bundle: "Bundle") -> None:
    """Stop where a subject was learned from or calibrated on: its score would flatter."""
    seen: dict[str, str] = dict.fromkeys(bundle.calibration.get("subjects", ()), "calibration")
    for stage, summary in bundle.training.items():
        seen |= dict.fromkeys([*summary["train_subjects"], *summary["val_subjects"]], stage)
    taken = [subject for subject in rows.subjects() if subject in seen]
    if taken:
        named = ", ".join(f"{s} ({seen[s]})" for s in taken[:5])
        raise DataError(
            "a scan that took part in training or calibration must not be evaluated",
            received=named + (f" and {len(taken) - 5} more" if len(taken) > 5 else ""),
            where=rows.source or "manifest",
            remedy="evaluate the split 'test', or rename subjects that are other people",
        )
