"""`halebrain calibrate`: choose thresholds on validation scans and store them in the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import options
from halebrain.cli.results import Results, command_line, failed_scans
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.workflows.calibrate import CalibrationResults


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model folder; with --output also a zip or a name.")],
    manifest: options.ManifestPath,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="New folder for the calibrated model; MODEL is not changed."),
    ] = None,
    modality: options.Modalities = None,
    pathology: options.Pathologies = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the data set: its thresholds are stored separately, as dice@NAME."),
    ] = None,
    add: Annotated[
        bool,
        typer.Option("--add", help="Add the modalities of this manifest to the existing thresholds."),
    ] = False,
    default: Annotated[
        str | None,
        typer.Option(
            "--default", help="Threshold that --threshold auto uses: dice if there are lesions, or ml:1, fpr:0.01 …"
        ),
    ] = None,
    population_fraction: Annotated[
        float,
        typer.Option(
            "--population-fraction",
            min=0.5,
            max=0.99,
            help="Fraction of healthy people within the limit of ml: thresholds: 0.5 = the median, 0.9 = nine of ten.",
        ),
    ] = 0.5,
    healthy_share: Annotated[float | None, typer.Option("--healthy-share", min=0.5, max=0.99, hidden=True)] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Choose thresholds on the split "val" and store them in MODEL, with a hash of these scans."""
    options.set_up(threads=threads, no_progress=no_progress)
    names = ("--healthy-share", "--population-fraction")
    population_fraction = options.under_either_name(healthy_share, population_fraction, names=names, default=0.5)
    from halebrain.workflows.calibrate import CalibrateSettings, calibrate_on_manifest

    settings = CalibrateSettings(output, name, add, default, population_fraction, seed, device, options.echo_message)
    chosen = {"modalities": tuple(modality or ()), "pathologies": tuple(pathology or ())}
    done = calibrate_on_manifest(model, manifest, settings, **chosen)
    _tell(Results("calibrate", as_json=as_json), manifest, done)
    done.failures.refuse(
        "every scan should be used for the thresholds",
        len(done.rows),
        where=manifest,
        remedy="the thresholds are stored, chosen without them; fix the problem in each line and calibrate again",
    )


def _tell(results: Results, manifest: Path, done: "CalibrationResults") -> None:
    """Print the thresholds, the default and the closing summary."""
    from halebrain.core.config import with_former_keys

    calibration, failed, model = done.calibration, done.failures.reasons, done.model
    for stored, threshold in calibration.thresholds.items():
        results.line(f"{stored}\t{threshold.value:.4f}\t{threshold.method}\tn={threshold.n_scans}")
    for contrast, table in calibration.modalities.items():
        for stored, threshold in table.items():
            results.line(f"{stored}\t{threshold.value:.4f}\t{threshold.method}\tn={threshold.n_scans}\t{contrast}")
    options.echo_message(f"--threshold auto means {calibration.default}")
    stated = with_former_keys(calibration.model_dump(mode="json", include={"default", "thresholds", "modalities"}))
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
            "modalities": {},
        }
        | stated,
    )
