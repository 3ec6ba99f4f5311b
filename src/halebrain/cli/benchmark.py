"""`halebrain benchmark`: train and evaluate many methods in the same way."""

import typer

from halebrain.cli.console import Console, echo_message
from halebrain.cli.options import from_settings
from halebrain.cli.results import look_at
from halebrain.core.wording import counted
from halebrain.workflows.settings import BenchmarkSettings, Output

_SOME_FAILED = 3


@from_settings()
def benchmark(output: Output, settings: BenchmarkSettings, console: Console) -> None:
    """Train and evaluate every method of a file on seen and unseen diseases; run it again to resume."""
    results = console.begin("benchmark")
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
