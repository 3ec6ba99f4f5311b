"""`halebrain detect`: from scans to anomaly maps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from halebrain.cli.console import Console
from halebrain.cli.options import from_settings
from halebrain.cli.results import Results, command_line, document_of, look_at, refuse_failures
from halebrain.core.errors import UsageError
from halebrain.core.wording import counted
from halebrain.workflows.settings import DetectSettings, ExamSettings, Option, Output, PartSettings, SchedulerSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from halebrain.workflows.detect import DetectedScan
    from halebrain.workflows.detections import Detections
    from halebrain.workflows.fill import FilledScan

_INPUT = (
    "A scan (NIfTI, .hdr/.img, MGH, DICOM folder or archive), a folder, BIDS, a .txt list, or a manifest; "
    "repeatable with --exam."
)


@from_settings()
def detect(
    *,
    source: Annotated[tuple[Path, ...], Option(_INPUT, ("--input", "-i"))],
    output: Output,
    brain_mask: Annotated[
        Path | None, Option("Brain mask on the scan's grid; without it, the brain is extracted.")
    ] = None,
    fill_mask: Annotated[
        Path | None,
        Option("Mask on the scan's grid that is filled instead of what is found; with --fill, --also-fill."),
    ] = None,
    settings: DetectSettings,
    exams: ExamSettings,
    scheduler: SchedulerSettings,
    part: PartSettings,
    console: Console,
) -> None:
    """Detect anomalies in scans. Writes anomaly map, mask, pseudo-healthy scan, lesion table and page."""
    results = console.begin("detect")
    how: dict[str, Any] = {"schedule": scheduler.schedule(output, threads=console.threads), "part": part}
    if exams.exam:
        if fill_mask is not None:
            raise UsageError(
                "--fill-mask goes with one scan and cannot be used with --exam",
                where=fill_mask,
                remedy="fill each scan without --exam, with the mask on its grid",
            )
        how |= {"fusion": exams.fusion}
        _detect_exams(source, output, settings, how, results, brain_mask=brain_mask)
        return
    if len(source) > 1:
        raise UsageError(
            "several inputs are the scans of one exam",
            received=f"{len(source)} inputs without --exam",
            remedy="add --exam, or give the folder that holds them",
        )
    if exams.fusion != ExamSettings.fusion:
        raise UsageError("--fusion needs --exam", received=exams.fusion, remedy="add --exam, or remove --fusion")
    from halebrain.io.failed_table import FAILED
    from halebrain.workflows.detect import detect_scans
    from halebrain.workflows.fill import fill_scans

    if brain_mask is not None and settings.brain != "auto":
        raise UsageError("--brain and --brain-mask exclude each other", received="both", remedy="remove one of them")
    how |= {"brain_mask": brain_mask, "fill_mask": fill_mask}
    if settings.fill:
        filled = fill_scans(source[0], output, settings, **how, done=lambda scan: results.line(scan.filled))
        _print_filled(results, output, filled)
        refuse_failures(filled, "scan", output / FAILED)
        return
    found = detect_scans(source[0], output, settings, **how, done=lambda scan: results.line(scan.folder))
    _print_summary(results, output, found)
    refuse_failures(found, "scan", output / FAILED)


def _detect_exams(
    source: "Sequence[Path]",
    output: Path,
    settings: DetectSettings,
    how: dict[str, Any],
    results: Results,
    *,
    brain_mask: Path | None,
) -> None:
    """Detect anomalies in exams and print the closing summary; `how` is what the workflow takes besides."""
    from halebrain.io.failed_table import FAILED
    from halebrain.workflows.exam import detect_exams
    from halebrain.workflows.fill import fill_exams

    if brain_mask is not None:
        raise UsageError(
            "--brain-mask goes with one scan and cannot be used with --exam",
            where=brain_mask,
            remedy="give the masks in a manifest",
        )
    if settings.fill:
        filled = fill_exams(source, output, settings, **how, done=lambda exam: _print_lines(results, exam.scans))
        _print_filled(results, output, filled, "exam")
        refuse_failures(filled, "exam", output / FAILED)
        return
    found = detect_exams(source, output, settings, **how, done=lambda exam: results.line(exam.report))
    results.finish(
        exams_summed_up(found),
        wrote=[output],
        then=[look_at(found.index or exam.report) for exam in found.results[:1]],
        document=document_of(output, found, "exams"),
    )
    refuse_failures(found, "exam", output / FAILED)


def exams_summed_up(found: "Detections[Any]") -> str:
    """Return one line for people: number of exams, scans, findings, unreliable exams and failures."""
    scans = sum(len(exam.contrasts) for exam in found.results)
    findings = sum(exam.n_findings or 0 for exam in found.results)
    volume_ml = sum(exam.findings_ml or 0.0 for exam in found.results)
    line = f"{counted(len(found.results), 'exam')} of {counted(scans, 'scan')} processed"
    line += f", {counted(findings, 'finding')}, {volume_ml:.2f} ml"
    return f"{line}{_unreliable(found)}{_failed(found, 'exam')}"


def summed_up(found: "Detections[DetectedScan]") -> str:
    """Return one line for people: number of scans, findings, unreliable scans and failures."""
    scans = found.results
    findings = sum(scan.n_lesions or 0 for scan in scans)
    volume_ml = sum(scan.lesion_volume_ml or 0.0 for scan in scans)
    line = f"{counted(len(scans), 'scan')} processed, {counted(findings, 'finding')}, {volume_ml:.2f} ml"
    return f"{line}{_unreliable(found)}{_failed(found, 'scan')}"


def _unreliable(found: "Detections[Any]") -> str:
    unreliable = sum(bool(one.out_of_distribution) for one in found.results)
    return f"; {unreliable} unreliable (see the flags)" if unreliable else ""


def _failed(found: "Detections[Any]", what: str) -> str:
    failed = len(found.failures.reasons)
    return f"; {counted(failed, what)} failed" if failed else ""


def _print_summary(results: Results, output: Path, found: "Detections[DetectedScan]") -> None:
    """Print the closing summary: findings, paths and next step."""
    index = found.index
    pages = [look_at(index if index is not None else scan.report) for scan in found.results[:1]]
    if pages and index is not None:
        pages.append(f"{command_line('view', output)}   (to accept or reject findings)")
    again = command_line("report", output, "--threshold", "VALUE")
    results.finish(
        summed_up(found),
        wrote=[output],
        then=[*pages, f"{again}   (to change the threshold, without the networks)"] if found.results else (),
        document=document_of(output, found),
    )


def _print_lines(results: Results, scans: "Sequence[FilledScan]") -> None:
    for scan in scans:
        results.line(scan.filled)


def _print_filled(results: Results, output: Path, filled: "Detections[Any]", what: str = "scan") -> None:
    """Print the closing summary of filled scans or exams."""
    volume_ml = sum(one.filled_ml for one in filled.results)
    line = f"{counted(len(filled.results), what)} filled, {volume_ml:.2f} ml{_failed(filled, what)}"
    results.finish(line, wrote=[output], document=document_of(output, filled, f"{what}s"))
