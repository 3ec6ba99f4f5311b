"""`halebrain benchmark`: train and evaluate many methods in the same way, or tell what this would cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halebrain.cli.console import Console, echo_message, refuse_without_effect
from halebrain.cli.options import from_settings
from halebrain.cli.results import Results, look_at
from halebrain.core.wording import counted
from halebrain.workflows.settings import BenchmarkSettings, Option, Output

if TYPE_CHECKING:
    from halebrain.workflows.benchmark_plan import BenchmarkPlan

_SOME_FAILED = 3


@from_settings()
def benchmark(
    context: typer.Context,
    output: Output,
    settings: BenchmarkSettings,
    console: Console,
    dry_run: Annotated[
        bool, Option("Train nothing: print the cells, their cost in PFLOP, hours and memory, and missing inputs.")
    ] = False,
    tflops: Annotated[float, Option("10¹² operations a second of your device, for the hours.", minimum=1e-6)] = 10.0,
) -> None:
    """Train and evaluate every method of a file on seen and unseen diseases; run it again to resume."""
    results = console.begin("benchmark")
    if dry_run:
        from halebrain.workflows.benchmark_plan import plan_benchmark

        _tell_plan(results, output, plan_benchmark(output, settings), tflops)
        return
    refuse_without_effect(context, ("tflops",), "needs --dry-run", received="--tflops alone", remedy="add --dry-run")
    from halebrain.workflows.benchmark import run_benchmark

    done = run_benchmark(output, settings)
    for path in done.files:
        results.line(path)
    failed, notes = done.outcome.failures, done.outcome.empty
    for message in (*(f"{key} failed: {reason}" for key, reason in failed.items()), *notes):
        echo_message(message)
    cells = counted(len(done.outcome.results), "cell")
    results.finish(
        f"{cells} done, {len(failed)} failed" if failed else f"{cells} done",
        wrote=[output],
        then=[look_at(output / "index.html")],
        document={
            "output": output,
            "files": done.files,
            "cells": [cell.key for cell, _ in done.outcome.results],
            "failed": [{"cell": key, "error": reason} for key, reason in failed.items()],
            "notes": notes,
        },
    )
    if failed:
        raise typer.Exit(_SOME_FAILED)


def _tell_plan(results: Results, output: Path, plan: "BenchmarkPlan", tflops: float) -> None:
    """Print a line for each training of the file, the sums, and what is missing; exit code 3 where anything is."""
    hours = plan.hours(tflops)
    results.line("cell\tkind\ttimes\tdone\tPFLOP each\thours each\tGB")
    for name in dict.fromkeys(cell.name for cell in plan.cells):
        own = [cell for cell in plan.cells if cell.name == name]
        each = max(cell.flop for cell in own)
        known = not own[0].unknown
        figures = (each / 1e15, each / (tflops * 1e12) / 3600, own[0].memory_bytes / 1e9)
        texts = [f"{figure:.3g}" if known else "n/a" for figure in figures]
        results.line("\t".join([name, own[0].kind, str(len(own)), str(sum(c.done for c in own)), *texts]))
    done = f"{counted(len(plan.cells), 'cell')}, {len(plan.cells) - len(plan.left)} done"
    cost = f"{plan.flop / 1e15:.3g} PFLOP left, {hours:.3g} hours at {tflops:g} TFLOP/s"
    memory = f"{plan.memory_bytes / 1e9:.3g} GB for training, {plan.disk_bytes / 1e9:.3g} GB of temporary files"
    said = f"{done}: {cost}; {memory}"
    echo_message(said)
    for line in plan.missing:
        echo_message(f"missing: {line}")
    unknown = {cell.name: cell.unknown for cell in plan.cells if cell.unknown}
    for name, why in unknown.items():
        echo_message(f"cost of {name} not known: {why}")
    results.finish(
        said,
        then=[f"{counted(len(plan.missing), 'input')} missing"] if plan.missing else [],
        document={
            "output": output,
            "cells": [
                {
                    **{"cell": cell.key, "kind": cell.kind, "done": cell.done, "unknown": cell.unknown or None},
                    **{"flop_training": cell.train, "flop_evaluation": cell.evaluate},
                    "training_bytes": cell.memory_bytes,
                }
                for cell in plan.cells
            ],
            "flop": plan.flop,
            "tflops": tflops,
            "hours": hours,
            "training_bytes": plan.memory_bytes,
            "disk_bytes": plan.disk_bytes,
            "missing": plan.missing,
        },
    )
    if plan.missing:
        raise typer.Exit(_SOME_FAILED)
