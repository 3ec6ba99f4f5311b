"""Rigid registration of two scans of one head, by what they share inside the brain of one of them.

Only points in the brain of the first scan are compared, so the other one may have its skull or not, and may show a part
of the brain only. Measure: normalised mutual information (Studholme et al. 1999), maximised from several starts.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from halebrain.core.errors import DataError
from halebrain.core.types import Affine, FloatArray, MaskArray, Volume
from halebrain.preprocessing.geometry import Grid, apply_affine, resample
from halebrain.preprocessing.quality.measurements import normalised_mutual_information
from halebrain.preprocessing.registration.base import Brain, prepare_brain

_GRID_MM = 2.0
_COARSE_POINTS, _FINE_POINTS = 6000, 20000
_COARSE_BINS, _FINE_BINS = 16, 32
_COARSE_MM = 3.0
"""Standard deviation of the smoothing of both scans from which the search begins, which widens its reach."""
_STEPS = ((12.0, 10.0), (6.0, 5.0), (3.0, 2.5), (1.0, 1.0))
"""Degrees and mm by which a start is improved in turn."""
_FINE_DEGREES, _FINE_MM = 0.5, 0.5
_LEAST_OVERLAP = 0.2
"""Share of the brain that the other scan must show."""
_SEED = 20251107
_AS_IT_LIES = 0.02
"""Share by which the information must grow for a scan to be moved out of the place that its header states."""
_TURNS_DEG = (-30.0, 0.0, 30.0)
_SURE_MARGIN = 1.5
"""Information at a placement over the most at one turned by 20°; from this value on, no other start is tried."""
_MORE_STARTS = 4
Pose = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RigidRegistration:
    """How one scan lies in another.

    Args:
        matrix: World-to-world `(4, 4)`, mm, RAS: a point of the first scan to its place in the other one.
        shared: Normalised mutual information − 1 in the brain: 0 = independent, 1 = each determines the other.
        overlap: Share of the brain that lies in the other scan's field of view.
        moved_mm: How far the matrix moves the brain on average; 0 = the headers agree.
    """

    matrix: Affine
    shared: float
    overlap: float
    moved_mm: float


def register_rigid(
    volume: Volume,
    brain_mask: MaskArray,
    other: Volume,
    *,
    other_brain: MaskArray | None = None,
    brain: Brain | None = None,
) -> RigidRegistration:
    """Register a scan rigidly to another one of the same head, of any contrast.

    The place that the headers state is kept exactly where no other one fits better.

    Args:
        volume: A scan.
        brain_mask: Its brain, bool on its grid.
        other: Another scan, with or without its skull.
        other_brain: Its brain, where that is known.
        brain: What `prepare_brain` makes of the first scan and its brain, where that is known.

    Raises:
        DataError: The other scan shows less than a fifth of the brain.
    """
    both = _Images.of(brain or prepare_brain(volume, brain_mask), other, other_brain)
    rough, pair = _Pair.of(both, smooth=True), _Pair.of(both)
    stated = np.eye(4)
    best = rough.climb(stated)
    if rough.margin(best) < _SURE_MARGIN:
        best = max([best, *map(rough.climb, rough.starts())], key=rough.shared)
    best = pair.refine(best)
    at_stated, at_best = pair.shared(stated), pair.shared(best)
    moved_mm = pair.distance_mm(stated, best)
    if at_stated > 0 and at_best < (1 + _AS_IT_LIES) * at_stated and moved_mm < 2 * _GRID_MM:
        best, at_best, moved_mm = stated, at_stated, 0.0
    overlap = pair.overlap(best)
    if overlap < _LEAST_OVERLAP or at_best <= 0:
        raise DataError(
            "the scans of an exam must show the same part of the head",
            received=f"{overlap:.0%} of the brain in '{other.name}' that '{volume.name}' shows",
            remedy="leave it out of the exam, or check its header",
        )
    return RigidRegistration(best, round(at_best, 4), round(overlap, 3), round(moved_mm, 2))


@dataclass(frozen=True)
class _Images:
    """A brain, and another scan with its brain (`None` = not known), on grids of 2 mm or more."""

    brain: Brain
    other: FloatArray
    other_grid: Grid
    visible: FloatArray | None

    @classmethod
    def of(cls, brain: Brain, other: Volume, other_brain: MaskArray | None) -> "_Images":
        native, grid = Grid(other.shape, other.affine), _coarse(other)
        data = resample(other.data, native, grid)
        visible = None if other_brain is None else resample(other_brain.astype(np.float32), native, grid)
        low, high = np.percentile(data, [0.5, 99.5])
        return cls(brain, np.clip(data, low, high).astype(np.float32), grid, visible)


@dataclass(frozen=True)
class _Pair:
    """Points in the brain of one scan with its intensities, and the other scan on a grid of at least 2 mm."""

    points: Pose
    values: FloatArray
    centre: Pose
    other: FloatArray
    to_voxel: Affine
    other_grid: Grid
    visible: FloatArray | None
    bins: int
    weighted: bool

    @classmethod
    def of(cls, images: _Images, *, smooth: bool = False) -> "_Pair":
        brain, data, grid, visible = images.brain, images.other, images.other_grid, images.visible
        index = np.argwhere(ndimage.binary_erosion(brain.mask)).astype(np.float64)
        if len(index) == 0:
            index = np.argwhere(brain.mask).astype(np.float64)
        random = np.random.default_rng(_SEED)
        index = index[random.permutation(len(index))[: _COARSE_POINTS if smooth else _FINE_POINTS]]
        # Off the lattice: where two grids coincide, interpolation alone would prefer that place.
        index += random.uniform(-0.5, 0.5, index.shape)
        image = brain.image.data
        if smooth:
            data = ndimage.gaussian_filter(data, [_COARSE_MM / mm for mm in grid.spacing_mm])
            weight = ndimage.gaussian_filter(brain.mask.astype(np.float32), _COARSE_MM / _GRID_MM)
            image = ndimage.gaussian_filter(image, _COARSE_MM / _GRID_MM) / np.maximum(weight, 1e-3)
        values = ndimage.map_coordinates(image, index.T, order=1, prefilter=False)
        points = apply_affine(brain.image.affine, index)
        to_voxel = np.asarray(np.linalg.inv(grid.affine), dtype=np.float64)
        bins = _COARSE_BINS if smooth else _FINE_BINS
        return cls(points, values, points.mean(axis=0), data, to_voxel, grid, visible, bins, smooth)

    def shared(self, matrix: Affine) -> float:
        """Return the information that both share at a placement; 0 where too little of the brain is in view."""
        place = apply_affine(self.to_voxel @ matrix, self.points).T
        inside = self._inside(place)
        if inside.mean() < _LEAST_OVERLAP:
            return 0.0
        here = ndimage.map_coordinates(self.other, place, order=1, prefilter=False, mode="nearest")
        if here[inside].min() == here[inside].max():
            return 0.0
        shared = normalised_mutual_information(here, self.values, inside, bins=self.bins) - 1
        # Far from the right place, a small part of the brain may agree by chance.
        return float(shared * inside.mean()) if self.weighted else shared

    def margin(self, matrix: Affine) -> float:
        """Return the information at a placement over the most at one that is turned about an axis of the head."""
        turns = [np.array([*(sign * 20.0 * axis), 0.0, 0.0, 0.0]) for axis in np.eye(3) for sign in (1, -1)]
        return self.shared(matrix) / max(max(self.shared(self._posed(matrix, turn)) for turn in turns), 1e-9)

    def overlap(self, matrix: Affine) -> float:
        """Return the share of the brain in the field of view of the other scan."""
        return float(self._inside(apply_affine(self.to_voxel @ matrix, self.points).T).mean())

    def _inside(self, place: Pose) -> MaskArray:
        upper = np.array(self.other.shape)[:, None] - 0.5
        inside: MaskArray = np.all((place >= -0.5) & (place <= upper), axis=0)
        if self.visible is not None:
            # What a stripped scan shows outside of its brain says nothing.
            inside &= ndimage.map_coordinates(self.visible, place, order=1, prefilter=False) > 0.5
        return inside

    def starts(self) -> list[Affine]:
        """Return the most promising placements with the middles of both scans on each other, turned about all axes."""
        shown = self.visible
        if shown is None:
            shown = (self.other > self.other.min() + 0.1 * (self.other.max() - self.other.min())).astype(np.float32)
        middle = np.array(ndimage.center_of_mass(shown))
        moved = np.eye(4)
        moved[:3, 3] = apply_affine(self.other_grid.affine, middle[None])[0] - self.centre
        turns = itertools.product(_TURNS_DEG, repeat=3)
        turned = [self._posed(moved, np.array([*angles, 0.0, 0.0, 0.0])) for angles in turns]
        return [moved, *sorted(turned, key=self.shared, reverse=True)[:_MORE_STARTS]]

    def climb(self, start: Affine) -> Affine:
        """Move along one parameter at a time while that helps, with smaller and smaller steps."""
        pose = np.zeros(6)
        value = self.shared(start)
        for degrees, mm in _STEPS:
            size = np.array([degrees] * 3 + [mm] * 3)
            for _ in range(8):
                before = value
                for axis, sign in itertools.product(range(6), (1, -1)):
                    tried = pose.copy()
                    tried[axis] += sign * size[axis]
                    if (reached := self.shared(self._posed(start, tried))) > value:
                        pose, value = tried, reached
                if value == before:
                    break
        return self._posed(start, pose)

    def refine(self, start: Affine) -> Affine:
        """Return the best placement near a good one."""
        scale = np.array([_FINE_DEGREES] * 3 + [_FINE_MM] * 3)

        def cost(pose: Pose) -> float:
            return -self.shared(self._posed(start, pose * scale))

        found = minimize(cost, np.zeros(6), method="Powell", options={"xtol": 0.1, "ftol": 1e-4, "maxiter": 3})
        return self._posed(start, np.asarray(found.x) * scale)

    def _posed(self, start: Affine, pose: Pose) -> Affine:
        """Return a placement after a rotation about the middle of the brain, and a shift."""
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("xyz", pose[:3], degrees=True).as_matrix()
        turn[:3, 3] = self.centre - turn[:3, :3] @ self.centre + pose[3:6]
        return start @ turn

    def distance_mm(self, one: Affine, other: Affine) -> float:
        """Return how far apart two placements put the brain, on average."""
        apart = apply_affine(one, self.points) - apply_affine(other, self.points)
        return float(np.linalg.norm(apart, axis=1).mean())


def _coarse(volume: Volume) -> Grid:
    """Return the grid of a scan with voxels of at least 2 mm, which begins at the same corner."""
    factors = [max(1.0, _GRID_MM / mm) for mm in volume.spacing_mm]
    i, j, k = (max(2, int(np.ceil(n / factor))) for n, factor in zip(volume.shape, factors, strict=True))
    affine = volume.affine @ np.diag([*factors, 1.0])
    affine[:3, 3] = apply_affine(volume.affine, (np.array(factors)[None] - 1) / 2)[0]
    return Grid((i, j, k), affine)
