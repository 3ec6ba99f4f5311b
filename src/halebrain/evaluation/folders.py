"""Evaluation of two folders: the same metrics for results of any tool."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from halebrain.core.failures import Failures
from halebrain.evaluation.evaluate import Evaluation, Evaluator
from halebrain.evaluation.pairs import Pair, PairOptions, look_at_pairs, read_case
from halebrain.evaluation.statistics import INTERVAL
from halebrain.io.checksum import file_sha256


def evaluate_pairs(
    pairs: list[Pair], options: PairOptions, *, method: str, seed: int, failures: Failures
) -> tuple[Evaluation, list[str]]:
    """Score every pair, one at a time.

    Args:
        pairs: What to score.
        options: How to read it; whether the predictions are graded is found out here.
        method: Name of the predictions in the tables.
        seed: Seed of the bootstrap.
        failures: Collects pairs that fail; the others are scored without them.

    Returns:
        What was found, and notes: what the predictions are taken for, and what was done to files.

    Raises:
        DataError: No pair can be compared (the message is that of the first), or a label that was named is in no
            reference.
        UsageError: A threshold is given for masks.
    """
    options, notes = look_at_pairs(pairs, options)
    evaluator = Evaluator(seed=seed)

    def score(pair: Pair) -> None:
        case, said = read_case(pair, options)
        evaluator.add(method, case, show=True)
        notes.extend(said)

    pairs = failures.each(score, pairs, name=lambda pair: pair.scan_id, description="Evaluating")
    provenance: dict[str, Any] = {
        "predictions": [_about(pair.prediction) for pair in pairs],
        "references": [_about(pair.reference) for pair in pairs],
        "options": asdict(options),
        "region": "whole image" if pairs[0].brain_mask is None else "brain masks",
        "grid": "native (of the references)",
        "seed": seed,
        "interval": INTERVAL,
        "notes": notes,
        "failed": dict(failures.reasons),
    }
    return evaluator.finish(provenance), notes


def _about(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": file_sha256(path)}
