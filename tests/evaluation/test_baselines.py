"""Baselines against values worked out by hand, and the atlas against numpy."""

import numpy as np
import pytest

from halebrain.evaluation.baselines import BASELINES, AtlasModel

VALUES = np.array([3.0, 1.0, 2.0, 2.0], dtype=np.float32)


def test_intensity_rank_is_turned_over_on_t1() -> None:
    rank = BASELINES.get("intensity rank")
    np.testing.assert_allclose(rank(VALUES, "FLAIR"), [1, 0.25, 0.625, 0.625])
    assert rank(VALUES, "T1w").argmax() == 1
    assert rank(VALUES, "T2w").argmax() == 0


def test_bright_and_dark_do_not_ask_for_the_modality() -> None:
    for modality in ("T1w", "FLAIR"):
        np.testing.assert_allclose(BASELINES.get("intensity rank bright")(VALUES, modality), [1, 0.25, 0.625, 0.625])
        np.testing.assert_allclose(BASELINES.get("intensity rank dark")(VALUES, modality), [0, 0.75, 0.375, 0.375])


def test_histogram_equalisation_by_hand() -> None:
    equalised = BASELINES.get("histogram-equalised intensity")
    # 256 bins from 0 to 256: one voxel in the first, two in the middle, one in the last.
    values = np.array([0.0, 128.5, 128.5, 256.0], dtype=np.float32)
    np.testing.assert_allclose(equalised(values, "FLAIR"), [0.25, 0.75, 0.75, 1.0], atol=1e-6)
    np.testing.assert_allclose(equalised(values, "T1w"), [0.75, 0.25, 0.25, 0.0], atol=1e-6)


@pytest.mark.parametrize("name", list(BASELINES))
def test_scores_keep_the_order_of_intensities_and_the_unit_interval(name: str, rng: np.random.Generator) -> None:
    values = rng.gamma(2.0, 100.0, 500).astype(np.float32)
    score = BASELINES.get(name)(values, "T2w")
    assert score.dtype == np.float32
    assert score.shape == values.shape
    assert score.min() >= 0
    assert score.max() <= 1
    steps = np.diff(score[np.argsort(values)])
    assert (steps <= 1e-7).all() if name.endswith("dark") else (steps >= -1e-7).all()
    assert np.isfinite(BASELINES.get(name)(np.ones(5, np.float32), "T2w")).all()


def scans(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.random((n, 6, 5, 4)).astype(np.float32), rng.random((n, 6, 5, 4)) < 0.8


def test_the_atlas_is_the_mean_and_the_standard_deviation(rng: np.random.Generator) -> None:
    images, masks = scans(rng, 7)
    atlas = AtlasModel.fit(zip(images, masks, strict=True), smoothing_voxels=0)
    held = np.ma.masked_array(images, ~masks)
    assert masks.sum(axis=0).min() >= 2
    np.testing.assert_allclose(atlas.mean, held.mean(axis=0).filled(0), atol=1e-6)
    np.testing.assert_allclose(atlas.std, held.std(axis=0).filled(np.inf), atol=1e-6)
    assert atlas.n_scans == 7


def test_smoothing_pools_the_moments_of_the_neighbourhood(rng: np.random.Generator) -> None:
    images = rng.normal(0.5, 0.1, (4, 24, 24, 24)).astype(np.float32)
    mask = np.ones((24, 24, 24), bool)
    atlas = AtlasModel.fit(((image, mask) for image in images), smoothing_voxels=4)
    centre = (slice(10, 14),) * 3
    # Of what does not depend on place, a neighbourhood sees more: mean and spread become those of all voxels.
    np.testing.assert_allclose(atlas.mean[centre], 0.5, atol=0.01)
    np.testing.assert_allclose(atlas.std[centre], 0.1, atol=0.01)


def test_the_score_counts_standard_deviations() -> None:
    atlas = AtlasModel(np.full((1, 1, 4), 0.5, np.float32), np.array([[[0.1, 0.1, 0, np.inf]]], np.float32), 5)
    image = np.array([[[0.7, 0.3, 0.52, 0.9]]], np.float32)
    np.testing.assert_allclose(atlas.score(image)[0, 0], [2 / 3, 2 / 3, 0.5, 0], atol=1e-5)
    signed = {m: atlas.score(image, signed=True, modality=m)[0, 0] for m in ("FLAIR", "T1w")}
    np.testing.assert_allclose(signed["FLAIR"], [2 / 3, 0, 0.5, 0], atol=1e-5)
    np.testing.assert_allclose(signed["T1w"], [0, 2 / 3, 0, 0], atol=1e-5)


def test_one_scan_says_nothing_of_spread_and_none_is_refused() -> None:
    one = AtlasModel.fit([(np.full((2, 2, 2), 0.5, np.float32), np.ones((2, 2, 2), bool))])
    assert not one.score(np.ones((2, 2, 2), np.float32)).any()
    with pytest.raises(ValueError, match="at least one"):
        AtlasModel.fit([])
