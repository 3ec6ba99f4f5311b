"""`halebrain tune`: choose the weight of residual and segmenter on validation scans."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import options
from halebrain.cli.results import Results, command_line, failed_scans
from halebrain.core.errors import UsageError
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.evaluation.sweep import SweepPoint


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
    from halebrain.workflows.tune import TuneSettings, best_points, tune_model

    results = Results("tune", as_json=as_json)

    def tell_scores(points: "list[SweepPoint]") -> None:
        for group, point in best_points(points).items():
            if point is not None:
                results.line(f"{group}\tweight={point.weight:g}\tauprc={point.auprc:.4f}\tn={point.n_scans}")

    settings = TuneSettings(
        model=model,
        modalities=tuple(modality or ()),
        pathologies=tuple(pathology or ()),
        store=store,
        output_model=output_model,
        seed=seed,
        device=device,
    )
    done = tune_model(manifest, output, settings, scored=tell_scores)
    models = [] if output_model is None else [output_model]
    for path in [*done.files, *models]:
        results.line(path)
    failed, weights = done.failures.reasons, counted(len({point.weight for point in done.points}), "weight")
    results.finish(
        f"{counted(len(done.rows), 'scan')} scored with {weights} of the residual",
        wrote=[output, *models],
        then=[command_line("calibrate", path, "--manifest", manifest) for path in models],
        document={
            "output": output,
            "files": done.files,
            "model": output_model,
            "best": {g: None if point is None else vars(point) for g, point in best_points(done.points).items()},
            "failed": failed_scans(failed),
        },
    )
    done.failures.refuse(
        "every scan should be scored",
        len(done.rows) + len(failed),
        where=manifest,
        remedy="the weights are compared without them; fix the problem in each line and tune again",
    )
