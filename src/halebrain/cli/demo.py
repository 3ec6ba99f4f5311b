"""`halebrain demo`: the bundled model on a virtual patient, or the whole method from scratch; one page each."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli import completion, options
from halebrain.cli.results import Results, command_line, look_at
from halebrain.core.errors import UsageError

if TYPE_CHECKING:
    from halebrain.workflows.demo import PatientDemo


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
        from halebrain.workflows.demo import PatientDemo

        patient = PatientDemo(pathology, spacing_mm, threshold, seed, device, overwrite, options.echo_message)
        _detect(results, output or Path("demo"), patient)


def _detect(results: Results, output: Path, patient: "PatientDemo") -> None:
    from halebrain.workflows.demo import run_patient_demo

    made = run_patient_demo(output, patient)
    own_scan = command_line("detect", "-i", "SCAN", "-o", "OUT")
    typer.echo(f"The demo took {made.seconds:.0f} seconds. On your own scan: {own_scan}", err=True)
    results.line(made.page)
    results.finish(
        f"a virtual patient ({patient.pathology}): {len(made.scans)} scans through the bundled model",
        wrote=[output],
        then=[look_at(made.page), own_scan],
        document={
            "output": output,
            "page": made.page,
            "scans": [scan.document() for scan in made.scans],
            "seconds": round(made.seconds, 1),
        },
    )


def _train(results: Results, output: Path, quick: bool, seed: int, device: str, overwrite: bool) -> None:
    from halebrain.workflows.demo_training import FULL, QUICK, run_trained_demo

    trained = run_trained_demo(
        output,
        QUICK if quick else FULL,
        seed=seed,
        device=device,
        overwrite=overwrite,
        notify=options.echo_message,
    )
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
