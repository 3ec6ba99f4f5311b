"""Still pictures of one scan, from the volumes that its page holds: a thumbnail, and slices side by side."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.mask import Cut
from halebrain.core.types import FloatArray
from halebrain.report.embedding import ShownVolume
from halebrain.report.figures import Panel, choose_slices, mosaic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOUND = (255, 77, 77)
_PIXEL_MM, _MOSAIC_MM = 1.25, 2.0


def thumbnail(volumes: Mapping[str, ShownVolume]) -> bytes:
    """Return a JPEG of the axial slice with most of the mask, else with the highest scores; the right on the left."""
    from matplotlib import image as writer

    mask, scan = volumes["mask"], volumes["scan"]
    weight = mask.codes if mask.codes.any() else volumes["score"].values ** 2
    index = int(weight.sum(axis=(0, 1), dtype=np.float64).argmax())
    height = (index + 0.5) * mask.spacing_mm[2]
    picture = _even(scan, height, scan.codes)
    colours = np.repeat(picture[..., None], 3, axis=2).astype(np.uint8)
    inside = _even(mask, height, mask.codes).astype(bool)
    outline = ndimage.binary_dilation(inside) & ~inside
    colours[outline] = _FOUND
    buffer = io.BytesIO()
    writer.imsave(buffer, colours, format="jpg", pil_kwargs={"quality": 82})
    return buffer.getvalue()


def _even(volume: ShownVolume, height_mm: float, data: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return an axial slice with square pixels, as radiologists hold it."""
    plane = data[:, :, min(int(height_mm / volume.spacing_mm[2]), data.shape[2] - 1)]
    for axis in (0, 1):
        length = plane.shape[axis] * volume.spacing_mm[axis]
        places = (np.arange(int(length / _PIXEL_MM)) + 0.5) * _PIXEL_MM / volume.spacing_mm[axis]
        plane = np.take(plane, np.minimum(places.astype(int), plane.shape[axis] - 1), axis=axis)
    return np.ascontiguousarray(plane[::-1, ::-1].T)


def page_mosaic(
    volumes: Mapping[str, ShownVolume],
    *,
    cut: Cut,
    title: str,
    contrasts: Mapping[str, str] | None = None,
) -> "Figure":
    """Return axial slices of everything that a page holds, on a grid of 2 mm; for pages that are made again.

    `cut` is what made the mask that is outlined. The page of an exam has `contrasts`, name of a volume → contrast: each
    is shown with the findings.
    """
    # A coarse volume may end beyond a fine one, by the rest of a voxel.
    extents = [np.multiply(volume.codes.shape, volume.spacing_mm) for volume in volumes.values()]
    counts = [max(int(edge / _MOSAIC_MM), 1) for edge in np.min(extents, axis=0)]
    shown = {name: _on_even_grid(volume, counts) for name, volume in volumes.items()}
    found = shown["mask"] > 0.5
    inside = _in_window(shown["healthy"], volumes["scan"]) > 0.02
    if contrasts:
        panels = [
            Panel(contrast, _in_window(shown[name], volumes[name]), outline=found, vmax=1.0)
            for name, contrast in contrasts.items()
        ]
        panels.append(Panel("score of the exam", shown["score"], "score", vmax=max(2 * cut.threshold, 0.2)))
    else:
        panels = _scan_panels(shown, volumes["scan"], cut.threshold)
    slices = choose_slices(inside, (shown["score"] * found) if found.any() else None)
    note = outline_note(cut, score="the score of the exam" if contrasts else "the score")
    return mosaic(panels, slices=slices, title=title, note=note)


def _in_window(data: FloatArray, shown_as: ShownVolume) -> FloatArray:
    """Return a map in [0, 1], from the darkest to the brightest that a page shows of a volume."""
    return np.asarray((data - shown_as.offset) / (255 * shown_as.scale), dtype=np.float32)


def outline_note(cut: Cut, *, score: str = "the score", name: str | None = None) -> str:
    """Return which voxels a picture outlines; `name` is that of the threshold."""
    named = f" ({name})" if name else ""
    smaller = f", without components under {cut.min_lesion_mm3:g} mm³" if cut.min_lesion_mm3 > 0 else ""
    grown = f", grown to {cut.grow_to:.3f}" if cut.grow_to is not None else ""
    return f"Outlined where {score} is at least {cut.threshold:.3f}{named}{smaller}{grown}."


def _scan_panels(shown: Mapping[str, FloatArray], shown_as: ShownVolume, threshold: float) -> list[Panel]:
    """Return what is shown of a scan alone; `shown_as` is the scan as the page has it."""
    scan, healthy = (_in_window(shown[name], shown_as) for name in ("scan", "healthy"))
    return [
        Panel("input", scan, vmax=1.0),
        Panel("pseudo-healthy", healthy, vmax=1.0),
        Panel("input − pseudo-healthy", shown["residual"], "residual", vmax=0.5),
        Panel("segmenter probability", shown["probability"], "score"),
        Panel("anomaly score", shown["score"], "score", vmax=max(2 * threshold, 0.2)),
        Panel("found", scan, outline=shown["mask"] > 0.5, vmax=1.0),
    ]


def _on_even_grid(volume: ShownVolume, counts: Sequence[int]) -> FloatArray:
    data = volume.values
    for axis, (mm, count) in enumerate(zip(volume.spacing_mm, counts, strict=True)):
        places = (np.arange(count) + 0.5) * _MOSAIC_MM / mm
        data = np.take(data, np.minimum(places.astype(int), data.shape[axis] - 1), axis=axis)
    return data
