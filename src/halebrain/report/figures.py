"""Figures: slices side by side, loss curves, and an overview of a cohort."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from halebrain.core.about import NOTICE
from halebrain.core.files import write_bytes
from halebrain.core.types import SLICE_AXIS, MaskArray
from halebrain.io.manifest import Manifest
from halebrain.io.tables import read_table
from halebrain.io.volume import read_mask, read_volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.generic]
_GAP = 0.02
"""Between the cells of a mosaic, of the width of one."""
INK, _PAPER, _LESION = "#e8eaed", "#111418", "#ff4d4d"


@dataclass(frozen=True)
class Panel:
    """One column of a mosaic.

    Args:
        title: Heading.
        data: Array `(i, j, k)`.
        kind: "scan" = grey, "residual" = signed, blue to red around 0, "score" = heat in [0, vmax].
        outline: Mask whose border is drawn on top, or `None`.
        vmax: Upper end of the colours; `None` = from the data.
    """

    title: str
    data: Array
    kind: Literal["scan", "residual", "score"] = "scan"
    outline: MaskArray | None = None
    vmax: float | None = None


@dataclass(frozen=True)
class MosaicRow:
    """One row of a mosaic: the same axial slice of several maps; the first decides how the row is cropped."""

    panels: Sequence[Panel]
    index: int
    label: str = ""


def mosaic(panels: Sequence[Panel], *, slices: Sequence[int], title: str = "", note: str = "") -> "Figure":
    """Return axial slices (rows) of several maps (columns), cropped to what the first one shows.

    Front is up, the patient's left is on the right.
    """
    return mosaic_of_rows([MosaicRow(panels, index) for index in slices], title=title, note=note)


def mosaic_of_rows(rows: Sequence[MosaicRow], *, title: str = "", note: str = "") -> "Figure":
    """Return rows of slices of one or several scans of the same grid; titles are those of the first row's panels.

    All rows are cropped to what the first panel of the first one shows. Front is up, the patient's left on the right.
    """
    box = _shown_box(rows[0].panels[0])
    cropped = [replace(row, panels=_cropped(row.panels, box)) for row in rows]
    columns = len(cropped[0].panels)
    across, along = cropped[0].panels[0].data.shape[:2]
    cell = 1.75 * along / across
    left = 0.3 if any(row.label for row in rows) else 0.0
    above = 0.60 if title else 0.32  # inches; the titles of the columns alone need less
    width, height = 1.75 * columns + 0.4 + left, cell * len(rows) + 0.30 + above
    figure = new_figure(width, height)
    # One pair of axes for all cells, each one unit wide and high: thirty pairs take a second to make.
    axes = figure.add_axes((0.01 + left / width, 0.32 / height, 0.98 - left / width, 1 - (0.32 + above) / height))
    axes.set(xlim=(0, columns), ylim=(len(rows), 0))
    axes.axis("off")
    for column, panel in enumerate(cropped[0].panels):
        axes.text(column + 0.5, -0.08 / cell, panel.title, color=INK, fontsize=10, ha="center", va="bottom")
    for line, row in enumerate(cropped):
        for column, panel in enumerate(row.panels):
            gap = _GAP / 2
            _show(axes, panel, row.index, (column + gap, column + 1 - gap, line + 1 - gap, line + gap))
        for place, letter in ((0.03, "R"), (0.91, "L")):
            axes.text(place, line + 0.97, letter, color=INK, fontsize=7, alpha=0.7)
        if row.label:
            axes.text(-0.05, line + 0.5, row.label, color=INK, fontsize=10, ha="right", va="center", rotation=90)
    figure.suptitle(_drawable(title), color=INK, fontsize=11, y=1 - 0.12 / height)
    figure.text(0.5, 0.10 / height, f"{note}  {NOTICE}".strip(), color=INK, fontsize=7.5, ha="center", alpha=0.8)
    return figure


def _shown_box(panel: Panel) -> tuple[slice, ...] | None:
    """Return the box of a panel without the columns and rows that are empty in every slice; `None` where all are."""
    shown = panel.data != 0
    if not shown.any():
        return None
    inside = (np.flatnonzero(shown.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    return tuple(slice(max(int(i[0]) - 2, 0), int(i[-1]) + 3) for i in inside)


def _cropped(panels: Sequence[Panel], box: tuple[slice, ...] | None) -> list[Panel]:
    """Return the panels, cropped to the box."""
    if box is None:
        return list(panels)
    return [
        replace(panel, data=panel.data[box], outline=None if panel.outline is None else panel.outline[box])
        for panel in panels
    ]


def radiological(plane: Array) -> npt.NDArray[np.float32]:
    """Return a plane of a RAS volume as radiologists hold it: front or top up, the patient's right on the left."""
    return np.asarray(plane, dtype=np.float32)[::-1, ::-1].T


def choose_slices(brain_mask: MaskArray, score: Array | None = None, *, count: int = 5) -> list[int]:
    """Return axial slices spread over the brain, or those with most score, well apart, from low to high."""
    area = brain_mask.sum(axis=(0, 1))
    shown = np.flatnonzero(area > 0.25 * area.max())
    if score is None:
        return [int(v) for v in np.linspace(shown[0], shown[-1], count + 2)[1:-1]]
    weight = np.asarray(score, dtype=np.float64).sum(axis=(0, 1)) * (area > 0.1 * area.max())
    apart = max(2, len(shown) // (2 * count))
    chosen: list[int] = []
    # Where fewer slices than asked for hold any score, the largest slices of the brain fill the rows.
    for index in np.lexsort((area, weight))[::-1]:
        if all(abs(int(index) - other) >= apart for other in chosen):
            chosen.append(int(index))
        if len(chosen) == count:
            break
    return sorted(chosen)


def loss_plot(log: Path) -> "Figure":
    """Return the training and validation loss of a run, from its CSV log."""
    rows = read_table(log, what="a log").rows
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    style(axes)
    train = [(int(r["step"]), float(r["loss"])) for r in rows if r["loss"]]
    val = [(int(r["step"]), float(r["val_loss"])) for r in rows if r["val_loss"]]
    axes.plot(*zip(*train, strict=True), color="#6ea8fe", linewidth=1, alpha=0.8, label="training")
    if val:
        axes.plot(
            *zip(*val, strict=True),
            color="#ffb454",
            linewidth=1.6,
            marker="o",
            markersize=3,
            label="validation",
        )
    if min(value for _, value in train) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss", color=INK)
    axes.legend(facecolor=_PAPER, edgecolor="none", labelcolor=INK)
    figure.tight_layout()
    return figure


def masked_example(slices: npt.NDArray[np.float32]) -> "Figure":
    """Return original slices, with hidden cells, and as predicted: `(3, n, i, j)` in [0, 1]; one column per slice."""
    figure = new_figure(1.8 * slices.shape[1] + 0.8, 6.2)
    axes = figure.subplots(3, slices.shape[1], squeeze=False)
    for row, name in enumerate(("slice", "visible", "painted")):
        axes[row, 0].set_ylabel(name, color=INK)
        for column in range(slices.shape[1]):
            axes[row, column].imshow(np.rot90(slices[row, column]), cmap="gray", vmin=0, vmax=1)
            axes[row, column].set(xticks=[], yticks=[])
    return figure


def cohort_montage(manifest: Manifest, *, most: int = 12) -> "Figure":
    """Return each modality of some subjects at two heights, lesions outlined; wide enough to fill a page."""
    subjects = _spread(manifest, most)
    modalities = list(dict.fromkeys(r.modality for r in manifest))
    width = 2 * len(modalities)  # cells of one subject
    abreast = max(1, 6 // width)
    rows = -(-len(subjects) // abreast)
    figure = new_figure(1.6 * width * abreast + 0.3, 1.75 * rows + 0.7)
    axes = figure.subplots(rows, width * abreast, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for place, subject in enumerate(subjects):
        row, start = divmod(place, abreast)
        for record in manifest.select(lambda r, wanted=subject: r.subject == wanted):  # type: ignore[misc]
            volume = read_volume(record.image)
            lesion = None if record.lesion is None else read_mask(record.lesion, volume)
            column = start * width + 2 * modalities.index(record.modality)
            heights = _heights(volume.shape[SLICE_AXIS], lesion)
            age = "" if record.age is None else f", {record.age:.0f} y"
            panel = Panel(f"{record.subject}{age} {record.modality}", volume.data, outline=lesion)
            for offset, index in enumerate(heights):
                _show(axes[row, column + offset], panel, index)
            axes[row, column].set_title(panel.title, color=INK, fontsize=7, loc="left", pad=2)
    figure.suptitle("Virtual cohort: synthetic images, lesions outlined", color=INK, fontsize=10)
    figure.tight_layout(pad=0.3, rect=(0, 0, 1, 0.985))
    return figure


def save_figure(figure: "Figure", path: Path, *, dpi: int = 110) -> None:
    """Write the figure as PNG, atomically; the same figure gives the same bytes."""
    write_bytes(path, figure_png(figure, dpi=dpi))


def figure_png(figure: "Figure", *, dpi: int = 110) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure in the house's colours; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=_PAPER)
    FigureCanvasAgg(figure)
    return figure


def style(axes: "Axes") -> None:
    """Give axes the house's colours."""
    axes.set_facecolor(_PAPER)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(alpha=0.15)
    for spine in axes.spines.values():
        spine.set_color("#444a52")


def _show(axes: "Axes", panel: Panel, index: int, extent: tuple[float, float, float, float] | None = None) -> None:
    """Draw one axial slice as radiologists hold it: front up, the patient's right on the left."""

    def turned(data: Array) -> Array:
        # Rows from front to back, columns from the patient's right to left (index i grows to the patient's right).
        return np.asarray(data)[::-1, ::-1, index].T

    limits = axes.axis()
    if extent is None:
        axes.axis("off")
    around: dict[str, Any] = {}
    if extent is not None:
        # A contour runs between the middles of the outer voxels, the first row first; a picture reaches their borders.
        (left, right, bottom, top), (rows, columns) = extent, panel.data.shape[1::-1]
        x, y = (right - left) / columns / 2, (bottom - top) / rows / 2
        around = {"extent": (left + x, right - x, top + y, bottom - y)}
    place: dict[str, Any] = {"interpolation": "nearest", "extent": extent, "aspect": "auto" if extent else "equal"}
    image = turned(panel.data)
    if panel.kind == "residual":
        most = panel.vmax or float(np.percentile(np.abs(panel.data), 99.8)) or 1.0
        # Blue over black to red: no difference is as dark as the background, where nothing is drawn.
        axes.imshow(np.ma.masked_equal(image, 0), cmap="berlin", vmin=-most, vmax=most, **place)
    elif panel.kind == "score":
        axes.imshow(image, cmap="inferno", vmin=0, vmax=panel.vmax or 1.0, **place)
    else:
        values = np.asarray(panel.data, dtype=np.float32)
        positive = values[values > 0]
        most = panel.vmax or (float(np.percentile(positive, 99.5)) if positive.size else 1.0)
        axes.imshow(image, cmap="gray", vmin=0, vmax=most, **place)
    if panel.outline is not None and panel.outline[..., index].any():
        axes.contour(turned(panel.outline).astype(float), levels=[0.5], colors=_LESION, linewidths=0.9, **around)
    if extent is not None:
        axes.axis(limits)


def _heights(n_slices: int, lesion: MaskArray | None) -> list[int]:
    usual = [int(n_slices * 0.42), int(n_slices * 0.58)]
    if lesion is None or not lesion.any():
        return usual
    largest = int(lesion.sum(axis=(0, 1)).argmax())
    return [largest, usual[1] if abs(usual[1] - largest) > 4 else usual[0]]


def _spread(manifest: Manifest, most: int) -> list[str]:
    """Return at most `most` subjects, some of each pathology."""
    by_pathology: dict[str, list[str]] = {}
    for record in manifest:
        group = by_pathology.setdefault(record.condition, [])
        if record.subject not in group:
            group.append(record.subject)
    each = max(1, most // len(by_pathology))
    return [subject for group in by_pathology.values() for subject in group[:each]][:most]


def _drawable(title: str) -> str:
    """Return a title without what no font can draw: control characters are spelt out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in title)
