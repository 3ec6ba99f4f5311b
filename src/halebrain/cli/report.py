"""`halebrain report`: make pages again from the files of a detection, without networks."""

from pathlib import Path
from typing import Annotated

import typer

from halebrain.cli import options
from halebrain.cli.results import Results, failed_scans, look_at
from halebrain.core.wording import counted


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
        Path | None,
        typer.Option("--input", "-i", help="The scan, if its display file is missing (one detection only)."),
    ] = None,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Make the pages of a detection again; with --threshold also the mask and the lesion table. Runs no network."""
    options.set_up(no_progress=no_progress)
    from halebrain.workflows.remake_pages import RemakeSettings, remake_pages

    results = Results("report", as_json=as_json)
    settings = RemakeSettings(threshold, min_lesion_mm3, scan, options.echo_message)
    made = remake_pages(output, settings, done=results.line)
    last = made.index or (made.pages[-1] if made.pages else None)
    results.finish(
        f"{counted(len(made.pages), 'page')} made",
        wrote=[output],
        then=[] if last is None else [look_at(last)],
        document={
            "output": output,
            "index": made.index,
            "pages": made.pages,
            "failed": failed_scans(made.failures.reasons),
        },
    )
    made.failures.refuse(
        "every page should be made",
        made.n_detections,
        remedy="fix the problem in each line, or run halebrain detect --overwrite on those scans",
    )
