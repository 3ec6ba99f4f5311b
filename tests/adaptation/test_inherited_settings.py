"""An adaptation learns as its model did, unless it is told otherwise."""

from typing import Any

import pytest

from halebrain.adaptation.config import AdaptConfig, inherit_settings
from halebrain.core.config import load_config
from halebrain.data.anomalies import AnomalySpec
from halebrain.models.bundle import Bundle, ModelConfig
from halebrain.models.reconstruction import ReconstructorSpec, build_reconstructor
from halebrain.models.store import load_model
from halebrain.training.losses import LossConfig

BOTH = {"name": "cohort", "settings": {"sign": "both", "masks": "masks"}}
STAGE2 = {"config": {"anomaly": {"name": "mixture", "settings": {"of": [BOTH]}}, "loss": {"cross_entropy": 1.0}}}


def model(training: dict[str, Any]) -> Bundle:
    unet = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
    spec = ReconstructorSpec(name="ddpm", settings={"unet": unet})
    built = build_reconstructor("ddpm", spec.settings)
    return Bundle(ModelConfig(kind="detector", reconstructor=spec), built, None, training, {})


@pytest.mark.parametrize("stage", ["stage2", "joint"])
def test_what_is_left_open_is_what_the_model_learned_with(stage: str) -> None:
    tuning = inherit_settings(AdaptConfig(), model({stage: STAGE2})).tuning
    assert tuning.loss == LossConfig(cross_entropy=1.0)
    kept = {"name": "cohort", "settings": {"sign": "both"}}  # the user's masks are not where the model is
    assert tuning.anomaly == AnomalySpec(name="mixture", settings={"of": [kept]})
    assert tuning.model_copy(update={"loss": None, "anomaly": None}) == AdaptConfig().tuning.model_copy(
        update={"loss": None, "anomaly": None}
    )


def test_what_the_user_names_stays() -> None:
    given = load_config(AdaptConfig, None, ["tuning.anomaly.name=blobs", "tuning.loss.focal=1"])
    assert inherit_settings(given, model({"stage2": STAGE2})) == given


def test_a_model_that_does_not_say_leaves_the_settings() -> None:
    assert inherit_settings(AdaptConfig(), model({})) == AdaptConfig()


@pytest.mark.slow
def test_the_bundled_model_goes_on_with_dark_and_bright_anomalies() -> None:
    spec = inherit_settings(AdaptConfig(), load_model(None)).tuning.anomaly
    assert spec.settings["of"][0]["settings"]["sign"] == "both"
    assert "masks" not in spec.settings["of"][0]["settings"]
