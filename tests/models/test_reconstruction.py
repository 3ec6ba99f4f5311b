import pytest
import torch

from halebrain.core.errors import ConfigError
from halebrain.core.random import draw_seeds, make_generator
from halebrain.models.reconstruction import build_reconstructor

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 2, "norm_groups": 4, "attention_head_channels": 0}
ENCODER = {"blocks": [1, 1], "width": 8, "norm": "group"}


def test_the_family_differs_by_its_settings():
    ddpm, anoddpm = (build_reconstructor(name, {"unet": UNET}) for name in ("ddpm", "anoddpm"))
    cddpm = build_reconstructor("cddpm", {"unet": UNET, "encoder": ENCODER})
    assert [r.settings.noise for r in (ddpm, anoddpm, cddpm)] == ["gaussian", "simplex", "simplex"]
    assert ddpm.encoder is None
    assert anoddpm.encoder is None
    assert cddpm.encoder.project.out_features == 32  # 4 × the first width
    assert ddpm.levels == (250, 500, 750)


def test_a_fresh_network_loses_what_a_grey_slice_would():
    built = build_reconstructor("anoddpm", {"unet": UNET})
    image = torch.rand(2, 1, 16, 16, generator=make_generator(0))
    loss = built.loss(image, generator=make_generator(1))
    assert float(loss.detach()) == pytest.approx(float((image * 2 - 1).abs().mean()), rel=1e-5)
    out = built.reconstruct(image, level=500, seeds=draw_seeds(2, make_generator(0)))
    torch.testing.assert_close(out, torch.full_like(out, 0.5))


def test_random_levels_cover_the_range():
    built = build_reconstructor("ddpm", {"unet": UNET, "n_levels": 10, "test_levels": [5]})
    generator = make_generator(0)
    assert {built.random_level(generator) for _ in range(300)} == set(range(10))
    narrow = build_reconstructor("ddpm", {"unet": UNET, "n_levels": 10, "train_levels": [3, 6], "test_levels": [5]})
    assert {narrow.random_level(generator) for _ in range(100)} == {3, 4, 5}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cdpm", {}),
        ("ddpm", {"noise": "perlin"}),
        ("ddpm", {"test_levels": [1000]}),
        ("ddpm", {"test_levels": []}),
        ("ddpm", {"train_levels": [500, 1001]}),
        ("ddpm", {"train_levels": [300, 300]}),
        ("ddpm", {"nlevels": 10}),
    ],
)
def test_wrong_settings_are_refused(name, settings):
    with pytest.raises(ConfigError):
        build_reconstructor(name, settings)
