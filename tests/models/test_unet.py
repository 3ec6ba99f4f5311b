import pytest
import torch

from halebrain.core.random import make_generator
from halebrain.models.conditioning import EncoderConfig, SliceEncoder
from halebrain.models.segmentation import SegmenterConfig
from halebrain.models.unet import DiffusionUNet, TimeEmbedding, UNetConfig

SMALL = UNetConfig(channels=(8, 16), blocks_per_level=1, norm_groups=4, attention_head_channels=8)


def awake(network):
    """Zero-initialised layers hide what lies below them; move every weight away from zero."""
    generator = make_generator(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("features", [0, 6])
def test_a_fresh_network_predicts_zero(patch, features):
    unet = DiffusionUNet(SMALL.model_copy(update={"patch": patch}), condition_features=features)
    condition = torch.randn(2, features) if features else None
    out = unet(torch.randn(2, 1, 32, 24), torch.tensor([3, 900]), condition)
    assert out.shape == (2, 1, 32, 24)
    assert not out.any()


@pytest.mark.parametrize("patch", [1, 2])
def test_slices_do_not_leak_into_each_other(patch):
    unet = awake(DiffusionUNet(SMALL.model_copy(update={"patch": patch}), condition_features=6))
    x, level, condition = torch.randn(3, 1, 32, 24), torch.tensor([0, 500, 999]), torch.randn(3, 6)
    together = unet(x, level, condition)
    alone = torch.cat([unet(x[n : n + 1], level[n : n + 1], condition[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_level_and_the_condition_matter():
    unet = awake(DiffusionUNet(SMALL, condition_features=6))
    x, level, condition = torch.randn(1, 1, 16, 16), torch.tensor([100]), torch.randn(1, 6)
    out = unet(x, level, condition)
    assert (unet(x, level + 500, condition) - out).abs().max() > 1e-3
    assert (unet(x, level, -condition) - out).abs().max() > 1e-3


def test_attention_lets_far_pixels_meet():
    shallow = UNetConfig(channels=(8,), blocks_per_level=1, norm_groups=1, attention_head_channels=8)
    unet = awake(DiffusionUNet(shallow))
    for block in unet.modules():  # without norms, convolutions alone reach a few pixels only
        if isinstance(block, torch.nn.GroupNorm):
            block.forward = lambda v: v
    x, level = torch.randn(1, 1, 64, 4), torch.tensor([10])
    moved = x.clone()
    moved[..., 0, 0] += 5
    far = (unet(moved, level, None) - unet(x, level, None))[..., 40:, :].abs().max()
    unet.attention = torch.nn.Identity()
    far_without = (unet(moved, level, None) - unet(x, level, None))[..., 40:, :].abs().max()
    assert far > 0
    assert far_without == 0


def test_time_embeddings_tell_levels_apart():
    embedded = TimeEmbedding(32)(torch.arange(0, 1000, 37))
    assert embedded.shape == (28, 128)
    apart = torch.cdist(embedded, embedded) + torch.eye(28)
    assert apart.min() > 1e-3


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_encoder_gives_one_vector_a_slice(norm):
    encoder = SliceEncoder(EncoderConfig(blocks=(1, 1), width=8, norm=norm, patch=2), features=10).eval()
    x = torch.randn(3, 1, 32, 24)
    together = encoder(x)
    assert together.shape == (3, 10)
    alone = torch.cat([encoder(x[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-4


def test_a_width_of_nothing_is_refused():
    for config in (UNetConfig, SegmenterConfig):
        with pytest.raises(ValueError, match="must divide every width, not 0"):
            config(channels=(0, 8), norm_groups=4)
