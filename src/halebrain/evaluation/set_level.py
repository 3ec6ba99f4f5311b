"""Measures of a whole set, gathered as scans come: free-response ROC, slices and scans, reliability of the score.

Free-response ROC (lesion sensitivity over false-positive lesions per scan): candidates are the components of the mask
at the frozen threshold; the peak score of each is its confidence. A true lesion is found at a confidence if a candidate
of at least that confidence overlaps it; a candidate that overlaps none is false positive. The curve ends at the frozen
threshold: lower scores were never marked.

Slices and scans are normal or abnormal. The score of a scan is the mean of its highest millilitre, that of an axial
slice the mean of its highest tenth of a millilitre: one hot voxel is not enough, and a small lesion is.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.types import MaskArray
from halebrain.evaluation.case import Case
from halebrain.evaluation.curve import Curve

FROC_RATES = (0.5, 1.0, 2.0, 4.0)
"""False-positive lesions per scan at which sensitivity is reported."""
SMALL_ML = 1.0
"""Lesions below this volume are small, and counted apart too."""
SCAN_ML, SLICE_ML = 1.0, 0.1
_BINS = 15


@dataclass
class Froc:
    """Lesions and false candidates of a set, as scans come.

    `found` has, for each true lesion, the peak of the most confident candidate that touches it, −inf where none does,
    and `volumes_ml` its volume; `false` has the peak of each false candidate.
    """

    scans: int = 0
    found: list[float] = field(default_factory=list)
    volumes_ml: list[float] = field(default_factory=list)
    false: list[float] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Add one scan that has a score and a mask."""
        assert case.score is not None
        candidates, count = case.predicted_lesions
        lesions, n_lesions = case.reference_lesions
        peaks = np.full(count + 1, -np.inf)
        if count:
            peaks[1:] = ndimage.maximum(case.score, candidates, np.arange(1, count + 1))
        shared = (candidates > 0) & (lesions > 0)
        best = np.full(n_lesions + 1, -np.inf)
        np.maximum.at(best, lesions[shared], peaks[candidates[shared]])
        true = np.zeros(count + 1, dtype=bool)
        true[candidates[shared]] = True
        self.scans += 1
        self.found += best[1:].tolist()
        self.volumes_ml += (np.bincount(lesions.ravel(), minlength=n_lesions + 1)[1:] * case.voxel_ml).tolist()
        self.false += peaks[1:][~true[1:]].tolist()

    def take(self, other: "Froc") -> None:
        """Add the scans of another set."""
        self.scans += other.scans
        self.found += other.found
        self.volumes_ml += other.volumes_ml
        self.false += other.false

    def curve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return false-positive lesions per scan and sensitivity, by falling confidence; starts at (0, 0)."""
        found, false = np.sort(self.found), np.sort(self.false)
        certainty = np.unique([*found[np.isfinite(found)], *false])[::-1]
        rate = (len(false) - np.searchsorted(false, certainty, side="left")) / self.scans
        sensitivity = (len(found) - np.searchsorted(found, certainty, side="left")) / len(found)
        return np.append(0.0, rate), np.append(0.0, sensitivity)

    def sensitivity_at(self, rate: float) -> float:
        """Return the highest sensitivity at no more than `rate` false-positive lesions per scan."""
        rates, sensitivity = self.curve()
        return float(sensitivity[rates <= rate].max())

    def small(self) -> "Froc":
        """Return the same with the small lesions alone; every false candidate stays."""
        small = [peak for peak, ml in zip(self.found, self.volumes_ml, strict=True) if ml < SMALL_ML]
        volumes = [ml for ml in self.volumes_ml if ml < SMALL_ML]
        return Froc(self.scans, small, volumes, self.false)


def scan_score(case: Case) -> float:
    """Return the mean score of the highest millilitre."""
    return mean_of_highest_ml(case.values, SCAN_ML, case.voxel_ml)


def slice_scores(case: Case) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return score and label of each axial slice that shows brain."""
    assert case.score is not None
    region, score = (np.moveaxis(a, case.axial_axis, 0) for a in (case.region, case.score))
    truth: MaskArray = np.asarray(np.moveaxis(case.reference & case.region, case.axial_axis, 0).any(axis=(1, 2)))
    shown: MaskArray = np.asarray(region.any(axis=(1, 2)))
    voxel_ml = case.voxel_ml
    scores = [mean_of_highest_ml(s[r], SLICE_ML, voxel_ml) for s, r, k in zip(score, region, shown, strict=True) if k]
    return np.array(scores), truth[shown]


@dataclass
class ImageLevel:
    """Slices and scans of a whole set, as they come."""

    scans: list[tuple[float, bool]] = field(default_factory=list)
    slices: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Add one scan."""
        self.scans.append((scan_score(case), case.has_reference))
        self.slices.append(slice_scores(case))

    def take(self, other: "ImageLevel") -> None:
        """Add the scans of another set."""
        self.scans += other.scans
        self.slices += other.slices

    def finish(self) -> dict[str, float]:
        """Return AUROC and AUPRC of slices and of scans; those that need both kinds are left out where one lacks."""
        levels = {
            "slice": tuple(np.concatenate(parts) for parts in zip(*self.slices, strict=True)) if self.slices else None,
            "scan": tuple(np.array(part) for part in zip(*self.scans, strict=True)) if self.scans else None,
        }
        found: dict[str, float] = {}
        for level, data in levels.items():
            if data is None or not data[1].any() or data[1].all():
                continue
            curve = Curve.of(data[0], data[1])
            found |= {f"{level}_auroc": curve.auroc, f"{level}_auprc": curve.average_precision}
        return found


def mean_of_highest_ml(values: npt.NDArray[np.floating], volume_ml: float, voxel_ml: float) -> float:
    """Return the mean of the highest values that fill a volume: one voxel at least, all of them at most."""
    n = int(min(max(round(volume_ml / voxel_ml), 1), len(values)))
    return float(np.partition(values, len(values) - n)[-n:].mean(dtype=np.float64))


@dataclass
class Reliability:
    """Counts over equal bins of [0, 1], as scans come: voxels, sum of their scores, and lesion voxels; exact."""

    count: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    total: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(_BINS))
    lesion: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, score: npt.NDArray[np.floating], reference: npt.NDArray[np.bool_]) -> None:
        """Add the voxels of one scan, scores in [0, 1]; another score is a `ValueError`."""
        if score.size and (score.min() < 0 or score.max() > 1):
            raise ValueError(f"probabilities lie in [0, 1], got {score.min():g} to {score.max():g}")
        place = np.minimum((score * _BINS).astype(np.int64), _BINS - 1)
        self.count += np.bincount(place, minlength=_BINS)
        self.total += np.bincount(place, weights=score, minlength=_BINS)
        self.lesion += np.bincount(place[reference], minlength=_BINS)

    def take(self, other: "Reliability") -> None:
        """Add the voxels of another set."""
        self.count += other.count
        self.total += other.total
        self.lesion += other.lesion

    def curve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Return mean score, share of lesion and number of voxels of each bin that holds any."""
        held = self.count > 0
        return self.total[held] / self.count[held], self.lesion[held] / self.count[held], self.count[held]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean |score − share of lesion| over bins, weighted by voxels; in [0, 1]."""
        score, share, count = self.curve()
        return float((np.abs(score - share) * count).sum() / max(count.sum(), 1))
