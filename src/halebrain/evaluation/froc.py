"""Free-response ROC: lesion sensitivity over false-positive lesions per scan.

Candidates are the components of the mask at the frozen threshold; the peak score of each is its
confidence. A true lesion is found at a confidence if a candidate of at least that confidence overlaps it; a candidate
that overlaps none is false positive. The curve ends at the frozen threshold: lower scores were never marked.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.evaluation.case import Case

RATES = (0.5, 1.0, 2.0, 4.0)
"""False-positive lesions per scan at which sensitivity is reported."""


@dataclass
class Froc:
    """Lesions and false candidates of a set, as scans come.

    Args:
        scans: Scans so far.
        found: For each true lesion the peak of the most confident candidate that touches it; −inf where none does.
        false: Peak of each false candidate.
    """

    scans: int = 0
    found: list[float] = field(default_factory=list)
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
        self.false += peaks[1:][~true[1:]].tolist()

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
