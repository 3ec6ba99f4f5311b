"""`halebrain evaluate`: evaluate a model on annotated scans."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, failed_scans, look_at, tell_left_out
from halebrain.core.errors import UsageError
from halebrain.core.failures import Failures
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.evaluation.evaluate import Evaluation


class Grid(StrEnum):
    """Where voxels are counted."""

    native = "native"
    working = "working"


class Protocol(StrEnum):
    """Whose definition of the numbers."""

    behrendt2024 = "behrendt2024"


Model = Annotated[
    Path | None,
    typer.Argument(
        autocompletion=completion.model_names, help="Model to evaluate on a manifest; default: the bundled one."
    ),
]
Table = Annotated[Path | None, typer.Option("--manifest", help="Table of scans (TSV), with MODEL.")]
Predictions = Annotated[
    Path | None, typer.Option("--predictions", help="Folder of anomaly maps or masks of any method, instead of MODEL.")
]
References = Annotated[Path | None, typer.Option("--references", help="Folder of true lesions.")]
BrainMasks = Annotated[
    Path | None, typer.Option("--brain-masks", help="Folder of brain masks; without it every voxel counts.")
]
Labels = Annotated[
    str | None, typer.Option("--labels", help="Lesion labels, in both folders: all, or for example 1,4.")
]
Split = Annotated[str, typer.Option("--split", help="train, val, test, or all.")]
Threshold = Annotated[str, typer.Option("--threshold", help="auto, a number, or the name of a stored threshold.")]
CountedOn = Annotated[Grid, typer.Option("--grid", help="native, or the model's working grid (2 mm).")]
WhoseNumbers = Annotated[
    Protocol | None, typer.Option("--protocol", help="behrendt2024: the paper's own numbers, on its grid.")
]
Reconstruction = Annotated[
    bool, typer.Option("--reconstruction", help="Also evaluate the reconstruction, at each noise level.")
]
Baselines = Annotated[
    bool, typer.Option("--baselines", help="More baselines without networks: an atlas of the healthy training scans.")
]


_OF_MODEL = ("split", "modality", "pathology", "min_lesion_mm3", "grid", "protocol", "reconstruction", "baselines")
_OF_FOLDERS = ("references", "brain_masks", "labels")


def evaluate(
    context: typer.Context,
    output: options.Output,
    model: Model = None,
    manifest: Table = None,
    predictions: Predictions = None,
    references: References = None,
    brain_masks: BrainMasks = None,
    labels: Labels = None,
    split: Split = "test",
    modality: options.Modalities = None,
    pathology: options.Pathologies = None,
    threshold: Threshold = "auto",
    min_lesion_mm3: options.MinLesion = None,
    grid: CountedOn = Grid.native,
    protocol: WhoseNumbers = None,
    reconstruction: Reconstruction = False,
    baselines: Baselines = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Evaluate a model on the annotated scans of a manifest, or result files of any method against references."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.evaluation.tables import headline, write_evaluation
    from halebrain.models.store import DEFAULT_MODEL
    from halebrain.report.evaluation_page import write_evaluation_page

    if (model is None and manifest is None) == (predictions is None):
        raise UsageError(
            "evaluate takes either MODEL and --manifest, or --predictions and --references",
            received="both" if predictions is not None else "neither",
            remedy="give -o OUT and MODEL --manifest M, or -o OUT --predictions DIR --references DIR",
        )
    if predictions is not None:
        options.refuse_without_effect(
            context, (*_OF_MODEL, "device"), "needs a model and cannot be used with --predictions"
        )
    elif protocol is not None:
        options.refuse_without_effect(context, ("grid",), "has no effect with --protocol, which sets its own")
    left_out: list[dict[str, object]] = []
    failures = Failures(output)
    if predictions is None:
        options.refuse_without_effect(context, _OF_FOLDERS, "needs --predictions and cannot be used with a model")
        if manifest is None:
            raise UsageError("a model is evaluated on a manifest", remedy="give --manifest")
        chosen: dict[str, Any] = {"split": split, "modality": modality, "pathology": pathology}
        chosen["reconstruction"] = reconstruction
        chosen["working"] = grid is Grid.working or protocol is not None
        chosen |= {"min_lesion_mm3": min_lesion_mm3, "baselines": baselines}
        how: dict[str, Any] = {"protocol": protocol, "seed": seed, "device": device}
        evaluation = _evaluate_model(model, manifest, chosen, threshold, failures, **how)
    else:
        if references is None:
            raise UsageError("predictions are evaluated against references", remedy="give --references")
        evaluation, left_out = _evaluate_folders(
            predictions, references, brain_masks, labels, threshold, seed, failures
        )
    paths = [*write_evaluation(evaluation, output), output / "index.html"]
    judged = predictions or model or Path(DEFAULT_MODEL)
    write_evaluation_page(evaluation, paths[-1], title=f"Evaluation of {judged.name}")
    results = Results("evaluate", as_json=as_json)
    for line in (*headline(evaluation).splitlines(), *paths):
        results.line(line)
    scored = len({row.scan_id for row in evaluation.rows})
    results.finish(
        f"{counted(scored, 'scan')} scored"
        + (f"; {counted(len(failures.reasons), 'scan')} failed" if failures.reasons else ""),
        wrote=[output],
        then=[look_at(paths[-1])],
        document={
            "output": output,
            "files": paths,
            "left_out": left_out,
            "failed": failed_scans(failures.reasons),
            **json.loads((output / "summary.json").read_text("utf-8")),
        },
    )
    failures.refuse(
        "every scan should be scored",
        scored + len(failures.reasons),
        where=output / "summary.json",
        remedy="the results cover the other scans; fix the problem in each line and evaluate again",
    )


def _evaluate_model(
    model: Path | None,
    manifest: Path,
    chosen: dict[str, Any],
    threshold: str,
    failures: Failures,
    *,
    protocol: "Protocol | None",
    seed: int,
    device: str,
) -> "Evaluation":
    from halebrain.cli.baselines import fit_atlases
    from halebrain.cli.scoring import run_evaluation
    from halebrain.evaluation.protocols import behrendt2024
    from halebrain.inference.predictor import Predictor
    from halebrain.io.manifest import Manifest
    from halebrain.models.store import load_model
    from halebrain.thresholds.calibration import read_calibration
    from halebrain.thresholds.choose import ThresholdSelector

    table = Manifest.read(manifest)
    rows = table.select(lambda r: chosen["split"] in ("all", r.split))
    rows = rows.select(lambda r: not chosen["modality"] or r.modality in chosen["modality"])
    rows = rows.select(lambda r: not chosen["pathology"] or r.pathology in chosen["pathology"])
    bundle = load_model(model)
    point = ThresholdSelector(read_calibration(bundle), threshold)
    predictor = Predictor(bundle, device=options.find_device(device), seed=seed)
    how = {key: chosen[key] for key in ("working", "reconstruction", "min_lesion_mm3")}
    how["atlases"] = fit_atlases(table, rows, predictor.preprocessor) if chosen["baselines"] else None
    evaluation = run_evaluation(predictor, rows, point=point, failures=failures, **how)
    return behrendt2024(evaluation) if protocol is Protocol.behrendt2024 else evaluation


def _evaluate_folders(
    predictions: Path,
    references: Path,
    brain_masks: Path | None,
    labels: str | None,
    threshold: str,
    seed: int,
    failures: Failures,
) -> tuple["Evaluation", list[dict[str, object]]]:
    from halebrain.evaluation.folders import evaluate_pairs
    from halebrain.evaluation.pairs import PairOptions, find_pairs, parse_labels, unused_images
    from halebrain.thresholds.choose import select_threshold

    value = None if threshold == "auto" else select_threshold(None, threshold)[0]
    pairs = find_pairs(predictions, references, brain_masks)
    left_out = tell_left_out(unused_images(pairs, predictions, references, brain_masks))
    wanted = PairOptions(labels=parse_labels(labels), threshold=value)
    evaluation, notes = evaluate_pairs(pairs, wanted, method=predictions.name, seed=seed, failures=failures)
    for note in notes:
        typer.echo(f"halebrain: {note}", err=True)
    if value is None and evaluation.curves:
        typer.echo("halebrain: no --threshold given for anomaly maps: metrics on masks are left out", err=True)
    return evaluation, left_out
