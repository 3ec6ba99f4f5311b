"""Every residual map: its range, what it says of identical images, and values worked out by hand."""

import numpy as np
import pytest
import torch

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.core.similarity import multi_ssim_map, ssim_map
from halebrain.inference.anomaly_map import RESIDUALS, PostprocessingConfig, residual_map


def noise(seed: int) -> torch.Tensor:
    return torch.rand(2, 1, 32, 28, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", list(RESIDUALS))
def test_in_the_unit_interval_and_zero_for_identical_images(name: str) -> None:
    image, other = noise(0), noise(1)
    found = residual_map(image, other, name, variance=0.1 * noise(2))
    assert found.shape == image.shape
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    torch.testing.assert_close(residual_map(image, image, name), torch.zeros_like(image), atol=1e-5, rtol=0)


def test_the_negative_residual_knows_darker_only() -> None:
    dark, bright = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    torch.testing.assert_close(residual_map(dark, bright, "negative"), torch.full_like(dark, 0.4))
    assert not residual_map(bright, dark, "negative").any()


def test_several_kernels_are_the_mean_of_each() -> None:
    image, other = noise(0), noise(1)
    expected = (ssim_map(image, other) + ssim_map(image, other, sigma=2.0, window=17)) / 2
    torch.testing.assert_close(multi_ssim_map(image, other, sigmas=(1.0, 2.0)), expected)
    torch.testing.assert_close(multi_ssim_map(image, other, sigmas=(1.0,)), ssim_map(image, other))


def test_mahalanobis_by_hand() -> None:
    draws = np.array([0.3, 0.4, 0.5])
    flat = torch.ones(1, 1, 16, 16)
    found = residual_map(0.9 * flat, draws.mean() * flat, "mahalanobis", variance=draws.var() * flat)
    distance = (0.9 - 0.4) ** 2 / (0.02 / 3 + 0.05**2)
    torch.testing.assert_close(found, distance / (1 + distance) * flat)
    # The same deviation says less where the draws disagree more.
    assert residual_map(0.9 * flat, 0.4 * flat, "mahalanobis", variance=0.2 * flat).max() < found.min()


def test_an_unknown_name_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"'mahalanobi'; did you mean 'mahalanobis'\?"):
        parse_config(PostprocessingConfig, {"residual": "mahalanobi"})
