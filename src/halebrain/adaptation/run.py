"""The complete adaptation: pairs, left-out runs, number of steps, the adapted model, evaluation before and after."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from halebrain.adaptation.config import AdaptConfig
from halebrain.adaptation.folds import Snapshots, StepChoice, assign_folds, choose_steps
from halebrain.adaptation.inherited_settings import inherit_settings
from halebrain.adaptation.judge import Judge
from halebrain.adaptation.pairs import open_pairs, rehearsed_diseases, virtual_patients
from halebrain.adaptation.record import adaptation_identity, adapted_about, summarise_adaptation
from halebrain.adaptation.scans import AdaptScans, prepare_scans, without_empty
from halebrain.adaptation.scores import LeftOut, auprc_of, calibrate_left_out, open_annotated, score_versions
from halebrain.core.errors import DataError
from halebrain.core.failures import Failures
from halebrain.core.progress import track
from halebrain.core.types import FloatArray
from halebrain.data.slices import SliceStore, build_store
from halebrain.evaluation.evaluate import Evaluation
from halebrain.inference.resegment import Resegmenter
from halebrain.inference.scans import AnnotatedScan
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import Bundle
from halebrain.models.ensemble import AnySegmenter
from halebrain.training.adaptation import fine_tune
from halebrain.training.fabric import launch
from halebrain.training.pairs import PairStore

STAGE = "adaptation"


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


@dataclass(frozen=True)
class _Run:
    """A run without some subjects."""

    without: tuple[str, ...]
    snapshots: Snapshots


class Adapter:
    """Adapts one model to the scans of a user; everything that it makes on the way is kept in `folder`.

    Args:
        bundle: A detector; its reconstructor is not changed.
        scans: The scans for training and evaluation.
        config: How; anomalies and loss that it leaves open are those that the model learned with.
        folder: Of pairs, weights and scores; a run that was stopped goes on from them.
        device: Device of the networks.

    Raises:
        DataError: The model has no segmenter.
    """

    def __init__(
        self, bundle: Bundle, scans: AdaptScans, config: AdaptConfig, folder: Path, device: torch.device
    ) -> None:
        if bundle.segmenter is None:
            raise DataError(
                "adaptation needs a model with a segmenter",
                where=bundle.path or "model",
                remedy="give a detector, which has both stages; halebrain models info MODEL shows the kind",
            )
        config = inherit_settings(config, bundle)
        self.bundle, self.given, self.config, self.folder = bundle, scans, config, folder
        self.identity = adaptation_identity(bundle, scans, config)
        self.work = folder / self.identity[:16]
        self.predictor = Resegmenter(bundle, device=device, seed=config.seed)
        self.diseases = rehearsed_diseases(bundle)
        self.fabric: Fabric = launch(config.tuning.loop, device)
        self.notes = list(scans.notes)

    def run(self) -> Adaptation:
        """Run the adaptation, or the remaining part of it.

        Raises:
            HalebrainError: A scan cannot be used; the message names it.
        """
        scans, annotated, healthy = self._open()
        pairs = {
            "annotated": open_pairs("annotated", annotated, self.bundle, self.config, self.work / "pairs"),
            "synthetic": open_pairs("synthetic", healthy or annotated, self.bundle, self.config, self.work / "pairs"),
        }
        rehearsed = self._rehearse(scans.annotated)
        if rehearsed is not None:
            pairs["rehearsed"] = open_pairs("rehearsed", rehearsed, self.bundle, self.config, self.work / "pairs")
        subjects = list(dict.fromkeys(record.subject for record in annotated.records))
        folds = assign_folds(subjects, scans.healthy.subjects(), self.config.max_folds)
        runs = [_Run(fold, self._train_without(pairs, fold, number)) for number, fold in enumerate(folds)]
        judged, scores = self._score_annotated(scans, runs)
        choice = self._choose(judged, scores)
        left_out = [
            LeftOut(scan, values[0], values[choice.tried.index(choice.steps)])
            for scan, values in zip(judged, scores, strict=True)
        ] + self._score_healthy(scans, runs, choice.steps)
        segmenter, seconds = self._final(pairs, choice)
        calibration = self._calibration(left_out, scans.annotated)
        summary = summarise_adaptation(
            self.bundle, self._as_given(scans), self.config, choice, identity=self.identity
        ) | {
            "notes": list(self.notes),
            "rehearsed": [] if rehearsed is None else list(self.diseases),
            "seconds": round(seconds, 1),
            "device": str(self.fabric.device),
        }
        number = sum(name.startswith(STAGE) for name in self.bundle.training)
        stage = STAGE if number == 0 else f"{STAGE} {number + 1}"
        training = {**self.bundle.training, stage: summary}
        about = adapted_about(self.bundle.about, summary)
        bundle = replace(self.bundle, segmenter=segmenter, training=training, calibration=calibration, about=about)
        bundle = replace(bundle, sha256="")
        judge = Judge(self.predictor, (self.bundle.calibration, calibration), self.identity)
        held_out = judge.held_out(scans.held_out, segmenter, self.work / "scores")
        return Adaptation(bundle, choice, judge.left_out(left_out), held_out, tuple(self.notes))

    def _open(self) -> tuple[AdaptScans, SliceStore, SliceStore | None]:
        """Return the prepared scans without those that show no lesion, and the slices to learn from."""
        given, preprocessing = self.given, self.predictor.preprocessor.config
        # Including held-out scans, so that unreadable files are reported before any training.
        parts = (given.annotated, given.healthy, given.held_out)
        annotated, healthy, held_out = prepare_scans(parts, preprocessing, self.folder / "scans", Failures(self.folder))
        cache = self.folder / "slices"
        store, empty = without_empty(annotated, preprocessing, cache)
        if empty:
            named = ", ".join(empty)
            self.notes.append(f"{named}: no lesion on the working grid, left out; if the scan is healthy, declare it")
            annotated = annotated.select(lambda record: record.scan_id not in empty)
        slices = None
        if len(healthy):
            slices = build_store(healthy, preprocessing, cache, description="healthy scans")
        else:
            self.notes.append(
                "no healthy scans: synthetic anomalies are added to lesion-free slices of the annotated scans"
            )
        scans = AdaptScans(annotated, healthy, held_out, given.notes)
        return scans, store, slices

    def _rehearse(self, annotated: Manifest) -> SliceStore | None:
        """Return slices of virtual people who are shown again; `None` where there are none."""
        virtual = virtual_patients(self.bundle, annotated, self.config, self.work / "virtual")
        if virtual is None:
            if self.config.rehearses and self.diseases:
                contrasts = ", ".join(sorted({record.modality for record in annotated}))
                self.notes.append(f"no virtual scans of {contrasts}: adaptation runs without rehearsal")
            return None
        return build_store(
            virtual, self.predictor.preprocessor.config, self.folder / "slices", description="virtual scans"
        )

    def _score_annotated(self, scans: AdaptScans, runs: Sequence[_Run]) -> tuple[list[AnnotatedScan], list[FloatArray]]:
        """Return the annotated scans and their scores, by the run without them after every number of steps."""
        judged, scores = [], []
        rows = [(record, run) for run in runs for record in scans.annotated if record.subject in run.without]
        for record, run in track(rows, description="Scoring left-out scans", total=len(rows)):
            scan = open_annotated(self.predictor, record)
            weights = (run.snapshots.load(step) for step in run.snapshots.steps)
            path = self.work / "scores" / f"{record.scan_id}.npy"
            scores.append(score_versions(self.predictor, scan, weights, path))
            judged.append(scan)
        return judged, scores

    def _score_healthy(self, scans: AdaptScans, runs: Sequence[_Run], steps: int) -> list[LeftOut]:
        """Return the healthy scans as the runs without them score them after `steps` steps."""
        found = []
        rows = [(record, run) for run in runs for record in scans.healthy if record.subject in run.without]
        for record, run in track(rows, description="Scoring left-out healthy scans", total=len(rows)):
            scan = open_annotated(self.predictor, record)
            weights = [run.snapshots.load(steps)] if steps else []
            scores = score_versions(self.predictor, scan, weights, self.work / "scores" / f"{record.scan_id}.npy")
            found.append(LeftOut(scan, scores[0], scores[-1]))
        return found

    def _train_without(self, pairs: dict[str, PairStore], fold: tuple[str, ...], number: int) -> Snapshots:
        loop = self.config.tuning.loop
        folder = self.work / f"fold-{number + 1:02d}"
        steps = tuple(range(loop.validate_every, loop.steps + 1, loop.validate_every))
        snapshots = Snapshots(folder, steps)
        if snapshots.complete:
            return snapshots
        others = {
            kind: store if kind == "rehearsed" else store.of([s for s in store.subjects if s not in fold])
            for kind, store in pairs.items()
        }
        if not others["synthetic"].pairs:  # with one healthy subject, its slices are used although it is left out
            others["synthetic"] = pairs["synthetic"]
        fine_tune(
            copy.deepcopy(self._segmenter()),
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

    def _as_given(self, scans: AdaptScans) -> AdaptScans:
        """Return the user's own files of the scans that were learned from."""
        kept = {record.scan_id for record in (*scans.annotated, *scans.healthy)}
        parts = (part.select(lambda r: r.scan_id in kept) for part in (self.given.annotated, self.given.healthy))
        annotated, healthy = parts
        return replace(scans, annotated=annotated, healthy=healthy)

    def _segmenter(self) -> AnySegmenter:
        assert self.bundle.segmenter is not None  # only detectors are adapted
        return self.bundle.segmenter

    def _choose(self, judged: Sequence[AnnotatedScan], scores: Sequence[FloatArray]) -> StepChoice:
        loop = self.config.tuning.loop
        if not judged:
            self.notes.append(
                f"one annotated subject: none could be left out, so {self.config.steps_one_subject} steps were taken "
                "without validation, and the thresholds are not changed"
            )
            return StepChoice(self.config.steps_one_subject)
        auprc: dict[str, list[list[float]]] = {}
        for scan, values in zip(judged, scores, strict=True):
            auprc.setdefault(scan.record.subject, []).append(auprc_of(scan, values))
        tried = range(0, loop.steps + 1, loop.validate_every)
        choice = choose_steps(tried, auprc, self.config.tolerance)
        if choice.steps == 0:
            self.notes.append("no number of steps improved left-out scans: the segmenter is not changed")
        elif choice.steps == loop.steps:
            self.notes.append("the longest run was best: more steps (tuning.loop.steps) may improve further")
        return choice

    def _final(self, pairs: dict[str, PairStore], choice: StepChoice) -> tuple[AnySegmenter, float]:
        """Return the segmenter that learned from all scans, and the seconds that it took."""
        segmenter = copy.deepcopy(self._segmenter())
        if choice.steps == 0:
            return segmenter, 0.0
        tuning = self.config.tuning
        loop = tuning.loop.model_copy(update={"steps": choice.steps})
        # Without left-out subjects there are no other runs.
        weight = tuning.original_weight if choice.tried else self.config.original_weight_unseen
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

    def _calibration(self, left_out: Sequence[LeftOut], annotated: Manifest) -> dict[str, Any]:
        if not left_out:
            return self.bundle.calibration
        found = calibrate_left_out(left_out, annotated.fingerprint())
        if gone := sorted(set(self.bundle.calibration.get("thresholds", ())) - set(found.thresholds)):
            self.notes.append(
                f"thresholds {', '.join(gone)} belonged to the old scores and were removed: run halebrain calibrate"
            )
        return found.model_dump(mode="json")
