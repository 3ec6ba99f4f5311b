"""The page of an evaluation."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from halebrain.core.files import write_bytes
from halebrain.core.wording import counted
from halebrain.evaluation.evaluate import Evaluation, Row, Summary
from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.reconstruction_quality import summarise_levels
from halebrain.evaluation.statistics import INTERVAL, SUBJECT_INTERVAL
from halebrain.evaluation.tables import COMPARISON, HEADLINE, comparison_cells, scan_counts, with_interval
from halebrain.report.evaluation_figures import (
    dice_by_size_figure,
    froc_figure,
    gallery_figure,
    levels_figure,
    precision_recall_figure,
    reliability_figure,
    volume_agreement_figure,
)
from halebrain.report.page import Page, Section, write_page

_CONFOUNDED = (
    "Caution: if healthy subjects and patients come from different scanners, these values also measure the scanner. "
    "The false positives of healthy scans by site, age and sex show how much."
)

_FILE_NAMES = {
    "Calibration of the score": "is_the_score_a_probability",
    "Lesion sensitivity and false positives (FROC)": "lesions_found_against_false_ones",
    "Reconstruction quality": "the_reconstruction__does_it_remove_the_lesion_and_keep_the_rest",
}
"""Title of a section → name of its figure file, if it is not made from the title: files keep their names."""


def write_evaluation_page(evaluation: Evaluation, path: Path, *, title: str) -> None:
    """Write the page, one self-contained HTML file, and each figure as a PNG in `figures/` beside it."""
    method = evaluation.rows[0].method
    rows = [r for r in evaluation.rows if r.method == method]
    sections = [s for s in _sections(evaluation, method, rows) if s.figure is not None or s.rows]
    page = Page(
        title=title,
        lead=f"{counted(len({r.scan_id for r in rows}), 'scan')} of "
        f"{counted(len({r.subject for r in rows}), 'subject')}, grid: {evaluation.provenance.grid}.",
        numbers=_numbers(evaluation, method),
        sections=sections,
        provenance=evaluation.provenance.as_json(),
    )
    # Each figure is drawn once: drawing is what takes the time here.
    for section, picture in zip(sections, write_page(page, path, dpi=150), strict=True):
        if picture:
            write_bytes(path.parent / "figures" / f"{_file_name(section.title)}.png", picture)


def _sections(evaluation: Evaluation, method: str, rows: Sequence[Row]) -> Iterator[Section]:
    yield _means(evaluation)
    yield _own(evaluation, method)
    yield Section("Worst, median and best", figure=gallery_figure(evaluation.thumbnails))
    yield _whole_set(evaluation)
    labels = evaluation.labels
    if evaluation.curves:
        caption = "Over the voxels of all scans together; the legend gives the area under each curve."
        yield Section(
            "Precision and recall",
            figure=precision_recall_figure({labels[name]: one for name, one in evaluation.curves.items()}),
            caption=caption,
        )
    if evaluation.reliability:
        yield Section(
            "Calibration of the score",
            figure=reliability_figure({labels[name]: one for name, one in evaluation.reliability.items()}),
        )
    if evaluation.froc:
        caption = "Candidates are the predicted lesions at the frozen threshold, ranked by their peak score."
        title = "Lesion sensitivity and false positives (FROC)"
        yield Section(
            title, figure=froc_figure({labels[name]: one for name, one in evaluation.froc.items()}), caption=caption
        )
    if evaluation.reconstruction:
        yield _reconstruction(evaluation)
    yield Section("Dice by lesion size", figure=dice_by_size_figure(rows))
    yield Section("Agreement of volumes", figure=volume_agreement_figure(rows))
    yield _strata(evaluation, method)
    yield _comparisons(evaluation)


def _file_name(title: str) -> str:
    return _FILE_NAMES.get(title) or "".join(c if c.isalnum() else "_" for c in title.lower())


def _numbers(evaluation: Evaluation, method: str) -> list[tuple[str, str]]:
    found = []
    for summary in evaluation.summaries:
        if (summary.group, summary.method) == ("all", method) and summary.metric in HEADLINE[:4]:
            value = with_interval(summary.interval, summary.unit, digits=2)
            found.append((value, f"{summary.metric}, mean over {counted(summary.interval.n_scans, 'scan')}"))
    return found


def _means(evaluation: Evaluation) -> Section:
    """Return the metrics that several methods have, side by side."""
    chosen = [s for s in evaluation.summaries if s.group == "all"]
    methods = list(dict.fromkeys(s.method for s in chosen))
    cells = {(s.metric, s.method): s for s in chosen}
    names = [n for n in dict.fromkeys(s.metric for s in chosen) if all((n, m) in cells for m in methods)]
    return Section(
        "Means over scans",
        text=[
            f"Macro means. Intervals: {INTERVAL}. Undefined scans are counted.",
            *(f"{name}: {METRICS.get(name).says}." for name in names if len(methods) > 1),
        ],
        header=(
            "metric",
            *(evaluation.labels[method] for method in methods),
            "scans (undefined)",
            *(["definition"] if len(methods) == 1 else []),
        ),
        rows=[
            [
                name,
                *(_cell(cells[name, m]) for m in methods),
                scan_counts(cells[name, methods[0]].interval),
                *([METRICS.get(name).says] if len(methods) == 1 else []),
            ]
            for name in names
        ],
    )


def _own(evaluation: Evaluation, method: str) -> Section:
    """Return the metrics that `method` alone has, because it alone has a threshold."""
    chosen = [s for s in evaluation.summaries if s.group == "all"]
    shared = {s.metric for s in chosen if s.method != method}
    several = bool(shared)
    return Section(
        f"At the frozen threshold: {method}",
        header=("metric", "mean [95 % interval]", "scans (undefined)", "definition"),
        rows=[
            [s.metric, _cell(s), scan_counts(s.interval), METRICS.get(s.metric).says]
            for s in chosen
            if several and s.method == method and s.metric not in shared
        ],
    )


def _whole_set(evaluation: Evaluation) -> Section:
    methods = list(dict.fromkeys(v.method for v in evaluation.set_values))
    cells = {(v.metric, v.method): v for v in evaluation.set_values}
    names = list(dict.fromkeys(v.metric for v in evaluation.set_values))
    rows = []
    for name in names:
        own = [cells.get((name, m)) for m in methods]
        says = next(v.says for v in own if v is not None)
        rows.append([name, *("" if v is None else f"{v.value:.3f}" for v in own), says])
    return Section(
        "Values over the whole set",
        text=[_CONFOUNDED] if any(name.startswith("scan_") for name in names) else [],
        header=("metric", *(evaluation.labels[method] for method in methods), "definition"),
        rows=rows,
    )


def _reconstruction(evaluation: Evaluation) -> Section:
    means = summarise_levels(evaluation.reconstruction, seed=evaluation.provenance.seed)
    levels = list(dict.fromkeys(level for level, _ in means))
    measures = [m for m in dict.fromkeys(m for _, m in means) if any(means[level, m].n_scans for level in levels)]
    return Section(
        "Reconstruction quality",
        text=[
            "Compared with the true healthy image if known, on the working grid, intensities in [0, 1]. A residual "
            "contrast above 1 means that the lesion stands out from 95 % of the rest of the brain. "
            f"Intervals: {SUBJECT_INTERVAL}."
        ],
        figure=levels_figure(means),
        header=("mean [95 % interval]", *(f"level {level}" if level.isdigit() else level for level in levels)),
        rows=[
            [m, *(with_interval(means[level, m]).replace(" ", "\N{NO-BREAK SPACE}") for level in levels)]
            for m in measures
        ],
    )


def _strata(evaluation: Evaluation, method: str) -> Section:
    wanted = [m for m in (*HEADLINE, "lesion_sensitivity") if m != "auroc"]
    chosen = [s for s in evaluation.summaries if s.method == method and s.group != "all" and s.metric in wanted]
    groups = list(dict.fromkeys(s.group for s in chosen))
    shown = [name for name in wanted if any(s.metric == name for s in chosen)]
    cells = {(s.group, s.metric): s for s in chosen}
    return Section(
        f"By group: {method}",
        header=("group", "scans", *shown),
        rows=[
            [
                group,
                str(max(s.interval.n_scans + s.interval.n_undefined for s in chosen if s.group == group)),
                *(_cell(cells.get((group, m))) for m in shown),
            ]
            for group in groups
        ],
    )


def _comparisons(evaluation: Evaluation) -> Section:
    return Section(
        "Methods compared",
        text=["Wilcoxon signed-rank tests over subjects, corrected for their number (Holm)."],
        header=COMPARISON,
        rows=[comparison_cells(c) for c in evaluation.comparisons],
    )


def _cell(summary: Summary | None) -> str:
    # Non-breaking spaces keep an interval on one line.
    return "" if summary is None else with_interval(summary.interval, summary.unit).replace(" ", "\N{NO-BREAK SPACE}")
