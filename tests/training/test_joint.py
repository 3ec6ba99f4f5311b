"""What a joint run refuses."""

import pytest

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.training.joint import JointTraining


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"reconstructor": {"name": "ddpm"}}, "does not learn to undo anomalies"),
        ({"segmenter": {"encoder": "early", "neighbours": [-1, 1]}}, "supports no neighbouring slices"),
    ],
)
def test_what_cannot_be_learned_jointly_is_refused(settings: dict[str, object], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        parse_config(JointTraining, settings, where="test")
