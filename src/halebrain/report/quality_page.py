"""The page of a prepared data set: every scan on the template, outliers first, and the distribution of the figures."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import image as writer
from scipy import ndimage

from halebrain.core.about import NOTICE
from halebrain.core.files import write_text
from halebrain.core.wording import counted
from halebrain.report.dot_plot import Dot, dot_plot, how_drawn
from halebrain.report.figures import radiological
from halebrain.report.page import page_template

_TEMPLATE = (255, 180, 84)
_BRAIN = (89, 194, 255)
_SHARE = 0.75
"""How much of an edge's colour is seen over the scan."""


def quality_picture(
    image: npt.NDArray[np.floating], brain_mask: npt.NDArray[np.bool_], template: npt.NDArray[np.floating]
) -> bytes:
    """Return a JPEG with an axial, a coronal and a sagittal slice side by side, twice the grid's resolution.

    The scan is in [0, 1], RAS. The outline of the brain mask is blue, the edges of the template are orange: where they
    lie on those of the scan, it fits.
    """
    middle = [round(c) for c in ndimage.center_of_mass(brain_mask)] if brain_mask.any() else None
    i, j, k = middle or [n // 2 for n in image.shape]
    planes = [(2, k + 4), (1, j), (0, i + 4)]
    height = 2 * max(image.shape)
    tiles = []
    for axis, place in planes:
        place = min(max(place, 0), image.shape[axis] - 1)
        scan, mask, atlas = (radiological(np.take(data, place, axis=axis)) for data in (image, brain_mask, template))
        tiles.append(_padded(_drawn(scan, mask > 0.5, atlas), height))
    picture = io.BytesIO()
    writer.imsave(picture, np.concatenate(tiles, axis=1), format="jpg", pil_kwargs={"quality": 80})
    return picture.getvalue()


def _drawn(
    scan: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_], atlas: npt.NDArray[np.floating]
) -> npt.NDArray[np.uint8]:
    scan, atlas = (ndimage.zoom(np.asarray(data, dtype=np.float32), 2, order=1) for data in (scan, atlas))
    inside = np.kron(mask, np.ones((2, 2), dtype=bool))
    colours = np.repeat((255 * np.clip(scan, 0, 1))[..., None], 3, axis=2)
    strength = ndimage.gaussian_gradient_magnitude(atlas, 1.5)
    edges = strength > np.percentile(strength, 84)
    # Thin edges: only where the gradient is largest across them.
    edges &= strength >= ndimage.maximum_filter(strength, 3) * 0.93
    outline = inside & ~ndimage.binary_erosion(inside)
    for where, colour in ((edges, _TEMPLATE), (outline, _BRAIN)):
        colours[where] = (1 - _SHARE) * colours[where] + _SHARE * np.array(colour)
    return np.asarray(colours, dtype=np.uint8)


def _padded(tile: npt.NDArray[np.uint8], height: int) -> npt.NDArray[np.uint8]:
    above = (height - tile.shape[0]) // 2
    return np.pad(tile, ((above, height - tile.shape[0] - above), (4, 4), (0, 0)))


@dataclass(frozen=True)
class QualityRow:
    """One scan.

    `figures` are name with unit → value, the same names in every row, `picture` its JPEG on the template.
    """

    scan_id: str
    modality: str
    figures: Mapping[str, float | None]
    flags: Sequence[str]
    picture: bytes | None = None

    @property
    def address(self) -> str:
        """The picture as a data URL; empty where there is none."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.picture).decode('ascii')}" if self.picture else ""


def write_quality_page(rows: Sequence[QualityRow], failures: Mapping[str, str], path: Path) -> None:
    """Write one HTML file that needs nothing else; every text is escaped."""
    names = list(rows[0].figures) if rows else []
    plots = [dot_plot(n, [Dot(row.scan_id, row.figures[n], bool(row.flags)) for row in rows]) for n in names]
    strips = [strip for strip in plots if strip["dots"] or strip["bars"]]
    html = page_template("quality.html.j2").render(
        rows=rows,
        names=names,
        n_flagged=sum(bool(row.flags) for row in rows),
        failures=sorted(failures.items()),
        header=["scan", "modality", *(name.replace("_", " ") for name in names), "flags"],
        strips=strips,
        how_drawn=how_drawn(strips),
        disclaimer=NOTICE,
        counted=counted,
    )
    write_text(path, html)
