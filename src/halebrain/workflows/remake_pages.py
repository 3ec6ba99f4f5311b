"""Pages of detections, made again from their files without networks; with a new threshold also mask and table."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from halebrain.core.errors import DataError, HalebrainError, MissingInputError, UsageError, unexpected_as_error
from halebrain.core.failures import Failures
from halebrain.core.files import file_lock, write_bytes
from halebrain.core.progress import track
from halebrain.core.provenance import FILLING, Provenance, read_provenance
from halebrain.core.types import FloatArray, MaskArray, ScanResult
from halebrain.inference.lesions import mark_lesions, read_lesions, total_ml
from halebrain.inference.outputs import OutputNames, page_of, write_detection
from halebrain.inference.regions import regions_are_known
from halebrain.io.bids_derivative import update_ignored
from halebrain.io.checksum import scan_sha256
from halebrain.io.failed_table import FAILED, read_failed
from halebrain.io.volume import read_map, read_mask, read_on_grid, read_volume
from halebrain.report.embedding import ShownVolume, read_page, read_scan_file, scan_file
from halebrain.report.index_page import INDEX, find_provenance, is_index_page, is_of_exam, names_of
from halebrain.thresholds.choose import check_growth
from halebrain.workflows.pages import render, show_scan, write_index
from halebrain.workflows.remake_exam import remake_locked_exam
from halebrain.workflows.remake_settings import RemakeSettings, changed_threshold

_AGAIN = "run halebrain detect --overwrite"
_NEEDED = ("scan", "threshold", "template_to_native")


class PageFailures(Failures):
    """Pages that fail; the traceback of a scan that `halebrain detect` could not process keeps its own file."""

    ending = "_report.txt"


@dataclass(frozen=True)
class RemadePages:
    """Pages that were made, those that failed, and the page of all scans; `None` where there is one detection."""

    pages: list[Path]
    index: Path | None
    failures: Failures
    n_detections: int


def remake_pages(
    output: Path, settings: RemakeSettings, *, done: Callable[[Path], None] = lambda _: None
) -> RemadePages:
    """Make the pages of all detections in a folder again; one that fails is reported and does not stop the others.

    `done` is called with each page. The error of an only detection is raised.
    """
    threshold = settings.threshold
    if threshold is not None and not 0 < threshold < float("inf"):
        raise UsageError(
            "a threshold must be a number above 0", received=threshold, remedy="for example --threshold 0.3"
        )
    if settings.grow_to is not None:
        if threshold is None:
            raise UsageError("--grow-to needs --threshold", received="neither", remedy="give --threshold VALUE, too")
        check_growth(settings.grow_to, threshold)
    found = find_provenance(output) if output.is_dir() else []
    if not found and not read_failed(output / FAILED):
        raise MissingInputError(
            "the folder must hold a detection", where=output, remedy="run halebrain detect with this folder as -o"
        )
    single = len(found) == 1 and found[0].parent == output and not is_index_page(output / INDEX)
    if settings.scan is not None and len(found) != 1:
        raise UsageError(
            "--input can be used with one detection only",
            received=f"{len(found)}",
            where=output,
            remedy="give the folder of that scan",
        )
    failures, pages = PageFailures(output, settings.notify), list[Path]()
    names = names_of(found, output)
    for path in track(found, description="Pages", total=len(found)):
        name = names[path]
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

    `path` is its provenance. Another report, or a `halebrain view`, on the same detection is waited for.
    """
    with file_lock(page_of(path)):
        return remake_locked_page(path, settings)


def remake_locked_page(path: Path, settings: RemakeSettings) -> Path:
    """Do what `remake_page` does, for a caller who holds the lock of the page."""
    return remake_locked_exam(path, settings) if is_of_exam(path) else _remake_locked_scan(path, settings)


def _remake_locked_scan(path: Path, settings: RemakeSettings) -> Path:
    made = read_provenance(path, remedy=_AGAIN)
    before, missing = made.threshold, [key for key in _NEEDED if getattr(made, key) is None]
    if before is None or missing:
        raise DataError(
            "a provenance file must hold all keys that a page needs",
            received=f"a file without {', '.join(missing)}",
            where=path,
            remedy=_AGAIN,
        )
    names = OutputNames(path.parent, str(made.scan))
    if names.provenance != path:
        raise DataError(
            "a provenance file must name its own scan",
            received=str(made.scan),
            where=path,
            remedy="restore the original file names",
        )
    maps, mask = _read_maps(names)
    shown = _scan_of(names, maps, made, settings)
    kept: dict[Path, bytes] = {}
    if settings.scan is not None or not names.display.is_file():
        kept = {names.display: scan_file(shown)}
        update_ignored(names.folder)
    threshold = changed_threshold(before, settings)
    if threshold == before:
        known = read_lesions(names.file("anomaly", "lesions", ".tsv"))
        picture = names.mosaic.read_bytes() if names.mosaic.is_file() else b""
        for target, content in (render(names, maps, mask, shown, known, made, picture=picture) | kept).items():
            write_bytes(target, content)
        return names.page
    matrix = np.array(made.template_to_native, dtype=np.float64)
    mask, lesions = mark_lesions(maps, threshold.cut, matrix, regions=regions_are_known(made.space, made.qc))
    if made.dicom_seg:
        said = "the DICOM-SEG of the old mask was removed; halebrain detect --dicom-seg --overwrite writes a new one"
        settings.notify(f"warning: {names.stem}: {said}")
    if made.fill_mask_sha256 is not None:  # what was filled is a user's mask, and not the old one
        kept |= {path: path.read_bytes() for path in (names.filled, names.filled_sidecar) if path.is_file()}
    elif made.fill_margin_mm is not None:
        said = "the lesion-filled scan of the old mask was removed; halebrain detect --also-fill writes a new one"
        settings.notify(f"warning: {names.stem}: {said}")
        made = replace(made, fill_margin_mm=None, filled_ml=None, unstated=made.unstated | FILLING)
    made = replace(
        made,
        threshold=threshold,
        n_lesions=len(lesions),
        lesion_volume_ml=total_ml(lesions),
        volume_estimate=None,
        dicom_seg=False,
        unstated=made.unstated | {"dicom_seg"},
    )
    extra = render(names, maps, mask, shown, lesions, made) | kept
    write_detection(names, maps, mask, lesions, made, lambda: extra, maps_stay=True)
    return names.page


def remake_in_view(output: Path, path: Path, settings: RemakeSettings) -> None:
    """Make one page of a reviewed folder again, and the page of all scans; the caller holds the lock of the page."""
    remake_locked_page(path, settings)
    if is_index_page(output / INDEX):
        write_index(output, (), {}, notify=settings.notify)


def _read_maps(names: OutputNames) -> tuple[ScanResult, MaskArray]:
    """Read the maps and the mask of a detection."""
    score = read_map(names.file("anomaly", "probseg"))

    def read(description: str, suffix: str = "") -> FloatArray:
        return read_on_grid(names.file(description, suffix), score, "a map must lie on the grid of the score")

    maps = ScanResult(
        reconstruction=read("pseudohealthy"),
        score=score.data,
        probability=read("segmenter", "probseg"),
        residual=read("residual"),
        uncertainty=read("uncertainty"),
        brain_mask=read_mask(names.file("brain", "mask"), score),
        affine=score.affine,
        placement=score.placement,
    )
    return maps, read_mask(names.file("anomaly", "mask"), score)


def _scan_of(names: OutputNames, maps: ScanResult, provenance: Provenance, settings: RemakeSettings) -> ShownVolume:
    """Return the scan as a page shows it: from the user's file, else from the file beside the page."""
    scan = settings.scan
    if scan is not None:
        volume = read_volume(scan)
        if scan_sha256(scan) != provenance.input_sha256:
            raise DataError("the scan must be the one that was processed", where=scan, remedy="give that file")
        return show_scan(volume, maps)
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
