"""`halebrain benchmark`: train and evaluate many methods in the same way."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from halebrain.cli import options
from halebrain.cli.results import Results, look_at
from halebrain.core.wording import counted

if TYPE_CHECKING:
    from halebrain.benchmark.config import MatrixConfig
    from halebrain.benchmark.run import Outcome
    from halebrain.evaluation.matrix import MethodRun

_SOME_FAILED = 3


def benchmark(
    output: options.Output,
    config: options.ConfigPath = None,
    overrides: options.Overrides = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    no_progress: options.NoProgress = False,
    as_json: options.Json = False,
) -> None:
    """Train and evaluate every method of a file on seen and unseen diseases; run it again to resume."""
    options.set_up(threads=threads, no_progress=no_progress)
    from halebrain.benchmark.config import MatrixConfig
    from halebrain.benchmark.run import run_benchmark
    from halebrain.core.config import load_config
    from halebrain.core.errors import UsageError

    found = options.find_config(config, "matrix")
    if found is None:
        raise UsageError(
            "a benchmark needs a configuration file", remedy="give -c FILE, or -c cpu for the shipped configuration"
        )
    settings = load_config(MatrixConfig, found, overrides or [])
    outcome = run_benchmark(settings, output, device=options.find_device(device))
    told = Results("benchmark", as_json=as_json)
    files = write_results(settings, outcome, output)
    for path in files:
        told.line(path)
    for key, reason in outcome.failures.items():
        typer.echo(f"halebrain: {key} failed: {reason}", err=True)
    for note in outcome.empty:
        typer.echo(f"halebrain: {note}", err=True)
    done = counted(len(outcome.results), "cell")
    told.finish(
        f"{done} done, {len(outcome.failures)} failed" if outcome.failures else f"{done} done",
        wrote=[output],
        then=[look_at(output / "index.html")],
        document={
            "output": output,
            "files": files,
            "cells": [cell.key for cell, _ in outcome.results],
            "failed": [{"cell": key, "error": reason} for key, reason in outcome.failures.items()],
            "notes": outcome.empty,
        },
    )
    if outcome.failures:
        raise typer.Exit(_SOME_FAILED)


def write_results(config: "MatrixConfig", outcome: "Outcome", output: Path) -> list[Path]:
    """Write tables, figures and the page of what has finished, and return their paths.

    Raises:
        DataError: Nothing has.
    """
    from halebrain.benchmark.plan import plan, reference_title
    from halebrain.benchmark.results import collect_pictures, method_runs, training_subjects
    from halebrain.core.errors import DataError
    from halebrain.core.files import write_text
    from halebrain.evaluation.matrix import build_matrix
    from halebrain.evaluation.matrix_tables import interval_rows, matrix_tsv, paper_rows, runs_tsv, to_markdown
    from halebrain.evaluation.statistics import INTERVAL
    from halebrain.report.matrix_page import write_matrix_page

    runs = method_runs(outcome)
    if not runs:
        raise DataError(
            "a benchmark needs at least one finished cell",
            received=f"{len(outcome.failures)} failed",
            remedy="fix the problems above, then run the same command again; it resumes",
        )
    reference = reference_title(config, plan(config))
    table = build_matrix(runs, config.columns, reference=reference)
    provenance = _provenance(config, outcome, runs)
    paths = {name: output / name for name in ("results.tsv", "matrix.tsv", "matrix.md", "matrix.json", "index.html")}
    write_text(paths["results.tsv"], runs_tsv(runs))
    write_text(paths["matrix.tsv"], matrix_tsv(table))
    whole = [row for row in table if row.n_annotated is None]
    first = to_markdown(*paper_rows(whole, config.columns, config.published))
    second = to_markdown(*interval_rows(whole, config.columns, reference=reference))
    write_text(paths["matrix.md"], f"{first}\nIntervals: {INTERVAL}.\n\n{second}")
    write_text(paths["matrix.json"], json.dumps(provenance, indent=2) + "\n")
    write_matrix_page(
        table,
        config.columns,
        paths["index.html"],
        title="Benchmark",
        reference=reference,
        pictures=collect_pictures(config, outcome, output),
        most=training_subjects(config, output),
        notes=[f"{key}: {why}" for key, why in outcome.failures.items()] + outcome.empty,
        provenance=provenance,
        published=config.published,
    )
    return list(paths.values())


def _provenance(config: "MatrixConfig", outcome: "Outcome", runs: "list[MethodRun]") -> dict[str, Any]:
    from halebrain.core.about import versions
    from halebrain.evaluation.statistics import INTERVAL

    return {
        "config": config.model_dump(mode="json"),
        "cells": {cell.key: result.provenance for cell, result in outcome.results},
        "failures": outcome.failures,
        "runs": sorted({run.run for run in runs}),
        "grid": "working grid, resampled labels",
        "interval": INTERVAL,
        "versions": versions(),
    }
