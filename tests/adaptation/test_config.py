"""One setting of an adaptation changed leaves the others as they are."""

import pytest

from halebrain.adaptation.config import AdaptConfig
from halebrain.core.config import load_config


@pytest.mark.parametrize(
    "pair", ["tuning.loop.lr=0.0003", "tuning.loop.steps=200", "tuning.draws=1", "tuning.augmentation.warp=0"]
)
def test_one_key_is_changed_and_no_other(pair: str) -> None:
    before, after = AdaptConfig().model_dump(), load_config(AdaptConfig, None, [pair]).model_dump()
    *sections, key = pair.partition("=")[0].split(".")
    for section in sections:
        before, after = before[section], after[section]
    assert after.pop(key) != before.pop(key)
    assert after == before
