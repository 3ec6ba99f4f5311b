"""A model and its adapted version on the same scans, side by side."""

from pathlib import Path
from typing import Any

from halebrain.adaptation.scores import JudgedScan, open_judged, score_versions
from halebrain.adaptation.table import AFTER, BEFORE
from halebrain.adaptation.thresholds import LeftOut, dice_threshold
from halebrain.core.config import parse_config
from halebrain.core.progress import track
from halebrain.core.types import FloatArray
from halebrain.core.versions import versions
from halebrain.evaluation.evaluate import Evaluation, Evaluator
from halebrain.evaluation.statistics import INTERVAL
from halebrain.evaluation.threshold import Calibration, select_threshold
from halebrain.inference.resegment import Resegmenter
from halebrain.io.manifest import Manifest
from halebrain.models.segmentation import Segmenter


class Judge:
    """Scores scans before and after, each at the threshold that its model has.

    Args:
        predictor: The model that was adapted.
        calibrations: Thresholds of the model and of the adapted one; `{}` = none, and masks are not judged.
        identity: Of the adaptation, for provenance.
    """

    def __init__(
        self, predictor: Resegmenter, calibrations: tuple[dict[str, Any], dict[str, Any]], identity: str
    ) -> None:
        self.predictor, self.identity = predictor, identity
        self.before, self.after = (_default_threshold(calibration) for calibration in calibrations)

    def left_out(self, scans: list[LeftOut]) -> Evaluation | None:
        """Return before and after on scans that were left out in turn; `None` where there are none."""
        if not scans:
            return None
        evaluator = Evaluator(seed=self.predictor.seed)
        several = len({scan.subject for scan in scans if not scan.is_healthy}) > 1
        for scan in scans:
            alone = several and not scan.is_healthy
            own = dice_threshold(scans, without=scan.subject)[0] if alone else self.after
            self._add(evaluator, scan.judged, (scan.before, scan.after), own)
        return evaluator.finish(self._provenance("left out in turn; thresholds too were chosen without each"))

    def held_out(self, rows: Manifest, segmenter: Segmenter, folder: Path) -> Evaluation | None:
        """Return before and after on prepared scans that took no part; `None` where there are none.

        Args:
            rows: The scans.
            segmenter: The adapted one.
            folder: Where scores are kept.
        """
        if len(rows) == 0:
            return None
        evaluator = Evaluator(seed=self.predictor.seed)
        for record in track(rows.records, description="Scoring those held out", total=len(rows)):
            scan, path = open_judged(self.predictor, record), folder / f"{record.scan_id}_held_out.npy"
            before, after = score_versions(self.predictor, scan, [segmenter.state_dict()], path)
            self._add(evaluator, scan, (before, after), self.after)
        return evaluator.finish(self._provenance("took no part"))

    def _add(
        self, evaluator: Evaluator, scan: JudgedScan, values: tuple[FloatArray, FloatArray], after: float | None
    ) -> None:
        smallest = self.predictor.postprocessing.min_lesion_mm3
        # The adapted one first: pages show the first method at length.
        for method, score, threshold in ((AFTER, values[1], after), (BEFORE, values[0], self.before)):
            case = scan.case(score, threshold=threshold, min_lesion_mm3=smallest)
            evaluator.add(method, case, image=scan.scan.image, show=method == AFTER)

    def _provenance(self, scans: str) -> dict[str, Any]:
        return {
            "scans": scans,
            "adapted_from": self.predictor.bundle.sha256,
            "identity": self.identity,
            "threshold": {BEFORE: self.before, AFTER: self.after},
            "seed": self.predictor.seed,
            "levels": list(self.predictor.levels),
            "grid": "working grid, resampled labels",
            "interval": INTERVAL,
            "versions": versions(),
        }


def _default_threshold(calibration: dict[str, Any]) -> float | None:
    """Return the default threshold of a model; `None` where it has none."""
    if not calibration:
        return None
    known = parse_config(Calibration, calibration, where="model")
    return select_threshold(known, "auto")[0] if known.default in known.thresholds else None
