"""`halebrain calibrate`: choose thresholds on validation scans and store them in the model."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import options
from halebrain.cli.results import Results, command_line, failed_scans
from halebrain.core.errors import CannotWriteError, MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.wording import counted, whole_percent

if TYPE_CHECKING:
    import torch

    from halebrain.io.manifest import Manifest
    from halebrain.thresholds.calibration import Calibration


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
    healthy_share: Annotated[
        float,
        typer.Option(
            "--healthy-share",
            min=0.5,
            max=0.99,
            help="Fraction of healthy people within the limit of ml: thresholds: 0.5 = the median, 0.9 = nine of ten.",
        ),
    ] = 0.5,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Choose thresholds on the split "val" and store them in MODEL, with a hash of these scans."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.io.manifest import Manifest

    rows = Manifest.read(manifest).split("val")
    rows = rows.select(lambda r: not modality or r.modality in modality)
    rows = rows.select(lambda r: r.is_healthy or not pathology or r.pathology in pathology)
    where = options.find_device(device)
    failures = Failures(None)  # a model's folder takes no other files
    calibration = run_calibration(
        model,
        rows,
        failures=failures,
        name=name,
        add=add,
        default=default,
        healthy_share=healthy_share,
        seed=seed,
        device=where,
        output=output,
    )
    model = output or model
    results = Results("calibrate", as_json=as_json)
    for stored, threshold in calibration.thresholds.items():
        results.line(f"{stored}\t{threshold.value:.4f}\t{threshold.method}\tn={threshold.n_scans}")
    for contrast, table in calibration.modalities.items():
        for stored, threshold in table.items():
            results.line(f"{stored}\t{threshold.value:.4f}\t{threshold.method}\tn={threshold.n_scans}\t{contrast}")
    _warn_of_few(rows.select(lambda r: r.scan_id not in failures.reasons), healthy_share)
    typer.echo(f"halebrain: --threshold auto means {calibration.default}", err=True)
    stated = calibration.model_dump(mode="json", include={"default", "thresholds", "modalities"})
    results.finish(
        f"{counted(len(calibration.thresholds), 'threshold')} stored; --threshold auto means {calibration.default}",
        wrote=[model],
        then=[
            command_line("evaluate", model, "--manifest", manifest, "-o", "evaluation"),
            command_line("detect", "-i", "SCAN", "-o", "OUT", "-m", model),
        ],
        document={
            "model": model,
            "scans": len(rows) - len(failures.reasons),
            "subjects": len(calibration.subjects),
            "failed": failed_scans(failures.reasons),
            "modalities": {},
        }
        | stated,
    )
    failures.refuse(
        "every scan should be used for the thresholds",
        len(rows),
        where=manifest,
        remedy="the thresholds are stored, chosen without them; fix the problem in each line and calibrate again",
    )


def _warn_of_few(rows: "Manifest", healthy_share: float) -> None:
    """Warn about contrasts with too few healthy scans for the confidence of false-positive-volume thresholds."""
    from halebrain.core.modality import standard_modality
    from halebrain.thresholds.calibration import MIN_HEALTHY_SCANS
    from halebrain.thresholds.false_positive_volume import CONFIDENCE, reached_confidence

    for modality, count in sorted(Counter(standard_modality(row.modality) for row in rows if row.is_healthy).items()):
        sure = reached_confidence(count, healthy_share=healthy_share)
        if count >= MIN_HEALTHY_SCANS and sure < CONFIDENCE:
            few = f"{count} healthy scans are too few for {100 * healthy_share:g} % of people"
            typer.echo(
                f"halebrain: warning: {modality}: {few}: all of them must keep the limit, with a confidence of "
                f"{whole_percent(sure)} % instead of {CONFIDENCE:.0%}",
                err=True,
            )


def run_calibration(
    model: Path,
    rows: "Manifest",
    *,
    failures: Failures,
    seed: int,
    device: "torch.device",
    name: str | None = None,
    add: bool = False,
    default: str | None = None,
    healthy_share: float = 0.5,
    output: Path | None = None,
) -> "Calibration":
    """Fit every threshold on `rows` and store them in the bundle, or in a copy of it.

    Args:
        model: The bundle; a folder, or with `output` a zip or a name.
        rows: Validation scans.
        failures: Collects scans that fail; the thresholds are chosen without them.
        seed: The user's seed.
        device: Device of the networks.
        name: Of the data set; its thresholds are added to those that are there. `None` = they replace them all.
        add: Keep what is there, and add the modalities of these scans.
        default: Name of the threshold that is used by default; `None` = as it was where thresholds are
            kept, else "dice" where there are annotated scans.
        healthy_share: The share of healthy people in whom the thresholds by false volume hold; ½ = the median one.
        output: Folder of the copy; `None` = the bundle itself.

    Raises:
        CannotWriteError: `output` is there already.
        MissingInputError: There is no validation scan, none healthy or annotated, no model, or nothing to add to.
        DataError: The model was trained on one of them.
        UsageError: A modality to add is there already, the default is the name of no threshold, or the model is no
            folder and no output folder is given.
    """
    from halebrain.cli.calibrating import check_addition, check_default, fit_calibration
    from halebrain.inference.predictor import Predictor
    from halebrain.models.bundle import load_bundle
    from halebrain.models.bundle_store import copy_bundle, store_calibration
    from halebrain.thresholds.calibration import read_calibration

    if len(rows) == 0:
        raise MissingInputError(
            'calibration needs scans of the split "val"',
            where=rows.source or "manifest",
            remedy='write val under "split" for some subjects, and check --modality and --pathology',
        )
    source = _source(model, output)
    bundle = load_bundle(source)
    options.refuse_seen(rows, bundle.seen_subjects("train_subjects"), "calibrated on")
    before = read_calibration(bundle) if add or name is not None else None
    if add:
        check_addition(rows, before, name)
    check_default(default, rows, before, name)
    predictor = Predictor(bundle, device=device, seed=seed)
    calibration = fit_calibration(predictor, rows, healthy_share=healthy_share, failures=failures)
    if name is not None:
        calibration = calibration.named(name, beside=None if add else before)
    if add and before is not None:
        calibration = calibration.added_to(before)
    if default is not None:
        calibration = calibration.model_copy(update={"default": default})
    if output is not None:
        copy_bundle(source, output)
    store_calibration(output or source, calibration.model_dump(mode="json"))
    return calibration


def _source(model: Path, output: Path | None) -> Path:
    """Return where a model is read from; stop where its thresholds could not be stored, before anything is scored."""
    from halebrain.models.store import find_model

    source = find_model(model)
    if output is None and not source.is_dir():
        raise UsageError(
            "thresholds are stored in a model folder",
            received=f"a zip, {source}",
            remedy="give a folder for the calibrated model: --output FOLDER",
        )
    if output is not None and output.exists():
        raise CannotWriteError("the output must not exist yet", where=output, remedy="choose another")
    return source
