"""The threshold for one scan: the requested one, and its origin if the contrast has no own threshold."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from halebrain.core.errors import UsageError
from halebrain.core.modality import contrast_alike
from halebrain.evaluation.threshold import Calibration, Threshold, data_set_of


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
        name: "fixed" for a number; that of a stored one, with the modalities that it was chosen on where these are not
            just the scan's own: "ml:0.5 (all modalities: FLAIR, T2w)", or "ml:0.5 (of T1w)" for T1ce.
        method: How it was chosen.
        data_set: Name of the data set that it was chosen on; `None` where it has none.
        n_scans: Scans that it was chosen on; `None` for a number.
        healthy_share: Share of healthy people who keep the limit of an "ml:" threshold; `None` where that is not known.
    """

    value: float
    name: str
    method: str
    data_set: str | None = None
    n_scans: int | None = None
    healthy_share: float | None = None


@dataclass(frozen=True)
class OperatingPoint:
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
        return ChosenThreshold(value, "fixed", "given as a number", data_set)
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
    found, label = _of_contrast(calibration, name, modality)
    return ChosenThreshold(
        found.value, label, found.method, data_set_of(name), found.n_scans, healthy_share=found.healthy_share
    )


def _of_contrast(calibration: Calibration, name: str, modality: str | None) -> tuple[Threshold, str]:
    """Return the stored threshold of a name for a contrast, and the name with whose it is, where not its own."""
    if own := calibration.modalities.get(modality or "", {}).get(name):
        return own, name
    alike = contrast_alike(modality)
    if near := calibration.modalities.get(alike or "", {}).get(name):
        return near, f"{name} (of {alike})"
    found = calibration.thresholds[name]
    if found.modalities in ((), (modality,)):
        return found, name
    if found.modalities == (alike,):
        return found, f"{name} (of {alike})"
    return found, f"{name} (all modalities: {', '.join(found.modalities)})"


def select_threshold(calibration: Calibration | None, wanted: str, *, modality: str | None = None) -> tuple[float, str]:
    """Return value and name of what `choose_threshold` gives, from the same arguments and with the same errors."""
    chosen = choose_threshold(calibration, wanted, modality=modality)
    return chosen.value, chosen.name
