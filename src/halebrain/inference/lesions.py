"""The lesion table: one row for each connected component of the anomaly mask."""

import dataclasses
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from halebrain.core.errors import DataError
from halebrain.core.mask import Cut, to_mask
from halebrain.core.types import Affine, FloatArray, Lesion, MaskArray, ScanResult, voxel_mm3_of
from halebrain.inference.regions import outside_cerebrum, region_of
from halebrain.io.tables import MISSING, read_table, tsv_text
from halebrain.preprocessing.geometry import apply_affine

EDGE_MM = 4.0
"""Voxels of a finding within this distance of the surface of the brain mask are at its edge."""

COLUMNS: dict[str, dict[str, str]] = {
    "lesion": {"Description": "Number of the finding, the largest first."},
    "volume_ml": {"Description": "Volume on the grid of the scan.", "Units": "mL"},
    "peak_score": {"Description": "Highest anomaly score in it, 0 to 1."},
    "mean_score": {"Description": "Mean anomaly score in it, 0 to 1."},
    "x_mni_mm": {"Description": "Centre of mass in the space of the template, to the right.", "Units": "mm"},
    "y_mni_mm": {"Description": "Centre of mass in the space of the template, to the front.", "Units": "mm"},
    "z_mni_mm": {"Description": "Centre of mass in the space of the template, up.", "Units": "mm"},
    "i": {"Description": "First voxel index of the peak on the grid of the scan, counted from 0."},
    "j": {"Description": "Second voxel index of the peak."},
    "k": {"Description": "Third voxel index of the peak."},
    "region": {"Description": "Approximate region, by coarse rules of coordinates and tissue; not from an atlas."},
    "edge_share": {"Description": "Share of its voxels within 4 mm of the surface of the brain mask, 0 to 1."},
    "below_share": {
        "Description": "Share of its voxels outside the template's brain or below the lowest slice of its cerebrum, 0 "
        "to 1; n/a where the scan is not registered to the MNI template."
    },
}
"""Description of each column, for the BIDS sidecar of the table."""


def lesion_table(
    mask: MaskArray,
    score: FloatArray,
    affine: Affine,
    template_to_native: Affine,
    *,
    regions: bool = False,
    brain_mask: MaskArray | None = None,
) -> list[Lesion]:
    """Return the connected components (26 neighbours) of a native-grid mask, largest first.

    Args:
        mask: Bool, `(i, j, k)`.
        score: Anomaly score, same shape.
        affine: Voxel-to-world matrix.
        template_to_native: World-to-world matrix.
        regions: Add approximate regions and `below_share`, for the MNI template only.
        brain_mask: Bool, same shape, for `edge_share`; `None` = it is not measured.
    """
    if not mask.any():
        return []
    # Findings are small: only their voxels are processed, in the order of the grid.
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    labels, count = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    owner, values = labels[mask[box]], score[mask]
    places = np.argwhere(mask[box]) + [edge.start for edge in box]
    index = np.arange(1, count + 1)
    sizes = np.bincount(owner, minlength=count + 1)[1:]
    voxel_ml = voxel_mm3_of(affine) / 1000
    centres = np.stack([ndimage.mean(places[:, axis], owner, index) for axis in range(3)], axis=1)
    peaks = places[np.ravel(ndimage.maximum_position(values, owner, index))]
    highest, mean = ndimage.maximum(values, owner, index), ndimage.mean(values, owner, index)
    pieces = np.split(places[np.argsort(owner, kind="stable")], np.cumsum(sizes)[:-1])
    to_template = np.asarray(np.linalg.inv(template_to_native), dtype=np.float64) @ affine
    in_template = apply_affine(to_template, centres)
    edges: Sequence[float | None] = [None] * count
    if brain_mask is not None:
        near = _is_near_surface(places, brain_mask, affine)
        edges = (np.bincount(owner, weights=near, minlength=count + 1)[1:] / sizes).tolist()
    lesions = []
    for number, n in enumerate(np.argsort(-sizes, kind="stable"), start=1):
        x, y, z = (round(float(v), 1) for v in in_template[n])
        i, j, k = (int(v) for v in peaks[n])
        volume = round(float(sizes[n]) * voxel_ml, 4)
        peak, average = round(float(highest[n]), 4), round(float(mean[n]), 4)
        region, below, edge = "", None, edges[n]
        if regions:
            inside_template = apply_affine(to_template, pieces[n])
            region, below = region_of(inside_template), round(float(outside_cerebrum(inside_template).mean()), 3)
        edge = None if edge is None else round(float(edge), 3)
        lesions.append(Lesion(number, volume, peak, average, x, y, z, i, j, k, region, edge, below))
    return lesions


def _is_near_surface(places: npt.NDArray[np.intp], brain_mask: MaskArray, affine: Affine) -> MaskArray:
    """Return which voxels `(n, 3)` have their centre within `EDGE_MM` of a face between brain and background.

    The end of the field of view is background.
    """
    box = ndimage.find_objects(brain_mask.astype(np.uint8))[0]
    start = [edge.start for edge in box]
    brain = np.pad(brain_mask[box], 1).astype(np.int8)
    faces = []
    for axis in range(3):
        middle = np.argwhere(np.diff(brain, axis=axis)).astype(np.float64)
        middle[:, axis] += 0.5
        faces.append(middle + start - 1)
    surface = KDTree(apply_affine(affine, np.concatenate(faces)))
    distance, _ = surface.query(apply_affine(affine, places.astype(np.float64)), distance_upper_bound=EDGE_MM + 1e-6)
    near: MaskArray = np.isfinite(distance)
    return near


def total_ml(lesions: Sequence[Lesion]) -> float:
    """Return the volume of all lesions in ml."""
    return round(sum(lesion.volume_ml for lesion in lesions), 3)


def mark_lesions(
    result: ScanResult, cut: Cut, template_to_native: Affine, *, regions: bool
) -> tuple[MaskArray, list[Lesion]]:
    """Return the anomaly mask inside the brain, and its lesion table (see `lesion_table`)."""
    mask = result.brain_mask & to_mask(result.score, cut, voxel_mm3=voxel_mm3_of(result.affine))
    brain, affine = result.brain_mask, result.affine
    return mask, lesion_table(mask, result.score, affine, template_to_native, regions=regions, brain_mask=brain)


def lesions_tsv(lesions: Sequence[Lesion]) -> str:
    """Return the table as TSV text, with its header even where there is no row."""
    rows = ([MISSING if value is None else value for value in vars(lesion).values()] for lesion in lesions)
    return tsv_text([[f.name for f in fields(Lesion)], *rows])


def read_lesions(path: Path) -> list[Lesion]:
    """Return the findings of a written table."""
    remedy = "run halebrain detect --overwrite"
    rows = read_table(path, what="a lesion table", remedy=remedy).rows
    numbers = [column for column in fields(Lesion) if column.default is dataclasses.MISSING]
    try:
        return [
            Lesion(
                **{c.name: c.type(row[c.name]) for c in numbers},  # type: ignore[operator]
                region=row.get("region") or "",
                edge_share=_share(row.get("edge_share")),
                below_share=_share(row.get("below_share")),
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "a lesion table must have every column", received=repr(error), where=path, remedy=remedy
        ) from error


def _share(cell: str | None) -> float | None:
    """Return a share; `None` where it was not measured, and in tables of earlier versions, which lack it."""
    return None if cell in (None, "", MISSING) else float(cell)
