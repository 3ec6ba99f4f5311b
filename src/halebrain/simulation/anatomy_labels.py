"""Anatomies from label maps: FreeSurfer's numbers, as SynthSeg's training maps and segmentations have them.

Numbers: FreeSurferColorLUT; those above 500 are SynthSeg's tissues outside the brain (Billot et al. 2023).
"""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.types import FloatArray, MaskArray, Volume
from halebrain.io.discovery import is_bids, scans_in
from halebrain.io.manifest import Manifest
from halebrain.io.masks import look_at_values
from halebrain.io.tree import label, summed_left_out
from halebrain.io.volume import read_array, stem_of
from halebrain.preprocessing.geometry import Grid, resample, working_grid
from halebrain.preprocessing.registration import register_to_template
from halebrain.simulation.anatomy import CSF, DEEP, GM, TISSUES, VENTRICLE, WM
from halebrain.simulation.anatomy_source import ANATOMY_SOURCES, AnatomyFile, AnatomySource
from halebrain.simulation.fields import Shape

_log = logging.getLogger(__name__)
LABELS: dict[int, tuple[int, ...]] = {
    # Lesions (25, 57) and hypointensities (77–79) of the white matter count as the white matter that was there.
    WM: (2, 7, 16, 25, 28, 41, 46, 57, 60, 77, 78, 79, 192, *range(250, 256)),
    GM: (3, 8, 17, 18, 42, 47, 53, 54, 80, 81, 82, *range(1000, 1036), *range(2000, 2036)),
    DEEP: (10, 11, 12, 13, 26, 49, 50, 51, 52, 58),
    CSF: (24, 30, 62),
    # Choroid plexus (31, 63) and what SynthSeg's maps tell apart within the ventricles (136, 137, 163, 164).
    VENTRICLE: (4, 5, 14, 15, 31, 43, 44, 63, 72, 136, 137, 163, 164),
}
OUTSIDE = (0, 85, 165, 258, 259, *range(500, 531))
"""Background, optic chiasm, skull, and what lies outside the brain."""
_T1 = {WM: 0.9, GM: 0.56, DEEP: 0.74, CSF: 0.12, VENTRICLE: 0.1}
_CLOSING_MM = 5.0
"""Half the width of a gap in the brain's surface that still belongs to it: sulci and cisterns do, as masks have it."""


@ANATOMY_SOURCES.register("labels")
class LabelAnatomies(AnatomySource):
    """Reads every label map of a folder."""

    def files(self, place: Path | Manifest) -> list[AnatomyFile]:
        """Return every volume of the folder."""
        if isinstance(place, Manifest) or not place.is_dir():
            where = place.source if isinstance(place, Manifest) else place
            raise MissingInputError("label maps must be in a folder", where=where, remedy="check the path given")
        if is_bids(place):
            raise UsageError(
                "label maps must be in their own folder",
                received="a BIDS data set",
                where=place,
                remedy="copy the label maps to a folder without other images",
            )
        found = scans_in(place, masks=True)
        if line := summed_left_out(found.left_out):
            _log.warning(line)
        if not found:
            raise MissingInputError("the folder must hold a label map", where=place, remedy="NIfTI or .mgz")
        return [AnatomyFile(label(stem_of(path)), path) for path in found]

    def read(self, file: AnatomyFile, *, shape: Shape, spacing_mm: float) -> FloatArray:
        """Register the brain of one map to the template and bring its tissues there."""
        path = file.image
        labels, affine = read_array(path)
        classes = _classes(labels, path)
        brain = _brain(classes, float(np.abs(np.linalg.det(affine[:3, :3])) ** (1 / 3)))
        native = Grid((labels.shape[0], labels.shape[1], labels.shape[2]), affine)
        classes[brain & (classes < 0)] = CSF
        t1 = np.zeros(labels.shape, dtype=np.float32)
        for tissue, value in _T1.items():
            t1[classes == tissue] = value
        registration = register_to_template(Volume(np.where(brain, t1, 0).astype(np.float32), affine), brain)
        if registration.failed:
            raise DataError("a label map must register to the template", where=path, remedy="check its orientation")
        grid, matrix = working_grid(shape, spacing_mm), registration.template_to_native
        inside = resample(brain.astype(np.float32), native, grid, target_to_source=matrix) > 0.5
        shares = [
            resample((brain & (classes == tissue)).astype(np.float32), native, grid, target_to_source=matrix)
            for tissue in range(len(TISSUES))
        ]
        tissues = np.stack(shares)
        tissues[CSF] += inside * (tissues.sum(axis=0) < 1e-3)
        return np.where(inside, tissues / np.maximum(tissues.sum(axis=0), 1e-6), 0).astype(np.float32)


def _classes(labels: FloatArray, path: Path) -> npt.NDArray[np.int8]:
    """Return the tissue of each voxel, −1 outside the brain."""
    found = look_at_values(labels, path)
    if found.fractional:
        raise DataError(
            "a label map must hold whole numbers",
            received=f"fractions in {100 * found.fractional:.0f} % of its non-zero voxels",
            where=path,
            remedy="resample it with nearest-neighbour interpolation",
        )
    whole = np.round(labels).astype(np.int64)
    values = np.unique(whole)
    of = {number: tissue for tissue, numbers in LABELS.items() for number in numbers} | dict.fromkeys(OUTSIDE, -1)
    unknown = [int(value) for value in values if int(value) not in of]
    if unknown:
        raise DataError(
            "labels must be FreeSurfer's",
            received=f"unknown {', '.join(map(str, unknown[:8]))}",
            where=path,
            remedy="give a label map of SynthSeg or FreeSurfer (aseg, aparc+aseg)",
        )
    classes = np.full(labels.shape, -1, dtype=np.int8)
    for number in values:
        classes[whole == number] = of[int(number)]
    return classes


def _brain(classes: npt.NDArray[np.int8], spacing_mm: float) -> MaskArray:
    """Return the brain with its sulci and ventricles, and a thin rim of the CSF around it."""
    solid = (classes >= 0) & (classes != CSF)
    reach = max(1, round(_CLOSING_MM / spacing_mm))
    padded = np.pad(solid, reach + 1)
    closed = ndimage.binary_closing(padded, iterations=reach)
    filled = ndimage.binary_fill_holes(closed)[tuple(slice(reach + 1, -reach - 1) for _ in range(3))]
    # A rim of CSF, as brain masks have it; what else lies between the folds is fluid too, whatever its label.
    return np.asarray(ndimage.binary_dilation(filled, iterations=max(1, round(1 / spacing_mm))), dtype=bool)
