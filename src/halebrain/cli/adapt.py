"""`halebrain adapt`: fine-tune a model's segmenter on a few annotated scans."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from halebrain.cli.console import Console
from halebrain.cli.options import from_settings
from halebrain.cli.results import Results, command_line, failed_scans, look_at
from halebrain.core.wording import counted
from halebrain.workflows.settings import AdaptSettings, ManifestPath, Option, Output, PartSettings, SchedulerSettings

if TYPE_CHECKING:
    from halebrain.workflows.adapt import PreparedPart


@from_settings(
    scheduler={
        "workers": Option(
            "Number of raw scans that are prepared in parallel, one process each; default: one after the other.",
            minimum=0,
        )
    },
    part={
        "num_parts": Option(
            "Number of parts that the raw scans are divided into; a part prepares its scans, and nothing else.",
            minimum=1,
        )
    },
)
def adapt(
    output: Output,
    manifest: ManifestPath,
    settings: AdaptSettings,
    scheduler: SchedulerSettings,
    part: PartSettings,
    console: Console,
) -> None:
    """Fine-tune a model on a few annotated scans (1 to 20), raw or prepared. The new model is OUTPUT/model.

    Rows of the split "test" take no part; they are scored before and after. Run the same command again to resume.
    """
    results = console.begin("adapt")
    from halebrain.workflows.adapt import adapt_model, prepare_adaptation

    schedule = scheduler.schedule(output, threads=console.threads)
    if part.num_parts > 1:
        prepared = prepare_adaptation(manifest, output, settings, part, schedule=schedule)
        _tell_part(results, output, prepared, failed=output / "work" / f"failed{part.suffix}.tsv")
        return
    paths = adapt_model(manifest, output, settings, schedule=schedule)
    for path in paths:
        results.line(path)
    said = json.loads((output / "adaptation.json").read_text(encoding="utf-8"))
    pages = [look_at(path) for path in paths if path.suffix == ".html"]
    results.finish(
        f"adapted in {counted(said['choice']['steps'], 'step')}; before and after: {output / 'adaptation.md'}",
        wrote=[output / "model"],
        then=[*pages, command_line("detect", "-i", "SCAN", "-o", "OUT", "-m", output / "model")],
        document={"output": output, "model": output / "model", "files": paths, **said},
    )


def _tell_part(results: Results, output: Path, done: "PreparedPart", *, failed: Path) -> None:
    """Print which scans of a part are prepared, and how many others are left."""
    reasons = done.failures.reasons
    n_prepared = done.n_scans - len(reasons)
    said = f"{n_prepared} of {counted(done.n_scans, 'scan')} prepared, {done.n_kept} of them before"
    if left := len(done.left):
        then = f"{counted(left, 'scan')} {'is' if left == 1 else 'are'} left for other parts"
    else:
        then = "all other scans are prepared: run the command without --part-id and --num-parts"
    typer.echo(said, err=True)
    typer.echo(then, err=True)
    results.finish(
        said,
        wrote=[output],
        then=[then],
        document={
            "output": output,
            "scans": done.n_scans,
            "prepared": n_prepared,
            "kept": done.n_kept,
            "left": left,
            "failed": failed_scans(reasons),
        },
    )
    done.failures.refuse(
        "every scan must be prepared before training",
        done.n_scans,
        where=failed,
        remedy="fix the problem in each line, or remove those rows from the manifest; the others stay prepared",
    )
