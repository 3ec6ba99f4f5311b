"""The page of an exam: the page of its reference scan, with linked viewers of all its contrasts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from halebrain.core.exam_provenance import ExamProvenance
from halebrain.core.mask import to_mask
from halebrain.core.types import Affine, FloatArray
from halebrain.core.wording import counted
from halebrain.inference.exam_outputs import ExamFinding, labels_of
from halebrain.inference.regions import region_map, regions_are_known
from halebrain.preprocessing.geometry import Grid, resample_all
from halebrain.report.display import DisplayGrid, display_grid
from halebrain.report.embedding import ShownVolume, shown_healthy, shown_scan, shown_volumes
from halebrain.report.figures import Panel, choose_slices, figure_png, mosaic
from halebrain.report.scan_page import ExamOnPage, ScanPage, ShownContrast, scan_html
from halebrain.workflows.exam_detector import ExamPart, FoundExam

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
        image, reconstruction = _on_reference([part.volume.data, part.own.reconstruction], part, reference, grid)
        here = shown_scan(image, reference.own.brain_mask, grid)
        healthy = shown_healthy(reconstruction, here, grid)
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
        provenance=made.as_of_scan,
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


def _on_reference(
    maps: Sequence[FloatArray], part: ExamPart, reference: ExamPart, shown: DisplayGrid
) -> list[FloatArray]:
    """Return images of one scan on the grid of the reference, in the box that is shown."""
    back = np.asarray(np.linalg.inv(part.to_reference), dtype=np.float64)
    source = Grid(part.volume.shape, part.volume.affine)
    target = Grid(reference.volume.shape, reference.volume.affine)
    return resample_all(maps, source, target, target_to_source=back, box=shown.native_box)


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
