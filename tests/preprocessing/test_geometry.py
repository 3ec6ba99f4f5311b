import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from halebrain.core.mask import box_of
from halebrain.preprocessing.geometry import Grid, apply_affine, resample, resample_all, working_grid


def oblique(shape, spacing, degrees, flips, centre=(0.0, -18.0, 6.0)):
    """Return a grid of any orientation whose middle voxel lies at `centre`."""
    linear = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(np.multiply(spacing, flips))
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = np.asarray(centre) - linear @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def world(grid):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    return apply_affine(grid.affine, index.astype(float)).reshape(*grid.shape, 3)


def test_the_working_grid_is_centred_on_the_template_brain():
    grid = working_grid((96, 96, 80), 2.0)
    assert grid.spacing_mm == (2.0, 2.0, 2.0)
    assert grid.voxel_mm3 == pytest.approx(8.0)
    middle = apply_affine(grid.affine, np.array([[47.5, 47.5, 39.5]]))
    np.testing.assert_allclose(middle, [[0.0, -18.0, 6.0]])


def test_the_same_grid_changes_nothing(rng):
    grid = oblique((9, 10, 11), (1.0, 1.2, 3.0), (10, -20, 30), (1, -1, 1))
    data = rng.random((9, 10, 11)).astype(np.float32)
    np.testing.assert_allclose(resample(data, grid, grid), data, atol=1e-5)


def test_a_linear_ramp_is_resampled_exactly():
    source = oblique((40, 40, 40), (2.0, 2.0, 2.0), (5, 10, -15), (1, 1, -1))
    target = oblique((12, 13, 14), (1.7, 1.5, 1.9), (-20, 8, 3), (-1, 1, 1))
    slope = np.array([0.5, -0.25, 1.0])
    ramp = (world(source) @ slope).astype(np.float32)
    np.testing.assert_allclose(resample(ramp, source, target, antialias=False), world(target) @ slope, atol=1e-3)


def test_values_never_leave_their_range_and_outside_is_zero(rng):
    source = oblique((20, 20, 20), (1.0, 1.0, 1.0), (0, 0, 0), (1, 1, 1))
    data = rng.uniform(0.2, 0.9, (20, 20, 20)).astype(np.float32)
    out = resample(data, source, oblique((30, 30, 30), (2.0, 2.0, 2.0), (20, 0, 10), (1, 1, 1)))
    assert out.min() == 0
    assert out.max() <= data.max()
    assert out[0, 0, 0] == 0


def test_coarser_voxels_average_instead_of_picking():
    source = Grid((64, 64, 64), np.eye(4))
    stripes = np.zeros((64, 64, 64), np.float32)
    stripes[::2] = 1.0
    target = Grid((16, 16, 16), np.diag([4.0, 4.0, 4.0, 1.0]))
    inner = (slice(3, -3),) * 3
    assert resample(stripes, source, target)[inner].std() < 0.02
    assert set(np.unique(resample(stripes, source, target, order=0)[inner])) <= {0.0, 1.0}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(1.2, 3.0)] * 2, st.floats(1.2, 5.0)),
    degrees=st.tuples(*[st.floats(-40, 40)] * 3),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    place=st.tuples(*[st.floats(-25, 25)] * 3),
)
def test_a_label_lands_within_half_a_voxel_on_any_native_grid(spacing, degrees, flips, place):
    working = working_grid((96, 96, 80), 2.0)
    # Every turn of the field of view holds the ball, wherever it is placed.
    shape = tuple(int(130 / s) for s in spacing)
    native = oblique(shape, spacing, degrees, flips)
    centre = np.array([0.0, -18.0, 6.0]) + place
    ball = np.linalg.norm(world(working) - centre, axis=-1) <= 12.0
    back = resample(ball.astype(np.float32), working, native) > 0.5
    found = np.argwhere(back).mean(axis=0)
    expected = apply_affine(np.linalg.inv(native.affine), centre[None])[0]
    assert np.abs(found - expected).max() <= 0.5
    there = resample(back.astype(np.float32), native, working) > 0.5
    centroid = np.argwhere(there).mean(axis=0)
    assert np.abs(centroid - apply_affine(np.linalg.inv(working.affine), centre[None])[0]).max() <= 0.5


def test_the_nearest_of_two_voxels_as_near_is_always_the_later_one():
    data = np.broadcast_to(np.arange(10, dtype=np.float32)[:, None, None], (10, 10, 10))
    source, half = Grid((10, 10, 10), np.eye(4)), np.diag([0.5, 1.0, 1.0, 1.0])
    halved = resample(data, source, Grid((19, 10, 10), half), order=0)
    np.testing.assert_array_equal(halved[:, 5, 5], [0, *np.repeat(np.arange(1, 10), 2)])
    moved = np.eye(4)
    moved[0, 3] = 0.5
    shifted = resample(data, source, Grid((10, 10, 10), moved), order=0)
    np.testing.assert_array_equal(shifted[:, 5, 5], [*range(1, 10), 0])


def test_a_transform_between_spaces_is_followed():
    working = working_grid((64, 64, 64), 2.0)
    move = np.eye(4)
    move[:3, 3] = (10.0, -4.0, 6.0)
    ball = np.linalg.norm(world(working) - (10.0, -22.0, 12.0), axis=-1) <= 10
    shifted = resample(ball.astype(np.float32), working, working, target_to_source=move)
    expected = apply_affine(np.linalg.inv(working.affine), np.array([[0.0, -18.0, 6.0]]))[0]
    np.testing.assert_allclose(np.argwhere(shifted > 0.5).mean(axis=0), expected, atol=0.05)


def test_several_maps_in_a_box_are_those_of_each_alone_to_the_bit():
    rng = np.random.default_rng(3)
    source = Grid((12, 14, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
    turned = np.array([[0.9, 0.1, 0, 3.0], [-0.1, 0.9, 0.05, 2.0], [0, -0.05, 0.9, 1.0], [0, 0, 0, 1.0]])
    target = Grid((25, 28, 19), turned)
    maps = [rng.random(source.shape).astype(np.float32) for _ in range(3)]
    mask = np.zeros(target.shape, dtype=bool)
    mask[3:20, 5:21, 2:17] = True
    found = resample_all(maps, source, target, box=box_of(mask))
    for data, own in zip(maps, found, strict=True):
        assert np.array_equal(own, np.where(mask, resample(data, source, target), 0))
    assert box_of(np.zeros((2, 3, 4), bool)) == (slice(0, 0),) * 3


def test_smoothing_within_the_box_of_a_brain_is_that_of_the_whole_volume_to_the_bit(rng):
    source = Grid((70, 60, 50), np.diag([1.0, 1.0, 1.2, 1.0]))
    data = np.zeros(source.shape, dtype=np.float32)
    data[20:41, 12:30, 0:21] = rng.random((21, 18, 21))
    target = Grid((20, 18, 15), np.diag([3.0, 3.3, 3.5, 1.0]))
    step = np.array([3.0, 3.3, 3.5 / 1.2])
    smooth = ndimage.gaussian_filter(data, np.sqrt(step**2 - 1) / 2.355, mode="constant", truncate=3.0)
    assert np.array_equal(resample(data, source, target), resample(smooth, source, target, antialias=False))
    assert not resample(np.zeros_like(data), source, target).any()


def test_the_number_of_threads_does_not_matter(rng):
    source = Grid((40, 50, 30), np.diag([2.0, 2.0, 2.0, 1.0]))
    turned = np.array([[0.6, 0.1, 0, 3.0], [-0.1, 0.6, 0.05, 2.0], [0, -0.05, 0.4, 1.0], [0, 0, 0, 1.0]])
    target = Grid((130, 120, 110), turned)
    maps = [rng.random(source.shape).astype(np.float32) for _ in range(2)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(resample_all(maps, source, target))
    finally:
        torch.set_num_threads(before)
    assert found[0][0].any()
    assert np.array_equal(found[0], found[1])
