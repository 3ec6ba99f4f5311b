"""Starts of a registration: aligned centroids, rotations about all three axes, the best few by mutual information.

Engines are local optimisers: from a head that is rotated by 30°, they usually end in
a wrong optimum. Mutual information is taken from sparse points, fast enough for hundreds of placements.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from halebrain.core.parallel import map_threads
from halebrain.core.types import Affine, FloatArray
from halebrain.preprocessing.geometry import apply_affine
from halebrain.preprocessing.quality.measurements import (
    bins_of,
    information_of_bins,
    normalised_mutual_information,
)
from halebrain.preprocessing.registration.base import BACKGROUND_STEP, Brain, template_brain
from halebrain.preprocessing.template import Template

_TURNS_DEG = (20.0, 40.0)
"""Rotations about each axis, both ways, that a placement is compared with. At 15° the right one shares 1.6 to 2.3 times
as much, at 20° 1.9 to 3; smaller rotations are within the error of the engines."""
_LEAST_COMMON = 0.2
_ANGLES_DEG = (-40.0, -20.0, 0.0, 20.0, 40.0)
"""Rotations about the left–right, back–front and foot–head axes that are combined."""
_EVERY = 60
_BINS = 32
_STEPS = ((10.0, 8.0, 0.08), (5.0, 4.0, 0.04), (2.5, 2.0, 0.02))
"""Degrees, mm and (natural logarithm of) scale by which a start is improved in turn."""
_FINE_STEPS = ((10.0, 4.0, 0.02), (4.0, 2.0, 0.01), (1.0, 1.0, 0.01))
_APART_DEG = 15.0
"""Two starts nearer than this end in the same place."""


@dataclass(frozen=True)
class SharedInformation:
    """Normalised mutual information (Studholme et al. 1999) of a brain and the atlas, at any placement.

    Args:
        brain: The moving brain.
        points: World points (RAS, mm) of the atlas, `(n, 3)`: its brain and a rim around it.
        values: The atlas there, 0 outside of its brain.
        centre: Centre of the atlas's brain, mm.
    """

    brain: Brain
    points: npt.NDArray[np.float64]
    values: FloatArray
    centre: npt.NDArray[np.float64]

    @classmethod
    def of(cls, brain: Brain, template: Template, *, every: int) -> "SharedInformation":
        """Return it for a brain and an atlas, from one voxel of the atlas in `every`."""
        index = template.rim[::every]
        values = template_brain(template).data[tuple(index.T)]
        return cls(brain, apply_affine(template.image.affine, index.astype(np.float64)), values, template.brain_centre)

    @cached_property
    def _bins(self) -> npt.NDArray[np.int64]:
        """Which bin the atlas lies in at each point."""
        return bins_of(self.values, _BINS)

    @cached_property
    def _moving(self) -> torch.Tensor:
        """The moving brain as torch samples it."""
        return torch.from_numpy(self.brain.image.data.astype(np.float64))[None, None]

    @cached_property
    def _to_unit(self) -> Affine:
        """World of the moving brain, mm, to torch's coordinates, which go from −1 to 1."""
        shape = np.array(self.brain.image.shape, dtype=np.float64)
        to_unit = np.diag([*(2 / (shape - 1)), 1.0])
        to_unit[:3, 3] = -1
        matrix: Affine = to_unit @ np.linalg.inv(self.brain.image.affine)
        return matrix

    def at(self, template_to_native: Affine, *, within: bool = False) -> float:
        """Return what brain and atlas share beyond chance: 0 = nothing, 1 = each determines the other.

        `within`: only where both have brain, so that the outline has no say.
        """
        here = self._moving_at(template_to_native)
        if not within:
            return information_of_bins(bins_of(here, _BINS), self._bins, _BINS) - 1
        where = (here > BACKGROUND_STEP / 2) & (self.values > 0)
        # A placement that leaves hardly any of the brain on the atlas shares nothing.
        if where.mean() < _LEAST_COMMON:
            return 0.0
        return normalised_mutual_information(here, self.values, where, bins=_BINS) - 1

    def _moving_at(self, template_to_native: Affine) -> FloatArray:
        """Return the moving brain at the points, by trilinear interpolation in double precision, 0 beyond its grid."""
        # torch counts the last axis first; it takes two thirds of the time of SciPy.
        matrix = (self._to_unit @ template_to_native)[[2, 1, 0, 3]]
        grid = torch.from_numpy(apply_affine(matrix, self.points))[None, None, None]
        found = F.grid_sample(self._moving, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        return found.numpy().ravel().astype(np.float32)

    def margin(self, template_to_native: Affine) -> float:
        """Return what they share at a placement over the most that they share when the atlas is turned there.

        An affine registration fits a rotated head nearly as well, as brains are egg-shaped. The interior
        shows the difference. An inverted scan is detected by another figure (`orientation_check.py`).
        """
        places = [template_to_native, *(template_to_native @ turn for turn in self._turns())]
        here, *turned = map_threads(partial(self.at, within=True), places, threads=torch.get_num_threads())
        return here / max(*turned, 1e-9)

    def _turns(self) -> list[Affine]:
        return [
            about(Rotation.from_rotvec(sign * angle * axis, degrees=True).as_matrix(), self.centre)
            for angle in _TURNS_DEG
            for axis in np.eye(3)
            for sign in (1, -1)
        ]


def about(linear: npt.NDArray[np.float64], centre: npt.NDArray[np.float64]) -> Affine:
    """Return the matrix `(4, 4)` that applies `linear` `(3, 3)` about a point."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre - linear @ centre
    return matrix


def find_starts(brain: Brain, template: Template, *, count: int) -> list[Affine]:
    """Return the `count` most promising placements (template-to-native, mm, RAS), best first.

    They are rotations, shifts and one scale, from the centroids and volumes of the masks, which may be too wide or too
    tight. The same brain gives the same starts.
    """
    shared = SharedInformation.of(brain, template, every=_EVERY)
    here = apply_affine(brain.image.affine, np.argwhere(brain.mask).mean(axis=0)[None])[0]
    size = float(np.log(brain.mask.sum() / template.mask.sum()) / 3)

    def placed(pose: npt.NDArray[np.float64]) -> Affine:
        matrix = np.eye(4)
        matrix[:3, :3] = np.exp(pose[6]) * _turn(*pose[:3].tolist())
        matrix[:3, 3] = here + pose[3:6] - matrix[:3, :3] @ shared.centre
        return matrix

    known: dict[bytes, float] = {}

    def measure(pose: npt.NDArray[np.float64]) -> float:
        # The last round of a climb comes back to places where it has been.
        key = pose.tobytes()
        if key not in known:
            known[key] = shared.at(placed(pose))
        return known[key]

    def improve(pose: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        best, value = pose, measure(pose)
        for degrees, mm, log_scale in _STEPS:
            best, value = _climb(best, value, np.array([degrees] * 3 + [mm] * 3 + [log_scale]), measure)
        return value, best

    poses = [np.array([*angles, 0.0, 0.0, 0.0, size]) for angles in itertools.product(_ANGLES_DEG, repeat=3)]
    ranked = sorted(poses, key=lambda pose: -measure(pose))
    improved = map_threads(improve, ranked[: 2 * count], threads=torch.get_num_threads())
    improved.sort(key=lambda found: -found[0])
    chosen: list[npt.NDArray[np.float64]] = []
    for _, pose in improved:
        if len(chosen) < count and all(_angle_deg(pose, other) > _APART_DEG for other in chosen):
            chosen.append(pose)
    return [placed(pose) for pose in chosen]


def fit_inside(shared: SharedInformation, template_to_native: Affine) -> Affine:
    """Return a placement, turned, moved and scaled to where brain and atlas share most inside, whatever the outline."""

    def moved(pose: npt.NDArray[np.float64]) -> Affine:
        matrix = about(np.exp(pose[6]) * _turn(*pose[:3].tolist()), shared.centre)
        matrix[:3, 3] += pose[3:6]
        return template_to_native @ matrix

    pose = np.zeros(7)
    value = shared.at(template_to_native, within=True)
    for degrees, mm, log_scale in _FINE_STEPS:
        steps = np.array([degrees] * 3 + [mm] * 3 + [log_scale])
        pose, value = _climb(pose, value, steps, lambda p: shared.at(moved(p), within=True))
    return moved(pose)


@lru_cache(maxsize=1024)
def _turn(x: float, y: float, z: float) -> npt.NDArray[np.float64]:
    """Return the rotation by three angles in degrees, `(3, 3)`; most steps of a search change none of them."""
    turn: npt.NDArray[np.float64] = Rotation.from_euler("xyz", [x, y, z], degrees=True).as_matrix()
    return turn


def _climb(
    pose: npt.NDArray[np.float64],
    value: float,
    steps: npt.NDArray[np.float64],
    measure: Callable[[npt.NDArray[np.float64]], float],
) -> tuple[npt.NDArray[np.float64], float]:
    """Move along one parameter at a time while that helps, at most five rounds."""
    for _ in range(5):
        before = value
        for axis, sign in itertools.product(range(7), (1, -1)):
            tried = pose.copy()
            tried[axis] += sign * steps[axis]
            found = measure(tried)
            if found > value:
                pose, value = tried, found
        if value == before:
            break
    return pose, value


def _angle_deg(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    turn = Rotation.from_euler("xyz", one[:3], degrees=True) * Rotation.from_euler("xyz", other[:3], degrees=True).inv()
    return float(np.degrees(turn.magnitude()))
