"""`halebrain detect`: from scans to anomaly maps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, failed_scans, look_at, tell_left_out
from halebrain.core.errors import HalebrainError, UsageError, unexpected_as_error
from halebrain.core.failures import Failures
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.inference.predictor import Predictor
    from halebrain.thresholds.choose import DetectionOptions


def detect(
    source: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            help="A scan (NIfTI, .hdr/.img, MGH, DICOM folder or archive), a folder, BIDS, a .txt list, or a manifest.",
        ),
    ],
    output: options.Output,
    model: options.ModelPath = None,
    brain_mask: Annotated[
        Path | None,
        typer.Option("--brain-mask", help="Brain mask on the scan's grid; without it, the brain is extracted."),
    ] = None,
    brain: Annotated[
        str,
        typer.Option(
            "--brain",
            autocompletion=completion.among(*completion.BRAINS),
            help="Brain extraction: auto (the best one installed; stripped scans stay), stripped, synthstrip, hdbet, "
            "deepbet or atlas.",
        ),
    ] = "auto",
    threshold: Annotated[
        str, typer.Option("--threshold", help="auto, a number, or the name of a stored threshold (ml:1, fpr:0.01).")
    ] = "auto",
    modality: Annotated[
        str,
        typer.Option(
            "--modality",
            autocompletion=completion.among("auto", *completion.MODALITIES, "T1ce"),
            help="Contrast: auto (from manifest or file name, else inferred from the image), T1w, T2w, FLAIR or T1ce.",
        ),
    ] = "auto",
    min_lesion_mm3: options.MinLesion = None,
    seed: options.Seed = 0,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Noise samples per level.")] = 1,
    batch_size: options.BatchSize = 16,
    device: options.Device = "auto",
    dicom_seg: Annotated[
        bool,
        typer.Option("--dicom-seg", help="Also write the mask of DICOM scans as DICOM-SEG (needs the extra dicom)."),
    ] = False,
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Detect anomalies in scans. Writes anomaly map, mask, pseudo-healthy scan, lesion table and page."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.cli.detecting import detect_scan
    from halebrain.cli.found import found_scan
    from halebrain.cli.pages import FAILED, write_index
    from halebrain.cli.scan_steps import each_scan
    from halebrain.inference.cohort import find_scans
    from halebrain.io.bids_derivative import begin_derivative, write_participants

    if brain_mask is not None and brain != "auto":
        raise UsageError("--brain and --brain-mask exclude each other", received="both", remedy="remove one of them")
    results = Results("detect", as_json=as_json)
    scans = find_scans(source, brain_mask=brain_mask)
    left_out = tell_left_out(scans.left_out)
    if dicom_seg:
        options.check_dicom_out([scan.image for scan in scans])
    predictor, choice = load_predictor(
        *(model, threshold, modality, min_lesion_mm3, device),
        seed=seed,
        draws=draws,
        batch_size=batch_size,
        brain=brain,
    )
    if scans[0].in_dataset is not None:
        begin_derivative(output, source)
    single = len(scans) == 1 and (scans[0].image == source or not source.is_dir())
    failures = Failures(output)
    found: list[dict[str, Any]] = []
    how: dict[str, Any] = {"choice": choice, "overwrite": overwrite, "dicom_seg": dicom_seg}
    for scan, steps in each_scan(scans, predictor):
        folder = output if single else output / (scan.name if scan.in_dataset is None else scan.in_dataset.parent)
        try:
            with unexpected_as_error():
                done = detect_scan(predictor, scan, folder, **how, steps=steps)
                found.append(found_scan(done, scan.name))
            results.line(done)
            failures.went_well(scan.name)
        except HalebrainError as error:
            if single:
                raise
            failures.add(scan.name, error)
    reasons = failures.reasons
    if scans[0].in_dataset is not None:
        write_participants(output, source)
    index = None if single else write_index(output, [scan.name for scan in scans], reasons)
    _tell(results, output, found, reasons, index, left_out)
    failures.refuse(
        "every scan should be processed",
        len(scans),
        where=output / FAILED,
        remedy="fix the problem in each line, then run the same command again; it processes only those scans",
    )


def _tell(
    results: Results,
    output: Path,
    found: list[dict[str, Any]],
    failed: dict[str, str],
    index: Path | None,
    left_out: list[dict[str, object]],
) -> None:
    """Print the closing summary: findings, paths and next step."""
    from halebrain.cli.found import summed_up

    pages = [look_at(index if index is not None else scan["report"]) for scan in found[:1]]
    if pages and index is not None:
        pages.append(f"{command_line('view', output)}   (to accept or reject findings)")
    again = command_line("report", output, "--threshold", "VALUE")
    results.finish(
        summed_up(found) + (f"; {counted(len(failed), 'scan')} failed" if failed else ""),
        wrote=[output],
        then=[*pages, f"{again}   (to change the threshold, without the networks)"] if found else (),
        document={
            "output": output,
            "index": index,
            "scans": found,
            "failed": failed_scans(failed),
            "left_out": left_out,
        },
    )


def load_predictor(
    model: Path | None, threshold: str, modality: str, min_lesion_mm3: float | None, device: str, **settings: Any
) -> tuple["Predictor", "DetectionOptions"]:
    """Return a loaded predictor and the threshold options.

    Args:
        model: Path or name; `None` = the default model.
        threshold: "auto", a number, or a stored name.
        modality: "auto", or that of every scan.
        min_lesion_mm3: Smallest lesion kept; `None` = the model's own.
        device: Name of the device.
        settings: More of `Predictor`: seed, draws, batch_size, brain.
    """
    from halebrain.inference.detection import smallest_lesion_mm3
    from halebrain.inference.predictor import Predictor
    from halebrain.models.store import load_model
    from halebrain.thresholds.choose import DetectionOptions, ThresholdSelector
    from halebrain.thresholds.contrast import check_modality

    bundle = load_model(model)
    point = ThresholdSelector(options.read_calibration(bundle), threshold)
    check_modality(modality, point.calibration)
    predictor = Predictor(bundle, device=options.find_device(device), **settings)
    return predictor, DetectionOptions(point, smallest_lesion_mm3(predictor, min_lesion_mm3), modality)
