"""`halebrain demo`: the bundled model on a virtual patient, or the whole method from scratch; one page each."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, look_at
from halebrain.core.errors import UsageError


def demo(
    context: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where everything goes; default: demo, with --train demo-train."),
    ] = None,
    pathology: Annotated[
        str,
        typer.Option(
            "--pathology",
            autocompletion=completion.among(*completion.PATHOLOGIES),
            help="Disease of the virtual patient.",
        ),
    ] = "tumour",
    spacing_mm: Annotated[
        float, typer.Option("--spacing-mm", min=1.0, max=4.0, help="Voxel size of the virtual patient's scans.")
    ] = 1.5,
    threshold: Annotated[
        str, typer.Option("--threshold", help="As in detect: auto, a number, or a stored name (ml:1, fpr:0.01).")
    ] = "auto",
    train: Annotated[
        bool, typer.Option("--train", help="Train both networks from scratch instead: 12 to 19 minutes on two cores.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="With --train: toy size, about a minute.")] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    overwrite: options.Overwrite = False,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Make a virtual patient, find the disease with the bundled model, write a page. Prints the page's path.

    The patient is scanned in T1w, T2w and FLAIR; no training saw this person. With --train the whole method runs: a
    virtual cohort, two trainings, thresholds, an evaluation on a disease that was not learned.
    """
    options.set_up(threads=threads, no_progress=no_progress)
    if quick and not train:
        raise UsageError("--quick goes with --train", remedy="add --train, or leave --quick out")
    if train:
        ignored, rule = ("pathology", "spacing_mm", "threshold"), "goes without --train, which makes its own cohort"
        options.refuse_without_effect(context, ignored, rule)
    results = Results("demo", as_json=as_json)
    if train:
        _train(results, output or Path("demo-train"), quick, seed, device, overwrite)
    else:
        patient = {"pathology": pathology, "spacing_mm": spacing_mm, "threshold": threshold, "seed": seed}
        _detect(results, output or Path("demo"), device, overwrite, **patient)


def _detect(results: Results, output: Path, device: str, overwrite: bool, **patient: Any) -> None:
    from halebrain.cli.demo_patient import run_patient_demo

    start = time.monotonic()
    page, judged = run_patient_demo(output, device=device, overwrite=overwrite, **patient)
    seconds = time.monotonic() - start
    own_scan = command_line("detect", "-i", "SCAN", "-o", "OUT")
    typer.echo(f"The demo took {seconds:.0f} seconds. On your own scan: {own_scan}", err=True)
    results.line(page)
    results.finish(
        f"a virtual patient ({patient['pathology']}): {len(judged)} scans through the bundled model",
        wrote=[output],
        then=[look_at(page), own_scan],
        document={
            "output": output,
            "page": page,
            "scans": [scan.document() for scan in judged],
            "seconds": round(seconds, 1),
        },
    )


def _train(results: Results, output: Path, quick: bool, seed: int, device: str, overwrite: bool) -> None:
    from halebrain.cli.demo_train import FULL, QUICK, run_trained_demo

    start = time.monotonic()
    trained = run_trained_demo(output, QUICK if quick else FULL, seed=seed, device=device, overwrite=overwrite)
    seconds = time.monotonic() - start
    typer.echo(f"The demo took {seconds / 60:.1f} minutes.", err=True)
    results.line(trained.page)
    results.finish(
        "a cohort, two trainings, thresholds, an evaluation and a detection",
        wrote=[output],
        then=[look_at(trained.page), command_line("detect", "-i", "SCAN", "-o", "OUT", "-m", trained.model)],
        document={"output": output, "page": trained.page, "model": trained.model, "seconds": round(seconds, 1)},
    )
