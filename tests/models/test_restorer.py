import math

import pytest
import torch

from halebrain.core.random import make_generator
from halebrain.models.reconstruction.restoration import Restorer, RestorerSettings

UNET = {"channels": [8, 16], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 8}


def darkened(image, _generator):
    """Take 0.2 from an eighth of the pixels."""
    altered = image.clone()
    altered[:, :, :, :4] -= 0.2
    return altered


def loss_of(**settings):
    fresh = Restorer(RestorerSettings(unet=UNET, **settings))
    return float(fresh.loss(torch.full((2, 1, 16, 32), 0.6), generator=make_generator(0), corrupt=darkened).detach())


def test_a_fresh_network_gives_the_slice_back():
    image = torch.rand(2, 1, 16, 32, generator=make_generator(1))
    fresh = Restorer(RestorerSettings(unet=UNET))
    assert torch.equal(fresh.reconstruct(image, level=None, seeds=torch.zeros(2, dtype=torch.long)), image)


def test_balanced_an_anomaly_counts_as_much_as_the_rest():
    """The identity is wrong by 0.4 of [−1, 1] in the anomaly, an eighth of the pixels, and nowhere else."""
    assert loss_of(gate=False, balanced=True) == pytest.approx(0.4, abs=1e-5)
    assert loss_of(gate=False, balanced=False) == pytest.approx(0.05, abs=1e-5)


def test_a_fresh_gate_is_half_open():
    """Its cross-entropy is log 2 in the anomaly and log 2 in the rest."""
    with_gate, without = loss_of(gate=True, gate_weight=1.0), loss_of(gate=False)
    assert with_gate - without == pytest.approx(2 * math.log(2), abs=1e-5)


def test_a_closed_gate_changes_nothing():
    image = torch.rand(2, 1, 16, 32, generator=make_generator(1))
    restorer = Restorer(RestorerSettings(unet=UNET))
    with torch.no_grad():
        restorer.unet.head.bias[:4] = 1.0  # the change, of 4 folded pixels
        restorer.unet.head.bias[4:] = -40.0  # the gate
    restored = restorer.reconstruct(image, level=None, seeds=torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(restored, image, atol=1e-6, rtol=0)
    with torch.no_grad():
        restorer.unet.head.bias[4:] = 40.0
    opened = restorer.reconstruct(image, level=None, seeds=torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(opened, (image + 0.5).clamp(0, 1), atol=1e-6, rtol=0)
