"""Types shared by all layers, and their axis conventions.

A volume is an array `(i, j, k)` with a voxel-to-world affine in millimetres (RAS+, as NIfTI has it). On the working
grid `i` runs to the right, `j` to the front and `k` up, so axial slices lie along axis `SLICE_AXIS`. A batch
of slices is a tensor `(b, 1, h, w)` with `h = i` and `w = j`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
MaskArray = npt.NDArray[np.bool_]
Affine = npt.NDArray[np.float64]

SLICE_AXIS = 2
"""The axis of a working-grid volume along which axial slices lie."""

LEARNED_BRAIN_PIXELS = 100
"""Minimum number of brain pixels of a slice (4 cm² at 2 mm): smaller ones are not used in training, nor as the
neighbour of another slice, in training and after."""

TEMPLATE_SPACE = "MNI152NLin2009aSym"
"""BIDS name of the atlas space of the working grid."""
SCORE_STEP = 1 / 65535
"""Step of a score in its file, 16 bits over [0, 1]: the smallest above 0."""


@dataclass(frozen=True)
class Placement:
    """Where a NIfTI header puts its voxels: twice, and the two need not agree.

    Args:
        fields: Those fields of the header that say so, in mm, by name.
        sform: Voxel-to-world matrix of the sform; `None` where its code is 0.
        qform: That of the qform; `None` where its code is 0 or it cannot be read.
    """

    fields: Mapping[str, tuple[float, ...]]
    sform: Affine | None
    qform: Affine | None

    def distance_mm(self, shape: tuple[int, ...]) -> float:
        """Return how far apart the two put a corner of the field of view at most; 0 where there is one only."""
        if self.sform is None or self.qform is None:
            return 0.0
        return float(np.linalg.norm(corners(shape) @ (self.sform - self.qform).T, axis=1).max())


def corners(shape: tuple[int, ...]) -> Affine:
    """Return the corner voxels of a grid of three axes in homogeneous coordinates, `(8, 4)`."""
    ends = [(0.0, float(size - 1)) for size in shape[:3]]
    return np.array([(i, j, k, 1.0) for i in ends[0] for j in ends[1] for k in ends[2]])


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """Return the voxel size along each axis in mm, from a voxel-to-world matrix."""
    x, y, z = (float(v) for v in np.linalg.norm(affine[:3, :3], axis=0))
    return x, y, z


def voxel_mm3_of(affine: Affine) -> float:
    """Return the volume of a voxel in mm³, from a voxel-to-world matrix."""
    return abs(float(np.linalg.det(affine[:3, :3])))


@dataclass(frozen=True)
class Volume:
    """One three-dimensional scan.

    Args:
        data: Intensities, shape `(i, j, k)`, float32, finite.
        affine: Voxel-to-world matrix `(4, 4)` in mm, RAS+, invertible.
        name: Its source; used in messages and in provenance.
        notes: What had to be assumed to read it, one sentence each.
        placement: How its NIfTI header places it; `None` for other formats.
    """

    data: FloatArray
    affine: Affine
    name: str = "volume"
    notes: tuple[str, ...] = ()
    placement: Placement | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        i, j, k = self.data.shape
        return i, j, k

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each axis in mm."""
        return spacing_of(self.affine)


@dataclass(frozen=True)
class ScanResult:
    """Maps of one scan, on the native grid of the input.

    Args:
        score: Anomaly score in [0, 1], higher = more anomalous, 0 outside the brain.
        probability: The segmenter's probability in [0, 1], mean over levels.
        reconstruction: Pseudo-healthy scan in the intensity units of the input.
        residual: Input minus reconstruction, in the normalised units of the working grid (signed).
        uncertainty: Standard deviation of the score over levels and draws; of the probability where the residual is
            evidence.
        brain_mask: Where the score is defined.
        affine: Voxel-to-world matrix of the native grid.
        placement: How the scan's NIfTI header places it; its maps repeat that. `None` for other formats.
    """

    score: FloatArray
    probability: FloatArray
    reconstruction: FloatArray
    residual: FloatArray
    uncertainty: FloatArray
    brain_mask: MaskArray
    affine: Affine
    placement: Placement | None = None


@dataclass(frozen=True)
class Lesion:
    """One finding.

    Args:
        lesion: Its number, largest first, as in the label map.
        volume_ml: Volume on the native grid.
        peak_score: Highest score in it.
        mean_score: Mean score in it.
        x_mni_mm: Centre of mass in template space, to the right.
        y_mni_mm: To the front.
        z_mni_mm: Up.
        i: Voxel of the peak on the native grid.
        j: Second index.
        k: Third index.
        region: Approximate region (`inference.regions`); empty if the atlas is not the MNI template.
        edge_share: Share of its voxels within 4 mm of the surface of the brain mask, 0 to 1; `None` = not measured.
        below_share: Share of its voxels outside the template's brain or below its cerebrum, 0 to 1; `None` = not known.
    """

    lesion: int
    volume_ml: float
    peak_score: float
    mean_score: float
    x_mni_mm: float
    y_mni_mm: float
    z_mni_mm: float
    i: int
    j: int
    k: int
    region: str = ""
    edge_share: float | None = None
    below_share: float | None = None

    @property
    def peak(self) -> tuple[int, int, int]:
        """Voxel of the peak."""
        return self.i, self.j, self.k
