"""Evaluation and calibration on the exams of a manifest: all contrasts of a person at one time together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from halebrain.core.about import versions
from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.types import FloatArray, MaskArray
from halebrain.core.wording import first_of
from halebrain.evaluation.case import Case
from halebrain.evaluation.contribution import Contribution
from halebrain.evaluation.evaluate import Evaluation, Evaluator, ScanScores
from halebrain.evaluation.parts import Scans, ScansLeft, Scoring, described
from halebrain.evaluation.provenance import NATIVE_GRID, EvaluationProvenance
from halebrain.inference.exams import Exam, exams_of_manifest, records_by_exam
from halebrain.inference.fusion import ContrastScore, fuse_contrasts
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.volume import read_mask
from halebrain.preprocessing.geometry import Grid, resample
from halebrain.thresholds.calibration import MIN_HEALTHY_SCANS, Calibration
from halebrain.thresholds.exam import exam_key, healthy_score
from halebrain.thresholds.false_positive_volume import by_person
from halebrain.thresholds.fit import by_dice_of, by_healthy
from halebrain.thresholds.percentile import working_scan_score
from halebrain.thresholds.scored_map import ScoredMap
from halebrain.workflows.detector import Detector
from halebrain.workflows.exam_detector import ExamPart, FoundExam, find_exam, threshold_of
from halebrain.workflows.worker_model import WorkerModel

_OTHER_FUSION = "mean"
"""Fusion that every other one is compared with."""


def with_exam_pathologies(rows: Manifest) -> Manifest:
    """Return a manifest in which rows without a pathology have that of their exam, as an annotated row states it.

    Where no row of an exam is annotated, any row states it.
    """
    found: dict[str, str | None] = {}
    for name, own in records_by_exam(rows):
        annotated = [row for row in own if row.is_annotated]
        stating = [*annotated, *(row for row in own if not (annotated and row.is_healthy))]
        found[name] = next((row.pathology for row in stating if row.pathology is not None), None)
    return replace(rows, records=tuple(replace(row, pathology=row.pathology or found[row.exam_id]) for row in rows))


def of_exams(rows: Manifest, wanted: Callable[[ScanRecord], bool]) -> Manifest:
    """Return the wanted rows, and the rows without a mask of their exams whose contrast no wanted row has."""
    contrasts: dict[str, set[str]] = {}
    for row in rows.select(wanted):
        contrasts.setdefault(row.exam_id, set()).add(row.contrast)

    def is_added(row: ScanRecord) -> bool:
        known = contrasts.get(row.exam_id)
        return known is not None and row.contrast not in known and not (row.is_annotated or row.is_healthy)

    return rows.select(lambda row: wanted(row) or is_added(row))


@dataclass(frozen=True)
class ScoredExam:
    """One exam of a manifest with its maps, the row of its reference, and the lesion on the grid of that."""

    found: FoundExam
    record: ScanRecord
    lesion: MaskArray


def score_exam(detector: Detector, exam: Exam, rows: Sequence[ScanRecord], *, fusion: str) -> ScoredExam:
    """Return one exam of a manifest with its maps and its annotated lesion; `rows` are those of its scans."""
    found = find_exam(detector, exam, fusion=fusion)
    by_name = {row.scan_id: row for row in rows}
    reference = found.reference
    record = by_name[reference.name]
    lesion = _own_lesion(record, reference)
    if lesion is None:
        others = ((part, _own_lesion(by_name[part.name], part)) for part in found.parts[1:])
        lesion = next((_moved(own, part, reference) for part, own in others if own is not None), None)
    if lesion is None and (annotated := [row.scan_id for row in rows if row.is_annotated]):
        reasons = (found.made.not_used.get(name, "not used") for name in annotated)
        raise DataError(
            "the annotated scan of an exam must be usable",
            received=first_of([f"{name} ({reason})" for name, reason in zip(annotated, reasons, strict=True)]),
            where=exam.name,
            remedy="fix that scan, or remove it from the manifest",
        )
    key = exam_key([part.contrast.name for part in found.parts]) or record.modality
    named = replace(record, modality=key, entities=None)
    return ScoredExam(found, named, np.zeros(reference.volume.shape, bool) if lesion is None else lesion)


def _own_lesion(record: ScanRecord, part: ExamPart) -> MaskArray | None:
    if record.lesion is None or not record.is_annotated:
        return None
    return read_mask(record.lesion, part.volume)


def _moved(lesion: MaskArray, part: ExamPart, other: ExamPart) -> MaskArray:
    """Return a lesion on the grid of one scan of an exam on that of another one."""
    if part is other:
        return lesion
    back = np.asarray(np.linalg.inv(part.to_reference) @ other.to_reference, dtype=np.float64)
    source, target = (Grid(one.volume.shape, one.volume.affine) for one in (part, other))
    moved: MaskArray = resample(lesion.astype(np.float32), source, target, target_to_source=back) > 0.5
    return moved


_ExamRows = tuple[Exam, list[ScanRecord]]


def evaluate_exams(
    model: WorkerModel, rows: Manifest, *, fusion: str, scoring: Scoring, depends: object
) -> Evaluation | ScansLeft:
    """Score every exam of a manifest on the grid of its reference, where `scoring` says.

    Methods are the exam ("model"), each contrast alone, and the plain mean of their scores.
    """
    detector = model.detector()
    evaluator, predictor = Evaluator(seed=detector.predictor.seed), detector.predictor
    by_name = {row.scan_id: row for row in rows}
    thresholds: dict[str, dict[str, float | str]] = {}

    def keep(item: _ExamRows, found: Contribution) -> None:
        evaluator.take(found.scores)
        for note in found.notes:
            scoring.failures.note(item[0].name, note)
        thresholds.update({key: dict(value) for key, value in found.thresholds.items()})

    exams = [(exam, [by_name[scan.name] for scan in exam.scans]) for exam in exams_of_manifest(rows)]
    done = scoring.each(
        partial(_score, model, fusion),
        Scans(
            exams,
            name=lambda item: item[0].name,
            files=lambda item: [path for row in item[1] for path in (row.image, row.brain_mask, row.lesion)],
        ),
        depends=["exams", depends, fusion, described(rows)],
        keep=keep,
    )
    if isinstance(done, ScansLeft):
        return done
    kept = {row.scan_id for _, records in done for row in records}
    rows = rows.select(lambda row: row.scan_id in kept)
    provenance = EvaluationProvenance(
        model_sha256=predictor.bundle.sha256,
        manifest_sha256=rows.fingerprint(),
        threshold={"by_modality": thresholds},
        seed=predictor.seed,
        levels=list(predictor.levels),
        min_lesion_mm3=detector.min_lesion_mm3,
        grid=f"{NATIVE_GRID}, of the reference scan of each exam",
        scans=f"exams: all scans of a subject and session together, fused by {fusion}",
        failed=dict(scoring.failures.reasons),
        versions=versions(),
    )
    return evaluator.finish(provenance)


def _score(model: WorkerModel, fusion: str, item: _ExamRows) -> Contribution:
    detector, (exam, records) = model.detector(), item
    scored = score_exam(detector, exam, records, fusion=fusion)
    found = scored.found
    scores = ScanScores.of(_methods(detector, scored), image=found.reference.volume.data, shown="model")
    notes = tuple(f"{name} is not used: {reason}" for name, reason in found.made.not_used.items())
    threshold: dict[str, float | str] = {"value": found.threshold.value, "name": found.threshold.name}
    return Contribution(scores, notes=notes, thresholds={scored.record.modality: threshold})


def _methods(detector: Detector, scored: ScoredExam) -> Iterator[tuple[str, Case]]:
    """Yield an exam as each method scores it, over the brain of its reference."""
    found, reference = scored.found, scored.found.reference
    about: dict[str, Any] = {
        "reference": scored.lesion,
        "brain_mask": reference.own.brain_mask,
        "affine": reference.volume.affine,
    }
    yield "model", Case.of(scored.record, score=reference.score, cut=found.threshold.cut, **about)
    if len(found.parts) == 1:
        return
    contrasts = [part.contrast.name for part in found.parts]
    fused = fuse_contrasts(contrast_scores(detector, found.parts), _OTHER_FUSION)
    other = np.clip(reference.scan.to_native(fused), 0, 1)
    threshold = threshold_of(detector, contrasts, _OTHER_FUSION, None)
    yield "mean of scores", Case.of(scored.record, score=other, cut=threshold.cut, **about)
    for part in found.parts:
        own = reference.own.score if part is reference else np.clip(reference.scan.to_native(part.maps.score), 0, 1)
        name = f"{part.contrast.name or part.name} alone"
        yield name, Case.of(scored.record, score=own, cut=part.threshold.cut, **about)


def contrast_scores(detector: Detector, parts: Sequence[ExamPart]) -> list[ContrastScore]:
    """Return the scores of some contrasts of an exam, as a fusion takes them."""
    calibration = detector.selector.calibration
    return [
        ContrastScore(
            *(part.contrast.name, part.maps.score, part.scan.brain_mask),
            healthy_score(calibration, part.contrast.name),
        )
        for part in parts
    ]


def fit_exam_calibration(
    detector: Detector,
    rows: Manifest,
    before: Calibration,
    *,
    fusion: str,
    population_fraction: float,
    failures: Failures,
    grow: bool = True,
    estimate: bool = True,
) -> Calibration:
    """Return a calibration with thresholds of exams beside those of scans: for every set of two contrasts or more.

    Args:
        detector: The model, calibrated on scans.
        rows: Validation scans.
        before: The thresholds of scans.
        fusion: A name in `FUSIONS`.
        population_fraction: Fraction of healthy people within the limit of "ml:" thresholds.
        failures: Collects exams that fail; the thresholds are chosen without them.
        grow: Whether findings may grow, where annotated exams show that this is better.
        estimate: Whether annotated exams take part at all in thresholds in ml: growth, and estimates of true volumes.

    Raises:
        MissingInputError: No set of contrasts has enough healthy exams.
    """
    healthy: dict[str, list[ScoredMap]] = {}
    ill: dict[str, list[ScoredMap]] = {}
    by_name = {row.scan_id: row for row in rows}

    def score(exam: Exam) -> None:
        scored = score_exam(detector, exam, [by_name[scan.name] for scan in exam.scans], fusion=fusion)
        for name, reason in scored.found.made.not_used.items():
            failures.note(exam.name, f"{name} is not used: {reason}")
        if scored.lesion.any() or scored.record.is_healthy:
            for key, kept in _scored_subsets(detector, scored, fusion):
                (ill if scored.lesion.any() else healthy).setdefault(key, []).append(kept)

    done = failures.each(score, exams_of_manifest(rows), name=lambda exam: exam.name, description="Calibrating")
    kept = {scan.name for exam in done for scan in exam.scans}
    used = rows.select(lambda row: row.scan_id in kept)
    about: dict[str, Any] = {"split": "val", "manifest_sha256": used.fingerprint()}
    enough = {key: maps for key, maps in sorted(healthy.items()) if len(by_person(maps)) >= MIN_HEALTHY_SCANS}
    if not enough:
        raise MissingInputError(
            f"the thresholds of exams need {MIN_HEALTHY_SCANS} healthy people with the same contrasts",
            received=", ".join(f"{len(by_person(maps))} of {key}" for key, maps in sorted(healthy.items())) or "none",
            where=rows.where,
            remedy='assign healthy people with several contrasts to "val"',
        )
    tables = {}
    for key, maps in enough.items():
        patients = ill.get(key, [])
        tables[key] = by_healthy(
            maps,
            population_fraction,
            patients=patients if estimate else (),
            default=before.default,
            grow=grow,
            **about,
        ) | by_dice_of(patients, **about)
    whole = {key: tuple(sorted(one.scan_score for one in maps)) for key, maps in sorted(healthy.items())}
    return before.model_copy(
        update={
            "modalities": {**_of_scans(before.modalities), **tables},
            "healthy_scores": {**_of_scans(before.healthy_scores), **whole},
            "subjects": tuple(dict.fromkeys((*before.subjects, *used.subjects()))),
            "fusion": fusion,
        }
    )


def _scored_subsets(detector: Detector, scored: ScoredExam, fusion: str) -> Iterator[tuple[str, ScoredMap]]:
    """Yield what a calibration keeps of an exam: every set of its contrasts, on the grid of the best scan of each."""
    for key, reference, fused, brain in _subsets(detector, scored.found, fusion):
        native = np.clip(reference.scan.to_native(fused), 0, 1).astype(np.float32)
        yield (
            key,
            ScoredMap.of(
                replace(reference.own, score=native),
                min_lesion_mm3=detector.min_lesion_mm3,
                modality=key,
                scan_score=working_scan_score(fused, brain, reference.scan.grid.spacing_mm),
                lesion=_moved(scored.lesion, scored.found.reference, reference) if scored.lesion.any() else None,
                subject=scored.record.subject,
            ),
        )


def _of_scans(entries: dict[str, Any]) -> dict[str, Any]:
    """Return what is stored of single contrasts: thresholds of exams are chosen again, all of them."""
    return {key: value for key, value in entries.items() if "+" not in key}


def _subsets(
    detector: Detector, found: FoundExam, fusion: str
) -> Iterator[tuple[str, ExamPart, FloatArray, MaskArray]]:
    """Yield each set of two contrasts or more of an exam: its name, its reference, its fused score and its brain."""
    for count in range(2, len(found.parts) + 1):
        for parts in combinations(found.parts, count):
            key = exam_key([part.contrast.name for part in parts])
            if key is None:
                continue
            brain: MaskArray = np.any([part.scan.brain_mask for part in parts], axis=0)
            # Parts are in the order of their quality, so the first is the reference of the set.
            yield key, parts[0], fuse_contrasts(contrast_scores(detector, parts), fusion), brain


def check_exam_options(*, working: bool, protocol: str | None, reconstruction: bool, baselines: bool) -> None:
    """Refuse options of an evaluation that exams do not have."""
    given = {
        "--grid working": working,
        "--protocol": protocol is not None,
        "--reconstruction": reconstruction,
        "--baselines": baselines,
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise UsageError(
            "exams are evaluated on the grid of their reference scan",
            received=", ".join(wrong),
            remedy="remove it, or evaluate the scans without --exams",
        )
