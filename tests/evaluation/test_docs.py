"""The page of metrics names every metric there is."""

from pathlib import Path

from halebrain.evaluation.metrics import METRICS

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")


def test_every_metric_is_documented():
    assert [name for name in METRICS if f"`{name}`" not in TEXT] == []
