"""Detection on exams: from the scans of one person at one time to one answer, in memory and with files."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from halebrain.core.about import NOTICE, versions
from halebrain.core.errors import CannotWriteError, DataError, HalebrainError, UsageError
from halebrain.core.exam_provenance import ExamProvenance, ExamScanProvenance, Rows, read_exam_provenance
from halebrain.core.failures import Failures
from halebrain.core.leftovers import sweep
from halebrain.core.modality import ScanContrast, find_contrast
from halebrain.core.parallel import map_items
from halebrain.core.progress import ProgressBar
from halebrain.core.provenance import ChosenThreshold, Provenance
from halebrain.core.types import Affine, FloatArray, Lesion, MaskArray, ScanResult, Volume
from halebrain.core.wording import counted
from halebrain.inference.exam_outputs import (
    ExamFinding,
    ExamNames,
    ExamScanFiles,
    OwnScore,
    exam_findings,
    write_exam,
)
from halebrain.inference.exams import Exam, find_exams, is_known_contrast
from halebrain.inference.fusion import DEFAULT as DEFAULT_FUSION
from halebrain.inference.fusion import FUSIONS, ContrastScore, fuse_contrasts
from halebrain.inference.lesions import mark_lesions, total_ml
from halebrain.inference.predictor import WorkingMaps
from halebrain.inference.regions import regions_are_known
from halebrain.inference.scans import ScanInput
from halebrain.io.bids_derivative import begin_derivative, write_participants
from halebrain.io.dicom.segmentation import SegmentationAbout, check_highdicom, check_source, segmentation_bytes
from halebrain.io.discovery import Found
from halebrain.io.failed_table import FAILED, write_failed
from halebrain.io.formats import FORMATS
from halebrain.io.tree import LeftOut, summed_left_out
from halebrain.io.volume import format_of, mask_of, read_mask, read_volume
from halebrain.preprocessing.exam import AlignedExam, AlignedScan, ExamScan, align_exam
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.preprocessing.quality.rules import check_contrast_label
from halebrain.thresholds.exam import exam_key, exam_threshold, healthy_score
from halebrain.thresholds.percentile import working_scan_score
from halebrain.workflows.detect import describe_scan
from halebrain.workflows.detector import Detector, known_limit, load_detector
from halebrain.workflows.exam_page import exam_html, write_exam_index
from halebrain.workflows.settings import DetectSettings

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage


@dataclass(frozen=True)
class ExamPart:
    """One contrast of an exam.

    Args:
        name: Name of the scan.
        contrast: Its contrast.
        volume: The scan on its own grid.
        scan: It on the working grid.
        maps: Maps of the contrast alone, on the working grid.
        own: Maps of the contrast alone, on its own grid.
        threshold: Threshold of the contrast alone.
        score: The exam's score on the grid of the scan.
        mask: The exam's mask there.
        to_reference: World-to-world matrix to the reference scan, mm, RAS.
        apart_mm: Mean distance of its own registration to the template and that through the reference.
    """

    name: str
    contrast: ScanContrast
    volume: Volume
    scan: WorkingScan
    maps: WorkingMaps
    own: ScanResult
    threshold: ChosenThreshold
    score: FloatArray
    mask: MaskArray
    to_reference: Affine
    apart_mm: float | None


@dataclass(frozen=True)
class FoundExam:
    """What was found in one exam.

    Args:
        parts: Its contrasts, the reference first.
        score: The fused score on the working grid.
        brain_mask: Where it is defined, on that grid.
        findings: The connected components of the mask on the grid of the reference, largest first.
        threshold: The threshold of the exam.
        made: Provenance, complete but for the duration.
    """

    parts: tuple[ExamPart, ...]
    score: FloatArray
    brain_mask: MaskArray
    findings: list[ExamFinding]
    threshold: ChosenThreshold
    made: ExamProvenance

    @property
    def reference(self) -> ExamPart:
        """The scan on whose grid findings are given."""
        return self.parts[0]


@dataclass(frozen=True)
class DetectedExam:
    """The files of one exam, and what they say.

    Args:
        exam: Name of the exam.
        folder: Where the files are.
        report: The page.
        findings: The table of findings.
        provenance: The provenance.
        reference: Name of the scan on whose grid findings are given.
        scores: Scan → the exam's score on its grid.
        masks: Scan → the exam's mask on its grid.
        contrasts: Scan → its contrast; `None` = not known.
        n_findings: Connected components of the mask.
        findings_ml: Their volume.
        exam_score: Score of the whole exam.
        exam_score_percentile: Its place among healthy exams of the same contrasts.
        threshold: The threshold.
        flags: Quality flags.
        not_used: Scans that are not used, with the reason.
        model: Name of the model.
        model_sha256: Its hash.
    """

    exam: str
    folder: Path
    report: Path
    findings: Path
    provenance: Path
    reference: str
    scores: Mapping[str, Path]
    masks: Mapping[str, Path]
    contrasts: Mapping[str, str | None]
    n_findings: int | None
    findings_ml: float | None
    exam_score: float | None
    exam_score_percentile: float | None
    threshold: ChosenThreshold
    flags: tuple[str, ...]
    not_used: Mapping[str, str]
    model: str | None
    model_sha256: str | None

    @classmethod
    def of(cls, names: ExamNames, made: ExamProvenance) -> "DetectedExam":
        """Return what the provenance of an exam says."""
        scans = [scan.scan for scan in made.scans]
        return cls(
            exam=made.exam,
            folder=names.folder,
            report=names.page,
            findings=names.findings,
            provenance=names.provenance,
            reference=made.reference,
            scores={name: names.score(name) for name in scans},
            masks={name: names.mask(name) for name in scans},
            contrasts={scan.scan: scan.contrast for scan in made.scans},
            n_findings=made.n_findings,
            findings_ml=made.findings_ml,
            exam_score=made.exam_score,
            exam_score_percentile=made.exam_score_percentile,
            threshold=made.threshold,
            flags=made.flags,
            not_used=made.not_used,
            model=made.model,
            model_sha256=made.model_sha256,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; paths stay paths."""
        return vars(self) | {"threshold": self.threshold.to_json(), "flags": list(self.flags)}


@dataclass(frozen=True)
class DetectedExams:
    """Results of the exams of an input.

    Args:
        exams: Those that were processed, now or before.
        index: The page of all exams; `None` for a single one.
        left_out: Images of the input that are not used.
        failures: Exams that failed, with the reason.
        n_exams: Exams of the input.
    """

    exams: list[DetectedExam]
    index: Path | None
    left_out: tuple[LeftOut, ...]
    failures: Failures
    n_exams: int


def detect_exams(
    sources: Sequence[Path],
    output: Path,
    settings: DetectSettings,
    *,
    fusion: str = DEFAULT_FUSION,
    done: Callable[[DetectedExam], None] = lambda _: None,
) -> DetectedExams:
    """Process every exam of an input; one that fails is reported and does not stop the others.

    The input is that of `find_exams`. `done` is called after each exam. The error of an only exam is raised.
    """
    FUSIONS.get(fusion)
    exams = find_exams(sources)
    _check_modality(settings, exams)
    dataset = sources[0] if exams and exams[0].in_dataset is not None else None
    return run_exams(
        exams, output, settings, Failures(output, settings.notify), fusion=fusion, dataset=dataset, done=done
    )


def _check_modality(settings: DetectSettings, exams: Sequence[Exam]) -> None:
    if settings.modality != "auto" and any(len(exam.scans) > 1 for exam in exams):
        raise UsageError(
            "--modality states the contrast of one scan and cannot be used with --exam",
            received=settings.modality,
            remedy="state contrasts in file names or in a manifest; otherwise they are inferred from the images",
        )


def run_exams(
    exams: Found[Exam],
    output: Path,
    settings: DetectSettings,
    failures: Failures,
    *,
    fusion: str,
    dataset: Path | None,
    workers: int = 0,
    threads: int = 1,
    stop: bool = False,
    done: Callable[[DetectedExam], None] = lambda _: None,
) -> DetectedExams:
    """Process exams, one after the other or in several processes, and write the page of all of them.

    Args:
        exams: The exams; images of their input that are not used are reported.
        output: Output folder.
        settings: How.
        failures: Receives the exams that fail.
        fusion: A name in `FUSIONS`.
        dataset: The BIDS data set that they belong to, whose derivative `output` becomes; `None` = they are in none.
        workers: Processes; 0 = none, in this one.
        threads: Threads of each process.
        stop: Whether the first failure ends the run.
        done: Called after each exam.

    Raises:
        HalebrainError: Model or device cannot be used; an exam failed and is the only one or ends the run.
    """
    _report_unused(exams, settings)
    detector = load_detector(replace(settings, device="cpu") if workers else settings)
    if dataset is not None:
        begin_derivative(output, dataset)
    single = len(exams) == 1 and dataset is None
    work = partial(_detect_one, settings, output, fusion=fusion, single=single, detector=None if workers else detector)
    found: dict[int, DetectedExam] = {}
    with ProgressBar("Detecting", len(exams)) as bar:
        for count, (place, result) in enumerate(map_items(work, exams, workers=workers, threads=threads), start=1):
            bar.reach(count)
            name = exams[place].name
            if not isinstance(result, HalebrainError):
                failures.went_well(name)
                found[place] = result
                done(result)
                continue
            if single:
                raise result
            failures.add(name, result)
            if stop:
                raise result
    if dataset is not None:
        write_participants(output, dataset)
    index, kept = None, [found[place] for place in sorted(found)]
    if not single:
        index = write_exam_index(output, kept, failures.reasons)
        if failures.reasons or (output / FAILED).exists():
            write_failed(output / FAILED, failures.reasons)
    return DetectedExams(kept, index, exams.left_out, failures, len(exams))


def _detect_one(
    settings: DetectSettings,
    output: Path,
    exam: Exam,
    *,
    fusion: str,
    single: bool,
    detector: Detector | None = None,
) -> DetectedExam:
    """Process one exam in its folder below that of the run."""
    folder = output if single else output / (exam.in_dataset or exam.name)
    return detect_exam(detector or _loaded(settings), exam, folder, fusion=fusion)


@lru_cache(maxsize=1)
def _loaded(settings: DetectSettings) -> Detector:
    """Return the model, which each other process loads once."""
    return load_detector(settings)


def _report_unused(exams: Found[Exam], settings: DetectSettings) -> None:
    """Report images that are not used, and scans that belong to no other one."""
    if line := summed_left_out(exams.left_out):
        settings.notify(f"warning: {line}")
    alone = [exam.name for exam in exams if exam.is_alone]
    if alone and len(alone) < len(exams):
        said = f"{counted(len(alone), 'scan')} without another one of the same person and time"
        settings.notify(f"warning: {said}, processed as an exam of one scan: {', '.join(alone)}")


def detect_exam(detector: Detector, exam: Exam, folder: Path, *, fusion: str = DEFAULT_FUSION) -> DetectedExam:
    """Run one exam and write its files; finished results with the same settings are kept, others refused."""
    names, start = ExamNames(folder, exam.name), time.perf_counter()
    sweep(folder)
    read = read_described(detector, exam)
    if (kept := _finished(names, exam, read, detector, fusion)) is not None:
        return DetectedExam.of(names, kept)
    found = find_exam(detector, exam, fusion=fusion, described=read)
    source = None
    if detector.settings.dicom_seg:
        source = next(scan.image for scan in exam.scans if scan.name == found.reference.name)
    written = write_found_exam(found, names, start=start, source=source)
    for flag in written.flags:
        detector.settings.notify(f"warning: {exam.name}: {flag}")
    return written


def write_found_exam(found: FoundExam, names: ExamNames, *, start: float, source: Path | None = None) -> DetectedExam:
    """Draw the page and write all files of an exam or none.

    `start` is when the exam was begun, by `time.perf_counter`; `source` the DICOM series of the reference, where the
    mask is also written as DICOM-SEG.
    """
    extra = {names.page: exam_html(found, names.stem)}
    if source is not None:
        extra[names.segmentation(found.reference.name)] = _segmentation(found, source)
    made = replace(found.made, seconds=round(time.perf_counter() - start, 2))
    files = [ExamScanFiles(part.name, part.score, part.mask, part.own) for part in found.parts]
    write_exam(names, files, found.findings, made, extra)
    return DetectedExam.of(names, made)


def _segmentation(found: FoundExam, source: Path) -> bytes:
    if format_of(source) is not FORMATS.get("dicom"):
        raise UsageError("--dicom-seg needs DICOM scans", received=source.name, remedy="remove it")
    check_highdicom()
    check_source(source)
    said = {"threshold": f"{found.threshold.value:.6g}", "method": found.threshold.name, "fusion": found.made.fusion}
    about = SegmentationAbout(versions()["halebrain"], str(found.made.model), str(found.made.model_sha256), said)
    return segmentation_bytes(found.reference.mask, found.reference.own.affine, source, about)


@dataclass(frozen=True)
class DescribedScans:
    """What is known of scans before they are opened: the provenance of each, and those that cannot be read."""

    requested: Mapping[str, Provenance]
    failed: Mapping[str, str]


def read_described(detector: Detector, exam: Exam) -> DescribedScans:
    """Return what is known of the scans of an exam before they are opened; their files are hashed."""
    requested, failed = {}, {}
    for scan in exam.scans:
        try:
            scan.check()
            requested[scan.name] = describe_scan(detector, scan)
        except HalebrainError as error:
            failed[scan.name] = str(error)
    return DescribedScans(requested, failed)


_SAME = ("input_sha256", "brain_mask_sha256", "brain", "model_sha256", "seed", "draws", "levels", "precision")


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
    if not _is_same(done, exam, read, detector, fusion):
        raise CannotWriteError(
            "results made with other settings exist", where=names.folder, remedy="choose another or --overwrite"
        )
    scans = [scan.scan for scan in done.scans]
    wanted = names.promised(scans)
    if settings.dicom_seg:
        wanted.append(names.segmentation(done.reference))
    lost = [path.name for path in wanted if not path.exists()]
    if lost:
        settings.notify(f"{names.stem}: processed again, as {', '.join(lost)} is missing")
    return None if lost else done


def _is_same(done: ExamProvenance, exam: Exam, read: DescribedScans, detector: Detector, fusion: str) -> bool:
    if done.fusion != fusion or {scan.name for scan in exam.scans} != {s.scan for s in done.scans} | {*done.not_used}:
        return False
    for scan in done.scans:
        requested = read.requested.get(scan.scan)
        if requested is None:
            return False
        if any(getattr(scan.provenance, name) != getattr(requested, name) for name in _SAME):
            return False
    wanted = _threshold(detector, done.contrasts, fusion, done.threshold.modality_known_from)
    return wanted.value == done.threshold.value and wanted.min_lesion_mm3 == done.threshold.min_lesion_mm3


def find_exam(
    detector: Detector,
    exam: Exam,
    *,
    fusion: str = DEFAULT_FUSION,
    volumes: Mapping[str, Volume] | None = None,
    masks: "Mapping[str, SpatialImage] | None" = None,
    described: DescribedScans | None = None,
) -> FoundExam:
    """Read, align and score the scans of one exam, fuse their scores, apply the threshold; writes nothing.

    Args:
        detector: The model with its options.
        exam: The exam.
        fusion: A name in `FUSIONS`.
        volumes: Scan → what is used in the place of its file.
        masks: Scan → its brain mask as a nibabel image.
        described: What is known of the scans before they are opened.

    Raises:
        DataError: No scan can be used, or they are of two people.
    """
    read = described or read_described(detector, exam)
    failed, opened, notes = dict(read.failed), [], dict[str, tuple[str, ...]]()
    for scan in exam.scans:
        if scan.name in failed:
            continue
        try:
            one, notes[scan.name] = _open(scan, (volumes or {}).get(scan.name), (masks or {}).get(scan.name))
            opened.append(one)
        except HalebrainError as error:
            failed[scan.name] = str(error)
    if not opened:
        first = next(iter(failed.items()))
        raise DataError(
            "one scan of an exam at least must be usable",
            received=f"{first[0]}: {first[1]}",
            where=exam.name,
            remedy="fix the reason",
        )
    aligned = align_exam(detector.predictor.preprocessor, opened)
    chosen, not_used, flags = _choose(detector, exam, aligned, notes)
    for name, reason in failed.items():
        flags.append(f"exam: {name} is not used: {reason}")
    return _fuse(detector, exam, aligned, chosen, {**failed, **aligned.failed, **not_used}, flags, read, fusion)


def _open(scan: ScanInput, volume: Volume | None, mask: "SpatialImage | None") -> tuple[ExamScan, tuple[str, ...]]:
    """Return one scan as it was read, with what was assumed on reading."""
    found = read_volume(scan.image) if volume is None else volume
    notes = list(found.notes)
    own: MaskArray | None = None
    if mask is not None:
        own = mask_of(mask, found, notes=notes)
    elif scan.brain_mask is not None:
        own = read_mask(scan.brain_mask, found, notes)
    path = scan.image if volume is None else None
    declared = find_contrast("auto", scan.modality, scan.name, None).name
    return ExamScan(scan.name, found, path, own, scan.space, declared), tuple(notes)


@dataclass(frozen=True)
class _Chosen:
    """A scan that takes part in the fusion."""

    aligned: AlignedScan
    contrast: ScanContrast


def _choose(
    detector: Detector, exam: Exam, aligned: AlignedExam, notes: Mapping[str, tuple[str, ...]]
) -> tuple[list[_Chosen], dict[str, str], list[str]]:
    """Return the scans that are fused: the best of each contrast that is like the training data; others, and flags."""
    inputs = {scan.name: scan for scan in exam.scans}
    flags, not_used, chosen = list(aligned.notes), dict[str, str](), list[_Chosen]()
    several = len(aligned.scans) > 1
    for one in aligned.scans:
        given = inputs[one.name]
        contrast, line = _contrast(detector, given, one.scan.qc.inferred_contrast)
        qc = check_contrast_label(one.scan.qc.noting(notes.get(one.name, ())), contrast.declared)
        qc = qc.flagged(known_limit(detector.predictor.bundle.limits, contrast)).flagged(line)
        chosen.append(_Chosen(replace(one, scan=replace(one.scan, qc=qc)), contrast))
    usable = [one for one in chosen if not one.aligned.scan.qc.out_of_distribution]
    if several and usable:
        for one in chosen:
            if one not in usable:
                reasons = one.aligned.scan.qc.out_of_distribution_reasons
                not_used[one.aligned.name] = reasons[0] if reasons else "out of distribution"
        chosen = usable
    kept: dict[str, str] = {}
    fused = []
    for one in chosen:
        name = one.contrast.name
        if name is not None and name in kept:
            spacing = f"{max(one.aligned.volume.spacing_mm):.2g} mm"
            not_used[one.aligned.name] = f"a second {name} ({spacing}); {kept[name]} is of better quality"
            continue
        if name is not None:
            kept[name] = one.aligned.name
        fused.append(one)
    flags += [f"exam: {name} is not used: {reason}" for name, reason in not_used.items()]
    for one in fused:
        label = one.contrast.name or one.aligned.name
        own = one.aligned.scan.qc.flags
        flags += [f"{label}: {flag}" if several else flag for flag in own]
    return fused, not_used, flags


def _contrast(detector: Detector, scan: ScanInput, inferred: str | None) -> tuple[ScanContrast, str | None]:
    """Return the contrast of a scan, and a flag where the declared word is not known and the image is used instead."""
    found = find_contrast(detector.settings.modality, scan.modality, scan.name, inferred)
    if found.declared is None or found.known_from == "option" or is_known_contrast(found.declared):
        return found, None
    other = find_contrast("auto", None, "", inferred)
    said = f"the contrast '{found.declared}' of the {found.known_from} is not known"
    return other, f"{said}; {other.name or 'no contrast'} is inferred from the image"


def _threshold(
    detector: Detector, contrasts: Sequence[str | None], fusion: str, known_from: str | None
) -> ChosenThreshold:
    found = exam_threshold(detector.selector, contrasts, fusion)
    return replace(found, min_lesion_mm3=detector.min_lesion_mm3, modality_known_from=known_from)


def _fuse(
    detector: Detector,
    exam: Exam,
    aligned: AlignedExam,
    chosen: Sequence[_Chosen],
    not_used: Mapping[str, str],
    flags: Sequence[str],
    read: DescribedScans,
    fusion: str,
) -> FoundExam:
    """Run the networks on every scan, fuse, and mark."""
    predictor, calibration = detector.predictor, detector.selector.calibration
    contrasts = [one.contrast.name for one in chosen]
    maps = [predictor.predict_working(one.aligned.scan, one.contrast.name) for one in chosen]
    scores = [
        ContrastScore(name, own.score, one.aligned.scan.brain_mask, healthy_score(calibration, name))
        for name, own, one in zip(contrasts, maps, chosen, strict=True)
    ]
    fused = fuse_contrasts(scores, fusion)
    brain = np.any([score.inside for score in scores], axis=0)
    known_from = sorted({one.contrast.known_from for one in chosen})
    threshold = _threshold(detector, contrasts, fusion, " and ".join(known_from))
    parts = tuple(_part(detector, one, own, fused, threshold) for one, own in zip(chosen, maps, strict=True))
    first = parts[0]
    lesions = _lesions(detector, first, threshold)
    own_scores = [_own_score(first, part) for part in parts]
    findings = exam_findings(first.mask, lesions, own_scores)
    made = ExamProvenance(
        exam=exam.name,
        reason=exam.reason,
        subject=exam.subject,
        session=exam.session,
        reference=first.name,
        reference_reason=aligned.reason,
        fusion=fusion,
        scans=tuple(_stated(detector, exam, part, score, read) for part, score in zip(parts, scores, strict=True)),
        not_used=dict(not_used),
        threshold=threshold,
        n_findings=len(findings),
        findings_ml=total_ml(lesions),
        flags=tuple(dict.fromkeys(flags)),
        model=predictor.bundle.name,
        model_sha256=predictor.bundle.sha256,
        notice=NOTICE,
    )
    score = working_scan_score(fused, brain, first.scan.grid.spacing_mm)
    return FoundExam(parts, fused, brain, findings, threshold, _placed(detector, made, contrasts, score, fusion))


def _part(
    detector: Detector, one: _Chosen, maps: WorkingMaps, fused: FloatArray, threshold: ChosenThreshold
) -> ExamPart:
    scan, volume = one.aligned.scan, one.aligned.volume
    own = detector.predictor.to_native(volume, scan, maps)
    score = own.score if fused is maps.score else np.clip(scan.to_native(fused), 0, 1).astype(np.float32)
    regions = False
    mask, _ = mark_lesions(replace(own, score=score), threshold.cut, scan.template_to_native, regions=regions)
    alone = detector.threshold(one.contrast)
    name, placed = one.aligned.name, one.aligned
    return ExamPart(
        *(name, one.contrast, volume, scan, maps, own, alone, score, mask, placed.to_reference, placed.apart_mm)
    )


def _lesions(detector: Detector, part: ExamPart, threshold: ChosenThreshold) -> list[Lesion]:
    """Return the connected components of the mask of an exam on the grid of its reference."""
    regions = regions_are_known(detector.predictor.preprocessor.config.space, part.scan.qc)
    result = replace(part.own, score=part.score)
    return mark_lesions(result, threshold.cut, part.scan.template_to_native, regions=regions)[1]


def _own_score(reference: ExamPart, part: ExamPart) -> OwnScore:
    """Return the score of one contrast alone on the grid of the reference."""
    score = reference.own.score if part is reference else reference.scan.to_native(part.maps.score)
    inside = reference.own.brain_mask
    if part is not reference:
        inside = reference.scan.to_native(part.scan.brain_mask.astype(np.float32)) > 0.5
    return OwnScore(part.name, part.contrast.name, score, inside, part.threshold.value)


def _rows(matrix: Affine) -> Rows:
    a, b, c, d = (tuple(float(value) for value in row) for row in matrix.tolist())
    return a, b, c, d  # type: ignore[return-value]


def _stated(
    detector: Detector, exam: Exam, part: ExamPart, score: ContrastScore, read: DescribedScans
) -> ExamScanProvenance:
    requested = read.requested.get(part.name) or replace(detector.predictor.provenance(), scan=part.name)
    own = working_scan_score(part.maps.score, part.scan.brain_mask, part.scan.grid.spacing_mm)
    made = replace(
        requested,
        threshold=part.threshold,
        steps=part.scan.steps,
        qc=part.scan.qc,
        template_to_native=_rows(part.scan.template_to_native),
        notice=NOTICE,
    )
    spacing = tuple(round(mm, 4) for mm in part.volume.spacing_mm)
    return ExamScanProvenance(
        scan=part.name,
        contrast=part.contrast.name,
        contrast_known_from=part.contrast.known_from,
        threshold=part.threshold.value,
        healthy_score=score.healthy,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        to_reference=_rows(part.to_reference),
        apart_mm=part.apart_mm,
        provenance=detector.placed(made, part.contrast, own),
    )


def _placed(
    detector: Detector, made: ExamProvenance, contrasts: Sequence[str | None], score: float, fusion: str
) -> ExamProvenance:
    """Return a provenance with the score of the exam and its place among healthy exams of the same contrasts."""
    key, calibration = exam_key(contrasts), detector.selector.calibration
    known = len(contrasts) == 1 or (calibration is not None and calibration.fusion == fusion)
    placed = detector.placed(Provenance(), ScanContrast(key if known else None, "nothing"), score)
    note = placed.scan_score_note
    if not known:
        note = "the model was not calibrated on exams with this fusion"
    return replace(
        made,
        exam_score=score,
        exam_score_percentile=placed.scan_score_percentile,
        exam_score_n_healthy=placed.scan_score_n_healthy,
        exam_score_note=note,
    )
