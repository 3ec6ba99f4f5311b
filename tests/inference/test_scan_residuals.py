"""Residual maps of a scan as a whole: three-dimensional SSIM, and the Mahalanobis distance with covariances."""

import numpy as np
import pytest
import torch

from halebrain.core.similarity import ssim_map, ssim_volume
from halebrain.inference.scan_residuals import SCAN_RESIDUALS, mahalanobis_distance, mahalanobis_full, ssim_3d


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", list(SCAN_RESIDUALS))
def test_in_the_unit_interval_zero_outside_and_for_a_scan_that_was_given_back(name: str) -> None:
    image, samples = noise(0, 7, 1, 12, 10), noise(1, 4, 7, 1, 12, 10)
    inside = noise(2, 7, 1, 12, 10) > 0.3
    inside[3] = False  # a slice without brain
    found = SCAN_RESIDUALS.get(name)(image, samples, inside)
    assert found.shape == image.shape
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert float(found.max()) > 0
    assert not found[~inside].any()
    same = SCAN_RESIDUALS.get(name)(image, image[None].repeat(4, 1, 1, 1, 1), inside)
    torch.testing.assert_close(same, torch.zeros_like(image), atol=1e-5, rtol=0)


def test_a_volume_that_is_the_same_in_every_slice_has_the_similarity_of_the_slice() -> None:
    a, b = noise(0, 14, 12), noise(1, 14, 12)
    span = float(max(a.max() - a.min(), b.max() - b.min()))
    flat = ssim_map(a[None, None], b[None, None], data_range=span)[0, 0]
    found = ssim_volume(a.expand(9, 14, 12), b.expand(9, 14, 12))
    torch.testing.assert_close(found, flat.expand(9, 14, 12), atol=2e-5, rtol=0)


def test_the_similarity_of_a_volume_by_hand() -> None:
    volume, other = torch.zeros(11, 11, 11), torch.zeros(11, 11, 11)
    volume[0, 0, 0] = other[0, 0, 0] = 2.0  # far away: it alone sets the range
    volume[6, 6, 6] = 1.0
    weights = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    w = float((weights / weights.sum())[4] ** 3)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    # Of the other volume nothing is there: means w and 0, variances w − w² and 0, no covariance.
    expected = c1 / (w**2 + c1) * c2 / (w - w**2 + c2)
    assert float(ssim_volume(volume, other)[6, 6, 6]) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match="more than 4 voxels"):
        ssim_volume(volume[:4], other[:4])


def test_anticorrelated_voxels_keep_their_order() -> None:
    image = noise(0, 9, 1, 16, 16)
    inside = torch.ones_like(image, dtype=torch.bool)
    similarity = ssim_volume(image[:, 0], 1 - image[:, 0])
    found = ssim_3d(image, (1 - image)[None], inside)[:, 0]
    assert float((1 - similarity).max()) > 1
    assert len(found[similarity < 0].unique()) > 100, "clamped at 1 these would all be one value"
    torch.testing.assert_close(found, (1 - similarity) / 2)


def test_the_mahalanobis_distance_is_that_of_the_whole_covariance() -> None:
    image, samples = noise(0, 2, 1, 5, 4), noise(1, 6, 2, 1, 5, 4)
    inside = noise(2, 2, 1, 5, 4) > 0.2
    found = mahalanobis_distance(image, samples, inside)
    for k in range(2):
        brain = inside[k, 0]
        own = samples[:, k, 0][:, brain].double()
        covariance = np.cov(own.numpy().T) + 0.01 * np.eye(int(brain.sum()))
        delta = (image[k, 0][brain].double() - own.mean(dim=0)).numpy()
        parts = delta * (np.linalg.inv(covariance) @ delta)
        expected = torch.from_numpy(np.sqrt(np.maximum(parts, 0))).float()
        torch.testing.assert_close(found[k, 0][brain], expected, rtol=1e-4, atol=1e-5)
    m = found[inside]
    torch.testing.assert_close(mahalanobis_full(image, samples, inside)[inside], m / (1 + m))


def test_pixels_that_vary_together_are_no_surprise_when_they_deviate_together() -> None:
    # Two pixels that rise and fall together: δ = (1, 1) is usual, δ = (1, −1) is not, which no variance alone tells.
    samples = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]).view(3, 1, 1, 1, 2)
    inside = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    together, apart = (
        mahalanobis_distance(torch.tensor(x).view(1, 1, 1, 2), samples, inside) for x in ([1.0, 1.0], [1.0, 0.0])
    )
    # Σ = 0.25 · [[1, 1], [1, 1]] + 0.01 I: eigenvalues 0.51 along (1, 1) and 0.01 along (1, −1); δ = (±0.5, 0.5).
    torch.testing.assert_close(together.flatten(), torch.full((2,), (0.25 / 0.51) ** 0.5))
    torch.testing.assert_close(apart.flatten(), torch.full((2,), (0.25 / 0.01) ** 0.5))
