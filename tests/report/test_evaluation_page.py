"""The page of an evaluation: every metric stands there once, with what it is, and nothing is loaded from elsewhere."""

import re

import numpy as np
import pytest

from halebrain.evaluation.evaluate import Evaluator
from halebrain.evaluation.metrics import METRICS
from halebrain.report.evaluation_page import write_evaluation_page


@pytest.fixture
def page(tmp_path, make_case, rng):
    def write(*methods):
        evaluator = Evaluator(seed=0)
        for number in range(4):
            reference = np.zeros((6, 6, 4), bool)
            reference[1 : 3 + number % 2, 1:4, 1:3] = True
            for method in methods:
                score = np.clip(0.5 * reference + 0.5 * rng.random(reference.shape), 0, 1)
                about = {"scan_id": f"sub-{number}_<b>FLAIR", "subject": str(number), "site": "<i>site"}
                mask = score > 0.5 if method == methods[0] else None
                evaluator.add(method, make_case(reference, score=score, mask=mask, **about), show=method == methods[0])
        write_evaluation_page(evaluator.finish({"seed": 0}), tmp_path / "index.html", title="An <evaluation>")
        return (tmp_path / "index.html").read_text(encoding="utf-8")

    return write


@pytest.mark.parametrize("methods", [("model",), ("model", "other", "third")])
def test_every_metric_has_a_row_and_says_what_it_is(page, methods):
    text = page(*methods)
    text = text[: text.index("Methods compared")] if len(methods) > 1 else text
    for name in METRICS.names():
        assert len(re.findall(rf"<td[^>]*>\s*{re.escape(name)}\s*</td>", text)) == 1, name
    assert ("At the frozen threshold" in text) == (len(methods) > 1)


def test_names_are_escaped_and_nothing_is_fetched(page):
    text = page("model", "a & b")
    assert "<b>FLAIR" not in text
    assert "<i>site" not in text
    assert "<evaluation>" not in text
    assert not re.search(r"""(src|href)=["']https?:""", text)
