"""The rectified flow: what its loss asks for, and where one step leads."""

import pytest
import torch

from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.reconstruction import build_reconstructor

UNET = {"channels": [8, 16], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 8}


class Field(torch.nn.Module):
    """A velocity that is known everywhere, and the times at which it was asked for."""

    def __init__(self, velocity):
        super().__init__()
        self.velocity, self.times = velocity, []

    def forward(self, x, level, condition):
        self.times.append(level)
        return self.velocity(x)


@pytest.fixture
def image():
    return torch.rand(4, 1, 16, 16, generator=make_generator(1)) * 0.5 + 0.25


def darkened(image, _generator):
    altered = image.clone()
    altered[..., :4] -= 0.2
    return altered


def test_the_loss_is_the_error_of_the_straight_way_from_the_anomaly_to_the_healthy_slice(image):
    built = build_reconstructor("reflect", {"unet": UNET})
    # A fresh network stands still: 0.4 of [−1, 1] on a quarter of the pixels.
    fresh = float(built.loss(image, generator=make_generator(0), corrupt=darkened).detach())
    assert fresh == pytest.approx(0.25 * 0.4**2, rel=1e-4)
    way = 2 * (image - darkened(image, None))
    built.unet = Field(lambda _: way)
    assert float(built.loss(image, generator=make_generator(0), corrupt=darkened)) == pytest.approx(0, abs=1e-12)
    times = built.unet.times[0] / 1000
    assert float(times.min()) >= 0
    assert float(times.max()) <= 1
    assert len(times.unique()) == 4, "each slice has its own time"
    with pytest.raises(ValueError, match="give corrupt"):
        built.loss(image, generator=make_generator(0))


def test_one_step_along_the_way_is_the_healthy_slice(image):
    way = 2 * (image - darkened(image, None))
    seeds = draw_seeds(4, make_generator(0))
    for steps in (1, 4):
        built = build_reconstructor("reflect", {"unet": UNET, "sampling_steps": steps})
        built.unet = Field(lambda _: way)
        torch.testing.assert_close(built.reconstruct(darkened(image, None), level=None, seeds=seeds), image)
        assert [float(t[0]) for t in built.unet.times] == [1000 * n / steps for n in range(steps)]


def test_more_steps_follow_a_way_that_bends(image):
    # dx/dt = −x: Euler's method gives (1 − 1/n)ⁿ, which comes closer to 1/e.
    built = build_reconstructor("reflect", {"unet": UNET, "sampling_steps": 5})
    built.unet = Field(lambda x: -x)
    out = built.reconstruct(image, level=None, seeds=draw_seeds(4, make_generator(0)))
    torch.testing.assert_close(out * 2 - 1, (1 - 1 / 5) ** 5 * (image * 2 - 1), atol=1e-5, rtol=1e-5)
