"""`halebrain evaluate`: how well a model does on annotated scans."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import options
from halebrain.core.errors import MissingInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from halebrain.evaluation.baselines import AtlasModel
    from halebrain.evaluation.case import Case
    from halebrain.evaluation.evaluate import Evaluation
    from halebrain.evaluation.reconstruction_quality import LevelQuality
    from halebrain.inference.cohort import ScoredScan
    from halebrain.inference.predictor import Predictor
    from halebrain.io.manifest import Manifest


class Grid(StrEnum):
    """Where voxels are counted."""

    native = "native"
    working = "working"


class Protocol(StrEnum):
    """Whose definition of the numbers."""

    behrendt2024 = "behrendt2024"


def evaluate(
    output: options.Output,
    model: Annotated[Path | None, typer.Argument(help="Model bundle, scored on a manifest.")] = None,
    manifest: Annotated[Path | None, typer.Option("--manifest", help="Table of scans (TSV), with MODEL.")] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Folder of anyone's anomaly maps or masks, instead of MODEL.")
    ] = None,
    references: Annotated[Path | None, typer.Option("--references", help="Folder of true lesions.")] = None,
    brain_masks: Annotated[
        Path | None, typer.Option("--brain-masks", help="Folder of brain masks; without it every voxel counts.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Values of the references that are lesion: all, or 1,4.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, val, test, or all.")] = "test",
    modality: Annotated[list[str] | None, typer.Option("--modality", help="Only these modalities.")] = None,
    pathology: Annotated[list[str] | None, typer.Option("--pathology", help="Only these diseases.")] = None,
    threshold: Annotated[str, typer.Option("--threshold", help="auto, a number, or a stored name.")] = "auto",
    min_lesion_mm3: options.MinLesion = None,
    grid: Annotated[Grid, typer.Option("--grid", help="native, or the model's working grid (2 mm).")] = Grid.native,
    protocol: Annotated[
        Protocol | None, typer.Option("--protocol", help="behrendt2024: the paper's own numbers, on its grid.")
    ] = None,
    reconstruction: Annotated[
        bool, typer.Option("--reconstruction", help="Judge the reconstruction too, at each noise level.")
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="More rows that need no network; atlas of the healthy training scans.")
    ] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    no_progress: options.NoProgress = False,
) -> None:
    """Score MODEL on the annotated scans of a manifest, or a folder of anyone's results against references."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.evaluation.tables import headline, write_evaluation
    from halebrain.report.evaluation_page import write_evaluation_page

    if (model is None) == (predictions is None):
        raise UsageError("evaluate takes either MODEL and --manifest, or --predictions and --references")
    if model is not None:
        if manifest is None:
            raise UsageError("a model is evaluated on a manifest", remedy="give --manifest")
        chosen: dict[str, Any] = {
            "split": split,
            "modality": modality,
            "pathology": pathology,
            "reconstruction": reconstruction,
        }
        chosen["working"] = grid is Grid.working or protocol is not None
        chosen |= {"min_lesion_mm3": min_lesion_mm3, "baselines": baselines}
        evaluation = _evaluate_model(model, manifest, chosen, threshold, protocol=protocol, seed=seed, device=device)
    else:
        assert predictions is not None  # one of the two is given
        if references is None:
            raise UsageError("predictions are evaluated against references", remedy="give --references")
        evaluation = _evaluate_folders(predictions, references, brain_masks, labels, threshold, seed)
    paths = [*write_evaluation(evaluation, output), output / "index.html"]
    write_evaluation_page(evaluation, paths[-1], title=f"Evaluation of {(model or predictions or output).name}")
    typer.echo(headline(evaluation), nl=False)
    for path in paths:
        typer.echo(path)


def _evaluate_model(
    model: Path,
    manifest: Path,
    chosen: dict[str, Any],
    threshold: str,
    *,
    protocol: "Protocol | None",
    seed: int,
    device: str,
) -> "Evaluation":
    from halebrain.cli.baselines import fit_atlases
    from halebrain.evaluation.protocols import behrendt2024
    from halebrain.evaluation.threshold import select_threshold
    from halebrain.inference.predictor import Predictor
    from halebrain.io.manifest import Manifest
    from halebrain.models.bundle import load_bundle

    table = Manifest.read(manifest)
    rows = table.select(lambda r: chosen["split"] in ("all", r.split))
    rows = rows.select(lambda r: not chosen["modality"] or r.modality in chosen["modality"])
    rows = rows.select(lambda r: not chosen["pathology"] or r.pathology in chosen["pathology"])
    bundle = load_bundle(model)
    value, name = select_threshold(options.read_calibration(bundle), threshold)
    predictor = Predictor(bundle, device=options.find_device(device), seed=seed)
    how = {key: chosen[key] for key in ("working", "reconstruction", "min_lesion_mm3")}
    how["atlases"] = fit_atlases(table, rows, predictor.preprocessor) if chosen["baselines"] else None
    evaluation = run_evaluation(predictor, rows, threshold=value, threshold_name=name, **how)
    return behrendt2024(evaluation) if protocol is Protocol.behrendt2024 else evaluation


def _evaluate_folders(
    predictions: Path, references: Path, brain_masks: Path | None, labels: str | None, threshold: str, seed: int
) -> "Evaluation":
    from halebrain.evaluation.folders import evaluate_pairs
    from halebrain.evaluation.pairs import PairOptions, find_pairs, parse_labels
    from halebrain.evaluation.threshold import select_threshold

    value = None if threshold == "auto" else select_threshold(None, threshold)[0]
    pairs = find_pairs(predictions, references, brain_masks)
    wanted = PairOptions(labels=parse_labels(labels), threshold=value)
    evaluation, notes = evaluate_pairs(pairs, wanted, method=predictions.name, seed=seed)
    for note in notes:
        typer.echo(f"halebrain: {note}", err=True)
    if value is None and evaluation.curves:
        typer.echo("halebrain: no --threshold given for graded maps: metrics on masks are left out", err=True)
    return evaluation


def run_evaluation(
    predictor: "Predictor",
    rows: "Manifest",
    *,
    threshold: float,
    threshold_name: str,
    working: bool = False,
    reconstruction: bool = False,
    min_lesion_mm3: float | None = None,
    atlases: "dict[str, AtlasModel] | None" = None,
) -> "Evaluation":
    """Score every scan of `rows` that is annotated or declared healthy.

    Args:
        predictor: The model.
        rows: The scans.
        threshold: Frozen before.
        threshold_name: Where it comes from.
        working: On the model's working grid with resampled labels, instead of the scan's own with the original ones.
        reconstruction: Measure the quality of the reconstruction at each level too.
        min_lesion_mm3: Smallest lesion kept in the model's mask; `None` = as the model's configuration says.
        atlases: Modality → atlas of healthy scans; `{}` = the other baselines without it, `None` = the default one.

    Raises:
        MissingInputError: There is no such scan.
        DataError: A subject took part in training or in the choice of the threshold.
        UsageError: The model has no reconstruction to measure.
    """
    from halebrain.evaluation.evaluate import Evaluator
    from halebrain.evaluation.statistics import INTERVAL
    from halebrain.inference.cohort import score_manifest
    from halebrain.inference.outputs import versions

    if reconstruction and not predictor.bundle.reconstructor.gives_image:
        raise UsageError(
            "--reconstruction needs a model that gives a pseudo-healthy picture",
            received=predictor.bundle.config.reconstructor.name,
            remedy="leave the option out",
        )
    rows = rows.select(lambda r: r.lesion is not None or r.is_healthy)
    if len(rows) == 0:
        raise MissingInputError("evaluation needs annotated or healthy scans", where=rows.source or "manifest")
    seen = predictor.bundle.seen_subjects("train_subjects", "val_subjects") | predictor.bundle.calibration_subjects()
    options.refuse_seen(rows, seen, "evaluated")
    smallest = predictor.postprocessing.min_lesion_mm3 if min_lesion_mm3 is None else min_lesion_mm3
    evaluator, levels = Evaluator(seed=predictor.seed), []
    for scored in score_manifest(predictor, rows, description="Evaluating"):
        for method, case in _methods(scored, threshold, smallest, working=working, atlases=atlases):
            image = scored.scan.image if working else scored.volume.data
            evaluator.add(method, case, image=image, show=method == "model")
        if reconstruction:
            levels += _levels(predictor, scored)
    provenance: dict[str, Any] = {
        "model_sha256": predictor.bundle.sha256,
        "manifest_sha256": rows.fingerprint(),
        "threshold": {"value": threshold, "name": threshold_name},
        "min_lesion_mm3": smallest,
        "seed": predictor.seed,
        "levels": list(predictor.levels),
        "grid": "working grid, resampled labels" if working else "native, original labels",
        "interval": INTERVAL,
        "atlas_scans": {modality: atlas.n_scans for modality, atlas in (atlases or {}).items()},
        "versions": versions(),
    }
    return replace(evaluator.finish(provenance), reconstruction=levels)


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
    from halebrain.evaluation.case import Case, axial_axis
    from halebrain.inference.postprocess import to_mask

    result, record, scan, maps = scored.result, scored.record, scored.scan, scored.maps
    lesion = np.zeros(scored.volume.shape, dtype=bool) if scored.lesion is None else scored.lesion
    if working:
        lesion = scored.lesion_working()
        image, brain_mask, affine, spacing_mm = scan.image, scan.brain_mask, scan.grid.affine, scan.grid.spacing_mm
        found = {"model": maps.score, "segmenter alone": maps.probability, "reconstruction alone": maps.residual}
    else:
        image, brain_mask = scored.volume.data, result.brain_mask
        affine, spacing_mm = scored.volume.affine, scored.volume.spacing_mm
        found = {
            "model": result.score,
            "segmenter alone": result.probability,
            "reconstruction alone": result.residual_map,
        }
    region = brain_mask | lesion
    found |= baseline_scores(scored, image, region, working=working, atlases=atlases)
    voxel_mm3 = float(np.prod(spacing_mm))
    kept = to_mask(found["model"], threshold=threshold, min_lesion_mm3=min_lesion_mm3, voxel_mm3=voxel_mm3)
    for method, score in found.items():
        case = Case(
            scan_id=record.scan_id,
            subject=record.subject,
            modality=record.modality,
            pathology=record.pathology or "unknown",
            reference=lesion,
            region=region,
            spacing_mm=spacing_mm,
            score=score,
            mask=kept if method == "model" else None,
            axial_axis=axial_axis(affine),
            site=record.site,
            age=record.age,
            sex=record.sex,
        )
        yield method, case
