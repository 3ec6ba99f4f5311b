"""The page of a benchmark: whatever a method or a disease is called, it is text."""

from dataclasses import replace
from pathlib import Path

from halebrain.evaluation.matrix import MatrixRow
from halebrain.report.matrix_page import write_matrix_page

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
