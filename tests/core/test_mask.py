"""From a score to a mask with growth: by hand, against a flood fill, and what growth can never do."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from halebrain.core.mask import Cut, box_of, masked, to_mask


def row(*values):
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


def marked(score, cut, voxel_mm3=1.0):
    return to_mask(score, cut, voxel_mm3=voxel_mm3).ravel().astype(int).tolist()


def test_a_seed_grows_into_what_is_connected_above_the_lower_threshold():
    score = row(0.3, 0.3, 0.9, 0.2, 0.1, 0.4, 0.4, 0.0, 0.6)
    assert marked(score, Cut(0.5)) == [0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert marked(score, Cut(0.5, grow_to=0.2)) == [1, 1, 1, 1, 0, 0, 0, 0, 1]
    assert marked(score, Cut(0.5, grow_to=0.1)) == [1, 1, 1, 1, 1, 1, 1, 0, 1]


def test_voxels_that_touch_at_a_corner_are_connected():
    score = np.zeros((4, 4, 4), dtype=np.float32)
    score[0, 0, 0], score[1, 1, 1], score[3, 3, 3] = 0.9, 0.3, 0.3
    assert np.argwhere(to_mask(score, Cut(0.5, grow_to=0.2), voxel_mm3=1)).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_a_seed_must_be_large_enough_by_itself():
    # Grown, the peak alone would be four voxels; it is no finding without growth, so it is none with it.
    score = row(0.3, 0.9, 0.3, 0.3, 0.0, 0.3, 0.8, 0.8, 0.3)
    assert marked(score, Cut(0.5, 2.0)) == [0, 0, 0, 0, 0, 0, 1, 1, 0]
    assert marked(score, Cut(0.5, 2.0, 0.2)) == [0, 0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("rounding", [0, -1e-7, 1e-7, -2e-16])
def test_a_component_of_the_smallest_size_is_kept_whatever_the_rounding_of_the_header(rounding):
    score = row(0.9, 0.9, 0.9, 0.0, 0.9, 0.9)
    for size in (1.0, 0.7, 1.2 * 0.9375**2):
        assert marked(score, Cut(0.5, 3 * size), size * (1 + rounding)) == [1, 1, 1, 0, 0, 0]


def test_without_a_seed_nothing_grows(rng):
    score = (0.49 * rng.random((9, 8, 7))).astype(np.float32)
    assert not to_mask(score, Cut(0.5, grow_to=0.01), voxel_mm3=1).any()


@pytest.mark.parametrize("smallest", [0.0, 3.0])
@pytest.mark.parametrize("seed", range(6))
def test_growth_adds_no_finding_and_fills_each(seed, smallest):
    score = ndimage.gaussian_filter(np.random.default_rng(seed).random((14, 15, 16)), 1.0).astype(np.float32)
    high, low = (float(np.quantile(score, q)) for q in (0.97, 0.9))
    seeds, grown = (to_mask(score, Cut(high, smallest, grow), voxel_mm3=1) for grow in (None, low))
    assert (seeds <= grown).all()
    assert (score[grown] >= np.float32(low)).all()
    labels, count = ndimage.label(grown, structure=np.ones((3, 3, 3)))
    assert set(np.unique(labels[seeds])) == set(range(1, count + 1)), "a finding without a seed"
    flooded = ndimage.binary_propagation(seeds, structure=np.ones((3, 3, 3)), mask=score >= np.float32(low))
    assert (grown == flooded).all()


@pytest.mark.parametrize("seed", range(3))
def test_axes_and_their_order_do_not_matter(seed):
    score = ndimage.gaussian_filter(np.random.default_rng(seed).random((9, 12, 11)), 0.8).astype(np.float32)
    cut = Cut(float(np.quantile(score, 0.95)), 2.0, float(np.quantile(score, 0.8)))
    mask, before = to_mask(score, cut, voxel_mm3=1), score.copy()
    assert 0 < mask.sum() < mask.size
    turned = to_mask(np.ascontiguousarray(score.transpose(2, 0, 1)[::-1]), cut, voxel_mm3=1)
    assert (turned == mask.transpose(2, 0, 1)[::-1]).all()
    assert (score == before).all(), "the score is not written into"


@pytest.mark.parametrize("seed", range(3))
def test_a_higher_threshold_marks_less_and_a_lower_growth_more(seed):
    score = ndimage.gaussian_filter(np.random.default_rng(seed).random((12, 12, 12)), 0.9).astype(np.float32)
    steps = [float(q) for q in np.quantile(score, [0.7, 0.8, 0.9, 0.95, 0.99])]
    for smallest in (0.0, 4.0):
        nested = [to_mask(score, Cut(t, smallest, steps[0]), voxel_mm3=1) for t in steps[1:]]
        nested += [to_mask(score, Cut(steps[-1], smallest, g), voxel_mm3=1) for g in steps[1:-1]]
        assert all((inner <= outer).all() for outer, inner in itertools.pairwise(nested))


@pytest.mark.parametrize("grow_to", [0.0, -0.1, 0.5, 0.6, float("nan")])
def test_a_lower_threshold_lies_below_the_threshold(grow_to):
    with pytest.raises(ValueError, match="between 0 and the threshold"):
        Cut(0.5, 0.0, grow_to)


def test_values_inside_a_mask_and_the_box_around_it(rng):
    data, mask = rng.normal(size=(6, 7, 8)).astype(np.float32), np.zeros((6, 7, 8), dtype=bool)
    assert not masked(data, mask).any()
    assert box_of(mask) == (slice(0, 0),) * 3
    mask[2, 3, 5] = mask[4, 3, 7] = True
    assert box_of(mask) == (slice(2, 5), slice(3, 4), slice(5, 8))
    np.testing.assert_array_equal(masked(data, mask, minus=2.5), np.where(mask, data - np.float32(2.5), 0))
