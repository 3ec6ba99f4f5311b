"""The page of a benchmark: every name is text, and its figures say what the table says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halebrain.evaluation.matrix import MatrixRow
from halebrain.report.matrix_page import counts_figure, examples_figure, transfer_figure, write_matrix_page

EVIL = "<script>alert(1)</script>"


def test_every_name_is_escaped(tmp_path: Path, matrix_table: list[MatrixRow]) -> None:
    rows = [
        replace(row, title=f"{EVIL}{row.title}", trained_on=EVIL, entries={EVIL: row.entries["ms"]})
        for row in matrix_table
    ]
    write_matrix_page(
        rows,
        [EVIL],
        tmp_path / "index.html",
        title=EVIL,
        reference=rows[0].title,
        pictures={},
        most={EVIL: 20},
        notes=[f"{EVIL}: {EVIL}"],
        provenance={EVIL: EVIL},
    )
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert text.count("<script") == 1, "its own, for light and dark"
    assert text.count("&lt;script&gt;alert(1)") >= 8


def test_the_page_states_that_subjects_are_drawn_whatever_their_sites(
    tmp_path: Path, matrix_table: list[MatrixRow]
) -> None:
    path = tmp_path / "index.html"
    write_matrix_page(
        matrix_table, ["ms"], path, title="t", reference="alone", pictures={}, most={}, notes=[], provenance={}
    )
    text = path.read_text(encoding="utf-8")
    assert "3 methods on 1 disease, 1 run each." in text
    assert "subjects drawn whole. *↑" in text
    assert "sites" not in text


def test_methods_with_fewer_runs_are_not_counted_as_the_others(tmp_path: Path, matrix_table: list[MatrixRow]) -> None:
    path, rows = tmp_path / "index.html", [replace(matrix_table[0], n_runs=5), *matrix_table[1:]]
    write_matrix_page(rows, ["ms"], path, title="t", reference="alone", pictures={}, most={}, notes=[], provenance={})
    assert "3 methods on 1 disease, 1 to 5 runs each." in path.read_text(encoding="utf-8")


def test_a_reference_that_lacks_a_disease_is_drawn_where_it_was_evaluated(matrix_table: list[MatrixRow]) -> None:
    alone, *others = matrix_table
    assert alone.title == "alone"
    part = replace(alone, entries={name: entry for name, entry in alone.entries.items() if name != "wmh"})
    whole, partly = (transfer_figure([row, *others], reference="alone").axes[0] for row in (alone, part))
    assert 0 < len(partly.collections) < len(whole.collections)
    most = {"ms": 20, "stroke": 20, "wmh": 20}
    figure = counts_figure([part, *others], most, reference="alone")
    assert figure is not None
    assert not [line for line in figure.axes[0].lines if str(line.get_label()).startswith("alone")]


def test_counts_are_drawn_in_order_with_the_reference_beside_them(matrix_table: list[MatrixRow]) -> None:
    figure = counts_figure(matrix_table, {"ms": 20, "stroke": 20, "wmh": 20}, reference="alone")
    assert figure is not None
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    assert np.allclose(lines["pair, trained on ms: ms"], [[2, 0.4], [20, 0.6]])
    assert np.allclose(lines["pair, trained on ms: unseen diseases"], [[2, 0.2], [20, 0.25]])
    assert np.allclose(lines["alone: ms"][:, 1], 0.2)
    assert np.allclose(lines["alone: all but ms"][:, 1], 0.2)
    assert not any("stroke" in str(label) for label in lines), "only one number of subjects was tried there"


def test_without_a_choice_of_counts_there_is_no_figure(matrix_table: list[MatrixRow]) -> None:
    assert counts_figure(matrix_table[:2], {"ms": 20}, reference="alone") is None


def test_transfer_shows_every_whole_row_once_with_what_the_reference_has(matrix_table: list[MatrixRow]) -> None:
    axes = transfer_figure(matrix_table, reference="alone").axes[0]
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in axes.lines}
    assert set(lines) == {"alone", "pair (ms)", "pair (stroke)"}
    assert [x for x, _ in lines["pair (ms)"]] == pytest.approx([0.6, 0.25])
    assert [x for x, _ in lines["alone"]] == pytest.approx([0.2])
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert all(y == titles.index(name) for name, points in lines.items() for _, y in points)
    marks = [tuple(points.get_offsets()[0]) for points in axes.collections]
    place = titles.index("pair (ms)")
    assert sorted(x for x, y in marks if y == place) == pytest.approx([0.2, 0.2, 0.25, 0.6])


def test_examples_show_the_methods_that_have_a_map() -> None:
    slice_ = np.zeros((12, 10), dtype=np.float16)
    slice_[4:6, 4:6] = 1
    pictures = {"image|ms": slice_, "lesion|ms": slice_, "alone|ms": slice_, "pair (ms)|ms": slice_}
    figure = examples_figure(pictures, "ms", ["alone", "pair (ms)", "absent"])
    assert [axis.get_title() for axis in figure.axes] == ["ms: scan", "alone", "pair\n(ms)"]
