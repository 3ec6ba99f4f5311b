"""The matrix of a benchmark, against values worked out by hand."""

import math
from dataclasses import replace

import pytest

from halebrain.evaluation.evaluate import Row
from halebrain.evaluation.matrix import (
    MatrixRow,
    MethodRun,
    build_matrix,
    interval_rows,
    matrix_tsv,
    paper_rows,
    runs_tsv,
)
from halebrain.evaluation.tables import to_markdown

N = 10


def make_row(title: str, subject: str, pathology: str, metric: str, value: float) -> Row:
    return Row(
        scan_id=f"sub-{subject}",
        subject=subject,
        modality="FLAIR",
        pathology=pathology,
        site=None,
        age=None,
        sex=None,
        lesion_ml=0.0 if pathology == "healthy" else 1.0,
        method=title,
        metric=metric,
        unit="1",
        value=value,
    )


def make_run(title: str, trained_on: str, run: str, ms: float, stroke: float, *, count: int | None = None) -> MethodRun:
    rows = [make_row(title, "h", "healthy", "specificity", 0.99)]
    for n in range(N):
        for pathology, value in (("ms", ms), ("stroke", stroke)):
            rows.append(make_row(title, f"{pathology}{n}", pathology, "auprc", value + 0.001 * n))
            rows.append(make_row(title, f"{pathology}{n}", pathology, "dice", value / 2))
            rows.append(make_row(title, f"{pathology}{n}", pathology, "dice_oracle_per_scan", value + 0.05))
    pooled = {name: {"auprc": x, "dice_oracle_set": x + 0.1} for name, x in (("ms", ms), ("stroke", stroke))}
    return MethodRun(title, "block", trained_on, count, run, rows, pooled)


@pytest.fixture
def table() -> list[MatrixRow]:
    runs = [
        make_run("alone", "–", "seed0", 0.2, 0.3),
        make_run("alone", "–", "seed1", 0.4, 0.3),
        make_run("pair (ms)", "ms", "seed0", 0.5, 0.2),
        make_run("pair (ms)", "ms", "seed1", 0.7, 0.2),
        make_run("both (ms)", "DAG + ms", "seed0", 0.3, 0.3),
    ]
    return build_matrix(runs, ["ms", "stroke"], reference="alone")


def test_scans_of_one_subject_are_drawn_together() -> None:
    one = make_run("alone", "–", "seed0", 0.2, 0.3)
    spread = [replace(row, value=row.value + 0.03 * (int(row.subject[-1]) % 3)) for row in one.rows if row.value < 0.9]
    again = [replace(row, scan_id=f"{row.scan_id}_run-2") for row in spread]
    once, twice = (
        build_matrix([replace(one, rows=rows)], ["ms"], reference="alone")[0].entries["ms"].auprc
        for rows in (spread, spread + again)
    )
    assert (once.n_scans, twice.n_scans) == (N, 2 * N)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high)), "the same scans twice say no more"


def test_runs_are_averaged_and_their_spread_is_told(table: list[MatrixRow]) -> None:
    pair = table[1]
    assert (pair.title, pair.n_runs) == ("pair (ms)", 2)
    ms = pair.entries["ms"]
    assert ms.pooled_auprc.mean == pytest.approx(0.6)
    assert ms.pooled_auprc.std == pytest.approx(math.sqrt(0.02))
    assert ms.pooled_best_dice.mean == pytest.approx(0.7)
    # Means over the scans of each run, 0.5 + 0.05 and 0.7 + 0.05, then over runs.
    assert (ms.best_dice.mean, ms.best_dice.std) == (pytest.approx(0.65), pytest.approx(math.sqrt(0.02)))
    assert ms.run_auprc.mean == pytest.approx(0.6045)
    # Over scans: 0.6 + the mean of 0, 0.001 … 0.009.
    assert ms.auprc.mean == pytest.approx(0.6045)
    assert ms.dice.mean == pytest.approx(0.3)
    assert ms.auprc.low < 0.6045 < ms.auprc.high
    assert pair.false_positive_rate is not None
    assert pair.false_positive_rate.mean == pytest.approx(0.01)


def test_what_was_learned_from_is_marked(table: list[MatrixRow]) -> None:
    seen = {row.title: [column for column, entry in row.entries.items() if entry.seen] for row in table}
    assert seen == {"alone": [], "pair (ms)": ["ms"], "both (ms)": ["ms"]}


def test_differences_are_paired_and_corrected(table: list[MatrixRow]) -> None:
    alone, pair, both = table
    assert math.isnan(alone.entries["ms"].difference)
    assert pair.entries["ms"].difference == pytest.approx(0.3)
    assert pair.entries["stroke"].difference == pytest.approx(-0.1)
    # Ten differences of one sign: p = 2 / 2^10, doubled by Holm, as two rows are tested.
    assert pair.entries["ms"].p_holm == pytest.approx(2 * 2 / 2**N)
    assert both.entries["stroke"].p_holm == 1


def test_a_scan_without_a_lesion_takes_no_subject_out_of_the_test() -> None:
    runs = [make_run("alone", "–", "seed0", 0.2, 0.3), make_run("pair (ms)", "ms", "seed0", 0.5, 0.2)]
    for run in runs:
        for row in [row for row in run.rows if row.pathology == "ms" and row.metric == "auprc"]:
            run.rows.append(replace(row, scan_id=f"{row.scan_id}_ses-2", value=math.nan))
    ms = build_matrix(runs, ["ms"], reference="alone")[1].entries["ms"]
    assert (ms.auprc.n_scans, ms.auprc.n_undefined) == (N, N)
    assert (ms.run_auprc.mean, ms.run_auprc.n) == (pytest.approx(ms.auprc.mean), 1)
    assert ms.difference == pytest.approx(0.3)
    assert ms.p_holm == pytest.approx(2 / 2**N)


def test_tables_say_the_same(table: list[MatrixRow]) -> None:
    published = {"pair (ms)": {"stroke": (12.3, 4.5)}}
    header, cells = paper_rows(table, ["ms", "stroke", "wmh"], published)
    assert header[3:6] == ["ms", "stroke", "wmh"]
    assert cells[1][3:] == ["65.0 ± 14.1 / 60.4 ± 14.1 ★", "25.0 ± 0.0 / 20.4 ± 0.0 [12.3 / 4.5]", "–", "1.00"]
    assert cells[2][3] == "35.0 / 30.4 ★", "one run has no spread"
    _, cells = paper_rows(table, ["ms", "stroke", "wmh"], pooled=True)
    assert cells[1][3:] == ["70.0 ± 14.1 / 60.0 ± 14.1 ★", "30.0 ± 0.0 / 20.0 ± 0.0", "–", "1.00"]
    _, cells = interval_rows(table, ["ms", "stroke"], reference="alone")
    assert cells[0][0] == "alone (reference)"
    assert cells[1][1].endswith("★ *↑")
    assert cells[1][2].endswith("*↓")
    assert "*" not in cells[2][2]
    assert to_markdown(["a|b"], [["c\nd"]]) == "| a|b |\n|---|\n| c d |\n"


def test_files_are_tidy(table: list[MatrixRow]) -> None:
    lines = [line.split("\t") for line in matrix_tsv(table).splitlines()]
    assert len(lines) == 1 + 3 * 2
    assert len({len(line) for line in lines}) == 1
    first = dict(zip(lines[0], lines[3], strict=True))
    assert (first["row"], first["column"], first["seen"], first["runs"]) == ("pair (ms)", "ms", "yes", "2")
    assert float(first["healthy_false_positive_rate"]) == pytest.approx(0.01)
    run = make_run("pair (ms)", "ms", "seed0", 0.5, 0.2, count=2)
    lines = [line.split("\t") for line in runs_tsv([run]).splitlines()]
    assert len(lines) == 1 + len(run.rows)
    assert lines[1][:5] == ["seed0", "pair (ms)", "block", "ms", "2"]


def test_what_is_not_defined_is_missing_in_the_tables() -> None:
    run = make_run("pair (ms)", "ms", "seed0", math.nan, 0.2)
    cells = [line.split("\t") for line in runs_tsv([run]).splitlines()[1:]]
    assert {cell[-1] for cell in cells if cell[7] == "ms"} == {"n/a"}
    header, *lines = [
        line.split("\t") for line in matrix_tsv(build_matrix([run], ["ms", "stroke"], reference="alone")).splitlines()
    ]
    found = {line[header.index("column")]: dict(zip(header, line, strict=True)) for line in lines}
    assert (found["ms"]["auprc"], found["ms"]["dice_low"]) == ("n/a", "n/a")
    assert float(found["stroke"]["auprc"]) == pytest.approx(0.2045)
    assert "nan" not in runs_tsv([run]) + matrix_tsv(build_matrix([run], ["ms", "stroke"], reference="alone"))
