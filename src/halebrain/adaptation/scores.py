"""Scores of a model and its adapted versions, before and after: on scans left out in turn, and on scans held out.

A threshold is never chosen on the subject that is scored with it.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from halebrain.adaptation.table import AFTER, BEFORE
from halebrain.core.about import versions
from halebrain.core.config import parse_config
from halebrain.core.files import atomic_path
from halebrain.core.mask import Cut
from halebrain.core.progress import track
from halebrain.core.types import FloatArray
from halebrain.evaluation.case import Case
from halebrain.evaluation.evaluate import Evaluation, Evaluator
from halebrain.evaluation.provenance import WORKING_GRID, EvaluationProvenance
from halebrain.inference.resegment import Resegmenter
from halebrain.inference.scans import AnnotatedScan, open_annotated
from halebrain.io.manifest import Manifest
from halebrain.models.ensemble import AnySegmenter
from halebrain.thresholds.calibration import Calibration
from halebrain.thresholds.choose import ThresholdSelector
from halebrain.thresholds.fit import by_dice, by_rate, fit_best_dice
from halebrain.training.loop import Weights


def score_versions(predictor: Resegmenter, judged: AnnotatedScan, adapted: Iterable[Weights], path: Path) -> FloatArray:
    """Return the scores of the voxels that count, `(1 + versions, m)`: the model itself first, then each version."""
    if path.exists():
        kept: FloatArray = np.load(path)
        return kept
    assert predictor.bundle.segmenter is not None  # only detectors are adapted
    segmenter = copy.deepcopy(predictor.bundle.segmenter)
    segmenter.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    known = predictor.know(judged.scan, judged.record.contrast)
    found = [known.score[judged.region]]
    for weights in adapted:
        segmenter.load_state_dict(weights)
        found.append(predictor.score(known, segmenter.eval())[judged.region])
    scores = np.stack(found).astype(np.float32)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, scores)
    return scores


@dataclass(frozen=True)
class LeftOutScan:
    """A scan that was left out; scores `(m,)` of the model itself, and of the version that learned from the others."""

    judged: AnnotatedScan
    before: FloatArray
    after: FloatArray

    @property
    def subject(self) -> str:
        """Whose it is."""
        return self.judged.record.subject

    @property
    def is_healthy(self) -> bool:
        """Whether there is nothing to find."""
        return self.judged.record.is_healthy


def dice_threshold(left_out: Sequence[LeftOutScan], *, without: str | None = None) -> tuple[float, float]:
    """Return the threshold of the best pooled Dice over annotated scans, without those of a subject, and that Dice."""
    chosen = [scan for scan in left_out if not scan.is_healthy and scan.subject != without]
    return fit_best_dice([scan.after for scan in chosen], [scan.judged.labels for scan in chosen])


def calibrate_left_out(left_out: Sequence[LeftOutScan], manifest_sha256: str) -> Calibration:
    """Return the thresholds of an adapted model: the best Dice, and shares of healthy voxels where some were left out.

    The fingerprint is that of the scans that were learned from.
    """
    about = {"split": "leave-one-out", "manifest_sha256": manifest_sha256}
    ill, healthy = [s for s in left_out if not s.is_healthy], [s for s in left_out if s.is_healthy]
    contrasts = [s.judged.record.contrast for s in ill]
    thresholds = by_dice([s.after for s in ill], [s.judged.labels for s in ill], contrasts, **about)
    thresholds |= by_rate([s.after for s in healthy], [s.judged.record.contrast for s in healthy], **about)
    subjects = tuple(sorted({scan.subject for scan in left_out}))
    return Calibration(default="dice", thresholds=thresholds, subjects=subjects)


class BeforeAndAfter:
    """Evaluates scans before and after adaptation, each at the thresholds of its model; `{}` = masks are left out."""

    def __init__(self, predictor: Resegmenter, before: dict[str, Any], after: dict[str, Any], *, identity: str) -> None:
        self._predictor, self._identity = predictor, identity
        self._smallest = predictor.postprocessing.min_lesion_mm3
        self._selectors = {BEFORE: _default_threshold(before), AFTER: _default_threshold(after)}
        self._same_thresholds = before == after

    def left_out(self, scans: list[LeftOutScan]) -> Evaluation | None:
        """Return before and after on scans that were left out in turn; `None` where there are none."""
        if not scans:
            return None
        evaluator = Evaluator(seed=self._predictor.seed)
        # Thresholds that stay were not chosen on these scans.
        several = not self._same_thresholds and len({scan.subject for scan in scans if not scan.is_healthy}) > 1
        for scan in scans:
            alone = several and not scan.is_healthy
            own = self._cut(AFTER, scan.judged)
            if alone:
                own = Cut(dice_threshold(scans, without=scan.subject)[0], self._smallest)
            self._add(evaluator, scan.judged, scan.before, scan.after, own)
        chosen = "" if self._same_thresholds else "; thresholds were also chosen without each"
        return evaluator.finish(self._provenance(f"left out in turn{chosen}"))

    def held_out(self, rows: Manifest, segmenter: AnySegmenter, folder: Path) -> Evaluation | None:
        """Return before and after on prepared scans that took no part, kept in `folder`.

        `None` where there are none.
        """
        if len(rows) == 0:
            return None
        evaluator = Evaluator(seed=self._predictor.seed)
        for record in track(rows.records, description="Scoring held-out scans", total=len(rows)):
            scan, path = open_annotated(self._predictor.preprocessor, record), folder / f"{record.scan_id}_held_out.npy"
            before, after = score_versions(self._predictor, scan, [segmenter.state_dict()], path)
            self._add(evaluator, scan, before, after, self._cut(AFTER, scan))
        return evaluator.finish(self._provenance("took no part"))

    def _add(
        self,
        evaluator: Evaluator,
        scan: AnnotatedScan,
        before: FloatArray,
        after: FloatArray,
        after_at: Cut | None,
    ) -> None:
        cuts = {AFTER: after_at, BEFORE: self._cut(BEFORE, scan)}
        # The adapted model first: pages show the first method in detail.
        for method, values in ((AFTER, after), (BEFORE, before)):
            score = np.zeros(scan.lesion.shape, dtype=np.float32)
            score[scan.region] = values
            case = Case.of(
                scan.record,
                reference=scan.lesion,
                brain_mask=scan.scan.brain_mask,
                affine=scan.scan.grid.affine,
                score=score,
                cut=cuts[method],
            )
            evaluator.add(method, case, image=scan.scan.image, show=method == AFTER)

    def _cut(self, version: str, scan: AnnotatedScan) -> Cut | None:
        """Return the threshold that a version has for a scan: that of its modality, where there is one."""
        selector = self._selectors[version]
        return (
            None if selector is None else replace(selector.at(scan.record.contrast), min_lesion_mm3=self._smallest).cut
        )

    def _provenance(self, scans: str) -> EvaluationProvenance:
        return EvaluationProvenance(
            scans=scans,
            adapted_from=self._predictor.bundle.sha256,
            identity=self._identity,
            threshold={version: _stated(selector) for version, selector in self._selectors.items()},
            seed=self._predictor.seed,
            levels=list(self._predictor.levels),
            grid=WORKING_GRID,
            versions=versions(),
        )


def _default_threshold(calibration: dict[str, Any]) -> ThresholdSelector | None:
    """Return the default threshold of a model; `None` where it has none."""
    known = parse_config(Calibration, calibration, where="model") if calibration else None
    return ThresholdSelector(known) if known is not None and known.default in known.thresholds else None


def _stated(selector: ThresholdSelector | None) -> float | dict[str, float] | None:
    """Return the default threshold; where modalities have their own, each of them, and that over all under "all"."""
    if selector is None or selector.calibration is None:
        return None
    over_all, known = selector.at(None).value, selector.calibration
    own = {name: table[known.default].value for name, table in known.modalities.items() if known.default in table}
    return {"all": over_all, **own} if own else over_all
