"""The page of an exam: the page of its reference scan, with linked viewers of all its contrasts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np

from halebrain.core.exam_provenance import ExamProvenance
from halebrain.core.mask import to_mask
from halebrain.core.provenance import Provenance
from halebrain.core.types import Affine, FloatArray
from halebrain.core.wording import counted
from halebrain.inference.exam_outputs import DetectedExam, ExamFinding, labels_of
from halebrain.inference.regions import region_map, regions_are_known
from halebrain.preprocessing.geometry import Grid, resample
from halebrain.report.display import DisplayGrid, display_grid
from halebrain.report.embedding import ShownVolume, shown_healthy, shown_scan, shown_volumes
from halebrain.report.figures import Panel, choose_slices, figure_png, mosaic
from halebrain.report.page import Page, Section, write_page
from halebrain.report.scan_page import ExamOnPage, ScanPage, ShownContrast, scan_html
from halebrain.workflows.exam_detector import ExamPart, FoundExam

INDEX = "exams.html"
"""Name of the page of all exams."""
_REGION_MM = 3.0
_LETTERS = "bcdefghijklmnopqrstuvwxyz"
"""Endings of the names of further volumes, which are letters alone."""
_FUSIONS = {
    "mean": "the mean of the scores",
    "log_odds": "the mean of the log-odds relative to the healthy score of each contrast",
    "weighted_odds": "the mean of the odds relative to the healthy score of each contrast, weighted by contrast",
}


def exam_html(found: FoundExam, title: str) -> bytes:
    """Return the page of an exam as HTML; nothing is fetched from anywhere."""
    made, reference = found.made, found.reference
    grid = display_grid(reference.own.affine, reference.own.brain_mask, n_scans=len(found.parts))
    scan = shown_scan(reference.volume.data, reference.own.brain_mask, grid)
    result = replace(reference.own, score=reference.score)
    volumes = shown_volumes(result, reference.mask, scan, grid, cut=found.threshold.cut)
    labels, others = labels_of(made), []
    for letter, label, part in zip(_LETTERS, labels[1:], found.parts[1:], strict=False):
        here = shown_scan(_on_reference(part.volume.data, part, reference), reference.own.brain_mask, grid)
        healthy = shown_healthy(_on_reference(part.own.reconstruction, part, reference), here, grid)
        volumes |= {f"scan{letter}": here, f"healthy{letter}": healthy}
        others.append(ShownContrast(label, f"scan{letter}", f"healthy{letter}"))
    to_template = reference.scan.template_to_native
    codes, names = _regions(made, to_template, grid)
    if codes is not None:
        volumes["regions"] = codes
    page = ScanPage(
        title=title,
        grid=grid,
        volumes=volumes,
        findings=[finding.lesion for finding in found.findings],
        provenance=_shown_provenance(made),
        threshold=found.threshold,
        template_to_native=to_template,
        mosaic=_mosaic(found, labels, title),
        region_names=names,
        exam=ExamOnPage(
            name=labels[0],
            others=others,
            lead=_lead(made),
            columns=labels,
            support=[_support(finding) for finding in found.findings],
            methods=_methods(made, labels),
            scans=_scans(made),
            made=made,
        ),
    )
    return scan_html(page).encode("utf-8")


def _on_reference(data: FloatArray, part: ExamPart, reference: ExamPart) -> FloatArray:
    """Return an image of one scan on the grid of the reference."""
    back = np.asarray(np.linalg.inv(part.to_reference), dtype=np.float64)
    source = Grid(part.volume.shape, part.volume.affine)
    target = Grid(reference.volume.shape, reference.volume.affine)
    return resample(data, source, target, target_to_source=back)


def _regions(
    made: ExamProvenance, to_template: Affine, grid: DisplayGrid
) -> tuple[ShownVolume | None, tuple[str, ...]]:
    own = made.scans[0].provenance
    if not regions_are_known(own.space, own.qc):
        return None, ()
    spacing = grid.spacing_mm(_REGION_MM)
    i, j, k = (max(1, round(mm / step)) for mm, step in zip(grid.size_mm, spacing, strict=True))
    placed = np.linalg.inv(to_template) @ grid.affine @ grid.to_voxel
    codes, names = region_map(placed, (i, j, k), spacing)
    return ShownVolume(codes, 1.0, 0.0, spacing), names


def _shown_provenance(made: ExamProvenance) -> Provenance:
    """Return the provenance of the reference with the figures of the exam, from which the head of a page is made."""
    own = made.scans[0].provenance
    return replace(
        own,
        qc=made.quality,
        threshold=made.threshold,
        scan_score=made.exam_score,
        scan_score_percentile=made.exam_score_percentile,
        scan_score_n_healthy=made.exam_score_n_healthy,
        scan_score_note=made.exam_score_note,
        scan_score_healthy=(),
        n_lesions=made.n_findings,
        lesion_volume_ml=made.findings_ml,
    )


def _lead(made: ExamProvenance) -> str:
    threshold, scans = made.threshold, counted(len(made.scans), "scan")
    smallest = threshold.min_lesion_mm3
    dropped = f"; connected components smaller than {smallest:g} mm³ are removed" if smallest else ""
    what = f"Threshold {threshold.name}: {threshold.method}." if threshold.method else f"Threshold {threshold.name}."
    together = f"One answer for {scans} ({', '.join(labels_of(made))}): {made.reason}."
    grown = f", and around it down to {threshold.grow_to:.3f}" if threshold.grow_to is not None else ""
    marked = f"A voxel is marked where the score of the exam is at least {threshold.value:.3f}{grown}{dropped}."
    return f"{together} {marked} {what}"


def _methods(made: ExamProvenance, labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return ""
    others = "The other scans were registered to it rigidly by normalised mutual information inside the brain"
    registered = (
        f"Reference is {made.reference} ({labels[0]}), as {made.reference_reason}. {others}, and one affine transform "
        "brings all of them to the template."
    )
    fused = f"The score of the exam is {_FUSIONS.get(made.fusion, made.fusion)}. Of the reference:"
    return f"{registered} {fused}"


def _support(finding: ExamFinding) -> list[str]:
    cells = []
    for one in finding.support:
        if one.share is None or one.peak_score is None:
            cells.append("not in view")
        else:
            cells.append(f"{100 * one.share:.0f} %, {one.peak_score:.2f}")
    return cells


def _scans(made: ExamProvenance) -> list[list[str]]:
    rows = [["scan", "contrast", "voxels, mm", "own threshold", "apart, mm", "use"]]
    for number, scan in enumerate(made.scans):
        spacing = "–" if scan.spacing_mm is None else " × ".join(f"{mm:.2g}" for mm in scan.spacing_mm)
        threshold = "–" if scan.threshold is None else f"{scan.threshold:.3f}"
        apart = "–" if scan.apart_mm is None else f"{scan.apart_mm:.1f}"
        contrast = f"{scan.contrast or 'not known'} ({scan.contrast_known_from})"
        rows.append([scan.scan, contrast, spacing, threshold, apart, "fused" if number else "fused; the reference"])
    rows += [[name, "", "", "", "", f"not used: {reason}"] for name, reason in made.not_used.items()]
    return rows


def _mosaic(found: FoundExam, labels: Sequence[str], title: str) -> bytes:
    """Return the picture of an exam on the working grid: each contrast with the findings, and the fused score."""
    threshold, brain = found.threshold.value, found.brain_mask
    cut, voxel_mm3 = found.threshold.cut, found.reference.scan.grid.voxel_mm3
    marked = brain & to_mask(found.score, cut, voxel_mm3=voxel_mm3)
    panels = [
        Panel(label, part.scan.image, outline=marked, vmax=1.0) for label, part in zip(labels, found.parts, strict=True)
    ]
    panels.append(Panel("score of the exam", found.score, "score", vmax=max(2 * threshold, 0.2)))
    weight = found.score * marked
    slices = choose_slices(brain, weight if weight.any() else None)
    grown = f", grown to {cut.grow_to:.3f}" if cut.grow_to is not None else ""
    note = f"Outlined where the score of the exam is at least {threshold:.3f}{grown}."
    return figure_png(mosaic(panels, slices=slices, title=title, note=note), dpi=100)


def write_exam_index(output: Path, exams: Sequence[DetectedExam], failed: Mapping[str, str]) -> Path:
    """Write the page of all exams of a run, outliers first, with links to the page of each; return its path."""

    def rank(exam: DetectedExam) -> tuple[float, float]:
        return -(exam.exam_score_percentile or 0.0), -(exam.exam_score or 0.0)

    ordered = sorted(exams, key=rank)
    rows = []
    for exam in ordered:
        contrasts = ", ".join(contrast or "not known" for contrast in exam.contrasts.values())
        percentile = "–" if exam.exam_score_percentile is None else f"{exam.exam_score_percentile:.3g}"
        score = "–" if exam.exam_score is None else f"{exam.exam_score:.3f}"
        found = f"{exam.n_findings or 0}", f"{exam.findings_ml or 0.0:.2f}"
        rows.append([exam.exam, contrasts, score, percentile, *found, "; ".join(exam.flags) or "–"])
    header = ["exam", "contrasts", "score", "% of healthy lower", "findings", "ml", "flags"]
    links = [(exam.exam, quote(Path(os.path.relpath(exam.report, output)).as_posix())) for exam in ordered]
    sections = [Section(title="Exams", header=header, rows=rows), Section(title="Pages", links=links)]
    if failed:
        reasons = [[name, reason] for name, reason in sorted(failed.items())]
        sections.append(Section(title="Failed", header=["exam", "reason"], rows=reasons))
    page = Page(title="Exams", lead=f"{counted(len(ordered), 'exam')}, the highest scores first.", sections=sections)
    write_page(page, output / INDEX)
    return output / INDEX
