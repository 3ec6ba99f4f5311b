"""Scans whose name is markup, which is text on every page and as it is in tables and JSON; and very long names."""

import csv
import json
import shutil

import pytest

NAME = "<script>alert(1)<b>_FLAIR"
BROKEN = "<script>alert(2)<b>_FLAIR"


@pytest.mark.slow
def test_a_name_that_is_markup_is_text_on_every_page(small_model, small_cohort, command, tmp_path):
    folder, out = tmp_path / "scans", tmp_path / "out"
    folder.mkdir()
    scan = small_cohort([("a", "FLAIR", "test", "ms")]).parent / "sub-a_FLAIR.nii.gz"
    shutil.copy(scan, folder / f"{NAME}.nii.gz")
    (folder / f"{BROKEN}.nii.gz").write_bytes(b"no image")
    options = ("--threshold", 0.3, "--no-progress", "--json")
    code, said = command("detect", "-i", folder, "-o", out, "-m", small_model, *options)
    assert code == 3, said.err

    found = json.loads(said.out)
    assert [entry["scan"] for entry in found["scans"]] == [NAME]
    assert [entry["scan"] for entry in found["failed"]] == [BROKEN]
    provenance = json.loads((out / NAME / f"{NAME}_desc-anomaly_provenance.json").read_text(encoding="utf-8"))
    assert (provenance["scan"], provenance["input"]) == (NAME, f"{NAME}.nii.gz")
    with (out / "failed.tsv").open(newline="", encoding="utf-8") as handle:
        assert [row["scan"] for row in csv.DictReader(handle, delimiter="\t")] == [BROKEN]

    assert command("report", out, "--no-progress")[0] == 0
    pages = sorted(out.rglob("*.html"))
    assert [page.name for page in pages] == [f"{NAME}_desc-anomaly_report.html", "index.html"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text, page.name
        assert ")<b>" not in text, page.name
        assert "&lt;script&gt;alert(1)&lt;b&gt;" in text, page.name
    assert "&lt;script&gt;alert(2)&lt;b&gt;" in text


def test_a_name_that_leaves_no_room_for_results_is_refused(small_model, small_cohort, command, tmp_path):
    folder, out = tmp_path / "scans", tmp_path / "out"
    folder.mkdir()
    scan = small_cohort([("a", "FLAIR", "test", "ms")]).parent / "sub-a_FLAIR.nii.gz"
    longest, longer = f"n{100 * 'ü'}_FLAIR", f"{230 * 'n'}_FLAIR"
    for name in (longest, longer):
        shutil.copy(scan, folder / f"{name}.nii.gz")
    code, said = command("detect", "-i", folder, "-o", out, "-m", small_model, "--threshold", 0.3, "--json")
    assert code == 3, said.err
    found = json.loads(said.out)
    assert [entry["scan"] for entry in found["scans"]] == [longest]
    (failed,) = found["failed"]
    assert failed["scan"] == longer
    assert "may have 207 bytes, as those of its results are longer, got 236 bytes" in failed["error"]
    assert command("report", out, "--threshold", 0.4, "--no-progress")[0] == 0
