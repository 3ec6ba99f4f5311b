"""The page of an evaluation: every metric stands there once, with what it is, and nothing is loaded from elsewhere."""

import re

import pytest

from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.statistics import INTERVAL


@pytest.fixture
def page(evaluation_page):
    return lambda *methods: evaluation_page(*methods).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("methods", [("model",), ("model", "other", "third")])
def test_every_metric_has_a_row_and_says_what_it_is(page, methods):
    text = page(*methods)
    text = text[: text.index("Methods compared")] if len(methods) > 1 else text
    for name in METRICS.names():
        assert len(re.findall(rf"<td[^>]*>\s*{re.escape(name)}\s*</td>", text)) == 1, name
    assert ("At the frozen threshold" in text) == (len(methods) > 1)


@pytest.mark.slow
def test_the_kind_of_interval_is_named(page):
    assert INTERVAL.split(",")[0] in page("model")
    assert "studentised" in INTERVAL


@pytest.mark.slow
@pytest.mark.parametrize(("scans", "said"), [(1, "1 scan of 1 subject, grid"), (2, "2 scans of 2 subjects, grid")])
def test_one_scan_is_told_as_one(evaluation_page, scans, said):
    assert said in evaluation_page("model", scans=scans).read_text(encoding="utf-8")


@pytest.mark.slow
def test_names_are_escaped_and_nothing_is_fetched(page):
    text = page("model", "a & b")
    assert "<b>FLAIR" not in text
    assert "<i>site" not in text
    assert "<evaluation>" not in text
    assert not re.search(r"""(src|href)=["']https?:""", text)
