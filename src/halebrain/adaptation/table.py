"""The table of an adaptation: before, after and the difference, with intervals over subjects."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from halebrain.adaptation.folds import StepChoice
from halebrain.core.about import NOTICE
from halebrain.evaluation.evaluate import Evaluation, Row, clusters_of
from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.statistics import INTERVAL, Interval, bootstrap_mean
from halebrain.evaluation.tables import to_markdown, with_interval

AFTER, BEFORE = "adapted", "before"
_SHOWN = ("auprc", "dice", "dice_oracle_per_scan", "false_positive_volume")


@dataclass(frozen=True)
class Change:
    """One metric in one group of scans, "left out" or "held out": means before and after, and of after minus before."""

    scans: str
    group: str
    metric: str
    before: Interval
    after: Interval
    difference: Interval


def changes(scans: str, evaluation: Evaluation, *, seed: int) -> list[Change]:
    """Return the change of every shown metric in every group; scans where it is undefined are left out.

    The evaluation has rows of the methods `BEFORE` and `AFTER`; the seed is that of the bootstrap.
    """
    groups: dict[tuple[str, str], dict[str, dict[str, Row]]] = {}
    for row in evaluation.rows:
        if row.metric in _SHOWN:
            cell = groups.setdefault((f"{row.pathology} {row.modality}", row.metric), {BEFORE: {}, AFTER: {}})
            cell[row.method][row.scan_id] = row
    found = []
    for (group, metric), cell in sorted(groups.items(), key=lambda item: (item[0][0], _SHOWN.index(item[0][1]))):
        names = [n for n, row in cell[AFTER].items() if not np.isnan(row.value)]
        rows = [cell[AFTER][name] for name in names]
        after = np.array([row.value for row in rows])
        # A model without thresholds has no mask to evaluate.
        before = np.array([cell[BEFORE][n].value if n in cell[BEFORE] else np.nan for n in names])
        if names:
            clusters = clusters_of(rows)
            low, high = METRICS.get(metric).bounds
            parts = ((before, (low, high)), (after, (low, high)), (after - before, (low - high, high - low)))
            means = (bootstrap_mean(v.tolist(), clusters, seed=seed, bounds=bounds) for v, bounds in parts)
            found.append(Change(scans, group, metric, *means))
    return found


def report(table: list[Change], choice: StepChoice, notes: Sequence[str]) -> str:
    """Return what an adaptation found as Markdown: the table, how many steps were chosen and why, and the notes."""
    lines = ["# Before and after adaptation", "", NOTICE, ""]
    if table:
        cells = []
        for change in table:
            values = map(with_interval, (change.before, change.after, change.difference))
            cells.append((change.scans, change.group, change.metric, str(change.difference.n_scans), *values))
        lines.append(to_markdown(("scans", "group", "metric", "n", "before", "adapted", "difference"), cells))
    else:
        lines.append("No scan was left out or held out: the effect is unknown.")
    lines += ["", f"Intervals: {INTERVAL}.", "", f"Steps taken: {choice.steps}.", ""]
    if choice.tried:
        rows = [(str(steps), f"{value:.3f}") for steps, value in zip(choice.tried, choice.auprc, strict=True)]
        lines.append(to_markdown(("steps", "mean AUPRC of subjects left out"), rows))
    return "\n".join([*lines, *(f"- {note}" for note in notes)]) + "\n"


def changes_json(table: list[Change], choice: StepChoice, notes: Sequence[str]) -> str:
    """Return the same as JSON; what is undefined is null."""

    def clean(value: object) -> object:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        return None if isinstance(value, float) and math.isnan(value) else value

    content = {
        "interval": INTERVAL,
        "changes": [clean(asdict(c)) for c in table],
        "choice": asdict(choice),
        "notes": list(notes),
    }
    return json.dumps(content, indent=2) + "\n"
