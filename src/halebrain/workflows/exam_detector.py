"""The core of detection on exams: from the scans of one person at one time to their findings in memory."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from halebrain.core.about import NOTICE
from halebrain.core.errors import DataError, HalebrainError
from halebrain.core.exam_provenance import ExamProvenance, ExamScanProvenance
from halebrain.core.modality import ScanContrast
from halebrain.core.parallel import map_threads
from halebrain.core.provenance import ChosenThreshold, Provenance
from halebrain.core.types import Affine, FloatArray, Lesion, MaskArray, ScanResult, Volume
from halebrain.core.wording import first_of
from halebrain.inference.exam_outputs import (
    ExamFinding,
    OwnScore,
    exam_findings,
)
from halebrain.inference.exams import Exam
from halebrain.inference.filling import Filling
from halebrain.inference.fusion import DEFAULT as DEFAULT_FUSION
from halebrain.inference.fusion import ContrastScore, fuse_contrasts
from halebrain.inference.lesions import mark_lesions, total_ml
from halebrain.inference.outputs import as_written
from halebrain.inference.predictor import WorkingMaps
from halebrain.inference.regions import regions_are_known
from halebrain.inference.scans import ScanInput
from halebrain.preprocessing.exam import (
    COMPARISON,
    READING,
    AlignedScan,
    Tell,
    align_exam,
    compare_registrations,
)
from halebrain.preprocessing.exam_brains import ExamScan
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.thresholds.exam import exam_key, exam_threshold, healthy_score
from halebrain.thresholds.percentile import working_scan_score
from halebrain.workflows.detector import Detector, ToFill, describe_found, fill_region_of, rows_of, stating_filling
from halebrain.workflows.exam_scans import (
    ChosenScan,
    DescribedScans,
    choose_scans,
    open_scan,
    read_described,
    scan_flags,
)
from halebrain.workflows.scan_steps import MARKING, NETWORKS


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
        apart_mm: Mean distance between the registration of the scan itself to the template and that through the
            reference.
        filling: The scan with the exam's mask filled, where it is asked for.
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
    filling: Filling | None = None


@dataclass(frozen=True)
class FoundExam:
    """What was found in one exam.

    Args:
        parts: Its contrasts, the reference first.
        score: The fused score on the working grid.
        brain_mask: Where it is defined, on that grid.
        findings: The connected components of the mask on the grid of the reference, largest first.
        threshold: The threshold of the exam.
        made: Provenance.
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


def find_exam(
    detector: Detector,
    exam: Exam,
    *,
    fusion: str = DEFAULT_FUSION,
    described: DescribedScans | None = None,
    tell: Tell = lambda _, __: None,
) -> FoundExam:
    """Read, align and score the scans of one exam, fuse their scores, apply the threshold; writes nothing.

    As many scans are processed at once as torch has threads. The result does not depend on it.

    Args:
        detector: The model with its options.
        exam: The exam.
        fusion: A name in `FUSIONS`.
        described: What is known of the scans before they are opened.
        tell: Called after each step of a scan, from several threads.

    Raises:
        DataError: No scan can be used, or they are of two people.
    """
    start, read = time.perf_counter(), described or read_described(detector, exam)
    opened, notes, failed = _open(exam, read, tell)
    aligned = align_exam(detector.predictor.preprocessor, opened, threads=scans_at_once(), tell=tell)
    chosen, not_used = choose_scans(detector, exam, aligned, notes)
    chosen, maps = _score(detector, chosen, tell)
    flags = [*aligned.notes, *scan_flags(aligned, chosen, not_used)]
    flags += [f"{name} is not used: {reason}" for name, reason in failed.items()]
    left_out = {**failed, **aligned.failed, **not_used}
    found = _fuse(detector, _ToFuse(exam, read, aligned.reason, chosen, maps, left_out, flags), fusion, tell)
    if detector.settings.fills:
        found = _with_filling(detector, exam, found)
    return replace(found, made=replace(found.made, seconds=round(time.perf_counter() - start, 2)))


def _open(
    exam: Exam, read: DescribedScans, tell: Tell
) -> tuple[list[ExamScan], dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the scans of an exam that can be read, what was assumed on reading each, and why others cannot be.

    The error of the only scan is raised.
    """
    failed, opened, notes = dict(read.failed), list[ExamScan](), dict[str, tuple[str, ...]]()

    def open_one(scan: ScanInput) -> tuple[ExamScan, tuple[str, ...]] | HalebrainError:
        try:
            return open_scan(scan)
        except HalebrainError as error:
            return error
        finally:
            tell(READING, scan.name)

    wanted = [scan for scan in exam.scans if scan.name not in failed]
    for scan, result in zip(wanted, map_threads(open_one, wanted, threads=scans_at_once()), strict=True):
        if isinstance(result, HalebrainError):
            if exam.is_alone:
                raise result
            failed[scan.name] = str(result)
        else:
            opened.append(result[0])
            notes[scan.name] = result[1]
    if not opened:
        raise DataError(
            "one scan of an exam at least must be usable",
            received=first_of([f"{name}: {reason}" for name, reason in failed.items()], 3),
            where=exam.name,
            remedy="fix the reason of each",
        )
    return opened, notes, failed


def _with_filling(detector: Detector, exam: Exam, found: FoundExam) -> FoundExam:
    """Return an exam whose scans are filled where its mask on their own grid is."""
    inputs = {scan.name: scan for scan in exam.scans}

    def fill(part: ExamPart) -> ExamPart:
        stored = inputs[part.name].stored(part.volume)
        scan = ToFill(part.name, part.volume, stored, part.scan, part.maps.reconstruction)
        return replace(part, filling=fill_region_of(detector, scan, part.mask, is_given=False))

    parts = map_threads(fill, found.parts, threads=scans_at_once())
    scans = [
        replace(stated, provenance=stating_filling(stated.provenance, part.filling))
        for stated, part in zip(found.made.scans, parts, strict=True)
        if part.filling is not None
    ]
    return replace(found, parts=tuple(parts), made=replace(found.made, scans=tuple(scans)))


def scans_at_once() -> int:
    """Return how many scans of an exam are processed at once: the threads of torch, which an option may limit."""
    return torch.get_num_threads()


def _score(detector: Detector, chosen: Sequence[ChosenScan], tell: Tell) -> tuple[list[ChosenScan], list[WorkingMaps]]:
    """Run the networks on every scan, and compare the registrations of the scans at the same time.

    Returns:
        The scans with how far their registrations are apart, and the maps of each.
    """
    predictor = detector.predictor

    def run(task: tuple[str, ChosenScan]) -> WorkingMaps | AlignedScan:
        step, one = task
        try:
            if step == COMPARISON:
                return compare_registrations(predictor.preprocessor, one.aligned)
            return predictor.predict_working(one.aligned.scan, one.contrast.name)
        finally:
            tell(step, one.aligned.name)

    if len(chosen) == 1:
        return list(chosen), [cast(WorkingMaps, run((NETWORKS, chosen[0])))]
    # The longest tasks first. On a GPU, one scan at a time: each one fills it. So with compiled networks, which are
    # compiled within the first one.
    is_shared = predictor.device.type == "cpu" and not detector.settings.compiled
    tasks = [(NETWORKS, one) for one in chosen] + [(COMPARISON, one) for one in chosen]
    found = map_threads(run, tasks, threads=scans_at_once() if is_shared else 1)
    maps, compared = found[: len(chosen)], found[len(chosen) :]
    scans = [replace(one, aligned=cast(AlignedScan, scan)) for one, scan in zip(chosen, compared, strict=True)]
    return scans, cast(list[WorkingMaps], maps)


def threshold_of(
    detector: Detector, contrasts: Sequence[str | None], fusion: str, known_from: str | None
) -> ChosenThreshold:
    """Return the threshold of an exam with the options of a detector."""
    found = exam_threshold(detector.selector, contrasts, fusion)
    return replace(found, min_lesion_mm3=detector.min_lesion_mm3, modality_known_from=known_from)


@dataclass(frozen=True)
class _ToFuse:
    """The scans of an exam that are fused, with their maps, and what is stated of it.

    Args:
        exam: The exam.
        read: What was known of its scans before they were opened.
        reference_reason: Why the first of `chosen` is the reference.
        chosen: The scans that are fused.
        maps: The maps of each.
        not_used: Other scans, and why they are not.
        flags: What a user should check.
    """

    exam: Exam
    read: DescribedScans
    reference_reason: str
    chosen: Sequence[ChosenScan]
    maps: Sequence[WorkingMaps]
    not_used: Mapping[str, str]
    flags: Sequence[str]


def _fuse(detector: Detector, scans: _ToFuse, fusion: str, tell: Tell) -> FoundExam:
    """Fuse the scores of the scans, mark on the grid of each, and describe it."""
    exam, read, chosen, maps = scans.exam, scans.read, scans.chosen, scans.maps
    predictor, calibration = detector.predictor, detector.selector.calibration
    contrasts = [one.contrast.name for one in chosen]
    scores = [
        ContrastScore(name, own.score, one.aligned.scan.brain_mask, healthy_score(calibration, name))
        for name, own, one in zip(contrasts, maps, chosen, strict=True)
    ]
    fused = fuse_contrasts(scores, fusion)
    brain = np.any([score.inside for score in scores], axis=0)
    known_from = sorted({one.contrast.known_from for one in chosen})
    threshold = threshold_of(detector, contrasts, fusion, " and ".join(known_from))

    def mark(both: tuple[ChosenScan, WorkingMaps]) -> ExamPart:
        part = _part(detector, *both, fused, threshold)
        tell(MARKING, part.name)
        return part

    parts = tuple(map_threads(mark, list(zip(chosen, maps, strict=True)), threads=scans_at_once()))
    first = parts[0]
    lesions = _lesions(detector, first, threshold)
    own_scores = _own_scores(parts)
    findings = exam_findings(first.mask, lesions, own_scores)
    made = ExamProvenance(
        exam=exam.name,
        reason=exam.reason,
        subject=exam.subject,
        session=exam.session,
        reference=first.name,
        reference_reason=scans.reference_reason,
        fusion=fusion,
        scans=tuple(_stated(detector, exam, part, score, read) for part, score in zip(parts, scores, strict=True)),
        not_used=dict(scans.not_used),
        not_used_sha256=read.sha256_of(scans.not_used),
        threshold=threshold,
        n_findings=len(findings),
        findings_ml=total_ml(lesions),
        flags=tuple(dict.fromkeys(scans.flags)),
        model=predictor.bundle.name,
        model_sha256=predictor.bundle.sha256,
        notice=NOTICE,
    )
    score = working_scan_score(fused, brain, first.scan.grid.spacing_mm)
    return FoundExam(parts, fused, brain, findings, threshold, place_exam(detector, made, contrasts, score, fusion))


def _part(
    detector: Detector, one: ChosenScan, maps: WorkingMaps, fused: FloatArray, threshold: ChosenThreshold
) -> ExamPart:
    scan, volume = one.aligned.scan, one.aligned.volume
    own = detector.predictor.to_native(volume, scan, maps)
    score = as_written(own.score if fused is maps.score else np.clip(scan.to_native(fused), 0, 1).astype(np.float32))
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


def _own_scores(parts: Sequence[ExamPart]) -> list[OwnScore]:
    """Return the score of each contrast alone on the grid of the reference, the first."""
    reference, others = parts[0], parts[1:]
    maps = [data for part in others for data in (part.maps.score, part.scan.brain_mask)]
    native = reference.scan.all_to_native(maps) if maps else []
    scores = [(reference.own.score, reference.own.brain_mask)]
    scores += [(score, brain > 0.5) for score, brain in zip(native[::2], native[1::2], strict=True)]
    return [
        OwnScore(part.name, part.contrast.name, score, inside, part.threshold.value)
        for part, (score, inside) in zip(parts, scores, strict=True)
    ]


def _stated(
    detector: Detector, exam: Exam, part: ExamPart, score: ContrastScore, read: DescribedScans
) -> ExamScanProvenance:
    own = working_scan_score(part.maps.score, part.scan.brain_mask, part.scan.grid.spacing_mm)
    made = describe_found(replace(read.requested[part.name], threshold=part.threshold), part.scan)
    spacing = tuple(round(mm, 4) for mm in part.volume.spacing_mm)
    return ExamScanProvenance(
        scan=part.name,
        contrast=part.contrast.name,
        contrast_known_from=part.contrast.known_from,
        threshold=part.threshold.value,
        healthy_score=score.healthy,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        to_reference=rows_of(part.to_reference),
        apart_mm=part.apart_mm,
        provenance=detector.placed(made, part.contrast, own),
    )


def place_exam(
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
