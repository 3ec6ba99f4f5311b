"""Options of the user for the mask, and the threshold that follows from them for one scan."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from halebrain.core.errors import UsageError
from halebrain.core.modality import contrast_alike
from halebrain.thresholds.calibration import Calibration, Threshold, data_set_of
from halebrain.thresholds.contrast import ScanContrast
from halebrain.thresholds.percentile import place_among_healthy
from halebrain.thresholds.text import FIXED, threshold_name


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class ChosenThreshold:
    """The threshold for one scan.

    Args:
        value: A voxel is marked as anomalous where its score ≥ this.
        key: "fixed" for a number, else the name of the stored one without its data set ("ml:1", "dice").
        method: How it was chosen.
        data_set: Name of the data set that it was chosen on; `None` where it has none.
        contrast: Of the scan; `None` where it is not known.
        source_contrasts: Contrasts that it was chosen on where these are not just the scan's own.
        n_scans: Scans that it was chosen on; `None` for a number.
        population_fraction: Fraction of healthy people within the limit of an "ml:" threshold; `None` = not known.
    """

    value: float
    key: str
    method: str
    data_set: str | None = None
    contrast: str | None = None
    source_contrasts: tuple[str, ...] = ()
    n_scans: int | None = None
    population_fraction: float | None = None

    @property
    def name(self) -> str:
        """Key, data set and source in short: "ml:1@ours", "ml:1 (of T1w)"."""
        return threshold_name(self.key, self.data_set, self.source_contrasts, self.contrast)


@dataclass(frozen=True)
class ThresholdSelector:
    """The requested threshold, before the modality of a scan is known; invalid requests fail at once.

    Args:
        calibration: Of the model; `None` where it has none.
        wanted: "auto" = the model's default, the name of a stored one ("ml:1"), or a number.

    Raises:
        UsageError: The model is not calibrated, or the name is unknown.
    """

    calibration: Calibration | None
    wanted: str = "auto"

    def __post_init__(self) -> None:
        self.at(None)

    def at(self, modality: str | None) -> ChosenThreshold:
        """Return the threshold for a scan of a modality; `None` = not known."""
        return choose_threshold(self.calibration, self.wanted, modality=modality)


def choose_threshold(calibration: Calibration | None, wanted: str, *, modality: str | None = None) -> ChosenThreshold:
    """Return the threshold that the user means for a scan.

    Its modality's own if available, else that of the contrast whose networks are used, else that over all.

    Args:
        calibration: Of the model; `None` where it has none.
        wanted: "auto" = the model's default, the name of a stored one ("ml:1"), or a number.
        modality: Of the scan; `None` where it is not known.

    Raises:
        UsageError: The model is not calibrated, or the name is unknown.
    """
    value = _number(wanted)
    if value is not None:
        if not (math.isfinite(value) and value > 0):
            # At 0 the background would be marked, too.
            raise UsageError(
                "a threshold must be a number above 0", received=wanted, remedy="for example --threshold 0.3"
            )
        data_set = None if calibration is None else data_set_of(calibration.default)
        return ChosenThreshold(value, FIXED, "given as a number", data_set, modality)
    if calibration is None:
        raise UsageError(
            "the threshold must be known",
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
    found, source_contrasts = _of_contrast(calibration, name, modality)
    return ChosenThreshold(
        value=found.value,
        key=name.partition("@")[0],
        method=found.method,
        data_set=data_set_of(name),
        contrast=modality,
        source_contrasts=source_contrasts,
        n_scans=found.n_scans,
        population_fraction=found.population_fraction,
    )


def _of_contrast(calibration: Calibration, name: str, modality: str | None) -> tuple[Threshold, tuple[str, ...]]:
    """Return the stored threshold of a name for a contrast, and the contrasts behind it where not just its own."""
    if own := calibration.modalities.get(modality or "", {}).get(name):
        return own, ()
    alike = contrast_alike(modality)
    if near := calibration.modalities.get(alike or "", {}).get(name):
        return near, (str(alike),)
    found = calibration.thresholds[name]
    return found, () if found.modalities == (modality,) else found.modalities


def select_threshold(calibration: Calibration | None, wanted: str, *, modality: str | None = None) -> tuple[float, str]:
    """Return value and name of what `choose_threshold` gives, from the same arguments and with the same errors."""
    chosen = choose_threshold(calibration, wanted, modality=modality)
    return chosen.value, chosen.name


@dataclass(frozen=True)
class DetectionOptions:
    """The user's options for the mask.

    Args:
        point: Which threshold.
        min_lesion_mm3: Smallest lesion kept.
        modality: "auto", or the modality of every scan.
    """

    point: ThresholdSelector
    min_lesion_mm3: float
    modality: str = "auto"

    def threshold(self, modality: ScanContrast) -> dict[str, Any]:
        """Return the threshold for a scan, as it stands in its provenance."""
        chosen = self.point.at(modality.name)
        return {
            "value": chosen.value,
            "name": chosen.name,
            "key": chosen.key,
            "data_set": chosen.data_set,
            "source_contrasts": list(chosen.source_contrasts),
            "min_lesion_mm3": self.min_lesion_mm3,
            "method": chosen.method,
            "n_scans": chosen.n_scans,
            "healthy_share": chosen.population_fraction,
            "modality": modality.name,
            "modality_known_from": modality.known_from,
        }

    def scan_level(self, modality: ScanContrast, score: float) -> dict[str, Any]:
        """Return where the score of a whole scan lies among healthy ones, as it stands in its provenance."""
        calibration, data_set = self.point.calibration, self.point.at(modality.name).data_set
        return place_among_healthy(score, calibration, modality=modality.name, data_set=data_set).provenance()
