"""Moving pairs: together, reproducibly, and not at all where it is off."""

import pytest
import torch

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.core.random import make_generator
from halebrain.data.augment import AugmentationConfig, PairAugmentationConfig, warp

ALL = PairAugmentationConfig(warp=1)


@pytest.fixture
def square() -> torch.Tensor:
    image = torch.zeros(6, 1, 40, 32)
    image[:, :, 14:26, 10:22] = 1
    return image


def test_nothing_moves_without_it(square: torch.Tensor) -> None:
    generator = make_generator(1)
    before = generator.get_state()
    (same,) = warp(square, config=PairAugmentationConfig(), generator=generator)
    assert same is square
    assert torch.equal(generator.get_state(), before), "other settings must keep the random numbers that they had"


def test_tensors_move_together_and_masks_stay_masks(square: torch.Tensor) -> None:
    image, mask = warp(square, square.bool(), config=ALL, generator=make_generator(2))
    assert mask.dtype == torch.bool
    assert torch.equal(mask, image >= 0.5)
    assert not torch.equal(mask, square.bool())


def test_each_slice_moves_in_its_own_way_and_again_the_same(square: torch.Tensor) -> None:
    first, again = (warp(square, config=ALL, generator=make_generator(3))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert len({tuple(x.flatten().tolist()) for x in first}) == len(first)


def test_moves_are_small(square: torch.Tensor) -> None:
    (moved,) = warp(square, config=ALL, generator=make_generator(4))
    areas = moved.sum(dim=(1, 2, 3)) / square[0].sum()
    assert float(areas.min()) > 0.6
    assert float(areas.max()) < 1.7
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1 + 1e-6


def test_the_share_of_slices_is_the_probability() -> None:
    image = torch.zeros(400, 1, 16, 16)
    image[:, :, 4:12, 6:9] = 1
    (moved,) = warp(image, config=PairAugmentationConfig(warp=0.25), generator=make_generator(5))
    assert 0.18 < float((moved != image).flatten(1).any(dim=1).float().mean()) < 0.32


def test_a_turn_on_a_field_that_is_not_square_is_no_shear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_MAX_LOG_SCALE", "_MAX_BEND"):
        monkeypatch.setattr(f"halebrain.data.augment.{name}", 0.0)
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(80) - 39.5, indexing="ij")
    disc = torch.sigmoid(14 - (x.square() + y.square()).sqrt()).expand(20, 1, 40, 80).contiguous()
    (turned,) = warp(disc, config=ALL, generator=make_generator(6))
    torch.testing.assert_close(turned, disc, atol=0.05, rtol=0)


def test_it_belongs_to_pairs_only() -> None:
    with pytest.raises(ConfigError, match="warp"):
        parse_config(AugmentationConfig, {"warp": 0.5}, where="stage 1")
