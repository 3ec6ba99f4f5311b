"""Pages and pictures of detections: the page of one scan, its mosaic, and the page of all scans of a folder."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from halebrain.core.errors import UnavailableError, cannot_write_into
from halebrain.core.files import file_lock
from halebrain.core.mask import Cut, to_mask
from halebrain.core.messages import Notify, log_message
from halebrain.core.provenance import Provenance
from halebrain.core.types import Affine, Lesion, MaskArray, ScanResult, Volume
from halebrain.inference.outputs import OutputNames
from halebrain.inference.regions import region_map, regions_are_known
from halebrain.io.failed_table import FAILED, read_failed, write_failed
from halebrain.report.display import DisplayGrid, display_grid
from halebrain.report.embedding import ShownVolume, shown_scan, shown_volumes
from halebrain.report.figures import Panel, choose_slices, figure_png, mosaic
from halebrain.report.index_page import INDEX, write_index_page
from halebrain.report.scan_page import ScanPage, scan_html
from halebrain.report.scan_pictures import outline_note, page_mosaic, thumbnail

if TYPE_CHECKING:  # pages made from files need none of these
    from matplotlib.figure import Figure

    from halebrain.inference.predictor import WorkingMaps
    from halebrain.preprocessing.pipeline import WorkingScan

_REGION_MM = 3.0
"""Voxel size of the region names in a page."""


def show_scan(volume: Volume, result: ScanResult) -> ShownVolume:
    """Return a scan as its page shows it, in the box of its brain."""
    return shown_scan(volume.data, result.brain_mask, display_grid(result.affine, result.brain_mask))


def render(
    names: OutputNames,
    maps: ScanResult,
    mask: MaskArray,
    scan: ShownVolume,
    lesions: Sequence[Lesion],
    provenance: Provenance,
    *,
    picture: bytes = b"",
) -> dict[Path, bytes]:
    """Return page, thumbnail and mosaic by final path, from maps and the scan as a page shows it.

    `picture` is the mosaic, a PNG; empty = it is drawn from what the page holds.
    """
    if provenance.threshold is None:
        raise ValueError("a page needs the threshold")
    cut = provenance.threshold.cut
    grid = display_grid(maps.affine, maps.brain_mask)
    volumes = shown_volumes(maps, mask, scan, grid, cut=cut)
    if not picture:
        picture = figure_png(page_mosaic(volumes, cut=cut, title=names.stem), dpi=100)
    matrix = provenance.template_to_native
    to_template = None if matrix is None else np.array(matrix, dtype=np.float64)
    regions, region_names = show_regions(provenance, to_template, grid)
    page = ScanPage(
        title=names.stem,
        grid=grid,
        volumes={**volumes, **regions},
        findings=lesions,
        provenance=provenance,
        threshold=provenance.threshold,
        template_to_native=to_template,
        mosaic=picture,
        region_names=region_names,
    )
    html = scan_html(page).encode("utf-8")
    return {names.page: html, names.thumbnail: thumbnail(volumes), names.mosaic: picture}


def show_regions(
    provenance: Provenance, template_to_native: Affine | None, grid: DisplayGrid
) -> tuple[dict[str, ShownVolume], tuple[str, ...]]:
    """Return the regions of the brain as a page shows them, and their names; nothing where they are not known."""
    if template_to_native is None or not regions_are_known(provenance.space, provenance.qc):
        return {}, ()
    spacing = grid.spacing_mm(_REGION_MM)
    i, j, k = (max(1, round(mm / step)) for mm, step in zip(grid.size_mm, spacing, strict=True))
    placed = np.linalg.inv(template_to_native) @ grid.affine @ grid.to_voxel
    codes, names = region_map(placed, (i, j, k), spacing)
    return {"regions": ShownVolume(codes, 1.0, 0.0, spacing)}, names


def scan_mosaic(
    working: "WorkingScan",
    maps: "WorkingMaps",
    *,
    cut: Cut,
    title: str,
    truth: Any = None,
    threshold_name: str | None = None,
) -> "Figure":
    """Return the picture of one scan: input, pseudo-healthy, residual, probability, score, and the truth if known.

    Args:
        working: The scan.
        maps: The maps of the model.
        cut: What is outlined, as in the mask and the table.
        title: Above the picture.
        truth: Annotated lesion on the working grid.
        threshold_name: Name of the threshold, for the note below.
    """
    inside = np.where(working.brain_mask, maps.score, np.float32(-1.0))
    found = to_mask(inside, cut, voxel_mm3=working.grid.voxel_mm3)
    residual = (working.image - maps.reconstruction) * working.brain_mask
    panels = [
        Panel("input", working.image, vmax=1.0),
        Panel("pseudo-healthy", maps.reconstruction, vmax=1.0),
        Panel("input − pseudo-healthy", residual, "residual", vmax=0.5),
        Panel("segmenter probability", maps.probability, "score"),
        Panel("anomaly score", maps.score, "score", vmax=max(2 * cut.threshold, 0.2)),
        Panel("found", working.image, outline=found, vmax=1.0),
    ]
    if truth is not None:
        panels.append(Panel("truth", working.image, outline=truth, vmax=1.0))
    # With a reference, its largest slices are shown, so that misses are visible.
    weight = truth.astype(float) if truth is not None and truth.any() else maps.score * found
    slices = choose_slices(working.brain_mask, weight if weight.any() else None)
    return mosaic(panels, slices=slices, title=title, note=outline_note(cut, name=threshold_name))


def write_index(
    output: Path,
    processed: Iterable[str],
    failed: Mapping[str, str],
    *,
    recorded: Callable[[Path], Mapping[str, str]] | None = None,
    wait_s: float = 60.0,
    notify: Notify = log_message,
) -> Path:
    """Write the page of all scans below `output`, including earlier runs, and store the failures.

    `recorded` reads what else is known to have failed there. If another run writes them for longer than `wait_s`
    seconds, they are written with a warning.
    """
    with _held(output, INDEX, wait_s, notify):
        return write_index_page(output, _stored_failures(output, processed, failed, recorded))


def store_failures(
    output: Path,
    processed: Iterable[str],
    failed: Mapping[str, str],
    *,
    wait_s: float = 60.0,
    notify: Notify = log_message,
) -> None:
    """Store the failures of a run without a page of all scans, beside those of scans that it did not process."""
    with _held(output, FAILED, wait_s, notify):
        _stored_failures(output, processed, failed)


@contextmanager
def _held(output: Path, written: str, wait_s: float, notify: Notify) -> Iterator[None]:
    """Keep other runs from writing what all runs in a folder share while the block runs, or warn that one may.

    `written` is the name of the file that the block writes.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write_into(output, error) from error
    with ExitStack() as held:
        # Runs on several machines may finish in one folder at the same time and must keep each other's failures.
        try:
            held.enter_context(file_lock(output / INDEX, wait_s=wait_s))
        except UnavailableError as error:
            # The results exist; a stale lock must not prevent the page.
            notify(f"warning: {written} is written without the lock: {error}")
        yield


def _stored_failures(
    output: Path,
    processed: Iterable[str],
    failed: Mapping[str, str],
    recorded: Callable[[Path], Mapping[str, str]] | None = None,
) -> dict[str, str]:
    """Return all failures in a folder after a run; write their table, but no empty one where there was none."""
    again = set(processed)
    failures = {name: reason for name, reason in read_failed(output / FAILED).items() if name not in again}
    failures |= dict(recorded(output) if recorded else {}) | dict(failed)
    if failures or (output / FAILED).exists():
        write_failed(output / FAILED, failures)
    return failures
