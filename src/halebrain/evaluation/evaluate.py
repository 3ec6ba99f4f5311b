"""From maps and references to a tidy table, a summary with intervals, and the files that hold them."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from halebrain.core.atomic import write_text
from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.metrics.voxelwise import average_precision
from halebrain.evaluation.statistics import Interval, bootstrap_mean


@dataclass(frozen=True)
class ScanScores:
    """One scan to be scored, over the voxels of its brain.

    Args:
        scan_id: Name of the scan.
        subject: Whose it is.
        modality: Its contrast.
        pathology: "healthy" or the disease; `None` where unknown.
        score: Graded map, 1-D, higher = more anomalous.
        reference: Bool, 1-D.
        spacing_mm: Voxel size of the grid that they lie on.
    """

    scan_id: str
    subject: str
    modality: str
    pathology: str | None
    score: npt.NDArray[np.float32]
    reference: npt.NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """One value of one scan."""

    scan_id: str
    subject: str
    modality: str
    pathology: str
    method: str
    metric: str
    unit: str
    value: float


@dataclass(frozen=True)
class Summary:
    """One metric over a group of scans: macro mean with interval, and pooled (micro) where it has a meaning."""

    group: str
    method: str
    metric: str
    unit: str
    interval: Interval
    pooled: float | None = None


@dataclass
class Evaluation:
    """All that an evaluation found.

    Args:
        rows: Tidy table, one row a scan, method and metric.
        summaries: Groups: everything, each modality, each pathology.
        provenance: Model, configuration, split, seed, threshold.
    """

    rows: list[Row] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def mean(self, metric: str, *, group: str = "all", method: str = "model") -> Interval:
        """Return the macro mean of one metric."""
        for summary in self.summaries:
            if (summary.group, summary.method, summary.metric) == (group, method, metric):
                return summary.interval
        raise KeyError(f"no summary of {metric} for {method} in {group}")


def intensity_rank(image: npt.NDArray[np.float32], modality: str) -> npt.NDArray[np.float32]:
    """Return the plain baseline: the rank of each voxel's intensity in its brain, in [0, 1].

    Lesions are bright on T2 and FLAIR and dark on T1, where the rank is turned over.
    """
    rank: npt.NDArray[np.float32] = np.asarray(stats.rankdata(image, method="average") / image.size, dtype=np.float32)
    return np.float32(1) - rank if modality.upper().startswith("T1") else rank


def score_scan(scan: ScanScores, *, threshold: float | None, method: str = "model") -> list[Row]:
    """Return every metric of one scan; those on masks only where there is a threshold."""
    rows = []
    for name in METRICS:
        metric = METRICS.get(name)
        prediction: npt.NDArray[np.generic] = scan.score
        if metric.needs == "mask":
            if threshold is None:
                continue
            prediction = scan.score >= threshold
        value = metric(prediction=prediction, reference=scan.reference, spacing_mm=scan.spacing_mm)
        about = (scan.scan_id, scan.subject, scan.modality, scan.pathology or "unknown", method)
        rows.append(Row(*about, name, metric.unit, value))
    return rows


def pooled_values(scans: Sequence[ScanScores], *, threshold: float | None) -> dict[str, float]:
    """Return metrics over the voxels of all scans together (micro), exact."""
    score = np.concatenate([scan.score for scan in scans])
    reference = np.concatenate([scan.reference for scan in scans])
    if not reference.any():
        return {}
    values = {"auprc": average_precision(score, reference)}
    if threshold is not None:
        predicted = score >= threshold
        values["dice"] = 2 * int((predicted & reference).sum()) / int(predicted.sum() + reference.sum())
    return values


def summarise(rows: Iterable[Row], *, seed: int, pooled: dict[str, dict[str, float]] | None = None) -> list[Summary]:
    """Return macro means with bootstrap intervals, for all scans, each modality, pathology, and pair of them.

    Args:
        rows: The tidy table.
        seed: Seed of the bootstrap.
        pooled: Method → metric → value over all voxels of all scans.
    """
    cells: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        groups = ("all", row.modality, row.pathology, f"{row.pathology} {row.modality}")
        for group in groups:
            cells.setdefault((group, row.method, row.metric, row.unit), []).append(row)
    summaries = []
    for (group, method, metric, unit), members in cells.items():
        interval = bootstrap_mean([r.value for r in members], [r.subject for r in members], seed=seed)
        micro = (pooled or {}).get(method, {}).get(metric) if group == "all" else None
        summaries.append(Summary(group, method, metric, unit, interval, micro))
    return summaries


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write `scans.tsv` (tidy), `summary.json` (with provenance) and `summary.md`; return the paths."""
    paths = [folder / "scans.tsv", folder / "summary.json", folder / "summary.md"]
    writers: list[Callable[[Evaluation], str]] = [_tsv, _json, markdown_table]
    for path, writer in zip(paths, writers, strict=True):
        write_text(path, writer(evaluation))
    return paths


def markdown_table(evaluation: Evaluation) -> str:
    """Return the macro means with 95 % intervals as a Markdown table, one line a group, method and metric."""
    lines = [
        "| group | method | metric | mean [95 % interval] | scans (undefined) | pooled |",
        "|---|---|---|---|---|---|",
    ]
    for s in evaluation.summaries:
        i = s.interval
        if i.n_scans == 0:
            continue
        bounds = "" if math.isnan(i.low) else f" [{i.low:.3f}, {i.high:.3f}]"
        unit = f" {s.unit}" if s.unit else ""
        pooled = "" if s.pooled is None else f"{s.pooled:.3f}"
        cells = (s.group, s.method, s.metric, f"{i.mean:.3f}{bounds}{unit}", f"{i.n_scans} ({i.n_undefined})", pooled)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _tsv(evaluation: Evaluation) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(Row.__dataclass_fields__)
    for row in evaluation.rows:
        value = "n/a" if math.isnan(row.value) else f"{row.value:.6g}"
        writer.writerow([*list(vars(row).values())[:-1], value])
    return buffer.getvalue()


def _json(evaluation: Evaluation) -> str:
    def clean(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else round(value, 6)

    summaries = [
        {
            "group": s.group,
            "method": s.method,
            "metric": s.metric,
            "unit": s.unit,
            "mean": clean(s.interval.mean),
            "low": clean(s.interval.low),
            "high": clean(s.interval.high),
            "n_scans": s.interval.n_scans,
            "n_undefined": s.interval.n_undefined,
            "pooled": clean(s.pooled),
        }
        for s in evaluation.summaries
    ]
    return json.dumps({"provenance": evaluation.provenance, "summaries": summaries}, indent=2) + "\n"
