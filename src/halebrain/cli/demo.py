"""`halebrain demo`: the bundled model on a virtual patient, or the whole method from scratch; one page each."""

from pathlib import Path
from typing import Annotated

import typer

from halebrain.cli.console import Console, refuse_without_effect
from halebrain.cli.options import from_settings
from halebrain.cli.results import Results, command_line, look_at
from halebrain.core.errors import UsageError
from halebrain.workflows.settings import DemoSettings, Option


@from_settings()
def demo(
    *,
    context: typer.Context,
    output: Annotated[
        Path | None,
        Option("Where everything goes; default: demo, with --train demo-train.", ("--output", "-o"), is_output=True),
    ] = None,
    train: Annotated[bool, Option("Train both networks from scratch instead: 12 to 19 minutes on two cores.")] = False,
    quick: Annotated[bool, Option("With --train: toy size, about a minute.")] = False,
    settings: DemoSettings,
    console: Console,
) -> None:
    """Make a virtual patient, find the disease with the bundled model, write a page. Prints the page's path.

    The patient is scanned in T1w, T2w and FLAIR; no training saw this person. With --train the whole method runs: a
    virtual cohort, two trainings, thresholds, an evaluation on a disease that was not learned.
    """
    results = console.begin("demo")
    if quick and not train:
        raise UsageError("--quick goes with --train", remedy="add --train, or leave --quick out")
    if train:
        ignored, rule = ("pathology", "spacing_mm", "threshold"), "goes without --train, which makes its own cohort"
        refuse_without_effect(context, ignored, rule)
        _train(results, output or Path("demo-train"), settings, quick=quick)
    else:
        _detect(results, output or Path("demo"), settings)


def _detect(results: Results, output: Path, settings: DemoSettings) -> None:
    from halebrain.workflows.demo import run_patient_demo

    made = run_patient_demo(output, settings)
    own_scan = command_line("detect", "-i", "SCAN", "-o", "OUT")
    typer.echo(f"The demo took {made.seconds:.0f} seconds. On your own scan: {own_scan}", err=True)
    results.line(made.page)
    results.finish(
        f"a virtual patient ({settings.pathology}): {len(made.scans)} scans through the bundled model",
        wrote=[output],
        then=[look_at(made.page), own_scan],
        document={
            "output": output,
            "page": made.page,
            "scans": [scan.document() for scan in made.scans],
            "seconds": round(made.seconds, 1),
        },
    )


def _train(results: Results, output: Path, settings: DemoSettings, *, quick: bool) -> None:
    from halebrain.workflows.demo_training import FULL, QUICK, run_trained_demo

    trained = run_trained_demo(output, QUICK if quick else FULL, settings)
    typer.echo(f"The demo took {trained.seconds / 60:.1f} minutes.", err=True)
    results.line(trained.page)
    results.finish(
        "a cohort, two trainings, thresholds, an evaluation and a detection",
        wrote=[output],
        then=[look_at(trained.page), command_line("detect", "-i", "SCAN", "-o", "OUT", "-m", trained.model)],
        document={
            "output": output,
            "page": trained.page,
            "model": trained.model,
            "seconds": round(trained.seconds, 1),
        },
    )
