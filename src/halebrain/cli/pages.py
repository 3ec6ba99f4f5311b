"""Inputs of the scan page: results of `detect` in memory, or files of an earlier run."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from halebrain.core.types import MaskArray, ScanResult, Volume
    from halebrain.inference.lesions import Lesion
    from halebrain.inference.outputs import OutputNames
    from halebrain.report.display import ScanMaps
    from halebrain.report.embedding import ShownVolume

FAILED = "failed.tsv"
_REGION_MM = 3.0
"""Voxel size of the region names in a page."""


def page_files(
    names: "OutputNames",
    volume: "Volume",
    result: "ScanResult",
    mask: "MaskArray",
    lesions: "list[Lesion]",
    provenance: dict[str, Any],
    *,
    mosaic: bytes,
) -> dict[Path, bytes]:
    """Return the page, the thumbnail and the mosaic of a detection, by final path.

    Args:
        names: File names.
        volume: The scan.
        result: Its maps.
        mask: What was found.
        lesions: The table.
        provenance: Provenance.
        mosaic: PNG of slices side by side.
    """
    from halebrain.report.display import ScanMaps, display_grid
    from halebrain.report.embedding import shown_scan

    maps = ScanMaps(
        reconstruction=result.reconstruction,
        score=result.score,
        probability=result.probability,
        residual=result.residual,
        uncertainty=result.uncertainty,
        mask=mask,
        brain_mask=result.brain_mask,
        affine=result.affine,
    )
    scan = shown_scan(volume.data, maps.brain_mask, display_grid(maps.affine, maps.brain_mask))
    return render(names, maps, scan, [vars(lesion) for lesion in lesions], provenance, mosaic=mosaic)


def render(
    names: "OutputNames",
    maps: "ScanMaps",
    scan: "ShownVolume",
    table: Iterable[Mapping[str, Any]],
    provenance: dict[str, Any],
    *,
    mosaic: bytes = b"",
) -> dict[Path, bytes]:
    """Return page, thumbnail and mosaic by final path, from maps and the scan as a page shows it.

    Args:
        names: File names.
        maps: What was found, on the native grid.
        scan: The scan, in the box of the page.
        table: Rows of the lesion table.
        provenance: Provenance.
        mosaic: PNG of slices side by side; empty = it is drawn from what the page holds.
    """
    import numpy as np

    from halebrain.inference.regions import region_map, regions_are_known
    from halebrain.report.display import display_grid
    from halebrain.report.embedding import ShownVolume, shown_volumes
    from halebrain.report.findings import Finding
    from halebrain.report.scan_page import ScanPage, scan_html
    from halebrain.report.scan_pictures import page_mosaic, thumbnail

    threshold = float(provenance["threshold"]["value"])
    grid = display_grid(maps.affine, maps.brain_mask)
    volumes = shown_volumes(maps, scan, grid, threshold=threshold)
    if not mosaic:
        mosaic = _png(page_mosaic(volumes, threshold=threshold, title=names.stem))
    matrix = provenance.get("template_to_native")
    to_template = None if matrix is None else np.array(matrix, dtype=np.float64)
    region_names: tuple[str, ...] = ()
    if to_template is not None and regions_are_known(provenance.get("space"), provenance.get("qc", {})):
        spacing = grid.spacing_mm(_REGION_MM)
        i, j, k = (max(1, round(mm / step)) for mm, step in zip(grid.size_mm, spacing, strict=True))
        placed = np.linalg.inv(to_template) @ grid.affine @ grid.to_voxel
        codes, region_names = region_map(placed, (i, j, k), spacing)
        volumes = {**volumes, "regions": ShownVolume(codes, 1.0, 0.0, spacing)}
    page = ScanPage(
        title=names.stem,
        grid=grid,
        volumes=volumes,
        findings=[Finding.of(row) for row in table],
        provenance=provenance,
        template_to_native=to_template,
        mosaic=mosaic,
        region_names=region_names,
    )
    html = scan_html(page).encode("utf-8")
    return {names.page: html, names.thumbnail: thumbnail(volumes), names.mosaic: mosaic}


def write_index(
    output: Path,
    looked_at: Iterable[str],
    failed: Mapping[str, str],
    *,
    recorded: Callable[[Path], Mapping[str, str]] | None = None,
    wait_s: float = 60.0,
) -> Path:
    """Write the page of all scans below `output`, including earlier runs, and store the failures.

    Args:
        output: Where the detections are.
        looked_at: Names of the scans of this run.
        failed: Those of them that failed, with the reason.
        recorded: Reads what else is known to have failed below `output`.
        wait_s: Longest wait for another run that writes them, seconds; then they are written with a warning.

    Raises:
        CannotWriteError: The folder cannot be written.
    """
    from halebrain.core.errors import UnavailableError, cannot_write_into
    from halebrain.core.files import file_lock, write_text
    from halebrain.report.cohort_page import INDEX, write_cohort_page

    again = set(looked_at)
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
            typer.echo(f"halebrain: warning: {INDEX} is written without the lock: {error}", err=True)
        failures = {name: reason for name, reason in read_failures(output).items() if name not in again}
        failures |= dict(recorded(output) if recorded else {}) | dict(failed)
        if failures or (output / FAILED).exists():
            buffer = io.StringIO()
            writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
            writer.writerow(("scan", "reason"))
            writer.writerows(sorted(failures.items()))
            write_text(output / FAILED, buffer.getvalue())
        return write_cohort_page(output, failures)


def read_failures(output: Path) -> dict[str, str]:
    """Return which scans failed in earlier runs, and why."""
    path = output / FAILED
    if not path.is_file():
        return {}
    from halebrain.io.tables import read_table

    table = read_table(path, what="a table of failed scans")
    return {row.get("scan", ""): row.get("reason", "") for row in table.rows}


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()
