"""Options of the user for the mask, and the threshold that follows from them for one scan."""

import math
from dataclasses import dataclass

from halebrain.core.errors import UsageError
from halebrain.core.modality import contrast_alike
from halebrain.core.provenance import FIXED, ChosenThreshold
from halebrain.thresholds.calibration import Calibration, Threshold, VolumeFit, data_set_of, with_data_set
from halebrain.thresholds.text import threshold_name

_USUAL = ("T1w", "T2w", "FLAIR", "T1ce")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class ThresholdSelector:
    """The requested threshold, before the modality of a scan is known; invalid requests fail at once.

    Args:
        calibration: Of the model; `None` where it has none.
        wanted: "auto" = the model's default, the name of a stored one ("ml:1"), or a number.
        grow_to: Lower threshold to which findings of a number grow; `None` = they do not. A stored one has its own.

    Raises:
        UsageError: The model is not calibrated, the name is unknown, or the lower threshold does not fit.
    """

    calibration: Calibration | None
    wanted: str = "auto"
    grow_to: float | None = None

    def __post_init__(self) -> None:
        self.at(None)

    def at(self, modality: str | None) -> ChosenThreshold:
        """Return the threshold for a scan of a modality; `None` = not known.

        Its modality's own if available, else that of the contrast whose networks are used, else that over all.
        """
        calibration, wanted = self.calibration, self.wanted
        value = _number(wanted)
        if value is not None:
            if not (math.isfinite(value) and value > 0):
                # At 0 the background would be marked, too.
                raise UsageError(
                    "a threshold must be a number above 0", received=wanted, remedy="for example --threshold 0.3"
                )
            check_growth(self.grow_to, value)
            return ChosenThreshold(
                value=value,
                name=FIXED,
                key=FIXED,
                data_set=None if calibration is None else data_set_of(calibration.default),
                method="given as a number",
                grow_to=self.grow_to,
                modality=modality,
            )
        if self.grow_to is not None:
            raise UsageError(
                "--grow-to goes with a threshold that is a number; stored ones have their own",
                received=f"--threshold {wanted}",
                remedy="give --threshold VALUE, or remove --grow-to",
            )
        if calibration is None:
            raise UsageError(
                "the threshold must be known",
                received="a model that is not calibrated",
                remedy="run halebrain calibrate, or give --threshold VALUE",
            )
        name = calibration.default if wanted == "auto" else wanted
        if name not in calibration.thresholds:
            raise UsageError(
                "--threshold takes auto, a number, or a stored name",
                received=repr(wanted),
                remedy=f"stored: {', '.join(calibration.thresholds)}",
            )
        found, source_contrasts = _of_contrast(calibration, name, modality)
        key, data_set = name.partition("@")[0], data_set_of(name)
        return ChosenThreshold(
            value=found.value,
            name=threshold_name(key, data_set, source_contrasts, modality),
            key=key,
            data_set=data_set,
            source_contrasts=source_contrasts,
            method=found.method,
            n_scans=found.n_scans,
            healthy_share=found.population_fraction,
            grow_to=None if found.growth is None else found.growth.value,
            modality=modality,
        )

    def volume_fit(self, chosen: ChosenThreshold) -> VolumeFit | None:
        """Return how the true volume follows from that of a mask; `None` where it is not known for this contrast."""
        if self.calibration is None or chosen.key == FIXED or chosen.source_contrasts:
            return None
        name = with_data_set(str(chosen.key), chosen.data_set)
        own = self.calibration.modalities.get(chosen.modality or "", {}).get(name)
        fit = None if own is None else own.volume
        return fit if fit is not None and fit.min_lesion_mm3 == chosen.min_lesion_mm3 else None


def check_growth(grow_to: float | None, threshold: float) -> None:
    """Stop if a lower threshold does not lie between 0 and the threshold."""
    if grow_to is not None and not 0 < grow_to < threshold:
        raise UsageError(
            "--grow-to must lie between 0 and the threshold",
            received=f"{grow_to:g} with the threshold {threshold:g}",
            remedy="give a lower one",
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


def check_modality(option: str, calibration: Calibration | None) -> None:
    """Stop if `--modality` is neither "auto", nor a usual contrast, nor one that the model is calibrated for."""
    own = () if calibration is None else (*calibration.modalities, *calibration.healthy_scores)
    known = tuple(dict.fromkeys(("auto", *_USUAL, *(key.partition("@")[0] for key in own if "+" not in key))))
    if option not in known:
        raise UsageError(
            "--modality takes " + ", ".join(known), received=repr(option), remedy="auto infers it from the scan"
        )
