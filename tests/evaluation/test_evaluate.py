"""Rows, groups and files of an evaluation, and the refusal of subjects that were seen."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from halebrain.core.errors import DataError
from halebrain.evaluation.case import Case
from halebrain.evaluation.evaluate import Evaluation, Evaluator, behrendt2024, clusters_of, groups_of, score_case
from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.provenance import WORKING_GRID, EvaluationProvenance
from halebrain.evaluation.statistics import INTERVAL, Comparison
from halebrain.evaluation.tables import headline, latex, write_evaluation
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import Bundle
from halebrain.report.evaluation_page import write_evaluation_page
from halebrain.workflows.selection import refuse_seen

SCORE = np.array([0.9, 0.8, 0.3, 0.1], dtype=np.float32)


@pytest.fixture
def scan(make_case):
    def make(subject, modality="FLAIR", pathology="ms", shift=0.0, threshold=0.5, **about):
        score = SCORE + np.array([0, shift, 0, 0], np.float32)
        reference = [True, False, True, False] if pathology != "healthy" else [False] * 4
        mask = None if threshold is None else score >= np.float32(threshold)
        about |= {"scan_id": f"sub-{subject}_{modality}", "subject": subject}
        return make_case(reference, score=score, mask=mask, modality=modality, pathology=pathology, **about)

    return make


def test_rows_by_hand(scan):
    rows = {row.metric: row for row in score_case(scan("a"))}
    assert set(rows) == set(METRICS)
    assert rows["auprc"].value == pytest.approx(5 / 6)
    assert rows["dice"].value == pytest.approx(0.5)
    assert rows["dice"].lesion_ml == pytest.approx(0.002)


def test_without_a_threshold_only_graded_metrics(scan):
    names = {row.metric for row in score_case(scan("a", threshold=None))}
    assert names == {name for name in METRICS if METRICS.get(name).needs == "score"}
    assert names


@pytest.fixture
def evaluation(scan) -> Evaluation:
    evaluator = Evaluator(seed=1)
    cases = [
        scan("a", site="x", age=33.0),
        scan("b", shift=0.15, site="x"),
        scan("c"),
        scan("a", "T1w", site="x", age=33.0),
        scan("d", pathology="healthy", site="y", sex="F"),
    ]
    for case in cases:
        evaluator.add("model", case)
        evaluator.add("other", scan(case.record.subject, case.record.modality, case.record.pathology, threshold=None))
    return evaluator.finish(EvaluationProvenance(grid=WORKING_GRID, model_sha256="abc", seed=1))


def test_scans_are_grouped_by_contrast_whatever_the_word_for_it():
    mask = np.ones((2, 2, 2), dtype=bool)
    record = ScanRecord("1", Path("a.nii"), "mprage", pathology="ms")
    (row,) = score_case(Case.of(record, reference=mask, brain_mask=mask, affine=np.eye(4), mask=mask), only=("dice",))
    assert groups_of(row)[:2] == ["all", "T1w"]


def test_groups(evaluation):
    groups = {s.group for s in evaluation.summaries}
    assert {"all", "FLAIR", "T1w", "ms", "healthy", "ms FLAIR", "site=x", "age=20-39", "size=0-0.1ml"} <= groups
    assert {"healthy site=y", "healthy sex=F"} <= groups
    assert "healthy size=0-0.1ml" not in groups
    everything = evaluation.mean("auprc")
    values = [5 / 6, 0.5 * 1 / 2 + 0.5 * 2 / 3, 5 / 6, 5 / 6]
    assert everything.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert (everything.n_scans, everything.n_undefined) == (4, 1)
    assert math.isnan(evaluation.mean("auprc", group="healthy").mean)
    assert evaluation.mean("false_positive_volume", group="healthy site=y").mean == pytest.approx(0.002)
    with pytest.raises(KeyError, match="no summary of nothing"):
        evaluation.mean("nothing")


def test_the_set_as_a_whole_by_hand(evaluation):
    of_set = {(v.method, v.metric): v.value for v in evaluation.set_values}
    assert of_set["model", "micro_dice"] == pytest.approx(2 * 4 / (10 + 8))  # 4 hits, 10 called, 8 true
    # Of four scans with a lesion one scores higher than the healthy one, three the same.
    assert of_set["model", "scan_auroc"] == pytest.approx((1 + 3 / 2) / 4)
    assert of_set["other", "dice_oracle_set"] == pytest.approx(2 * 8 / (15 + 8))
    assert ("other", "micro_dice") not in of_set


def test_volumes_are_ranked_by_what_was_predicted(scan):
    evaluator = Evaluator(seed=0)
    # A prediction of 2, 0 and 1 voxels beside a lesion of 2, 2 and 0.
    for subject, pathology, threshold in (("a", "ms", 0.5), ("b", "ms", 2.0), ("c", "healthy", 0.85)):
        evaluator.add("model", scan(subject, pathology=pathology, threshold=threshold))
    found = {v.metric: v.value for v in evaluator.finish(EvaluationProvenance(grid=WORKING_GRID, seed=0)).set_values}
    assert found["volume_correlation"] == pytest.approx(stats.spearmanr([2, 2, 0], [2, 0, 1]).statistic)


def test_figures_of_the_paper_are_means_over_scans_and_pooled_ones_have_their_own_names(evaluation):
    stated = behrendt2024(evaluation)
    assert stated.provenance.protocol == "behrendt2024"
    own = {(v.method, v.metric): v.value for v in stated.set_values if v.metric.startswith("behrendt2024")}
    assert {metric for _, metric in own} == {
        f"behrendt2024_{kind}{name}" for kind in ("", "pooled_") for name in ("best_dice", "auprc")
    }
    # Each of the four scans with a lesion is best at 0.3: two of three marked voxels are true.
    assert own["other", "behrendt2024_best_dice"] == pytest.approx(0.8)
    values = [5 / 6, 0.5 * 1 / 2 + 0.5 * 2 / 3, 5 / 6, 5 / 6]
    assert own["model", "behrendt2024_auprc"] == pytest.approx(np.mean(values), abs=1e-6)
    # At 0.3 the healthy scan marks three voxels too.
    assert own["other", "behrendt2024_pooled_best_dice"] == pytest.approx(2 * 8 / (15 + 8))
    assert own["other", "behrendt2024_pooled_auprc"] != own["other", "behrendt2024_auprc"]


def test_sites_are_drawn_whole_where_there_are_enough(scan):
    def rows(sites):
        cases = [scan(f"s{i}", site=site) for i, site in enumerate(sites)]
        return [row for case in cases for row in score_case(case) if row.metric == "dice"]

    assert clusters_of(rows("vwxyzz")) == list("vwxyzz")
    assert clusters_of(rows("xxyyzz")) == [f"s{i}" for i in range(6)]
    assert clusters_of(rows(["v", "w", "x", "y", "z", None])) == [f"s{i}" for i in range(6)]


def test_sites_of_scans_without_a_value_do_not_count(scan):
    evaluator = Evaluator(seed=1)
    for i, site in enumerate("xyxyxy"):
        evaluator.add("model", scan(f"p{i}", site=site, shift=0.1 * i))
    for i, site in enumerate("rstuvw"):
        evaluator.add("model", scan(f"h{i}", pathology="healthy", site=site))
    found = evaluator.finish(EvaluationProvenance(grid=WORKING_GRID, model_sha256="abc", seed=1))
    # AUPRC is that of six patients from two sites, whoever was healthy elsewhere.
    assert found.mean("auprc") == replace(found.mean("auprc", group="ms"), n_undefined=6)
    assert found.mean("auprc").low < found.mean("auprc").mean


def test_methods_are_compared_by_subject(evaluation):
    found = {c.metric: c for c in evaluation.comparisons}
    assert set(found) == {"auprc", "dice_oracle_per_scan"}
    assert found["auprc"].n_subjects == 3


def test_methods_are_compared_on_the_scans_that_both_have(scan):
    evaluator = Evaluator(seed=1)
    for subject in "abcdef":
        evaluator.add("model", scan(subject))
        evaluator.add("model", scan(subject, "T1w", shift=0.15))  # harder
        evaluator.add("atlas", scan(subject))
    found = evaluator.finish(EvaluationProvenance(grid=WORKING_GRID, model_sha256="abc", seed=1))
    assert found.mean("auprc", method="atlas").mean > found.mean("auprc").mean
    assert {(c.median_difference, c.n_subjects, c.p) for c in found.comparisons} == {(0, 6, 1)}


def test_a_method_that_lacks_scans_says_so_wherever_it_stands_beside_others(scan, tmp_path):
    evaluator = Evaluator(seed=1)
    for subject in "abc":
        evaluator.add("model", scan(subject, shift=0.15))
    evaluator.add("atlas", scan("a", threshold=None))
    found = evaluator.finish(EvaluationProvenance(grid=WORKING_GRID, model_sha256="abc", seed=1))
    assert found.labels == {"model": "model", "atlas": "atlas (1 of 3 scans)"}
    write_evaluation(found, tmp_path)
    write_evaluation_page(found, tmp_path / "index.html", title="t")
    assert "atlas (1 of 3 scans)\tauprc, mean over scans\t0.833" in headline(found)
    assert "\natlas (1 of 3 scans) & " in (tmp_path / "summary.tex").read_text()
    assert "| atlas (1 of 3 scans) | micro_auprc | 0.833 |" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "index.html").read_text("utf-8").count("atlas (1 of 3 scans)</th>") == 2


def test_the_latex_table_holds_any_name_of_a_method(scan):
    evaluator = Evaluator(seed=1)
    evaluator.add("maps_50% #2 & more", scan("a"))
    evaluator.add(r"~old {a}^2 \new", scan("a"))
    table = latex(evaluator.finish(EvaluationProvenance(grid=WORKING_GRID, model_sha256="abc", seed=1)))
    assert r"maps\_50\% \#2 \& more & " in table
    assert r"\textasciitilde{}old \{a\}\textasciicircum{}2 \textbackslash{}new & " in table


def test_files(evaluation, tmp_path):
    table, summary, text, tex = write_evaluation(evaluation, tmp_path / "new")
    lines = table.read_text().splitlines()
    assert lines[0].split("\t")[:8] == [
        "scan_id",
        "subject",
        "modality",
        "pathology",
        "site",
        "age",
        "sex",
        "lesion_ml",
    ]
    assert len(lines) == 1 + len(evaluation.rows)
    assert "sub-a_FLAIR\ta\tFLAIR\tms\tx\t33\tn/a\t0.002\tmodel\tauprc\t\t0.833333" in lines
    assert any(line.startswith("sub-d_FLAIR\td\tFLAIR\thealthy") and line.endswith("auprc\t\tn/a") for line in lines)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    payload = json.loads(summary.read_text(), parse_constant=refuse)
    assert payload["provenance"] == {
        "grid": "working grid, resampled labels",
        "seed": 1,
        "model_sha256": "abc",
        "interval": INTERVAL,
    }
    entry = next(s for s in payload["summaries"] if (s["group"], s["metric"]) == ("all", "dice"))
    assert entry["n_scans"] == 4
    assert {s["metric"] for s in payload["set"]} >= {"micro_auprc", "micro_dice", "dice_oracle_set"}
    healthy = next(s for s in payload["summaries"] if (s["group"], s["metric"]) == ("healthy", "auprc"))
    assert healthy["mean"] is None
    assert "| all | model | auprc | " in text.read_text()
    assert "nan" not in text.read_text()
    assert r"\begin{tabular}{lcccccc}" in tex.read_text()
    assert tex.read_text().count(r"\\") == 3


def test_small_p_values_keep_their_digits(evaluation, tmp_path):
    evaluation.comparisons = [Comparison("auprc", "a", "b", 0.123456789, 60, 3.1234567e-9, 9.4e-9)]
    write_evaluation(evaluation, tmp_path)
    (found,) = json.loads((tmp_path / "summary.json").read_text())["comparisons"]
    assert (found["p"], found["p_holm"], found["median_difference"]) == (3.12346e-9, 9.4e-9, 0.123457)


def test_no_table_of_an_earlier_evaluation_stays(evaluation, tmp_path):
    (tmp_path / "reconstruction.tsv").write_text("of another model")
    assert tmp_path / "reconstruction.tsv" not in write_evaluation(evaluation, tmp_path)
    assert not (tmp_path / "reconstruction.tsv").exists()


def test_seen_subjects_are_refused():
    stages = {"stage1": {"train_subjects": ["a"], "val_subjects": ["b"]}}
    bundle = Bundle(None, None, None, stages, {"subjects": ["c"]})
    everything = bundle.seen_subjects("train_subjects", "val_subjects") | bundle.calibration_subjects()
    assert everything == {"a": "stage1", "b": "stage1", "c": "calibration"}
    assert bundle.seen_subjects("train_subjects") == {"a": "stage1"}
    rows = Manifest(tuple(ScanRecord(subject=s, image=Path(s), modality="T1w") for s in "abcd"))
    for name in "abc":
        with pytest.raises(DataError, match=rf"{name} \(") as caught:
            refuse_seen(rows.select(lambda r, name=name: r.subject in (name, "d")), everything, "evaluated")
        assert caught.value.exit_code == 65
    refuse_seen(rows.select(lambda r: r.subject == "d"), everything, "evaluated")
