"""`halebrain evaluate`: evaluate a model on annotated scans."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, failed_scans, left_out_groups, look_at
from halebrain.core.errors import UsageError
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.workflows.evaluate import EvaluationResults


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
    if predictions is None:
        options.refuse_without_effect(context, _OF_FOLDERS, "needs --predictions and cannot be used with a model")
        if manifest is None:
            raise UsageError("a model is evaluated on a manifest", remedy="give --manifest")
    elif references is None:
        raise UsageError("predictions are evaluated against references", remedy="give --references")
    from halebrain.workflows.evaluate import FolderEvaluation, ModelEvaluation, evaluate_folders, evaluate_model

    if manifest is not None:
        asked = ModelEvaluation(
            model=model,
            manifest=manifest,
            split=split,
            modalities=tuple(modality or ()),
            pathologies=tuple(pathology or ()),
            threshold=threshold,
            min_lesion_mm3=min_lesion_mm3,
            working=grid is Grid.working,
            paper=protocol is Protocol.behrendt2024,
            reconstruction=reconstruction,
            baselines=baselines,
            seed=seed,
            device=device,
            notify=options.echo_message,
        )
        done = evaluate_model(asked, output)
    else:
        assert predictions is not None, "checked above"
        assert references is not None, "checked above"
        folders = FolderEvaluation(predictions, references, brain_masks, labels, threshold, seed, options.echo_message)
        done = evaluate_folders(folders, output)
    _tell(Results("evaluate", as_json=as_json), output, done)
    done.failures.refuse(
        "every scan should be scored",
        done.n_scored + len(done.failures.reasons),
        where=output / "summary.json",
        remedy="the results cover the other scans; fix the problem in each line and evaluate again",
    )


def _tell(results: Results, output: Path, done: "EvaluationResults") -> None:
    """Print the headline, the paths and the closing summary."""
    from halebrain.evaluation.tables import headline

    for line in (*headline(done.evaluation).splitlines(), *done.files):
        results.line(line)
    failed = done.failures.reasons
    results.finish(
        f"{counted(done.n_scored, 'scan')} scored" + (f"; {counted(len(failed), 'scan')} failed" if failed else ""),
        wrote=[output],
        then=[look_at(done.files[-1])],
        document={
            "output": output,
            "files": done.files,
            "left_out": left_out_groups(done.left_out),
            "failed": failed_scans(failed),
            **json.loads((output / "summary.json").read_text("utf-8")),
        },
    )
