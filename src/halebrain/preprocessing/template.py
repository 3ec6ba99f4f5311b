"""The atlas that scans are registered to: the MNI152NLin2009aSym T1 template, or one that the user gives.

Source: Fonov et al. 2009, 2011 (ICBM 2009a Nonlinear Symmetric), as nilearn's wheel carries it. Nothing is downloaded.
"""

import importlib.util
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.types import TEMPLATE_SPACE, FloatArray, MaskArray, Volume
from halebrain.io.volume import read_array, read_mask, read_volume
from halebrain.preprocessing.geometry import WORKING_CENTRE_MM, Grid, apply_affine, resample

_SPACING_MM = 2
_PLAUSIBLE_ML = (200.0, 2500.0)
_BRAIN_FROM = 0.2
"""Share of the maximum of the T1 template from which a voxel is brain."""


@dataclass(frozen=True)
class Template:
    """A stripped brain that others are registered to, in [0, 1] on a 2 mm RAS grid.

    `centre_mm` is the world point that becomes the centre of the working grid.
    """

    image: Volume
    mask: MaskArray
    centre_mm: tuple[float, float, float]

    @cached_property
    def rim(self) -> npt.NDArray[np.int64]:
        """Voxels of the brain and of a rim of 6 mm around it, `(n, 3)`."""
        return np.argwhere(ndimage.binary_dilation(self.mask, iterations=3))

    @cached_property
    def brain_centre(self) -> npt.NDArray[np.float64]:
        """Centre of the brain: world point, RAS, mm."""
        centre: npt.NDArray[np.float64] = apply_affine(self.image.affine, np.argwhere(self.mask).mean(axis=0)[None])[0]
        return centre


def find_template(path: Path | None = None, mask: Path | None = None) -> Template:
    """Return the atlas of a configuration; no `path` = the MNI template, no `mask` = the brain is what is not 0."""
    if path is None:
        return _mni()
    return _read_template(path, mask, tuple(one.stat().st_mtime_ns for one in (path, mask) if one and one.exists()))


@lru_cache(maxsize=1)
def _mni() -> Template:
    image, brain = load_template(_SPACING_MM)
    inside = np.where(brain, image.data, 0).astype(np.float32)
    return Template(Volume(inside, image.affine, name=TEMPLATE_SPACE), brain, WORKING_CENTRE_MM)


def template_on(grid: Grid, atlas: Template | None = None) -> tuple[FloatArray, MaskArray]:
    """Return the atlas (`None` = the MNI template) and its brain mask on a grid of its space; not to write into."""
    if atlas is not None:
        return _on(atlas, grid)
    return _mni_on(grid.shape, tuple(float(value) for value in grid.affine.ravel()))


@lru_cache(maxsize=4)
def _mni_on(shape: tuple[int, int, int], affine: tuple[float, ...]) -> tuple[FloatArray, MaskArray]:
    """Return the MNI template on a grid; every scan of a run asks for the same."""
    image, mask = _on(find_template(), Grid(shape, np.array(affine).reshape(4, 4)))
    image.setflags(write=False)
    mask.setflags(write=False)
    return image, mask


def _on(atlas: Template, grid: Grid) -> tuple[FloatArray, MaskArray]:
    source = Grid(atlas.image.shape, atlas.image.affine)
    return resample(atlas.image.data, source, grid), resample(atlas.mask.astype(np.float32), source, grid) > 0.5


@lru_cache(maxsize=4)
def load_template(spacing_mm: int = _SPACING_MM) -> tuple[Volume, MaskArray]:
    """Return the stripped T1 template and its brain mask at `spacing_mm`."""
    data, grid = _read_map("t1")
    if spacing_mm != 1:
        data, grid = _at_spacing(data, grid, spacing_mm)
    return Volume(data, grid.affine, name=TEMPLATE_SPACE), data > _BRAIN_FROM


@dataclass(frozen=True)
class TissueMaps:
    """The template's shares of grey and white matter in [0, 1], and its brain, on its own grid of 1 mm."""

    grey: FloatArray
    white: FloatArray
    brain: MaskArray
    grid: Grid


def load_tissue_maps() -> TissueMaps:
    """Return the tissues of the template."""
    t1, grid = _read_map("t1")
    return TissueMaps(_read_map("gm")[0], _read_map("wm")[0], t1 > _BRAIN_FROM, grid)


def _read_map(name: Literal["t1", "gm", "wm"]) -> tuple[FloatArray, Grid]:
    """Return a map of the template, as shares of its maximum, on its grid of 1 mm.

    The files are read where nilearn has them: importing its loaders takes more than a second.
    """
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("the template needs the package nilearn", remedy="pip install nilearn")
    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    data, affine = read_array(Path(spec.submodule_search_locations[0]) / "datasets" / "data" / file)
    i, j, k = data.shape
    # The order of voxels in memory is that of the file, and sums depend on it.
    return np.asfortranarray(data / data.max(), dtype=np.float32), Grid((i, j, k), affine)


def _at_spacing(data: FloatArray, grid: Grid, spacing_mm: int) -> tuple[FloatArray, Grid]:
    """Return a map of 1 mm at another spacing from the same corner, by cubic splines, within its own range."""
    i, j, k = (int(np.ceil((n - 1) / spacing_mm)) + 1 for n in data.shape)
    coarse = np.zeros((i, j, k), dtype=np.float32, order="F")
    ndimage.affine_transform(data, np.full(3, float(spacing_mm)), output_shape=coarse.shape, output=coarse, order=3)
    np.clip(coarse, min(data.min(), 0), max(data.max(), 0), out=coarse)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = grid.affine[:3, 3]
    return coarse, Grid(coarse.shape, affine)


@lru_cache(maxsize=2)
def _read_template(path: Path, mask_path: Path | None, _written: tuple[int, ...]) -> Template:
    volume = read_volume(path)
    found = volume.data != 0 if mask_path is None else read_mask(mask_path, volume)
    brain: MaskArray = ndimage.binary_fill_holes(found)
    source = Grid(volume.shape, volume.affine)
    size = float(brain.sum()) * source.voxel_mm3 / 1000
    if not _PLAUSIBLE_ML[0] <= size <= _PLAUSIBLE_ML[1]:
        raise DataError(
            "an atlas must be a stripped brain of 200 to 2500 ml, or come with its brain mask",
            received=f"{size:.0f} ml",
            where=path,
            remedy="give template_mask, or strip it",
        )
    grid = _grid_around(brain, source)
    low, high = (float(v) for v in np.percentile(volume.data[brain], [0.5, 99.5]))
    if not high > low:
        raise DataError(
            "intensities of an atlas must vary",
            received=f"{low:g} everywhere",
            where=path,
            remedy="give an image instead of a mask",
        )
    inside = np.where(brain, np.clip((volume.data - low) / (high - low), 0, 1), 0).astype(np.float32)
    image, mask = resample(inside, source, grid), resample(brain.astype(np.float32), source, grid) > 0.5
    x, y, z = grid.affine[:3, 3] + _SPACING_MM * (np.array(grid.shape) - 1) / 2
    name = Volume(np.where(mask, image, 0).astype(np.float32), grid.affine, name=str(path))
    return Template(name, mask, (float(x), float(y), float(z)))


def _grid_around(brain: MaskArray, source: Grid, *, margin_mm: float = 12.0) -> Grid:
    """Return the axis-aligned 2 mm RAS grid around a brain, which lies in its middle."""
    world = np.argwhere(brain) @ source.affine[:3, :3].T + source.affine[:3, 3]
    low, high = world.min(axis=0) - margin_mm, world.max(axis=0) + margin_mm
    i, j, k = (int(n) for n in np.ceil((high - low) / _SPACING_MM) + 1)
    affine = np.diag([_SPACING_MM, _SPACING_MM, _SPACING_MM, 1.0])
    affine[:3, 3] = (low + high) / 2 - _SPACING_MM * (np.array([i, j, k]) - 1) / 2
    return Grid((i, j, k), affine)
