"""Detection on exams with files: one exam, and many exams of an input."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from halebrain.core.errors import DataError, UsageError
from halebrain.core.exam_provenance import ExamProvenance, read_exam_provenance
from halebrain.core.failures import Failures
from halebrain.core.leftovers import sweep
from halebrain.core.parallel import HERE, Schedule
from halebrain.core.wording import counted
from halebrain.inference.exam_outputs import (
    DetectedExam,
    ExamNames,
    ExamScanFiles,
    write_exam,
)
from halebrain.inference.exams import Exam, find_exams
from halebrain.inference.fusion import DEFAULT as DEFAULT_FUSION
from halebrain.inference.fusion import FUSIONS
from halebrain.io.discovery import Found
from halebrain.thresholds.exam import healthy_score
from halebrain.workflows.detections import Detections, Place, Run, refuse_other_kind, run_items
from halebrain.workflows.detector import Detector
from halebrain.workflows.dicom_seg import check_dicom, is_dicom, mask_as_dicom
from halebrain.workflows.earlier import THRESHOLD, differences, refuse_different
from halebrain.workflows.exam_detector import FoundExam, find_exam, place_exam, scans_at_once, threshold_of
from halebrain.workflows.exam_page import MarkedExam, exam_mosaic, exam_pages, show_exam
from halebrain.workflows.exam_scans import DescribedScans, read_described
from halebrain.workflows.scan_steps import ExamSteps, begin_exam
from halebrain.workflows.settings import WHOLE, DetectSettings, PartSettings


def detect_exams(
    sources: Sequence[Path],
    output: Path,
    settings: DetectSettings,
    *,
    fusion: str = DEFAULT_FUSION,
    schedule: Schedule = HERE,
    part: PartSettings = WHOLE,
    done: Callable[[DetectedExam], None] = lambda _: None,
) -> Detections[DetectedExam]:
    """Process every exam of an input, or a part of them; one that fails is reported and does not stop the others.

    The input is that of `find_exams`. `done` is called after each exam. The error of an only exam is raised.
    """
    exams, run = begin_exams(sources, output, settings, fusion=fusion, schedule=schedule, part=part)
    return run_exams(exams, run, fusion=fusion, done=done)


def begin_exams(
    sources: Sequence[Path],
    output: Path,
    settings: DetectSettings,
    *,
    fusion: str,
    schedule: Schedule = HERE,
    part: PartSettings = WHOLE,
) -> tuple[Found[Exam], Run]:
    """Return the exams of an input, or a part of them, and where their results go.

    Settings that exams cannot have are refused.
    """
    FUSIONS.get(fusion)
    exams = find_exams(sources)
    _check_modality(settings, exams)
    if settings.dicom_seg:
        # The mask lies on the reference, which is chosen later: any DICOM series of an exam may be it.
        check_dicom(next((s.image for s in exam.scans if is_dicom(s.image)), exam.scans[0].image) for exam in exams)
    dataset = sources[0] if exams and exams[0].in_dataset is not None else None
    single = len(exams) == 1 and dataset is None
    failures = Failures(output, settings.notify)
    run = Run(output, settings, failures, dataset=dataset, single=single, schedule=schedule)
    return Found(part.own(exams), exams.left_out), run


def _check_modality(settings: DetectSettings, exams: Sequence[Exam]) -> None:
    if settings.modality != "auto" and any(len(exam.scans) > 1 for exam in exams):
        raise UsageError(
            "--modality states the contrast of one scan and cannot be used with --exam",
            received=settings.modality,
            remedy="state contrasts in file names or in a manifest; otherwise they are inferred from the images",
        )


def run_exams(
    exams: Found[Exam], run: Run, *, fusion: str, done: Callable[[DetectedExam], None] = lambda _: None
) -> Detections[DetectedExam]:
    """Process exams, one after the other or by several workers, and write the page of all of them (`run_items`).

    `fusion` is a name in `FUSIONS`.
    """
    report_alone(exams, run.settings)
    return run_items(exams, partial(_detect_one, fusion), run, done=done)


def _detect_one(fusion: str, place: Place, exam: Exam) -> DetectedExam:
    """Process one exam in its folder below that of the run."""
    steps = begin_exam(place.bar, exam, place.detector.predictor, named=place.named)
    folder = place.folder(exam.folder, ExamNames(place.output, exam.name).provenance)
    return detect_exam(place.detector, exam, folder, fusion=fusion, steps=steps)


def report_alone(exams: Found[Exam], settings: DetectSettings) -> None:
    """Report scans that belong to no other one."""
    alone = [exam.name for exam in exams if exam.is_alone]
    # A data set of one scan a session is no surprise; a folder in which no names go together is one.
    if alone and len(exams) > 1 and (len(alone) < len(exams) or exams[0].in_dataset is None):
        said = f"{counted(len(alone), 'scan')} without another one of the same person and time"
        settings.notify(f"warning: {said}, processed as an exam of one scan: {', '.join(alone)}")


def detect_exam(
    detector: Detector,
    exam: Exam,
    folder: Path,
    *,
    fusion: str = DEFAULT_FUSION,
    steps: ExamSteps | None = None,
) -> DetectedExam:
    """Run one exam and write its files; finished results with the same settings are kept, others refused."""
    steps = steps or ExamSteps()
    names = ExamNames(folder, exam.name)
    sweep(folder)
    refuse_scans_alone(names, [scan.name for scan in exam.scans])
    read = read_described(detector, exam)
    if (kept := _finished(names, exam, read, detector, fusion)) is not None:
        return DetectedExam.of(names, kept)
    found = find_exam(detector, exam, fusion=fusion, described=read, tell=steps.tell)
    steps.page()
    source = None
    if detector.settings.dicom_seg:
        source = next(scan.image for scan in exam.scans if scan.name == found.reference.name)
    written = write_found_exam(found, names, source=source)
    for flag in written.flags:
        detector.settings.notify(f"warning: {exam.name}: {flag}")
    return written


def refuse_scans_alone(names: ExamNames, scans: Iterable[str]) -> None:
    """Refuse a folder with results of one of the scans of an exam alone, some of whose files have the same names."""
    refuse_other_kind("scans alone", [names.scan(scan).provenance for scan in scans])


def write_found_exam(found: FoundExam, names: ExamNames, *, source: Path | None = None) -> DetectedExam:
    """Draw the page and write all files of an exam or none.

    `source` is the DICOM series of the reference, where the mask is also written as DICOM-SEG.
    """
    made = found.made

    def draw() -> dict[Path, bytes]:
        part, shown = found.reference, show_exam(found)
        marked = MarkedExam(part.score, part.mask, part.own.brain_mask, part.own.affine, found.findings)
        picture = exam_mosaic(found, names.stem)
        extra = exam_pages(names, made, marked, shown, picture=picture) | {names.display: shown.to_file()}
        if source is not None:
            extra[names.segmentation(part.name)] = mask_as_dicom(
                part.mask, part.own.affine, source, made, found.threshold, fusion=made.fusion
            )
        return extra

    files = [
        ExamScanFiles(part.name, part.mask, part.own.affine, part.own.placement, part.score, part.own, part.filling)
        for part in found.parts
    ]
    write_exam(names, files, found.findings, made, draw, threads=scans_at_once())
    return DetectedExam.of(names, made)


def _finished(
    names: ExamNames, exam: Exam, read: DescribedScans, detector: Detector, fusion: str
) -> ExamProvenance | None:
    """Return the provenance of an earlier run with these settings if all its files are there, else `None`."""
    settings = detector.settings
    if settings.overwrite or not names.provenance.exists():
        return None
    try:
        done = read_exam_provenance(names.provenance)
    except DataError as error:
        settings.notify(f"{names.stem}: processed again: {error.rule}, got {error.received}")
        return None
    refuse_different("results", _differences(done, exam, read, detector, fusion), names.folder)
    scans = [scan.scan for scan in done.scans]
    wanted = names.promised(scans, filled=settings.fills)
    if settings.dicom_seg:
        wanted.append(names.segmentation(done.reference))
    lost = [path.name for path in wanted if not path.exists()]
    if lost:
        settings.notify(f"{names.stem}: processed again, as {', '.join(lost)} is missing")
    return None if lost else done


def _differences(done: ExamProvenance, exam: Exam, read: DescribedScans, detector: Detector, fusion: str) -> list[str]:
    """Return what an exam was processed with otherwise, in words."""
    found = [] if done.fusion == fusion else ["fusion"]
    if {scan.name for scan in exam.scans} != {scan.scan for scan in done.scans} | {*done.not_used}:
        return [*found, "set of scans"]
    # A scan that could not be read, and is whole by now, may be used.
    if done.not_used_sha256 is not None and done.not_used_sha256 != read.sha256_of(done.not_used):
        found.append("scan")
    calibration = detector.selector.calibration
    for scan in done.scans:
        requested = read.requested.get(scan.scan)
        if requested is None:
            return [*found, "scan"]
        found += differences(scan.provenance, requested)
        # Scores of several contrasts are fused on the scale of their calibration.
        if len(done.scans) > 1 and scan.healthy_score != healthy_score(calibration, scan.contrast):
            found.append("calibration")
    wanted = threshold_of(detector, done.contrasts, fusion, done.threshold.modality_known_from)
    if wanted.cut != done.threshold.cut:
        found.append(THRESHOLD)
    elif done.exam_score is not None:
        # A new calibration may change the percentile. What an older version did not state cannot differ.
        placed = place_exam(detector, done, done.contrasts, done.exam_score, fusion)
        if replace(placed, **{name: getattr(done, name) for name in done.unstated}) != done:
            found.append("calibration")
    return found
