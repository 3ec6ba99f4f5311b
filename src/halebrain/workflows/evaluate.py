"""Evaluation: a model on the annotated scans of a manifest, or result files of any method against references."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from halebrain.core.about import versions
from halebrain.core.errors import MissingInputError, UnavailableError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.mask import Cut
from halebrain.core.messages import Notify, log_message
from halebrain.core.modality import lesions_are_dark
from halebrain.core.parallel import HERE, Schedule
from halebrain.core.progress import track
from halebrain.core.types import FloatArray, MaskArray
from halebrain.data.folds import is_usable, unused_notes, usable
from halebrain.evaluation.baselines import ATLAS, BASELINES, DEFAULT, AtlasModel, baseline_map
from halebrain.evaluation.case import Case
from halebrain.evaluation.contribution import Contribution
from halebrain.evaluation.evaluate import Evaluation, Evaluator, ScanScores, behrendt2024
from halebrain.evaluation.folders import FolderOptions, evaluate_files, match_files, parse_labels, unused_images
from halebrain.evaluation.parts import Part, Scans, ScansLeft, Scoring, described, scoring
from halebrain.evaluation.provenance import NATIVE_GRID, WORKING_GRID, EvaluationProvenance
from halebrain.evaluation.reconstruction_quality import LevelQuality, reconstruction_quality
from halebrain.evaluation.tables import write_evaluation
from halebrain.inference.anomaly_map import NORMALISED
from halebrain.inference.predictor import Predictor
from halebrain.inference.regions import near_ventricles, regions_are_known
from halebrain.inference.scans import ScoredScan, score_scan
from halebrain.io.checksum import scan_sha256
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.tree import LeftOut, summed_left_out
from halebrain.models.store import DEFAULT_MODEL
from halebrain.preprocessing.pipeline import Preprocessor
from halebrain.preprocessing.prepared import open_record
from halebrain.report.evaluation_page import write_evaluation_page
from halebrain.thresholds.choose import ThresholdSelector
from halebrain.workflows.detector import Detector
from halebrain.workflows.evaluate_exams import check_exam_options, evaluate_exams, of_exams, with_exam_pathologies
from halebrain.workflows.selection import chosen_scans, refuse_seen, tell_flagged, tell_without_evidence
from halebrain.workflows.settings import WHOLE, DetectSettings, EvaluateSettings, PartSettings
from halebrain.workflows.worker_model import WorkerModel, worker_model

RESIDUALS_ALONE = {
    "residual": "absolute",
    "residual signed": "signed",
    "residual normalised": "normalised",
    "residual normalised signed": "normalised_signed",
}
"""Residual maps that --reconstruction scores alone, by the name of their rows; the normalised ones with a healthy map.

"signed" is "negative" on T1, where lesions are dark, and "positive" on other contrasts."""
SECOND = "second look"
"""Row and level of a model that fills what its segmenter doubts; the others are those of its first pass."""
_LEAST_SCANS = 2
"""Healthy training scans of a contrast, below which it has no atlas."""


@dataclass(frozen=True)
class EvaluationPart:
    """A part of an evaluation, while others are missing or after another one has joined all of them.

    Args:
        left: Scans of other parts that are not scored yet, by the index of the part; none of them = all are joined.
        n_scored: Scans of this part that are scored.
        n_kept: Those that an earlier run had scored.
        failures: Scans of this part that failed, with the reason.
        left_out: Images of the folders that are not used.
    """

    left: ScansLeft
    n_scored: int
    n_kept: int
    failures: Failures
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class EvaluationResults:
    """An evaluation and its files.

    Args:
        evaluation: The figures.
        files: Tables, and the page last.
        failures: Scans that failed, with the reason.
        left_out: Images of the folders that are not used.
    """

    evaluation: Evaluation
    files: list[Path]
    failures: Failures
    left_out: tuple[LeftOut, ...] = ()

    @property
    def n_scored(self) -> int:
        """Scans that were scored."""
        return len({row.scan_id for row in self.evaluation.rows})


def evaluate(output: Path, settings: EvaluateSettings, *, schedule: Schedule = HERE) -> EvaluationResults:
    """Evaluate and write tables and page; a scan that fails is reported and left out. `schedule` says where."""
    done = evaluate_part(output, settings, WHOLE, schedule=schedule)
    if isinstance(done, EvaluationPart):
        raise UnavailableError(
            "an evaluation must not be joined by another process while it runs",
            where=output,
            remedy="look at the results, which are there",
        )
    return done


def evaluate_part(
    output: Path, settings: EvaluateSettings, part: PartSettings, *, schedule: Schedule = HERE
) -> EvaluationResults | EvaluationPart:
    """Score a part of the scans; the part that finds all others done writes tables and page, as `evaluate` does."""
    failures = Failures(output, settings.notify)
    run = _evaluate_model if settings.predictions is None else _evaluate_folders
    with scoring(output, failures, schedule=schedule, part=Part(part.part_id, part.num_parts)) as scores:
        return run(output, settings, scores)


def _evaluate_model(output: Path, settings: EvaluateSettings, scores: Scoring) -> EvaluationResults | EvaluationPart:
    if settings.manifest is None:
        raise UsageError("a model is evaluated on a manifest", remedy="give --manifest")
    table = Manifest.read(settings.manifest)
    if settings.exams:
        table = with_exam_pathologies(table)
    rows = table.select(lambda r: settings.split in ("all", r.split))
    rows = chosen_scans(rows, table=table, modalities=settings.modalities, pathologies=settings.pathologies)
    used = of_exams(rows, is_usable) if settings.exams else usable(rows)
    for note in unused_notes(len(rows) - len(used)):
        settings.notify(f"warning: {note}")
    rows = used
    if settings.exams:
        return _evaluate_exams(rows, output, settings, scores)
    paper = settings.protocol == "behrendt2024"
    with worker_model(_detection(settings), scores.schedule) as model:
        predictor, atlases = model.detector().predictor, None
        if settings.baselines:
            atlases = fit_atlases(table, rows, predictor.preprocessor, notify=settings.notify)
        behind = _atlas_scans(table, rows).of_contrasts(tuple(atlases)).records if atlases else ()
        wanted = _Wanted(paper or settings.grid == "working", settings.reconstruction, atlases, behind)
        found = _scored(model, rows, wanted, scores)
    name = (settings.model or Path(DEFAULT_MODEL)).name
    if isinstance(found, ScansLeft):
        return _part_of(found, scores)
    return _written(behrendt2024(found) if paper else found, output, name, scores)


def _detection(settings: EvaluateSettings) -> DetectSettings:
    """Return how scans are processed in an evaluation."""
    return DetectSettings(
        model=settings.model,
        threshold=settings.threshold,
        min_lesion_mm3=settings.min_lesion_mm3,
        grow_to=settings.grow_to,
        seed=settings.seed,
        device=settings.device,
        brain=None,
        notify=settings.notify,
    )


def _evaluate_exams(
    rows: Manifest, output: Path, settings: EvaluateSettings, scores: Scoring
) -> EvaluationResults | EvaluationPart:
    check_exam_options(
        working=settings.grid == "working",
        protocol=settings.protocol,
        reconstruction=settings.reconstruction,
        baselines=settings.baselines,
    )
    with worker_model(_detection(settings), scores.schedule) as model:
        rows = _unseen(rows, model.detector().predictor)
        tell_without_evidence(rows, model.detector().predictor, settings.notify)
        depends = _depends(model.detector())
        found = evaluate_exams(model, rows, fusion=settings.fusion, scoring=scores, depends=depends)
    if isinstance(found, ScansLeft):
        return _part_of(found, scores)
    name = (settings.model or Path(DEFAULT_MODEL)).name
    return _written(found, output, f"{name} on exams", scores)


def _evaluate_folders(output: Path, settings: EvaluateSettings, scores: Scoring) -> EvaluationResults | EvaluationPart:
    predictions, references, brains = settings.predictions, settings.references, settings.brain_masks
    if predictions is None or references is None:
        raise UsageError("predictions are evaluated against references", remedy="give --references")
    notify = settings.notify
    value = None if settings.threshold == "auto" else ThresholdSelector(None, settings.threshold).at(None).value
    pairs = match_files(predictions, references, brains)
    left_out = tuple(unused_images(pairs, predictions, references, brains))
    if line := summed_left_out(left_out):
        notify(f"warning: {line}")
    wanted = FolderOptions(labels=parse_labels(settings.labels), threshold=value)
    found = evaluate_files(pairs, wanted, method=predictions.name, seed=settings.seed, scoring=scores)
    if isinstance(found, ScansLeft):
        return _part_of(found, scores, left_out)
    evaluation, notes = found
    for note in notes:
        notify(note)
    if value is None and evaluation.curves:
        notify("no --threshold given for anomaly maps: metrics on masks are left out")
    return _written(evaluation, output, predictions.name, scores, left_out)


def _part_of(left: ScansLeft, scores: Scoring, left_out: tuple[LeftOut, ...] = ()) -> EvaluationPart:
    return EvaluationPart(left, scores.n_scored, scores.n_kept, scores.failures, left_out)


def _depends(detector: Detector) -> list[object]:
    """Return what all figures of a model depend on besides its scans."""
    predictor, selector = detector.predictor, detector.selector
    model = [predictor.bundle.sha256, predictor.bundle.calibration, predictor.seed]
    return [*model, selector.wanted, selector.grow_to, detector.min_lesion_mm3]


def _written(
    evaluation: Evaluation, output: Path, name: str, scores: Scoring, left_out: tuple[LeftOut, ...] = ()
) -> EvaluationResults:
    files = [*write_evaluation(evaluation, output), output / "index.html"]
    write_evaluation_page(evaluation, files[-1], title=f"Evaluation of {name}")
    return EvaluationResults(evaluation, files, scores.failures, left_out)


def run_evaluation(
    predictor: Predictor,
    rows: Manifest,
    *,
    selector: ThresholdSelector,
    failures: Failures,
    working: bool = False,
    reconstruction: bool = False,
    min_lesion_mm3: float | None = None,
    atlases: dict[str, AtlasModel] | None = None,
) -> Evaluation:
    """Score every scan of `rows` that is annotated or declared healthy.

    Args:
        predictor: The model.
        rows: The scans.
        selector: The frozen threshold, by modality if available.
        failures: Collects scans that fail; the others are scored without them.
        working: On the model's working grid with resampled labels, instead of the scan's own with the original ones.
        reconstruction: Measure the quality of the reconstruction at each level too, and score residual maps alone.
        min_lesion_mm3: Smallest lesion kept in the model's mask; `None` = as the model's configuration says.
        atlases: Modality → atlas of healthy scans; `{}` = the other baselines without it, `None` = the default one.
    """
    smallest = predictor.postprocessing.min_lesion_mm3 if min_lesion_mm3 is None else min_lesion_mm3
    detector = Detector(DetectSettings(), predictor, selector, smallest)
    model = WorkerModel(detector.settings, predictor.bundle.sha256, own=detector)
    wanted = _Wanted(working, reconstruction, atlases)
    found = _scored(model, rows, wanted, Scoring(failures))
    assert isinstance(found, Evaluation)  # there are no parts
    return found


@dataclass(frozen=True)
class _Wanted:
    """What is evaluated of a scan: on which grid, with the reconstruction, with which baselines."""

    working: bool
    reconstruction: bool
    atlases: dict[str, AtlasModel] | None
    atlas_scans: tuple[ScanRecord, ...] = ()

    @property
    def stated(self) -> list[object]:
        """It as JSON data; of the atlases the scans, as another machine may fit the last bit otherwise."""
        counts = None if self.atlases is None else {name: one.n_scans for name, one in sorted(self.atlases.items())}
        return [self.working, self.reconstruction, counts, [_scan_of_atlas(record) for record in self.atlas_scans]]


def _scored(model: WorkerModel, rows: Manifest, wanted: _Wanted, scores: Scoring) -> Evaluation | ScansLeft:
    """Score every scan that can be evaluated, where and in which part `scores` says."""
    detector, atlases = model.detector(), wanted.atlases
    predictor, selector, smallest = detector.predictor, detector.selector, detector.min_lesion_mm3
    if wanted.reconstruction and not predictor.bundle.reconstructor.gives_image:
        raise UsageError(
            "--reconstruction needs a model that gives a pseudo-healthy image",
            received=predictor.bundle.config.reconstructor.name,
            remedy="remove the option",
        )
    rows = _unseen(usable(rows), predictor)
    tell_without_evidence(rows, predictor, detector.settings.notify)
    evaluator, levels, flagged = Evaluator(seed=predictor.seed), list[LevelQuality](), dict[str, tuple[str, ...]]()

    def keep(record: ScanRecord, found: Contribution) -> None:
        evaluator.take(found.scores)
        levels.extend(found.levels)
        if found.flags:
            flagged[record.scan_id] = found.flags

    done = scores.each(
        partial(_score, model, wanted),
        Scans(rows.records, name=lambda record: record.scan_id, files=_files),
        depends=["scans", _depends(detector), wanted.stated, described(rows)],
        keep=keep,
    )
    if isinstance(done, ScansLeft):
        return done
    rows = replace(rows, records=tuple(done))
    tell_flagged(flagged, len(rows), detector.settings.notify)
    provenance = EvaluationProvenance(
        model_sha256=predictor.bundle.sha256,
        manifest_sha256=rows.fingerprint(),
        threshold=_stated(selector, {row.contrast for row in rows}),
        seed=predictor.seed,
        levels=list(predictor.levels),
        min_lesion_mm3=smallest,
        grid=WORKING_GRID if wanted.working else NATIVE_GRID,
        atlas_scans={modality: atlas.n_scans for modality, atlas in (atlases or {}).items()},
        failed=dict(scores.failures.reasons),
        flagged=flagged,
        versions=versions(),
    )
    return replace(evaluator.finish(provenance), reconstruction=levels)


def _files(record: ScanRecord) -> tuple[Path | None, ...]:
    return record.image, record.brain_mask, record.lesion, record.healthy


def _score(model: WorkerModel, wanted: _Wanted, record: ScanRecord) -> Contribution:
    """Return what one scan adds to an evaluation, with the quality of its reconstruction."""
    detector, working = model.detector(), wanted.working
    predictor = detector.predictor
    scored = score_scan(predictor, record)
    cut = replace(detector.selector.at(record.contrast), min_lesion_mm3=detector.min_lesion_mm3).cut
    residuals = _residuals_alone(predictor, scored) if wanted.reconstruction else {}
    space = predictor.preprocessor.config.space
    methods = _methods(scored, cut, working=working, atlases=wanted.atlases, residuals=residuals, space=space)
    found = _levels(predictor, scored) if wanted.reconstruction else []
    image = scored.scan.image if working else scored.volume.data
    scores = ScanScores.of(methods, image=image, shown="model")
    return Contribution(scores, tuple(found), flags=scored.quality_flags())


def _unseen(rows: Manifest, predictor: Predictor) -> Manifest:
    """Return the scans to evaluate; there must be one, and none of a subject of the model's training data."""
    if len(rows) == 0:
        raise MissingInputError(
            "evaluation needs annotated or healthy scans",
            where=rows.where,
            remedy='check --split, --modality, --pathology, and the columns "pathology" and "lesion" of the manifest',
        )
    seen = predictor.bundle.seen_subjects("train_subjects", "val_subjects") | predictor.bundle.calibration_subjects()
    refuse_seen(rows, seen, "evaluated")
    return rows


def _stated(selector: ThresholdSelector, modalities: set[str]) -> dict[str, Any]:
    """Return value and name of the threshold; by modality, where they are not the same for all."""
    by_modality: dict[str, dict[str, float | str]] = {}
    for modality in sorted(modalities):
        chosen = selector.at(modality)
        by_modality[modality] = {"value": chosen.value, "name": chosen.name}
        if chosen.grow_to is not None:
            by_modality[modality]["grow_to"] = chosen.grow_to
    first = next(iter(by_modality.values()))
    return first if all(one == first for one in by_modality.values()) else {"by_modality": by_modality}


def _levels(predictor: Predictor, scored: ScoredScan) -> list[LevelQuality]:
    """Return the quality of one scan's reconstruction at each level; nothing where it has no lesion."""
    scan, lesion = scored.scan, scored.lesion_working()
    if not (lesion & scan.brain_mask).any():
        return []
    healthy, levels = scored.healthy_working(), predictor.reconstruct_levels(scan)
    if scored.maps.first_reconstruction is not None:
        levels[SECOND] = scored.maps.reconstruction
    return [
        LevelQuality(
            scored.record.scan_id,
            scored.record.subject,
            level,
            reconstruction_quality(scan.image, found, lesion, scan.brain_mask, healthy=healthy),
        )
        for level, found in levels.items()
    ]


def _residuals_alone(predictor: Predictor, scored: ScoredScan) -> dict[str, FloatArray]:
    """Return residual maps on the working grid by the name of their rows; normalised ones where there is a map."""
    contrast, found = scored.record.contrast, dict[str, FloatArray]()
    known = () if predictor.healthy_map is None else predictor.healthy_map.contrasts
    for name, kind in RESIDUALS_ALONE.items():
        if kind in NORMALISED and contrast not in known:
            continue
        if kind == "signed":
            kind = "negative" if lesions_are_dark(contrast) else "positive"
        first, last = scored.maps.first_reconstruction, scored.maps.reconstruction
        found[name] = predictor.residual_alone(scored.scan, last if first is None else first, contrast, kind)
        if first is not None and kind not in NORMALISED:  # the healthy map is that of the first pass
            found[name.replace("residual", SECOND)] = predictor.residual_alone(scored.scan, last, contrast, kind)
    return found


def _methods(
    scored: ScoredScan,
    cut: Cut,
    *,
    working: bool,
    atlases: dict[str, AtlasModel] | None,
    residuals: Mapping[str, FloatArray],
    space: str,
) -> Iterator[tuple[str, Case]]:
    """Yield the scan as each method scores it, over its brain; lesion that the brain mask missed counts as missed.

    `space` is that of the working grid.
    """
    result, record, scan, maps = scored.result, scored.record, scored.scan, scored.maps
    lesion = np.zeros(scored.volume.shape, dtype=bool) if scored.lesion is None else scored.lesion
    if working:
        lesion = scored.lesion_working()
        image, brain_mask, affine = scan.image, scan.brain_mask, scan.grid.affine
        found = {"model": maps.score, "segmenter alone": maps.probability, "reconstruction alone": maps.residual}
    else:
        image, brain_mask, affine = scored.volume.data, result.brain_mask, scored.volume.affine
        found = {
            "model": result.score,
            "segmenter alone": result.probability,
            "reconstruction alone": np.clip(scan.to_native(maps.residual), 0, 1),
        }
    near = None
    if regions_are_known(space, scan.qc):
        near = near_ventricles(scan.grid)
        near = near if working else scan.to_native(near, order=0) > 0.5
    found |= {name: score if working else np.clip(scan.to_native(score), 0, 1) for name, score in residuals.items()}
    found |= _baseline_scores(scored, image, brain_mask | lesion, working=working, atlases=atlases)
    for method, score in found.items():
        own = cut if method == "model" else None
        yield (
            method,
            Case.of(
                record,
                reference=lesion,
                brain_mask=brain_mask,
                affine=affine,
                score=score,
                cut=own,
                near_ventricles=near,
            ),
        )


def fit_atlases(
    manifest: Manifest, rows: Manifest, preprocessor: Preprocessor, *, notify: Notify = log_message
) -> dict[str, AtlasModel]:
    """Return one atlas a modality of `rows`, fitted on the healthy scans of the split "train".

    Subjects that are evaluated take no part. A modality without two such scans has no atlas, with a note.
    """
    train, atlases = _atlas_scans(manifest, rows), {}
    for modality in sorted({record.contrast for record in rows}):
        healthy = train.of_contrasts((modality,))
        if len(healthy) < _LEAST_SCANS:
            notify(f"no atlas of {modality}: fewer than two healthy training scans")
            continue
        atlases[modality] = AtlasModel.fit(_working_scans(healthy, preprocessor, f"Atlas of {modality}", notify))
    return atlases


def _atlas_scans(manifest: Manifest, rows: Manifest) -> Manifest:
    """Return the healthy scans of the split "train" of people who are not evaluated."""
    evaluated = set(rows.subjects())
    return manifest.split("train").select(lambda r: r.is_healthy and r.subject not in evaluated)


def _scan_of_atlas(record: ScanRecord) -> list[str | None]:
    """Return what tells a scan of an atlas from another one: its name and its files' content."""
    files = (record.image, record.brain_mask)
    return [record.scan_id, record.space, *(None if path is None else scan_sha256(path) for path in files)]


def _baseline_scores(
    scored: ScoredScan,
    image: FloatArray,
    region: MaskArray,
    *,
    working: bool,
    atlases: Mapping[str, AtlasModel] | None,
) -> dict[str, FloatArray]:
    """Return each baseline's score of a scan in [0, 1] on the grid of `image`, 0 outside `region`, by name."""
    modality = scored.record.contrast
    names = [DEFAULT] if atlases is None else list(BASELINES)
    found = {name: baseline_map(name, image, region, modality) for name in names}
    if atlas := (atlases or {}).get(modality):
        scan = scored.scan
        for name in ATLAS:
            score = baseline_map(name, scan.image, scan.brain_mask, modality, atlas=atlas)
            found[name] = score if working else np.clip(scan.to_native(score), 0, 1)
    return found


def _working_scans(
    rows: Manifest, preprocessor: Preprocessor, description: str, notify: Notify
) -> Iterator[tuple[FloatArray, MaskArray]]:
    """Yield image and brain mask on the working grid, one scan at a time."""
    for record in track(rows.records, description=description, total=len(rows)):
        _, scan = open_record(preprocessor, record)
        if scan.qc.registration_failed:
            notify(f"{record.scan_id} failed to register and is left out of the atlas")
            continue
        yield scan.image, scan.brain_mask
