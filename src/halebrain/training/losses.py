"""Losses of the segmenter: cross-entropy, soft Dice and focal, weighed, at one resolution or several."""

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.core.config import Config


class LossConfig(Config):
    """Weight of each term; 0 leaves it out. The paper has cross-entropy alone.

    Args:
        cross_entropy: Binary cross-entropy of the pixels.
        dice: 1 − soft Dice of the batch.
        focal: Cross-entropy that counts easy pixels less (Lin et al. 2017).
        focal_gamma: How much less.
    """

    cross_entropy: float = Field(default=1.0, ge=0)
    dice: float = Field(default=0.0, ge=0)
    focal: float = Field(default=0.0, ge=0)
    focal_gamma: float = Field(default=2.0, ge=0)

    def model_post_init(self, _: object, /) -> None:
        """Check that something is left to minimise."""
        if self.cross_entropy + self.dice + self.focal == 0:
            raise ValueError("one of cross_entropy, dice and focal must be above 0")


def segmentation_loss(logits: list[torch.Tensor], target: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Return the loss, a scalar, over all resolutions; each counts half as much as the next finer one.

    Args:
        logits: From fine to coarse, each `(b, 1, h, w)`; one entry without deep supervision.
        target: Lesion as 0 and 1, at the finest resolution; coarser ones take the most of each block, so that small
            lesions stay.
        config: Weights of the terms.
    """
    weights = [0.5**n for n in range(len(logits))]
    total = torch.zeros((), device=target.device)
    for weight, predicted in zip(weights, logits, strict=True):
        wanted = target if predicted.shape == target.shape else F.adaptive_max_pool2d(target, predicted.shape[-2:])
        total = total + weight / sum(weights) * _weighed(predicted.float(), wanted, config)
    return total


def soft_dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return 1 − soft Dice over the whole batch; pooled, so that slices without lesion are no special case."""
    probability = logits.sigmoid()
    overlap = (probability * target).sum()
    return 1 - (2 * overlap + 1) / (probability.sum() + target.sum() + 1)


def focal_loss(logits: torch.Tensor, target: torch.Tensor, *, gamma: float) -> torch.Tensor:
    r"""Return the mean of $-(1 - p_t)^\gamma \log p_t$, with $p_t$ the probability of the true class."""
    log_true = F.logsigmoid(torch.where(target > 0, logits, -logits))
    return -((1 - log_true.exp()) ** gamma * log_true).mean()


def _weighed(logits: torch.Tensor, target: torch.Tensor, config: LossConfig) -> torch.Tensor:
    loss = torch.zeros((), device=logits.device)
    if config.cross_entropy > 0:
        loss = loss + config.cross_entropy * F.binary_cross_entropy_with_logits(logits, target)
    if config.dice > 0:
        loss = loss + config.dice * soft_dice_loss(logits, target)
    if config.focal > 0:
        loss = loss + config.focal * focal_loss(logits, target, gamma=config.focal_gamma)
    return loss
