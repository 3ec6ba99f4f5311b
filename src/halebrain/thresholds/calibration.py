"""Thresholds with provenance: method, split and scans of each."""

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from halebrain.core.config import GrowingConfig, parse_config
from halebrain.core.provenance import VolumeEstimate

if TYPE_CHECKING:
    from halebrain.models.bundle import Bundle

MIN_HEALTHY_SCANS = 5
"""Minimum number of healthy scans of a modality for its own thresholds and percentiles."""


class Growth(GrowingConfig):
    """The lower threshold to which findings of a threshold grow, and where it comes from.

    Args:
        value: A finding grows into connected voxels with a score ≥ this.
        chosen_at: Name of the threshold at which it was chosen.
        n_scans: Annotated scans that it was chosen on.
        mean_dice: Their mean Dice with growth, at that threshold.
        mean_dice_without: Without growth, at the threshold that keeps the limit without it.
        value_without: The threshold that would keep the limit without growth; at most the one that is used.
        unadjusted_ml: Median false-positive volume of the healthy scans if findings of that threshold grew.
    """

    value: float
    chosen_at: str
    n_scans: int
    mean_dice: float
    mean_dice_without: float
    value_without: float
    unadjusted_ml: float


class VolumeFit(GrowingConfig):
    """How the true volume of lesions follows from the volume of the mask: ln true = `log_factor` + `slope` · ln mask.

    Volumes in ml, of whole scans.

    Args:
        method: "constant ratio", or "Theil–Sen line".
        slope: Of the line in logarithms; 1 for a constant ratio.
        log_factor: Its intercept.
        half_width: Half the 90 % prediction interval, in natural logarithms.
        smallest_ml: Smallest volume of a mask among the patients; below it nothing is estimated.
        largest_ml: Largest one; above it nothing is estimated.
        n_patients: Patients of the fit.
        n_missed: Patients with an annotated lesion in whom nothing was marked; they are not in the fit.
        min_lesion_mm3: Smallest lesion kept in their masks.
    """

    method: str
    slope: float
    log_factor: float
    half_width: float
    smallest_ml: float
    largest_ml: float
    n_patients: int
    n_missed: int
    min_lesion_mm3: float

    def estimate(self, marked_ml: float) -> VolumeEstimate | None:
        """Return the true volume that a mask speaks for; `None` outside the range of the patients' masks."""
        if not self.smallest_ml <= marked_ml <= self.largest_ml:
            return None
        log_ml = self.log_factor + self.slope * math.log(marked_ml)
        low, value, high = (round(math.exp(log_ml + by * self.half_width), 3) for by in (-1, 0, 1))
        return VolumeEstimate(value_ml=value, low_ml=low, high_ml=high, n_patients=self.n_patients, method=self.method)


class Threshold(GrowingConfig):
    """A threshold on the score and where it comes from.

    Args:
        value: A voxel is marked as anomalous where its score ≥ this.
        method: How it was chosen.
        split: The split of the scans that it was chosen on.
        manifest_sha256: Fingerprint of those scans.
        n_scans: How many they were.
        achieved: On those scans: pooled Dice, fraction of false-positive voxels, or median false-positive volume in ml.
        modalities: Contrasts of those scans; empty where that was not kept.
        population_fraction: Fraction of healthy people within the limit of an "ml:" threshold; `None` for another one,
            and where it was not stored.
        growth: The lower threshold to which findings grow; `None` = they do not.
        volume: How the true volume follows from that of the mask; `None` where too few patients show it.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"modalities", "population_fraction", "growth", "volume"})

    value: float
    method: str
    split: str
    manifest_sha256: str
    n_scans: int
    achieved: float
    modalities: tuple[str, ...] = ()
    population_fraction: float | None = None
    growth: Growth | None = None
    volume: VolumeFit | None = None


class Calibration(GrowingConfig):
    """Every threshold of a model.

    Args:
        default: Name of the one that is used by default.
        thresholds: By name, over all modalities: "dice", "fpr:0.01", "fpr:0.05", "fpr:0.1", "ml:0.1", "ml:0.5", "ml:1";
            those of a data set end in "@NAME".
        subjects: Subjects that took part; evaluating on one of them is an error.
        modalities: Modality → its own thresholds by the same names, where there were enough healthy scans of it. The
            modality of an exam is the set of its contrasts: "FLAIR+T1w".
        healthy_scores: Modality → scan scores of its healthy scans, ascending; those of a data set under
            "MODALITY@NAME".
        fusion: How the contrasts of exams were fused for their thresholds; `None` = none was calibrated.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"modalities", "healthy_scores", "fusion"})

    default: str
    thresholds: dict[str, Threshold]
    subjects: tuple[str, ...]
    modalities: dict[str, dict[str, Threshold]] = Field(default={})
    healthy_scores: dict[str, tuple[float, ...]] = Field(default={})
    fusion: str | None = None

    def named(self, name: str, *, beside: "Calibration | None") -> "Calibration":
        """Return these thresholds under the name of a data set, beside the ones that were there before."""
        own = Calibration(
            default=with_data_set(self.default, name),
            thresholds=_named(self.thresholds, name),
            subjects=self.subjects,
            modalities={modality: _named(table, name) for modality, table in self.modalities.items()},
            healthy_scores={with_data_set(key, name): scores for key, scores in self.healthy_scores.items()},
            fusion=self.fusion,
        )
        return own if beside is None else own._over(beside._without(name))

    def added_to(self, before: "Calibration") -> "Calibration":
        """Return `before` with the modalities of this one; its names over all modalities are kept."""
        merged = self._over(before)
        return merged.model_copy(update={"thresholds": {**self.thresholds, **before.thresholds}})

    def calibrated_modalities(self, name: str | None) -> set[str]:
        """Return the modalities with their own thresholds or their own percentile; of a data set, or of none."""
        own = {m for m, table in self.modalities.items() if any(data_set_of(key) == name for key in table)}
        scored = {key for key, scores in self.healthy_scores.items() if len(scores) >= MIN_HEALTHY_SCANS}
        return own | {key.partition("@")[0] for key in scored if data_set_of(key) == name}

    def _over(self, before: "Calibration") -> "Calibration":
        modalities = {m: {**before.modalities.get(m, {}), **self.modalities.get(m, {})} for m in self.modalities}
        thresholds = {**before.thresholds, **self.thresholds}
        return Calibration(
            default=before.default if before.default in thresholds else self.default,
            thresholds=thresholds,
            subjects=tuple(dict.fromkeys((*before.subjects, *self.subjects))),
            modalities={**before.modalities, **modalities},
            healthy_scores={**before.healthy_scores, **self.healthy_scores},
            fusion=self.fusion or before.fusion,
        )

    def _without(self, name: str) -> "Calibration":
        """Return the entries that do not belong to a data set, so that what is outdated of it is removed."""
        thresholds = {key: threshold for key, threshold in self.thresholds.items() if data_set_of(key) != name}
        kept = {m: {k: t for k, t in table.items() if data_set_of(k) != name} for m, table in self.modalities.items()}
        scores = {key: value for key, value in self.healthy_scores.items() if data_set_of(key) != name}
        modalities = {m: table for m, table in kept.items() if table}
        return self.model_copy(update={"thresholds": thresholds, "modalities": modalities, "healthy_scores": scores})


def read_calibration(bundle: "Bundle") -> Calibration | None:
    """Return the thresholds stored in a model, or `None` where it has none."""
    if not bundle.calibration:
        return None
    return parse_config(Calibration, bundle.calibration, where=bundle.path or "model")


def with_data_set(key: str, name: str | None) -> str:
    """Return the key under which the value of a data set is kept: "ml:1@NAME"."""
    return key if name is None else f"{key}@{name}"


def data_set_of(key: str) -> str | None:
    """Return the data set that a key speaks of: `None` where of none."""
    return key.partition("@")[2] or None


def _named(table: dict[str, Threshold], name: str) -> dict[str, Threshold]:
    return {with_data_set(key, name): threshold for key, threshold in table.items()}
