"""Pages of a detection, made again from its files without networks; with a new threshold also mask and table."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from halebrain.core.errors import DataError, HalebrainError, MissingInputError, UsageError, unexpected_as_error
from halebrain.core.failures import Failures
from halebrain.core.files import atomic_path, file_lock
from halebrain.core.mask import to_mask
from halebrain.core.messages import Notify, log_message
from halebrain.core.progress import track
from halebrain.core.types import FloatArray, Lesion, MaskArray
from halebrain.inference.lesions import lesion_table, read_lesions
from halebrain.inference.outputs import OutputNames, page_of, write_mask_again
from halebrain.inference.regions import regions_are_known
from halebrain.io.bids_derivative import update_ignored
from halebrain.io.checksum import scan_sha256
from halebrain.io.volume import read_map, read_mask, read_on_grid, read_volume
from halebrain.report.display import ScanMaps, display_grid
from halebrain.report.embedding import ShownVolume, read_page, read_scan_file, scan_file, shown_scan
from halebrain.report.index_page import INDEX, find_provenance, is_index_page, read_provenance
from halebrain.thresholds.text import FIXED, reset_fields
from halebrain.workflows.pages import read_failures, render, write_index


@dataclass(frozen=True)
class RemakeSettings:
    """How pages are made again.

    Args:
        threshold: The new threshold; `None` = not changed.
        min_lesion_mm3: The new smallest lesion, mm³; `None` = not changed.
        scan: The scan, where it is not stored beside the page; of a single detection only.
        notify: Receives warnings.
    """

    threshold: float | None = None
    min_lesion_mm3: float | None = None
    scan: Path | None = None
    notify: Notify = log_message


@dataclass(frozen=True)
class RemadePages:
    """Pages that were made.

    Args:
        pages: Of scans.
        index: Of all scans; `None` where the folder is that of one detection.
        failures: Detections whose page could not be made, with the reason.
        n_detections: Detections in the folder.
    """

    pages: list[Path]
    index: Path | None
    failures: Failures
    n_detections: int


def remake_pages(
    output: Path, settings: RemakeSettings, *, done: Callable[[Path], None] = lambda _: None
) -> RemadePages:
    """Make the pages of all detections in a folder again; one that fails is reported and does not stop the others.

    Args:
        output: One detection, or a folder of many.
        settings: What changes.
        done: Called with each page.

    Raises:
        HalebrainError: There is no detection, an option cannot be used, or the page of the only detection failed.
    """
    threshold = settings.threshold
    if threshold is not None and not 0 < threshold < float("inf"):
        raise UsageError(
            "a threshold must be a number above 0", received=threshold, remedy="for example --threshold 0.3"
        )
    found = find_provenance(output) if output.is_dir() else []
    if not found and not read_failures(output):
        raise MissingInputError(
            "the folder must hold a detection", where=output, remedy="run halebrain detect with this folder as -o"
        )
    single = len(found) == 1 and found[0].parent == output and not (output / INDEX).exists()
    if settings.scan is not None and len(found) != 1:
        raise UsageError(
            "--input can be used with one detection only",
            received=f"{len(found)}",
            where=output,
            remedy="give the folder of that scan",
        )
    failures, pages = Failures(output), list[Path]()
    for path in track(found, description="Pages", total=len(found)):
        name = path.parent.relative_to(output).as_posix()
        try:
            with unexpected_as_error():
                pages.append(remake_page(path, settings))
            done(pages[-1])
            failures.went_well(name)
        except HalebrainError as error:
            if single:
                raise
            failures.add(name, error)
    index = None
    if not single:
        index = write_index(output, (), {}, notify=settings.notify)
        done(index)
    return RemadePages(pages, index, failures, len(found))


def remake_page(path: Path, settings: RemakeSettings) -> Path:
    """Make the page of one detection again, and mask and table where the threshold changes; return the page's path.

    Another report, or a `halebrain view`, on the same detection is waited for.

    Args:
        path: Its provenance.
        settings: What changes.

    Raises:
        DataError: The files do not belong together, or come from an older version without the necessary keys.
        MissingInputError: A file is missing.
        CannotWriteError: The folder cannot be written.
        UnavailableError: Another process did not release the detection in time.
    """
    with file_lock(page_of(path)):
        return remake_locked_page(path, settings)


def remake_locked_page(path: Path, settings: RemakeSettings) -> Path:
    """Do what `remake_page` does, for a caller who holds the lock of the page."""
    try:
        return _remake(path, settings)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            "a provenance file must be as halebrain detect wrote it",
            received=f"{type(error).__name__}: {error}",
            where=path,
            remedy="run halebrain detect --overwrite",
        ) from error


def remake_in_view(output: Path, path: Path, settings: RemakeSettings) -> None:
    """Make one page of a reviewed folder again, and the page of all scans where there is one.

    Args:
        output: The folder under review; its caller holds the lock of the page.
        path: The provenance of the detection.
        settings: What changes.
    """
    remake_locked_page(path, settings)
    if is_index_page(output / INDEX):
        write_index(output, (), {}, notify=settings.notify)


def _remake(path: Path, settings: RemakeSettings) -> Path:
    provenance = read_provenance(path)
    missing = [key for key in ("scan", "threshold", "template_to_native") if key not in provenance]
    if missing:
        raise DataError(
            "a provenance file must hold all keys that a page needs",
            received=f"a file without {', '.join(missing)}",
            where=path,
            remedy="run halebrain detect --overwrite",
        )
    names = OutputNames(path.parent, str(provenance["scan"]))
    maps = _read_maps(names)
    shown = _scan_of(names, maps, provenance, settings)
    kept: dict[Path, bytes] = {}
    if settings.scan is not None or not names.display.is_file():
        kept = {names.display: scan_file(shown)}
        update_ignored(names.folder)
    choice = provenance["threshold"] | _changed(provenance["threshold"], settings)
    if choice == provenance["threshold"]:
        lesions = read_lesions(names.file("anomaly", "lesions", ".tsv"))
        picture = names.mosaic.read_bytes() if names.mosaic.is_file() else b""
        for target, content in (render(names, maps, shown, lesions, provenance, picture=picture) | kept).items():
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)
        return names.page
    maps, lesions = _with_mask(maps, provenance, choice)
    provenance |= {
        "threshold": choice,
        "n_lesions": len(lesions),
        "lesion_volume_ml": round(sum(lesion.volume_ml for lesion in lesions), 3),
    }
    if provenance.pop("dicom_seg", False):
        said = "the DICOM-SEG of the old mask was removed; halebrain detect --dicom-seg --overwrite writes a new one"
        settings.notify(f"warning: {names.stem}: {said}")
    extra = render(names, maps, shown, lesions, provenance) | kept
    write_mask_again(names, maps.mask, maps.affine, lesions, provenance, extra, placement=maps.placement)
    return names.page


def _changed(before: dict[str, Any], settings: RemakeSettings) -> dict[str, Any]:
    """Return the provenance of the new threshold."""
    threshold = settings.threshold
    new: dict[str, Any] = {}
    if threshold is not None and threshold != before["value"]:
        new |= {"value": threshold, "name": FIXED} | reset_fields()
        # The method of the earlier value does not apply to this one.
        new |= {key: None for key in ("method", "n_scans", "healthy_share") if key in before}
    if settings.min_lesion_mm3 is not None:
        new["min_lesion_mm3"] = settings.min_lesion_mm3
    return new


def _with_mask(maps: ScanMaps, provenance: dict[str, Any], choice: dict[str, Any]) -> tuple[ScanMaps, list[Lesion]]:
    """Return maps with the mask of another threshold, and its lesion table."""
    voxel_mm3 = abs(float(np.linalg.det(maps.affine[:3, :3])))
    called = to_mask(
        maps.score, threshold=choice["value"], min_lesion_mm3=choice["min_lesion_mm3"], voxel_mm3=voxel_mm3
    )
    mask: MaskArray = maps.brain_mask & called
    matrix = np.array(provenance["template_to_native"], dtype=np.float64)
    regions = regions_are_known(provenance.get("space"), provenance.get("qc", {}))
    lesions = lesion_table(mask, maps.score, maps.affine, matrix, regions=regions)
    return replace(maps, mask=mask), lesions


def _read_maps(names: OutputNames) -> ScanMaps:
    """Read the maps of a detection.

    Raises:
        DataError: They lie on different grids.
        MissingInputError: One is missing.
    """
    score = read_map(names.file("anomaly", "probseg"))

    def read(description: str, suffix: str = "") -> FloatArray:
        return read_on_grid(names.file(description, suffix), score, "a map must lie on the grid of the score")

    return ScanMaps(
        reconstruction=read("pseudohealthy"),
        score=score.data,
        probability=read("segmenter", "probseg"),
        residual=read("residual"),
        uncertainty=read("uncertainty"),
        mask=read_mask(names.file("anomaly", "mask"), score),
        brain_mask=read_mask(names.file("brain", "mask"), score),
        affine=score.affine,
        placement=score.placement,
    )


def _scan_of(names: OutputNames, maps: ScanMaps, provenance: dict[str, Any], settings: RemakeSettings) -> ShownVolume:
    """Return the scan as a page shows it: from the user's file, else from the file beside the page.

    Raises:
        DataError: It is another scan.
        MissingInputError: There is neither.
    """
    if settings.scan is not None:
        volume = read_volume(settings.scan)
        if scan_sha256(settings.scan) != provenance.get("input_sha256"):
            raise DataError("the scan must be the one that was processed", where=settings.scan, remedy="give that file")
        return shown_scan(volume.data, maps.brain_mask, display_grid(maps.affine, maps.brain_mask))
    if names.display.is_file():
        return read_scan_file(names.display)
    # Until the release after 0.2: results of 0.1 have no such file.
    if not names.page.is_file():
        raise MissingInputError(
            "a page needs the scan", where=names.display, remedy="give it: halebrain report OUT -i SCAN"
        )
    _, volumes = read_page(names.page)
    if "scan" not in volumes:
        raise DataError("a page must hold its scan", where=names.page, remedy="give the scan: -i SCAN")
    said = f"its scan was taken from the page of an earlier version and is now stored in {names.display.name}"
    settings.notify(f"warning: {names.stem}: {said}; the next release does not read pages")
    return volumes["scan"]
