"""Inherited settings: an adaptation uses the anomalies and the loss of the model's second stage."""

from typing import Any

from halebrain.adaptation.config import AdaptConfig
from halebrain.core.config import parse_config
from halebrain.data.anomalies import AnomalySpec
from halebrain.models.bundle import Bundle
from halebrain.training.losses import LossConfig

STAGES = ("stage2", "joint")
"""Keys under which a model stores the settings of its segmenter's training."""
_FOLDER = "masks"


def inherit_settings(config: AdaptConfig, bundle: Bundle) -> AdaptConfig:
    """Return the settings, with unset ones inherited from the training of the model's segmenter.

    Other anomalies would teach the model that what it marks is healthy: with bright ones only, it would forget
    the dark lesions of T1. If the model does not state its settings, the defaults stay.

    Args:
        config: The settings; what was given in them is kept.
        bundle: The model.
    """
    stages = [bundle.training[stage] for stage in STAGES if stage in bundle.training]
    learned: dict[str, Any] = stages[0].get("config", {}) if stages else {}
    inherited: dict[str, Any] = {}
    if "anomaly" in learned and "anomaly" not in config.tuning.model_fields_set:
        inherited["anomaly"] = parse_config(
            AnomalySpec, _without_folders(learned["anomaly"]), where=bundle.path or "model"
        )
    if "loss" in learned and "loss" not in config.tuning.model_fields_set:
        inherited["loss"] = parse_config(LossConfig, learned["loss"], where=bundle.path or "model")
    return config.model_copy(update={"tuning": config.tuning.model_copy(update=inherited)})


def _without_folders(settings: Any) -> Any:
    """Return settings without the user's own lesion masks, which are not where the model is."""
    if isinstance(settings, dict):
        return {key: _without_folders(value) for key, value in settings.items() if key != _FOLDER}
    return [_without_folders(one) for one in settings] if isinstance(settings, list) else settings
