"""`halebrain calibrate`: choose thresholds on validation scans and store them in the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli.console import Console, echo_message, refuse_without_effect
from halebrain.cli.options import from_settings
from halebrain.cli.results import Results, command_line, failed_scans
from halebrain.core.wording import counted
from halebrain.workflows.settings import CalibrateSettings, ManifestPath, Option

if TYPE_CHECKING:
    from halebrain.workflows.calibrate import CalibrationResults


@from_settings()
def calibrate(
    model: Annotated[Path, Option("Model folder; with --output also a zip or a name.", is_argument=True)],
    manifest: ManifestPath,
    context: typer.Context,
    settings: CalibrateSettings,
    console: Console,
) -> None:
    """Choose thresholds on the split "val" and store them in MODEL, with a hash of these scans."""
    results = console.begin("calibrate")
    if not settings.exams:
        refuse_without_effect(context, ("fusion",), "needs --exams", received="--fusion alone", remedy="add --exams")
    from halebrain.workflows.calibrate import calibrate_on_manifest

    done = calibrate_on_manifest(model, manifest, settings)
    _print_summary(results, manifest, done)
    done.failures.refuse(
        "every scan should be used for the thresholds",
        len(done.rows),
        where=manifest,
        remedy="the thresholds are stored, chosen without them; fix the problem in each line and calibrate again",
    )


def _print_summary(results: Results, manifest: Path, done: "CalibrationResults") -> None:
    """Print the thresholds, the default and the closing summary."""
    from halebrain.core.config import with_former_keys

    calibration, failed, model = done.calibration, done.failures.reasons, done.model
    for contrast, table in {"": calibration.thresholds, **calibration.modalities}.items():
        for stored, threshold in table.items():
            line = f"{stored}\t{threshold.value:.4f}\t{threshold.method}\tn={threshold.n_scans}"
            results.line(f"{line}\t{contrast}" if contrast else line)
    for contrast, scans in sorted(done.healthy_map.items()):
        of = f"{counted(scans.n_scans, 'healthy scan')} of {counted(len(scans.subjects), 'person', 'people')}"
        echo_message(f"healthy residual map of {contrast}: {of}")
    echo_message(f"--threshold auto means {calibration.default}")
    results.finish(
        f"{counted(len(calibration.thresholds), 'threshold')} stored; --threshold auto means {calibration.default}",
        wrote=[model],
        then=[
            command_line("evaluate", model, "--manifest", manifest, "-o", "evaluation"),
            command_line("detect", "-i", "SCAN", "-o", "OUT", "-m", model),
        ],
        document={
            "model": model,
            "scans": len(done.rows) - len(failed),
            "subjects": len(calibration.subjects),
            "failed": failed_scans(failed),
            "healthy_map": {contrast: scans.n_scans for contrast, scans in sorted(done.healthy_map.items())},
            "modalities": {},
            **with_former_keys(calibration.model_dump(mode="json", include={"default", "thresholds", "modalities"})),
        },
    )
