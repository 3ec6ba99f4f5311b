"""Files of a whole prepared data set: manifests, quality table, a page with pictures of every scan."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from halebrain.cli.results import Results
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.data.prepared_set import QualityEntry
    from halebrain.io.manifest import Manifest
    from halebrain.io.manifest_sidecar import Origin


@dataclass(frozen=True)
class Finished:
    """Files written for the whole data set.

    Args:
        files: Manifests, table and page; empty where other parts are not there yet.
        left: Scans of other parts that are not there yet.
        flagged: Scans with quality flags.
    """

    files: tuple[Path, ...] = ()
    left: int = 0
    flagged: int = 0


def finish(
    output: Path,
    manifest: "Manifest",
    origin: "Origin",
    failures: dict[str, str],
    *,
    part: str,
    results: Results | None = None,
) -> Finished:
    """Write the files of the whole data set from the existing scans, and report their paths.

    Of several parts, only the one that finds all scans there (or failed) writes it.

    Args:
        output: The data set.
        manifest: All raw scans.
        origin: Where they came from.
        failures: Scan → reason, of this part.
        part: Added to the name of the list of failures.
        results: Receives the paths as they are written; `None` = print to stdout.
    """
    from halebrain.core.files import write_text
    from halebrain.data.prepared_set import (
        quality_entries,
        read_entries,
        read_failures,
        write_manifests,
        write_quality_table,
    )

    failed = output / f"failed{part}.tsv"
    if failures:
        rows = [f"{name}\t{' '.join(failures[name].split())}" for name in sorted(failures)]
        write_text(failed, "\n".join(["scan\treason", *rows]) + "\n")
    else:
        failed.unlink(missing_ok=True)
    entries = read_entries(output)
    done = {entry.raw.scan_id for entry in entries} | set(read_failures(output))
    missing = [record.scan_id for record in manifest if record.scan_id not in done]
    if not entries:
        return Finished(left=len(missing))
    if missing:
        are = f"{counted(len(missing), 'scan')} {'is' if len(missing) == 1 else 'are'}"
        typer.echo(f"{are} left for other parts; the last part writes the manifests", err=True)
        return Finished(left=len(missing))
    results = results or Results("prepare")
    files = [*write_manifests(output, entries, manifest, origin), output / "qc.tsv", output / "index.html"]
    quality = quality_entries(entries)
    write_quality_table(quality, output / "qc.tsv")
    for path in files[:-1]:
        results.line(path)
    write_page(output, quality, read_failures(output))
    results.line(files[-1])
    flagged = sum(bool(scan.flags) for scan in quality)
    has = "has" if flagged == 1 else "have"
    typer.echo(f"{flagged} of {counted(len(quality), 'scan')} {has} quality flags", err=True)
    return Finished(tuple(files), flagged=flagged)


def write_page(output: Path, quality: "Sequence[QualityEntry]", failures: dict[str, str]) -> None:
    """Write `index.html`, with a picture of every scan; pictures are drawn once and kept in `figures/`."""
    from halebrain.core.files import atomic_path
    from halebrain.core.progress import track
    from halebrain.io.volume import read_map, read_mask
    from halebrain.preprocessing.geometry import Grid
    from halebrain.preprocessing.template import template_on
    from halebrain.report.quality_page import QualityRow, quality_picture, write_quality_page

    rows = []
    for scan in track(quality, description="Drawing", total=len(quality)):
        raw, files = scan.entry.raw, scan.entry.files
        path = output / "figures" / f"{raw.scan_id}.jpg"
        if not path.is_file() or path.stat().st_mtime < files.sidecar.stat().st_mtime:
            image = read_map(files.image)
            template, _ = template_on(Grid(image.shape, image.affine), scan.entry.atlas)
            picture = quality_picture(image.data, read_mask(files.brain_mask, image), template)
            with atomic_path(path) as temporary:
                temporary.write_bytes(picture)
        rows.append(QualityRow(raw.scan_id, raw.modality, scan.figures, scan.flags, path.read_bytes()))
    write_quality_page(rows, failures, output / "index.html")
