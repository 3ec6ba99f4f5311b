"""`halebrain prepare`: from raw scans to a data set that is preprocessed, checked and split."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli.console import QuietConsole, refuse_without_effect
from halebrain.cli.options import from_settings
from halebrain.cli.results import Results, command_line, failed_scans, left_out_groups, look_at
from halebrain.core.shipped_configs import shipped_configs
from halebrain.core.wording import counted
from halebrain.workflows.settings import Option, PartSettings, PrepareSettings, SchedulerSettings

if TYPE_CHECKING:
    from halebrain.workflows.prepare import PreparedScans


@from_settings(
    scheduler={
        "workers": Option("Number of scans in parallel, one process each; 0 = in this one; default: 1.", minimum=0)
    }
)
def prepare(
    context: typer.Context,
    source: Annotated[
        Path, Option("Raw scans: a folder, BIDS, DICOM, a list, a manifest, or a data set.", ("--input", "-i"))
    ],
    output: Annotated[Path, Option("Output data set, new or existing.", ("--output", "-o"), is_output=True)],
    settings: PrepareSettings,
    scheduler: SchedulerSettings,
    part: PartSettings,
    console: QuietConsole,
) -> None:
    """Preprocess raw scans into a data set with manifests and quality control. Resumes if run again."""
    results = console.begin("prepare")
    if settings.split is None:
        rule = "assigns subjects to the splits of --split, and has no effect without it"
        refuse_without_effect(context, ("seed",), rule, received="--seed alone", remedy="give --split, or remove it")
    from halebrain.workflows.prepare import prepare_dataset

    schedule = scheduler.schedule(output, threads=settings.threads, workers=1)
    done = prepare_dataset(source, output, settings, schedule=schedule, part=part, done=results.line)
    _print_summary(results, output, done, settings.config)
    done.failures.refuse(
        "every scan should be prepared",
        done.n_scans,
        where=output / f"failed{part.suffix}.tsv",
        remedy="fix the problem in each line, then run the same command again; it prepares only those scans",
    )


def _print_summary(results: Results, output: Path, done: "PreparedScans", config: Path | None) -> None:
    """Print the closing summary: number of prepared scans, paths and next step."""
    then: list[str] = []
    if done.files:
        has = "has" if done.flagged == 1 else "have"
        typer.echo(f"{done.flagged} of {counted(done.n_entries, 'scan')} {has} quality flags", err=True)
        if done.n_lesion_outside:
            share = f"{done.lesion_outside_ml:.1f} of {done.lesion_ml:.1f} ml of the annotated lesions"
            scans = counted(done.n_lesion_outside, "scan")
            typer.echo(f"{share} lie outside the working grid, in {scans}, and count nowhere on it", err=True)
        then = [look_at(output / "index.html"), _next_step(output / "manifest.tsv", config)]
    elif done.left and done.n_entries:
        are = f"{counted(done.left, 'scan')} {'is' if done.left == 1 else 'are'}"
        typer.echo(f"{are} left for other parts; the last part writes the manifests", err=True)
    if done.left:
        then = ["run the remaining parts; the last one writes the manifests"]
    said = f"{len(done.outcomes)} of {counted(done.n_scans, 'scan')} prepared, {done.n_kept} of them before"
    typer.echo(said, err=True)
    results.finish(
        f"{said}; {done.flagged} flagged" if done.flagged else said,
        wrote=[output],
        then=then,
        document={
            "output": output,
            "scans": done.n_scans,
            "left_out": left_out_groups(done.left_out),
            "prepared": len(done.outcomes),
            "kept": done.n_kept,
            "problems": list(done.problems),
            "failed": failed_scans(done.failures.reasons),
            "left": done.left,
            "flagged": done.flagged,
            "lesion_ml": done.lesion_ml,
            "lesion_outside_ml": done.lesion_outside_ml,
            "lesion_outside_scans": done.n_lesion_outside,
            "files": done.files,
        },
    )


def _next_step(table: Path, config: Path | None) -> str:
    """Return the command that learns from the data set, or what its manifest lacks for that."""
    from halebrain.io.manifest import Manifest

    if not any(record.is_healthy for record in Manifest.read(table).split("train")):
        return f'state in {table} the split and who is "healthy" (pathology), or prepare with --pathology and --split'
    shipped = shipped_configs("reconstructor")
    settings = config if config is not None and str(config) in shipped else "demo"
    return command_line("train", "reconstructor", "-c", settings, "--manifest", table, "-o", "runs/stage1")
