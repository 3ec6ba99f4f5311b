"""The evaluation of two folders: the same numbers for any tool's results."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from halebrain.core.progress import track
from halebrain.evaluation.evaluate import Evaluation, Evaluator
from halebrain.evaluation.pairs import Pair, PairOptions, look_at_pairs, read_case
from halebrain.evaluation.statistics import INTERVAL
from halebrain.io.checksum import file_sha256


def evaluate_pairs(pairs: list[Pair], options: PairOptions, *, method: str, seed: int) -> tuple[Evaluation, list[str]]:
    """Score every pair, one at a time.

    Args:
        pairs: What to score.
        options: How to read it; whether the predictions are graded is found out here.
        method: What the tables call the predictions.
        seed: Seed of the bootstrap.

    Returns:
        What was found, and notes: what the predictions are taken for, and what was done to files.

    Raises:
        DataError: A pair cannot be compared, or a label that was named is in no reference; the message names it.
        UsageError: A threshold is given for masks.
    """
    options, notes = look_at_pairs(pairs, options)
    evaluator = Evaluator(seed=seed)
    for pair in track(pairs, description="Evaluating", total=len(pairs)):
        case, said = read_case(pair, options)
        evaluator.add(method, case, show=True)
        notes += said
    provenance: dict[str, Any] = {
        "predictions": [_about(pair.prediction) for pair in pairs],
        "references": [_about(pair.reference) for pair in pairs],
        "options": asdict(options),
        "region": "whole image" if pairs[0].brain_mask is None else "brain masks",
        "grid": "native (of the references)",
        "seed": seed,
        "interval": INTERVAL,
        "notes": notes,
    }
    return evaluator.finish(provenance), notes


def _about(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": file_sha256(path)}
