import math

import pytest
import torch

from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.noise import NOISES
from halebrain.models.reconstruction import build_reconstructor
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


def test_noise_reaches_the_restored_slice_only_without_a_gate():
    image = torch.full((2, 1, 16, 32), 0.5)  # 0 of [−1, 1], so that only the noise is seen
    seeds = torch.tensor([3, 4])
    gated = Restorer(RestorerSettings(unet=UNET, noise_levels=(300, 400)))
    assert gated.levels == (300, 400)
    assert torch.equal(gated.reconstruct(image, level=300, seeds=seeds), image)
    plain = Restorer(RestorerSettings(unet=UNET, gate=False, noise_levels=(300, 400)))
    # A fresh network leaves half of the noise of [−1, 1] in [0, 1].
    left = (plain.reconstruct(image, level=300, seeds=seeds) - image) * 2
    sigma = float((1 - plain.alpha_bar[300]).sqrt())
    expected = sigma * NOISES.get("simplex")(seeds, 16, 32, image.device)
    torch.testing.assert_close(left, expected.clamp(-1, 1), atol=1e-5, rtol=0)
    assert not torch.equal(left[0], left[1])
    with pytest.raises(ValueError, match=r"a noise level must lie in .* got None"):
        plain.reconstruct(image, level=None, seeds=seeds)
    loss = plain.loss(image, generator=make_generator(0), corrupt=darkened)
    assert torch.equal(loss, plain.loss(image, generator=make_generator(0), corrupt=darkened))


def test_without_noise_levels_settings_are_those_of_before():
    assert "noise_levels" not in RestorerSettings(unet=UNET).model_dump()
    with pytest.raises(ValueError, match="noise_levels must lie in"):
        RestorerSettings(noise_levels=(1000,))


def test_the_published_denoiser_has_its_network_and_counts_the_brain_alone(monkeypatch):
    built = build_reconstructor("dae", {"network": "kascenas", "channels": [8, 16]})
    assert not hasattr(built, "unet")
    assert [layer.__class__.__name__ for layer in built.published.encoders[0][0]][:3] == [
        "StandardisedConv2d",
        "SiLU",
        "GroupNorm",
    ]
    image = torch.zeros(2, 1, 16, 16)
    image[..., :4] = 0.6  # a quarter of the pixels is brain
    monkeypatch.setattr(built, "_denoise", lambda given: torch.full_like(given, 0.1))
    loss = float(built.loss(image, generator=make_generator(0)))
    assert loss == pytest.approx(0.25 * 0.5**2)
    other = build_reconstructor("dae", {"unet": UNET})
    monkeypatch.setattr(other, "_denoise", lambda given: torch.full_like(given, 0.1))
    assert float(other.loss(image, generator=make_generator(0))) == pytest.approx(0.25 * 0.5**2 + 0.75 * 0.1**2)
    assert not {"network", "channels"} & set(other.settings.model_dump())


def test_without_skips_all_of_the_slice_passes_through_the_coarsest_level():
    image = torch.rand(1, 1, 16, 32, generator=make_generator(1))
    seeds = draw_seeds(1, make_generator(0))
    fresh = build_reconstructor("restoration", {"unet": UNET, "skips": False})
    torch.testing.assert_close(fresh.reconstruct(image, level=None, seeds=seeds), torch.full_like(image, 0.5))
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=make_generator(2)))
    out = fresh.reconstruct(image, level=None, seeds=seeds).detach()
    assert float(out.std()) > 0
    # What reaches the middle decides alone.
    fresh.unet.middle1.register_forward_hook(lambda *_: torch.zeros(1, 16, 4, 8))
    torch.testing.assert_close(
        fresh.reconstruct(image, level=None, seeds=seeds), fresh.reconstruct(1 - image, level=None, seeds=seeds)
    )
