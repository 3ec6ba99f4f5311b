"""The benchmark: every method of a file trained and evaluated, with tables, figures and the page."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from halebrain.benchmarking import run
from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.plan import chosen_cells, plan, planned_runs, reference_title
from halebrain.benchmarking.run import collect_pictures, method_runs, training_subjects
from halebrain.core.about import versions
from halebrain.core.commands import end_commands, start_command
from halebrain.core.config import load_config
from halebrain.core.device import find_device
from halebrain.core.errors import DataError, UsageError
from halebrain.core.files import write_text
from halebrain.core.shipped_configs import find_config
from halebrain.evaluation.contrasts import TEST, assess_contrasts, contrast_rows, contrasts_tsv
from halebrain.evaluation.matrix import build_matrix, interval_rows, matrix_tsv, paper_rows, runs_tsv
from halebrain.evaluation.provenance import WORKING_GRID
from halebrain.evaluation.statistics import SUBJECT_INTERVAL
from halebrain.evaluation.tables import to_markdown
from halebrain.report.matrix_page import write_matrix_page
from halebrain.workflows.folds import fold_tables
from halebrain.workflows.settings import BenchmarkSettings

_LAST_PAGE_S = 300.0
"""Maximum wait for the other processes once every cell is done: each writes the same tables."""
_SAVE_S = 30.0
"""Maximum wait for their checkpoints if this process is interrupted."""


@dataclass(frozen=True)
class BenchmarkResults:
    """A benchmark and its files.

    Args:
        outcome: Finished cells, those that failed with the reason, and notes.
        files: Tables, and the page last.
    """

    outcome: run.Outcome
    files: list[Path]


def run_benchmark(output: Path, settings: BenchmarkSettings) -> BenchmarkResults:
    """Train and evaluate every cell that has no result yet in `output`, and write tables, figures and the page."""
    config = read_matrix(settings)
    # What is wrong with a cell is reported once, before any process is started.
    chosen_cells(plan(config), settings.only)
    with _on_every_device(output, settings) as device:
        outcome = run.run_benchmark(config, output, device=device, only=settings.only, notify=settings.notify)
    return BenchmarkResults(outcome, _write_results(config, outcome, output))


def read_matrix(settings: BenchmarkSettings) -> MatrixConfig:
    """Return the configuration of a benchmark, with the tables of its folds."""
    found = find_config(settings.config, "matrix")
    if found is None:
        raise UsageError(
            "a benchmark needs a configuration file", remedy="give -c FILE, or -c cpu for the shipped configuration"
        )
    config = load_config(MatrixConfig, found, settings.overrides)
    if settings.folds is None:
        return config
    return config.model_copy(update={"folds": tuple(fold_tables(settings.folds)), "manifest": None})


@contextmanager
def _on_every_device(output: Path, settings: BenchmarkSettings) -> Iterator[torch.device]:
    """Give the device of this process while others run the same benchmark on the other devices of the machine.

    Each process takes a cell that no other one has (one lock a cell), and waits in the end until all are done.
    """
    device = find_device(settings.device)
    if settings.devices == 1:
        yield device
        return
    if str(device) not in ("cpu", "cuda") or (device.type == "cuda" and torch.cuda.device_count() < settings.devices):
        raise UsageError(
            "--devices counts the GPUs of this machine, or processes on its CPU",
            received=f"--devices {settings.devices} --device {settings.device}",
            remedy="use fewer --devices, and --device cuda or cpu",
        )
    names = [f"cuda:{n}" if device.type == "cuda" else "cpu" for n in range(settings.devices)]
    typed = ["benchmark", "--output", str(output), "--config", str(settings.config), "--no-progress"]
    typed += [] if settings.folds is None else ["--folds", str(settings.folds)]
    typed += [word for pair in settings.overrides for word in ("--set", pair)]
    typed += [word for pattern in settings.only for word in ("--only", pattern)]
    threads = max(1, torch.get_num_threads() // settings.devices)
    torch.set_num_threads(threads)
    own = {"OMP_NUM_THREADS": str(threads)}
    running = [start_command([*typed, "--device", name], environment=own, prints=False) for name in names[1:]]
    try:
        yield torch.device(names[0])
        end_commands(running, wait_s=_LAST_PAGE_S)
    finally:
        end_commands(running, wait_s=_SAVE_S, ask=True)


def _write_results(config: MatrixConfig, outcome: run.Outcome, output: Path) -> list[Path]:
    """Write tables, figures and the page of what has finished, and return their paths."""
    runs = method_runs(outcome)
    if not runs:
        raise DataError(
            "a benchmark needs at least one finished cell",
            received=f"{len(outcome.failures)} failed",
            remedy="fix the problems above, then run the same command again; it resumes",
        )
    cells = plan(config)
    reference = reference_title(config, cells)
    table = build_matrix(runs, config.columns, reference=reference)
    stated = [entry.contrast for entry in config.contrasts]
    contrasts = assess_contrasts(runs, stated, config.pathologies, planned_runs(cells))
    provenance = {
        "config": config.model_dump(mode="json"),
        "cells": {cell.key: result.provenance for cell, result in outcome.results},
        "failures": outcome.failures,
        "runs": sorted({method.run for method in runs}),
        "grid": WORKING_GRID,
        "interval": SUBJECT_INTERVAL,
        "versions": versions(),
        "contrasts": [result.to_json() for result in contrasts],
        "contrast_test": TEST,
    }
    whole = [row for row in table if row.n_annotated is None]
    first = to_markdown(*paper_rows(whole, config.columns, config.published))
    pooled = to_markdown(*paper_rows(whole, config.columns, pooled=True))
    second = to_markdown(*interval_rows(whole, config.columns, reference=reference))
    texts = {
        "results.tsv": runs_tsv(runs),
        "matrix.tsv": matrix_tsv(table),
        "matrix.md": (
            f"⌈Dice⌉ / AUPRC of each scan, mean over scans.\n\n{first}\nThe same over all voxels of a set together.\n\n"
            f"{pooled}\nMean AUPRC over scans. Intervals: {SUBJECT_INTERVAL}.\n\n{second}"
        ),
        "matrix.json": json.dumps(provenance, indent=2) + "\n",
    }
    if contrasts:
        texts["contrasts.tsv"] = contrasts_tsv(contrasts)
        texts["matrix.md"] += f"\nContrasts: {TEST}.\n\n{to_markdown(*contrast_rows(contrasts))}"
    else:  # those of an earlier file are stated no longer
        (output / "contrasts.tsv").unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(output / name, text)
    page = output / "index.html"
    write_matrix_page(
        table,
        config.columns,
        page,
        title="Benchmark",
        reference=reference,
        contrasts=contrasts,
        pictures=collect_pictures(config, outcome, output),
        most=training_subjects(config, output),
        notes=[f"{key}: {why}" for key, why in outcome.failures.items()] + outcome.empty,
        provenance=provenance,
        published=config.published,
    )
    return [*(output / name for name in texts), page]
