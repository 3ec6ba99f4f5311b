import json
import re

import pytest
import torch

from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.reconstruction import RECONSTRUCTORS, build_reconstructor
from halebrain.models.reconstruction.base import OneLevelReconstructor
from halebrain.models.reconstruction.diffusion import DiffusionReconstructor
from halebrain.models.reconstruction.itermask import IterMask

UNET = {"channels": [8, 16], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 8}
SETTINGS = {
    "ae": {"channels": [8, 16], "norm_groups": 4, "latent": 8},
    "vae": {"channels": [8, 16], "norm_groups": 4, "latent": 8},
    "dae": {"unet": UNET},
    "restoration": {"unet": UNET},
    "disyre": {"unet": UNET},
    "reflect": {"unet": UNET},
    "itermask": {"unet": UNET, "radius": 3.0},
    "inpainting": {"unet": UNET, "test_levels": [4, 6]},
    "restorer": {"unet": UNET, "noise_levels": [300, 400]},
    "second_look": {
        "finder": {"name": "anoddpm", "settings": {"unet": UNET}},
        "doubter": {"channels": [8, 16], "norm_groups": 4, "patch": 2},
        "filler": {"unet": UNET},
        "doubt": 0.5,
    },
    "fae": {"backbone_width": 8, "channels": [16, 16]},
    "rd": {"backbone": "resnet18", "backbone_width": 8},
    "ddpm": {"unet": UNET},
    "anoddpm": {"unet": UNET},
    "pddpm": {"unet": UNET, "patch_size": 16, "stride": 8},
    "cddpm": {"unet": UNET, "encoder": {"blocks": [1, 1], "width": 8, "norm": "group", "features": 12}},
}


NAMES = RECONSTRUCTORS.names()


def only(wanted):
    """Run a test with the methods of which `wanted` holds; there must be some."""
    chosen = [name for name in NAMES if wanted(RECONSTRUCTORS.get(name))]
    assert chosen
    return pytest.mark.parametrize("reconstructor", chosen, indirect=True)


@pytest.fixture(params=NAMES)
def reconstructor(request):
    torch.manual_seed(0)
    built = build_reconstructor(request.param, SETTINGS.get(request.param, {}))
    # Untrained heads are zero; noise on the weights makes the output depend on the input.
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return loaded(built).eval()


def loaded(built):
    """As a saved model would be: a backbone runs with loaded weights only."""
    built.load_state_dict(built.state_dict())
    return built


@pytest.fixture
def image():
    return torch.rand(3, 1, 24, 32, generator=make_generator(1))


def corrupt(image, generator):
    """Take most of the brightness away, how much is drawn by the generator."""
    return image * 0.4 * torch.rand((), generator=generator)


def loss_of(reconstructor, image, generator):
    return reconstructor.loss(image, generator=generator, corrupt=corrupt if reconstructor.needs_corruption else None)


def test_the_loss_is_a_finite_scalar_that_teaches(reconstructor, image):
    loss = loss_of(reconstructor, image, make_generator(0))
    assert loss.shape == ()
    loss.backward()
    gradients = [p.grad for p in reconstructor.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0


def test_the_same_generator_gives_the_same_loss(reconstructor, image):
    first, second = (float(loss_of(reconstructor, image, make_generator(7)).detach()) for _ in range(2))
    assert first == second


def test_a_reconstruction_has_the_shape_and_range_of_its_input(reconstructor, image):
    before = image.clone()
    for level in reconstructor.levels:
        out = reconstructor.reconstruct(image, level=level, seeds=draw_seeds(3, make_generator(0)))
        assert out.shape == image.shape
        assert out.min() >= 0
        assert out.max() <= 1
    torch.testing.assert_close(image, before, rtol=0, atol=0)


@only(lambda kind: kind.gives_image)
def test_a_method_with_pictures_has_no_map(reconstructor, image):
    with pytest.raises(TypeError, match="residual"):
        reconstructor.anomaly_map(image, level=reconstructor.levels[0], seeds=draw_seeds(3, make_generator(0)))


@only(lambda kind: not kind.gives_image)
def test_a_method_without_pictures_has_a_map_instead(reconstructor, image):
    seeds, level = draw_seeds(3, make_generator(0)), reconstructor.levels[0]
    found = reconstructor.anomaly_map(image, level=level, seeds=seeds)
    assert found.shape == image.shape
    assert found.min() >= 0
    assert found.max() <= 1
    alone = [reconstructor.anomaly_map(image[n : n + 1], level=level, seeds=seeds[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-4, rtol=1e-3)
    assert torch.equal(reconstructor.reconstruct(image, level=level, seeds=seeds), image)


def test_a_slice_does_not_depend_on_its_batch(reconstructor, image):
    seeds = draw_seeds(3, make_generator(0))
    level = reconstructor.levels[0]
    together = reconstructor.reconstruct(image, level=level, seeds=seeds)
    alone = [reconstructor.reconstruct(image[n : n + 1], level=level, seeds=seeds[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_seeds_matter_exactly_where_noise_is_drawn(reconstructor, image):
    level = reconstructor.levels[-1]
    first, second = (
        reconstructor.reconstruct(image, level=level, seeds=draw_seeds(3, make_generator(n))) for n in (0, 1)
    )
    noisy = isinstance(reconstructor, DiffusionReconstructor | IterMask)
    noisy |= bool(getattr(reconstructor.settings, "noise_levels", ()))
    assert ((first - second).abs().max() > 1e-3) == noisy


@pytest.mark.slow
def test_it_learns_one_batch(reconstructor, image):
    torch.manual_seed(0)
    built = loaded(build_reconstructor(registered_name(reconstructor), reconstructor.settings.model_dump(mode="json")))
    optimizer = torch.optim.Adam([p for p in built.parameters() if p.requires_grad], lr=3e-3)
    smooth = torch.nn.functional.interpolate(image[..., ::8, ::8], image.shape[-2:], mode="bilinear")

    def validation():
        with torch.no_grad():
            return sum(float(loss_of(built, smooth, make_generator("v", n))) for n in range(4))

    before = validation()
    for step in range(40):
        optimizer.zero_grad()
        loss_of(built, smooth, make_generator(step)).backward()
        optimizer.step()
    assert validation() < 0.85 * before


@only(lambda kind: kind.needs_corruption)
def test_a_restorer_says_what_it_needs(reconstructor, image):
    with pytest.raises(ValueError, match="corrupt"):
        reconstructor.loss(image, generator=make_generator(0))


def registered_name(reconstructor):
    return next(n for n in RECONSTRUCTORS.names() if RECONSTRUCTORS.get(n) is type(reconstructor))


def test_it_is_rebuilt_from_its_own_settings(reconstructor):
    name = registered_name(reconstructor)
    settings = json.loads(json.dumps(reconstructor.settings.model_dump(mode="json")))
    again = build_reconstructor(name, settings)
    assert again.settings == reconstructor.settings
    again.load_state_dict(reconstructor.state_dict(), strict=True)


@only(lambda kind: not issubclass(kind, OneLevelReconstructor))
def test_a_level_out_of_range_is_refused(reconstructor, image):
    with pytest.raises(ValueError, match="noise level"):
        reconstructor.reconstruct(image, level=1000, seeds=draw_seeds(3, make_generator(0)))


def test_its_paper_can_be_cited(reconstructor):
    assert re.search(r"\b(19|20)\d\d\b", reconstructor.reference)
    assert reconstructor.reference.endswith(".")
