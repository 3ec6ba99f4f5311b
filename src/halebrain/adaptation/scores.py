"""Scores of a model and its adapted versions, and thresholds chosen on left-out scans, never on the same subject."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from halebrain.core.files import atomic_path
from halebrain.core.modality import standard_modality
from halebrain.core.types import FloatArray
from halebrain.evaluation.curve import Curve
from halebrain.inference.resegment import Resegmenter
from halebrain.inference.scans import AnnotatedScan
from halebrain.io.manifest import ScanRecord
from halebrain.io.volume import read_mask
from halebrain.preprocessing.prepared import open_record
from halebrain.thresholds.calibration import Calibration, Threshold, fit_best_dice, fit_false_positive_rate
from halebrain.training.loop import Weights

_RATES = (0.01, 0.05, 0.1)


def open_annotated(predictor: Resegmenter, record: ScanRecord) -> AnnotatedScan:
    """Read a prepared scan and its truth."""
    volume, scan = open_record(predictor.preprocessor, record)
    lesion = np.zeros_like(scan.brain_mask)
    if record.lesion is not None and not record.is_healthy:
        lesion = read_mask(record.lesion, volume)
    return AnnotatedScan(record, scan, lesion)


def score_versions(
    predictor: Resegmenter, judged: AnnotatedScan, versions: Iterable[Weights], path: Path
) -> FloatArray:
    """Return the scores of the voxels that count, `(1 + versions, m)`: the model itself first, then each version.

    Args:
        predictor: The model.
        judged: The scan.
        versions: Weights of the segmenter.
        path: Where the scores are kept; what is there is taken.
    """
    if path.exists():
        kept: FloatArray = np.load(path)
        return kept
    assert predictor.bundle.segmenter is not None  # only detectors are adapted
    segmenter = copy.deepcopy(predictor.bundle.segmenter)
    segmenter.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    known = predictor.know(judged.scan, modality=standard_modality(judged.record.modality))
    found = [known.score[judged.region]]
    for weights in versions:
        segmenter.load_state_dict(weights)
        found.append(predictor.score(known, segmenter.eval())[judged.region])
    scores = np.stack(found).astype(np.float32)
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, scores)
    return scores


def auprc_of(judged: AnnotatedScan, scores: FloatArray) -> list[float]:
    """Return the AUPRC of each row of `scores` `(versions, m)`."""
    return [Curve.of(values, judged.labels).average_precision for values in scores]


@dataclass(frozen=True)
class LeftOut:
    """A scan that was left out, and what it was given.

    Args:
        judged: The scan.
        before: Scores of the model itself, `(m,)`.
        after: Scores of the version that learned from the others, `(m,)`.
    """

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


def dice_threshold(left_out: Sequence[LeftOut], *, without: str | None = None) -> tuple[float, float]:
    """Return the threshold of the best pooled Dice, and that Dice.

    Args:
        left_out: The scans; there must be annotated ones of others.
        without: A subject to leave out, as it will be evaluated at the threshold.
    """
    chosen = [scan for scan in left_out if not scan.is_healthy and scan.subject != without]
    return fit_best_dice([scan.after for scan in chosen], [scan.judged.labels for scan in chosen])


def calibrate_left_out(left_out: Sequence[LeftOut], manifest_sha256: str) -> Calibration:
    """Return the thresholds of an adapted model: the best Dice, and shares of healthy voxels where some were left out.

    Args:
        left_out: Every scan that was left out once.
        manifest_sha256: Fingerprint of the scans that were learned from.
    """
    value, dice = dice_threshold(left_out)
    ill, healthy = [s for s in left_out if not s.is_healthy], [s for s in left_out if s.is_healthy]
    thresholds = {
        "dice": Threshold(value=value, method="best pooled Dice", achieved=dice, **_about(ill, manifest_sha256))
    }
    for rate in _RATES if healthy else ():
        value, share = fit_false_positive_rate([s.after for s in healthy], rate)
        method = f"{rate:.0%} of healthy voxels"
        thresholds[f"fpr:{rate:g}"] = Threshold(
            value=value, method=method, achieved=share, **_about(healthy, manifest_sha256)
        )
    subjects = tuple(sorted({scan.subject for scan in left_out}))
    return Calibration(default="dice", thresholds=thresholds, subjects=subjects)


def _about(scans: Sequence[LeftOut], manifest_sha256: str) -> dict[str, Any]:
    modalities = {standard_modality(scan.judged.record.modality) for scan in scans}
    return {
        "split": "leave-one-out",
        "manifest_sha256": manifest_sha256,
        "n_scans": len(scans),
        "modalities": tuple(sorted(modalities)),
    }
