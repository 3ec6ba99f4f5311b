"""About where in the brain a place of template space lies: coarse names by rules of our own, to find one's way.

Deep structures are ellipsoids, lobes are parted by planes along the great sulci, and white matter is told from cortex
by the template's tissue maps (ICBM 2009a Nonlinear Symmetric, Fonov et al. 2009, 2011). A scan is registered affinely,
so that a name may be wrong by a gyrus. No third-party atlas is used.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.types import TEMPLATE_SPACE, MaskArray

MIDLINE_MM = 4.0
"""Structures of both sides are called midline where |x| is less."""
PERIVENTRICULAR_MM = 8.0
"""White matter is called periventricular within this distance of the lateral ventricles."""
_SAMPLE = 100
_STEP_MM = 2
_SMOOTHING_MM = 2.0
_VENTRICLE_MM3 = 2000
"""Smaller pieces of fluid near the middle are cisterns and sulci."""


@dataclass(frozen=True)
class Ellipsoid:
    """A structure as an axis-aligned ellipsoid in template space, mirrored to both sides.

    Args:
        name: What it is called.
        centre_mm: (|x|, y, z) of its middle.
        radii_mm: Half its axes.
        paired: Whether a left and a right one are told apart.
    """

    name: str
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    paired: bool = True

    def holds(self, x: float, y: float, z: float) -> bool:
        """Return whether a place lies in it; `x` is |x|."""
        offsets = zip((x, y, z), self.centre_mm, self.radii_mm, strict=True)
        return sum(((place - middle) / radius) ** 2 for place, middle, radius in offsets) <= 1


def regions_are_known(space: str | None, qc: Mapping[str, Any]) -> bool:
    """Return whether places of a scan can be named: its space is that of the MNI template, and it lies there.

    Args:
        space: Name of the space that it was registered to.
        qc: Its quality control.
    """
    return space == TEMPLATE_SPACE and not qc.get("registration_failed", False)


STRUCTURES = (
    Ellipsoid("third ventricle", (0, -13, 3), (3, 13, 9), paired=False),
    Ellipsoid("brainstem (midbrain)", (0, -25, -11), (14, 9, 9), paired=False),
    Ellipsoid("brainstem (pons)", (0, -26, -30), (15, 13, 14), paired=False),
    Ellipsoid("brainstem (medulla)", (0, -40, -52), (10, 10, 16), paired=False),
    Ellipsoid("thalamus", (11, -19, 8), (11, 13, 9)),
    Ellipsoid("caudate nucleus", (11, 13, 8), (7, 10, 11)),
    Ellipsoid("caudate nucleus", (15, -3, 21), (4, 12, 5)),
    Ellipsoid("lentiform nucleus", (23, 2, 1), (9, 17, 10)),
    Ellipsoid("hippocampus and amygdala", (25, -18, -14), (8, 22, 8)),
    Ellipsoid("hypothalamus and basal forebrain", (0, 2, -10), (12, 12, 7), paired=False),
    Ellipsoid("insula", (37, 5, 2), (6, 21, 13)),
)
"""Tried in this order; the first that holds a place names it."""


def region_at(x_mm: float, y_mm: float, z_mm: float) -> str:
    """Return the approximate name of a place in template space (RAS, mm), with its side.

    >>> region_at(-11, -19, 8)
    'thalamus, left'
    """
    x = abs(x_mm)
    side = "midline" if x < MIDLINE_MM else "right" if x_mm > 0 else "left"
    tissue = _tissues().at(x_mm, y_mm, z_mm)
    if tissue == "outside":
        return "outside the template's brain"
    if tissue == "ventricle":
        return f"lateral ventricle, {side}"
    for structure in STRUCTURES:
        if structure.holds(x, y_mm, z_mm):
            return f"{structure.name}, {side}" if structure.paired else structure.name
    if _is_cerebellar(x, y_mm, z_mm):
        return f"cerebellum, {side}"
    if tissue != "grey" and _callosal_radius(y_mm, z_mm) < 1.2 and x < 12 and z_mm > -2:
        return "corpus callosum"
    return f"{_cerebral(x, y_mm, z_mm, tissue)}, {side}"


def region_of(points_mm: npt.NDArray[np.float64]) -> str:
    """Return where most of a piece lies; ", and further" where that is less than half of it.

    Args:
        points_mm: Places in template space, `(n, 3)`; of many, a sample spread over them is looked at.
    """
    chosen = points_mm[np.unique(np.linspace(0, len(points_mm) - 1, _SAMPLE).astype(int))]
    names = Counter(region_at(float(x), float(y), float(z)) for x, y, z in chosen)
    name, count = max(names.items(), key=lambda item: (item[1], item[0]))
    return name if count >= len(chosen) / 2 else f"{name}, and further"


def _cerebral(x: float, y: float, z: float, tissue: str) -> str:
    """Return the lobe with its tissue; strips along the central sulcus and around the callosum have own names."""
    lobe = _lobe(x, y, z)
    if tissue in ("white", "periventricular"):
        return f"{'periventricular ' if tissue == 'periventricular' else ''}{lobe} white matter"
    if x < 13 and z > 0 and 1.0 < _callosal_radius(y, z) < 2.0:
        return "cingulate gyrus"
    beyond = y - _central_sulcus(x, z)
    if lobe in ("frontal", "parietal") and z > 15 and abs(beyond) < 14:
        return "precentral gyrus" if beyond > 0 else "postcentral gyrus"
    return f"{lobe} cortex"


def _lobe(x: float, y: float, z: float) -> str:
    if y < -72 - 0.35 * (z - 20):  # behind the parieto-occipital sulcus
        return "occipital"
    # The Sylvian fissure rises to the back; below it lies the temporal lobe, which reaches inwards at the base.
    fissure = 4 - 0.4 * min(max(y, -40), 30)
    if y < 22 and z < fissure and (x > 28 or (x > 15 and z < -8)):
        return "temporal"
    return "frontal" if y > _central_sulcus(x, z) else "parietal"


def _central_sulcus(x: float, z: float) -> float:
    """Return y of the central sulcus: from the back at the vertex to the front above the Sylvian fissure."""
    return min(-15 - 0.5 * (z - 50) + 0.2 * (x - 40), -10)


def _is_cerebellar(x: float, y: float, z: float) -> bool:
    """Return whether a place lies under the tentorium, which falls to the sides."""
    return y < -34 and z < -10 - 0.45 * x


def _callosal_radius(y: float, z: float) -> float:
    """Return 1 on the arch of the corpus callosum in the median plane, less inside it."""
    return float(np.hypot((y + 5) / 33, (z - 8) / 18))


@dataclass(frozen=True)
class _Tissues:
    """Codes of tissue on the template's grid, 2 mm."""

    names: tuple[str, ...]
    codes: npt.NDArray[np.uint8]
    origin_mm: tuple[float, float, float]

    def at(self, x_mm: float, y_mm: float, z_mm: float) -> str:
        place = [round((v - o) / _STEP_MM) for v, o in zip((x_mm, y_mm, z_mm), self.origin_mm, strict=True)]
        if any(not 0 <= index < size for index, size in zip(place, self.codes.shape, strict=True)):
            return "outside"
        return self.names[int(self.codes[tuple(place)])]


@lru_cache(maxsize=1)
def _tissues() -> _Tissues:
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template

    def load(image: Any) -> npt.NDArray[np.float32]:
        return np.asarray(image.dataobj, dtype=np.float32)[::_STEP_MM, ::_STEP_MM, ::_STEP_MM]

    brain_image = load_mni152_brain_mask(resolution=1)
    white, grey = load(load_mni152_wm_template(resolution=1)), load(load_mni152_gm_template(resolution=1))
    # A finding next to the cortex is not outside the brain for a millimetre that the registration is off.
    brain = ndimage.binary_dilation(load(brain_image) > 0.5, iterations=3)
    origin = np.asarray(brain_image.affine, dtype=np.float64)[:3, 3]
    smooth_white, smooth_grey = (ndimage.gaussian_filter(t, _SMOOTHING_MM / _STEP_MM) for t in (white, grey))
    ventricle = _ventricles(brain & (white + grey < 0.4), origin)
    near = ndimage.distance_transform_edt(~ventricle, sampling=_STEP_MM) <= PERIVENTRICULAR_MM
    is_white = smooth_white > smooth_grey
    codes = np.select([~brain, ventricle, is_white & near, is_white], [0, 1, 2, 3], default=4).astype(np.uint8)
    names = ("outside", "ventricle", "periventricular", "white", "grey")
    return _Tissues(names, codes, (float(origin[0]), float(origin[1]), float(origin[2])))


def _ventricles(fluid: MaskArray, origin_mm: npt.NDArray[np.float64]) -> MaskArray:
    """Return the large pieces of fluid in the middle of the brain: one each side."""
    axes = (o + _STEP_MM * np.arange(n) for o, n in zip(origin_mm, fluid.shape, strict=True))
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inner = fluid & (np.abs(x) < 38) & (y > -52) & (y < 36) & (z > -4) & (z < 32)
    labels, _ = ndimage.label(inner)
    sizes = np.bincount(labels.ravel()) * _STEP_MM**3
    sizes[0] = 0
    large: MaskArray = (sizes >= _VENTRICLE_MM3)[labels]
    return large
