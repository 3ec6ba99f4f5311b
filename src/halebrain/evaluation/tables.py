"""An evaluation as files: tidy TSV, JSON, Markdown and LaTeX."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from halebrain.core.files import write_text
from halebrain.evaluation.evaluate import Evaluation, Row, SetValue, Summary
from halebrain.evaluation.reconstruction_quality import ReconstructionQuality
from halebrain.evaluation.statistics import INTERVAL, Comparison, Interval
from halebrain.io.tables import MISSING, number_cell, tsv_text

COMPARISON = ("metric", "first", "second", "median difference", "subjects", "p", "p (Holm)")
"""Header of what `comparison_cells` returns."""
HEADLINE = ("dice", "auprc", "auroc", "lesion_f1", "false_positive_volume", "hd95")
_LATEX = {character: f"\\{character}" for character in "_%&#${}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write `scans.tsv` (tidy), `summary.json` (with provenance), `summary.md` and `summary.tex`; return the paths.

    `reconstruction.tsv` is there where the quality of the reconstruction was measured.
    """
    writers: dict[str, Callable[[Evaluation], str]] = {
        "scans.tsv": _tsv,
        "summary.json": _json,
        "summary.md": markdown,
        "summary.tex": latex,
    }
    if evaluation.reconstruction:
        writers["reconstruction.tsv"] = _levels_tsv
    else:  # that of an earlier evaluation is not of this one
        (folder / "reconstruction.tsv").unlink(missing_ok=True)
    for name, writer in writers.items():
        write_text(folder / name, writer(evaluation))
    return [folder / name for name in writers]


def markdown(evaluation: Evaluation) -> str:
    """Return set values, macro means with 95 % intervals, and the comparisons, as Markdown tables."""
    labels = evaluation.labels
    values = [(labels[v.method], v.metric, f"{v.value:.3f}", v.says) for v in evaluation.set_values]
    means = [
        (s.group, s.method, s.metric, with_interval(s.interval, s.unit), scan_counts(s.interval))
        for s in evaluation.summaries
    ]
    parts = ["## Values over the whole set\n", to_markdown(("method", "metric", "value", "definition"), values)]
    parts += ["## Means over scans (macro) with 95 % intervals\n", f"Intervals: {INTERVAL}.\n"]
    parts.append(to_markdown(("group", "method", "metric", "mean [interval]", "scans (undefined)"), means))
    if evaluation.comparisons:
        parts.append("## Methods compared (Wilcoxon signed-rank over subjects, Holm)\n")
        parts.append(to_markdown(COMPARISON, map(comparison_cells, evaluation.comparisons)))
    return "\n".join(parts)


def to_markdown(header: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in cells]
    return "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def comparison_cells(c: Comparison) -> list[str]:
    """Return a comparison as metric, methods, difference, subjects, p and corrected p."""
    figures = f"{c.median_difference:+.3f}", str(c.n_subjects), f"{c.p:.2g}", f"{c.p_holm:.2g}"
    return [c.metric, c.first, c.second, *figures]


def headline(evaluation: Evaluation) -> str:
    """Return what fits a terminal: the whole set, and the headline metrics over all scans, as tab-separated lines."""
    labels = evaluation.labels
    lines = [f"{labels[v.method]}\t{v.metric}\t{v.value:.3f}" for v in evaluation.set_values]
    for s in evaluation.summaries:
        if s.group == "all" and s.metric in HEADLINE:
            lines.append(f"{labels[s.method]}\t{s.metric}, mean over scans\t{with_interval(s.interval, s.unit)}")
    return "\n".join(lines) + "\n"


def latex(evaluation: Evaluation) -> str:
    """Return the headline metrics of each method over all scans as a LaTeX table (booktabs)."""
    methods = list(dict.fromkeys(s.method for s in evaluation.summaries))
    cells: dict[tuple[str, str], Summary] = {
        (s.method, s.metric): s for s in evaluation.summaries if s.group == "all" and s.metric in HEADLINE
    }
    shown = [name for name in HEADLINE if any((m, name) in cells for m in methods)]
    units = {name: next(cells[m, name].unit for m in methods if (m, name) in cells) for name in shown}
    heads = [_in_latex(name) + (f" [{units[name]}]" if units[name] else "") for name in shown]
    lines = [
        r"\begin{tabular}{l" + "c" * len(shown) + "}",
        r"\toprule",
        " & ".join(["method", *heads]) + r" \\",
        r"\midrule",
    ]
    for method in methods:
        values = [with_interval(cells[method, n].interval) if (method, n) in cells else "--" for n in shown]
        lines.append(" & ".join([_in_latex(evaluation.labels[method]), *values]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _in_latex(text: str) -> str:
    """Return text for LaTeX: a folder of predictions may have any name."""
    return "".join(_LATEX.get(character, character) for character in text)


def with_interval(interval: Interval, unit: str = "", *, digits: int = 3) -> str:
    """Return "0.512 [0.401, 0.620] ml", or the mean alone where there is no interval, or n/a."""
    if math.isnan(interval.mean):
        return MISSING
    bounds = "" if math.isnan(interval.low) else f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    return f"{interval.mean:.{digits}f}{bounds}" + (f" {unit}" if unit else "")


def scan_counts(interval: Interval) -> str:
    """Return "12 (1)": scans that define the metric, and those left out."""
    return f"{interval.n_scans} ({interval.n_undefined})"


def _tsv(evaluation: Evaluation) -> str:
    names = [f.name for f in fields(Row)]
    return tsv_text([names, *([_cell(getattr(row, name)) for name in names] for row in evaluation.rows)])


def _levels_tsv(evaluation: Evaluation) -> str:
    measures = [f.name for f in fields(ReconstructionQuality)]
    rows: list[list[object]] = [["scan_id", "subject", "level", *measures]]
    for entry in evaluation.reconstruction:
        values = (_cell(getattr(entry.quality, name)) for name in measures)
        rows.append([entry.scan_id, entry.subject, entry.level, *values])
    return tsv_text(rows)


def _cell(value: object) -> object:
    return number_cell(value) if value is None or isinstance(value, float) else value


def _json(evaluation: Evaluation) -> str:
    def flat(item: Summary | SetValue | Comparison) -> dict[str, object]:
        about = asdict(item)
        about |= about.pop("interval", {})
        return {key: _json_number(value) if isinstance(value, float) else value for key, value in about.items()}

    content = {
        "provenance": evaluation.provenance.as_json(),
        "set": [flat(value) for value in evaluation.set_values],
        "summaries": [flat(summary) for summary in evaluation.summaries],
        "comparisons": [flat(comparison) for comparison in evaluation.comparisons],
    }
    return json.dumps(content, indent=2) + "\n"


def _json_number(value: float) -> float | None:
    """Return six decimals; of a small number, such as a p-value, six digits."""
    if math.isnan(value):
        return None
    return float(f"{value:.6g}") if abs(value) < 1 else round(value, 6)
