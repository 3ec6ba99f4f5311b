"""The page of an exam, made again from its files without networks; with a new threshold also masks and findings."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.exam_provenance import ExamProvenance, ExamScanProvenance, read_exam_provenance
from halebrain.core.files import write_bytes
from halebrain.core.mask import box_of, to_mask
from halebrain.core.messages import Notify
from halebrain.core.provenance import FILLING, ChosenThreshold
from halebrain.core.types import FloatArray, MaskArray, Volume, voxel_mm3_of
from halebrain.inference.exam_outputs import (
    ExamNames,
    ExamScanFiles,
    OwnScore,
    exam_findings,
    read_findings,
    write_exam,
)
from halebrain.inference.lesions import lesion_table, total_ml
from halebrain.inference.regions import regions_are_known
from halebrain.io.volume import read_map, read_mask
from halebrain.preprocessing.geometry import Grid, resample_all
from halebrain.workflows.exam_page import AGAIN, MarkedExam, ShownExam, exam_pages, template_to_reference
from halebrain.workflows.remake_settings import RemakeSettings, changed_threshold


def remake_locked_exam(path: Path, settings: RemakeSettings) -> Path:
    """Make the page of one exam again, and masks and findings where the threshold changes; return the page's path.

    `path` is its provenance; the caller holds the lock of the page.
    """
    made = read_exam_provenance(path)
    names = ExamNames(path.parent, made.exam)
    if names.provenance != path:
        raise DataError(
            "a provenance file must name its own exam",
            received=made.exam,
            where=path,
            remedy="restore the original file names",
        )
    if settings.scan is not None:
        raise UsageError(
            "--input is for the page of a scan alone",
            where=settings.scan,
            remedy="remove it: an exam has its scans beside its page",
        )
    if not names.display.is_file():
        raise MissingInputError("the page of an exam needs the file of its scans", where=names.display, remedy=AGAIN)
    shown = ShownExam.of_file(names.display, scans=len(made.scans))
    threshold = changed_threshold(made.threshold, settings)
    reference = made.scans[0]
    score, brain = _score_and_brain(names, reference)
    if threshold == made.threshold:
        mask = read_mask(names.mask(reference.scan), score)
        marked = MarkedExam(score.data, mask, brain, score.affine, read_findings(names.findings, made))
        picture = names.mosaic.read_bytes() if names.mosaic.is_file() else b""
        for target, content in exam_pages(names, made, marked, shown, picture=picture).items():
            write_bytes(target, content)
        return names.page
    _tell_what_goes(names, made, settings.notify)
    marked = _marked(made, threshold, shown, score, brain)
    files = [_file_of(names, scan, threshold, marked if scan is reference else None) for scan in made.scans]
    made = _changed(made, threshold, marked)
    write_exam(names, files, marked.findings, made, lambda: exam_pages(names, made, marked, shown))
    return names.page


def _score_and_brain(names: ExamNames, scan: ExamScanProvenance) -> tuple[Volume, MaskArray]:
    """Return the exam's score on the grid of a scan, and the brain there."""
    score = read_map(names.score(scan.scan))
    return score, read_mask(names.scan(scan.scan).file("brain", "mask"), score)


def _mask(score: Volume, brain: MaskArray, threshold: ChosenThreshold) -> MaskArray:
    mask: MaskArray = brain & to_mask(score.data, threshold.cut, voxel_mm3=voxel_mm3_of(score.affine))
    return mask


def _marked(
    made: ExamProvenance, threshold: ChosenThreshold, shown: ShownExam, score: Volume, brain: MaskArray
) -> MarkedExam:
    """Return the exam on the grid of its reference at another threshold."""
    mask, matrix = _mask(score, brain, threshold), template_to_reference(made)
    own = made.scans[0].provenance
    regions = regions_are_known(own.space, own.qc)
    lesions = lesion_table(mask, score.data, score.affine, matrix, regions=regions, brain_mask=brain)
    source = Grid(_shape(shown.scores[0]), shown.affine)
    target = Grid(_shape(score.data), score.affine)
    maps = [data for pair in zip(shown.scores, shown.brains, strict=True) for data in pair]
    back = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    native = resample_all(maps, source, target, target_to_source=back, box=box_of(brain))
    scores = [
        OwnScore(
            *(scan.scan, scan.contrast, np.where(brain, here, 0).astype(np.float32)),
            brain if scan is made.scans[0] else inside > 0.5,
            1.0 if scan.threshold is None else scan.threshold,
        )
        for scan, here, inside in zip(made.scans, native[::2], native[1::2], strict=True)
    ]
    return MarkedExam(score.data, mask, brain, score.affine, exam_findings(mask, lesions, scores))


def _shape(data: FloatArray) -> tuple[int, int, int]:
    i, j, k = data.shape
    return i, j, k


def _file_of(
    names: ExamNames, scan: ExamScanProvenance, threshold: ChosenThreshold, marked: MarkedExam | None
) -> ExamScanFiles:
    """Return what is written of a scan: the mask on its grid."""
    score, brain = _score_and_brain(names, scan)
    mask = _mask(score, brain, threshold) if marked is None else marked.mask
    return ExamScanFiles(scan.scan, mask, score.affine, score.placement)


def _tell_what_goes(names: ExamNames, made: ExamProvenance, notify: Notify) -> None:
    again = "of the old mask were removed; halebrain detect --exam --overwrite writes new ones"
    if names.segmentation(made.reference).exists():
        notify(f"warning: {names.stem}: the files of --dicom-seg {again}")
    if any(scan.provenance.fill_margin_mm is not None for scan in made.scans):
        notify(f"warning: {names.stem}: the lesion-filled scans {again}")


def _changed(made: ExamProvenance, threshold: ChosenThreshold, marked: MarkedExam) -> ExamProvenance:
    """Return the provenance of an exam at another threshold, without what was filled at the old one."""
    scans = []
    for scan in made.scans:
        own = replace(
            scan.provenance,
            fill_margin_mm=None,
            fill_mask_sha256=None,
            filled_ml=None,
            unstated=scan.provenance.unstated | FILLING,
        )
        scans.append(replace(scan, provenance=own))
    lesions = [finding.lesion for finding in marked.findings]
    changed = replace(made, threshold=threshold, scans=tuple(scans))
    return replace(changed, n_findings=len(lesions), findings_ml=total_ml(lesions))
