"""The page of an exam: the page of its reference scan, with linked viewers of all its contrasts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.exam_provenance import ExamProvenance
from halebrain.core.mask import to_mask
from halebrain.core.types import Affine, FloatArray, MaskArray
from halebrain.core.wording import counted
from halebrain.inference.exam_outputs import ExamFinding, ExamNames, labels_of
from halebrain.preprocessing.geometry import Grid, resample_all
from halebrain.report.display import DisplayGrid, display_grid
from halebrain.report.embedding import (
    ShownVolume,
    marked_volumes,
    read_volumes_file,
    shown_healthy,
    shown_scan,
    shown_volumes,
    volumes_file,
)
from halebrain.report.figures import Panel, choose_slices, figure_png, mosaic
from halebrain.report.scan_page import ExamOnPage, ScanPage, ShownContrast, scan_html
from halebrain.report.scan_pictures import outline_note, page_mosaic, thumbnail
from halebrain.workflows.exam_detector import ExamPart, FoundExam
from halebrain.workflows.pages import show_regions

AGAIN = "run halebrain detect --exam --overwrite"
_LETTERS = "bcdefghijklmnopqrstuvwxyz"
"""Endings of the names of further volumes, which are letters alone."""
_FUSIONS = {
    "mean": "the mean of the scores",
    "log_odds": "the mean of the log-odds relative to the healthy score of each contrast",
    "weighted_odds": "the mean of the odds relative to the healthy score of each contrast, weighted by contrast",
    "root_odds": "the mean of the roots of the odds relative to the healthy score of each contrast, weighted",
}


@dataclass(frozen=True)
class ShownExam:
    """What the page of an exam shows whatever the threshold is; it lies beside the page, which is made again from it.

    Args:
        volumes: `scan`, `healthy`, `probability`, `residual` and `uncertainty` of the reference; `scanb`, `healthyb` …
            of the other scans, in their order.
        scores: The score of each contrast alone on the working grid, the reference first.
        brains: Where each shows brain, on that grid.
        affine: Voxel-to-world of that grid.
    """

    volumes: Mapping[str, ShownVolume]
    scores: Sequence[FloatArray]
    brains: Sequence[MaskArray]
    affine: Affine

    def to_file(self) -> bytes:
        """Return the content of a file that holds it."""
        maps: dict[str, Any] = {"affine": self.affine}
        maps |= {f"score{number}": score for number, score in enumerate(self.scores)}
        maps |= {f"brain{number}": brain for number, brain in enumerate(self.brains)}
        return volumes_file(self.volumes, maps)

    @classmethod
    def of_file(cls, path: Path, *, scans: int) -> "ShownExam":
        """Return what a file holds of an exam of some scans."""
        volumes, maps = read_volumes_file(path, AGAIN)
        try:
            scores = [maps[f"score{number}"] for number in range(scans)]
            return cls(volumes, scores, [maps[f"brain{number}"] for number in range(scans)], maps["affine"])
        except KeyError as error:
            rule = "the file of a page must hold every scan of its exam"
            raise DataError(rule, received=f"none of {error}", where=path, remedy=AGAIN) from error


def show_exam(found: FoundExam) -> ShownExam:
    """Return what the page of an exam shows, whatever the threshold is."""
    reference = found.reference
    grid = _grid_of(found.made, reference.own.affine, reference.own.brain_mask)
    scan = shown_scan(reference.volume.data, reference.own.brain_mask, grid)
    every = shown_volumes(reference.own, reference.mask, scan, grid, cut=found.threshold.cut)
    volumes = {name: volume for name, volume in every.items() if name not in ("score", "mask")}
    for letter, part in zip(_LETTERS, found.parts[1:], strict=False):
        image, reconstruction = _on_reference([part.volume.data, part.own.reconstruction], part, reference, grid)
        here = shown_scan(image, reference.own.brain_mask, grid)
        volumes |= {f"scan{letter}": here, f"healthy{letter}": shown_healthy(reconstruction, here, grid)}
    scans = [part.scan for part in found.parts]
    scores = [part.maps.score for part in found.parts]
    return ShownExam(volumes, scores, [scan.brain_mask for scan in scans], scans[0].grid.affine)


def _grid_of(made: ExamProvenance, affine: Affine, brain_mask: MaskArray) -> DisplayGrid:
    return display_grid(affine, brain_mask, n_scans=len(made.scans))


@dataclass(frozen=True)
class MarkedExam:
    """The exam on the grid of its reference.

    Args:
        score: The fused score.
        mask: Where it reaches the threshold.
        brain_mask: Brain of the reference.
        affine: Voxel-to-world of the grid.
        findings: The connected components of the mask, largest first.
    """

    score: FloatArray
    mask: MaskArray
    brain_mask: MaskArray
    affine: Affine
    findings: Sequence[ExamFinding]


def exam_pages(
    names: ExamNames, made: ExamProvenance, marked: MarkedExam, shown: ShownExam, *, picture: bytes = b""
) -> dict[Path, bytes]:
    """Return page, picture and thumbnail of an exam by final path.

    `picture` is the mosaic, a PNG; empty = it is drawn from what the page holds.
    """
    labels = labels_of(made)
    grid = _grid_of(made, marked.affine, marked.brain_mask)
    volumes = {**shown.volumes, **marked_volumes(marked.score, marked.mask, grid, cut=made.threshold.cut)}
    others = [
        ShownContrast(label, f"scan{letter}", f"healthy{letter}")
        for letter, label in zip(_LETTERS, labels[1:], strict=False)
    ]
    to_template = template_to_reference(made)
    regions, region_names = show_regions(made.scans[0].provenance, to_template, grid)
    if not picture:
        contrasts = {"scan": labels[0], **{one.scan: one.name for one in others}}
        figure = page_mosaic(volumes, cut=made.threshold.cut, title=names.stem, contrasts=contrasts)
        picture = figure_png(figure, dpi=100)
    page = ScanPage(
        title=names.stem,
        grid=grid,
        volumes={**volumes, **regions},
        findings=[finding.lesion for finding in marked.findings],
        provenance=made.as_of_scan,
        threshold=made.threshold,
        template_to_native=to_template,
        mosaic=picture,
        region_names=region_names,
        exam=ExamOnPage(
            name=labels[0],
            others=others,
            lead=_lead(made),
            columns=labels,
            support=[_support(finding) for finding in marked.findings],
            methods=_methods(made, labels),
            scans=_scans(made),
            made=made,
        ),
    )
    return {
        names.page: scan_html(page).encode("utf-8"),
        names.thumbnail: thumbnail(volumes),
        names.mosaic: picture,
    }


def template_to_reference(made: ExamProvenance) -> Affine:
    """Return the matrix from the template to the reference of an exam, mm, RAS."""
    return np.array(made.scans[0].provenance.template_to_native, dtype=np.float64)


def _on_reference(
    maps: Sequence[FloatArray], part: ExamPart, reference: ExamPart, shown: DisplayGrid
) -> list[FloatArray]:
    """Return images of one scan on the grid of the reference, in the box that is shown."""
    back = np.asarray(np.linalg.inv(part.to_reference), dtype=np.float64)
    source = Grid(part.volume.shape, part.volume.affine)
    target = Grid(reference.volume.shape, reference.volume.affine)
    return resample_all(maps, source, target, target_to_source=back, box=shown.native_box)


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
        spacing = "–" if scan.spacing_mm is None else " × ".join(f"{mm:.3g}" for mm in scan.spacing_mm)
        threshold = "–" if scan.threshold is None else f"{scan.threshold:.3f}"
        apart = "–" if scan.apart_mm is None else f"{scan.apart_mm:.1f}"
        contrast = f"{scan.contrast or 'not known'} ({scan.contrast_known_from})"
        rows.append([scan.scan, contrast, spacing, threshold, apart, "fused" if number else "fused; the reference"])
    rows += [[name, "", "", "", "", f"not used: {reason}"] for name, reason in made.not_used.items()]
    return rows


def exam_mosaic(found: FoundExam, title: str) -> bytes:
    """Return the picture of an exam on the working grid: each contrast with the findings, and the fused score."""
    labels = labels_of(found.made)
    cut, brain = found.threshold.cut, found.brain_mask
    marked = brain & to_mask(found.score, cut, voxel_mm3=found.reference.scan.grid.voxel_mm3)
    panels = [
        Panel(label, part.scan.image, outline=marked, vmax=1.0) for label, part in zip(labels, found.parts, strict=True)
    ]
    panels.append(Panel("score of the exam", found.score, "score", vmax=max(2 * cut.threshold, 0.2)))
    weight = found.score * marked
    slices = choose_slices(brain, weight if weight.any() else None)
    note = outline_note(cut, score="the score of the exam")
    return figure_png(mosaic(panels, slices=slices, title=title, note=note), dpi=100)
