"""Rows, groups and files of an evaluation, and the refusal of subjects that were seen."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from halebrain.cli.evaluate import _refuse_seen
from halebrain.core.errors import DataError
from halebrain.evaluation.evaluate import (
    Evaluation,
    ScanScores,
    intensity_rank,
    pooled_values,
    score_scan,
    summarise,
    write_evaluation,
)
from halebrain.evaluation.metrics import METRICS
from halebrain.io.manifest import Manifest, ScanRecord


def scan(subject: str, modality: str = "FLAIR", pathology: str | None = "ms", shift: float = 0.0) -> ScanScores:
    score = np.array([0.9, 0.8 + shift, 0.3, 0.1], dtype=np.float32)
    reference = np.array([True, False, True, False]) if pathology != "healthy" else np.zeros(4, dtype=bool)
    return ScanScores(f"sub-{subject}_{modality}", subject, modality, pathology, score, reference, (1.0, 1.0, 1.0))


def test_rows_by_hand() -> None:
    rows = {row.metric: row for row in score_scan(scan("a"), threshold=0.5)}
    assert set(rows) == set(METRICS)
    assert rows["auprc"].value == pytest.approx(5 / 6)
    assert rows["dice"].value == pytest.approx(0.5)
    assert rows["dice"].pathology == "ms"
    assert score_scan(scan("a", pathology=None), threshold=0.5)[0].pathology == "unknown"


def test_without_a_threshold_only_graded_metrics() -> None:
    names = {row.metric for row in score_scan(scan("a"), threshold=None)}
    assert names == {name for name in METRICS if METRICS.get(name).needs == "score"}
    assert names


def test_the_threshold_is_reached_not_passed() -> None:
    rows = {row.metric: row.value for row in score_scan(scan("a"), threshold=float(np.float32(0.3)))}
    assert rows["recall"] == 1.0


def test_pooled_by_hand() -> None:
    pooled = pooled_values([scan("a"), scan("b", pathology="healthy")], threshold=0.5)
    assert pooled["dice"] == pytest.approx(2 * 1 / (4 + 2))
    assert "dice" not in pooled_values([scan("a")], threshold=None)
    assert pooled_values([scan("b", pathology="healthy")], threshold=0.5) == {}


def evaluation() -> Evaluation:
    scans = [scan("a"), scan("b", shift=0.15), scan("c"), scan("a", "T1w"), scan("d", pathology="healthy")]
    rows = [row for s in scans for row in score_scan(s, threshold=0.5)]
    pooled = {"model": pooled_values(scans, threshold=0.5)}
    return Evaluation(rows, summarise(rows, seed=1, pooled=pooled), {"model_sha256": "abc", "seed": 1})


def test_groups() -> None:
    found = evaluation()
    groups = {s.group for s in found.summaries}
    assert groups == {"all", "FLAIR", "T1w", "ms", "healthy", "ms FLAIR", "ms T1w", "healthy FLAIR"}
    everything = found.mean("auprc")
    values = [5 / 6, 0.5 * 1 / 2 + 0.5 * 2 / 3, 5 / 6, 5 / 6]
    assert everything.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert (everything.n_scans, everything.n_undefined) == (4, 1)
    assert found.mean("auprc", group="T1w").n_scans == 1
    assert math.isnan(found.mean("auprc", group="healthy").mean)
    assert found.mean("false_positive_volume", group="healthy").mean == pytest.approx(0.002)
    assert all(s.pooled is None for s in found.summaries if s.group != "all")
    with pytest.raises(KeyError, match="no summary of nothing"):
        found.mean("nothing")


def test_files(tmp_path: Path) -> None:
    found = evaluation()
    table, summary, text = write_evaluation(found, tmp_path / "new")
    lines = table.read_text().splitlines()
    assert lines[0] == "scan_id\tsubject\tmodality\tpathology\tmethod\tmetric\tunit\tvalue"
    assert len(lines) == 1 + len(found.rows)
    assert "sub-a_FLAIR\ta\tFLAIR\tms\tmodel\tauprc\t\t0.833333" in lines
    assert any(
        line.startswith("sub-d_FLAIR\td\tFLAIR\thealthy\tmodel\tauprc") and line.endswith("n/a") for line in lines
    )

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    payload = json.loads(summary.read_text(), parse_constant=refuse)
    assert payload["provenance"] == {"model_sha256": "abc", "seed": 1}
    entry = next(s for s in payload["summaries"] if (s["group"], s["metric"]) == ("all", "dice"))
    assert entry["pooled"] == pytest.approx(2 * 4 / (10 + 8), abs=1e-6)  # 4 hits, 10 called, 8 true
    assert entry["n_scans"] == 4
    healthy = next(s for s in payload["summaries"] if (s["group"], s["metric"]) == ("healthy", "auprc"))
    assert healthy["mean"] is None
    assert "| all | model | auprc | " in text.read_text()
    assert "nan" not in text.read_text()


def test_intensity_rank_is_turned_over_on_t1() -> None:
    image = np.array([3.0, 1.0, 2.0, 2.0], dtype=np.float32)
    np.testing.assert_allclose(intensity_rank(image, "FLAIR"), [1, 0.25, 0.625, 0.625])
    assert intensity_rank(image, "T1w").argmax() == 1
    assert intensity_rank(image, "T2w").argmax() == 0


@pytest.mark.parametrize(
    ("training", "calibration", "named"),
    [
        ({"stage1": {"train_subjects": ["a"], "val_subjects": []}}, {}, r"a \(stage1\)"),
        ({"stage2": {"train_subjects": [], "val_subjects": ["b"]}}, {}, r"b \(stage2\)"),
        ({}, {"subjects": ["b"]}, r"b \(calibration\)"),
    ],
)
def test_seen_subjects_are_refused(training: dict, calibration: dict, named: str) -> None:
    rows = Manifest(tuple(ScanRecord(subject=s, image=Path(s), modality="T1w") for s in "abc"))
    with pytest.raises(DataError, match=named) as caught:
        _refuse_seen(rows, SimpleNamespace(training=training, calibration=calibration))
    assert caught.value.exit_code == 65
    rest = rows.select(lambda r: r.subject == "c")
    assert _refuse_seen(rest, SimpleNamespace(training=training, calibration=calibration)) is None
