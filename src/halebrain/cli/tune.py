"""`halebrain tune`: choose the weight of residual and segmenter on validation scans."""

from typing import TYPE_CHECKING

from halebrain.cli.console import Console
from halebrain.cli.options import from_settings
from halebrain.cli.results import command_line, failed_scans
from halebrain.core.wording import counted
from halebrain.workflows.settings import ManifestPath, Output, TuneSettings

if TYPE_CHECKING:
    from halebrain.evaluation.sweep import SweepPoint


@from_settings()
def tune(manifest: ManifestPath, output: Output, settings: TuneSettings, console: Console) -> None:
    """Score the split "val" with residual weights 0, 0.1 … 1, fused as the model has it (appendix D of the paper)."""
    results = console.begin("tune")
    from halebrain.workflows.tune import best_points, tune_model

    def tell_scores(points: "list[SweepPoint]") -> None:
        for group, point in best_points(points).items():
            if point is not None:
                results.line(f"{group}\tweight={point.weight:g}\tauprc={point.auprc:.4f}\tn={point.n_scans}")

    done = tune_model(manifest, output, settings, scored=tell_scores)
    models = [] if settings.output_model is None else [settings.output_model]
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
            "model": settings.output_model,
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
