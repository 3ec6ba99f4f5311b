"""`halebrain report`: make pages again from the files of a detection, without networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halebrain.cli import options
from halebrain.cli.results import Results, failed_scans, look_at
from halebrain.core.errors import DataError, HalebrainError, MissingInputError, UsageError, unexpected_as_error
from halebrain.core.failures import Failures
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.core.types import FloatArray, MaskArray
    from halebrain.inference.lesions import Lesion
    from halebrain.inference.outputs import OutputNames
    from halebrain.report.display import ScanMaps
    from halebrain.report.embedding import ShownVolume


def report(
    output: Annotated[Path, typer.Argument(help="Output of halebrain detect: one scan, or a folder of many.")],
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="New threshold of the anomaly score, applied to the stored maps."),
    ] = None,
    min_lesion_mm3: Annotated[
        float | None, typer.Option("--min-lesion-mm3", min=0, help="Smallest lesion kept, mm³; default: not changed.")
    ] = None,
    scan: Annotated[
        Path | None, typer.Option("--input", "-i", help="The scan, if its page is missing (one detection only).")
    ] = None,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Make the pages of a detection again; with --threshold also the mask and the lesion table. Runs no network."""
    options.set_up(no_progress=no_progress)
    from halebrain.cli.pages import read_failures, write_index
    from halebrain.core.progress import track
    from halebrain.report.cohort_page import INDEX, find_provenance

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
    if scan is not None and len(found) != 1:
        raise UsageError(
            "--input can be used with one detection only",
            received=f"{len(found)}",
            where=output,
            remedy="give the folder of that scan",
        )
    failures = Failures(output)
    pages: list[Path] = []
    index: Path | None = None
    results = Results("report", as_json=as_json)
    for path in track(found, description="Pages", total=len(found)):
        name = path.parent.relative_to(output).as_posix()
        try:
            with unexpected_as_error():
                pages.append(remake_page(path, threshold=threshold, min_lesion_mm3=min_lesion_mm3, scan=scan))
            results.line(pages[-1])
            failures.went_well(name)
        except HalebrainError as error:
            if single:
                raise
            failures.add(name, error)
    if not single:
        index = write_index(output, (), {})
        results.line(index)
    results.finish(
        f"{counted(len(pages), 'page')} made",
        wrote=[output],
        then=[look_at(page) for page in [*pages, *([] if index is None else [index])][-1:]],
        document={"output": output, "index": index, "pages": pages, "failed": failed_scans(failures.reasons)},
    )
    failures.refuse(
        "every page should be made",
        len(found),
        remedy="fix the problem in each line, or run halebrain detect --overwrite on those scans",
    )


def remake_page(
    path: Path, *, threshold: float | None = None, min_lesion_mm3: float | None = None, scan: Path | None = None
) -> Path:
    """Make the page of one detection again, and mask and table where the threshold changes; return the page's path.

    Another report, or a `halebrain view`, on the same detection is waited for.

    Args:
        path: Its provenance.
        threshold: The new threshold; `None` = not changed.
        min_lesion_mm3: The new smallest lesion; `None` = not changed.
        scan: The scan, where no earlier page holds it.

    Raises:
        DataError: The files do not belong together, or come from an older version without the necessary keys.
        MissingInputError: A file is missing.
        CannotWriteError: The folder cannot be written.
        UnavailableError: Another process did not release the detection in time.
    """
    from halebrain.core.files import file_lock
    from halebrain.view.files import page_of

    with file_lock(page_of(path)):
        return remake_locked_page(path, threshold=threshold, min_lesion_mm3=min_lesion_mm3, scan=scan)


def remake_locked_page(
    path: Path, *, threshold: float | None = None, min_lesion_mm3: float | None = None, scan: Path | None = None
) -> Path:
    """Do what `remake_page` does, for a caller who holds the lock of the page."""
    try:
        return _remake(path, threshold=threshold, min_lesion_mm3=min_lesion_mm3, scan=scan)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            "a provenance file must be as halebrain detect wrote it",
            received=f"{type(error).__name__}: {error}",
            where=path,
            remedy="run halebrain detect --overwrite",
        ) from error


def _remake(path: Path, *, threshold: float | None, min_lesion_mm3: float | None, scan: Path | None) -> Path:
    from halebrain.cli.pages import render
    from halebrain.core.files import atomic_path
    from halebrain.inference.lesions import read_lesions
    from halebrain.inference.outputs import OutputNames, write_mask_again
    from halebrain.report.cohort_page import read_provenance

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
    shown = _scan_of(names, maps, provenance, scan)
    choice = provenance["threshold"] | _changed(provenance["threshold"], threshold, min_lesion_mm3)
    if choice == provenance["threshold"]:
        table = read_lesions(names.file("anomaly", "lesions", ".tsv"))
        mosaic = names.mosaic.read_bytes() if names.mosaic.is_file() else b""
        for target, content in render(names, maps, shown, table, provenance, mosaic=mosaic).items():
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)
        return names.page
    maps, lesions = _called_anew(maps, provenance, choice)
    provenance |= {
        "threshold": choice,
        "n_lesions": len(lesions),
        "lesion_volume_ml": round(sum(lesion.volume_ml for lesion in lesions), 3),
    }
    if provenance.pop("dicom_seg", False):
        said = "the DICOM-SEG of the old mask was removed; halebrain detect --dicom-seg --overwrite writes a new one"
        typer.echo(f"halebrain: warning: {names.stem}: {said}", err=True)
    extra = render(names, maps, shown, [vars(lesion) for lesion in lesions], provenance)
    write_mask_again(names, maps.mask, maps.affine, lesions, provenance, extra, placement=maps.placement)
    return names.page


def _changed(before: dict[str, Any], threshold: float | None, min_lesion_mm3: float | None) -> dict[str, Any]:
    """Return the provenance of the new threshold."""
    from halebrain.thresholds.text import FIXED, reset_fields

    new: dict[str, Any] = {}
    if threshold is not None and threshold != before["value"]:
        new |= {"value": threshold, "name": FIXED} | reset_fields()
        # The method of the earlier value does not apply to this one.
        new |= {key: None for key in ("method", "n_scans", "healthy_share") if key in before}
    if min_lesion_mm3 is not None:
        new["min_lesion_mm3"] = min_lesion_mm3
    return new


def _called_anew(
    maps: "ScanMaps", provenance: dict[str, Any], choice: dict[str, Any]
) -> "tuple[ScanMaps, list[Lesion]]":
    """Return maps with the mask of another threshold, and its lesion table."""
    from dataclasses import replace

    import numpy as np

    from halebrain.core.mask import to_mask
    from halebrain.inference.lesions import lesion_table
    from halebrain.inference.regions import regions_are_known

    voxel_mm3 = abs(float(np.linalg.det(maps.affine[:3, :3])))
    called = to_mask(
        maps.score, threshold=choice["value"], min_lesion_mm3=choice["min_lesion_mm3"], voxel_mm3=voxel_mm3
    )
    mask: MaskArray = maps.brain_mask & called
    matrix = np.array(provenance["template_to_native"], dtype=np.float64)
    regions = regions_are_known(provenance.get("space"), provenance.get("qc", {}))
    lesions = lesion_table(mask, maps.score, maps.affine, matrix, regions=regions)
    return replace(maps, mask=mask), lesions


def _read_maps(names: "OutputNames") -> "ScanMaps":
    """Read the maps of a detection.

    Raises:
        DataError: They lie on different grids.
        MissingInputError: One is missing.
    """
    from halebrain.io.volume import read_map, read_mask, read_on_grid
    from halebrain.report.display import ScanMaps

    score = read_map(names.file("anomaly", "probseg"))

    def read(description: str, suffix: str = "") -> "FloatArray":
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


def _scan_of(names: "OutputNames", maps: "ScanMaps", provenance: dict[str, Any], scan: Path | None) -> "ShownVolume":
    """Return the scan as a page shows it: from the user's file, or from the page that is there.

    Raises:
        DataError: It is another scan.
        MissingInputError: There is neither.
    """
    from halebrain.io.checksum import scan_sha256
    from halebrain.io.volume import read_volume
    from halebrain.report.display import display_grid
    from halebrain.report.embedding import read_page, shown_scan

    if scan is not None:
        volume = read_volume(scan)
        if scan_sha256(scan) != provenance.get("input_sha256"):
            raise DataError("the scan must be the one that was processed", where=scan, remedy="give that file")
        return shown_scan(volume.data, maps.brain_mask, display_grid(maps.affine, maps.brain_mask))
    if not names.page.is_file():
        raise MissingInputError(
            "a page needs the scan", where=names.page, remedy="give it: halebrain report OUT -i SCAN"
        )
    _, volumes = read_page(names.page)
    if "scan" not in volumes:
        raise DataError("a page must hold its scan", where=names.page, remedy="give the scan: -i SCAN")
    return volumes["scan"]
