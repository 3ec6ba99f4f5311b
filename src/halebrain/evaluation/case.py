"""One scan to evaluate: prediction and reference on one grid, with shared intermediate results."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from halebrain.core.mask import Cut, to_mask
from halebrain.core.types import Affine, FloatArray, MaskArray, spacing_of
from halebrain.evaluation.curve import Curve
from halebrain.io.manifest import ScanRecord

_EVERY_NEIGHBOUR = np.ones((3, 3, 3), dtype=bool)
_FACES = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True)
class Case:
    """A graded map, a mask, or both, and the reference.

    Args:
        record: What the scan is; its subject is the unit of resampling.
        scan_id: Name of the scan.
        reference: True lesion, bool `(i, j, k)`.
        region: Where voxels count, bool, same shape: the brain, and any lesion outside of it.
        spacing_mm: Voxel size.
        score: Graded map, higher = more anomalous, same shape; `None` where there is only a mask.
        mask: Prediction at a frozen threshold; `None` where there is none.
        axial_axis: The axis along which axial slices lie.
        near_ventricles: Voxels in or near the template's ventricles, bool, same shape; `None` = not known.
    """

    record: ScanRecord
    scan_id: str
    reference: MaskArray
    region: MaskArray
    spacing_mm: tuple[float, float, float]
    score: FloatArray | None = None
    mask: MaskArray | None = None
    axial_axis: int = 2
    near_ventricles: MaskArray | None = None

    @classmethod
    def of(
        cls,
        record: ScanRecord,
        *,
        reference: MaskArray,
        brain_mask: MaskArray,
        affine: Affine,
        score: FloatArray | None = None,
        mask: MaskArray | None = None,
        cut: Cut | None = None,
        near_ventricles: MaskArray | None = None,
    ) -> "Case":
        """Return the case of a scan; arrays `(i, j, k)` of one shape. A lesion outside the brain counts as missed.

        `mask` is the prediction where it is a mask in itself, `cut` how it is made of `score`; without both there are
        no metrics on masks.
        """
        x, y, z = spacing_of(affine)
        if cut is not None and score is not None:
            mask = to_mask(score, cut, voxel_mm3=float(np.prod((x, y, z))))
        return cls(
            record=record,
            scan_id=record.scan_id,
            reference=reference,
            region=brain_mask | reference,
            spacing_mm=(x, y, z),
            score=score,
            mask=mask,
            axial_axis=axial_axis(affine),
            near_ventricles=near_ventricles,
        )

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm)) / 1000

    @cached_property
    def labels(self) -> MaskArray:
        """The reference over the voxels that count, 1-D."""
        labels: MaskArray = self.reference[self.region]
        return labels

    @cached_property
    def has_reference(self) -> bool:
        """Whether there is a lesion to find."""
        return bool(self.labels.any())

    @cached_property
    def predicted(self) -> MaskArray:
        """The mask, where voxels count."""
        assert self.mask is not None, "metrics that need a mask are asked only where there is one"
        return self.mask & self.region

    @cached_property
    def values(self) -> FloatArray:
        """The scores of the voxels that count, 1-D."""
        assert self.score is not None, "metrics that need a score are asked only where there is one"
        return np.asarray(self.score[self.region], dtype=np.float32)

    @cached_property
    def curve(self) -> Curve:
        """Every operating point of the graded map."""
        return Curve.of(self.values, self.labels)

    @cached_property
    def counts(self) -> tuple[int, int, int, int]:
        """True positives, false positives, missed, and true negatives of the mask, in voxels."""
        predicted = self.predicted[self.region]
        true = int((predicted & self.labels).sum())
        false, missed = int(predicted.sum()) - true, int(self.labels.sum()) - true
        return true, false, missed, predicted.size - true - false - missed

    @cached_property
    def reference_lesions(self) -> tuple[npt.NDArray[np.int32], int]:
        """The true lesions, numbered from 1 (26 neighbours), and how many."""
        return components(self.reference & self.region)

    @cached_property
    def predicted_lesions(self) -> tuple[npt.NDArray[np.int32], int]:
        """The predicted lesions, numbered from 1 (26 neighbours), and how many."""
        return components(self.predicted)

    @cached_property
    def surface_distances_mm(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Distances from the surface of the mask to that of the reference, and back; neither may be empty."""
        return surface_distances_mm(self.predicted, self.reference & self.region, self.spacing_mm)


def axial_axis(affine: Affine) -> int:
    """Return the array axis that runs most nearly from foot to head."""
    return int(np.abs(affine[2, :3] / np.linalg.norm(affine[:3, :3], axis=0)).argmax())


def components(mask: MaskArray) -> tuple[npt.NDArray[np.int32], int]:
    """Return connected components (26 neighbours), numbered from 1, and how many there are."""
    labelled, count = ndimage.label(mask, structure=_EVERY_NEIGHBOUR, output=np.int32)
    return labelled, int(count)


def bounding_box(mask: MaskArray, margin: int = 0) -> tuple[slice, slice, slice]:
    """Return the box around the true voxels, `margin` voxels wider where the array allows it."""
    sides = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        sides.append(slice(max(int(inside[0]) - margin, 0), int(inside[-1]) + 1 + margin))
    return sides[0], sides[1], sides[2]


def surface_distances_mm(
    first: MaskArray, second: MaskArray, spacing_mm: tuple[float, float, float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the distance of each surface voxel of one mask to the nearest of the other, both ways.

    A surface voxel is one with a face towards the outside, as in MONAI.
    """
    points = [_surface_points(mask) * np.asarray(spacing_mm) for mask in (first, second)]
    trees = [KDTree(p) for p in points]
    return trees[1].query(points[0], workers=-1)[0], trees[0].query(points[1], workers=-1)[0]


def _surface_points(mask: MaskArray) -> npt.NDArray[np.intp]:
    """Return the indices of voxels with a face towards the outside, `(n, 3)`."""
    box = bounding_box(mask, margin=1)
    edge = mask[box] & ~ndimage.binary_erosion(mask[box], _FACES)
    points: npt.NDArray[np.intp] = np.argwhere(edge) + np.array([side.start for side in box])
    return points
