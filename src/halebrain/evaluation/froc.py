"""Free-response ROC: how many lesions are found at how many false ones a scan.

Candidates are the components of the mask at the frozen threshold, and the peak score of each is how sure it is of
itself. A true lesion is found at a certainty where a candidate at least that sure shares a voxel with it; a candidate
that shares none with any is false. The curve ends at the frozen threshold: what lies below was never called.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.evaluation.case import Case

RATES = (0.5, 1.0, 2.0, 4.0)
"""False lesions a scan at which sensitivity is read off."""


@dataclass
class Froc:
    """Lesions and false candidates of a set, as scans come.

    Args:
        scans: Scans so far.
        found: For each true lesion the peak of the surest candidate that touches it; −inf where none does.
        false: Peak of each false candidate.
    """

    scans: int = 0
    found: list[float] = field(default_factory=list)
    false: list[float] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Take in one scan that has a score and a mask."""
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
        """Return false lesions a scan and sensitivity, from the surest candidates to all; starts at (0, 0)."""
        found, false = np.sort(self.found), np.sort(self.false)
        certainty = np.unique([*found[np.isfinite(found)], *false])[::-1]
        rate = (len(false) - np.searchsorted(false, certainty, side="left")) / self.scans
        sensitivity = (len(found) - np.searchsorted(found, certainty, side="left")) / len(found)
        return np.append(0.0, rate), np.append(0.0, sensitivity)

    def sensitivity_at(self, rate: float) -> float:
        """Return the highest sensitivity at no more than `rate` false lesions a scan."""
        rates, sensitivity = self.curve()
        return float(sensitivity[rates <= rate].max())
