"""Thresholds with a birth certificate: how each was chosen, on which split, from which scans."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from halebrain.core.config import Config
from halebrain.core.errors import DataError, UsageError
from halebrain.evaluation.curve import PooledCurve

Scores = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]


class Threshold(Config):
    """A threshold on the score and where it comes from.

    Args:
        value: A voxel is called anomalous where its score ≥ this.
        method: How it was chosen.
        split: The split of the scans that it was chosen on.
        manifest_sha256: Fingerprint of those scans.
        n_scans: How many they were.
        achieved: Pooled Dice, or share of healthy voxels called, on those scans.
    """

    value: float
    method: str
    split: str
    manifest_sha256: str
    n_scans: int
    achieved: float


class Calibration(Config):
    """Every threshold of a model.

    Args:
        default: Name of the one that is used unless said otherwise.
        thresholds: By name: "dice", "fpr:0.01", "fpr:0.05", "fpr:0.1"; those of a data set end in "@NAME".
        subjects: Subjects that took part; evaluating on one of them is an error.
    """

    default: str
    thresholds: dict[str, Threshold]
    subjects: tuple[str, ...]

    def named(self, name: str, *, beside: "Calibration | None") -> "Calibration":
        """Return these thresholds under the name of a data set, beside the ones that were there before."""
        own = {f"{key}@{name}": threshold for key, threshold in self.thresholds.items()}
        if beside is None:
            return Calibration(default=f"{self.default}@{name}", thresholds=own, subjects=self.subjects)
        subjects = tuple(dict.fromkeys((*beside.subjects, *self.subjects)))
        return Calibration(default=beside.default, thresholds={**beside.thresholds, **own}, subjects=subjects)


def fit_best_dice(scores: Sequence[Scores], references: Sequence[Labels]) -> tuple[float, float]:
    """Return the threshold with the best pooled Dice, and that Dice; exact.

    Raises:
        DataError: No scan has a lesion.
    """
    pooled = PooledCurve()
    for score, reference in zip(scores, references, strict=True):
        pooled.add(score, reference)
    if not pooled.has_lesion:
        raise DataError("a Dice threshold needs validation scans with lesions", received="none")
    dice, value = pooled.finish().best_dice
    return value, dice


def fit_false_positive_rate(scores: Sequence[Scores], rate: float) -> tuple[float, float]:
    """Return the lowest threshold at which at most `rate` of healthy voxels are called, and the share called.

    Raises:
        DataError: There is no healthy scan.
    """
    if not sum(score.size for score in scores):
        raise DataError("a false-positive threshold needs healthy validation scans", received="none")
    ordered = np.sort(np.concatenate(scores))
    allowed = math.floor(rate * len(ordered) + 1e-9)
    if allowed >= len(ordered):
        return float(ordered[0]), 1.0
    value = float(np.nextafter(ordered[len(ordered) - allowed - 1], np.float32(np.inf)))
    return value, float((ordered >= value).mean())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def select_threshold(calibration: Calibration | None, wanted: str) -> tuple[float, str]:
    """Return the value of the threshold that the user means, and its name.

    Args:
        calibration: Of the model; `None` where it has none.
        wanted: "auto" = the model's default, the name of a stored one ("fpr:0.01"), or a number.

    Raises:
        UsageError: The model is not calibrated, or the name is unknown.
    """
    value = _number(wanted)
    if value is not None:
        if not (math.isfinite(value) and value > 0):
            # At 0 the empty air around the brain would be called too.
            raise UsageError("a threshold must be a number above 0", received=wanted)
        return value, "fixed"
    if calibration is None:
        raise UsageError(
            "a threshold must be known",
            received="a model that is not calibrated",
            remedy="run halebrain calibrate, or give --threshold VALUE",
        )
    name = calibration.default if wanted == "auto" else wanted
    if name not in calibration.thresholds:
        known: Iterable[str] = calibration.thresholds
        raise UsageError(
            "--threshold takes auto, a number, or a stored name",
            received=repr(wanted),
            remedy=f"stored: {', '.join(known)}",
        )
    return calibration.thresholds[name].value, name
