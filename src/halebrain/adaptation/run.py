"""The complete adaptation: pairs, left-out runs, number of steps, the adapted model, evaluation before and after."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from halebrain.adaptation.config import AdaptConfig, inherit_settings
from halebrain.adaptation.folds import Snapshots, StepChoice, assign_folds, choose_steps
from halebrain.adaptation.pairs import open_pairs, rehearsed_diseases, virtual_patients
from halebrain.adaptation.scans import AdaptScans, prepare_scans, unprepared, without_empty
from halebrain.adaptation.scores import BeforeAndAfter, LeftOutScan, calibrate_left_out, score_versions
from halebrain.core.config import portable_dump, with_former_keys
from halebrain.core.errors import DataError
from halebrain.core.failures import Failures
from halebrain.core.messages import Notify, log_message
from halebrain.core.parallel import HERE, Schedule
from halebrain.core.progress import track
from halebrain.core.types import FloatArray
from halebrain.core.wording import counted, first_of
from halebrain.data.slices import SliceStore, build_store
from halebrain.evaluation.curve import Curve
from halebrain.evaluation.evaluate import Evaluation
from halebrain.inference.resegment import Resegmenter
from halebrain.inference.scans import AnnotatedScan, open_annotated
from halebrain.io.checksum import json_sha256, scan_sha256
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import Bundle
from halebrain.models.bundle_files import About
from halebrain.models.ensemble import AnySegmenter
from halebrain.training.adaptation import fine_tune
from halebrain.training.devices import launch
from halebrain.training.pairs import PairStore

STAGE = "adaptation"
Fold = tuple[str, ...]
Scored = tuple[AnnotatedScan, FloatArray]


@dataclass(frozen=True)
class Adaptation:
    """Result of an adaptation.

    Args:
        bundle: The adapted model, not yet written.
        choice: How many steps, and why.
        left_out: Before and after on scans that were left out in turn; `None` where none could be.
        held_out: The same on scans that took no part; `None` where there are none.
        notes: Notes for the user, one clause each.
    """

    bundle: Bundle
    choice: StepChoice
    left_out: Evaluation | None
    held_out: Evaluation | None
    notes: tuple[str, ...]


class Adapter:
    """Adapts one model to the scans of a user; everything that it makes on the way is kept in `folder`.

    A run that was stopped goes on from there. The model must be a detector; its reconstructor is not changed. Anomalies
    and loss that `config` leaves open are those that the model learned with. `schedule` says where raw scans are
    prepared, and `notify` receives a line for each that fails.
    """

    def __init__(
        self,
        bundle: Bundle,
        scans: AdaptScans,
        config: AdaptConfig,
        folder: Path,
        device: torch.device,
        *,
        schedule: Schedule = HERE,
        notify: Notify = log_message,
    ) -> None:
        if bundle.segmenter is None:
            raise DataError(
                "adaptation needs a model with a segmenter",
                where=bundle.where,
                remedy="give a detector, which has both stages; halebrain models info MODEL shows the kind",
            )
        config = inherit_settings(config, bundle)
        self.bundle, self.given, self.config, self.folder = bundle, scans, config, folder
        self.segmenter: AnySegmenter = bundle.segmenter
        self.identity = adaptation_identity(bundle, scans, config)
        self.work = folder / self.identity[:16]
        self.predictor = Resegmenter(bundle, device=device, seed=config.seed)
        self.fabric: Fabric = launch(config.tuning.loop, device)
        self.notes, self._schedule, self._notify = list(scans.notes), schedule, notify

    def run(self) -> Adaptation:
        """Run the adaptation, or the remaining part of it."""
        scans, annotated, healthy = self._open()
        stores = {"annotated": annotated, "synthetic": healthy or annotated, "rehearsed": self._rehearse(scans)}
        pairs = {
            kind: open_pairs(kind, store, self.bundle, self.config, self.work / "pairs")
            for kind, store in stores.items()
            if store is not None
        }
        subjects = list(dict.fromkeys(record.subject for record in annotated.records))
        folds = assign_folds(subjects, scans.healthy.subjects(), self.config.max_folds)
        runs = {fold: self._train_without(pairs, fold, number) for number, fold in enumerate(folds)}
        ill = self._score(scans.annotated, runs, self._steps, "Scoring left-out scans")
        choice = self._choose(ill)
        only = (choice.steps,) if choice.steps else ()
        # A run without any other healthy subject learned from those that it should leave out.
        apart = {fold: run for fold, run in runs.items() if set(scans.healthy.subjects()) - set(fold)}
        well = self._score(scans.healthy, apart, only, "Scoring left-out healthy scans")
        learned = set(scans.healthy.subjects()) - {scan.record.subject for scan, _ in well}
        if folds and learned:
            self.notes.append(
                f"{first_of(sorted(learned))}: every run learned from these healthy scans, the only ones: "
                "they are not scored as left out"
            )
        left_out = [LeftOutScan(scan, scores[0], scores[choice.tried.index(choice.steps)]) for scan, scores in ill]
        left_out += [LeftOutScan(scan, scores[0], scores[-1]) for scan, scores in well]
        segmenter, seconds = self._final(pairs, choice)
        # Without a step the scores are the same, and so are the thresholds.
        is_same = choice.steps == 0 and bool(self.bundle.calibration)
        calibration = self.bundle.calibration if is_same else self._calibration(left_out, scans.annotated)
        summary = self._summary(scans, choice) | {
            "notes": list(self.notes),
            "rehearsed": list(rehearsed_diseases(self.bundle)) if "rehearsed" in pairs else [],
            "seconds": round(seconds, 1),
            "device": str(self.fabric.device),
        }
        number = sum(name.startswith(STAGE) for name in self.bundle.training)
        stage = STAGE if number == 0 else f"{STAGE} {number + 1}"
        bundle = replace(
            self.bundle,
            segmenter=segmenter,
            training={**self.bundle.training, stage: summary},
            calibration=calibration,
            about=adapted_about(self.bundle.about, summary),
            sha256="",
        )
        compare = BeforeAndAfter(self.predictor, self.bundle.calibration, calibration, identity=self.identity)
        held_out = compare.held_out(scans.held_out, segmenter, self.work / "scores")
        return Adaptation(bundle, choice, compare.left_out(left_out), held_out, tuple(self.notes))

    @property
    def _steps(self) -> tuple[int, ...]:
        loop = self.config.tuning.loop
        return tuple(range(loop.validate_every, loop.steps + 1, loop.validate_every))

    def _open(self) -> tuple[AdaptScans, SliceStore, SliceStore | None]:
        """Return the prepared scans without those that show no lesion, and the slices to learn from."""
        given, preprocessing = self.given, self.predictor.preprocessor.config
        # Including held-out scans, so that unreadable files are reported before any training.
        parts = (given.annotated, given.healthy, given.held_out)
        failures = Failures(self.folder, self._notify)
        every = [record for part in parts for record in part]
        left = unprepared(every, preprocessing, self.folder / "scans")
        if left and (self.folder / "scans").is_dir():
            self._notify(f"{len(left)} of {counted(len(every), 'scan')} left to prepare: {first_of(left)}")
        annotated, healthy, held_out = prepare_scans(
            parts, preprocessing, self.folder / "scans", failures, self._schedule
        )
        cache, slices = self.folder / "slices", None
        store, empty = without_empty(annotated, preprocessing, cache)
        if empty:
            named = ", ".join(empty)
            self.notes.append(f"{named}: no lesion on the working grid, left out; if the scan is healthy, declare it")
            annotated = annotated.select(lambda record: record.scan_id not in empty)
        if len(healthy):
            slices = build_store(healthy, preprocessing, cache, description="healthy scans")
        else:
            self.notes.append(
                "no healthy scans: synthetic anomalies are added to lesion-free slices of the annotated scans"
            )
        return AdaptScans(annotated, healthy, held_out, given.notes), store, slices

    def _rehearse(self, scans: AdaptScans) -> SliceStore | None:
        """Return slices of virtual people who are shown again; `None` where there are none."""
        virtual = virtual_patients(self.bundle, scans.annotated, self.config, self.work / "virtual")
        if virtual is not None:
            preprocessing, cache = self.predictor.preprocessor.config, self.folder / "slices"
            return build_store(virtual, preprocessing, cache, description="virtual scans")
        if self.config.rehearses and rehearsed_diseases(self.bundle):
            contrasts = ", ".join(sorted({record.contrast for record in scans.annotated}))
            self.notes.append(f"no virtual scans of {contrasts}: adaptation runs without rehearsal")
        return None

    def _score(
        self, manifest: Manifest, runs: Mapping[Fold, Snapshots], steps: Sequence[int], description: str
    ) -> list[Scored]:
        """Return the scans with their scores: of the model itself, and of the run without them after some steps."""
        rows = [(record, run) for fold, run in runs.items() for record in manifest if record.subject in fold]
        found = []
        for record, run in track(rows, description=description, total=len(rows)):
            scan = open_annotated(self.predictor.preprocessor, record)
            path = self.work / "scores" / f"{record.scan_id}.npy"
            found.append((scan, score_versions(self.predictor, scan, (run.load(step) for step in steps), path)))
        return found

    def _train_without(self, pairs: dict[str, PairStore], fold: Fold, number: int) -> Snapshots:
        folder = self.work / f"fold-{number + 1:02d}"
        snapshots = Snapshots(folder, self._steps)
        if snapshots.complete:
            return snapshots
        others = {
            kind: store if kind == "rehearsed" else store.of([s for s in store.subjects if s not in fold])
            for kind, store in pairs.items()
        }
        if not others["synthetic"].pairs:  # with one healthy subject, its slices are used although it is left out
            others["synthetic"] = pairs["synthetic"]
        fine_tune(
            copy.deepcopy(self.segmenter),
            {**others, "val": pairs["annotated"].of(fold)},
            self.config.tuning,
            folder,
            fabric=self.fabric,
            seed=self.config.seed,
            name=f"Without {', '.join(fold[:3])}",
            identity=f"{self.identity} {number}",
            on_validated=snapshots.save,
        )
        return snapshots

    def _choose(self, scored: Sequence[Scored]) -> StepChoice:
        steps = self.config.steps_one_subject
        if not scored:
            self.notes.append(
                f"one annotated subject: none could be left out, so {steps} steps were taken "
                "without validation, and the thresholds are not changed"
            )
            return StepChoice(steps)
        auprc: dict[str, list[list[float]]] = {}
        for scan, scores in scored:
            precision = [Curve.of(values, scan.labels).average_precision for values in scores]
            auprc.setdefault(scan.record.subject, []).append(precision)
        choice = choose_steps((0, *self._steps), auprc, self.config.tolerance)
        if choice.steps == 0:
            self.notes.append("no number of steps improved left-out scans: the segmenter is not changed")
        elif choice.steps == self._steps[-1]:
            self.notes.append("the longest run was best: more steps (tuning.loop.steps) may improve further")
        return choice

    def _final(self, pairs: dict[str, PairStore], choice: StepChoice) -> tuple[AnySegmenter, float]:
        """Return the segmenter that learned from all scans, and the seconds that it took."""
        segmenter, tuning = copy.deepcopy(self.segmenter), self.config.tuning
        if choice.steps == 0:
            return segmenter, 0.0
        weight = tuning.original_weight
        if not choice.tried:  # no subject was left out, and the improvement is not known
            weight = max(weight, self.config.original_weight_one_subject)
        loop = tuning.loop.model_copy(update={"steps": choice.steps})
        seconds = fine_tune(
            segmenter,
            {**pairs, "val": pairs["annotated"]},
            tuning.model_copy(update={"loop": loop, "original_weight": weight}),
            self.work / "final",
            fabric=self.fabric,
            seed=self.config.seed,
            name="From all scans",
            identity=f"{self.identity} final",
        )
        return segmenter, seconds

    def _calibration(self, left_out: Sequence[LeftOutScan], annotated: Manifest) -> dict[str, Any]:
        if not left_out:
            return self.bundle.calibration
        found = calibrate_left_out(left_out, annotated.fingerprint())
        if gone := sorted(set(self.bundle.calibration.get("thresholds", ())) - set(found.thresholds)):
            self.notes.append(
                f"thresholds {', '.join(gone)} belonged to the old scores and were removed: run halebrain calibrate"
            )
        tables = self.bundle.calibration.get("modalities", {})
        alone = {name for name in tables if "+" not in name}  # the others are sets of contrasts of exams
        if others := sorted(alone - {record.contrast for record in annotated}):
            self.notes.append(
                f"{', '.join(others)}: the thresholds are removed, too, as the new default is that of the annotated "
                "scans: use the model before the adaptation for these contrasts, or run halebrain calibrate"
            )
        return found.model_dump(mode="json")

    def _summary(self, scans: AdaptScans, choice: StepChoice) -> dict[str, Any]:
        """Return what the adapted model's card says: from which model, on which files of the user, how far."""
        kept = {record.scan_id for record in (*scans.annotated, *scans.healthy)}
        annotated = self.given.annotated.select(lambda record: record.scan_id in kept)
        learned = replace(annotated, records=(*annotated, *self.given.healthy))
        return {
            "adapted_from": self.bundle.sha256,
            "identity": self.identity,
            "config": portable_dump(self.config),
            "manifest_sha256": learned.fingerprint(),
            "train_subjects": learned.subjects(),
            "val_subjects": [],
            "modalities": sorted({record.contrast for record in learned}),
            "pathologies": sorted({record.condition for record in annotated}),
            "scans": {record.scan_id: _hashes_of(record) for record in learned},
            "steps": choice.steps,
            "steps_tried": list(choice.tried),
            "auprc_left_out": [round(value, 6) for value in choice.auprc],
        }


def adaptation_identity(bundle: Bundle, scans: AdaptScans, config: AdaptConfig) -> str:
    """Return a hash of all that the adapted model and its table depend on."""
    rows = [
        [purpose, r.scan_id, r.pathology, r.space, *_hashes_of(r).values()]
        for purpose, part in (("annotated", scans.annotated), ("healthy", scans.healthy), ("held out", scans.held_out))
        for r in sorted(part, key=lambda r: r.scan_id)
    ]
    settings, calibration = with_former_keys([config.model_dump(mode="json"), bundle.calibration])
    return json_sha256([settings, bundle.sha256, calibration, rows])


def _hashes_of(record: ScanRecord) -> dict[str, str | None]:
    """Return the sha256 of each file of a scan; `None` where there is none."""
    files = {"image_sha256": record.image, "brain_mask_sha256": record.brain_mask, "lesion_sha256": record.lesion}
    return {name: None if path is None else scan_sha256(path) for name, path in files.items()}


def adapted_about(about: About | None, summary: Mapping[str, Any]) -> About | None:
    """Return whose the adapted weights are, without figures and limits of the earlier model.

    Without a step, all stays.
    """
    if about is None or not summary["steps"]:
        return about
    limits = {name: text for name, text in about.limits.items() if name not in summary["modalities"]}
    return about.model_copy(update={"figures": (), "limits": limits})
