"""`halebrain detect`: from scans to anomaly maps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, failed_scans, left_out_groups, look_at
from halebrain.core.errors import UsageError
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from halebrain.workflows.detect import DetectedScan, DetectedScans


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
    from halebrain.workflows.detect import DetectSettings, detect_scans
    from halebrain.workflows.pages import FAILED

    if brain_mask is not None and brain != "auto":
        raise UsageError("--brain and --brain-mask exclude each other", received="both", remedy="remove one of them")
    results = Results("detect", as_json=as_json)
    settings = DetectSettings(
        model=model,
        threshold=threshold,
        modality=modality,
        min_lesion_mm3=min_lesion_mm3,
        brain=brain,
        seed=seed,
        draws=draws,
        batch_size=batch_size,
        device=device,
        overwrite=overwrite,
        dicom_seg=dicom_seg,
        notify=options.echo_message,
    )
    found = detect_scans(source, output, settings, brain_mask=brain_mask, done=lambda scan: results.line(scan.folder))
    _tell(results, output, found)
    found.failures.refuse(
        "every scan should be processed",
        found.n_scans,
        where=output / FAILED,
        remedy="fix the problem in each line, then run the same command again; it processes only those scans",
    )


def _tell(results: Results, output: Path, found: "DetectedScans") -> None:
    """Print the closing summary: findings, paths and next step."""
    index, failed = found.index, found.failures.reasons
    pages = [look_at(index if index is not None else scan.report) for scan in found.scans[:1]]
    if pages and index is not None:
        pages.append(f"{command_line('view', output)}   (to accept or reject findings)")
    again = command_line("report", output, "--threshold", "VALUE")
    results.finish(
        summed_up(found.scans) + (f"; {counted(len(failed), 'scan')} failed" if failed else ""),
        wrote=[output],
        then=[*pages, f"{again}   (to change the threshold, without the networks)"] if found.scans else (),
        document={
            "output": output,
            "index": index,
            "scans": [vars(scan) for scan in found.scans],
            "failed": failed_scans(failed),
            "left_out": left_out_groups(found.left_out),
        },
    )


def summed_up(scans: "Sequence[DetectedScan]") -> str:
    """Return one line for people: number of scans, findings, and unreliable scans."""
    findings = sum(scan.n_lesions or 0 for scan in scans)
    volume_ml = sum(scan.lesion_volume_ml or 0.0 for scan in scans)
    line = f"{counted(len(scans), 'scan')} processed, {counted(findings, 'finding')}, {volume_ml:.2f} ml"
    unlike = sum(bool(scan.out_of_distribution) for scan in scans)
    return f"{line}; {unlike} unreliable (see the flags)" if unlike else line
