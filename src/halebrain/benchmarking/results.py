"""Results of a benchmark, in the form for tables and figures."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.run import PICTURES, Outcome, manifests
from halebrain.evaluation.matrix import MethodRun
from halebrain.io.manifest import Manifest


def method_runs(outcome: Outcome) -> list[MethodRun]:
    """Return one entry a finished cell and row, in the order of the file: by block, then as they come."""
    found: list[MethodRun] = []
    for cell, result in outcome.results:
        for label in cell.rows.values():
            rows = [row for row in result.rows if row.method == label.title]
            pooled = result.pooled.get(label.title, {})
            run = f"fold{cell.fold} seed{cell.seed}"
            found.append(MethodRun(label.title, label.block, label.trained_on, label.n_annotated, run, rows, pooled))
    blocks = list(dict.fromkeys(sorted({run.block for run in found})))
    return sorted(found, key=lambda run: blocks.index(run.block))


def collect_pictures(config: MatrixConfig, outcome: Outcome, output: Path) -> dict[str, npt.NDArray[np.floating]]:
    """Return the example slices of the first seed and fold."""
    found: dict[str, npt.NDArray[np.floating]] = {}
    for cell, result in outcome.results:
        if cell.fold > 0 or cell.seed not in (config.seeds[0], 0):
            continue
        path = (output / "cells" / cell.key).with_name(result.provenance["folder"]) / PICTURES
        with np.load(path) as stored:
            found |= {name: stored[name] for name in stored.files if name not in found}
    return found


def training_subjects(config: MatrixConfig, output: Path) -> dict[str, int]:
    """Return disease → annotated training subjects of the first fold."""
    train = Manifest.read(manifests(config, output)[0]).split("train")
    train = train.select(lambda r: r.modality == config.modality and r.lesion is not None and not r.is_healthy)
    return {name: len(train.select(lambda r, n=name: r.pathology == n).subjects()) for name in config.pathologies}  # type: ignore[misc]
