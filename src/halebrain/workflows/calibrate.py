"""Calibration: thresholds chosen on the validation scans of a manifest, and stored in the model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from halebrain.core.config import dump_yaml, parse_config
from halebrain.core.device import find_device
from halebrain.core.errors import CannotWriteError, DataError, MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.messages import Notify, log_message
from halebrain.core.wording import counted, whole_percent
from halebrain.data.folds import is_usable, unused_notes, usable
from halebrain.inference.anomaly_map import NORMALISED, PostprocessingConfig
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import score_scan
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import Bundle, load_bundle, read_summary
from halebrain.models.bundle_files import copy_bundle, store_calibration, store_scoring
from halebrain.models.card import model_card
from halebrain.models.healthy_map import MIN_SUBJECTS, HealthyScans
from halebrain.models.store import find_model
from halebrain.thresholds.calibration import (
    MIN_HEALTHY_SCANS,
    Calibration,
    data_set_of,
    read_calibration,
    with_data_set,
)
from halebrain.thresholds.exam import without_outdated_exams
from halebrain.thresholds.false_positive_volume import CONFIDENCE, by_person, reached_confidence
from halebrain.thresholds.fit import by_dice_of, by_healthy, threshold_names
from halebrain.thresholds.growth import MIN_PATIENTS
from halebrain.thresholds.percentile import working_scan_score
from halebrain.thresholds.scored_map import ScoredMap
from halebrain.workflows.detector import load_detector
from halebrain.workflows.evaluate_exams import fit_exam_calibration, of_exams, with_exam_pathologies
from halebrain.workflows.healthy_map import HealthyFit, fit_healthy_map
from halebrain.workflows.selection import check_words, refuse_seen, tell_flagged
from halebrain.workflows.settings import CalibrateSettings, DetectSettings

_LEAVES_OUT = "use --healthy-map, which leaves each person out of the map for own scans"
_PLAIN = {"residual": "absolute", "fusion": "weighted_sum"}
"""Scores that need no healthy map, with which a map is fitted."""


@dataclass(frozen=True)
class CalibrationResults:
    """A calibration that is stored.

    Args:
        model: The calibrated model.
        calibration: Its thresholds.
        rows: The scans that were asked for.
        failures: Those that failed, with the reason.
        healthy_map: Contrast → scans of the model's healthy residual map; empty without one.
    """

    model: Path
    calibration: Calibration
    rows: Manifest
    failures: Failures
    healthy_map: Mapping[str, HealthyScans] = field(default_factory=dict)


def calibrate_on_manifest(model: Path, manifest: Path, settings: CalibrateSettings) -> CalibrationResults:
    """Fit every threshold on the scans of the split "val" of a manifest and store them in the model, or in a copy.

    The model is a folder, or with `settings.output` a zip or a name. Healthy scans take part whatever the pathologies.
    """
    rows = _read_val(manifest, settings)
    if settings.patients is not None:
        rows = rows.joined(_patients(settings.patients, settings))
    check_words(rows, settings.modalities, settings.pathologies)
    rows = rows.of_contrasts(settings.modalities)
    pathologies = settings.pathologies
    rows = rows.select(lambda r: r.is_healthy or not pathologies or r.pathology in pathologies)
    rows = rows if settings.exams else _usable(rows, settings.notify)
    failures = Failures(None, settings.notify)  # a model's folder takes no other files
    calibrate = _calibrate_exams if settings.exams else run_calibration
    calibration = calibrate(model, rows, settings, failures=failures)
    kept = rows.select(lambda r: r.scan_id not in failures.reasons)
    _warn_of_few(kept, settings)
    if not settings.plain and not settings.no_growth and not settings.exams:
        _tell_why_not_grown(calibration, kept, settings)
    target = settings.output or model
    scans = read_summary(find_model(target)).healthy_map
    return CalibrationResults(target, calibration, rows, failures, scans)


def _read_val(path: Path, settings: CalibrateSettings) -> Manifest:
    rows = Manifest.read(path).split("val")
    return with_exam_pathologies(rows) if settings.exams else rows


def _patients(path: Path, settings: CalibrateSettings) -> Manifest:
    """Return the annotated scans of `--patients`; with exams, the other contrasts of their exams too."""
    rows = _read_val(path, settings)
    found = of_exams(rows, _has_mask) if settings.exams else rows.select(_has_mask)
    if len(found) == 0:
        raise MissingInputError(
            '--patients needs annotated scans of the split "val"',
            received=f"{counted(len(rows), 'scan')} of that split, none with a mask" if len(rows) else "no such split",
            where=path,
            remedy='write val under "split", and the masks under "lesion"',
        )
    if left := len(rows) - len(found):
        settings.notify(f"{counted(left, 'scan')} of --patients left out, as no patients with a mask")
    return found


def _usable(rows: Manifest, notify: Notify) -> Manifest:
    """Return the scans that are healthy or annotated; the others give no threshold."""
    used = usable(rows)
    if len(rows) and len(used) == 0:
        raise _nothing_usable(rows)
    for note in unused_notes(len(rows) - len(used)):
        notify(f"warning: {note}")
    return used


def _nothing_usable(rows: Manifest) -> MissingInputError:
    return MissingInputError(
        "calibration needs healthy or annotated scans",
        where=rows.where,
        remedy='write healthy under "pathology", or a mask under "lesion"',
    )


def _has_mask(record: ScanRecord) -> bool:
    return record.is_annotated


def run_calibration(model: Path, rows: Manifest, settings: CalibrateSettings, *, failures: Failures) -> Calibration:
    """Fit every threshold on `rows` and store them in the bundle, or in a copy of it.

    Args:
        model: The bundle; a folder, or with `settings.output` a zip or a name.
        rows: Validation scans.
        settings: How.
        failures: Collects scans that fail; the thresholds are chosen without them.

    Raises:
        CannotWriteError: The output is there already.
        MissingInputError: There is no validation scan, none healthy or annotated, no model, or nothing to add to.
        DataError: The model was trained on one of them.
        UsageError: A modality to add is there already, the default is the name of no threshold, the model is no
            folder and no output folder is given, or thresholds on other scores would stay beside a new healthy map.
        ConfigError: The residual is unknown, or normalised without a healthy map, or evidence and not normalised.
    """
    output, name, add, default = settings.output, settings.name, settings.add, settings.default
    device = find_device(settings.device)
    if len(rows) == 0:
        raise MissingInputError(
            'calibration needs scans of the split "val"',
            where=rows.where,
            remedy='write val under "split" for some subjects, and check --modality and --pathology',
        )
    changes_scores = settings.healthy_map or settings.residual is not None or settings.evidence is not None
    if changes_scores and (add or name is not None):
        raise UsageError(
            "--healthy-map, --residual and --evidence change the scores, so that no earlier threshold can stay",
            received="--add" if add else "--name",
            remedy="calibrate with them first, without --add and --name",
        )
    source = _source(model, output)
    bundle = load_bundle(source)
    refuse_seen(rows, bundle.seen_subjects("train_subjects"), "calibrated on")
    before = read_calibration(bundle) if add or name is not None else None
    if add:
        _check_addition(rows, before, name)
    # Of a data set that is calibrated again, nothing stays.
    kept = [] if before is None else [key for key in before.thresholds if add or data_set_of(key) != name]
    _check_default(default, rows, kept, name)
    _tell_replaced(bundle, settings)
    bundle, fit, rows = _with_residual(bundle, rows, settings, failures)
    predictor = Predictor(bundle, device=device, seed=settings.seed)
    used_by_default = default or (before.default if before is not None else None)
    calibration = fit_calibration(
        predictor,
        rows,
        population_fraction=settings.population_fraction,
        failures=failures,
        default=used_by_default and used_by_default.partition("@")[0],
        grow=not settings.no_growth,
        estimate=not settings.plain,
        fit=fit,
        notify=settings.notify,
    )
    if name is not None:
        calibration = calibration.named(name, beside=None if add else before)
    if add and before is not None:
        calibration = calibration.added_to(before)
    if default is not None:
        calibration = calibration.model_copy(update={"default": default})
    if before is not None:
        calibration = _without_outdated_exams(calibration, before, settings.notify)
    if output is not None:
        copy_bundle(source, output)
    stored = calibration.model_dump(mode="json")
    if changes_scores:
        _store_scoring(output or source, bundle, stored)
    else:
        store_calibration(output or source, stored)
    return calibration


def _store_scoring(target: Path, bundle: Bundle, calibration: dict[str, Any]) -> None:
    """Store how a model scores from now on, its thresholds, and the card that says so."""
    healthy = bundle.healthy_map
    raw, fitted_on = (b"", {}) if healthy is None else (healthy.to_bytes(), healthy.about())
    store_scoring(
        target,
        calibration,
        config=dump_yaml(bundle.config).encode(),
        healthy_map=raw,
        fitted_on=fitted_on,
        about=bundle.about,
        card=model_card(bundle),
    )


def _tell_replaced(bundle: Bundle, settings: CalibrateSettings) -> None:
    """Tell of thresholds of exams and of named data sets that a whole calibration replaces."""
    before = read_calibration(bundle)
    if before is None or settings.add or settings.name is not None:
        return
    sets = sorted({name for key in before.thresholds if (name := data_set_of(key)) is not None})
    exams = ["those of exams"] if any("+" in modality for modality in before.modalities) else []
    if gone := [*exams, *(f"those of {name}" for name in sets)]:
        settings.notify(f"warning: all thresholds are replaced, {' and '.join(gone)} too; --add or --name keeps others")


def _without_outdated_exams(calibration: Calibration, before: Calibration, notify: Notify) -> Calibration:
    found = without_outdated_exams(calibration, before)
    if gone := sorted(set(calibration.modalities) - set(found.modalities)):
        notify(
            f"warning: the thresholds of exams of {', '.join(gone)} were chosen beside other thresholds of these "
            "contrasts and are removed: run halebrain calibrate --exams again"
        )
    return found


def _with_residual(
    bundle: Bundle, rows: Manifest, settings: CalibrateSettings, failures: Failures
) -> tuple[Bundle, HealthyFit | None, Manifest]:
    """Return the model with the map and the residual asked for, the fit of the map, and the scans that did not fail."""
    post = bundle.config.postprocessing
    if settings.residual is not None:
        post = {**post, "residual": settings.residual}
        if settings.residual not in NORMALISED:
            post["fusion"] = PostprocessingConfig().fusion  # only a normalised residual can be evidence
    if settings.evidence is not None:
        if bundle.segmenter is None:
            raise UsageError(
                "--evidence needs a model with a segmenter",
                received="a reconstructor alone",
                where=bundle.where,
                remedy="calibrate without --evidence",
            )
        post = {**post, "fusion": "log_odds", "residual_weight": settings.evidence}
    where = "--residual" if settings.evidence is None else "--evidence"
    needs_map = parse_config(PostprocessingConfig, post, where=where).needs_healthy_map
    final = bundle.config.model_copy(update={"postprocessing": post})
    if final != bundle.config or (settings.healthy_map and needs_map):
        bundle = bundle.with_other_scores()
    if not settings.healthy_map:
        bundle = replace(bundle, config=final)
        _warn_of_own_map(bundle, rows, settings.notify)
        return bundle, None, rows
    # Residuals are measured before they are normalised; the kind that the model will have may need the map.
    plain = bundle.config.model_copy(update={"postprocessing": {**post, **_PLAIN}})
    predictor = Predictor(replace(bundle, config=plain), device=find_device(settings.device), seed=settings.seed)
    fit = fit_healthy_map(predictor, rows, failures=failures, notify=settings.notify)
    rows = rows.select(lambda record: record.scan_id not in failures.reasons)
    fitted = replace(bundle, config=final, healthy_map=fit.fitted)
    others = rows.select(lambda record: record.contrast not in fit.contrasts)
    _warn_of_own_map(
        fitted, others, settings.notify, f"their map is the earlier one, as {MIN_SUBJECTS} people are needed"
    )
    return fitted, fit, rows


def _warn_of_own_map(bundle: Bundle, rows: Manifest, notify: Notify, remedy: str = _LEAVES_OUT) -> None:
    """Warn where thresholds are chosen on scans that are in the healthy map, which makes them too low."""
    post = parse_config(PostprocessingConfig, bundle.config.postprocessing, where=bundle.where)
    if not post.needs_healthy_map or bundle.healthy_map is None:
        return
    known = bundle.healthy_map.contrasts
    behind = {(name, subject) for name, one in known.items() for subject in one.scans.subjects}
    inside = {row.subject for row in rows if (row.contrast, row.subject) in behind}
    if inside:
        notify(
            f"warning: {counted(len(inside), 'person', 'people')} of these scans are in the model's healthy map, and "
            f"score lower than others would: {remedy}"
        )


def _calibrate_exams(model: Path, rows: Manifest, settings: CalibrateSettings, *, failures: Failures) -> Calibration:
    """Choose the thresholds of exams on `rows` and store them in the bundle, or in a copy, beside those of scans."""
    rows = of_exams(rows, is_usable)
    source = _source(model, settings.output)
    bundle = load_bundle(source)
    refuse_seen(rows, bundle.seen_subjects("train_subjects"), "calibrated on")
    before = read_calibration(bundle)
    if before is None or not any(data_set_of(key) is None for key in before.thresholds):
        raise MissingInputError(
            "exams are calibrated on a model that is calibrated on scans",
            received="thresholds of named data sets alone, which exams do not use" if before is not None else "",
            where=bundle.where,
            remedy="run halebrain calibrate without --exams and --name first",
        )
    given: dict[str, object] = {"--name": settings.name, "--add": settings.add, "--default": settings.default}
    given |= {"--healthy-map": settings.healthy_map, "--residual": settings.residual, "--evidence": settings.evidence}
    if wrong := [name for name, value in given.items() if value is not None and value is not False]:
        raise UsageError(
            f"{wrong[0]} goes with the thresholds of scans", received="--exams", remedy=f"remove {wrong[0]}"
        )
    options = DetectSettings(seed=settings.seed, device=settings.device, brain=None, notify=settings.notify)
    calibration = fit_exam_calibration(
        load_detector(options, bundle),
        rows,
        before,
        fusion=settings.fusion,
        population_fraction=settings.population_fraction,
        failures=failures,
        grow=not settings.no_growth,
        estimate=not settings.plain,
    )
    if settings.output is not None:
        copy_bundle(source, settings.output)
    store_calibration(settings.output or source, calibration.model_dump(mode="json"))
    return calibration


def _source(model: Path, output: Path | None) -> Path:
    """Return where a model is read from; stop where its thresholds could not be stored, before anything is scored."""
    source = find_model(model)
    if output is None and not source.is_dir():
        raise UsageError(
            "thresholds are stored in a model folder",
            received=f"a zip, {source}",
            remedy="give a folder for the calibrated model: --output FOLDER",
        )
    if output is not None and output.exists():
        raise CannotWriteError("the output must not exist yet", where=output, remedy="choose another")
    return source


def fit_calibration(
    predictor: Predictor,
    rows: Manifest,
    *,
    population_fraction: float,
    failures: Failures,
    fit: HealthyFit | None = None,
    default: str | None = None,
    grow: bool = True,
    estimate: bool = True,
    notify: Notify = log_message,
) -> Calibration:
    """Return every threshold that validation scans allow, over all of them and for each modality.

    Scans that are neither healthy nor annotated take no part; those that fail, or fail to register, are collected. With
    `fit`, the healthy map was fitted on some of these scans: each is scored with the map of all other people.

    Args:
        predictor: The model.
        rows: Validation scans.
        population_fraction: Fraction of healthy people within the limit of "ml:" thresholds.
        failures: Collects scans that fail.
        fit: The fit of the healthy map; `None` = it was not fitted here.
        default: Name of the threshold that will be used by default, at which the growth of findings is chosen.
        grow: Whether findings may grow, where annotated scans show that this is better.
        estimate: Whether annotated scans take part at all in thresholds in ml: growth, and estimates of true volumes.
        notify: Receives what else is to be known of the scans.
    """
    smallest = predictor.postprocessing.min_lesion_mm3
    healthy: dict[str, list[ScoredMap]] = {}
    ill: list[ScoredMap] = []
    flagged: dict[str, tuple[str, ...]] = {}

    def score(record: ScanRecord) -> None:
        scored = score_scan(_without(predictor, fit, record), record)
        if scored.scan.qc.registration_failed:
            raise DataError(
                "a scan must register to the template to set a threshold",
                where=record.image,
                remedy="remove it, or look at its orientation and brain mask: halebrain detect -i SCAN",
            )
        if flags := scored.quality_flags():
            flagged[record.scan_id] = flags
        is_ill = record.is_annotated and scored.lesion is not None
        if not (is_ill or record.is_healthy):
            return
        kept = ScoredMap.of(
            scored.result,
            min_lesion_mm3=smallest,
            modality=record.contrast,
            scan_score=working_scan_score(scored.maps.score, scored.scan.brain_mask, scored.scan.grid.spacing_mm),
            lesion=scored.lesion if is_ill else None,
            subject=record.subject,
        )
        (ill if is_ill else healthy.setdefault(record.contrast, [])).append(kept)

    done = failures.each(score, rows.records, name=lambda record: record.scan_id, description="Calibrating")
    rows = replace(rows, records=tuple(done))
    tell_flagged(flagged, len(rows), notify)
    about: dict[str, Any] = {"split": "val", "manifest_sha256": rows.fingerprint()}
    every = [scan for scans in healthy.values() for scan in scans]
    thresholds = by_dice_of(ill, **about)
    thresholds |= by_healthy(every, population_fraction, **about)
    if not thresholds:
        raise _nothing_usable(rows)
    enough = {
        modality: scans for modality, scans in sorted(healthy.items()) if len(by_person(scans)) >= MIN_HEALTHY_SCANS
    }
    tables = {}
    for modality, scans in enough.items():
        patients = [scan for scan in ill if estimate and scan.modality == modality]
        tables[modality] = by_healthy(
            scans, population_fraction, patients=patients, default=default, grow=grow, **about
        )
    return Calibration(
        default=next(iter(thresholds)),
        thresholds=thresholds,
        subjects=tuple(rows.subjects()),
        modalities=tables,
        healthy_scores={m: tuple(sorted(scan.scan_score for scan in scans)) for m, scans in sorted(healthy.items())},
    )


def _without(predictor: Predictor, fit: HealthyFit | None, record: ScanRecord) -> Predictor:
    """Return the predictor for a scan: with the healthy map of everybody else where its person is in the map."""
    if fit is None or not predictor.postprocessing.needs_healthy_map or record.subject not in fit.shares:
        return predictor
    return predictor.with_healthy_map(fit.without(record.subject))


def _check_addition(rows: Manifest, before: Calibration | None, name: str | None) -> None:
    """Stop where modalities cannot be added, before anything is scored."""
    if before is None:
        raise MissingInputError("--add needs thresholds to add to", remedy="calibrate without --add first")
    # Even a single healthy scan would replace all behind a percentile.
    if taken := sorted(set(_healthy_people(rows)) & before.calibrated_modalities(name)):
        raise UsageError(
            "--add takes only modalities without thresholds",
            received=", ".join(taken),
            where=rows.where,
            remedy="choose others with --modality, or calibrate again without --add",
        )


def _check_default(default: str | None, rows: Manifest, kept: Sequence[str], name: str | None) -> None:
    """Stop where a default is the name of no threshold that there will be, before anything is scored."""
    healthy = any(row.is_healthy for row in rows)
    coming = threshold_names(annotated=any(row.is_annotated for row in rows), healthy=healthy)
    known = list(dict.fromkeys([*kept, *(with_data_set(n, name) for n in coming)]))
    if default is not None and default not in known:
        raise UsageError(
            "--default takes the name of a threshold",
            received=repr(default),
            where=rows.where,
            remedy=f"these scans give {', '.join(known) or 'none'}",
        )


def _tell_why_not_grown(calibration: Calibration, rows: Manifest, settings: CalibrateSettings) -> None:
    """Say of each contrast with its own thresholds why its findings do not grow."""
    for modality in sorted({row.contrast for row in rows}):
        own = calibration.modalities.get(modality, {})
        limit = own.get(with_data_set("ml:1", settings.name))
        if limit is None or limit.growth is not None:
            continue
        count = len({row.subject for row in rows if row.is_annotated and row.contrast == modality})
        why = "growth does not raise the mean Dice of the patients"
        if count < MIN_PATIENTS:
            why = f"{counted(count, 'annotated patient')}, {MIN_PATIENTS} are needed"
        settings.notify(f"{modality}: findings do not grow to a lower threshold: {why}")


def _healthy_people(rows: Manifest) -> Counter[str]:
    """Return how many healthy people have scans of each contrast."""
    return Counter(contrast for contrast, _ in {(row.contrast, row.subject) for row in rows if row.is_healthy})


def _warn_of_few(rows: Manifest, settings: CalibrateSettings) -> None:
    """Warn about contrasts with too few healthy scans for their thresholds, or for the confidence of these."""
    population_fraction, notify = settings.population_fraction, settings.notify
    for modality, count in sorted(_healthy_people(rows).items()):
        sure = reached_confidence(count, population_fraction=population_fraction)
        if count < MIN_HEALTHY_SCANS and not settings.exams:
            notify(
                f"warning: {modality}: {counted(count, 'healthy person', 'healthy people')}, {MIN_HEALTHY_SCANS} are "
                "needed for its own thresholds; those over all contrasts hold"
            )
        elif count >= MIN_HEALTHY_SCANS and sure < CONFIDENCE:
            few = f"{count} healthy people are too few for {100 * population_fraction:g} % of people"
            notify(
                f"warning: {modality}: {few}: all of them must keep the limit, with a confidence of "
                f"{whole_percent(sure)} % instead of {CONFIDENCE:.0%}"
            )
