"""The page of a benchmark: the table of results, seen and unseen diseases, and example pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from halebrain.core.wording import counted
from halebrain.evaluation.matrix import MatrixRow
from halebrain.evaluation.matrix_tables import Published, interval_rows, paper_rows
from halebrain.evaluation.statistics import INTERVAL
from halebrain.report.figures import save_figure
from halebrain.report.matrix_figures import Pictures, counts_figure, examples_figure, transfer_figure
from halebrain.report.page import Page, Section, write_page

_FORM = (
    "As in the paper: ⌈Dice⌉ / AUPRC in %, over all voxels of a set together, mean ± standard deviation "
    "over runs. "
    "⌈Dice⌉ stands at the threshold that is best for the test set itself: an upper bound, not a result. "
    "★ = the method learned from this disease. False positives: share of the voxels of healthy test brains above "
    "the threshold that was best on validation scans."
)
_INTERVALS = (
    f"Mean AUPRC over scans, each averaged over runs. Intervals: {INTERVAL}. *↑ and *↓: better or "
    "worse than the reference (Wilcoxon signed-rank over subjects, Holm-corrected within the column, p < 0.05)."
)


def write_matrix_page(
    table: Sequence[MatrixRow],
    columns: Sequence[str],
    path: Path,
    *,
    title: str,
    reference: str,
    pictures: Pictures,
    most: Mapping[str, int],
    notes: Sequence[str],
    provenance: dict[str, Any],
    published: Published | None = None,
) -> None:
    """Write the page, and its figures as PNG in `figures/` beside it.

    Args:
        table: The rows.
        columns: Diseases.
        path: The HTML file.
        title: Heading.
        reference: Title of the row that the others are tested against.
        pictures: Example slices.
        most: Disease → annotated subjects that there are for training.
        notes: What failed or is missing, a line each.
        provenance: Shown at the end.
        published: Figures to print beside ours.
    """
    whole = [row for row in table if row.n_annotated is None]
    header, cells = paper_rows(whole, columns, published)
    sections = [Section("Results", text=[_FORM], header=header, rows=cells)]
    if notes:
        sections.append(Section("Not finished", header=("what", "why"), rows=[note.split(": ", 1) for note in notes]))
    header, cells = interval_rows(whole, columns, reference=reference)
    sections.append(Section("With intervals", text=[_INTERVALS], header=header, rows=cells))
    figures = {"seen_and_unseen": transfer_figure(table, reference=reference)}
    sections.append(Section("Seen and unseen", figure=figures["seen_and_unseen"]))
    counts = counts_figure(table, most, reference=reference)
    if counts is not None:
        figures["annotated_subjects"] = counts
        sections.append(Section("Number of annotated subjects", figure=counts))
    for column in columns:
        if f"image|{column}" in pictures:
            figures[f"example_{column}"] = examples_figure(pictures, column, [row.title for row in whole])
            sections.append(
                Section(
                    f"One scan: {column}",
                    figure=figures[f"example_{column}"],
                    caption="Test scan of median lesion volume; lesion in green, first run, each map on its own scale.",
                )
            )
    runs = counted(max(row.n_runs for row in table), "run")
    lead = f"{counted(len(whole), 'method')} on {counted(len(columns), 'disease')}, {runs} each."
    write_page(Page(title=title, lead=lead, sections=sections, provenance=provenance), path)
    for name, figure in figures.items():
        save_figure(figure, path.parent / "figures" / f"{name}.png", dpi=150)
