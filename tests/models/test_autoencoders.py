import pytest
import torch

from halebrain.core.errors import ConfigError
from halebrain.core.random import draw_seeds, make_generator
from halebrain.core.similarity import ssim_map
from halebrain.models.reconstruction import build_reconstructor
from halebrain.models.reconstruction.autoencoder import kl_divergence
from halebrain.models.reconstruction.restoration import coarse_noise

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 0}
SMALL = {"channels": [8, 16], "norm_groups": 4, "latent": 8}


@pytest.fixture
def image():
    return torch.rand(2, 1, 32, 24, generator=make_generator(1))


def test_the_divergence_by_hand():
    zeros = torch.zeros(2, 3)
    assert float(kl_divergence(zeros, zeros)) == 0
    assert float(kl_divergence(zeros + 2, zeros)) == pytest.approx(2)
    assert float(kl_divergence(zeros, zeros + 1)) == pytest.approx((torch.e - 2) / 2, rel=1e-6)


@pytest.mark.parametrize("name", ["ae", "vae"])
@pytest.mark.parametrize("size", [(96, 96), (50, 43), (8, 8)])
def test_any_size_goes_through_one_vector(name, size):
    built = build_reconstructor(name, SMALL)
    image = torch.rand(2, 1, *size)
    assert built.encode(image).shape == (2, 8 * built.outputs_per_latent)
    assert built.reconstruct(image, level=None, seeds=draw_seeds(2, make_generator(0))).shape == image.shape


def test_the_weight_of_the_divergence_counts(image):
    losses = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        built = build_reconstructor("vae", SMALL | {"kl_weight": weight})
        losses.append(float(built.loss(image, generator=make_generator(0)).detach()))
    mean, log_variance = built.encode(image).chunk(2, dim=1)
    assert losses[1] - losses[0] == pytest.approx(float(kl_divergence(mean, log_variance).detach()), rel=1e-4)


def test_coarse_noise_is_coarse_centred_and_each_slices_own():
    fields = coarse_noise(draw_seeds(200, make_generator(0)), 64, 48, size=8)
    assert fields.shape == (200, 1, 64, 48)
    assert abs(float(fields.mean())) < 0.05
    assert 0.5 < float(fields.std()) < 1  # interpolation takes some of the unit variance
    assert float(fields.diff(dim=2).abs().mean()) < 0.3 * float(fields.abs().mean())
    again = coarse_noise(draw_seeds(200, make_generator(0))[3:4], 64, 48, size=8)
    assert torch.equal(again[0], fields[3])


def test_denoising_puts_noise_where_the_brain_is(image):
    image[:, :, :, :8] = 0
    seen = []

    class Watch(torch.nn.Module):
        def forward(self, x, level, condition):
            seen.append(x)
            return x

    built = build_reconstructor("dae", {"unet": UNET})
    built.unet = Watch()
    assert float(built.loss(image, generator=make_generator(0))) > 0
    changed = (seen[0] + 1) / 2 - image
    assert not changed[..., :8].abs().max() > 1e-6
    assert float(changed[..., 8:].std()) == pytest.approx(0.2 * 0.8, rel=0.3)
    torch.testing.assert_close(built.reconstruct(image, level=None, seeds=draw_seeds(2, make_generator(0))), image)


@pytest.mark.parametrize("name", ["restoration", "disyre"])
def test_a_fresh_restorer_changes_nothing(name, image):
    built = build_reconstructor(name, {"unet": UNET})
    for level in built.levels:
        out = built.reconstruct(image, level=level, seeds=draw_seeds(2, make_generator(0)))
        torch.testing.assert_close(out, image, atol=1e-6, rtol=0)


def test_the_loss_of_a_fresh_restorer_is_what_the_corruption_did(image):
    def corrupt(healthy, _):
        return healthy * 0.5

    built = build_reconstructor("restoration", {"unet": UNET})
    loss = built.loss(image, generator=make_generator(0), corrupt=corrupt)
    expected = (image * 0.5).square().mean() + (1 - ssim_map(image * 0.5, image)).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_degrees_go_from_healthy_to_the_whole_anomaly(image):
    built = build_reconstructor("disyre", {"unet": UNET, "n_levels": 1, "test_levels": [1]})
    whole = built.loss(image, generator=make_generator(0), corrupt=lambda x, _: x * 0)
    assert float(whole.detach()) == pytest.approx(float(2 * image.mean()), rel=1e-5)  # in [−1, 1]
    fine = build_reconstructor("disyre", {"unet": UNET, "n_levels": 1000})
    losses = [
        float(fine.loss(image, generator=make_generator(n), corrupt=lambda x, _: x * 0).detach()) for n in range(40)
    ]
    assert sum(losses) / 40 == pytest.approx(float(image.mean()), rel=0.25)  # half of it on average


def test_a_restorer_that_knows_the_answer_arrives_in_any_number_of_steps(image):
    for steps in (1, 3):
        built = build_reconstructor("disyre", {"unet": UNET, "sampling_steps": steps})
        built._healthy = lambda x, level: torch.full_like(x, 0.5)
        out = built.reconstruct(image, level=100, seeds=draw_seeds(2, make_generator(0)))
        torch.testing.assert_close(out, torch.full_like(image, 0.75))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("disyre", {"test_levels": [0]}), ("disyre", {"test_levels": [101]}), ("ae", {"channels": [12]})],
)
def test_wrong_settings_are_refused(name, settings):
    with pytest.raises(ConfigError):
        build_reconstructor(name, settings)
