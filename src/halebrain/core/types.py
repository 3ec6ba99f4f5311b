"""The typed things that travel between floors, and the axis conventions they share.

A volume is an array `(i, j, k)` with a voxel-to-world affine in millimetres (RAS+, as NIfTI has it). On the working
grid `i` runs to the right, `j` to the front and `k` up, so axial slices lie along axis `SLICE_AXIS`. A batch
of slices is a tensor `(b, 1, h, w)` with `h = i` and `w = j`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
MaskArray = npt.NDArray[np.bool_]
Affine = npt.NDArray[np.float64]

SLICE_AXIS = 2
"""The axis of a working-grid volume along which axial slices lie."""

TEMPLATE_SPACE = "MNI152NLin2009aSym"
"""BIDS name of the atlas space of the working grid."""


@dataclass(frozen=True)
class Volume:
    """One three-dimensional scan.

    Args:
        data: Intensities, shape `(i, j, k)`, float32, finite.
        affine: Voxel-to-world matrix `(4, 4)` in mm, RAS+, invertible.
        name: Where it came from; used in messages and in provenance.
        notes: What had to be assumed to read it, one sentence each.
    """

    data: FloatArray
    affine: Affine
    name: str = "volume"
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        i, j, k = self.data.shape
        return i, j, k

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each axis in mm."""
        x, y, z = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z


@dataclass(frozen=True)
class ScanResult:
    """What one scan gives, every map on the native grid of the input.

    Args:
        score: Anomaly score in [0, 1], higher = more anomalous, 0 outside the brain.
        probability: The segmenter's probability in [0, 1], mean over levels.
        reconstruction: Pseudo-healthy scan in the intensity units of the input.
        residual_map: How much the reconstruction deviates, in [0, 1], as it enters the score.
        residual: Input minus reconstruction, in the normalised units of the working grid (signed).
        uncertainty: Standard deviation of the score over levels and draws.
        brain_mask: Where the score is defined.
        affine: Voxel-to-world matrix of the native grid.
        qc: Quality-control numbers and flags.
    """

    score: FloatArray
    probability: FloatArray
    reconstruction: FloatArray
    residual_map: FloatArray
    residual: FloatArray
    uncertainty: FloatArray
    brain_mask: MaskArray
    affine: Affine
    qc: dict[str, Any] = field(default_factory=dict)
