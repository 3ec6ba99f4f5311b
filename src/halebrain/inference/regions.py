"""Approximate brain regions of positions in template space, by coarse rules, for orientation only.

Deep structures are ellipsoids, planes along the major sulci separate lobes, and white matter is separated from cortex
by the template's tissue maps (ICBM 2009a Nonlinear Symmetric, Fonov et al. 2009, 2011). A scan is registered affinely,
so that a name may be wrong by a gyrus. No third-party atlas is used.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.provenance import QualityReport
from halebrain.core.types import TEMPLATE_SPACE, Affine, MaskArray
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.template import load_tissue_maps

Millimetres = npt.NDArray[np.float64]

MIDLINE_MM = 4.0
"""Structures of both sides are named midline where |x| is less."""
PERIVENTRICULAR_MM = 8.0
"""White matter is periventricular within this distance of the lateral ventricles."""
_SAMPLE = 5000
"""Voxels of a finding that decide on its name; with few of them it depended on the order of the scan's axes."""
_STEP_MM = 2
_SMOOTHING_MM = 2.0
_TISSUES = ("outside", "ventricle", "periventricular", "white", "grey")
_VENTRICLE_MM3 = 2000
"""Smaller components of fluid near the middle are cisterns and sulci."""


@dataclass(frozen=True)
class Ellipsoid:
    """A structure as an axis-aligned ellipsoid in template space, centre (|x|, y, z); if `paired`, on both sides."""

    name: str
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    paired: bool = True

    def holds(self, x: Millimetres, y: Millimetres, z: Millimetres) -> MaskArray:
        """Return whether places lie in it; `x` is |x|."""
        offsets = zip((x, y, z), self.centre_mm, self.radii_mm, strict=True)
        squared = [((place - middle) / radius) ** 2 for place, middle, radius in offsets]
        inside: MaskArray = np.sum(squared, axis=0) <= 1
        return inside


def regions_are_known(space: str | None, report: QualityReport) -> bool:
    """Return whether places of a scan can be named: its space is that of the MNI template, and it lies there."""
    return space == TEMPLATE_SPACE and not report.registration_failed


CEREBRUM_BOTTOM_MM = -51.0
"""z of the lowest slice of the template that shows cerebrum (temporal cortex)."""

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


def region_of(points_mm: Millimetres) -> str:
    """Return the region of most voxels of a component; with ", and further" if it holds less than half of them.

    Places are in template space, mm, `(n, 3)`; of many, an evenly spread sample is used.
    """
    chosen = points_mm[np.unique(np.linspace(0, len(points_mm) - 1, _SAMPLE).astype(int))]
    codes, names = region_codes(np.asarray(chosen, dtype=np.float64))
    counts = Counter(names[code] for code in codes.tolist())
    name, count = max(counts.items(), key=lambda item: (item[1], item[0]))
    return name if count >= len(chosen) / 2 else f"{name}, and further"


def outside_cerebrum(points_mm: Millimetres) -> MaskArray:
    """Return which places in template space `(n, 3)` lie outside the template's brain or below its cerebrum, `(n,)`.

    Within 6 mm of the brain a place counts as inside, for what the registration is off.
    """
    outside: MaskArray = _tissues().at(points_mm) == _TISSUES.index("outside")
    return outside | (points_mm[:, 2] < CEREBRUM_BOTTOM_MM)


def region_codes(points_mm: Millimetres) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Return the approximate names of places in template space `(n, 3)`, as codes `(n,)` into names that differ."""
    y, z = points_mm[:, 1], points_mm[:, 2]
    x, right = np.abs(points_mm[:, 0]), points_mm[:, 0] > 0
    rules = _rules(x, y, z, _tissues().at(points_mm))
    rule = np.select([where for _, _, where in rules], range(len(rules)))
    paired = np.array([has_sides for _, has_sides, _ in rules])[rule]
    side = np.where(~paired, 0, np.where(x < MIDLINE_MM, 1, np.where(right, 2, 3)))
    said = [f"{name}{suffix}" for name, _, _ in rules for suffix in ("", ", midline", ", right", ", left")]
    names = sorted({said[code] for code in np.unique(4 * rule + side).tolist()})
    place = np.array([names.index(name) if name in names else 0 for name in said], dtype=np.uint8)
    return place[4 * rule + side], tuple(names)


def region_map(
    to_template: Affine, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Return the name of every voxel of a box, as codes `shape` into the names that come with them.

    `to_template` goes from mm in the box, from its corner, to mm in template space.
    """
    index = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), axis=-1)
    places = index * np.array(spacing_mm) @ to_template[:3, :3].T + to_template[:3, 3]
    codes, names = region_codes(places.reshape(-1, 3))
    return codes.reshape(shape), names


def near_ventricles(grid: Grid) -> MaskArray:
    """Return the voxels of a grid in template space that lie in the ventricles or within 8 mm of them, bool."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3)
    places = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    third = next(one for one in STRUCTURES if one.name == "third ventricle")
    inside = third.holds(np.abs(places[:, 0]), places[:, 1], places[:, 2])
    found: MaskArray = ((_around_ventricles().at(places) > 0) | inside).reshape(grid.shape)
    return found


def _rules(
    x: Millimetres, y: Millimetres, z: Millimetres, tissue: npt.NDArray[np.uint8]
) -> list[tuple[str, bool, MaskArray]]:
    """Return (name, whether it has sides, where it holds) of everything, the first that holds names a place."""
    grey = tissue == _TISSUES.index("grey")
    rules = [
        ("outside the template's brain", False, tissue == _TISSUES.index("outside")),
        ("lateral ventricle", True, tissue == _TISSUES.index("ventricle")),
        *((s.name, s.paired, s.holds(x, y, z)) for s in STRUCTURES),
        ("cerebellum", True, _is_cerebellar(x, y, z)),
        ("corpus callosum", False, ~grey & (_callosal_radius(y, z) < 1.2) & (x < 12) & (z > -2)),
    ]
    lobes = _lobes(x, y, z)
    near = tissue == _TISSUES.index("periventricular")
    rules += [(f"periventricular {lobe} white matter", True, near & where) for lobe, where in lobes]
    rules += [(f"{lobe} white matter", True, ~grey & where) for lobe, where in lobes]
    # Strips along the central sulcus and around the callosum have their own names.
    around = (x < 13) & (z > 0) & (_callosal_radius(y, z) > 1.0) & (_callosal_radius(y, z) < 2.0)
    beyond = y - _central_sulcus(x, z)
    strip = (dict(lobes)["frontal"] | dict(lobes)["parietal"]) & (z > 15) & (np.abs(beyond) < 14)
    rules.append(("cingulate gyrus", True, around))
    rules += [("precentral gyrus", True, strip & (beyond > 0)), ("postcentral gyrus", True, strip)]
    return rules + [(f"{lobe} cortex", True, where) for lobe, where in lobes]


def _lobes(x: Millimetres, y: Millimetres, z: Millimetres) -> list[tuple[str, MaskArray]]:
    """Return where each lobe is; every place lies in one."""
    occipital = y < -72 - 0.35 * (z - 20)  # behind the parieto-occipital sulcus
    # The Sylvian fissure rises to the back; below it lies the temporal lobe, which reaches inwards at the base.
    fissure = 4 - 0.4 * np.clip(y, -40, 30)
    temporal = ~occipital & (y < 22) & (z < fissure) & ((x > 28) | ((x > 15) & (z < -8)))
    rest, before = ~occipital & ~temporal, y > _central_sulcus(x, z)
    return [
        ("occipital", occipital),
        ("temporal", temporal),
        ("frontal", rest & before),
        ("parietal", rest & ~before),
    ]


def _central_sulcus(x: Millimetres, z: Millimetres) -> Millimetres:
    """Return y of the central sulcus: from the back at the vertex to the front above the Sylvian fissure."""
    return np.minimum(-15 - 0.5 * (z - 50) + 0.2 * (x - 40), -10)


def _is_cerebellar(x: Millimetres, y: Millimetres, z: Millimetres) -> MaskArray:
    """Return whether places lie under the tentorium, which falls to the sides."""
    under: MaskArray = (y < -34) & (z < -10 - 0.45 * x)
    return under


def _callosal_radius(y: Millimetres, z: Millimetres) -> Millimetres:
    """Return 1 on the arch of the corpus callosum in the median plane, less inside it."""
    radius: Millimetres = np.hypot((y + 5) / 33, (z - 8) / 18)
    return radius


@dataclass(frozen=True)
class _Tissues:
    """Codes of tissue on the template's grid, 2 mm: places in `_TISSUES`."""

    codes: npt.NDArray[np.uint8]
    origin_mm: tuple[float, float, float]

    def at(self, points_mm: Millimetres) -> npt.NDArray[np.uint8]:
        """Return the code of each place `(n, 3)`; "outside" beyond the grid."""
        index = np.rint((points_mm - np.array(self.origin_mm)) / _STEP_MM).astype(int)
        on_grid = ((index >= 0) & (index < self.codes.shape)).all(axis=1)
        found = np.zeros(len(points_mm), dtype=np.uint8)
        found[on_grid] = self.codes[tuple(index[on_grid].T)]
        return found


@lru_cache(maxsize=1)
def _tissues() -> _Tissues:
    maps, every = load_tissue_maps(), (slice(None, None, _STEP_MM),) * 3
    white, grey = maps.white[every], maps.grey[every]
    # A finding next to the cortex is not outside the brain for a millimetre that the registration is off.
    brain = ndimage.binary_dilation(maps.brain[every], iterations=3)
    origin = maps.grid.affine[:3, 3]
    smooth_white, smooth_grey = (ndimage.gaussian_filter(t, _SMOOTHING_MM / _STEP_MM) for t in (white, grey))
    ventricle = _ventricles(brain & (white + grey < 0.4), origin)
    near = ndimage.distance_transform_edt(~ventricle, sampling=_STEP_MM) <= PERIVENTRICULAR_MM
    is_white = smooth_white > smooth_grey
    codes = np.select([~brain, ventricle, is_white & near, is_white], [0, 1, 2, 3], default=4).astype(np.uint8)
    return _Tissues(codes, (float(origin[0]), float(origin[1]), float(origin[2])))


def _ventricles(fluid: MaskArray, origin_mm: npt.NDArray[np.float64]) -> MaskArray:
    """Return the large components of fluid in the middle of the brain: one each side."""
    axes = (o + _STEP_MM * np.arange(n) for o, n in zip(origin_mm, fluid.shape, strict=True))
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inner = fluid & (np.abs(x) < 38) & (y > -52) & (y < 36) & (z > -4) & (z < 32)
    labels, _ = ndimage.label(inner)
    sizes = np.bincount(labels.ravel()) * _STEP_MM**3
    sizes[0] = 0
    large: MaskArray = (sizes >= _VENTRICLE_MM3)[labels]
    return large


@lru_cache(maxsize=1)
def _around_ventricles() -> _Tissues:
    """Return 1 in the lateral ventricles and within `PERIVENTRICULAR_MM` of them, 0 elsewhere, as codes."""
    tissues = _tissues()
    distance = ndimage.distance_transform_edt(tissues.codes != _TISSUES.index("ventricle"), sampling=_STEP_MM)
    return replace(tissues, codes=(distance <= PERIVENTRICULAR_MM).astype(np.uint8))
