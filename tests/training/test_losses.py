import math

import pytest
import torch

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.training.losses import LossConfig, focal_loss, segmentation_loss, soft_dice_loss

HALF = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])


def test_soft_dice_by_hand():
    assert float(soft_dice_loss(torch.zeros_like(HALF), HALF)) == pytest.approx(1 - 3 / 5)
    assert float(soft_dice_loss(100 * (HALF - 0.5), HALF)) == pytest.approx(0, abs=1e-6)
    assert float(soft_dice_loss(-100 * (HALF - 0.5), HALF)) == pytest.approx(1 - 1 / 5, abs=1e-6)
    assert float(soft_dice_loss(-100 * torch.ones(1, 1, 1, 4), torch.zeros(1, 1, 1, 4))) == pytest.approx(0)


def test_focal_by_hand():
    logits = torch.tensor([0.0, math.log(3.0)])  # probabilities 1/2 and 3/4
    target = torch.tensor([1.0, 0.0])
    expected = (0.5**2 * math.log(2) + 0.75**2 * math.log(4)) / 2
    assert float(focal_loss(logits, target, gamma=2)) == pytest.approx(expected, rel=1e-6)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert float(focal_loss(logits, target, gamma=0)) == pytest.approx(float(entropy), rel=1e-6)


def test_focal_stays_finite_when_very_sure():
    logits = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0.0, 1.0]), gamma=2)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_terms_are_weighed_and_added():
    logits = torch.randn(1, 1, 1, 4)
    each = [
        float(segmentation_loss([logits], HALF, LossConfig(cross_entropy=a, dice=b, focal=c)))
        for a, b, c in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    both = segmentation_loss([logits], HALF, LossConfig(cross_entropy=0.5, dice=2, focal=3))
    assert float(both) == pytest.approx(0.5 * each[0] + 2 * each[1] + 3 * each[2], rel=1e-5)


def test_coarser_resolutions_count_half_and_keep_small_lesions():
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, 1, 1] = 1
    coarse = torch.full((1, 1, 2, 2), -50.0)
    coarse[0, 0, 0, 0] = 50  # right only where the block with the one lesion pixel counts as lesion
    fine = torch.zeros(1, 1, 4, 4)
    loss = segmentation_loss([fine, coarse], target, LossConfig())
    assert float(loss) == pytest.approx(math.log(2) * 2 / 3, rel=1e-5)


def test_a_loss_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="above 0"):
        parse_config(LossConfig, {"cross_entropy": 0})
