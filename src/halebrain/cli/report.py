"""`halebrain report`: make pages again from the files of a detection, without networks."""

from pathlib import Path
from typing import Annotated

from halebrain.cli.console import QuietConsole, echo_message
from halebrain.cli.options import from_settings
from halebrain.cli.results import failed_scans, look_at
from halebrain.core.wording import counted
from halebrain.workflows.settings import Option


@from_settings()
def report(
    *,
    output: Annotated[Path, Option("Output of halebrain detect: one scan, or a folder of many.", is_argument=True)],
    threshold: Annotated[
        float | None, Option("New threshold of the anomaly score, applied to the stored maps.")
    ] = None,
    min_lesion_mm3: Annotated[
        float | None, Option("Smallest lesion kept, mm³; default: not changed.", minimum=0)
    ] = None,
    grow_to: Annotated[
        float | None, Option("Lower threshold to which findings of the new threshold grow; default: no growth.")
    ] = None,
    scan: Annotated[
        Path | None, Option("The scan, if its display file is missing (one detection only).", ("--input", "-i"))
    ] = None,
    console: QuietConsole,
) -> None:
    """Make the pages of a detection again; with --threshold also the mask and the lesion table. Runs no network."""
    results = console.begin("report")
    from halebrain.workflows.remake_pages import remake_pages
    from halebrain.workflows.remake_settings import RemakeSettings

    settings = RemakeSettings(threshold, min_lesion_mm3, scan, echo_message, grow_to)
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
