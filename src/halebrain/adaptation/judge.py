"""Evaluation of a model and its adapted version on the same scans."""

from pathlib import Path
from typing import Any

import numpy as np

from halebrain.adaptation.scores import LeftOut, dice_threshold, open_annotated, score_versions
from halebrain.adaptation.table import AFTER, BEFORE
from halebrain.core.about import versions
from halebrain.core.config import parse_config
from halebrain.core.mask import Cut
from halebrain.core.modality import standard_modality
from halebrain.core.progress import track
from halebrain.core.types import FloatArray
from halebrain.evaluation.case import Case
from halebrain.evaluation.evaluate import Evaluation, Evaluator
from halebrain.evaluation.statistics import INTERVAL
from halebrain.inference.resegment import Resegmenter
from halebrain.inference.scans import AnnotatedScan
from halebrain.io.manifest import Manifest
from halebrain.models.ensemble import AnySegmenter
from halebrain.thresholds.calibration import Calibration
from halebrain.thresholds.choose import ThresholdSelector


class Judge:
    """Scores scans before and after, each at the threshold that its model has.

    Args:
        predictor: The model that was adapted.
        calibrations: Thresholds of the model and of the adapted one; `{}` = none, and masks are not evaluated.
        identity: Of the adaptation, for provenance.
    """

    def __init__(
        self, predictor: Resegmenter, calibrations: tuple[dict[str, Any], dict[str, Any]], identity: str
    ) -> None:
        self.predictor, self.identity = predictor, identity
        before, after = (_operating_point(calibration) for calibration in calibrations)
        self.points = {BEFORE: before, AFTER: after}

    def left_out(self, scans: list[LeftOut]) -> Evaluation | None:
        """Return before and after on scans that were left out in turn; `None` where there are none."""
        if not scans:
            return None
        evaluator = Evaluator(seed=self.predictor.seed)
        several = len({scan.subject for scan in scans if not scan.is_healthy}) > 1
        for scan in scans:
            alone = several and not scan.is_healthy
            own = dice_threshold(scans, without=scan.subject)[0] if alone else self._threshold(AFTER, scan.judged)
            self._add(evaluator, scan.judged, (scan.before, scan.after), own)
        return evaluator.finish(self._provenance("left out in turn; thresholds were also chosen without each"))

    def held_out(self, rows: Manifest, segmenter: AnySegmenter, folder: Path) -> Evaluation | None:
        """Return before and after on prepared scans that took no part; `None` where there are none.

        Args:
            rows: The scans.
            segmenter: The adapted one.
            folder: Where scores are kept.
        """
        if len(rows) == 0:
            return None
        evaluator = Evaluator(seed=self.predictor.seed)
        for record in track(rows.records, description="Scoring held-out scans", total=len(rows)):
            scan, path = open_annotated(self.predictor, record), folder / f"{record.scan_id}_held_out.npy"
            before, after = score_versions(self.predictor, scan, [segmenter.state_dict()], path)
            self._add(evaluator, scan, (before, after), self._threshold(AFTER, scan))
        return evaluator.finish(self._provenance("took no part"))

    def _add(
        self, evaluator: Evaluator, scan: AnnotatedScan, values: tuple[FloatArray, FloatArray], after: float | None
    ) -> None:
        smallest = self.predictor.postprocessing.min_lesion_mm3
        before = self._threshold(BEFORE, scan)
        # The adapted model first: pages show the first method in detail.
        for method, found, threshold in ((AFTER, values[1], after), (BEFORE, values[0], before)):
            score = np.zeros(scan.lesion.shape, dtype=np.float32)
            score[scan.region] = found
            case = Case.of(
                scan.record,
                reference=scan.lesion,
                brain_mask=scan.scan.brain_mask,
                affine=scan.scan.grid.affine,
                score=score,
                cut=None if threshold is None else Cut(threshold, smallest),
            )
            evaluator.add(method, case, image=scan.scan.image, show=method == AFTER)

    def _threshold(self, version: str, scan: AnnotatedScan) -> float | None:
        """Return the threshold that a version has for a scan: that of its modality, where there is one."""
        return _value(self.points[version], standard_modality(scan.record.modality))

    def _provenance(self, scans: str) -> dict[str, Any]:
        return {
            "scans": scans,
            "adapted_from": self.predictor.bundle.sha256,
            "identity": self.identity,
            "threshold": {version: _stated(self.points[version]) for version in (BEFORE, AFTER)},
            "seed": self.predictor.seed,
            "levels": list(self.predictor.levels),
            "grid": "working grid, resampled labels",
            "interval": INTERVAL,
            "versions": versions(),
        }


def _operating_point(calibration: dict[str, Any]) -> ThresholdSelector | None:
    """Return the default threshold of a model; `None` where it has none."""
    if not calibration:
        return None
    known = parse_config(Calibration, calibration, where="model")
    return ThresholdSelector(known) if known.default in known.thresholds else None


def _value(point: ThresholdSelector | None, modality: str | None) -> float | None:
    return None if point is None else point.at(modality).value


def _stated(point: ThresholdSelector | None) -> float | dict[str, float] | None:
    """Return the default threshold; where modalities have their own, each of them, and that over all under "all"."""
    if point is None or point.calibration is None:
        return None
    over_all, known = point.at(None).value, point.calibration
    own = {
        modality: table[known.default].value for modality, table in known.modalities.items() if known.default in table
    }
    return {"all": over_all, **own} if own else over_all
