"""Infer the contrast of a scan from the intensities of white matter, grey matter and fluid."""

from dataclasses import asdict, dataclass

import numpy as np

from halebrain.core.types import FloatArray, MaskArray
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.tissue_priors import tissue_priors

CONTRASTS = ("T1w", "T2w", "FLAIR")
UNKNOWN = "unknown"
_ENOUGH = 60
"""Minimum number of voxels of a tissue to measure its intensity."""
_TOLD_APART = 2.5
"""Standard deviations of white matter that fluid must be away from it. Real scans: 6 to 29; virtual ones: from 3.5."""
_T1_GREY = (0.48, 0.97)
"""Grey matter between fluid (0) and white matter (1) in T1. Real scans: 0.65 to 0.93, the most with contrast agent."""
_FLAIR_GREY = (0.97, 1.6)
"""In FLAIR, where it lies beyond white matter. Real scans: 1.03 to 1.24; virtual ones: 0.93 to 1.48."""
_T2_GREY = (0.75, 1.08)
"""In T2, where fluid is the brightest. Real scans: 0.82 to 1.00; virtual ones: 0.84 to 0.93; proton density: 0.5."""
_UNSURE = 0.05
"""Between these values, T1 with contrast agent and low-contrast FLAIR cannot be told apart by intensity."""
_FOREIGN = ("PDw", "PET", "SWI", "T2starw", "dwi", "ADC", "FA", "bold", "asl", "CT")
"""Names of contrasts other than T1, T2 and FLAIR."""


@dataclass(frozen=True)
class TissueLevels:
    """How bright the tissues are, in the units of the image, by order statistics that lesions hardly move.

    Args:
        white: Median of deep white matter.
        cortex: Quartile of the cortex on the side away from fluid, which fills the sulci of half of its voxels.
        deep: Median of the nuclei and thalami.
        fluid: Tenth or ninetieth percentile of where ventricles lie, on the side away from white matter: those of
            young people fill little of it.
        spread: Robust standard deviation within deep white matter.
    """

    white: float
    cortex: float
    deep: float
    fluid: float
    spread: float

    @property
    def grey_position(self) -> float:
        """Where grey matter lies between fluid (0) and white matter (1), mean of cortex and nuclei; 0 without a gap."""
        gap = self.white - self.fluid
        return ((self.cortex + self.deep) / 2 - self.fluid) / gap if gap else 0.0

    @property
    def separation(self) -> float:
        """Difference of white matter and fluid, in standard deviations within white matter."""
        return abs(self.white - self.fluid) / max(self.spread, 1e-6)

    def rounded(self) -> dict[str, float]:
        """Return all of it under names, for quality control; JSON-able."""
        found = asdict(self) | {"grey_position": self.grey_position, "separation": self.separation}
        return {name: round(float(value), 3) for name, value in found.items()}


def measure_levels(image: FloatArray, brain_mask: MaskArray, grid: Grid) -> TissueLevels | None:
    """Return how bright the tissues of a registered brain are.

    Args:
        image: The scan in the space of the MNI template, `(i, j, k)`, any unit.
        brain_mask: Its brain.
        grid: Grid of both.

    Returns:
        The levels; `None` where too little of a tissue is seen (a cut scan, a coarse grid).
    """
    priors = tissue_priors(grid)
    places = (priors.white, priors.cortex, priors.deep, priors.ventricle)
    values = [image[place & brain_mask].astype(np.float64) for place in places]
    if min(len(value) for value in values) < _ENOUGH:
        return None
    whites, cortex, deep, ventricle = values
    white = float(np.median(whites))
    is_bright = float(np.median(ventricle)) > white
    return TissueLevels(
        white=white,
        cortex=float(np.percentile(cortex, 25 if is_bright else 75)),
        deep=float(np.median(deep)),
        fluid=float(np.percentile(ventricle, 90 if is_bright else 10)),
        spread=1.4826 * float(np.median(np.abs(whites - white))),
    )


def recognise_contrast(levels: TissueLevels) -> str:
    """Return "T1w", "T2w", "FLAIR" or "unknown" (proton density, susceptibility, PET and the like).

    T1 with contrast agent is T1. Maps of diffusivity and images without diffusion weighting have the levels of T2,
    diffusion-weighted ones nearly those of FLAIR: they pass for these.
    """
    if levels.separation < _TOLD_APART:
        return UNKNOWN
    grey = levels.grey_position
    if levels.fluid > levels.white:
        return "T2w" if _T2_GREY[0] <= grey <= _T2_GREY[1] else UNKNOWN
    if _T1_GREY[0] <= grey < _T1_GREY[1]:
        return "T1w"
    return "FLAIR" if _FLAIR_GREY[0] <= grey <= _FLAIR_GREY[1] else UNKNOWN


def is_sure(levels: TissueLevels) -> bool:
    """Return whether T1 with contrast agent and FLAIR can be told apart reliably."""
    return levels.fluid > levels.white or abs(levels.grey_position - _T1_GREY[1]) > _UNSURE


def is_foreign(named: str | None) -> bool:
    """Return whether a name declares a contrast other than T1, T2 and FLAIR."""
    return named is not None and named.lower() in {name.lower() for name in _FOREIGN}


def contrast_flag(named: str | None, seen: str | None) -> str | None:
    """Return a warning if declared and inferred contrast differ, else `None`.

    Args:
        named: Declared contrast, a BIDS suffix; `None` or an unknown word = not declared.
        seen: Inferred contrast; `None` or "unknown" = not inferred.
    """
    if is_foreign(named):
        return f"its name says {named}: maps are not valid, as the model was trained on T1w, T2w and FLAIR"
    claimed = _family(named)
    if claimed is None or seen not in CONTRASTS or claimed == seen:
        return None
    return f"its name says {named}, but the image looks like {seen}: check the contrast"


def _family(named: str | None) -> str | None:
    if named is None:
        return None
    for family, starts in (("FLAIR", ("flair",)), ("T1w", ("t1",)), ("T2w", ("t2",))):
        if named.lower().startswith(starts):
            return family
    return None
