"""`halebrain evaluate MODEL`: its baselines, and the smallest lesion kept."""

import csv
import json

import pytest

PATIENTS = [("p", "FLAIR", "test", "ms"), ("q", "FLAIR", "test", "ms")]
HEALTHY = [(f"h{n}", "FLAIR", "train", "healthy") for n in range(3)]


@pytest.fixture
def evaluated(command, small_model, small_cohort, tmp_path):
    def call(rows, *more, threshold=0.05):
        manifest = small_cohort(rows)
        code, said = command(
            "evaluate", small_model, "--manifest", manifest, "--threshold", threshold, "-o", tmp_path / "out",
            "--no-progress", *more,
        )  # fmt: skip
        assert code == 0, said.err
        with (tmp_path / "out" / "scans.tsv").open() as handle:
            table = list(csv.DictReader(handle, delimiter="\t"))
        return table, json.loads((tmp_path / "out" / "summary.json").read_text()), said

    return call


def methods(table):
    return {row["method"] for row in table}


def auprc(table, method):
    return [float(r["value"]) for r in table if r["method"] == method and r["metric"] == "auprc"]


@pytest.mark.slow
def test_one_baseline_by_default(evaluated):
    table, _, _ = evaluated([*PATIENTS, *HEALTHY])
    assert methods(table) == {"model", "segmenter alone", "reconstruction alone", "intensity rank"}


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["native", "working"])
def test_all_baselines_on_request(evaluated, grid):
    table, _, _ = evaluated([*PATIENTS, *HEALTHY], "--baselines", "--grid", grid)
    assert methods(table) >= {
        "intensity rank",
        "intensity rank bright",
        "intensity rank dark",
        "histogram-equalised intensity",
        "atlas z-score",
        "atlas z-score signed",
    }
    # A lesion far brighter than tissue stands out from healthy scans, and is anything but dark.
    assert min(auprc(table, "atlas z-score signed")) > 0.7
    assert max(auprc(table, "intensity rank dark")) < 0.2


@pytest.mark.slow
def test_without_healthy_training_scans_there_is_no_atlas(evaluated):
    table, _, said = evaluated([*PATIENTS, HEALTHY[0]], "--baselines")
    assert "no atlas of FLAIR" in said.err
    assert "atlas z-score" not in methods(table)
    assert "intensity rank dark" in methods(table)


@pytest.mark.slow
def test_small_lesions_are_dropped_on_request(evaluated):
    table, summary, _ = evaluated(PATIENTS, "--min-lesion-mm3", 1e9)
    assert summary["provenance"]["min_lesion_mm3"] == 1e9
    assert {float(r["value"]) for r in table if r["method"] == "model" and r["metric"] == "dice"} == {0.0}


@pytest.mark.slow
def test_quality_flags_are_told_and_kept_and_a_healthy_persons_lesion_does_not_count(
    command, small_model, small_cohort, tmp_path
):
    manifest = small_cohort([*PATIENTS, ("r", "FLAIR", "test", "ms")])
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:-1], lines[-1].replace("\tms\t", "\thealthy\t")]) + "\n")
    out = tmp_path / "out"
    code, said = command(
        "evaluate", small_model, "--manifest", manifest, "--threshold", 0.05, "-o", out, "--no-progress"
    )
    assert code == 0, said.err
    flagged = json.loads((out / "summary.json").read_text())["provenance"]["flagged"]
    lesion = "declared healthy, though its lesion mask marks 180 voxels, which do not count"
    assert lesion in flagged["sub-r_FLAIR"]
    assert f"warning: {len(flagged)} of 3 scans" in said.err
    with (out / "scans.tsv").open() as handle:
        rows = [row for row in csv.DictReader(handle, delimiter="\t") if row["scan_id"] == "sub-r_FLAIR"]
    assert rows
    assert "auprc" not in {row["metric"] for row in rows if row["value"] != "n/a"}


@pytest.mark.slow
@pytest.mark.parametrize("exams", [(), ("--exams",)])
def test_scans_that_nobody_annotated_are_counted(command, small_model, small_cohort, tmp_path, exams):
    manifest = small_cohort([*PATIENTS, ("r", "FLAIR", "test", "ms")])
    header, *lines = manifest.read_text().splitlines()
    column = header.split("\t").index("lesion")
    cells = lines[-1].split("\t")
    manifest.write_text("\n".join([header, *lines[:-1], "\t".join([*cells[:column], "n/a", *cells[column + 1 :]])]))
    code, said = command(
        "evaluate", small_model, "--manifest", manifest, "--threshold", 0.05, "-o", tmp_path / "out", *exams
    )
    assert code == 0, said.err
    assert "warning: 1 scan neither healthy nor annotated is left out" in said.err
