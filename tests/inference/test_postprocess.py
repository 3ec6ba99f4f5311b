"""Residual maps, fusion, filters and masks, against values worked out by hand."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError
from halebrain.core.mask import Cut, to_mask
from halebrain.core.similarity import ssim_map
from halebrain.inference.anomaly_map import (
    PostprocessingConfig,
    erode,
    filter_residual,
    fuse,
    residual_map,
    smooth_through_plane,
)

C1, C2 = 0.01**2, 0.03**2


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 1, 24, 20, generator=generator), torch.rand(2, 1, 24, 20, generator=generator)


def test_ssim_of_identical_images_is_one_and_it_is_symmetric() -> None:
    a, b = pair()
    torch.testing.assert_close(ssim_map(a, a), torch.ones_like(a))
    torch.testing.assert_close(ssim_map(a, b), ssim_map(b, a))
    assert ssim_map(a, b).mean() < 0.5


def test_ssim_of_flat_images_by_hand() -> None:
    a, b = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + C1) / (0.2**2 + 0.6**2 + C1)
    torch.testing.assert_close(ssim_map(a, b), torch.full_like(a, expected), atol=1e-3, rtol=0)


def test_ssim_at_a_pixel_by_hand() -> None:
    a, b = (t.double() for t in pair(1))
    offset = np.arange(9) - 4
    kernel = np.exp(-0.5 * offset**2)
    weight = np.outer(kernel, kernel) / kernel.sum() ** 2
    x, y = (t[1, 0, 8:17, 5:14].numpy() for t in (a, b))  # the window around pixel (12, 9)
    mx, my = (weight * x).sum(), (weight * y).sum()
    vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
    cov = (weight * (x - mx) * (y - my)).sum()
    expected = (2 * mx * my + C1) * (2 * cov + C2) / ((mx**2 + my**2 + C1) * (vx + vy + C2))
    assert float(ssim_map(a, b)[1, 0, 12, 9]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("kind", "expected"), [("absolute", 0.4), ("squared", 0.16)])
def test_plain_residuals(kind: str, expected: float) -> None:
    a, b = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    torch.testing.assert_close(residual_map(a, b, kind), torch.full_like(a, expected))


def test_the_positive_residual_knows_brighter_only() -> None:
    dark, bright = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    torch.testing.assert_close(residual_map(bright, dark, "positive"), torch.full_like(dark, 0.4))
    assert not residual_map(dark, bright, "positive").any()


def test_ssim_residual_is_clipped() -> None:
    a, _ = pair()
    residual = residual_map(a, 1 - a, "ssim")  # anticorrelated: 1 − SSIM exceeds 1
    assert float(residual.max()) == 1.0
    assert float(residual_map(a, a, "ssim").max()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_fusion_closed_form(weight: float) -> None:
    residual = np.array([[[0.2, 0.8, 0.5]]], dtype=np.float32)
    probability = np.array([[[1.0, 0.1, 0.9]]], dtype=np.float32)
    inside = np.array([[[True, True, False]]])
    score = fuse(residual, probability, inside, residual_weight=weight)
    expected = [weight * 0.2 + (1 - weight) * 1.0, weight * 0.8 + (1 - weight) * 0.1, 0]
    np.testing.assert_allclose(score[0, 0], expected, atol=1e-6)
    assert score.dtype == np.float32


def test_evidence_by_hand() -> None:
    """A probability of 1/3 has odds 1/2; z = 2 and β = 0.5 multiply them by e; z = 9 counts as 6."""
    residual = np.array([2 / 3, 0.9, 0.0, 0.5], dtype=np.float32)
    probability = np.array([1 / 3, 1 / 3, 0.25, 0.0], dtype=np.float32)
    inside = np.array([True, True, True, True])
    found = fuse(residual, probability, inside, residual_weight=0.5, fusion="log_odds")
    odds = np.array([np.e / 2, np.exp(3) / 2, 1 / 3, 1e-5 * np.exp(0.5)])
    np.testing.assert_allclose(found, odds / (1 + odds), rtol=1e-4)
    assert not fuse(residual, probability, ~inside, residual_weight=0.5, fusion="log_odds").any()


def test_a_fusion_must_be_known_and_have_what_it_needs() -> None:
    with pytest.raises(ConfigError, match="did you mean 'log_odds'"):
        parse_config(PostprocessingConfig, {"fusion": "log_ods"})
    with pytest.raises(ConfigError, match="log_odds needs a normalised residual"):
        parse_config(PostprocessingConfig, {"fusion": "log_odds", "residual": "absolute"})


def test_smoothing_goes_across_slices_alone_and_stays_in_the_brain() -> None:
    probability = np.zeros((5, 5, 21), dtype=np.float32)
    probability[2, 2, 10] = 1  # one slice alone
    probability[1, 1, 6:15] = 1
    brain = np.ones(probability.shape, dtype=bool)
    brain[2, 2, 11] = False
    smooth = smooth_through_plane(probability, brain, sigma_voxels=2.0)
    assert smooth[2, 2, 10] == pytest.approx(0.2, abs=0.01), "1 / (σ √2π)"
    assert smooth[1, 1, 10] > 0.95
    assert smooth[2, 2, 11] == 0
    assert not smooth[3].any()
    assert smooth_through_plane(probability, brain, sigma_voxels=0) is probability
    assert "through_plane_mm" not in PostprocessingConfig().model_dump()


def test_the_geometric_mean_of_two_gaussians_is_sharper_where_a_lesion_ends_and_low_where_it_stands_alone() -> None:
    probability = np.zeros((3, 3, 61), dtype=np.float32)
    probability[0, 0, 30] = 1  # one slice alone
    probability[1, 1, 25:36] = 1  # a lesion of eleven slices
    brain = np.ones(probability.shape, dtype=bool)
    narrow, wide = (smooth_through_plane(probability, brain, sigma_voxels=sigma) for sigma in (1.5, 8.0))
    both = smooth_through_plane(probability, brain, sigma_voxels=1.5, around_voxels=8.0)
    np.testing.assert_allclose(both, np.sqrt(narrow * wide), atol=1e-6)
    assert both.dtype == np.float32
    # Four slices beyond its end the wide one still calls it.
    assert both[1, 1, 39] / both[1, 1, 30] < 0.2 < wide[1, 1, 39] / wide[1, 1, 30]
    # Two slices apart, what stands alone is lower beside the whole than with the narrow one.
    assert both[0, 0, 30] / both[1, 1, 30] < narrow[0, 0, 30] / narrow[1, 1, 30]
    alone = smooth_through_plane(probability, brain, sigma_voxels=0.0, around_voxels=8.0)
    np.testing.assert_allclose(alone, np.sqrt(probability * wide), atol=1e-6)


def test_the_second_gaussian_must_be_the_wider_one() -> None:
    with pytest.raises(ConfigError, match="through_plane_sigma_wide_mm must exceed through_plane_mm 8, not 6"):
        parse_config(PostprocessingConfig, {"through_plane_mm": 8.0, "through_plane_sigma_wide_mm": 6.0})
    with pytest.raises(ConfigError, match="through_plane_sigma_wide_mm must exceed through_plane_mm 3, not 2"):
        parse_config(PostprocessingConfig, {"through_plane_by_contrast": {"FLAIR": [3.0, 2.0]}})
    assert "through_plane_sigma_wide_mm" not in PostprocessingConfig(through_plane_mm=8.0).model_dump()


def test_a_contrast_may_have_widths_of_its_own() -> None:
    settings = {"through_plane_mm": 8.0, "through_plane_by_contrast": {"FLAIR": [3, 16], "T1w": [0, 0]}}
    config = parse_config(PostprocessingConfig, settings)
    widths = {name: config.across_mm(name) for name in ("FLAIR", "T1w", "T2w", None)}
    assert widths == {"FLAIR": (3, 16), "T1w": (0, 0), "T2w": (8, 0), None: (8, 0)}
    assert parse_config(PostprocessingConfig, config.model_dump(mode="json")) == config


def test_median_filter_removes_one_voxel_and_keeps_a_block() -> None:
    residual = np.zeros((20, 20, 20), dtype=np.float32)
    residual[4, 4, 4] = 1
    residual[10:16, 10:16, 10:16] = 1
    brain = np.ones_like(residual, dtype=bool)
    filtered = filter_residual(residual, brain, 5)
    assert filtered[4, 4, 4] == 0
    assert filtered[12:14, 12:14, 12:14].all()
    np.testing.assert_array_equal(filter_residual(residual, brain, 1), residual)


def test_median_filter_stays_in_the_brain() -> None:
    residual = np.ones((12, 12, 12), dtype=np.float32)
    brain = np.zeros_like(residual, dtype=bool)
    brain[3:9, 3:9, 3:9] = True
    filtered = filter_residual(residual, brain, 3)
    assert not filtered[~brain].any()
    assert filtered[6, 6, 6] == 1
    assert not filter_residual(residual, np.zeros_like(brain), 3).any()


def test_erosion_is_in_plane_only() -> None:
    brain = np.zeros((11, 11, 6), dtype=bool)
    brain[2:9, 2:9, 1:5] = True
    eroded = erode(brain, 1)
    expected = np.zeros_like(brain)
    expected[3:8, 3:8, 1:5] = True
    np.testing.assert_array_equal(eroded, expected)
    assert erode(brain, 2).sum() == 3 * 3 * 4
    np.testing.assert_array_equal(erode(brain, 0), brain)


def test_erosion_of_a_single_slice_keeps_it() -> None:
    brain = np.zeros((9, 9, 5), dtype=bool)
    brain[2:7, 2:7, 2] = True
    assert erode(brain, 1)[..., 2].sum() == 9


def test_mask_reaches_the_threshold() -> None:
    score = np.array([[[0.1, 0.5, 0.9]]], dtype=np.float32)
    mask = to_mask(score, Cut(0.5), voxel_mm3=1)
    assert mask.tolist() == [[[False, True, True]]]


@pytest.mark.parametrize(("least", "kept"), [(5.9, 2), (6.0, 2), (6.1, 1), (24.1, 0)])
def test_small_pieces_are_dropped_by_volume(least: float, kept: int) -> None:
    score = np.zeros((12, 12, 12), dtype=np.float32)
    score[1, 1, 1] = score[2, 2, 2] = score[3, 3, 3] = 1  # touches by corners: one piece of three voxels
    score[6:9, 6:8, 6:8] = 1  # twelve voxels
    mask = to_mask(score, Cut(0.5, least), voxel_mm3=2.0)
    assert ndimage.label(mask, structure=np.ones((3, 3, 3)))[1] == kept


def test_nothing_above_the_threshold() -> None:
    mask = to_mask(np.zeros((4, 4, 4), dtype=np.float32), Cut(0.5, 20), voxel_mm3=1)
    assert mask.dtype == bool
    assert not mask.any()
