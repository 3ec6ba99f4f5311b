"""Thresholds by what a reader would see in vain: millilitres that a healthy scan shows."""

import statistics
from collections.abc import Sequence
from typing import Protocol

from halebrain.core.errors import DataError

VOLUMES_ML = (0.1, 0.5, 1.0)
"""False volumes for which a calibration holds thresholds, as "ml:0.1", "ml:0.5" and "ml:1"."""


class HealthyScan(Protocol):
    """A healthy scan that knows what is called in it."""

    def called_ml(self, threshold: float) -> float:
        """Return the volume called at a threshold, in ml; it never grows with the threshold."""

    def lowest_threshold(self, allowed_ml: float) -> float:
        """Return the lowest threshold at which at most `allowed_ml` is called."""


def fit_false_volume(scans: Sequence[HealthyScan], allowed_ml: float) -> tuple[float, float]:
    """Return the lowest threshold at which most healthy scans show at most `allowed_ml`, and the median volume shown.

    "Most" is more than half, so the median keeps the limit too, for an even number of scans as well. The median, not
    the mean: one scan with an artefact, or with a disease that nobody noticed, does not decide for all.

    Args:
        scans: Healthy scans.
        allowed_ml: False volume of a scan in ml.

    Raises:
        DataError: There is no scan.
    """
    if not scans:
        raise DataError("a threshold by false volume needs healthy validation scans", received="none")
    # Each scan keeps the limit from its own lowest threshold on, so most do from the upper median of these on.
    value = statistics.median_high(scan.lowest_threshold(allowed_ml) for scan in scans)
    return value, statistics.median(scan.called_ml(value) for scan in scans)
